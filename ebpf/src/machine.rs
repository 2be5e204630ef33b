// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What trackers told a process: its sums, changed by its threads one number at a time, and the record of them.
#![expect(unsafe_code, reason = "map values and ring entries are reached through raw pointers")]

use crate::{
    emit::{copy, header, lost, now_ns, submit},
    kernel::process,
    maps::{MACHINE_SUMS, TRACKER_BUCKETS, TRACKER_SUM_NS},
    sums,
};
use aya_ebpf::bindings::BPF_NOEXIST;
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::mem::offset_of;
use migscope_abi::{
    dirty::Outcome,
    latency::bucket,
    machine::{MachineKey, MachineRecord, MachineSums, Tracker},
    probe::Probe,
    ring::{Kind, Lost},
};

/// What a process starts with, for each tracker.
static START: MachineSums = MachineSums {
    queries: [0; Outcome::COUNT],
    pages: 0,
    bytes: 0,
    query_busy_ns: 0,
    tracking: 0,
    all_bytes: 0,
    round_all_bytes: 0,
    round_next: 0,
    last_seen_ns: 0,
};

/// What one tracker told the running process.
#[derive(Clone, Copy)]
pub(crate) struct Machine(*mut MachineSums);

impl Machine {
    /// The sums, which are made if there are none; or counts the loss.
    #[inline(always)]
    pub(crate) fn of(probe: Probe, tracker: Tracker) -> Option<Self> {
        let key = MachineKey { tgid: process(), tracker: tracker as u32 };
        let entry = MACHINE_SUMS.get_ptr_mut(key).or_else(|| {
            // Another thread may have made the entry meanwhile: whoever came first, it is found now.
            #[expect(
                clippy::needless_borrows_for_generic_args,
                reason = "by value it would be copied to the stack"
            )]
            let _ = MACHINE_SUMS.insert(key, &START, u64::from(BPF_NOEXIST));
            MACHINE_SUMS.get_ptr_mut(key)
        });
        if entry.is_none() {
            lost(probe, Lost::MapFull);
        }
        entry.map(Self)
    }

    #[inline(always)]
    fn number(self, offset: usize) -> *mut u64 {
        self.0.cast::<u8>().wrapping_add(offset).cast()
    }

    /// The number at `offset` in [`MachineSums`], in bytes.
    #[inline(always)]
    pub(crate) fn get(self, offset: usize) -> u64 {
        // SAFETY: `self.0` is a value of the map, aligned to eight bytes and alive while the program runs. `MachineSums` is made of
        // nothing but `u64`, and `offset` is that of one of its fields, from `offset_of!`.
        unsafe { self.number(offset).read_volatile() }
    }

    /// Sets the number at `offset`.
    #[inline(always)]
    pub(crate) fn set(self, offset: usize, value: u64) {
        // SAFETY: as in `get`.
        unsafe { self.number(offset).write_volatile(value) };
    }

    /// Adds to the number at `offset`.
    #[inline(always)]
    pub(crate) fn add(self, offset: usize, amount: u64) {
        // SAFETY: as in `get`. Without its result it is one instruction.
        unsafe {
            atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(self.number(offset), amount)
        };
    }

    /// Pages were told, of this size.
    #[inline(always)]
    pub(crate) fn told(self, pages: u64, page_bytes: u64) {
        self.add(offset_of!(MachineSums, pages), pages);
        self.add(offset_of!(MachineSums, bytes), pages.wrapping_mul(page_bytes));
        self.touch();
    }

    /// A query was answered, or refused.
    #[inline(always)]
    pub(crate) fn answered(self, outcome: Outcome) {
        self.add(offset_of!(MachineSums, queries) + 8 * outcome as usize, 1);
        self.touch();
    }

    /// It was called now.
    #[inline(always)]
    pub(crate) fn touch(self) {
        self.set(offset_of!(MachineSums, last_seen_ns), now_ns());
    }

    /// It took that long. One program alone does this for `tracker`.
    #[inline(always)]
    pub(crate) fn took(self, tracker: Tracker, duration_ns: u64) {
        self.add(offset_of!(MachineSums, query_busy_ns), duration_ns);
        if let Some(counts) = TRACKER_BUCKETS.get_ptr_mut(tracker as u32) {
            // SAFETY: this CPU's own value of a per-CPU map, aligned to eight bytes and alive while the program runs; no other program
            // writes it, and this one does not run twice at a time on a CPU (see `crate::maps`).
            sums::add(unsafe { &mut *counts }, bucket(duration_ns), 1);
        }
        if let Some(sum_ns) = TRACKER_SUM_NS.get_ptr_mut(tracker as u32) {
            // SAFETY: as for `counts` above.
            unsafe { *sum_ns = (*sum_ns).wrapping_add(duration_ns) };
        }
    }

    /// Takes a query into its round; `all` of its range may have to be taken for dirty.
    #[inline(always)]
    pub(crate) fn goes_round(self, start: u64, length: u64, all: bool) {
        let next = self.get(offset_of!(MachineSums, round_next));
        if start < next || next == 0 {
            // It begins below where the last one ended: the round before is whole.
            let whole = self.get(offset_of!(MachineSums, round_all_bytes));
            if next != 0 {
                self.set(offset_of!(MachineSums, all_bytes), whole);
            }
            self.set(offset_of!(MachineSums, round_all_bytes), 0);
        }
        if all {
            self.add(offset_of!(MachineSums, round_all_bytes), length);
        }
        self.set(offset_of!(MachineSums, round_next), start.saturating_add(length));
    }
}

/// Tells what all trackers have told the running process, which changes the state of `device`. Most processes were told nothing.
#[inline(always)]
pub(crate) fn tell(probe: Probe, device: u64) {
    let tgid = process();
    let found = Tracker::ALL
        .map(|tracker| MACHINE_SUMS.get_ptr_mut(MachineKey { tgid, tracker: tracker as u32 }));
    if let [None, None, None] = found {
        return;
    }
    submit::<MachineRecord>(probe, Kind::Machine, |entry| {
        // SAFETY: `entry` is the reserved room for one record, aligned to eight bytes, and all of it is written. The sums are live
        // values of the map; what another thread changes meanwhile is one number at a time.
        unsafe {
            (&raw mut (*entry).header).write(header(Kind::Machine));
            (&raw mut (*entry).device).write(device);
            let [type1, iommufd, kvm] = found;
            write(&raw mut (*entry).sums[0], type1);
            write(&raw mut (*entry).sums[1], iommufd);
            write(&raw mut (*entry).sums[2], kvm);
        }
    });
}

/// Writes the sums where there are any.
///
/// # Safety
///
/// `to` has room for them; `from` is a live value of the map.
#[inline(always)]
unsafe fn write(to: *mut MachineSums, from: Option<*mut MachineSums>) {
    // SAFETY: the caller's.
    unsafe {
        match from {
            Some(from) => copy(to, from),
            None => to.write_bytes(0, 1),
        }
    }
}
