// SPDX-License-Identifier: GPL-2.0
//! `vfio_mediate`: a vfio-pci variant driver whose devices can migrate.
//!
//! ```text
//!   user space ──▶ VFIO ──▶ vfio.rs ──▶ mediate.rs ──┬─ pass through ──▶ vfio-pci-core
//!                                                    └─ handled: device.rs (provider)
//!                                                           │ BAR trapped    │ region (3,1)
//!                                                           ▼                ▼
//!                                                        bar.rs           region.rs ── state.rs
//!                                                           │                ├─ dirty.rs
//!                                                           ▼                └─ image.rs
//!                                  the hardware ◀───── device/edu.rs ◀───────┘
//! ```
//!
//! `abi` is what crosses to user space, `trace.rs` what the driver tells about itself; `ffi.rs` and `vfio.rs` are the only
//! places with `unsafe`.

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
mod mediate;
mod region;
mod state;
mod trace;
mod vfio;

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
        bitmap_window: u32 {
            default: 65536,
            description: "Length of the dirty-bitmap window, in bytes: a multiple of the page size, at most 16 MiB",
        },
    },
}
