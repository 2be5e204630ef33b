// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Accesses to the region with a buffer that the kernel can neither read nor write.
#![expect(unsafe_code, reason = "no safe call takes a pointer to memory that is not there")]

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr;

use migrator::device::Device;

/// Length of the mapping: nothing that a test moves is longer.
const BYTES: usize = 4096;

/// A page without permissions.
#[derive(Debug)]
pub struct NoMemory(*mut libc::c_void);

impl NoMemory {
    /// Maps it.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn map() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: `mmap` of anonymous memory at an address of the kernel's choice touches no memory that is in use; the file
        // descriptor is -1 and the offset 0, as MAP_ANONYMOUS wants.
        let page = unsafe { libc::mmap(ptr::null_mut(), BYTES, libc::PROT_NONE, flags, -1, 0) };
        if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(page)) }
    }

    /// One read of the migration region into it.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    ///
    /// # Panics
    ///
    /// When the access is longer than a page.
    pub fn read(&self, device: &Device, offset: u64, bytes: usize) -> io::Result<usize> {
        assert!(bytes <= BYTES);
        let at = place(device, offset)?;
        // SAFETY: `pread` wants `bytes` bytes at the pointer that it may write: they are mapped for this alone and no Rust
        // reference to them exists. That the mapping may not be written is an error to the kernel, not undefined behaviour. The
        // descriptor is the device's own and open as long as `device`.
        let done = unsafe { libc::pread(device.as_fd().as_raw_fd(), self.0, bytes, at) };
        usize::try_from(done).map_err(|_negative| io::Error::last_os_error())
    }

    /// One write of the migration region from it.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    ///
    /// # Panics
    ///
    /// When the access is longer than a page.
    pub fn write(&self, device: &Device, offset: u64, bytes: usize) -> io::Result<usize> {
        assert!(bytes <= BYTES);
        let at = place(device, offset)?;
        // SAFETY: as in `read`; `pwrite` only reads the bytes.
        let done = unsafe { libc::pwrite(device.as_fd().as_raw_fd(), self.0, bytes, at) };
        usize::try_from(done).map_err(|_negative| io::Error::last_os_error())
    }
}

impl Drop for NoMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, of this length, and nothing points into it any more.
        unsafe { libc::munmap(self.0, BYTES) };
    }
}

fn place(device: &Device, offset: u64) -> io::Result<libc::off_t> {
    let at = device.migration_region().offset + offset;
    libc::off_t::try_from(at).map_err(|_too_large| io::ErrorKind::InvalidInput.into())
}
