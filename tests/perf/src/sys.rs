// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The ioctls that no crate has: the v2 protocol's device state, and the dirty pages of a type 1 container; and address space
//! to map that nobody uses.
#![expect(unsafe_code, reason = "ioctls without a safe wrapper, and a mapping without memory")]

use std::ffi::{c_int, c_ulong, c_void};
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::ptr;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use vfio_bindings::bindings::vfio::{VFIO_BASE, VFIO_TYPE};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError};
use vmm_sys_util::ioctl::{_IOC_NONE, ioctl_expr, ioctl_with_mut_ref};

/// `_IO(VFIO_TYPE, VFIO_BASE + 17)`, `include/uapi/linux/vfio.h`: both share the number, on different files.
const VFIO_DEVICE_FEATURE: c_ulong = ioctl_expr(_IOC_NONE, VFIO_TYPE as u32, VFIO_BASE + 17, 0);
const VFIO_IOMMU_DIRTY_PAGES: c_ulong = VFIO_DEVICE_FEATURE;
const VFIO_DEVICE_FEATURE_SET: u32 = 1 << 17;
const VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: u32 = 2;

/// `enum vfio_device_mig_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum MigrationState {
    /// Runs.
    Running = 2,
    /// Stopped, and its state can be read.
    StopCopy = 3,
}

/// `struct vfio_device_feature` with a `struct vfio_device_feature_mig_state`.
#[repr(C)]
struct SetState {
    argsz: u32,
    flags: u32,
    device_state: u32,
    data_fd: c_int,
}

/// Brings a device of the v2 protocol to a state; gives the file of its data where there is one.
pub(crate) fn set_migration_state(
    device: &VfioDevice,
    state: MigrationState,
) -> io::Result<Option<OwnedFd>> {
    let mut argument = SetState {
        argsz: u32::try_from(size_of::<SetState>()).expect("small"),
        flags: VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
        device_state: state as u32,
        data_fd: -1,
    };
    // SAFETY: `ioctl` wants an argument of the request's type that is valid for reads and writes: `argsz` says its length, and
    // the layout is that of the header.
    if unsafe { ioctl_with_mut_ref(device, VFIO_DEVICE_FEATURE, &mut argument) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `from_raw_fd` wants a descriptor that is open and nobody else's: the kernel has just made it for us.
    Ok((argument.data_fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(argument.data_fd) }))
}

/// What is asked of a container's dirty log.
pub(crate) enum DirtyPages<'a> {
    /// Begin to log.
    Start,
    /// What is dirty in the first `bytes` bytes of I/O address space, in pages of 4 KiB.
    GetBitmap { bytes: u64, bitmap: &'a mut [u64] },
    /// End.
    Stop,
}

/// `struct vfio_iommu_type1_dirty_bitmap` with a `struct vfio_iommu_type1_dirty_bitmap_get`.
#[repr(C)]
struct Dirty {
    argsz: u32,
    flags: u32,
    iova: u64,
    size: u64,
    page_size: u64,
    bitmap_bytes: u64,
    bitmap: *mut u64,
}

/// `VFIO_IOMMU_DIRTY_PAGES`.
pub(crate) fn dirty_pages(container: &VfioContainer, what: DirtyPages<'_>) -> io::Result<()> {
    let flags = match &what {
        DirtyPages::Start => 1 << 0,
        DirtyPages::Stop => 1 << 1,
        DirtyPages::GetBitmap { .. } => 1 << 2,
    };
    let (size, bitmap_bytes, bitmap) = match what {
        DirtyPages::GetBitmap { bytes, bitmap } => {
            (bytes, size_of_val(bitmap), bitmap.as_mut_ptr())
        }
        DirtyPages::Start | DirtyPages::Stop => (0, 0, ptr::null_mut()),
    };
    let mut argument = Dirty {
        argsz: u32::try_from(size_of::<Dirty>()).expect("small"),
        flags,
        iova: 0,
        size,
        page_size: 4096,
        bitmap_bytes: u64::try_from(bitmap_bytes).expect("fits"),
        bitmap,
    };
    // SAFETY: As above; the kernel writes at most `bitmap_bytes` bytes to `bitmap`, which is a slice of that length that
    // outlives the call.
    match unsafe { ioctl_with_mut_ref(container, VFIO_IOMMU_DIRTY_PAGES, &mut argument) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Address space that nothing is behind.
pub(crate) struct Reserved {
    base: *mut c_void,
    bytes: usize,
}

/// Reserves address space.
pub(crate) fn reserve(bytes: usize) -> io::Result<Reserved> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: At an address of the kernel's choice a new mapping touches no memory that is in use.
    let base = unsafe { mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::empty(), flags) }?;
    Ok(Reserved { base, bytes })
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's own, and nothing points into it.
        let _unmapped = unsafe { munmap(self.base, self.bytes) };
    }
}

/// Maps reserved address space for DMA at I/O address 0, in a container that does not pin.
pub(crate) fn map(
    container: &VfioContainer,
    reserved: &Reserved,
    bytes: u64,
) -> Result<(), VfioError> {
    let bytes = usize::try_from(bytes).expect("64 bits").min(reserved.bytes);
    // SAFETY: The function wants memory that no reference is to, for as long as it is mapped: there is no memory.
    unsafe { container.vfio_dma_map(0, bytes, reserved.base.cast()) }
}

/// Undoes [`map`].
pub(crate) fn unmap(container: &VfioContainer, bytes: u64) -> Result<(), VfioError> {
    container.vfio_dma_unmap(0, usize::try_from(bytes).expect("64 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_have_the_numbers_of_the_header() {
        assert_eq!(VFIO_DEVICE_FEATURE, 0x3b75);
        assert_eq!(size_of::<Dirty>(), 48);
        assert_eq!(size_of::<SetState>(), 16);
    }
}
