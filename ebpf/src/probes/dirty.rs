// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Dirty pages: the queries for them, and the DMA that makes them.
#![expect(unsafe_code, reason = "ring entries are reached through raw pointers")]

use crate::{
    emit::{header, now_ns, record, submit},
    sums,
};
use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use migscope_abi::{
    probe::Probe,
    ring::{DirtyQueryRecord, Kind},
    trace,
};

/// An answer to "which pages are dirty?". It does not tell the device's state.
#[raw_tracepoint(tracepoint = "vfio_mediate_dirty_query")]
fn dirty_query(ctx: RawTracePointContext) -> i32 {
    let Some(event) = record::<trace::DirtyQuery>(&ctx, Probe::DirtyQuery) else {
        return 0;
    };
    sums::update(Probe::DirtyQuery, event.device, |sums| {
        let bytes = event.dirty_pages.wrapping_mul(event.page_bytes);
        sums::add(&mut sums.dirty_queries, event.outcome, 1);
        sums.dirty_pages = sums.dirty_pages.wrapping_add(event.dirty_pages);
        sums.dirty_bytes = sums.dirty_bytes.wrapping_add(bytes);
        sums.query_busy_ns = sums.query_busy_ns.wrapping_add(event.duration_ns);
        sums.stay.query_ended_ns = now_ns();
        if sums.stay.query_began_ns == 0 {
            sums.stay.query_began_ns = sums.stay.query_ended_ns.saturating_sub(event.duration_ns);
        }
    });
    submit::<DirtyQueryRecord>(Probe::DirtyQuery, Kind::DirtyQuery, |entry| {
        // SAFETY: `entry` is the reserved room for one record, aligned to eight bytes, and both fields of it are written.
        unsafe {
            (&raw mut (*entry).header).write(header(Kind::DirtyQuery));
            (&raw mut (*entry).event).write(event);
        }
    });
    0
}

/// A transfer that is over. A refused command moved nothing: its rule is in the tracepoint `error`.
#[raw_tracepoint(tracepoint = "vfio_mediate_dma")]
fn dma(ctx: RawTracePointContext) -> i32 {
    let Some(event) = record::<trace::Dma>(&ctx, Probe::Dma) else {
        return 0;
    };
    sums::update(Probe::Dma, event.device, |sums| {
        sums.state = u64::from(event.state);
        if event.result == 0 {
            sums::add(&mut sums.dma_transfers, event.direction, 1);
            sums::add(&mut sums.dma_bytes, event.direction, event.bytes);
        }
    });
    0
}
