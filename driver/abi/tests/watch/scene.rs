// SPDX-License-Identifier: GPL-2.0 OR MIT
//! A device on a stage: what happens to it is told to a watch, as the driver would.

use migscope_abi::region::{Field, Op, HEADER_BYTES};
use migscope_abi::state::{Cause, State};
use migscope_abi::trace;
use migscope_abi::watch::conduct::Conduct;
use migscope_abi::watch::Watch;

/// Where the data window is, as the driver has it.
pub(crate) const DATA: u64 = HEADER_BYTES;
/// Where the bitmap window is.
pub(crate) const BITMAP: u64 = DATA + 0x10000;
const EINVAL: i32 = -22;

/// The device, and what the watch has said so far.
pub(crate) struct Scene {
    watch: Watch,
    /// The state, as a number: a driver may be in one that is none.
    pub(crate) state: u32,
    /// The rules that were broken, in their order.
    pub(crate) broken: Vec<Conduct>,
    /// Records that the watch does not get.
    missed: usize,
}

impl Scene {
    /// A device that the watch has never heard of, and that runs.
    pub(crate) fn unseen() -> Self {
        Self { watch: Watch::START, state: State::Running as u32, broken: Vec::new(), missed: 0 }
    }

    /// A device that was just opened.
    pub(crate) fn opened() -> Self {
        let mut scene = Self::unseen();
        scene.change(State::Running as u32, Cause::Open, 0);
        scene
    }

    /// What the last access told to be withheld.
    pub(crate) fn withheld(&self) -> Option<u64> {
        self.watch.withheld()
    }

    /// From now on the watch does not get the next `records`, and has not had those before.
    pub(crate) fn miss(&mut self, records: usize) {
        (self.watch, self.missed) = (Watch::START, records);
    }

    fn misses(&mut self) -> bool {
        let misses = self.missed > 0;
        self.missed = self.missed.saturating_sub(1);
        misses
    }

    /// A device that came to this state by the way of [`Self::go`].
    pub(crate) fn saving(state: State) -> Self {
        let mut scene = Self::opened();
        scene.go(state);
        scene
    }

    /// The state changes, for whatever cause.
    pub(crate) fn change(&mut self, to: u32, cause: Cause, result: i32) {
        let now = if result < 0 && cause == Cause::Write { self.state } else { to };
        self.tell(to, now, cause, result);
    }

    /// A record of a state, as it stands.
    pub(crate) fn tell(&mut self, requested: u32, now: u32, cause: Cause, result: i32) {
        let from = self.state;
        let (cause, reserved) = (cause as u32, 0);
        let (device, duration_ns) = (7, 1);
        let record =
            trace::State { device, duration_ns, from, requested, now, cause, result, reserved };
        self.state = now;
        if !self.misses() {
            self.broken.extend(self.watch.state_changed(&record).broken);
        }
    }

    /// The client writes a state, and the driver goes there.
    pub(crate) fn go(&mut self, to: State) {
        self.go_to(to as u32);
    }

    /// The same, for any number.
    pub(crate) fn go_to(&mut self, to: u32) {
        self.change(to, Cause::Write, 0);
        self.served(Field::DeviceState, Op::Write, 0, 4, to.into());
    }

    /// The client writes a state, and the driver refuses.
    pub(crate) fn denied(&mut self, to: u32) {
        self.change(to, Cause::Write, EINVAL);
        self.refused(Field::DeviceState, Op::Write, 0, 4);
    }

    fn access(&mut self, field: Field, op: Op, place: (u64, u64), value: u64, result: i64) {
        let (offset, bytes) = place;
        let record = trace::RegionAccess {
            device: 7,
            offset,
            bytes,
            value,
            duration_ns: 1,
            result,
            field: field as u32,
            op: op as u32,
            state: self.state,
            reserved: 0,
        };
        if !self.misses() {
            self.broken.extend(self.watch.access(&record));
        }
    }

    /// An access that the driver serves.
    pub(crate) fn served(&mut self, field: Field, op: Op, offset: u64, bytes: u64, value: u64) {
        let result = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.access(field, op, (offset, bytes), value, result);
    }

    /// An access that the driver refuses.
    pub(crate) fn refused(&mut self, field: Field, op: Op, offset: u64, bytes: u64) {
        self.access(field, op, (offset, bytes), 0, EINVAL.into());
    }

    /// A register reads as `value`.
    pub(crate) fn get(&mut self, field: Field, value: u64) {
        let (offset, bytes) = field.register().expect("a register");
        self.served(field, Op::Read, offset, bytes, value);
    }

    /// A register is written.
    pub(crate) fn put(&mut self, field: Field, value: u64) {
        let (offset, bytes) = field.register().expect("a register");
        self.served(field, Op::Write, offset, bytes, value);
    }

    /// Steps a to c of saving.
    pub(crate) fn stage(&mut self, pending: u64, bytes: u64) {
        self.get(Field::PendingBytes, pending);
        self.get(Field::DataOffset, DATA);
        self.get(Field::DataSize, bytes);
    }

    /// Step d, by a system call.
    pub(crate) fn data(&mut self, at: u64, bytes: u64) {
        self.served(Field::Data, Op::Read, DATA + at, bytes, 0);
    }

    /// Step b of resuming, by a system call.
    pub(crate) fn load(&mut self, at: u64, bytes: u64) {
        self.served(Field::Data, Op::Write, DATA + at, bytes, 0);
    }

    /// Step a of a query.
    pub(crate) fn ask(&mut self, pages: u64) {
        self.put(Field::StartPfn, 16);
        self.put(Field::PageSize, 4096);
        self.put(Field::TotalPfns, pages);
    }

    /// Step d of a query, by a system call.
    pub(crate) fn bitmap(&mut self, at: u64, bytes: u64) {
        self.served(Field::Bitmap, Op::Read, BITMAP + at, bytes, 0);
    }
}
