// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The client of the migration region: what a VMM does to a device, without the VMM.
//!
//! ```text
//!   workload ──BAR 0──▶ edu A ──DMA──▶ memory A                    memory B ◀──DMA── edu B
//!                         │               │                            ▲               ▲
//!                       region          pages                        pages          region
//!                         ▼               ▼                            │               │
//!                       Source ═══════ Stream (UNIX, TCP, file) ═══════▶ Destination ──┘
//!                         └──────────────▶ Account ◀───────────────────────┘
//! ```
//!
//! It follows the sequences of the RFC "vfio/pci: register a default migration region" (Yan Zhao, 2019) to the letter,
//! migrates the memory that the device writes by the device's own dirty reports, and proves afterwards that nothing was lost. It
//! keeps an exact [`account::Account`] of every access it made, which is what an observer's account is compared with.

pub mod account;
pub mod address;
pub mod cli;
pub mod clock;
pub mod destination;
pub mod device;
pub mod dirty;
pub mod live;
pub mod mapping;
pub mod memory;
pub mod phase;
pub mod region;
pub mod region_info;
pub mod source;
pub mod stream;
mod sys;
pub mod verify;

/// The page that memory is migrated in, in bytes.
pub const PAGE_BYTES: u64 = 4096;
