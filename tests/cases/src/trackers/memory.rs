// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory of this process that is a machine's.
#![expect(unsafe_code, reason = "mmap")]

use std::io;
use std::ptr;

/// Bytes of a page.
pub const PAGE_BYTES: u64 = 4096;

/// Whole pages, zeroed, at an address of the kernel's choice.
#[derive(Debug)]
pub struct Memory {
    base: *mut u8,
    bytes: usize,
}

impl Memory {
    /// As many pages.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    ///
    /// # Panics
    ///
    /// When there are more of them than addresses.
    pub fn new(pages: u64) -> io::Result<Self> {
        let bytes = usize::try_from(pages * PAGE_BYTES).expect("they can be addressed");
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: A mapping at an address of the kernel's choice touches no memory that is in use.
        let base = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { base: base.cast(), bytes })
    }

    /// Where it begins.
    pub fn address(&self) -> u64 {
        self.base.expose_provenance() as u64
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Writes to it.
    ///
    /// # Panics
    ///
    /// When that is past its end.
    pub fn write(&self, at: usize, from: &[u8]) {
        assert!(at + from.len() <= self.bytes);
        for (offset, byte) in from.iter().enumerate() {
            // SAFETY: It lies in the mapping; a machine may look at it meanwhile, so the access is volatile.
            unsafe { self.base.add(at + offset).write_volatile(*byte) };
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's own, of this length, and nothing points into it any more.
        unsafe { libc::munmap(self.base.cast(), self.bytes) };
    }
}
