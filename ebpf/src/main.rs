// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The probes: one raw-tracepoint program on each tracepoint of the driver.
//!
//! ```text
//!  tracepoint      program         sums (maps)                          ring (emit)
//!  state           region.rs       DEVICE_SUMS.state, CONDUCT           record + copy of the sums, broken rules
//!  region_access   region.rs       ACCESSES, LATENCY_*, pending_bytes,  broken rules
//!                                  CONDUCT
//!  data            region.rs       data_bytes, iterations
//!  dirty_query     dirty.rs        dirty_queries, _pages, _bytes        record
//!  dma             dirty.rs        dma_transfers, dma_bytes
//!  error           region.rs       REFUSALS                             record
//! ```
//!
//! A program's argument is a pointer to one record of `migscope_abi::trace`. What goes missing is counted in `LOST`, by reason;
//! what came is counted in `SEEN`, by tracepoint.
#![no_std]
#![no_main]

mod conduct;
mod emit;
mod license;
mod maps;
mod panic;
mod probes;
mod sums;
