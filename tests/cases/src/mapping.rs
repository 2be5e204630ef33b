// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Mappings of the migration region that no sensible client makes, and what a program can do to one.
#![expect(
    unsafe_code,
    reason = "mmap and its kin, and a child process that dies of what it touches"
)]

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::ptr;

use migrator::device::Device;

/// Whether what one process writes is seen by the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// `MAP_SHARED`.
    Shared,
    /// `MAP_PRIVATE`.
    Private,
}

/// What may be done with the pages of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Nothing.
    None,
    /// They can be read.
    Read,
    /// They can be read and written.
    ReadWrite,
}

impl Protection {
    fn bits(self) -> libc::c_int {
        match self {
            Self::None => libc::PROT_NONE,
            Self::Read => libc::PROT_READ,
            Self::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        }
    }
}

/// A mapping of a part of the migration region.
#[derive(Debug)]
pub struct RawMapping {
    base: *mut libc::c_void,
    bytes: usize,
}

// SAFETY: The mapping belongs to the value and to no thread.
unsafe impl Send for RawMapping {}
// SAFETY: Through a shared reference single bytes are read and written by volatile accesses, which others do as well.
unsafe impl Sync for RawMapping {}

impl RawMapping {
    /// Maps `bytes` bytes from `offset` on, to be read and written.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn new(device: &Device, offset: u64, bytes: usize, sharing: Sharing) -> io::Result<Self> {
        let at = libc::off_t::try_from(device.migration_region().offset.wrapping_add(offset))
            .map_err(|_too_large| io::ErrorKind::InvalidInput)?;
        let flags = match sharing {
            Sharing::Shared => libc::MAP_SHARED,
            Sharing::Private => libc::MAP_PRIVATE,
        };
        let (protection, file) = (Protection::ReadWrite.bits(), device.as_fd().as_raw_fd());
        // SAFETY: The kernel chooses the address, so no memory that is in use is mapped over.
        let base = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, file, at) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { base, bytes })
    }

    /// Its length, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn at(&self, at: usize) -> *mut u8 {
        assert!(at < self.bytes, "{at} is not in the mapping");
        self.base.cast::<u8>().wrapping_add(at)
    }

    /// Reads a byte.
    ///
    /// # Panics
    ///
    /// When it is not in the mapping.
    pub fn get(&self, at: usize) -> u8 {
        // SAFETY: `at()` has seen that the byte lies in the mapping. If it cannot be read the process gets a signal, which is
        // what a test asks for then.
        unsafe { self.at(at).read_volatile() }
    }

    /// Writes a byte.
    ///
    /// # Panics
    ///
    /// When it is not in the mapping.
    pub fn put(&self, at: usize, byte: u8) {
        // SAFETY: As in `get()`.
        unsafe { self.at(at).write_volatile(byte) }
    }

    /// Reads all of it.
    pub fn contents(&self) -> Vec<u8> {
        (0..self.bytes).map(|at| self.get(at)).collect()
    }

    /// Gives it another length, anywhere (`mremap`).
    ///
    /// # Errors
    ///
    /// What the kernel refused with; the mapping is what it was then.
    pub fn resize(&mut self, bytes: usize) -> io::Result<()> {
        // SAFETY: The mapping is this value's own and of this length, and nobody has a pointer into it.
        let base = unsafe { libc::mremap(self.base, self.bytes, bytes, libc::MREMAP_MAYMOVE) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        (self.base, self.bytes) = (base, bytes);
        Ok(())
    }

    /// Changes what may be done with it (`mprotect`).
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn protect(&self, protection: Protection) -> io::Result<()> {
        // SAFETY: The mapping is this value's own and of this length; an access that is not allowed any more is a signal.
        done(unsafe { libc::mprotect(self.base, self.bytes, protection.bits()) })
    }

    /// Takes the pages away from the mapping (`MADV_DONTNEED`).
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn forget_pages(&self) -> io::Result<()> {
        // SAFETY: As for `protect()`; nothing relies on what the mapping holds.
        done(unsafe { libc::madvise(self.base, self.bytes, libc::MADV_DONTNEED) })
    }

    /// Writes a byte in a child process. Gives the signal that the child died of; `None` if it did not.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn put_in_child(&self, at: usize, byte: u8) -> io::Result<Option<i32>> {
        // SAFETY: The child makes one access and one system call, both of which may be made after a fork of a process with
        // several threads.
        let child = unsafe { libc::fork() };
        if child == 0 {
            self.put(at, byte);
            // SAFETY: Ends the child, and nothing of the parent's is run.
            unsafe { libc::_exit(0) };
        }
        if child < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut status = 0;
        // SAFETY: `child` is a child of this process, and `status` a place for the answer.
        if unsafe { libc::waitpid(child, &mut status, 0) } != child {
            return Err(io::Error::last_os_error());
        }
        Ok(libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)))
    }
}

impl Drop for RawMapping {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's own, of this length, and nobody has a pointer into it.
        unsafe { libc::munmap(self.base, self.bytes) };
    }
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
