// SPDX-License-Identifier: GPL-2.0
//! `vfio_mediate`: a vfio-pci variant driver whose devices can migrate.
//!
//! ```text
//!   user space ──▶ VFIO ──▶ vfio.rs ──▶ mediate.rs ──┬─ pass through ──▶ vfio-pci-core
//!                                                    ├─ handled: vendor.rs ──▶ a vendor's module
//!                                                    └─ handled: device.rs (provider)
//!                                                           │ BAR trapped    │ region (3,1)
//!                                                           ▼                ▼
//!                                                        bar.rs           region.rs ── state.rs
//!                                                           │                ├─ windows.rs ── mapped by user space
//!                                                           │                ├─ dirty.rs      pages of the guest's memory
//!                                                           ▼                ├─ memory.rs     pages of the device's own
//!                             device/edu.rs, device/ivshmem.rs ◀─────────────┴─ image.rs
//!                                           │
//!                                           ▼
//!                                     the hardware
//! ```
//!
//! `abi` is what crosses to user space, `trace.rs` what the driver tells about itself; `ffi.rs`, `vfio.rs`, `vendor.rs` and
//! the lock in `mediate/registry.rs` are the only places with `unsafe`.

#![deny(unsafe_code)]

#[path = "abi/src/mod.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "user space and the probes use it too, and the rest of it"
)]
mod abi;
mod bar;
mod device;
mod dirty;
mod ffi;
mod image;
#[cfg(CONFIG_KUNIT = "y")]
mod kunit;
mod mediate;
mod memory;
mod region;
mod state;
mod trace;
mod vendor;
mod vfio;
mod windows;

kernel::prelude::module! {
    type: mediate::Module,
    name: "vfio_mediate",
    authors: ["The migscope authors"],
    description: "Mediated PCI devices with a VFIO migration region",
    license: "GPL",
    params: {
        data_window: u32 {
            default: 65536,
            description: "Length of the device-data window, in bytes: a multiple of the page size, at most 16 MiB",
        },
        data_section: u32 {
            default: 1,
            description: "How the device-data window is reached: 0 trapped, 1 mapped, 2 partitioned (its first page is trapped)",
        },
        bitmap_window: u32 {
            default: 65536,
            description: "Length of the dirty-bitmap window, in bytes: a multiple of the page size, at most 16 MiB",
        },
    },
}
