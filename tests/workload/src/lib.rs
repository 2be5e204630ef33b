// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Work with a known outcome: which pages were written, and what stands in them.
//!
//! Of a device that writes memory by DMA, [`edu`]:
//!
//! ```text
//!   Spec ──▶ Plan ──operations──▶ Worker ──registers──▶ Edu ──DMA──▶ memory
//!              │                    │ finished
//!              └────────────────▶ Model   what memory and the device's buffer must hold
//! ```
//!
//! The plan is seeded: the same seed gives the same operations. The processor writes the memory once, before the device
//! starts ([`Model::memory`]); from then on the device alone writes, so each change of memory is one that a dirty log must know.
//!
//! Of a device that is itself a memory, [`ivshmem`], which the processor writes:
//!
//! ```text
//!   Load ──▶ Strokes ──writes──▶ Writer ──Mapping, or system calls──▶ the device's memory
//!                                  │ each write
//!                                  └──▶ Content   what the memory must hold
//! ```

pub mod content;
pub mod edu;
pub mod ivshmem;
pub mod mapping;
mod model;
pub mod pattern;
mod plan;
mod worker;
mod writer;

pub use model::Model;
pub use plan::{Operation, Plan, Spec, SpecError};
pub use worker::{Counts, Finished, Worker, WorkerError};
pub use writer::{Rest, Writer, WriterError};

/// The page that dirty logs count in here, in bytes.
pub const PAGE_BYTES: u64 = 4096;
