// SPDX-License-Identifier: GPL-2.0 OR MIT
//! From a tracepoint into the ring: reading the record, reserving, submitting, and counting what is lost on the way.
#![expect(unsafe_code, reason = "kernel memory and map values are reached through raw pointers")]

use crate::maps::{EVENTS, EVENTS_BYTES, LOST, SEEN};
use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel, generated::bpf_ktime_get_ns},
    maps::PerCpuArray,
    programs::RawTracePointContext,
};
use aya_log_ebpf::{debug, warn};
use migscope_abi::{
    ring::{Header, Kind, Lost, lost_slot},
    trace::Event,
};

/// Reads the record of a tracepoint and counts it, or counts the loss.
#[inline(always)]
pub(crate) fn record<T: Copy + 'static>(ctx: &RawTracePointContext, event: Event) -> Option<T> {
    let source: *const T = ctx.arg(0);
    // SAFETY: the helper takes any address: it fails where there is nothing to read and never faults. `T` is one of the records
    // of `migscope_abi::trace`, integers only, for which every bit pattern is a value.
    match unsafe { bpf_probe_read_kernel(source) } {
        Ok(record) => {
            count(&SEEN, event as u32);
            Some(record)
        }
        Err(errno) => {
            lost(event, Lost::Unreadable);
            warn!(ctx, "tracepoint {}: its record cannot be read: error {}", event.name(), errno);
            None
        }
    }
}

/// Puts a record into the ring. `fill` initialises all of it.
///
/// A record wakes the agent only where somebody waits for it: a change of state. The others wait until the agent comes by itself,
/// a few times a second, or until a quarter of the ring is full. To wake a process costs the migration more than the record does.
#[inline(always)]
pub(crate) fn submit<T: 'static>(
    ctx: &RawTracePointContext,
    event: Event,
    kind: Kind,
    fill: impl FnOnce(*mut T),
) {
    match EVENTS.reserve::<T>(0) {
        Some(mut entry) => {
            fill(entry.as_mut_ptr());
            let wake = matches!(kind, Kind::State)
                || EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) > u64::from(EVENTS_BYTES / 4);
            let flag = if wake { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP };
            entry.submit(u64::from(flag));
        }
        None => {
            lost(event, Lost::RingFull);
            debug!(ctx, "the ring is full: a {} record is lost", kind.name());
        }
    }
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

/// Counts something of `event` that will not reach the agent.
#[inline(always)]
pub(crate) fn lost(event: Event, reason: Lost) {
    count(&LOST, lost_slot(event, reason));
}

/// Adds one to a slot that the running program alone writes.
#[inline(always)]
fn count(map: &PerCpuArray<u64>, index: u32) {
    if let Some(slot) = map.get_ptr_mut(index) {
        // SAFETY: `slot` is this CPU's own value of a per-CPU map, aligned to eight bytes and alive while the program runs. It
        // belongs to one program, which does not run twice at a time on a CPU; see `crate::maps`.
        unsafe { *slot = (*slot).wrapping_add(1) };
    }
}
