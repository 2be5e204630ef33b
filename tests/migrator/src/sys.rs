// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The three things that the crates for VFIO leave to unsafe code: mapping memory for DMA, borrowing the device's descriptor,
//! and a reset that says whether it worked.
//!
//! `vfio-ioctls` 0.10 does groups, containers and region information. Its `region_read`, `region_write` and `reset` print an
//! error and return nothing, though, and a test of a protocol lives on errnos.
#![expect(
    unsafe_code,
    reason = "DMA mapping, a borrowed descriptor, and one ioctl without a safe wrapper"
)]

use std::ffi::c_ulong;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use vfio_bindings::bindings::vfio::{VFIO_BASE, VFIO_TYPE};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::ioctl::{_IOC_NONE, ioctl, ioctl_expr};

/// `_IO(VFIO_TYPE, VFIO_BASE + 11)`, `include/uapi/linux/vfio.h`.
const VFIO_DEVICE_RESET: c_ulong = ioctl_expr(_IOC_NONE, VFIO_TYPE as u32, VFIO_BASE + 11, 0);

/// Lets the container's devices read and write `memory`, at I/O addresses equal to its guest addresses.
///
/// # Errors
///
/// What the kernel refused with.
pub(crate) fn map_for_dma(
    container: &VfioContainer,
    memory: &GuestMemoryMmap,
) -> Result<(), VfioError> {
    // SAFETY: `vfio_map_guest_memory` wants, for as long as the mapping stands, that no Rust reference to the memory exists, that
    // it is only used by volatile or atomic operations or by system calls, and that `GuestMemoryBackend` is implemented as
    // documented. The memory is private to `memory::DmaMemory`, which makes no reference to it and uses `VolatileSlice` alone;
    // the mapping stands until the memory is unmapped (`GuestMemoryMmap` is dropped with the device that owns it); the
    // implementation is vm-memory's own. When the call fails the caller drops the container, which undoes a part of it.
    unsafe { container.vfio_map_guest_memory(memory) }
}

/// The device's descriptor.
pub(crate) fn descriptor(device: &VfioDevice) -> BorrowedFd<'_> {
    // SAFETY: `borrow_raw` wants a descriptor that is open and stays open for the lifetime: `VfioDevice` owns it and closes it
    // when dropped, and the result borrows the `VfioDevice`. It is not -1, since opening it succeeded.
    unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) }
}

/// `VFIO_DEVICE_RESET`.
///
/// # Errors
///
/// What the kernel refused with.
pub(crate) fn reset(device: &VfioDevice) -> io::Result<()> {
    // SAFETY: `ioctl` wants a request that matches the descriptor and takes no argument. The descriptor is the device's, open
    // as above, and `VFIO_DEVICE_RESET` takes none (`_IO`).
    match unsafe { ioctl(device, VFIO_DEVICE_RESET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reset_has_the_number_of_the_header() {
        assert_eq!(VFIO_DEVICE_RESET, 0x3b6f);
    }
}
