// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The dirty log of a container (`VFIO_IOMMU_DIRTY_PAGES`), call by call.
#![expect(unsafe_code, reason = "ioctl")]

use std::ffi::{c_ulong, c_void};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use migscope_abi::tracking::{
    DIRTY_PAGES_GET_BITMAP, DIRTY_PAGES_START, DIRTY_PAGES_STOP, Type1Bitmap, UNMAP_GET_BITMAP,
    VFIO_IOMMU_DIRTY_PAGES, VFIO_IOMMU_UNMAP_DMA,
};
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::memory::{Memory, PAGE_BYTES};

/// `_IO(';', 113)`
const MAP_DMA: c_ulong = 0x3b71;
/// `VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE`
const READ_WRITE: u64 = 0b11;

/// Maps all of `memory` at `iova`.
///
/// # Errors
///
/// What the kernel refused with.
pub fn map(container: &File, memory: &Memory, iova: u64) -> io::Result<()> {
    let mut words = [40 | READ_WRITE << 32, memory.address(), iova, memory.bytes(), 0];
    ioctl(container, MAP_DMA, words.as_mut_ptr().cast())
}

/// Starts the log, or stops it.
///
/// # Errors
///
/// What the kernel refused with.
pub fn log(container: &File, on: bool) -> io::Result<()> {
    let mut asked = Type1Bitmap::new_zeroed();
    asked.argsz = 8;
    asked.flags = if on { DIRTY_PAGES_START } else { DIRTY_PAGES_STOP };
    ioctl(container, VFIO_IOMMU_DIRTY_PAGES.into(), asked.as_mut_bytes().as_mut_ptr().cast())
}

/// Which of `pages` pages from `iova` on are dirty.
///
/// # Errors
///
/// What the kernel refused with.
pub fn dirty(container: &File, iova: u64, pages: u64) -> io::Result<Vec<u64>> {
    ask(container, VFIO_IOMMU_DIRTY_PAGES, DIRTY_PAGES_GET_BITMAP, iova, pages)
}

/// Takes them away, and says which of them are dirty.
///
/// # Errors
///
/// What the kernel refused with.
pub fn unmap(container: &File, iova: u64, pages: u64) -> io::Result<Vec<u64>> {
    ask(container, VFIO_IOMMU_UNMAP_DMA, UNMAP_GET_BITMAP, iova, pages)
}

fn ask(container: &File, request: u32, flags: u32, iova: u64, pages: u64) -> io::Result<Vec<u64>> {
    let mut words = super::bitmap(&[], pages);
    let mut asked = Type1Bitmap {
        argsz: u32::try_from(size_of::<Type1Bitmap>()).expect("a small length"),
        flags,
        iova,
        size: pages * PAGE_BYTES,
        page_size: PAGE_BYTES,
        bitmap_bytes: words.len() as u64 * 8,
        bitmap: words.as_mut_ptr().expose_provenance() as u64,
    };
    ioctl(container, request.into(), asked.as_mut_bytes().as_mut_ptr().cast())?;
    // What was shifted out of a mapping's own log by a query before may stand behind the last page.
    Ok(super::bits(&words).into_iter().filter(|page| *page < pages).collect())
}

fn ioctl(container: &File, request: c_ulong, argument: *mut c_void) -> io::Result<()> {
    // SAFETY: Each caller passes what its request asks for, for the time of the call: a structure that says how long it is, and in
    // it a bitmap that is as long as it says.
    let result = unsafe { libc::ioctl(container.as_raw_fd(), request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
