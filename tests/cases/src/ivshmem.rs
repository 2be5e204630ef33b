// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A test's hold on a device that is a memory, and migrations of it in steps that a test can look at.
//!
//! ```text
//!   Ivshmem (saving) ──step──▶ Buffer: what is pending, the bytes, the pages in them ──take──▶ Ivshmem (resuming)
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::Arc;

use migrator::device::DeviceBar;
use migscope_abi::device::DeviceKey;
use migscope_abi::state::State;
use workload::content::{Content, Ground, PAGE};
use workload::edu::Registers;
use workload::ivshmem::{ByCalls, IDS, MEMORY_BAR, REGISTERS_BAR};
use workload::mapping::Mapping;

use crate::guest;
use crate::records::{self, Record, Run};
use crate::session::{self, Session};

/// The devices of this kind with so many bytes of memory, in the order of their addresses.
///
/// # Panics
///
/// When there is none: the guest is not what it should be (`xtask/src/test/machines.rs`).
pub fn devices(bytes: u64) -> Vec<DeviceKey> {
    let mut devices = guest::devices_of(IDS);
    devices.retain(|device| memory_bytes(*device) == Some(bytes));
    assert!(!devices.is_empty(), "no ivshmem device of {bytes} bytes is bound to vfio_mediate");
    devices
}

/// Length of a device's memory: `resource` has a line `START END FLAGS` for each BAR.
fn memory_bytes(device: DeviceKey) -> Option<u64> {
    let path = format!("/sys/bus/pci/devices/{device}/resource");
    let resources = fs::read_to_string(path).ok()?;
    let line = resources.lines().nth(usize::try_from(MEMORY_BAR).ok()?)?;
    let mut places =
        line.split(' ').map(|place| u64::from_str_radix(place.strip_prefix("0x")?, 16).ok());
    let (start, end) = (places.next()??, places.next()??);
    Some(end - start + 1)
}

/// An open device.
#[derive(Debug)]
pub struct Ivshmem {
    /// What every device has.
    pub session: Session,
    memory: DeviceBar,
}

/// One step of saving.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// What the device said was pending before it.
    pub pending: u64,
    /// The bytes; none when there was nothing to be sent.
    pub bytes: Vec<u8>,
}

impl Buffer {
    /// The records of device memory in it. A buffer is whole records.
    ///
    /// # Panics
    ///
    /// When it is not.
    pub fn runs(&self) -> Vec<Run> {
        let (records, _) = records::split(&self.bytes);
        records.iter().filter_map(Record::memory).collect()
    }
}

/// What some steps of saving gave.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    /// The buffers, none of which is empty.
    pub buffers: Vec<Buffer>,
    /// What was pending after the last.
    pub pending: u64,
}

impl Saved {
    /// All bytes.
    pub fn image(&self) -> Vec<u8> {
        let bytes: Vec<&[u8]> = self.buffers.iter().map(|buffer| buffer.bytes.as_slice()).collect();
        bytes.concat()
    }

    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.buffers.iter().map(|buffer| u64::try_from(buffer.bytes.len()).unwrap_or(0)).sum()
    }

    /// The pages that were sent, in their order, each as often as it was.
    pub fn pages(&self) -> Vec<u64> {
        let runs = self.buffers.iter().flat_map(Buffer::runs);
        runs.flat_map(|run| run.first..run.first + run.pages).collect()
    }

    /// Asserts that these pages were sent, each once.
    ///
    /// # Panics
    ///
    /// When others were.
    pub fn assert_pages(&self, what: &str, expected: impl IntoIterator<Item = u64>) {
        let sent = self.pages();
        let set: BTreeSet<u64> = sent.iter().copied().collect();
        let expected: BTreeSet<u64> = expected.into_iter().collect();
        let shown = |pages: BTreeSet<u64>| pages.into_iter().take(8).collect::<Vec<_>>();
        let missing = shown(expected.difference(&set).copied().collect());
        let extra = shown(set.difference(&expected).copied().collect());
        assert!(
            set == expected,
            "{what}: {} pages were sent, {} should; missing {missing:?}…, too many {extra:?}…",
            set.len(),
            expected.len()
        );
        assert_eq!(sent.len(), set.len(), "{what}: a page was sent twice in one pass");
    }

    /// Asserts what must hold of `pending_bytes` when nothing is written: it is never less than what is still to be sent, of
    /// which `later` bytes come after these buffers, and never absurd.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn assert_pending(&self, later: u64, pages: u64) {
        let mut left = self.bytes() + later;
        // A page costs itself and two heads, twice if it was written again before its turn came; there are a few records beside.
        let most = 2 * pages * (4096 + 64) + 4096;
        for (step, buffer) in self.buffers.iter().enumerate() {
            let pending = buffer.pending;
            assert!(pending >= left, "step {step}: {pending} bytes pending, {left} were to come");
            assert!(
                pending <= most,
                "step {step}: {pending} bytes pending of a memory of {pages} pages"
            );
            left -= u64::try_from(buffer.bytes.len()).expect("fits");
        }
        assert!(self.pending >= later, "{} bytes pending, {later} were to come", self.pending);
    }
}

impl Ivshmem {
    /// Opens the first device with so many bytes of memory, or the second.
    ///
    /// # Panics
    ///
    /// When it cannot be opened.
    pub fn open(bytes: u64, which: usize) -> Self {
        let session = Session::open_device(devices(bytes)[which], session::memory());
        let memory = session.device.bar(MEMORY_BAR);
        assert_eq!(memory.placed().bytes, bytes, "VFIO says another length than sysfs");
        Self { session, memory }
    }

    /// Length of its memory, in bytes.
    pub fn bytes(&self) -> u64 {
        self.memory.placed().bytes
    }

    /// Length of its memory, in pages.
    pub fn pages(&self) -> u64 {
        self.bytes() / PAGE as u64
    }

    /// The registers.
    pub fn registers(&self) -> DeviceBar {
        self.session.device.bar(REGISTERS_BAR)
    }

    /// Reads a register.
    ///
    /// # Panics
    ///
    /// When it cannot be read.
    pub fn register(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.registers().read(offset, &mut bytes).expect("a register");
        u32::from_le_bytes(bytes)
    }

    /// The memory, by system calls.
    pub fn calls(&self) -> ByCalls<DeviceBar> {
        ByCalls(self.memory.clone())
    }

    /// The memory, mapped.
    ///
    /// # Panics
    ///
    /// When it cannot be mapped.
    pub fn map(&self) -> Arc<Mapping> {
        let bytes = usize::try_from(self.bytes()).expect("fits");
        let place = self.memory.placed().offset;
        Arc::new(Mapping::of(&self.session.device, place, bytes).expect("the memory is mapped"))
    }

    /// One write to the memory by system call.
    ///
    /// # Errors
    ///
    /// What the driver refused with.
    pub fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.memory.write(at, bytes)
    }

    /// One read of the memory by system call.
    ///
    /// # Errors
    ///
    /// What the driver refused with.
    pub fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.memory.read(at, into)
    }

    /// Gives the memory a content.
    ///
    /// # Panics
    ///
    /// When it cannot be mapped.
    pub fn fill(&self, ground: Ground) -> Content {
        let content = Content::new(ground, self.pages());
        let mapping = self.map();
        let put = content.put(|at, bytes| {
            mapping.write(usize::try_from(at).expect("fits"), bytes);
            Ok(())
        });
        put.expect("a mapping is written");
        content
    }

    /// Asserts that the memory holds this.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn assert_holds(&self, what: &str, content: &Content) {
        let mapping = self.map();
        let difference = content.difference(|at, into| {
            mapping.read(usize::try_from(at).expect("fits"), into);
            Ok(())
        });
        let difference = difference.expect("a mapping is read");
        assert!(difference.is_none(), "{what}: {difference:?}");
    }

    /// One step of saving: what is pending, and a buffer. A read of what is pending ends the buffer before.
    ///
    /// # Panics
    ///
    /// When the driver refuses.
    pub fn step(&mut self) -> Buffer {
        let region = &mut self.session.region;
        let pending = region.pending_bytes().expect("what is pending can be asked");
        let bytes = match pending {
            0 => Vec::new(),
            _ => region.save_buffer().expect("a buffer"),
        };
        Buffer { pending, bytes }
    }

    /// Saves until there is nothing now: in pre-copy whatever is left for stop-and-copy stays pending.
    ///
    /// # Panics
    ///
    /// When the driver refuses; when in stop-and-copy something is pending and nothing comes.
    pub fn drain(&mut self) -> Saved {
        let mut saved = Saved::default();
        loop {
            let buffer = self.step();
            if buffer.bytes.is_empty() {
                let stands = self.session.state() == State::StopAndCopy;
                assert!(!stands || buffer.pending == 0, "{} bytes are withheld", buffer.pending);
                saved.pending = buffer.pending;
                return saved;
            }
            saved.buffers.push(buffer);
        }
    }

    /// Saves as much as is pending at first, or until there is nothing now: about one pass, whatever is written meanwhile.
    ///
    /// # Panics
    ///
    /// When the driver refuses.
    pub fn round(&mut self) -> Saved {
        let mut saved = Saved::default();
        let mut left = None;
        loop {
            let buffer = self.step();
            saved.pending = buffer.pending;
            let bytes = u64::try_from(buffer.bytes.len()).expect("fits");
            let before = *left.get_or_insert(buffer.pending);
            if bytes == 0 {
                return saved;
            }
            saved.buffers.push(buffer);
            left = Some(before.saturating_sub(bytes));
            if left == Some(0) {
                saved.pending = self.session.region.pending_bytes().expect("it can be asked");
                return saved;
            }
        }
    }

    /// Stops the device and saves what is left. The end of the image comes last, and nothing is pending after it only.
    ///
    /// # Panics
    ///
    /// When the driver refuses, or says something else of what is pending.
    pub fn stop_and_drain(&mut self) -> Saved {
        self.session.region.set_state(State::StopAndCopy).expect("the device stops");
        let saved = self.drain();
        saved.assert_pending(0, self.pages());
        let image = saved.image();
        let end = image.len().checked_sub(records::HEAD_BYTES + 16).expect("an end");
        assert_eq!(image[end + 6..end + 8], records::END.to_le_bytes(), "no end came");
        saved
    }

    /// Cancels saving: the device runs on.
    ///
    /// # Panics
    ///
    /// When it refuses.
    pub fn cancel(&mut self) {
        self.session.region.set_state(State::Running).expect("saving can be cancelled");
    }

    /// Takes a part of an image in.
    ///
    /// # Panics
    ///
    /// When it is refused.
    pub fn take(&mut self, saved: &Saved) {
        for buffer in &saved.buffers {
            self.session.region.load_buffer(&buffer.bytes).expect("a good buffer");
        }
    }

    /// Takes in an image that is not in buffers of the driver's making.
    ///
    /// # Panics
    ///
    /// When it is refused.
    pub fn take_image(&mut self, image: &[u8]) {
        for piece in image.chunks(PAGE * 8) {
            self.session.region.load_buffer(piece).expect("a good piece");
        }
    }

    /// Begins to take an image in.
    ///
    /// # Panics
    ///
    /// When it refuses.
    pub fn resume(&mut self) {
        self.session.bring_to(State::Resuming);
    }

    /// The image is complete: the device runs.
    ///
    /// # Panics
    ///
    /// When it is not.
    pub fn commit(&mut self) {
        self.session.region.set_state(State::Running).expect("the image is complete");
    }
}

/// Minor faults of this thread so far: those that found the memory there and had to map it.
///
/// # Panics
///
/// When procfs does not say.
pub fn minor_faults() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/stat").expect("procfs");
    // The name, which may hold anything, ends with the last parenthesis; the eighth field after it is `minflt`.
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    fields.split(' ').nth(7).and_then(|field| field.parse().ok()).expect("a number")
}
