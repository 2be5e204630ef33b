// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The migration region of devices of our driver: state changes, accesses, buffers of device data, refusals.
#![expect(unsafe_code, reason = "map values and ring entries are reached through raw pointers")]

use crate::{
    accesses, conduct,
    emit::{copy, header, lost, now_ns, record, submit},
    machine,
    maps::REFUSALS,
    sums,
};
use aya_ebpf::{bindings::BPF_NOEXIST, macros::raw_tracepoint, programs::RawTracePointContext};
use migscope_abi::{
    probe::Probe,
    region::{Field, HEADER_BYTES, Op},
    ring::{ErrorRecord, Kind, Lost, STATE_CLOSED, StateRecord, Stay},
    rule::Rule,
    state::Cause,
    trace,
};

/// What a device starts with. Too large to be put on a program's stack for nothing.
static NOTHING_REFUSED: [u64; Rule::COUNT] = [0; Rule::COUNT];

/// A state change, with a copy of the device's sums at that moment; a stay in a state ends with it.
#[raw_tracepoint(tracepoint = "vfio_mediate_state")]
fn state(ctx: RawTracePointContext) -> i32 {
    let Some(event) = record::<trace::State>(&ctx, Probe::State) else {
        return 0;
    };
    let closed = event.cause == Cause::Close as u32;
    let device_sums = sums::update(Probe::State, event.device, |sums| {
        sums.state = if closed { STATE_CLOSED } else { u64::from(event.now) };
    });
    conduct::state_changed(Probe::State, &event);
    machine::tell(Probe::State, event.device);
    submit::<StateRecord>(Probe::State, Kind::State, |entry| {
        // SAFETY: `entry` is the reserved room for one record, aligned to eight bytes, and all three fields of it are written.
        // `device_sums` is a live value of the map that nothing else changes now (see `sums::update`).
        unsafe {
            (&raw mut (*entry).header).write(header(Kind::State));
            (&raw mut (*entry).event).write(event);
            let sums = device_sums.map_or(&raw const sums::START, <*mut _>::cast_const);
            copy(&raw mut (*entry).sums, sums);
        }
    });
    if let Some(device_sums) = device_sums
        && event.result == 0
        && event.from != event.now
    {
        // SAFETY: as above: a live value of the map that nothing else changes now.
        unsafe { (&raw mut (*device_sums).stay).write(Stay::NONE) };
    }
    0
}

/// One access: counted, and its duration with it.
#[raw_tracepoint(tracepoint = "vfio_mediate_region_access")]
fn region_access(ctx: RawTracePointContext) -> i32 {
    let Some(event) = record::<trace::RegionAccess>(&ctx, Probe::RegionAccess) else {
        return 0;
    };
    let refused = event.result < 0;
    let device_sums = sums::update(Probe::RegionAccess, event.device, |sums| {
        sums.state = u64::from(event.state);
        if event.field == Field::PendingBytes as u32 && event.op == Op::Read as u32 && !refused {
            sums.pending_bytes = event.value;
            sums.pending_reads = sums.pending_reads.wrapping_add(1);
        }
        // After a dirty query the same register tells where the bitmap is.
        let tells_data = event.field == Field::DataOffset as u32 && event.value == HEADER_BYTES;
        if tells_data && !refused && sums.stay.data_began_ns == 0 {
            sums.stay.data_began_ns = now_ns().saturating_sub(event.duration_ns);
        }
    });

    accesses::count(Probe::RegionAccess, &event, false);
    let withheld = conduct::accessed(Probe::RegionAccess, &event);
    if let (Some(device_sums), Some(bytes)) = (device_sums, withheld) {
        // SAFETY: a live value of the map that nothing else changes now (see `sums::update`).
        let withheld = unsafe { &mut (*device_sums).withheld };
        withheld.bytes = bytes;
        withheld.answers = withheld.answers.wrapping_add(1);
    }
    0
}

/// One buffer of device data.
#[raw_tracepoint(tracepoint = "vfio_mediate_data")]
fn data(ctx: RawTracePointContext) -> i32 {
    let Some(event) = record::<trace::Data>(&ctx, Probe::Data) else {
        return 0;
    };
    sums::update(Probe::Data, event.device, |sums| {
        sums.state = u64::from(event.state);
        sums::add(&mut sums.data_bytes, event.direction, event.bytes);
        sums::add(&mut sums.iterations, event.direction, 1);
        sums::add(&mut sums.data_busy_ns, event.direction, event.duration_ns);
        sums.stay.data_ended_ns = now_ns();
    });
    0
}

/// A refusal, with the rule that was broken.
#[raw_tracepoint(tracepoint = "vfio_mediate_error")]
fn error(ctx: RawTracePointContext) -> i32 {
    let Some(event) = record::<trace::Error>(&ctx, Probe::Error) else {
        return 0;
    };
    sums::update(Probe::Error, event.device, |sums| sums.state = u64::from(event.state));
    refused(event.device, event.rule);
    submit::<ErrorRecord>(Probe::Error, Kind::Error, |entry| {
        // SAFETY: `entry` is the reserved room for one record, aligned to eight bytes, and both fields of it are written.
        unsafe {
            (&raw mut (*entry).header).write(header(Kind::Error));
            (&raw mut (*entry).event).write(event);
        }
    });
    0
}

/// Counts a broken rule: a client that breaks rules in a loop fills the ring, and then this alone knows how often it did.
#[inline(always)]
fn refused(device: u64, rule: u32) {
    let row = REFUSALS.get_ptr_mut(device).or_else(|| {
        // Another CPU may have made the entry meanwhile: whoever came first, it is found now.
        #[expect(
            clippy::needless_borrows_for_generic_args,
            reason = "by value it would be copied to the stack"
        )]
        let _ = REFUSALS.insert(device, &NOTHING_REFUSED, u64::from(BPF_NOEXIST));
        REFUSALS.get_ptr_mut(device)
    });
    match row {
        // SAFETY: this CPU's own value of a per-CPU map, aligned to eight bytes and alive while the program runs; no other program
        // writes it, and this one does not run twice at a time on a CPU (see `crate::maps`).
        Some(row) => sums::add(unsafe { &mut *row }, rule.wrapping_sub(1), 1),
        None => lost(Probe::Error, Lost::MapFull),
    }
}
