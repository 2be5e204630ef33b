// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The migration region of any driver, from outside: the functions through which every access goes, and what `Outside` concludes from
//! them.
//!
//! ```text
//!   vfio_pci_core_register_dev_region ─┐
//!   VFIO_DEVICE_GET_REGION_INFO, reply ┴▶ REGIONS[device] ──▶ the agent attaches the probes of accesses
//!   vfio_device_fops_read, _write     begins ──▶ REGION_CALLS[thread]
//!                                     ends ────▶ Outside ──▶ sums, records, the watch
//!                                                   └─ a bitmap was read ─▶ region_bitmap
//! ```
//!
//! **Two calls at a time.** What a driver does with a device it does one after the other, but the calls around it may overlap: then nobody
//! can tell their order from outside. What needs no order is counted all the same; the watch, which is about order, begins anew.
#![expect(unsafe_code, reason = "map values and ring entries are reached through raw pointers")]

use crate::{
    accesses, bitmap, conduct,
    emit::{copy, header, lost, now_ns, seen, submit},
    kernel::{self, from_user, offsets, region_offsets, thread},
    machine,
    maps::{
        BITMAP_READS, BitmapRead, DeviceCall, REGION_CALLS, REGION_FLOOR, REGION_ROOM, REGION_TAIL,
        REGION_WATCH, REGIONS, RegionCall, RegionRoom,
    },
    shared::{self, Shared},
};
use aya_ebpf::{
    bindings::BPF_ANY,
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use core::{hint::black_box, mem::offset_of};
use migscope_abi::{
    dirty::Outcome,
    outside::{
        CLOSED, Change, Meaning, Outside, PCI_OFFSET_BITS, PCI_REGIONS, REGION_INFO_CAP_TYPE,
        REGION_INFO_CAPS, RegionInfo, RegionInfoCap,
    },
    probe::Probe,
    region::{Field, Op, REGION_SUBTYPE, REGION_TYPE},
    ring::{DeviceSums, DirtyQueryRecord, Kind, Lost, StateRecord},
    state::{Cause, State},
    trace,
    v2::NO_STATE,
};

/// Capabilities of a region that are looked at. There are a handful of kinds.
const CAPABILITIES: u32 = 8;
/// The user's memory could not be read or written.
const EFAULT: i64 = 14;

/// A driver gives a device a region of its own.
#[kprobe]
fn region_register(ctx: ProbeContext) -> u32 {
    let (Some(core), Some(kind), Some(subtype), Some(bytes)) =
        (ctx.arg::<u64>(0), ctx.arg::<u32>(1), ctx.arg::<u32>(2), ctx.arg::<u64>(4))
    else {
        return 0;
    };
    if kind != REGION_TYPE || subtype != REGION_SUBTYPE {
        return 0;
    }
    seen(Probe::RegionRegister);
    let (Some(offsets), Some(region)) = (offsets(), region_offsets()) else {
        lost(Probe::RegionRegister, Lost::Unreadable);
        return 0;
    };
    let Some((device, regions)) = kernel::core_device(core, offsets, region) else {
        return 0;
    };
    let call = RegionCall {
        device,
        buffer: 0,
        began_ns: 0,
        offset: PCI_REGIONS.wrapping_add(regions) << PCI_OFFSET_BITS,
        bytes,
        value: 0,
        op: 0,
        readable: 0,
    };
    if REGION_CALLS.insert(thread(), call, u64::from(BPF_ANY)).is_err() {
        lost(Probe::RegionRegister, Lost::MapFull);
    }
    0
}

/// It has it: it was opened.
#[kretprobe]
fn region_register_return(ctx: RetProbeContext) -> u32 {
    // SAFETY: the value is copied at once; it belongs to the running thread, which runs this program alone.
    let Some(call) = unsafe { REGION_CALLS.get(thread()) }.copied() else {
        return 0;
    };
    // It was there a moment ago, and is the running thread's alone.
    let _ = REGION_CALLS.remove(thread());
    if ctx.ret::<i32>() != 0 {
        return 0;
    }
    seen(Probe::RegionRegisterReturn);
    let watch = watch();
    // A device runs when it is opened. Whether it still does when somebody begins to look is not known.
    let state = if watch == 0 { NO_STATE } else { State::Running as u32 };
    let region = Outside::new(call.offset, call.bytes, state, watch);
    if !add(Probe::RegionRegisterReturn, call.device, &region) || watch == 0 {
        return 0;
    }
    let Some(sums) = Shared::of(Probe::RegionRegisterReturn, call.device) else {
        return 0;
    };
    sums.set_region_state(state);
    sums.touch();
    let event = trace::State {
        device: call.device,
        duration_ns: 0,
        from: state,
        requested: state,
        now: state,
        cause: Cause::Open as u32,
        result: 0,
        reserved: 0,
    };
    conduct::state_changed(Probe::RegionRegisterReturn, &event);
    tell_state(Probe::RegionRegisterReturn, sums, &event);
    0
}

/// Notes a region. Gives whether there was room for it.
#[inline(always)]
fn add(probe: Probe, device: u64, region: &Outside) -> bool {
    if REGIONS.insert(device, region, u64::from(BPF_ANY)).is_err() {
        lost(probe, Lost::MapFull);
        return false;
    }
    if let Some(floor) = REGION_FLOOR.get_ptr_mut(0) {
        let position = region.position.wrapping_add(1);
        // SAFETY: a live value of the map. Two that lower it at the same time would both be of PCI devices, whose regions begin alike.
        unsafe {
            if *floor == 0 || position < *floor {
                *floor = position;
            }
        }
    }
    true
}

/// The number of the present watch of accesses; 0 while there is none.
#[inline(always)]
fn watch() -> u64 {
    REGION_WATCH.get(0).copied().unwrap_or(0)
}

/// `VFIO_DEVICE_GET_REGION_INFO` was answered.
#[inline(always)]
pub(crate) fn region_was_told(call: &DeviceCall) {
    let Some(info) = from_user::<RegionInfo>(call.arg) else {
        lost(Probe::DeviceIoctlReturn, Lost::Unreadable);
        return;
    };
    if info.flags & REGION_INFO_CAPS == 0 {
        return;
    }
    let mut at = info.cap_offset;
    for _ in 0..CAPABILITIES {
        if at == 0 {
            return;
        }
        // The last one of another kind may be shorter, at the end of what can be read.
        let Some(cap) = from_user::<RegionInfoCap>(call.arg.wrapping_add(u64::from(at))) else {
            return;
        };
        if cap.id == REGION_INFO_CAP_TYPE {
            if cap.kind == REGION_TYPE && cap.subtype == REGION_SUBTYPE {
                migration_region_was_told(call.device, &info);
            }
            return;
        }
        at = cap.next;
    }
}

#[inline(always)]
fn migration_region_was_told(device: u64, info: &RegionInfo) {
    if let Some(known) = REGIONS.get_ptr_mut(device) {
        // SAFETY: a live value of the map, aligned to eight bytes; each is a number that is written whole.
        unsafe {
            (*known).position = info.offset;
            (*known).bytes = info.size;
        }
        return;
    }
    // It was open before somebody looked, or is of a driver that is not on vfio-pci-core.
    add(Probe::DeviceIoctlReturn, device, &Outside::new(info.offset, info.size, NO_STATE, 0));
}

/// A read begins.
#[kprobe]
fn region_read(ctx: ProbeContext) -> u32 {
    begins(&ctx, Probe::RegionRead, Op::Read)
}

/// A write begins.
#[kprobe]
fn region_write(ctx: ProbeContext) -> u32 {
    begins(&ctx, Probe::RegionWrite, Op::Write)
}

/// An access to a device's file begins. Most are to other regions, and are left alone at once.
#[inline(always)]
fn begins(ctx: &ProbeContext, probe: Probe, op: Op) -> u32 {
    let (Some(file), Some(buffer), Some(bytes), Some(position)) =
        (ctx.arg::<u64>(0), ctx.arg::<u64>(1), ctx.arg::<u64>(2), ctx.arg::<u64>(3))
    else {
        return 0;
    };
    let floor = REGION_FLOOR.get(0).copied().unwrap_or(0);
    let Some(position) = kernel::number(position) else {
        return 0;
    };
    let watch = watch();
    if floor == 0 || position.wrapping_add(1) < floor || watch == 0 {
        return 0;
    }
    // Not by `and_then`: what is not inlined cannot give back more than a register holds.
    let device = match offsets() {
        Some(offsets) => kernel::device_of(file, offsets),
        None => None,
    };
    let Some(device) = device else {
        lost(probe, Lost::Unreadable);
        return 0;
    };
    let Some(known) = REGIONS.get_ptr_mut(device) else {
        return 0;
    };
    // SAFETY: a live value of the map, aligned to eight bytes, made of nothing but integers. Another call on the device that is under way
    // may change it meanwhile; then one of its numbers is the one or the other.
    let region = unsafe { &mut *known };
    let Some(offset) = region.offset(position) else {
        return 0;
    };
    seen(probe);
    if REGION_CALLS.remove(thread()).is_ok() {
        // It was seen to begin and not to end.
        lost(probe, Lost::Unfinished);
        region.in_flight = 0;
        region.overlapping = 1;
    }
    if region.joined != watch {
        region.rejoin(watch);
        conduct::lose_track(device);
    }
    // SAFETY: as for `region`.
    unsafe { shared::add(&raw mut region.in_flight, 1) };
    // SAFETY: as for `region`. Read again, for another call may have begun as well.
    if unsafe { (&raw const region.in_flight).read_volatile() } > 1 {
        region.overlapping = 1;
    }
    let value = if op as u32 == Op::Write as u32 { register_at(buffer, bytes) } else { None };
    let call = RegionCall {
        device,
        buffer,
        began_ns: now_ns(),
        offset,
        bytes,
        value: value.unwrap_or(0),
        op: op as u32,
        readable: u32::from(value.is_some()),
    };
    if REGION_CALLS.insert(thread(), call, u64::from(BPF_ANY)).is_err() {
        lost(probe, Lost::MapFull);
    }
    0
}

/// A register's value in the process's memory; none is of another width.
#[inline(always)]
fn register_at(buffer: u64, bytes: u64) -> Option<u64> {
    match bytes {
        4 => from_user::<u32>(buffer).map(u64::from),
        8 => from_user::<u64>(buffer),
        _ => None,
    }
}

/// A read or a write ends.
#[kretprobe]
fn region_return(ctx: RetProbeContext) -> u32 {
    // SAFETY: the value is copied at once; it belongs to the running thread, which runs this program alone.
    let Some(call) = unsafe { REGION_CALLS.get(thread()) }.copied() else {
        return 0;
    };
    // It was there a moment ago, and is the running thread's alone.
    let _ = REGION_CALLS.remove(thread());
    let Some(known) = REGIONS.get_ptr_mut(call.device) else {
        return 0; // closed meanwhile
    };
    // SAFETY: as in `begins`.
    let region = unsafe { &mut *known };
    seen(Probe::RegionReturn);
    let in_order = region.overlapping == 0;
    if region.in_flight <= 1 {
        region.overlapping = 0;
    }
    // A call that was under way when the device was opened anew must not leave it below zero.
    if region.in_flight != 0 {
        // SAFETY: as in `begins`.
        unsafe { shared::add(&raw mut region.in_flight, u64::MAX) };
    }
    let Some(sums) = Shared::of(Probe::RegionReturn, call.device) else {
        return 0;
    };

    let Some(room) = REGION_ROOM.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: this CPU's own value of a per-CPU map. Two programs that use it at the same time on one CPU do not exist: all that do are
    // probes of functions, of which the kernel runs one at a time on a CPU (`trace_call_bpf`, `bpf_prog_active`).
    let room = unsafe { &mut *room };
    heard(room, region, &call, ctx.ret::<i64>(), in_order);
    let room = black_box(room);
    if room.tells_state != 0 {
        state_accessed(room, region, sums);
    }
    room.event.state = region.state;
    room.meaning = if room.means != 0 { region.access(&room.event) } else { Meaning::default() };
    let room = black_box(room);
    let (event, meaning) = (&room.event, &room.meaning);
    add_up(sums, region, event, meaning, room.fits != 0);
    accesses::count(Probe::RegionReturn, event, true);
    if room.in_order == 0 {
        conduct::lose_track(call.device);
    } else if region.state != NO_STATE
        && let Some(bytes) = conduct::accessed(Probe::RegionReturn, event)
    {
        sums.set(offset_of!(DeviceSums, withheld.bytes), bytes);
        sums.add(offset_of!(DeviceSums, withheld.answers), 1);
    }
    if meaning.outcome_plus_one != 0 && meaning.outcome_plus_one != Outcome::Bitmap as u32 + 1 {
        tell_answer(region, event, meaning);
    }
    if meaning.bits != 0 {
        bitmap_was_read(&ctx, region, sums, &call, meaning);
    }
    0
}

/// Puts down what was accessed and what is known of it.
#[inline(always)]
fn heard(
    room: &mut RegionRoom,
    region: &Outside,
    call: &RegionCall,
    result: i64,
    mut in_order: bool,
) {
    let field = region.field(call.offset) as u32;
    let register = field < Field::Data as u32;
    let width = if field <= Field::Reserved as u32 { 4 } else { 8 };
    let fits = register && call.bytes == width && call.offset & (width - 1) == 0;
    let mut value = None;
    if fits {
        // What is read is there now. What was written may not have been, as far as a probe can see, before the driver looked at it.
        value = if call.readable == 1 {
            Some(call.value)
        } else {
            register_at(call.buffer, call.bytes)
        };
        // A register whose value nobody knows says nothing of what comes next.
        if value.is_none() && result != -EFAULT {
            lost(Probe::RegionReturn, Lost::Unreadable);
            in_order = false;
        }
    } else if register && result >= 0 {
        // In a width of the driver's own.
        in_order = false;
    }
    room.event = trace::RegionAccess {
        device: call.device,
        offset: call.offset,
        bytes: call.bytes,
        value: if result >= 0 { value.unwrap_or(0) } else { 0 },
        duration_ns: now_ns().saturating_sub(call.began_ns),
        result,
        field,
        op: call.op,
        state: 0,
        reserved: 0,
    };
    room.value = value.unwrap_or(0);
    room.fits = u32::from(fits);
    room.means = u32::from(!register || value.is_some());
    room.in_order = u32::from(in_order);
    room.tells_state = u32::from(field == Field::DeviceState as u32 && value.is_some());
}

/// `device_state` was written or read.
#[inline(always)]
fn state_accessed(room: &mut RegionRoom, region: &mut Outside, sums: Shared) {
    let access = &room.event;
    #[expect(clippy::cast_possible_truncation, reason = "a register of four bytes")]
    let requested = room.value as u32;
    #[expect(clippy::cast_possible_truncation, reason = "an errno, or a few bytes")]
    let result = access.result.min(0) as i32;
    let written = access.op == Op::Write as u32;
    let from = region.state;
    let change = if written {
        region.state_written(requested, result)
    } else if result == 0 {
        region.state_told(room.value)
    } else {
        None
    };
    if region.gave_up_bitmap() {
        sums.bitmap_unseen(region.state);
    }
    sums.set_region_state(region.state);
    sums.touch();
    (room.judged, room.told) = (0, 0);
    if let Some(Change { from: told_from, now }) = change {
        // Nobody asked for what is read: the device went there by itself, or somebody whom nobody saw has asked.
        let (requested, cause) = match (written, now == State::Error as u32) {
            (true, _) => (requested, Cause::Write),
            (false, true) => (now, Cause::Failure),
            (false, false) => (now, Cause::Write),
        };
        room.change = state_event(access, (told_from, requested, now), cause, result);
        if !written {
            room.change.duration_ns = 0;
        }
        room.judged = u32::from(written);
        room.told = 1;
    } else if written {
        // It took what is no state, or was asked for something, nobody knows in which state.
        room.change = state_event(access, (from, requested, requested), Cause::Write, result);
        room.judged = u32::from(result == 0);
        lost(Probe::RegionReturn, Lost::Unreadable);
    }
    let room = black_box(room);
    let change = &room.change;
    if room.judged != 0 {
        // Bits that mean nothing are written as they were read.
        conduct::state_changed(Probe::RegionReturn, change);
    }
    if room.told == 0 {
        return;
    }
    if room.judged == 0 {
        conduct::lose_track(change.device);
    }
    tell_state(Probe::RegionReturn, sums, change);
    if change.result == 0 && change.from != change.now {
        sums.begin_stay();
    }
}

#[inline(always)]
fn state_event(
    access: &trace::RegionAccess,
    (from, requested, now): (u32, u32, u32),
    cause: Cause,
    result: i32,
) -> trace::State {
    trace::State {
        device: access.device,
        duration_ns: access.duration_ns,
        from,
        requested,
        now,
        cause: cause as u32,
        result,
        reserved: 0,
    }
}

/// Adds up what an access came to.
#[inline(always)]
fn add_up(
    sums: Shared,
    region: &Outside,
    event: &trace::RegionAccess,
    meaning: &Meaning,
    fits: bool,
) {
    let ended_ns = now_ns();
    let began_ns = ended_ns.saturating_sub(event.duration_ns);
    let served = event.result >= 0;
    sums.set_region_state(region.state);
    if fits && served && event.field == Field::PendingBytes as u32 && event.op == Op::Read as u32 {
        sums.set(offset_of!(DeviceSums, pending_bytes), event.value);
        sums.add(offset_of!(DeviceSums, pending_reads), 1);
    }
    if meaning.data_asked != 0 {
        sums.set_first(offset_of!(DeviceSums, stay.data_began_ns), began_ns);
    }
    if meaning.moved_bytes != 0 {
        // Once, so that the verifier sees a number that is checked, and not a proof of the compiler's.
        let row = 8 * (black_box(meaning.direction as usize) & 1);
        sums.add(offset_of!(DeviceSums, data_bytes) + row, meaning.moved_bytes);
        sums.add(offset_of!(DeviceSums, iterations) + row, 1);
        sums.add(offset_of!(DeviceSums, data_busy_ns) + row, meaning.moved_ns);
        sums.set(offset_of!(DeviceSums, stay.data_ended_ns), ended_ns);
    }
    if meaning.outcome_plus_one != 0 {
        let row = 8 * (black_box(meaning.outcome_plus_one.wrapping_sub(1) as usize) & 3);
        sums.add(offset_of!(DeviceSums, dirty_queries) + row, 1);
        sums.add(offset_of!(DeviceSums, dirty_pages), meaning.dirty_pages);
        let bytes = meaning.dirty_pages.wrapping_mul(region.page_bytes());
        sums.add(offset_of!(DeviceSums, dirty_bytes), bytes);
        sums.add(offset_of!(DeviceSums, query_busy_ns), event.duration_ns);
        sums.set_first(offset_of!(DeviceSums, stay.query_began_ns), began_ns);
        sums.set(offset_of!(DeviceSums, stay.query_ended_ns), ended_ns);
    }
    if meaning.unseen != 0 {
        sums.bitmap_unseen(region.state);
    }
    sums.touch();
}

/// Tells an answer that says by itself which pages are dirty, or that nobody knows.
#[inline(always)]
fn tell_answer(region: &Outside, access: &trace::RegionAccess, meaning: &Meaning) {
    let outcome = match meaning.outcome_plus_one.wrapping_sub(1) {
        0 => Outcome::None,
        1 => Outcome::All,
        _ => Outcome::Error,
    };
    #[expect(clippy::cast_possible_truncation, reason = "an errno, or 0")]
    let result = access.result.min(0) as i32;
    let counts = (access.value, meaning.dirty_pages);
    let query = region.query_record(access.device, outcome, counts, (access.duration_ns, result));
    tell_query(Probe::RegionReturn, &query);
}

/// A bitmap was read, in part or as a whole: another program counts its bits. This one is large enough for the verifier.
#[inline(always)]
fn bitmap_was_read(
    ctx: &RetProbeContext,
    region: &mut Outside,
    sums: Shared,
    call: &RegionCall,
    meaning: &Meaning,
) {
    let read = BitmapRead {
        device: call.device,
        buffer: call.buffer.wrapping_add(meaning.bits_at),
        bits: meaning.bits,
    };
    if BITMAP_READS.insert(thread(), read, u64::from(BPF_ANY)).is_ok() {
        // SAFETY: the map holds a program of the same type; it takes over and does not come back.
        unsafe { REGION_TAIL.tail_call(ctx, 0) };
        // There is none: a kernel before Linux 5.17.
        let _ = BITMAP_READS.remove(thread());
    }
    if region.bits_missed() {
        sums.bitmap_unseen(region.state);
    }
}

/// The bits of a bitmap that was read are counted.
#[kretprobe]
fn region_bitmap(_ctx: RetProbeContext) -> u32 {
    // SAFETY: the value is copied at once; it belongs to the running thread, which runs this program alone.
    let Some(read) = unsafe { BITMAP_READS.get(thread()) }.copied() else {
        return 0;
    };
    // It was there a moment ago, and is the running thread's alone.
    let _ = BITMAP_READS.remove(thread());
    seen(Probe::RegionBitmap);
    let (Some(known), Some(sums)) = (REGIONS.get_ptr_mut(read.device), Shared::found(read.device))
    else {
        return 0; // closed meanwhile
    };
    // SAFETY: as in `begins`.
    let region = unsafe { &mut *known };
    let Some(set) = bitmap::count_written(read.buffer, read.bits) else {
        if region.bits_missed() {
            sums.bitmap_unseen(region.state);
        }
        return 0;
    };
    sums.add(offset_of!(DeviceSums, dirty_pages), set);
    sums.add(offset_of!(DeviceSums, dirty_bytes), set.wrapping_mul(region.page_bytes()));
    if let Some(query) = region.bits_counted(read.device, set) {
        tell_query(Probe::RegionBitmap, &query);
    }
    0
}

#[inline(always)]
fn tell_query(probe: Probe, query: &trace::DirtyQuery) {
    submit::<DirtyQueryRecord>(probe, Kind::DirtyQuery, |entry| {
        // SAFETY: `entry` is the reserved room for one record, aligned to eight bytes, and both fields of it are written.
        unsafe {
            (&raw mut (*entry).header).write(header(Kind::DirtyQuery));
            (&raw mut (*entry).event).write(*query);
        }
    });
}

/// Puts a change of state into the ring, with the sums as they are.
#[inline(always)]
fn tell_state(probe: Probe, sums: Shared, event: &trace::State) {
    machine::tell(probe, event.device);
    submit::<StateRecord>(probe, Kind::State, |entry| {
        // SAFETY: `entry` is the reserved room for one record, aligned to eight bytes, and all of it is written. The sums are a live
        // value of the map; what another thread changes meanwhile is one number at a time (`crate::shared`).
        unsafe {
            (&raw mut (*entry).header).write(header(Kind::State));
            (&raw mut (*entry).event).write(*event);
            copy(&raw mut (*entry).sums, sums.whole());
        }
    });
}

/// A device was reset, or was not. Gives whether it has a region that is seen from outside.
#[inline(always)]
pub(crate) fn was_reset(call: &DeviceCall, result: i32) -> bool {
    let Some(known) = REGIONS.get_ptr_mut(call.device) else {
        return false;
    };
    // SAFETY: as in `begins`.
    let region = unsafe { &mut *known };
    let from = region.state;
    if from == NO_STATE {
        // The first that is known of it, if anything is. The watch of accesses may not have begun.
        return true;
    }
    let running = State::Running as u32;
    if result == 0 {
        region.reset();
    }
    let Some(sums) = Shared::of(Probe::DeviceIoctlReturn, call.device) else {
        return true;
    };
    if region.gave_up_bitmap() {
        sums.bitmap_unseen(region.state);
    }
    sums.set_region_state(region.state);
    sums.touch();
    let event = trace::State {
        device: call.device,
        duration_ns: now_ns().saturating_sub(call.began_ns),
        from,
        requested: running,
        now: region.state,
        cause: Cause::Reset as u32,
        result,
        reserved: 0,
    };
    conduct::state_changed(Probe::DeviceIoctlReturn, &event);
    tell_state(Probe::DeviceIoctlReturn, sums, &event);
    if result == 0 && from != running {
        sums.begin_stay();
    }
    true
}

/// A file of a device is closed. Gives whether the device has a region that is seen from outside.
#[inline(always)]
pub(crate) fn was_closed(file: u64, device: u64) -> bool {
    let Some(known) = REGIONS.get_ptr_mut(device) else {
        return false;
    };
    let (Some(offsets), Some(layout)) = (offsets(), region_offsets()) else {
        return true;
    };
    if !kernel::is_last_user(file, offsets, layout) {
        return true;
    }
    // SAFETY: as in `begins`. Nobody has the device open any more who could access it.
    let region = unsafe { &mut *known };
    let from = region.state;
    region.reset();
    let gave_up = region.gave_up_bitmap();
    // It was there a moment ago.
    let _ = REGIONS.remove(device);
    // Nothing was ever told of a device that nobody was seen to access.
    let Some(sums) = Shared::found(device) else {
        return true;
    };
    seen(Probe::DeviceRelease);
    if gave_up {
        sums.bitmap_unseen(CLOSED);
    }
    sums.set_region_state(CLOSED);
    sums.touch();
    let running = State::Running as u32;
    let event = trace::State {
        device,
        duration_ns: 0,
        from,
        requested: running,
        now: running,
        cause: Cause::Close as u32,
        result: 0,
        reserved: 0,
    };
    conduct::state_changed(Probe::DeviceRelease, &event);
    tell_state(Probe::DeviceRelease, sums, &event);
    sums.begin_stay();
    true
}
