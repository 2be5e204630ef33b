// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The v2 protocol on a device's own file, of any driver: states, what is left, reports of DMA logging. What of its ioctls is about a
//! migration region is passed on to `outside`.
//!
//! ```text
//!   vfio_device_fops_unl_ioctl   begins ──▶ DEVICE_CALLS[thread]: which device, what is asked, since when
//!     vfio_mig_get_next_state    each arc ─▶   the state that the driver is in
//!   vfio_device_fops_unl_ioctl   ends ────▶ sums, record
//! ```
//!
//! **Where a state is known from.** A successful `SET` leaves the device in the state that was asked for, a `GET` tells it. Before the
//! first of them nobody has said it, and after a `SET` that failed the device may be anywhere on its way: then the driver's own question
//! for the next arc tells, for it says from which state. Every driver of the kernel's tree asks it.
#![expect(unsafe_code, reason = "map values and ring entries are reached through raw pointers")]

use super::outside;
use crate::{
    bitmap,
    emit::{copy, header, lost, now_ns, seen, submit},
    kernel::{self, device_of, from_user, offsets, region_offsets, thread},
    machine,
    maps::{DATA_FILES, DATA_OPS, DEVICE_CALLS, DataFile, DeviceCall, V2_DEVICES, V2Device},
    shared::Shared,
};
use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use core::mem::offset_of;
use migscope_abi::{
    dirty::Outcome,
    outside::VFIO_DEVICE_GET_REGION_INFO,
    probe::{FileOp, Probe},
    ring::{DeviceSums, DirtyQueryRecord, Kind, Lost, MigStateRecord, STATE_CLOSED_V2},
    state::Cause,
    trace,
    v2::{
        DMA_LOGGING_REPORT, FEATURE_GET, FEATURE_MASK, FEATURE_PROBE, FEATURE_SET, FeatureMigState,
        FeatureReport, MIG_DATA_SIZE, MIG_DEVICE_STATE, MIG_PRECOPY_INFO_V2, MigState, NO_STATE,
        VFIO_DEVICE_FEATURE, VFIO_DEVICE_RESET,
    },
};

/// What is asked of a device, as far as it is looked at. A reset has the flags 0.
const SET_STATE: u32 = FEATURE_SET | MIG_DEVICE_STATE;
const GET_STATE: u32 = FEATURE_GET | MIG_DEVICE_STATE;
const GET_DATA_SIZE: u32 = FEATURE_GET | MIG_DATA_SIZE;
const GET_REPORT: u32 = FEATURE_GET | DMA_LOGGING_REPORT;
const SET_PRECOPY_INFO_V2: u32 = FEATURE_SET | MIG_PRECOPY_INFO_V2;
const RESET: u32 = 0;
/// `VFIO_DEVICE_GET_REGION_INFO`, which has no flags of this kind.
const REGION_INFO: u32 = 1 << 31;

/// An ioctl begins.
#[kprobe]
fn device_ioctl(ctx: ProbeContext) -> u32 {
    let (Some(file), Some(command), Some(arg)) =
        (ctx.arg::<u64>(0), ctx.arg::<u32>(1), ctx.arg::<u64>(2))
    else {
        return 0;
    };
    let mut flags = match command {
        VFIO_DEVICE_RESET | VFIO_DEVICE_FEATURE => RESET,
        VFIO_DEVICE_GET_REGION_INFO => REGION_INFO,
        _ => return 0,
    };
    if command == VFIO_DEVICE_FEATURE {
        // `flags` stands behind `argsz`.
        let Some(found) = from_user::<u32>(arg.wrapping_add(4)) else {
            lost(Probe::DeviceIoctl, Lost::Unreadable);
            return 0;
        };
        flags = found & (FEATURE_MASK | FEATURE_GET | FEATURE_SET | FEATURE_PROBE);
        let looked_at = matches!(
            flags,
            SET_STATE | GET_STATE | GET_DATA_SIZE | GET_REPORT | SET_PRECOPY_INFO_V2
        );
        if !looked_at {
            return 0;
        }
    }
    seen(Probe::DeviceIoctl);
    let Some(offsets) = offsets() else {
        lost(Probe::DeviceIoctl, Lost::Unreadable);
        return 0;
    };
    if flags == REGION_INFO {
        // Without the way to its driver nobody could tell whose a region is.
        let told = region_offsets()
            .is_none_or(|region| kernel::is_told_by_tracepoints(file, offsets, region));
        if told {
            return 0;
        }
    }
    let Some(device) = device_of(file, offsets) else {
        lost(Probe::DeviceIoctl, Lost::Unreadable);
        return 0;
    };
    let mut call = DeviceCall {
        device,
        arg,
        began_ns: now_ns(),
        bits_before: 0,
        flags,
        requested: NO_STATE,
        first: NO_STATE,
        last: NO_STATE,
        steps: 0,
        reserved: 0,
    };
    match flags {
        SET_STATE => {
            let Some(asked) = from_user::<FeatureMigState>(arg) else {
                lost(Probe::DeviceIoctl, Lost::Unreadable);
                return 0;
            };
            call.requested = asked.device_state;
        }
        GET_REPORT => {
            // The kernel adds bits to what is there.
            let before = from_user::<FeatureReport>(arg)
                .and_then(|asked| bitmap::count(asked.bitmap, pages(&asked)));
            call.bits_before = before.unwrap_or(u64::MAX);
            call.began_ns = now_ns();
        }
        _ => {}
    }
    // One that is there was seen to begin and not to end.
    if DEVICE_CALLS.remove(thread()).is_ok() {
        lost(Probe::DeviceIoctl, Lost::Unfinished);
    }
    if DEVICE_CALLS.insert(thread(), call, u64::from(BPF_ANY)).is_err() {
        lost(Probe::DeviceIoctl, Lost::Unfinished);
    }
    0
}

/// A driver asks for the next arc on the way to the state that is asked for.
#[kprobe]
fn state_step(ctx: ProbeContext) -> u32 {
    let Some(call) = DEVICE_CALLS.get_ptr_mut(thread()) else {
        return 0;
    };
    let Some(present) = ctx.arg::<u32>(1) else {
        return 0;
    };
    seen(Probe::StateStep);
    // SAFETY: `call` is a live value of the map, aligned to eight bytes; it belongs to the running thread, which runs this program alone.
    let call = unsafe { &mut *call };
    if call.steps == 0 {
        call.first = present;
    }
    call.last = present;
    call.steps = call.steps.wrapping_add(1);
    0
}

/// An ioctl ends.
#[kretprobe]
fn device_ioctl_return(ctx: RetProbeContext) -> u32 {
    // SAFETY: the value is copied at once; it belongs to the running thread, which runs this program alone.
    let Some(call) = unsafe { DEVICE_CALLS.get(thread()) }.copied() else {
        return 0;
    };
    // It was there a moment ago, and is the running thread's alone.
    let _ = DEVICE_CALLS.remove(thread());
    seen(Probe::DeviceIoctlReturn);
    // The ioctl's own result is an `int`: what stands above it in the register means nothing.
    let result = ctx.ret::<i32>();
    let mut changed = None;
    match call.flags {
        SET_STATE => changed = state_was_set(&call, result),
        GET_STATE if result == 0 => changed = state_was_told(&call),
        GET_DATA_SIZE => size_was_told(&call, result),
        GET_REPORT => pages_were_told(&call, result),
        SET_PRECOPY_INFO_V2 if result == 0 => tells_reinits(&call),
        REGION_INFO if result == 0 => outside::region_was_told(&call),
        RESET if outside::was_reset(&call, result) => {}
        RESET if result == 0 => changed = was_reset(&call),
        _ => {}
    }
    // From one place, so that the record of it is in the program once.
    if let Some((sums, change)) = changed {
        tell(Probe::DeviceIoctlReturn, sums, &call, &change, result);
        if result == 0 {
            if change.begins_stay() {
                sums.begin_stay();
            }
            if call.flags == SET_STATE {
                hands_out(&call);
            }
        }
    }
    0
}

/// The last user of a device's file is gone.
#[kprobe]
fn device_release(ctx: ProbeContext) -> u32 {
    let Some(file) = ctx.arg::<u64>(1) else {
        return 0;
    };
    let Some(device) = offsets().and_then(|offsets| device_of(file, offsets)) else {
        lost(Probe::DeviceRelease, Lost::Unreadable);
        return 0;
    };
    if outside::was_closed(file, device) {
        return 0;
    }
    // Most devices never migrate, and devices of our driver tell for themselves.
    let Some(sums) = Shared::found(device) else {
        return 0;
    };
    let known = sums.state();
    if known == NO_STATE {
        return 0;
    }
    seen(Probe::DeviceRelease);
    forget_data_file(device);
    let change = Change { from: known, requested: NO_STATE, now: known, cause: Cause::Close };
    sums.set(offset_of!(DeviceSums, state), STATE_CLOSED_V2);
    sums.touch();
    let call = DeviceCall {
        device,
        arg: 0,
        began_ns: 0,
        bits_before: 0,
        flags: 0,
        requested: NO_STATE,
        first: NO_STATE,
        last: NO_STATE,
        steps: 0,
        reserved: 0,
    };
    tell(Probe::DeviceRelease, sums, &call, &change, 0);
    sums.begin_stay();
    0
}

/// A change of state, or an attempt.
struct Change {
    from: u32,
    requested: u32,
    now: u32,
    cause: Cause,
}

impl Change {
    /// Whether another stay in a state begins with it, if it came about. After a reset one does, whatever the state was.
    #[inline(always)]
    fn begins_stay(&self) -> bool {
        self.cause as u32 == Cause::Reset as u32 || self.from != self.now
    }
}

/// What became of a device whose sums these are.
type Changed = Option<(Shared, Change)>;

#[inline(always)]
fn state_was_set(call: &DeviceCall, result: i32) -> Changed {
    let sums = Shared::of(Probe::DeviceIoctlReturn, call.device)?;
    let known = sums.state();
    let from = if call.steps != 0 { call.first } else { known };
    let now = match (result, call.steps) {
        (0, _) => call.requested,
        (_, 0) => known,
        // The arc from here was the one that failed.
        _ => call.last,
    };
    sums.touch();
    if now == NO_STATE {
        // It was refused, and nobody has said in which state.
        lost(Probe::DeviceIoctlReturn, Lost::Unreadable);
        return None;
    }
    sums.set_state(now);
    Some((sums, Change { from, requested: call.requested, now, cause: Cause::Write }))
}

/// A state was set: there may be a file for data with it.
#[inline(always)]
fn hands_out(call: &DeviceCall) {
    if let Some(told) = from_user::<FeatureMigState>(call.arg)
        && told.data_fd >= 0
    {
        carries_data(call.device, told.data_fd);
    }
}

/// From now on the file behind `descriptor` carries the data of `device`.
#[inline(always)]
fn carries_data(device: u64, descriptor: i32) {
    let Some(offsets) = offsets() else {
        return;
    };
    let Some(file) = kernel::file_of(descriptor, offsets) else {
        lost(Probe::DeviceIoctlReturn, Lost::Unreadable);
        return;
    };
    // A driver may hand out the file that it handed out before.
    let known = V2_DEVICES.get_ptr_mut(device);
    if let Some(known) = known {
        // SAFETY: a live value of the map; nothing but the calls on this device changes it, and a torn number of it cannot be.
        let known = unsafe { &mut *known };
        if known.data_file == file {
            return;
        }
        if known.data_file != 0 {
            let _ = DATA_FILES.remove(known.data_file);
        }
        known.data_file = file;
    } else {
        let entry = V2Device { data_file: file, tells_reinits: 0 };
        if V2_DEVICES.insert(device, entry, u64::from(BPF_ANY)).is_err() {
            lost(Probe::DeviceIoctlReturn, Lost::Unfinished);
            return;
        }
    }
    let entry = DataFile { device, counted_bytes: 0, burst_bytes: 0, told_bytes: 0 };
    if DATA_FILES.insert(file, entry, u64::from(BPF_ANY)).is_err() {
        lost(Probe::DeviceIoctlReturn, Lost::Unfinished);
    }
    for op in FileOp::ALL {
        if let Some(function) = kernel::operation(file, op, offsets) {
            // Known already but the first time; without room for it the agent goes by what it found before.
            let _ = DATA_OPS.insert(function, op as u32, u64::from(BPF_NOEXIST));
        }
    }
}

#[inline(always)]
fn forget_data_file(device: u64) {
    // SAFETY: the number is copied at once.
    if let Some(known) = unsafe { V2_DEVICES.get(device) } {
        let file = known.data_file;
        // What is not there need not go.
        let _ = DATA_FILES.remove(file);
        let _ = V2_DEVICES.remove(device);
    }
}

#[inline(always)]
fn state_was_told(call: &DeviceCall) -> Changed {
    let Some(told) = from_user::<FeatureMigState>(call.arg) else {
        lost(Probe::DeviceIoctlReturn, Lost::Unreadable);
        return None;
    };
    let sums = Shared::of(Probe::DeviceIoctlReturn, call.device)?;
    let (from, now) = (sums.state(), told.device_state);
    sums.touch();
    if from == now {
        return None;
    }
    sums.set_state(now);
    // Nobody asked for it, so the device went there by itself.
    let cause = if now == MigState::Error as u32 { Cause::Failure } else { Cause::Write };
    Some((sums, Change { from, requested: NO_STATE, now, cause }))
}

#[inline(always)]
fn was_reset(call: &DeviceCall) -> Changed {
    let sums = Shared::found(call.device)?;
    let from = sums.state();
    if from == NO_STATE {
        return None;
    }
    let now = MigState::Running as u32;
    sums.set_state(now);
    sums.touch();
    Some((sums, Change { from, requested: NO_STATE, now, cause: Cause::Reset }))
}

/// Puts a change into the ring, with the sums as they are.
#[inline(always)]
fn tell(probe: Probe, sums: Shared, call: &DeviceCall, change: &Change, result: i32) {
    machine::tell(probe, call.device);
    submit::<MigStateRecord>(probe, Kind::MigState, |entry| {
        let head = header(Kind::MigState);
        let duration_ns =
            if call.began_ns == 0 { 0 } else { head.monotonic_ns.saturating_sub(call.began_ns) };
        // SAFETY: `entry` is the reserved room for one record, aligned to eight bytes, and all of it is written. The sums are a live
        // value of the map; what another thread changes meanwhile is one number at a time (`crate::shared`).
        unsafe {
            (&raw mut (*entry).header).write(head);
            (&raw mut (*entry).device).write(call.device);
            (&raw mut (*entry).duration_ns).write(duration_ns);
            (&raw mut (*entry).from).write(change.from);
            (&raw mut (*entry).requested).write(change.requested);
            (&raw mut (*entry).now).write(change.now);
            (&raw mut (*entry).cause).write(change.cause as u32);
            (&raw mut (*entry).result).write(result);
            (&raw mut (*entry).steps).write(call.steps);
            copy(&raw mut (*entry).sums, sums.whole());
        }
    });
}

#[inline(always)]
fn size_was_told(call: &DeviceCall, result: i32) {
    let Some(sums) = Shared::of(Probe::DeviceIoctlReturn, call.device) else {
        return;
    };
    sums.touch();
    if result != 0 {
        sums.add(offset_of!(DeviceSums, left.stop_copy_refusals), 1);
        return;
    }
    // It stands behind `argsz` and `flags`.
    let Some(bytes) = from_user::<u64>(call.arg.wrapping_add(8)) else {
        lost(Probe::DeviceIoctlReturn, Lost::Unreadable);
        return;
    };
    sums.set(offset_of!(DeviceSums, left.stop_copy_bytes), bytes);
    sums.add(offset_of!(DeviceSums, left.stop_copy_tellings), 1);
}

#[inline(always)]
fn tells_reinits(call: &DeviceCall) {
    if let Some(known) = V2_DEVICES.get_ptr_mut(call.device) {
        // SAFETY: a live value of the map; a number that is written whole.
        unsafe { (*known).tells_reinits = 1 };
    } else {
        let entry = V2Device { data_file: 0, tells_reinits: 1 };
        if V2_DEVICES.insert(call.device, entry, u64::from(BPF_ANY)).is_err() {
            lost(Probe::DeviceIoctlReturn, Lost::Unfinished);
        }
    }
}

/// How many pages a report is of.
#[inline(always)]
fn pages(report: &FeatureReport) -> u64 {
    if report.page_size == 0 { 0 } else { report.length.div_ceil(report.page_size) }
}

#[inline(always)]
fn pages_were_told(call: &DeviceCall, result: i32) {
    let began_ns = call.began_ns;
    let ended_ns = now_ns();
    let Some(report) = from_user::<FeatureReport>(call.arg) else {
        lost(Probe::DeviceIoctlReturn, Lost::Unreadable);
        return;
    };
    let Some(sums) = Shared::of(Probe::DeviceIoctlReturn, call.device) else {
        return;
    };
    sums.speaks_v2();
    let pages = pages(&report);
    let mut dirty_pages = 0;
    let outcome = if result != 0 {
        Outcome::Error
    } else {
        match bitmap::count(report.bitmap, pages) {
            Some(after) if call.bits_before <= after => dirty_pages = after - call.bits_before,
            // Longer than what is counted here, or another thread of the process cleared bits meanwhile.
            _ => {
                lost(Probe::DeviceIoctlReturn, Lost::Unreadable);
                return;
            }
        }
        if dirty_pages == 0 { Outcome::None } else { Outcome::Bitmap }
    };
    sums.add(offset_of!(DeviceSums, dirty_queries) + 8 * outcome as usize, 1);
    sums.add(offset_of!(DeviceSums, dirty_pages), dirty_pages);
    sums.add(offset_of!(DeviceSums, dirty_bytes), dirty_pages.wrapping_mul(report.page_size));
    let duration_ns = ended_ns.saturating_sub(began_ns);
    sums.add(offset_of!(DeviceSums, query_busy_ns), duration_ns);
    sums.set_first(offset_of!(DeviceSums, stay.query_began_ns), began_ns);
    sums.set(offset_of!(DeviceSums, stay.query_ended_ns), ended_ns);
    sums.touch();
    submit::<DirtyQueryRecord>(Probe::DeviceIoctlReturn, Kind::DmaLoggingReport, |entry| {
        let event = trace::DirtyQuery {
            device: call.device,
            start_pfn: report.iova.checked_div(report.page_size).unwrap_or(0),
            page_bytes: report.page_size,
            total_pfns: pages,
            copied_pfns: 0,
            dirty_pages,
            duration_ns,
            outcome: outcome as u32,
            result,
        };
        // SAFETY: `entry` is the reserved room for one record, aligned to eight bytes, and both fields of it are written.
        unsafe {
            (&raw mut (*entry).header).write(header(Kind::DmaLoggingReport));
            (&raw mut (*entry).event).write(event);
        }
    });
}
