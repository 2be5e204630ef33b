// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The maps. Their names, keys and values are what the agent knows them by (`agent/src/probes/maps.rs`).
//!
//! **Who may write what.** Since Linux 7.0 a tracepoint's programs can be preempted (`include/linux/tracepoint.h`, guarded by SRCU),
//! though not moved to another CPU. So a per-CPU value does not belong to whoever runs. But the kernel lets a program run only once
//! at a time on each CPU (`bpf_prog_get_recursion_context`); a run that comes in between is left out and counted as a miss of the
//! program, which the agent takes for a loss. So a per-CPU value needs no atomics if one program alone writes it, and none here is
//! written by two: `LOST` has a row for each. A device's sums are guarded by the driver's lock.

use aya_ebpf::{
    macros::map,
    maps::{HashMap, PerCpuArray, PerCpuHashMap, RingBuf},
};
use migscope_abi::{
    latency::BUCKETS,
    region::{Field, Op},
    ring::{AccessKey, Conducted, DeviceSums, Lost, latency_series},
    rule::Rule,
    trace::Event,
};

/// Devices that can be told apart. A host has a few dozen VFIO devices; entries of devices that are gone are removed by the agent.
const DEVICES: u32 = 256;
/// Each device reads and writes a dozen fields; a few of these accesses are refused now and then, most never.
const ACCESS_KEYS: u32 = DEVICES * 32;
/// A state record takes 208 bytes with its header, so this holds more than a thousand of them: a migration makes about ten, a
/// dirty query every few milliseconds one of 88 bytes, and the agent reads within milliseconds.
pub(crate) const EVENTS_BYTES: u32 = 256 * 1024;

/// Key: `DeviceKey`. Shared by all CPUs, see `migscope_abi::ring`.
#[map]
pub(crate) static DEVICE_SUMS: HashMap<u64, DeviceSums> = HashMap::with_max_entries(DEVICES, 0);

/// Key: `DeviceKey`. Shared by all CPUs and by the two programs that watch, under the driver's lock as `DEVICE_SUMS` is.
#[map]
pub(crate) static CONDUCT: HashMap<u64, Conducted> = HashMap::with_max_entries(DEVICES, 0);

/// Key: `DeviceKey`. How often each rule was broken, by `Rule::index`. What the ring loses of refusals is counted here all the same.
#[map]
pub(crate) static REFUSALS: PerCpuHashMap<u64, [u64; Rule::COUNT]> =
    PerCpuHashMap::with_max_entries(DEVICES, 0);

/// How often a field was read or written.
#[map]
pub(crate) static ACCESSES: PerCpuHashMap<AccessKey, u64> =
    PerCpuHashMap::with_max_entries(ACCESS_KEYS, 0);

/// Index: `latency_series`. Accesses by duration, in the buckets of `migscope_abi::latency`.
#[map]
pub(crate) static LATENCY_BUCKETS: PerCpuArray<[u64; BUCKETS]> =
    PerCpuArray::with_max_entries(LATENCY_SERIES, 0);

/// Index: `latency_series`. The sum of the same durations, in nanoseconds.
#[map]
pub(crate) static LATENCY_SUM_NS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(LATENCY_SERIES, 0);

/// Records for the agent.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);

/// Index: `lost_slot`.
#[map]
pub(crate) static LOST: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(entries(Event::COUNT * Lost::COUNT), 0);

/// Index: `Event`. Tracepoint records that were read.
#[map]
pub(crate) static SEEN: PerCpuArray<u64> = PerCpuArray::with_max_entries(entries(Event::COUNT), 0);

/// One for each field and direction; the last index is that of the last field, written.
const LATENCY_SERIES: u32 = latency_series(entries(Field::COUNT) - 1, entries(Op::COUNT) - 1) + 1;

/// A count of the ABI, as maps take it.
#[expect(clippy::cast_possible_truncation, reason = "the ABI counts a dozen of anything")]
const fn entries(count: usize) -> u32 {
    count as u32
}
