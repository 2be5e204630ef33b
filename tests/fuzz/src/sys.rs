// SPDX-License-Identifier: Apache-2.0 OR MIT
//! System calls that safe wrappers do not make: VFIO's ioctls, mappings, and reads and writes with bad pointers.
#![expect(unsafe_code, reason = "the calls under test, as raw as a broken program makes them")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr;

use crate::call::Pointer;

/// The unit of mappings, in bytes.
pub(crate) const PAGE: usize = 4096;

/// `_IO(';', 100 + number)`, `include/uapi/linux/vfio.h`.
const fn request(number: u64) -> libc::c_ulong {
    0x3b64 + number
}

pub(crate) const SET_IOMMU: libc::c_ulong = request(2);
pub(crate) const GROUP_SET_CONTAINER: libc::c_ulong = request(4);
pub(crate) const GROUP_GET_DEVICE_FD: libc::c_ulong = request(6);
pub(crate) const DEVICE_GET_INFO: libc::c_ulong = request(7);
pub(crate) const DEVICE_GET_REGION_INFO: libc::c_ulong = request(8);
pub(crate) const DEVICE_RESET: libc::c_ulong = request(11);
pub(crate) const DEVICE_FEATURE: libc::c_ulong = request(17);
pub(crate) const IOMMU_MAP_DMA: libc::c_ulong = request(13);
pub(crate) const IOMMU_UNMAP_DMA: libc::c_ulong = request(14);
/// VFIO has no such call.
pub(crate) const NO_REQUEST: libc::c_ulong = request(99);

/// An ioctl whose argument is a number.
pub(crate) fn ioctl(file: impl AsFd, request: libc::c_ulong, value: u64) -> io::Result<u64> {
    // SAFETY: The requests that this is called with take no pointer; a number that is taken for one is refused by the kernel.
    let result = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), request, value) };
    returned(result.into())
}

/// An ioctl whose argument is a buffer, which begins with its own length.
pub(crate) fn ioctl_on(
    file: impl AsFd,
    request: libc::c_ulong,
    words: &mut [u32],
) -> io::Result<u64> {
    // SAFETY: VFIO reads and writes no more than the length that the buffer's first word says, and the callers say no more than
    // is there.
    let result = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), request, words.as_mut_ptr()) };
    returned(result.into())
}

/// `VFIO_GROUP_GET_DEVICE_FD`.
pub(crate) fn device(group: impl AsFd, name: &std::ffi::CStr) -> io::Result<OwnedFd> {
    // SAFETY: The argument is a string that ends with a NUL, as the call wants.
    let fd = unsafe { libc::ioctl(group.as_fd().as_raw_fd(), GROUP_GET_DEVICE_FD, name.as_ptr()) };
    returned(fd.into())?;
    // SAFETY: The call has succeeded, so this is a new descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn returned(result: i64) -> io::Result<u64> {
    u64::try_from(result).map_err(|_negative| io::Error::last_os_error())
}

/// Memory of the program's own: pages that may be touched, and one after them that may not.
#[derive(Debug)]
pub(crate) struct Pages {
    start: *mut libc::c_void,
    bytes: usize,
}

// SAFETY: The memory is reached through system calls only, which may race, but never through references.
unsafe impl Send for Pages {}
// SAFETY: As above.
unsafe impl Sync for Pages {}

impl Pages {
    /// `bytes` bytes, a whole number of pages.
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let (protection, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: A new mapping at an address of the kernel's choice touches nothing that is there.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes + PAGE, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let pages = Self { start, bytes };
        // SAFETY: The range lies in the mapping just made.
        let done = unsafe { libc::mprotect(start, bytes, libc::PROT_READ | libc::PROT_WRITE) };
        returned(done.into())?;
        Ok(pages)
    }

    /// The address.
    pub(crate) fn address(&self) -> u64 {
        self.start.addr().try_into().expect("an address fits")
    }

    /// A bad pointer to `length` bytes.
    fn bad(&self, pointer: Pointer, length: usize) -> *mut libc::c_void {
        match pointer {
            // The last bytes that may be touched, and as many that may not.
            Pointer::Half | Pointer::Good => self.start.wrapping_byte_add(self.bytes - length / 2),
            Pointer::Null => ptr::null_mut(),
            Pointer::Kernel => ptr::without_provenance_mut(0xffff_8880_0000_0000),
        }
    }

    /// `pread` to a bad pointer.
    pub(crate) fn read_badly(
        &self,
        file: BorrowedFd<'_>,
        at: i64,
        length: usize,
        pointer: Pointer,
    ) -> io::Result<u64> {
        let to = self.bad(pointer, length.min(2 * self.bytes));
        // SAFETY: The kernel writes only to what the program may write: part of these pages, of which there are no references, or
        // nothing.
        let done = unsafe { libc::pread(file.as_raw_fd(), to, length, at) };
        returned(done.try_into().expect("a length fits"))
    }

    /// `pwrite` from a bad pointer.
    pub(crate) fn write_badly(
        &self,
        file: BorrowedFd<'_>,
        at: i64,
        length: usize,
        pointer: Pointer,
    ) -> io::Result<u64> {
        let from = self.bad(pointer, length.min(2 * self.bytes));
        // SAFETY: The kernel reads only what the program may read.
        let done = unsafe { libc::pwrite(file.as_raw_fd(), from, length, at) };
        returned(done.try_into().expect("a length fits"))
    }

    /// An ioctl with a bad pointer.
    pub(crate) fn ioctl_badly(
        &self,
        file: BorrowedFd<'_>,
        request: libc::c_ulong,
        pointer: Pointer,
    ) -> io::Result<u64> {
        // SAFETY: As for `read_badly`.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), request, self.bad(pointer, 16)) };
        returned(done.into())
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's own, and nothing points into it any more.
        unsafe { libc::munmap(self.start, self.bytes + PAGE) };
    }
}

/// Maps a part of `file`, lets the kernel look at each page of it, and unmaps it. Gives how many pages could be read.
///
/// The looks are a `write` to `sink`: what may not be read then fails the call, where an access of the program's own would end
/// the program.
pub(crate) fn map(
    file: BorrowedFd<'_>,
    at: i64,
    bytes: usize,
    sink: BorrowedFd<'_>,
) -> io::Result<u64> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: A new mapping at an address of the kernel's choice touches nothing that is there.
    let start = unsafe {
        libc::mmap(ptr::null_mut(), bytes, protection, libc::MAP_SHARED, file.as_raw_fd(), at)
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let mut seen = 0;
    for offset in (0..bytes).step_by(PAGE) {
        // SAFETY: The kernel reads eight bytes in the mapping, or says that it cannot.
        let done = unsafe {
            libc::pwrite(sink.as_raw_fd(), start.wrapping_byte_add(offset).cast_const(), 8, 0)
        };
        seen += u64::from(done == 8);
    }
    // SAFETY: The mapping is this function's own.
    unsafe { libc::munmap(start, bytes) };
    Ok(seen)
}

/// A file in memory.
pub(crate) fn memory_file() -> io::Result<OwnedFd> {
    // SAFETY: The argument is a string that ends with a NUL.
    let fd = unsafe { libc::memfd_create(c"migscope-fuzz".as_ptr(), libc::MFD_CLOEXEC) };
    returned(fd.into())?;
    // SAFETY: The call has succeeded, so this is a new descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
