// SPDX-License-Identifier: GPL-2.0 OR MIT
//! A call on a tracker, from its beginning to its end.
//!
//! ```text
//!   type1, hwpt_bitmap, hwpt_tracking, kvm   begins ──▶ TRACKER_CALLS[thread]: what is asked, since when
//!   …_return                                 ends ────▶ MACHINE_SUMS[process, tracker]
//! ```
#![expect(unsafe_code, reason = "map values are reached through raw pointers")]

use crate::{
    bitmap,
    emit::{lost, now_ns, seen},
    kernel::thread,
    machine::Machine,
    maps::{TRACKER_CALLS, TrackerCall},
};
use aya_ebpf::bindings::BPF_ANY;
use core::mem::offset_of;
use migscope_abi::{
    dirty::Outcome,
    machine::{MachineSums, Tracker},
    probe::Probe,
    ring::Lost,
};

/// What is asked of a tracker.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Asked {
    /// To begin.
    Start = 0,
    /// To end.
    Stop = 1,
    /// For a bitmap of what is dirty.
    Bitmap = 2,
    /// For one while the memory is taken away.
    LastBitmap = 3,
    /// To forget what it told.
    Clear = 4,
    /// To take places of its ring back.
    Reset = 5,
}

/// What was not counted.
pub(crate) const UNCOUNTED: u64 = u64::MAX;

impl TrackerCall {
    /// A call that begins now.
    #[inline(always)]
    pub(crate) fn new(asked: Asked) -> Self {
        Self {
            began_ns: now_ns(),
            object: 0,
            bitmap: 0,
            start_page: 0,
            pages: 0,
            page_bytes: 0,
            bits_before: 0,
            asked: asked as u32,
            flags: 0,
            slot: 0,
        }
    }

    /// Whether it asks for this.
    #[inline(always)]
    pub(crate) fn asks(&self, asked: Asked) -> bool {
        self.asked == asked as u32
    }

    /// The bits that are set in its bitmap; [`UNCOUNTED`] for one that is too long.
    #[inline(always)]
    pub(crate) fn count(&self) -> u64 {
        bitmap::count(self.bitmap, self.pages).unwrap_or(UNCOUNTED)
    }

    /// Bytes that it is about.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> u64 {
        self.pages.wrapping_mul(self.page_bytes)
    }

    /// Remembers that the running thread is in it.
    #[inline(always)]
    pub(crate) fn begins(&self, probe: Probe) {
        // One that is there was seen to begin and not to end.
        if TRACKER_CALLS.remove(thread()).is_ok() {
            lost(probe, Lost::Unfinished);
        }
        if TRACKER_CALLS.insert(thread(), self, u64::from(BPF_ANY)).is_err() {
            lost(probe, Lost::MapFull);
        }
    }
}

/// The call that the running thread was in.
#[inline(always)]
pub(crate) fn ends(probe: Probe) -> Option<TrackerCall> {
    // SAFETY: the value is copied at once; it belongs to the running thread, which runs this program alone.
    let call = unsafe { TRACKER_CALLS.get(thread()) }.copied()?;
    // It was there a moment ago, and is the running thread's alone.
    let _ = TRACKER_CALLS.remove(thread());
    seen(probe);
    Some(call)
}

/// Tracking was switched on or off.
#[inline(always)]
pub(crate) fn switched(probe: Probe, tracker: Tracker, on: bool) {
    if let Some(machine) = Machine::of(probe, tracker) {
        machine.set(offset_of!(MachineSums, tracking), u64::from(on));
        machine.touch();
    }
}

/// A query was answered.
#[inline(always)]
pub(crate) fn answered(
    probe: Probe,
    tracker: Tracker,
    call: &TrackerCall,
    ended_ns: u64,
    outcome: Outcome,
    pages: u64,
) -> Option<Machine> {
    let machine = Machine::of(probe, tracker)?;
    machine.answered(outcome);
    machine.told(pages, call.page_bytes);
    machine.took(tracker, ended_ns.saturating_sub(call.began_ns));
    Some(machine)
}
