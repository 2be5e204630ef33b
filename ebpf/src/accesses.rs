// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Accesses to migration regions: how often to each field, and how long they took.
#![expect(unsafe_code, reason = "map values are reached through raw pointers")]

use crate::{
    emit::lost,
    maps::{ACCESSES, LATENCY_BUCKETS, LATENCY_SERIES, LATENCY_SUM_NS},
    sums,
};
use aya_ebpf::bindings::BPF_ANY;
use migscope_abi::{
    latency::bucket,
    probe::Probe,
    ring::{AccessKey, Lost, latency_series},
    trace,
};

/// Counts an access that `probe` saw. A program on a tracepoint can be preempted by one on a function, so each kind has rows of its own:
/// `outside` says which. Devices of the two kinds have different keys.
#[inline(always)]
pub(crate) fn count(probe: Probe, event: &trace::RegionAccess, outside: bool) {
    let key = AccessKey {
        device: event.device,
        field: event.field,
        op_and_refused: event.op & 1 | u32::from(event.result < 0) << 1,
    };
    if let Some(count) = ACCESSES.get_ptr_mut(key) {
        // SAFETY: this CPU's own value of a per-CPU map, aligned to eight bytes and alive while the program runs; no other program
        // writes it, and this one does not run twice at a time on a CPU (see `crate::maps`).
        unsafe { *count = (*count).wrapping_add(1) };
    } else if ACCESSES.insert(key, 1, u64::from(BPF_ANY)).is_err() {
        lost(probe, Lost::MapFull);
    }

    let first = if outside { LATENCY_SERIES } else { 0 };
    let series = latency_series(event.field, event.op & 1).wrapping_add(first);
    if let Some(counts) = LATENCY_BUCKETS.get_ptr_mut(series) {
        // SAFETY: as for `count` above.
        sums::add(unsafe { &mut *counts }, bucket(event.duration_ns), 1);
    }
    if let Some(sum_ns) = LATENCY_SUM_NS.get_ptr_mut(series) {
        // SAFETY: as for `count` above.
        unsafe { *sum_ns = (*sum_ns).wrapping_add(event.duration_ns) };
    }
}
