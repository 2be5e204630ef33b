// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The records of a migration, as the driver would emit them: for devices that are not there.
//!
//! ```text
//!   open ─▶ pre_copy ─▶ { 4 transfers, query, buffer } × ITERATIONS ─▶ stop_and_copy ─▶ the same once ─▶ stopped ─▶ close ─▶ open
//! ```
//!
//! The accesses are those of the RFC's sequences, each with its record, so that the probes find nothing to object to: the benchmark
//! makes sure of that. Times within a record are of the size that the emulated guest has.

use migscope_abi::device::DeviceKey;
use migscope_abi::dirty::Outcome;
use migscope_abi::probe::Probe;
use migscope_abi::region::{Field, HEADER_BYTES, Op};
use migscope_abi::rule::Rule;
use migscope_abi::state::{Cause, State};
use migscope_abi::trace::{self, DataDirection, DmaDirection};
use zerocopy::{Immutable, IntoBytes};

/// Buffers of device data, and dirty queries, before the device stops.
const ITERATIONS: u64 = 8;
/// Length of a buffer, in bytes.
const BUFFER_BYTES: u64 = 3000;
/// Pages that a query asks for.
const PAGES: u64 = 64;
const PAGE_BYTES: u64 = 4096;
/// Where the bitmap window is.
const BITMAP: u64 = HEADER_BYTES + 0x10_0000;

/// One record and the tracepoint that carries it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// Which tracepoint.
    pub(super) event: Probe,
    /// The record.
    pub(super) bytes: Vec<u8>,
}

/// The records of one device, in the making.
struct Script {
    device: u64,
    state: State,
    iteration: u64,
    records: Vec<Record>,
}

/// A device is opened and runs.
pub(super) fn open(device: DeviceKey) -> Vec<Record> {
    let mut script = Script::new(device);
    script.change(State::Running, Cause::Open);
    script.records
}

/// A device that runs migrates away, is closed, and is opened again.
pub(super) fn migration(device: DeviceKey) -> Vec<Record> {
    let mut script = Script::new(device);
    script.go(State::PreCopy);
    for left in (1..=ITERATIONS).rev() {
        for _ in 0..4 {
            script.dma();
        }
        script.query();
        script.buffer(left * BUFFER_BYTES);
    }
    script.go(State::StopAndCopy);
    script.query();
    script.buffer(BUFFER_BYTES);
    script.read(Field::PendingBytes, 0);
    script.go(State::Stopped);
    script.change(State::Running, Cause::Close);
    script.change(State::Running, Cause::Open);
    script.records
}

/// A read of two bytes of `device_state`, which the driver refuses.
pub(super) fn refusal(device: DeviceKey) -> Vec<Record> {
    let mut script = Script::new(device);
    let rule = Rule::FieldWidth;
    let errno = -rule.errno();
    let record = trace::Error {
        device: device.0,
        offset: 0,
        bytes: 2,
        value: 0,
        rule: rule as u32,
        errno,
        field: Field::DeviceState as u32,
        op: Op::Read as u32,
        state: script.state as u32,
        reserved: 0,
    };
    script.emit(Probe::Error, &record);
    script.records
}

impl Script {
    fn new(device: DeviceKey) -> Self {
        Self { device: device.0, state: State::Running, iteration: 0, records: Vec::new() }
    }

    fn emit(&mut self, event: Probe, record: &(impl IntoBytes + Immutable)) {
        self.records.push(Record { event, bytes: record.as_bytes().to_vec() });
    }

    fn change(&mut self, to: State, cause: Cause) {
        let record = trace::State {
            device: self.device,
            duration_ns: 20_000,
            from: self.state as u32,
            requested: to as u32,
            now: to as u32,
            cause: cause as u32,
            result: 0,
            reserved: 0,
        };
        self.state = to;
        self.emit(Probe::State, &record);
    }

    fn go(&mut self, to: State) {
        self.change(to, Cause::Write);
        self.access(Field::DeviceState, Op::Write, (0, 4), u64::from(to as u32));
    }

    fn access(&mut self, field: Field, op: Op, (offset, bytes): (u64, u64), value: u64) {
        let record = trace::RegionAccess {
            device: self.device,
            offset,
            bytes,
            value,
            duration_ns: 3_000 + self.iteration * 500,
            result: i64::try_from(bytes).expect("an access is short"),
            field: field as u32,
            op: op as u32,
            state: self.state as u32,
            reserved: 0,
        };
        self.emit(Probe::RegionAccess, &record);
    }

    fn read(&mut self, field: Field, value: u64) {
        self.access(field, Op::Read, field.register().expect("a register"), value);
    }

    fn write(&mut self, field: Field, value: u64) {
        self.access(field, Op::Write, field.register().expect("a register"), value);
    }

    /// One buffer of device data; the read of `pending_bytes` that ends it is the next one's first.
    fn buffer(&mut self, pending_bytes: u64) {
        self.iteration += 1;
        self.read(Field::PendingBytes, pending_bytes);
        self.read(Field::DataOffset, HEADER_BYTES);
        self.read(Field::DataSize, BUFFER_BYTES);
        self.access(Field::Data, Op::Read, (HEADER_BYTES, BUFFER_BYTES), 0);
        let record = trace::Data {
            device: self.device,
            bytes: BUFFER_BYTES,
            iteration: self.iteration,
            pending_bytes: pending_bytes.saturating_sub(BUFFER_BYTES),
            duration_ns: 30_000,
            direction: DataDirection::Save as u32,
            state: self.state as u32,
        };
        self.emit(Probe::Data, &record);
    }

    /// One dirty query, whose answer is a bitmap.
    fn query(&mut self) {
        self.write(Field::StartPfn, 0x100);
        self.write(Field::PageSize, PAGE_BYTES);
        self.write(Field::TotalPfns, PAGES);
        let record = trace::DirtyQuery {
            device: self.device,
            start_pfn: 0x100,
            page_bytes: PAGE_BYTES,
            total_pfns: PAGES,
            copied_pfns: PAGES,
            dirty_pages: 4,
            duration_ns: 15_000,
            outcome: Outcome::Bitmap as u32,
            result: 0,
        };
        self.emit(Probe::DirtyQuery, &record);
        self.read(Field::CopiedPfns, PAGES);
        self.read(Field::DataOffset, BITMAP);
        self.access(Field::Bitmap, Op::Read, (BITMAP, PAGES / 8), 0);
    }

    /// One transfer of the device to memory.
    fn dma(&mut self) {
        let record = trace::Dma {
            device: self.device,
            iova: 0x10_0000,
            bytes: PAGE_BYTES,
            logged_pages: 1,
            direction: DmaDirection::ToMemory as u32,
            state: self.state as u32,
            result: 0,
            reserved: 0,
        };
        self.emit(Probe::Dma, &record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migscope_abi::watch::Watch;
    use zerocopy::FromBytes as _;

    #[test]
    fn the_watch_has_nothing_to_object_to() {
        let device = DeviceKey::pci(1, 2, 3);
        let mut watch = Watch::START;
        let mut judged = 0;
        for record in open(device).into_iter().chain(migration(device)).chain(migration(device)) {
            let broken = match record.event {
                Probe::State => {
                    let record = trace::State::read_from_bytes(&record.bytes).expect("whole");
                    watch.state_changed(&record).broken
                }
                Probe::RegionAccess => {
                    let record =
                        trace::RegionAccess::read_from_bytes(&record.bytes).expect("whole");
                    watch.access(&record)
                }
                _ => continue,
            };
            judged += 1;
            assert_eq!(broken, None, "{record:?}");
        }
        assert!(judged > 150, "{judged} records were judged");
    }

    #[test]
    fn every_tracepoint_of_a_migration_that_goes_well_has_records() {
        let records = migration(DeviceKey::pci(0, 0, 0));
        for event in Probe::ALL
            .into_iter()
            .filter(|probe| probe.is_of_our_driver() && *probe != Probe::Error)
        {
            assert!(records.iter().any(|record| record.event == event), "{event:?}");
        }
    }
}
