// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The probes: one raw-tracepoint program on each tracepoint of our driver, and kprobes for the v2 protocol and the migration region of any
//! driver, and for those who tell of a machine's dirty pages.
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
//!
//!  function        program          sums                                 ring
//!  a device's      device_ioctl.rs  DEVICE_SUMS.state, left, dirty_*     record + copy of the sums, reports of DMA logging
//!  ioctl, release
//!  a data file's   data_file.rs     data_bytes, iterations, left
//!  read, write …
//!  a device's      outside.rs       all that the tracepoints state,       the same
//!  read, write                      region_access, data, dirty_query feed
//!  a container's   type1.rs         MACHINE_SUMS, TRACKER_*              copy of a process's sums, before a change of state
//!  ioctl; iommufd  iommufd.rs
//!  a VM's ioctl    kvm.rs
//! ```
//!
//! The argument of a program on a tracepoint is a pointer to one record of `migscope_abi::trace`. What goes missing is counted in `LOST`, by reason;
//! what came is counted in `SEEN`, by program.
#![no_std]
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "an atomic addition, which core offers on this target only so"
)]
#![no_main]

mod accesses;
mod bitmap;
mod conduct;
mod emit;
mod kernel;
mod license;
#[cfg(feature = "log")]
mod log;
mod machine;
mod maps;
mod panic;
mod probes;
mod shared;
mod sums;
mod tracker;
