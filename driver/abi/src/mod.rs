// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What crosses a privilege line, and nothing else.
//!
//! ```text
//!   user space ── region ──▶ vfio_mediate.ko ── trace ──▶ eBPF probes ── ring ──▶ migscope agent
//!   (a VMM)      64 bytes       (driver)       records                  records
//! ```
//!
//! The same files are compiled into the kernel module (edition 2021, `#[path]` to this file), into the
//! eBPF object and into the programs of user space. So they hold plain data and total functions: no allocation, no floats,
//! no panics, no `unsafe`; paths between them start with `super::`.
//!
//! A record never changes in place: a new field goes to the end, and its size, pinned by a constant assertion beside it,
//! changes with it. All integers are in the machine's own order; a record has no implicit padding.

pub mod device;
pub mod dirty;
pub mod latency;
pub mod machine;
pub mod outside;
#[cfg(feature = "aya")]
pub mod pod;
pub mod probe;
pub mod region;
pub mod ring;
pub mod rule;
pub mod state;
pub mod trace;
pub mod tracking;
pub mod v2;
pub mod watch;
