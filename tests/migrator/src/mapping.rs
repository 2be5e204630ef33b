// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A part of a file mapped into memory: how a window of the migration region is reached without a system call.
//!
//! The driver writes the same memory whenever it likes, and so may anybody else who has the device open. So there is no
//! `&[u8]` over it, ever: bytes are copied out and in, by volatile accesses, through this type alone.
#![expect(unsafe_code, reason = "mmap, munmap, and accesses to memory that others write")]

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vm_memory::{Bytes as _, VolatileSlice};

/// A shared mapping that can be read and written; it is unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: The mapping belongs to the value and to no thread.
unsafe impl Send for Mapping {}
// SAFETY: Through a shared reference the memory is only copied from and to by volatile accesses, as `VolatileSlice` makes them.
// They may race with others who map the same file anyway, and nobody takes what they give for more than bytes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` bytes of a file from `position` on.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn new(file: BorrowedFd<'_>, position: u64, bytes: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: `mmap` wants that no memory in use is mapped over: the kernel chooses the address (NULL, and no MAP_FIXED).
        let base =
            unsafe { mmap(ptr::null_mut(), bytes, protection, MapFlags::SHARED, file, position) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { base, bytes })
    }

    /// Its length, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn memory(&self) -> VolatileSlice<'_> {
        // SAFETY: `new` wants that the memory is valid for accesses of this length for as long as the slice lives, and that it
        // is only used by volatile accesses: it is mapped so until `self` is dropped, the slice borrows `self`, and no other
        // code has the address.
        unsafe { VolatileSlice::new(self.base.as_ptr(), self.bytes) }
    }

    /// Copies out what stands at `at`.
    ///
    /// # Panics
    ///
    /// When the bytes do not lie inside.
    pub fn read(&self, at: usize, into: &mut [u8]) {
        self.memory().read_slice(into, at).expect("a read lies inside of the mapping");
    }

    /// Copies to `at`.
    ///
    /// # Panics
    ///
    /// When the bytes do not lie inside.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        self.memory().write_slice(bytes, at).expect("a write lies inside of the mapping");
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's own, of this length, and every `VolatileSlice` of it borrowed the value. It is
        // mapped, so the call cannot fail.
        let _unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// A part of a region that is mapped.
#[derive(Debug)]
pub struct MappedArea {
    offset: u64,
    mapping: Mapping,
}

impl MappedArea {
    /// Says where in its region a mapping lies.
    pub fn new(offset: u64, mapping: Mapping) -> Self {
        Self { offset, mapping }
    }

    /// Offset in the region, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Offset of the first byte after it.
    pub fn end(&self) -> u64 {
        self.offset + u64::try_from(self.mapping.bytes()).expect("a length fits")
    }

    fn place(&self, offset: u64) -> usize {
        let at = offset.checked_sub(self.offset).expect("an access lies inside of the area");
        usize::try_from(at).expect("the area is mapped, so it fits")
    }

    /// Copies out what stands at `offset` in the region.
    ///
    /// # Panics
    ///
    /// When the bytes do not lie inside.
    pub fn read(&self, offset: u64, into: &mut [u8]) {
        self.mapping.read(self.place(offset), into);
    }

    /// Copies to `offset` in the region.
    ///
    /// # Panics
    ///
    /// When the bytes do not lie inside.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        self.mapping.write(self.place(offset), bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn what_is_written_to_the_mapping_is_in_the_file_and_back() {
        let file = tempfile();
        file.set_len(8192).unwrap();
        let area = MappedArea::new(0x5000, Mapping::new(file.as_fd(), 4096, 4096).unwrap());
        assert_eq!((area.offset(), area.end()), (0x5000, 0x6000));
        area.write(0x5ffd, b"abc");
        let mut three = [0; 3];
        rustix::io::pread(&file, &mut three, 8189).unwrap();
        assert_eq!(&three, b"abc");
        rustix::io::pwrite(&file, b"xyz", 4096).unwrap();
        area.read(0x5000, &mut three);
        assert_eq!(&three, b"xyz");
    }

    #[test]
    #[should_panic(expected = "a read lies inside")]
    fn nothing_is_read_past_the_end() {
        let file = tempfile();
        file.set_len(4096).unwrap();
        let mapping = Mapping::new(file.as_fd(), 0, 4096).unwrap();
        mapping.read(4095, &mut [0; 2]);
    }

    fn tempfile() -> std::fs::File {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        rustix::fs::memfd_create("mapping", flags).unwrap().into()
    }
}
