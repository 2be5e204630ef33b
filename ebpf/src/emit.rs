// SPDX-License-Identifier: GPL-2.0 OR MIT
//! From a probe into the ring: reading a tracepoint's record, reserving, submitting, and counting what is lost on the way.
#![expect(unsafe_code, reason = "kernel memory and map values are reached through raw pointers")]

use crate::maps::{EVENTS, EVENTS_BYTES, LOST, SEEN};
use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{
        bpf_get_current_pid_tgid, bpf_probe_read_kernel,
        generated::{self, bpf_ktime_get_ns},
    },
    maps::PerCpuArray,
    programs::RawTracePointContext,
};
use migscope_abi::{
    probe::Probe,
    ring::{Header, Kind, Lost},
};

/// Reads the record of a tracepoint and counts it, or counts the loss.
#[inline(always)]
pub(crate) fn record<T: Copy + 'static>(ctx: &RawTracePointContext, probe: Probe) -> Option<T> {
    let source: *const T = ctx.arg(0);
    // SAFETY: the helper takes any address: it fails where there is nothing to read and never faults. `T` is one of the records
    // of `migscope_abi::trace`, integers only, for which every bit pattern is a value.
    match unsafe { bpf_probe_read_kernel(source) } {
        Ok(record) => {
            seen(probe);
            Some(record)
        }
        Err(_) => {
            lost(probe, Lost::Unreadable);
            None
        }
    }
}

/// Puts a record into the ring. `fill` initialises all of it.
///
/// A record wakes the agent only where somebody waits for it: a change of state. The others wait until the agent comes by itself,
/// a few times a second, or until a quarter of the ring is full. To wake a process costs the migration more than the record does.
#[inline(always)]
pub(crate) fn submit<T: 'static>(probe: Probe, kind: Kind, fill: impl FnOnce(*mut T)) {
    match EVENTS.reserve::<T>(0) {
        Some(mut entry) => {
            fill(entry.as_mut_ptr());
            let wake = matches!(kind, Kind::State | Kind::MigState)
                || EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) > u64::from(EVENTS_BYTES / 4);
            let flag = if wake { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
            entry.submit(u64::from(flag));
        }
        None => lost(probe, Lost::RingFull),
    }
}

/// Copies what a map holds into a record, in whole words. A helper does it, which is one step for the verifier, however long it is and from
/// however many ways it comes there.
///
/// # Safety
///
/// `to` has room for it, and `from` is a live value; both are aligned to eight bytes.
#[inline(always)]
pub(crate) unsafe fn copy<T>(to: *mut T, from: *const T) {
    #[expect(clippy::cast_possible_truncation, reason = "some hundred bytes")]
    let bytes = size_of::<T>() as u32;
    // SAFETY: the caller's promise. There is something to read, so it does not fail.
    let _ = unsafe { generated::bpf_probe_read_kernel(to.cast(), bytes, from.cast()) };
}

/// The head of a record that is made now.
#[inline(always)]
pub(crate) fn header(kind: Kind) -> Header {
    Header {
        monotonic_ns: now_ns(),
        kind: kind as u32,
        // The upper half is the thread group.
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
    }
}

/// `CLOCK_MONOTONIC`, in nanoseconds.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_ktime_get_ns() }
}

/// Counts something that `probe` saw and that will not reach the agent.
#[inline(always)]
pub(crate) fn lost(probe: Probe, reason: Lost) {
    count(&LOST, probe as usize * Lost::COUNT + reason as usize);
    #[cfg(feature = "log")]
    crate::log::lost(probe, reason);
}

/// Counts a call that `probe` looks at.
#[inline(always)]
pub(crate) fn seen(probe: Probe) {
    count(&SEEN, probe as usize);
}

/// Adds one to a number of a map's only entry, which is numbers and nothing else. The running program alone writes it.
#[inline(always)]
fn count<T>(map: &PerCpuArray<T>, index: usize) {
    if let Some(entry) = map.get_ptr_mut(0) {
        let number = entry.cast::<u64>().wrapping_add(index);
        // SAFETY: `entry` is this CPU's own value of a per-CPU map, aligned to eight bytes and alive while the program runs, and `index`
        // one of its numbers. This one belongs to one program, which does not run twice at a time on a CPU; see `crate::maps`.
        unsafe { *number = (*number).wrapping_add(1) };
    }
}
