// SPDX-License-Identifier: Apache-2.0 OR MIT
//! DMA with a known outcome: which pages a device wrote, and what stands in them.
//!
//! ```text
//!   Spec ──▶ Plan ──operations──▶ Worker ──registers──▶ Edu ──DMA──▶ memory
//!              │                    │ finished
//!              └────────────────▶ Model   what memory and the device's buffer must hold
//! ```
//!
//! The plan is seeded: the same seed gives the same operations. The processor writes the memory once, before the device
//! starts ([`Model::memory`]); from then on the device alone writes, so each change of memory is one that a dirty log must know.

pub mod edu;
mod model;
mod plan;
mod worker;

pub use model::Model;
pub use plan::{Operation, Plan, Spec, SpecError};
pub use worker::{Counts, Finished, Worker, WorkerError};

/// The page that dirty logs count in here, in bytes.
pub const PAGE_BYTES: u64 = 4096;
