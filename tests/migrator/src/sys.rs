// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the crates for VFIO leave to unsafe code: mapping memory for DMA, borrowing the device's descriptor, the description
//! of a region as the kernel gives it, the container's own dirty log, and a reset that says whether it worked.
//!
//! `vfio-ioctls` 0.10 does groups and containers. Its `region_read`, `region_write` and `reset` print an error and return
//! nothing, though, and a test of a protocol lives on errnos; and it trusts the chain of capabilities that it walks.
#![expect(
    unsafe_code,
    reason = "DMA mapping, a borrowed descriptor, and ioctls without a safe wrapper"
)]

use std::ffi::c_ulong;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP, VFIO_TYPE, vfio_bitmap,
    vfio_iommu_type1_dirty_bitmap_get,
};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::ioctl::{_IOC_NONE, ioctl, ioctl_expr, ioctl_with_mut_ptr, ioctl_with_mut_ref};

/// `_IO(VFIO_TYPE, VFIO_BASE + 11)`, `include/uapi/linux/vfio.h`.
const VFIO_DEVICE_RESET: c_ulong = ioctl_expr(_IOC_NONE, VFIO_TYPE as u32, VFIO_BASE + 11, 0);

/// `_IO(VFIO_TYPE, VFIO_BASE + 8)`.
const VFIO_DEVICE_GET_REGION_INFO: c_ulong =
    ioctl_expr(_IOC_NONE, VFIO_TYPE as u32, VFIO_BASE + 8, 0);

/// `_IO(VFIO_TYPE, VFIO_BASE + 17)`.
const VFIO_IOMMU_DIRTY_PAGES: c_ulong = ioctl_expr(_IOC_NONE, VFIO_TYPE as u32, VFIO_BASE + 17, 0);

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

/// `VFIO_DEVICE_GET_REGION_INFO` for the region of this number: fills `bytes` with `struct vfio_region_info` and, if there is
/// room for them, its capabilities. The first four bytes then say how much room there should be.
///
/// # Errors
///
/// What the kernel refused with; `EINVAL` when `bytes` has no room for the struct.
pub(crate) fn region_info(device: BorrowedFd<'_>, index: u32, bytes: &mut [u8]) -> io::Result<()> {
    let argsz = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let Some(fixed) = bytes.first_chunk_mut::<12>() else {
        return Err(io::Error::from_raw_os_error(rustix::io::Errno::INVAL.raw_os_error()));
    };
    *fixed = [0; 12];
    fixed[..4].copy_from_slice(&argsz.to_ne_bytes());
    fixed[8..].copy_from_slice(&index.to_ne_bytes());
    // SAFETY: `ioctl_with_mut_ptr` wants a request that matches the descriptor and a pointer to what the request reads and
    // writes. The kernel reads and writes at most `argsz` bytes there, which is no more than the slice has, byte by byte, so
    // any alignment will do.
    let result =
        unsafe { ioctl_with_mut_ptr(&device, VFIO_DEVICE_GET_REGION_INFO, bytes.as_mut_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `struct vfio_iommu_type1_dirty_bitmap` with `struct vfio_iommu_type1_dirty_bitmap_get` behind it.
#[repr(C)]
struct DirtyPages {
    argsz: u32,
    flags: u32,
    range: vfio_iommu_type1_dirty_bitmap_get,
}

/// `VFIO_IOMMU_DIRTY_PAGES`: starts or stops the container's dirty log, as `flags` says.
///
/// # Errors
///
/// What the kernel refused with.
pub(crate) fn dirty_log(container: &VfioContainer, flags: u32) -> io::Result<()> {
    dirty_pages(container, flags, vfio_iommu_type1_dirty_bitmap_get::default())
}

/// `VFIO_IOMMU_DIRTY_PAGES` with `GET_BITMAP`: which pages of `page_bytes` bytes from `iova` on are dirty, a bit for each of
/// `bitmap`. They are clean afterwards.
///
/// # Errors
///
/// What the kernel refused with.
pub(crate) fn dirty_bitmap(
    container: &VfioContainer,
    iova: u64,
    page_bytes: u64,
    bitmap: &mut [u64],
) -> io::Result<()> {
    let words = u64::try_from(bitmap.len()).map_err(|_too_long| io::ErrorKind::InvalidInput)?;
    let size = words.checked_mul(64).and_then(|pages| pages.checked_mul(page_bytes));
    let range = vfio_iommu_type1_dirty_bitmap_get {
        iova,
        size: size.ok_or(io::ErrorKind::InvalidInput)?,
        bitmap: vfio_bitmap { pgsize: page_bytes, size: words * 8, data: bitmap.as_mut_ptr() },
    };
    dirty_pages(container, VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP, range)
}

/// Whoever gives a bitmap has it for `range.bitmap.size` bytes, and borrowed until the call is back.
fn dirty_pages(
    container: &VfioContainer,
    flags: u32,
    range: vfio_iommu_type1_dirty_bitmap_get,
) -> io::Result<()> {
    let argsz = u32::try_from(size_of::<DirtyPages>()).map_err(|_never| io::ErrorKind::Other)?;
    let mut request = DirtyPages { argsz, flags, range };
    // SAFETY: `ioctl_with_mut_ref` wants a request that matches the descriptor and a reference to what it takes. The
    // descriptor is the container's, the struct is laid out as the kernel's and says its own length. The kernel writes through
    // `bitmap.data`, at most `bitmap.size` bytes, and only for GET_BITMAP: then both are those of a slice that
    // `dirty_bitmap()` borrows for writing.
    match unsafe { ioctl_with_mut_ref(container, VFIO_IOMMU_DIRTY_PAGES, &mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_have_the_numbers_of_the_header() {
        assert_eq!(VFIO_DEVICE_RESET, 0x3b6f);
        assert_eq!(VFIO_DEVICE_GET_REGION_INFO, 0x3b6c);
        assert_eq!(VFIO_IOMMU_DIRTY_PAGES, 0x3b75);
    }
}
