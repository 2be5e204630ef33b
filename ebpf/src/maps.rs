// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The maps. Their names, keys and values are what the agent knows them by (`agent/src/probes/maps.rs`).
//!
//! **Who may write what.** Since Linux 7.0 a tracepoint's programs can be preempted (`include/linux/tracepoint.h`, guarded by SRCU),
//! though not moved to another CPU. So a per-CPU value does not belong to whoever runs. But the kernel lets a program run only once
//! at a time on each CPU (`bpf_prog_get_recursion_context`); a run that comes in between is left out and counted as a miss of the
//! program, which the agent takes for a loss. So a per-CPU value needs no atomics if one program alone writes it, and none here is
//! written by two: `LOST` has a row for each. A device's sums are guarded by our driver's lock; those of a device of another driver, whose ioctls and
//! data may come from several threads, are changed atomically, one number at a time (`crate::shared`).

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
};
use migscope_abi::{
    device::NAME_BYTES,
    latency::BUCKETS,
    machine::{MachineKey, MachineSums, Tracker},
    probe::Probe,
    region::{Field, Op},
    ring::{AccessKey, Conducted, DeviceSums, Lost, latency_series},
    rule::Rule,
    tracking::TrackingOffsets,
    v2::Offsets,
};

/// Devices that can be told apart: a host with virtual functions has some hundreds. Entries of devices that are gone are removed by the
/// agent. All maps together take 5 MiB on two CPUs, and 0.35 MiB more for each further one.
const DEVICES: u32 = 1024;
/// Each device reads and writes a dozen fields; a few of these accesses are refused now and then, most never.
const ACCESS_KEYS: u32 = DEVICES * 16;
/// A state record takes 336 bytes with its header, so this holds 780 of them: a migration makes about ten, a
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
    PerCpuArray::with_max_entries(entries(Probe::COUNT * Lost::COUNT), 0);

/// Index: `Probe`. Tracepoint records that were read, and calls that were looked at.
#[map]
pub(crate) static SEEN: PerCpuArray<u64> = PerCpuArray::with_max_entries(entries(Probe::COUNT), 0);

/// Where the fields of the kernel's own structures are: one entry, which the agent writes before it attaches what needs it.
#[map]
pub(crate) static OFFSETS: Array<Offsets> = Array::with_max_entries(1, 0);

/// Key: `DeviceKey`, the hash of a name; the name.
#[map]
pub(crate) static DEVICE_NAMES: HashMap<u64, [u8; NAME_BYTES]> =
    HashMap::with_max_entries(DEVICES, 0);

/// Key: thread (`bpf_get_current_pid_tgid`). The ioctl on a device's file that it is in. A thread is in one at a time.
#[map]
pub(crate) static DEVICE_CALLS: HashMap<u64, DeviceCall> = HashMap::with_max_entries(CALLS, 0);

/// Key: thread. The call on a data file that it is in.
#[map]
pub(crate) static FILE_CALLS: HashMap<u64, FileCall> = HashMap::with_max_entries(CALLS, 0);

/// Key: address of the `struct file` behind a `data_fd`.
#[map]
pub(crate) static DATA_FILES: HashMap<u64, DataFile> = HashMap::with_max_entries(DEVICES, 0);

/// Key: `DeviceKey`. What is kept of a device of the v2 protocol beside its sums.
#[map]
pub(crate) static V2_DEVICES: HashMap<u64, V2Device> = HashMap::with_max_entries(DEVICES, 0);

/// Key: address of a function that an operation of a data file points to; its `FileOp`. So the agent learns where a driver's
/// operations are.
#[map]
pub(crate) static DATA_OPS: HashMap<u64, u32> = HashMap::with_max_entries(DEVICES, 0);

/// What trackers told processes. Entries of processes that are gone are removed by the agent.
#[map]
pub(crate) static MACHINE_SUMS: HashMap<MachineKey, MachineSums> =
    HashMap::with_max_entries(MACHINES * entries(Tracker::COUNT), 0);

/// Index: `Tracker`. How long it took to answer, in the buckets of `migscope_abi::latency`. One program writes each.
#[map]
pub(crate) static TRACKER_BUCKETS: PerCpuArray<[u64; BUCKETS]> =
    PerCpuArray::with_max_entries(entries(Tracker::COUNT), 0);

/// Index: `Tracker`. The sum of the same durations, in nanoseconds.
#[map]
pub(crate) static TRACKER_SUM_NS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(entries(Tracker::COUNT), 0);

/// Where the fields of structures of iommufd and KVM are: one entry, which the agent writes before it attaches what needs it.
#[map]
pub(crate) static TRACKING_OFFSETS: Array<TrackingOffsets> = Array::with_max_entries(1, 0);

/// Key: thread. The call on a tracker that it is in.
#[map]
pub(crate) static TRACKER_CALLS: HashMap<u64, TrackerCall> = HashMap::with_max_entries(CALLS, 0);

/// Key: process. What iommufd told it last that stays dirty. Nothing hangs on an entry for longer than until the next call.
#[map]
pub(crate) static KEPT: LruHashMap<u32, Kept> = LruHashMap::with_max_entries(MACHINES, 0);

/// Key: slot of memory. How many pages KVM told of it that were not cleared since. Without room for one its pages may count twice.
#[map]
pub(crate) static KVM_TOLD: LruHashMap<KvmSlot, u64> =
    LruHashMap::with_max_entries(MACHINES * 8, 0);

/// Room for a piece of a process's bitmap.
#[map]
pub(crate) static PIECE: PerCpuArray<[u64; PIECE_WORDS]> = PerCpuArray::with_max_entries(1, 0);

/// Where the count of a bitmap is.
#[map]
pub(crate) static WALK: PerCpuArray<Walk> = PerCpuArray::with_max_entries(1, 0);

/// Virtual machines that are told of dirty pages: those that migrate, those whose screen is looked at.
const MACHINES: u32 = 1024;
/// Threads that are in such a call at the same time.
const CALLS: u32 = 4096;
/// A page of them.
pub(crate) const PIECE_WORDS: usize = 512;

/// An ioctl on a device's file that has begun.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct DeviceCall {
    pub(crate) device: u64,
    /// Its argument: an address in the process.
    pub(crate) arg: u64,
    pub(crate) began_ns: u64,
    /// Bits that were set in the bitmap before.
    pub(crate) bits_before: u64,
    /// `vfio_device_feature.flags`; 0 for a reset.
    pub(crate) flags: u32,
    /// The state that is asked for.
    pub(crate) requested: u32,
    /// The state in which the driver took the first arc, and the last one; `NO_STATE` before.
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) steps: u32,
    pub(crate) reserved: u32,
}

/// A call on a data file that has begun.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct FileCall {
    pub(crate) file: u64,
    /// An address in the process, for an ioctl.
    pub(crate) arg: u64,
    pub(crate) began_ns: u64,
}

/// A call on a tracker that has begun.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct TrackerCall {
    pub(crate) began_ns: u64,
    /// Who is asked: a page table of iommufd, a `struct kvm`.
    pub(crate) object: u64,
    /// Address of the bitmap in the process.
    pub(crate) bitmap: u64,
    /// First page, and how many, in pages of the call.
    pub(crate) start_page: u64,
    pub(crate) pages: u64,
    pub(crate) page_bytes: u64,
    /// Bits that were set in the bitmap before; `u64::MAX` for what was not counted.
    pub(crate) bits_before: u64,
    /// `crate::tracker::Asked`.
    pub(crate) asked: u32,
    pub(crate) flags: u32,
    /// A slot of KVM's.
    pub(crate) slot: u64,
}

/// Pages that a page table of iommufd told with `NO_CLEAR`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Kept {
    pub(crate) object: u64,
    pub(crate) start_page: u64,
    pub(crate) end_page: u64,
    pub(crate) pages: u64,
}

/// A slot of memory of a virtual machine.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct KvmSlot {
    /// Address of its `struct kvm`.
    pub(crate) kvm: u64,
    /// Address space and number, as the ioctls have them.
    pub(crate) slot: u64,
}

/// What is looked at of a bitmap, and what was found.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Walk {
    /// Address in the process.
    pub(crate) at: u64,
    pub(crate) left_bits: u64,
    /// Bits that are set.
    pub(crate) bits: u64,
}

/// A file that carries device data.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct DataFile {
    pub(crate) device: u64,
    /// Bytes that were counted.
    pub(crate) counted_bytes: u64,
    /// Bytes since the end of its data was last reached.
    pub(crate) burst_bytes: u64,
    /// What the device last told to be there (`VFIO_MIG_GET_PRECOPY_INFO`), without what was read since.
    pub(crate) told_bytes: u64,
}

/// What is kept of a device beside its sums.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct V2Device {
    /// Address of its `struct file` for data; 0 while there is none.
    pub(crate) data_file: u64,
    /// Whether the flags of `vfio_precopy_info` mean anything.
    pub(crate) tells_reinits: u64,
}

/// One for each field and direction; the last index is that of the last field, written.
const LATENCY_SERIES: u32 = latency_series(entries(Field::COUNT) - 1, entries(Op::COUNT) - 1) + 1;

/// A count of the ABI, as maps take it.
#[expect(clippy::cast_possible_truncation, reason = "the ABI counts a dozen of anything")]
const fn entries(count: usize) -> u32 {
    count as u32
}
