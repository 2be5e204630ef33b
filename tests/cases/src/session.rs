// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A test's hold on a device: it is opened anew for each test, so each begins with a device that runs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use migrator::PAGE_BYTES;
use migrator::device::{Device, DeviceRegion};
use migrator::memory::DmaMemory;
use migrator::region::{Region, RegionIo as _};
use migscope_abi::device::DeviceKey;
use migscope_abi::dirty::Query;
use migscope_abi::region::{Field, HEADER_BYTES, Layout};
use migscope_abi::rule::Rule;
use migscope_abi::state::State;
use workload::edu::Transfer;

use crate::guest;
use crate::refusal::{self, Refusal};

/// Pages of a test's memory: few, since an emulated machine that is not optimised copies them.
pub const PAGES: u64 = 64;
/// How long a transfer may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An open device.
#[derive(Debug)]
pub struct Session {
    /// The device.
    pub device: Arc<Device>,
    /// Its migration region.
    pub region: Region<DeviceRegion>,
}

/// The memory that tests use.
///
/// # Panics
///
/// When the guest has no such memory.
pub fn memory() -> DmaMemory {
    DmaMemory::new(DmaMemory::DEFAULT_IOVA, PAGES * PAGE_BYTES).expect("there is memory")
}

impl Session {
    /// Opens the first device, or the second.
    ///
    /// # Panics
    ///
    /// When it cannot be opened.
    pub fn open(which: usize) -> Self {
        Self::open_with(which, memory())
    }

    /// The same, with other memory.
    ///
    /// # Panics
    ///
    /// When it cannot be opened.
    pub fn open_with(which: usize, memory: DmaMemory) -> Self {
        Self::open_device(guest::devices()[which], memory)
    }

    /// Opens this device.
    ///
    /// # Panics
    ///
    /// When it cannot be opened.
    pub fn open_device(key: DeviceKey, memory: DmaMemory) -> Self {
        let device = Device::open(key, memory).expect("the device opens");
        let region = device.region();
        Self { device, region }
    }

    /// Opens the first device.
    ///
    /// # Panics
    ///
    /// When it cannot be opened.
    pub fn first() -> Self {
        Self::open(0)
    }

    /// The same, in a state.
    ///
    /// # Panics
    ///
    /// When the state cannot be reached, which only error cannot.
    pub fn first_in(state: State) -> Self {
        let mut session = Self::first();
        session.bring_to(state);
        session
    }

    /// Brings a running device to a state.
    ///
    /// # Panics
    ///
    /// When it refuses.
    pub fn bring_to(&mut self, state: State) {
        if state != State::Running {
            self.region.set_state(state).expect("every state but error is one arc from running");
        }
        assert_eq!(self.state(), state);
    }

    /// The state that the device says it is in.
    ///
    /// # Panics
    ///
    /// When it does not say.
    pub fn state(&self) -> State {
        let raw = self.read(0, 4).expect("device_state can always be read");
        let raw = u32::from_ne_bytes(raw.try_into().expect("four bytes"));
        State::try_from(raw).expect("a state")
    }

    /// One read, as it is.
    ///
    /// # Errors
    ///
    /// What the driver refused with.
    pub fn read(&self, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut into = vec![0xa5; bytes];
        let done = self.region.io().read_at(offset, &mut into)?;
        into.truncate(done);
        Ok(into)
    }

    /// One write, as it is.
    ///
    /// # Errors
    ///
    /// What the driver refused with.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.region.io().write_at(offset, bytes)
    }

    /// Writes a register of 64 bits.
    ///
    /// # Errors
    ///
    /// What the driver refused with.
    pub fn put(&self, field: Field, value: u64) -> io::Result<usize> {
        self.write(offset_of(field), &value.to_ne_bytes())
    }

    /// Reads a register of 64 bits.
    ///
    /// # Errors
    ///
    /// What the driver refused with.
    ///
    /// # Panics
    ///
    /// When it gives another number of bytes.
    pub fn get(&self, field: Field) -> io::Result<u64> {
        let bytes = self.read(offset_of(field), 8)?;
        Ok(u64::from_ne_bytes(bytes.try_into().expect("a register is read whole or not at all")))
    }

    /// Asserts that the driver refuses by this rule: with its errno, traced once, and the state is what it was.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn refuses<T: std::fmt::Debug>(
        &self,
        rule: Rule,
        what: &str,
        access: impl FnOnce(&Self) -> io::Result<T>,
    ) {
        let got = self.refusal(what, access);
        assert_eq!(got.rule, rule, "{what}: refused by another rule");
    }

    /// Asserts that the driver refuses as it must, and gives what it traced.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn refusal<T: std::fmt::Debug>(
        &self,
        what: &str,
        access: impl FnOnce(&Self) -> io::Result<T>,
    ) -> Refusal {
        let before = self.state();
        refusal::forget().expect("tracefs has the driver's events");
        let error = access(self).expect_err(what);
        let mut traced = refusal::of(self.device.key()).expect("tracefs is there");
        let (Some(refused), []) = (traced.pop(), traced.as_slice()) else {
            panic!("{what}: not one refusal was traced, but {traced:?} ({error})");
        };
        let rule = refused.rule;
        assert_eq!(error.raw_os_error(), Some(rule.errno()), "{what}: the errno of {rule:?}");
        assert_eq!(refused.errno, -rule.errno(), "{what}: the traced errno of {rule:?}");
        assert_eq!(refused.state, before.name(), "{what}: the traced state");
        assert_eq!(self.state(), before, "{what}: the state changed");
        refused
    }

    /// The lengths of the windows: the data window starts where `data_offset` says while nothing is saved, and the bitmap window
    /// takes up the rest from where it says after a query that has a bitmap.
    ///
    /// # Panics
    ///
    /// When the driver does not say. Leaves the device running and its log empty.
    pub fn layout(&mut self) -> Layout {
        self.bring_to(State::PreCopy);
        self.store(1, 8);
        self.region.ask_dirty(self.pfn(0), PAGE_BYTES, PAGES).expect("a query is answered");
        let bitmap_at = self.get(Field::DataOffset).expect("data_offset can be read");
        self.region.set_state(State::Running).expect("pre-copy can be left");
        assert_eq!(self.get(Field::DataOffset).expect("data_offset can be read"), HEADER_BYTES);
        let bytes = |length: u64| u32::try_from(length).expect("windows are small");
        Layout {
            data_bytes: bytes(bitmap_at - HEADER_BYTES),
            bitmap_bytes: bytes(self.region.region_bytes() - bitmap_at),
        }
    }

    /// The frame number of a page of the test's memory.
    pub fn pfn(&self, page: u64) -> u64 {
        self.device.memory().first_pfn() + page
    }

    /// Lets the device write `bytes` to the start of a page, and waits for it.
    ///
    /// # Panics
    ///
    /// When the device does not.
    pub fn store(&self, page: u64, bytes: u32) {
        let edu = self.device.edu();
        edu.transfer(self.store_to(page, bytes), PATIENCE).expect("the device writes to memory");
    }

    /// The transfer that [`Self::store`] makes.
    pub fn store_to(&self, page: u64, bytes: u32) -> Transfer {
        let memory = self.pfn(page) * PAGE_BYTES;
        Transfer { memory, buffer_at: 0, bytes, to_memory: true }
    }

    /// A query for all of the test's memory.
    ///
    /// # Panics
    ///
    /// Never.
    pub fn everything(&self) -> Query {
        Query::new(self.pfn(0), PAGE_BYTES, PAGES).expect("the memory has pages")
    }

    /// Which pages of the test's memory are reported dirty, counted from its start.
    ///
    /// # Panics
    ///
    /// When the query fails.
    pub fn dirty(&mut self) -> Vec<u64> {
        let first = self.pfn(0);
        let set = self.region.dirty_pages(self.everything()).expect("the query is answered");
        set.iter().map(|pfn| pfn - first).collect()
    }

    /// Stops the device, saves it, and lets it run again: the buffers in their order.
    ///
    /// # Panics
    ///
    /// When a step fails.
    pub fn image(&mut self) -> Vec<Vec<u8>> {
        self.region.set_state(State::StopAndCopy).expect("the device stops");
        let mut buffers = Vec::new();
        while let Some(buffer) = self.region.next_buffer(State::StopAndCopy).expect("data comes") {
            buffers.push(buffer);
        }
        self.region.set_state(State::Running).expect("saving can be cancelled");
        buffers
    }
}

/// Where a register is.
///
/// # Panics
///
/// When the field is a window.
pub fn offset_of(field: Field) -> u64 {
    field.register().expect("a register").0
}
