// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory that somebody else may change at any moment: a device's, mapped, or shared with another process.
//!
//! There is no `&[u8]` over it, ever. It is read and written by atomic accesses of one word, without an order between them: each is
//! one load or store of the processor, as a guest's would be.
#![expect(
    unsafe_code,
    reason = "mapped memory is reached through a pointer, and nothing else maps it"
)]

use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, MremapFlags, ProtFlags};

/// The unit of access, in bytes.
pub const WORD_BYTES: usize = size_of::<u64>();

/// A mapping, shared with whoever else has the memory; it is whole words and ends with the value.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<AtomicU64>,
    bytes: usize,
}

// SAFETY: the mapping belongs to the value, whichever thread has it, and `munmap` works from any.
unsafe impl Send for Mapping {}
// SAFETY: through a shared reference the memory is accessed by atomic operations alone.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` bytes of a file from `offset` on, to be read and written.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn of(file: impl AsFd, offset: u64, bytes: usize) -> io::Result<Self> {
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: at an address of the kernel's choice a new mapping touches no memory that is in use.
        let base = unsafe { rustix::mm::mmap(ptr::null_mut(), bytes, prot, flags, file, offset) }?;
        Self::at(base.cast(), bytes)
    }

    /// Maps `bytes` bytes of memory, zero at first, that are shared with the processes that are forked from now on.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn anonymous(bytes: usize) -> io::Result<Self> {
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: as in `of`.
        let base = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), bytes, prot, flags) }?;
        Self::at(base.cast(), bytes)
    }

    fn at(base: *mut AtomicU64, bytes: usize) -> io::Result<Self> {
        let base = NonNull::new(base).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { base, bytes })
    }

    /// Its length, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The word at `at`.
    fn word(&self, at: usize) -> &AtomicU64 {
        let inside = at.is_multiple_of(WORD_BYTES)
            && at.checked_add(WORD_BYTES).is_some_and(|end| end <= self.bytes);
        assert!(inside, "no word is at {at} of {} bytes", self.bytes);
        // SAFETY: the word lies inside the mapping and is aligned, since the mapping begins at a page; it is mapped as long as
        // `self` is, readable and writable, and this process accesses it by atomic operations alone. What others do to it is
        // not a data race of this program: they are outside of it.
        unsafe { self.base.add(at / WORD_BYTES).as_ref() }
    }

    /// Writes a word.
    ///
    /// # Panics
    ///
    /// When `at` is not a multiple of eight, or outside.
    pub fn store(&self, at: usize, word: u64) {
        self.word(at).store(word.to_le(), Ordering::Relaxed);
    }

    /// Reads a word.
    ///
    /// # Panics
    ///
    /// As [`Self::store`].
    pub fn load(&self, at: usize) -> u64 {
        u64::from_le(self.word(at).load(Ordering::Relaxed))
    }

    /// Copies whole words out.
    ///
    /// # Panics
    ///
    /// As [`Self::store`]; when `into` is no whole number of words.
    pub fn read(&self, at: usize, into: &mut [u8]) {
        assert!(into.len().is_multiple_of(WORD_BYTES));
        for (offset, word) in (at..).step_by(WORD_BYTES).zip(into.as_chunks_mut().0) {
            *word = self.load(offset).to_le_bytes();
        }
    }

    /// Copies whole words in.
    ///
    /// # Panics
    ///
    /// As [`Self::read`].
    pub fn write(&self, at: usize, from: &[u8]) {
        assert!(from.len().is_multiple_of(WORD_BYTES));
        for (offset, word) in (at..).step_by(WORD_BYTES).zip(from.as_chunks().0) {
            self.store(offset, u64::from_le_bytes(*word));
        }
    }

    /// Moves the mapping to another address, pages and all.
    ///
    /// # Errors
    ///
    /// What the kernel refused with; the mapping is gone then.
    pub fn moved(self) -> io::Result<Self> {
        let bytes = self.bytes;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: as in `of`. It is the place to move to, and nobody knows of it.
        let place = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::empty(), flags)
        }?;
        // SAFETY: the old mapping is this value's own and nothing points into it, since `self` was moved here; the new place
        // is the one that was just reserved. Either call takes the old one away, or leaves it to be unmapped by `drop`.
        let base = unsafe {
            let old = self.base.as_ptr().cast();
            rustix::mm::mremap_fixed(old, bytes, bytes, MremapFlags::MAYMOVE, place)
        }?;
        std::mem::forget(self);
        Self::at(base.cast(), bytes)
    }

    /// Unmaps what is beyond the first `bytes` bytes, whole pages.
    ///
    /// # Errors
    ///
    /// What the kernel refused with; the mapping is gone then.
    ///
    /// # Panics
    ///
    /// When nothing would be left, or there are not so many.
    pub fn truncated(mut self, bytes: usize) -> io::Result<Self> {
        assert!(bytes > 0 && bytes < self.bytes);
        // SAFETY: the pages are this value's own, and nothing points into them, since `self` was moved here.
        unsafe {
            let tail = self.base.as_ptr().cast::<u8>().wrapping_add(bytes);
            rustix::mm::munmap(tail.cast(), self.bytes - bytes)?;
        }
        self.bytes = bytes;
        Ok(self)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own and nothing points into it any more.
        let done = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes) };
        debug_assert!(done.is_ok(), "a mapping that is there can be unmapped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    #[test]
    fn a_mapping_keeps_its_contents_where_it_goes() {
        let mapping = Mapping::anonymous(4 * PAGE).unwrap();
        mapping.store(8, 7);
        mapping.write(3 * PAGE, &[1; 16]);
        let mapping = mapping.moved().unwrap();
        let mut last = [0; 24];
        mapping.read(3 * PAGE, &mut last);
        assert_eq!((mapping.load(8), last[..17].to_vec()), (7, [&[1; 16][..], &[0]].concat()));
        let mapping = mapping.truncated(PAGE).unwrap();
        assert_eq!((mapping.load(8), mapping.bytes()), (7, PAGE));
    }

    #[test]
    fn two_mappings_of_a_file_are_one_memory() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        let (one, other) = (Mapping::of(&file, 0, 8192).unwrap(), Mapping::of(&file, 4096, 4096));
        one.store(4096, 5);
        assert_eq!(other.unwrap().load(0), 5);
    }

    #[test]
    #[should_panic(expected = "no word is at 4096")]
    fn nothing_outside_is_reached() {
        Mapping::anonymous(PAGE).unwrap().load(PAGE);
    }
}
