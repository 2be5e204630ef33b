// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Makes the calls, and records them. What a client remembers of images is remembered here: an operation saves and loads what
//! is there to be saved and loaded.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use migscope_abi::region::{Field, PFNS_ALL, PFNS_NONE};
use rustix::io::{pread, pwrite};
use rustix::time::{ClockId, clock_gettime};

use crate::call::{self, Call, Event, Outcome, Pointer, Region, register};
use crate::generate::Operation;
use crate::model::edu;
use crate::sys::{self, PAGE, Pages};
use crate::target::{COMING, Target, two};

/// How long the driver may take for one call; a transfer takes 100 ms, and several can be waited for in one.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// `VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION`.
const PROBE_MIGRATION: u32 = (1 << 18) | (1 << 16) | 1;
/// Buffers that one operation saves at most: an edu has five.
const BUFFERS: usize = 8;

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in there is a hint at what to write next; any value will do.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let nanoseconds = time.tv_sec * 1_000_000_000 + time.tv_nsec;
    u64::try_from(nanoseconds).expect("the clock counts up from 0")
}

fn outcome(result: io::Result<u64>) -> Outcome {
    match result {
        Ok(value) => Outcome::done(value),
        Err(error) => Outcome::Failed(error.raw_os_error().unwrap_or(0)),
    }
}

pub(crate) fn offset_of(field: Field) -> u64 {
    field.register().map_or(0, |(offset, _)| offset)
}

pub(crate) fn query_registers() -> [Field; 3] {
    [Field::StartPfn, Field::PageSize, Field::TotalPfns]
}

pub(crate) fn read(slot: usize, field: Field) -> Call {
    let (offset, width) = field.register().expect("a register");
    call::read(slot, offset, usize::try_from(width).expect("a width fits"))
}

pub(crate) fn state(slot: usize, state: u32) -> Call {
    call::write(slot, 0, state.to_le_bytes().to_vec())
}

/// One thread's way to the device.
#[derive(Debug)]
pub struct Context<'a> {
    target: &'a Target,
    thread: usize,
    pages: Pages,
}

impl<'a> Context<'a> {
    /// A thread of this number.
    ///
    /// # Errors
    ///
    /// No memory.
    pub fn new(target: &'a Target, thread: usize) -> io::Result<Self> {
        // Two pages that may be touched, before one that may not.
        Ok(Self { target, thread, pages: Pages::new(2 * PAGE)? })
    }

    /// Does an operation and records its calls.
    pub fn perform(&self, operation: &Operation, events: &mut Vec<Event>) {
        match operation.clone() {
            Operation::Call(call) => {
                self.call(call, events);
            }
            Operation::Save { slot, rude } => {
                self.save(slot, rude, events);
            }
            Operation::SaveAll { slot, pre_copy } => {
                held(&self.target.saving).clear();
                if pre_copy {
                    self.call(state(slot, 3), events);
                    self.save(slot, false, events);
                }
                self.call(state(slot, 2), events);
                for _ in 0..BUFFERS {
                    if !self.save(slot, true, events) {
                        break;
                    }
                }
            }
            Operation::Load { slot, bytes, damage } => {
                self.load(slot, bytes, damage, events);
            }
            Operation::LoadAll { slot, bytes, damage } => {
                held(&self.target.loading).1 = 0;
                self.call(state(slot, 1), events);
                self.call(state(slot, 4), events);
                while self.load(slot, bytes.max(50), damage, events) {}
                self.call(state(slot, 1), events);
            }
            Operation::Query { slot, registers, bytes } => {
                self.query(slot, registers, bytes, events);
            }
            Operation::Dirty { slot, dma, stop, query, bytes } => {
                for through in [0, 1, 3] {
                    self.call(state(slot, through), events);
                }
                self.dma(slot, dma, events);
                if stop {
                    self.call(state(slot, 2), events);
                }
                self.query(slot, query, bytes, events);
                self.query(slot, query, usize::MAX, events);
            }
            Operation::Dma { slot, registers } => self.dma(slot, registers, events),
        }
    }

    fn number(&self, slot: usize, field: Field, events: &mut Vec<Event>) -> Option<u64> {
        match self.call(read(slot, field), events) {
            Outcome::Done { bytes, .. } => register(&bytes),
            _ => None,
        }
    }

    /// One buffer, after what must not end it if `rude`; says whether there may be more.
    fn save(&self, slot: usize, rude: bool, events: &mut Vec<Event>) -> bool {
        let pending = self.number(slot, Field::PendingBytes, events);
        if pending == Some(0) {
            let image = std::mem::take(&mut *held(&self.target.saving)).concat();
            if !image.is_empty() {
                *held(&self.target.loading) = (image, 0);
            }
        }
        let (Some(1..), Some(offset), Some(bytes)) = (
            pending,
            self.number(slot, Field::DataOffset, events),
            self.number(slot, Field::DataSize, events),
        ) else {
            return false;
        };
        let Ok(length @ 1..) = usize::try_from(bytes) else { return false };
        if rude {
            self.call(call::read(slot, offset, length.min(1 << 24) + 1), events);
            let (at, bytes) = (offset_of(Field::PendingBytes), 8);
            let (region, pointer) = (Region::Migration, Pointer::Null);
            self.call(Call::Read { slot, region, offset: at, bytes, pointer }, events);
        }
        // Whatever another thread has done to the numbers: no more than there is.
        let data = call::read(slot, offset, length.min(1 << 24));
        let Outcome::Done { bytes, .. } = self.call(data, events) else { return false };
        held(&self.target.saving).push(bytes);
        true
    }

    /// One piece; says whether there may be more.
    fn load(
        &self,
        slot: usize,
        bytes: usize,
        damage: Option<usize>,
        events: &mut Vec<Event>,
    ) -> bool {
        let (mut piece, at) = {
            let (image, at) = &*held(&self.target.loading);
            (image.iter().skip(*at).take(bytes).copied().collect::<Vec<u8>>(), *at)
        };
        if piece.is_empty() {
            return false;
        }
        if let Some(byte) = damage.and_then(|byte| piece.get_mut(byte.checked_sub(at)?)) {
            *byte ^= 0x10;
        }
        let Some(offset) = self.number(slot, Field::DataOffset, events) else { return false };
        let length = piece.len();
        self.call(call::write(slot, offset, piece), events);
        let size = u64::try_from(length).expect("a length fits").to_le_bytes().to_vec();
        let taken = self.call(call::write(slot, offset_of(Field::DataSize), size), events);
        let taken = matches!(taken, Outcome::Done { .. });
        if taken {
            held(&self.target.loading).1 += length;
        }
        taken
    }

    fn dma(&self, slot: usize, registers: [u64; 4], events: &mut Vec<Event>) {
        let offsets = edu::DMA.into_iter().chain([edu::DMA_COMMAND]);
        for (offset, value) in offsets.zip(registers) {
            let data = value.to_le_bytes().to_vec();
            let (region, pointer) = (Region::Bar0, Pointer::Good);
            self.call(Call::Write { slot, region, offset, data, pointer }, events);
        }
    }

    fn query(&self, slot: usize, registers: [u64; 3], bytes: usize, events: &mut Vec<Event>) {
        for (field, value) in query_registers().into_iter().zip(registers) {
            self.call(call::write(slot, offset_of(field), value.to_le_bytes().to_vec()), events);
        }
        let Some(copied) = self.number(slot, Field::CopiedPfns, events) else { return };
        if copied == PFNS_NONE || copied == PFNS_ALL {
            return;
        }
        let Some(offset) = self.number(slot, Field::DataOffset, events) else { return };
        let whole = usize::try_from(copied.div_ceil(64).saturating_mul(8)).unwrap_or(usize::MAX);
        // In the checker's reach: what is dirty is at the start of a long bitmap or not there at all.
        let length = whole.min(bytes).min(1 << 16);
        self.call(call::read(slot, offset, length), events);
    }

    /// Makes a call and records it.
    pub(crate) fn call(&self, call: Call, events: &mut Vec<Event>) -> Outcome {
        let start = now();
        let outcome = self.make(&call);
        let end = now();
        if matches!(outcome, Outcome::Done { .. }) {
            self.remember(&call);
        }
        let thread = self.thread;
        events.push(Event { thread, start, end, call, outcome: outcome.clone() });
        outcome
    }

    /// A client that has changed the state begins its image anew.
    fn remember(&self, call: &Call) {
        match call {
            Call::Write { region: Region::Migration, offset: 0, .. } => {
                held(&self.target.loading).1 = 0;
            }
            Call::Reset { .. } => {
                held(&self.target.saving).clear();
                held(&self.target.loading).1 = 0;
            }
            _ => {}
        }
    }

    fn make(&self, call: &Call) -> Outcome {
        let target = self.target;
        match *call {
            Call::Open { slot } => {
                let mut slot = target.slots[slot].write().unwrap_or_else(PoisonError::into_inner);
                if slot.is_some() {
                    return Outcome::NotMade;
                }
                outcome(sys::device(&target.group, &target.name).map(|device| {
                    *slot = Some(device);
                    0
                }))
            }
            Call::Close { slot } => {
                let mut slot = target.slots[slot].write().unwrap_or_else(PoisonError::into_inner);
                // The last close of the device returns when the driver has cleaned up.
                slot.take().map_or(Outcome::NotMade, |_closed| Outcome::done(0))
            }
            Call::DmaMap { page } => {
                let offset = u64::try_from(page * PAGE).expect("a length fits");
                let address = target.coming.address() + offset;
                outcome(target.map_dma(COMING[page], address, PAGE))
            }
            Call::DmaUnmap { page } => outcome(target.unmap_dma(COMING[page], PAGE)),
            _ => {
                let Some(slot) = call.needs().and_then(|slot| target.slots.get(slot)) else {
                    return Outcome::NotMade;
                };
                let slot = slot.read().unwrap_or_else(PoisonError::into_inner);
                match &*slot {
                    Some(device) => self.on_device(device.as_fd(), call),
                    None => Outcome::NotMade,
                }
            }
        }
    }

    fn on_device(&self, device: BorrowedFd<'_>, call: &Call) -> Outcome {
        let signed = |region, offset| {
            i64::try_from(self.target.place(region, offset)).expect("the index is small")
        };
        match call {
            Call::Read { region, offset, bytes, pointer: Pointer::Good, .. } => {
                let mut buffer = vec![0; *bytes];
                match pread(device, &mut buffer, self.target.place(*region, *offset)) {
                    Ok(done) => {
                        buffer.truncate(done);
                        let value = u64::try_from(done).expect("a length fits");
                        Outcome::Done { value, bytes: buffer }
                    }
                    Err(error) => Outcome::Failed(error.raw_os_error()),
                }
            }
            Call::Write { region, offset, data, pointer: Pointer::Good, .. } => {
                let done = pwrite(device, data, self.target.place(*region, *offset));
                let done = done.map(|done| u64::try_from(done).expect("a length fits"));
                outcome(done.map_err(io::Error::from))
            }
            Call::Read { region, offset, bytes, pointer, .. } => {
                let at = signed(*region, *offset);
                outcome(self.pages.read_badly(device, at, *bytes, *pointer))
            }
            Call::Write { region, offset, data, pointer, .. } => {
                let at = signed(*region, *offset);
                outcome(self.pages.write_badly(device, at, data.len(), *pointer))
            }
            Call::Reset { .. } => outcome(sys::ioctl(device, sys::DEVICE_RESET, 0)),
            Call::DeviceInfo { pointer: Pointer::Good, .. } => {
                let mut info = [0_u32; 6];
                info[0] = 24;
                let done = sys::ioctl_on(device, sys::DEVICE_GET_INFO, &mut info);
                outcome(done.map(|_| info[2].into()))
            }
            Call::DeviceInfo { pointer, .. } => {
                outcome(self.pages.ioctl_badly(device, sys::DEVICE_GET_INFO, *pointer))
            }
            Call::RegionInfo { region, short, .. } => {
                let mut info = [0_u32; 8];
                info[0] = if *short { 16 } else { 32 };
                info[2] = self.target.index(*region);
                let done = sys::ioctl_on(device, sys::DEVICE_GET_REGION_INFO, &mut info);
                outcome(done.map(|_| two(info[4], info[5])))
            }
            Call::Feature { .. } => {
                let mut feature = [8, PROBE_MIGRATION];
                outcome(sys::ioctl_on(device, sys::DEVICE_FEATURE, &mut feature))
            }
            Call::NoIoctl { .. } => outcome(sys::ioctl(device, sys::NO_REQUEST, 0)),
            Call::Map { region, offset, bytes, .. } => {
                let at = signed(*region, *offset);
                outcome(sys::map(device, at, *bytes, self.target.sink.as_fd()))
            }
            Call::Open { .. }
            | Call::Close { .. }
            | Call::DmaMap { .. }
            | Call::DmaUnmap { .. } => Outcome::NotMade,
        }
    }
}
