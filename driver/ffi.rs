// SPDX-License-Identifier: GPL-2.0
//! The border to C: bindgen's output behind a private door, and safe forms of what `shim.c` and `tracepoints.c` offer.
//!
//! Only `vfio.rs` and `vendor.rs` see [`bindings`]; every other module uses safe functions from here or from there.

#![expect(unsafe_code, reason = "the border to C")]

use crate::abi::trace;

/// Generated from `shim.h`. Types that the `kernel` crate also binds are taken from it, so pointers go both ways.
#[allow(
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::as_underscore,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    reason = "generated code"
)]
pub(crate) mod bindings {
    pub(crate) use kernel::bindings::*;
    use kernel::ffi;
    use pin_init::{MaybeZeroable, Zeroable};

    // Types that the VFIO headers only point to and that the kernel's bindings lack.
    #[repr(C)]
    pub struct iommufd_access {
        opaque: [u8; 0],
    }
    #[repr(C)]
    pub struct iommufd_device {
        opaque: [u8; 0],
    }
    #[repr(C)]
    pub struct kvm {
        opaque: [u8; 0],
    }
    #[repr(C)]
    pub struct perm_bits {
        opaque: [u8; 0],
    }
    #[repr(C)]
    pub struct virqfd {
        opaque: [u8; 0],
    }

    // SAFETY: The unit is a transparent wrapper around its storage.
    unsafe impl<Storage> Zeroable for __BindgenBitfieldUnit<Storage> where Storage: Zeroable {}

    include!(env!("VFIO_MEDIATE_BINDINGS"));
}

/// CRC-32 (IEEE 802.3) over `bytes`, going on from `seed`, which is `!0` at the start.
pub(crate) fn crc32(seed: u32, bytes: &[u8]) -> u32 {
    // SAFETY: The pointer and the length are those of a slice, which the function only reads.
    unsafe { bindings::vfio_mediate_crc32(seed, bytes.as_ptr().cast(), bytes.len()) }
}

macro_rules! tracepoint {
    ($enabled:ident, $emit:ident, $c_enabled:ident, $c_emit:ident, $record:ty) => {
        /// Whether somebody listens: a static key.
        pub(crate) fn $enabled() -> bool {
            // SAFETY: The function reads a static key and has no precondition.
            unsafe { bindings::$c_enabled() }
        }

        /// Hands the record to the tracepoint.
        pub(crate) fn $emit(record: &$record) {
            // SAFETY: The pointer is to a live record whose layout is that of the C struct, as asserted in `trace.rs`; the
            // tracepoint copies it and keeps no pointer.
            unsafe { bindings::$c_emit(core::ptr::from_ref(record).cast()) }
        }
    };
}

tracepoint!(
    state_enabled,
    emit_state,
    vfio_mediate_state_enabled,
    vfio_mediate_trace_state,
    trace::State
);
tracepoint!(
    region_access_enabled,
    emit_region_access,
    vfio_mediate_region_access_enabled,
    vfio_mediate_trace_region_access,
    trace::RegionAccess
);
tracepoint!(
    data_enabled,
    emit_data,
    vfio_mediate_data_enabled,
    vfio_mediate_trace_data,
    trace::Data
);
tracepoint!(
    dirty_query_enabled,
    emit_dirty_query,
    vfio_mediate_dirty_query_enabled,
    vfio_mediate_trace_dirty_query,
    trace::DirtyQuery
);
tracepoint!(dma_enabled, emit_dma, vfio_mediate_dma_enabled, vfio_mediate_trace_dma, trace::Dma);
tracepoint!(
    error_enabled,
    emit_error,
    vfio_mediate_error_enabled,
    vfio_mediate_trace_error,
    trace::Error
);
