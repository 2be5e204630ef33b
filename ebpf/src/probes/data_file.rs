// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The file that carries device data in the v2 protocol, of any driver: bytes, how long they took, and what the device tells of what is left.
//!
//! The functions are those that the file's operations point to; which they are the agent learns (`agent/src/probes/operations.rs`). They serve
//! files of all devices of a driver, and only a file that was handed out for a device counts.
#![expect(unsafe_code, reason = "map values are reached through raw pointers")]

use crate::{
    emit::{lost, now_ns, seen},
    kernel::{from_user, offsets, position, thread},
    maps::{DATA_FILES, DataFile, FILE_CALLS, FileCall, V2_DEVICES},
    shared::Shared,
};
use aya_ebpf::{
    bindings::BPF_ANY,
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use core::mem::offset_of;
use migscope_abi::{
    probe::Probe,
    ring::{DeviceSums, Lost},
    trace::DataDirection,
    v2::{PRECOPY_INFO_REINIT, PrecopyInfo, VFIO_MIG_GET_PRECOPY_INFO},
};

/// "Nothing more for now", from a read in pre-copy.
const ENOMSG: i64 = 42;

/// A read begins.
#[kprobe]
fn data_read(ctx: ProbeContext) -> u32 {
    begins(&ctx, Probe::DataRead, 0)
}

/// A read ends.
#[kretprobe]
fn data_read_return(ctx: RetProbeContext) -> u32 {
    moved(&ctx, Probe::DataReadReturn, DataDirection::Save)
}

/// A write begins.
#[kprobe]
fn data_write(ctx: ProbeContext) -> u32 {
    begins(&ctx, Probe::DataWrite, 0)
}

/// A write ends.
#[kretprobe]
fn data_write_return(ctx: RetProbeContext) -> u32 {
    moved(&ctx, Probe::DataWriteReturn, DataDirection::Resume)
}

/// An ioctl begins.
#[kprobe]
fn data_ioctl(ctx: ProbeContext) -> u32 {
    let (Some(command), Some(arg)) = (ctx.arg::<u32>(1), ctx.arg::<u64>(2)) else {
        return 0;
    };
    if command != VFIO_MIG_GET_PRECOPY_INFO {
        return 0;
    }
    begins(&ctx, Probe::DataIoctl, arg)
}

/// An ioctl ends.
#[kretprobe]
fn data_ioctl_return(ctx: RetProbeContext) -> u32 {
    let Some((call, file)) = ends(Probe::DataIoctlReturn) else {
        return 0;
    };
    if ctx.ret::<i32>() != 0 {
        return 0;
    }
    let Some(told) = from_user::<PrecopyInfo>(call.arg) else {
        lost(Probe::DataIoctlReturn, Lost::Unreadable);
        return 0;
    };
    let pending_bytes = told.initial_bytes.saturating_add(told.dirty_bytes);
    // SAFETY: as in `begins`.
    let known = unsafe { &mut *file };
    known.told_bytes = pending_bytes;
    let device = known.device;
    let Some(sums) = Shared::of(Probe::DataIoctlReturn, device) else {
        return 0;
    };
    sums.set(offset_of!(DeviceSums, left.initial_bytes), told.initial_bytes);
    sums.set(offset_of!(DeviceSums, left.dirty_bytes), told.dirty_bytes);
    sums.set(offset_of!(DeviceSums, pending_bytes), pending_bytes);
    sums.add(offset_of!(DeviceSums, left.precopy_tellings), 1);
    sums.add(offset_of!(DeviceSums, pending_reads), 1);
    sums.touch();
    if told.flags & PRECOPY_INFO_REINIT != 0 {
        // SAFETY: the value is looked at at once.
        let means_it =
            unsafe { V2_DEVICES.get(device) }.is_some_and(|known| known.tells_reinits != 0);
        if means_it {
            sums.add(offset_of!(DeviceSums, left.reinits), 1);
        }
    }
    0
}

/// A call on a data file begins.
#[inline(always)]
fn begins(ctx: &ProbeContext, probe: Probe, arg: u64) -> u32 {
    let Some(file) = ctx.arg::<u64>(0) else {
        return 0;
    };
    let Some(known) = DATA_FILES.get_ptr_mut(file) else {
        return 0;
    };
    seen(probe);
    // SAFETY: a live value of the map, aligned to eight bytes. Two threads that move data of one file at the same time are told apart by the
    // driver's lock only; what they count is a number each.
    let known = unsafe { &mut *known };
    catch_up(probe, file, known);
    if FILE_CALLS.remove(thread()).is_ok() {
        lost(probe, Lost::Unfinished);
    }
    let call = FileCall { file, arg, began_ns: now_ns() };
    if FILE_CALLS.insert(thread(), call, u64::from(BPF_ANY)).is_err() {
        lost(probe, Lost::Unfinished);
    }
    0
}

/// Counts what was moved before somebody looked: a driver counts in the file's own position, from 0.
#[inline(always)]
fn catch_up(probe: Probe, file: u64, known: &mut DataFile) {
    let Some(offsets) = offsets() else {
        return;
    };
    let position = position(file, offsets);
    let Some(unseen) = position.checked_sub(known.counted_bytes).filter(|bytes| *bytes > 0) else {
        return;
    };
    known.counted_bytes = position;
    let direction = match probe {
        Probe::DataWrite => DataDirection::Resume,
        _ => DataDirection::Save,
    };
    if let Some(sums) = Shared::of(probe, known.device) {
        sums.add(offset_of!(DeviceSums, data_bytes) + 8 * direction as usize, unseen);
    }
}

/// A call on a data file ends.
#[inline(always)]
fn ends(probe: Probe) -> Option<(FileCall, *mut DataFile)> {
    // SAFETY: the value is copied at once; it belongs to the running thread, which runs this program alone.
    let call = unsafe { FILE_CALLS.get(thread()) }.copied()?;
    // It was there a moment ago, and is the running thread's alone.
    let _ = FILE_CALLS.remove(thread());
    seen(probe);
    // Gone if the device was given another file meanwhile.
    Some((call, DATA_FILES.get_ptr_mut(call.file)?))
}

/// Data was moved, or there was none.
#[inline(always)]
fn moved(ctx: &RetProbeContext, probe: Probe, direction: DataDirection) -> u32 {
    let Some((call, known)) = ends(probe) else {
        return 0;
    };
    let result = ctx.ret::<i64>();
    let ended_ns = now_ns();
    // SAFETY: as in `begins`.
    let known = unsafe { &mut *known };
    let Some(sums) = Shared::of(probe, known.device) else {
        return 0;
    };
    let row = 8 * direction as usize;
    let busy_ns = ended_ns.saturating_sub(call.began_ns);
    sums.add(offset_of!(DeviceSums, data_busy_ns) + row, busy_ns);
    sums.touch();
    if let Ok(bytes @ 1..) = u64::try_from(result) {
        known.counted_bytes = known.counted_bytes.wrapping_add(bytes);
        known.burst_bytes = known.burst_bytes.wrapping_add(bytes);
        known.told_bytes = known.told_bytes.saturating_sub(bytes);
        sums.add(offset_of!(DeviceSums, data_bytes) + row, bytes);
        sums.set_first(offset_of!(DeviceSums, stay.data_began_ns), call.began_ns);
        sums.set(offset_of!(DeviceSums, stay.data_ended_ns), ended_ns);
    }
    // It has nothing to give, and told otherwise.
    if result == -ENOMSG && known.told_bytes != 0 {
        sums.set(offset_of!(DeviceSums, withheld.bytes), known.told_bytes);
        sums.add(offset_of!(DeviceSums, withheld.answers), 1);
    }
    // A source's iteration is all that it reads until there is no more, for now or for good; a destination takes in one buffer with each write.
    let burst_ended = match direction {
        DataDirection::Save => result == 0 || result == -ENOMSG,
        DataDirection::Resume => true,
    };
    if burst_ended && known.burst_bytes != 0 {
        known.burst_bytes = 0;
        sums.add(offset_of!(DeviceSums, iterations) + row, 1);
    }
    0
}
