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
    maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, ProgramArray, RingBuf},
};
use migscope_abi::{
    device::NAME_BYTES,
    latency::BUCKETS,
    machine::{MachineKey, MachineSums, Tracker},
    outside::{Meaning, Outside, RegionOffsets},
    probe::Probe,
    region::{Field, Op},
    ring::{AccessKey, Conducted, DeviceSums, Losses, latency_series},
    rule::Rule,
    trace,
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

/// Index: `latency_series`; those of devices that are seen from outside come after all others. Accesses by duration, in the buckets of
/// `migscope_abi::latency`.
#[map]
pub(crate) static LATENCY_BUCKETS: PerCpuArray<[u64; BUCKETS]> =
    PerCpuArray::with_max_entries(2 * LATENCY_SERIES, 0);

/// Index: the same. The sum of the same durations, in nanoseconds.
#[map]
pub(crate) static LATENCY_SUM_NS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(2 * LATENCY_SERIES, 0);

/// Records for the agent.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);

/// One entry, which is read as a whole: while the agent reads a map no probe of a function runs on its CPU.
#[map]
pub(crate) static LOST: PerCpuArray<Losses> = PerCpuArray::with_max_entries(1, 0);

/// One entry, by `Probe`: tracepoint records that were read, and calls that were looked at.
#[map]
pub(crate) static SEEN: PerCpuArray<[u64; Probe::COUNT]> = PerCpuArray::with_max_entries(1, 0);

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
/// Where the fields are that lead to regions: one entry, as `OFFSETS`.
#[map]
pub(crate) static REGION_OFFSETS: Array<RegionOffsets> = Array::with_max_entries(1, 0);

/// Key: `DeviceKey`. Open devices with a migration region that no tracepoint tells of. While there is one the agent has the probes of
/// accesses attached.
#[map]
pub(crate) static REGIONS: HashMap<u64, Outside> = HashMap::with_max_entries(DEVICES, 0);

/// The number of the present watch of accesses, which the agent writes once their probes are attached; 0 while they are not.
#[map]
pub(crate) static REGION_WATCH: Array<u64> = Array::with_max_entries(1, 0);

/// The lowest position of a region in its device's file, plus one; 0 while there was none. Other regions of a device lie below it, and
/// most accesses are to them.
#[map]
pub(crate) static REGION_FLOOR: Array<u64> = Array::with_max_entries(1, 0);

/// Key: thread. The access to a region that it is in, or the registering of one.
#[map]
pub(crate) static REGION_CALLS: HashMap<u64, RegionCall> = HashMap::with_max_entries(CALLS, 0);

/// Room for the access that a program looks at. What is put there is any number for the verifier from then on, which so follows each part
/// of the program once, and not all ways through one part for each through the other.
#[map]
pub(crate) static REGION_ROOM: PerCpuArray<RegionRoom> = PerCpuArray::with_max_entries(1, 0);

/// Key: thread. The piece of a bitmap that it has just read.
#[map]
pub(crate) static BITMAP_READS: HashMap<u64, BitmapRead> = HashMap::with_max_entries(CALLS, 0);

/// The program that counts the bits of it, which `region_return` goes on with; none where the kernel does not run it.
#[map]
pub(crate) static REGION_TAIL: ProgramArray = ProgramArray::with_max_entries(1, 0);

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
    /// Pieces that could not be read.
    pub(crate) missing: u64,
}

/// An access to a region that has begun, or the registering of one.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct RegionCall {
    pub(crate) device: u64,
    /// Where the bytes are, in the process.
    pub(crate) buffer: u64,
    pub(crate) began_ns: u64,
    /// Offset in the region; of one that is registered, where it lies in the device's file.
    pub(crate) offset: u64,
    /// Bytes asked for; of one that is registered, its length.
    pub(crate) bytes: u64,
    /// What is written, if it is a register.
    pub(crate) value: u64,
    /// `Op`.
    pub(crate) op: u32,
    /// 1 if `value` could be read.
    pub(crate) readable: u32,
}

/// An access, and what it came to.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct RegionRoom {
    pub(crate) event: trace::RegionAccess,
    pub(crate) meaning: Meaning,
    /// A change of state that it was, or an attempt.
    pub(crate) change: trace::State,
    /// What was read or written, also where that was refused.
    pub(crate) value: u64,
    /// 1 if it was of a whole register.
    pub(crate) fits: u32,
    /// 1 if its value, where it has one, is known.
    pub(crate) means: u32,
    /// 1 if nothing is missing between it and the one before.
    pub(crate) in_order: u32,
    /// 1 if it tells a state.
    pub(crate) tells_state: u32,
    /// 1 if `change` was asked for, and is shown to the watch.
    pub(crate) judged: u32,
    /// 1 if `change` goes into the ring.
    pub(crate) told: u32,
}

/// A piece of a bitmap of a region that was read.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct BitmapRead {
    pub(crate) device: u64,
    /// Where it is now, in the process.
    pub(crate) buffer: u64,
    /// How many bits of it are new.
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
pub(crate) const LATENCY_SERIES: u32 =
    latency_series(entries(Field::COUNT) - 1, entries(Op::COUNT) - 1) + 1;

/// A count of the ABI, as maps take it.
#[expect(clippy::cast_possible_truncation, reason = "the ABI counts a dozen of anything")]
const fn entries(count: usize) -> u32 {
    count as u32
}
