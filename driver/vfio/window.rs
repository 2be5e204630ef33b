// SPDX-License-Identifier: GPL-2.0
//! Memory of the driver's own that user space may map: the two windows of the migration region.

use core::{
    ptr::NonNull,
    sync::atomic::{
        AtomicBool,
        Ordering, //
    },
};

use kernel::prelude::*;

use super::{
    Access,
    Mapping, //
};
use crate::{
    abi::rule::Rule,
    ffi::bindings, //
};

/// A window's memory: whole pages, zero at first.
///
/// User space may change every byte of a mapped window at any moment. So there are no references to it, only copies in and
/// out; what is parsed is a copy, and nothing that the driver itself needs later is kept here.
///
/// The pages are counted one by one: a mapping keeps its pages when the window goes. It is not charged to the user's memory
/// cgroup, as `vmalloc_user()` cannot; the module's parameters bound it.
pub(crate) struct Window {
    base: NonNull<u8>,
    bytes: usize,
    mapped: AtomicBool,
}

// SAFETY: The memory belongs to the value, whichever thread has it.
unsafe impl Send for Window {}
// SAFETY: Through a shared reference the memory is only copied to and from, by the kernel's `memcpy()` and its copies to and
// from user space, which may race with user space anyway.
unsafe impl Sync for Window {}

impl Window {
    /// A window of `bytes` bytes, a multiple of the page size.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(bytes: usize) -> Result<Self> {
        // SAFETY: The function takes any length, and gives memory of that length or NULL.
        let base = unsafe { bindings::vfio_mediate_window_alloc(bytes) };
        let base = NonNull::new(base.cast()).ok_or(ENOMEM)?;
        Ok(Self { base, bytes, mapped: AtomicBool::new(false) })
    }

    /// Its length, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether user space has mapped a part of it since the device was opened.
    pub(crate) fn was_mapped(&self) -> bool {
        self.mapped.load(Ordering::Relaxed)
    }

    /// The address of `bytes` bytes at `at`, if they lie inside.
    pub(super) fn place(&self, at: usize, bytes: usize) -> Result<*mut u8, Rule> {
        let inside = at.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        inside.then(|| self.base.as_ptr().wrapping_add(at)).ok_or(Rule::OutOfBounds)
    }

    /// Copies into the window.
    ///
    /// # Errors
    ///
    /// [`Rule::OutOfBounds`].
    pub(crate) fn put(&self, at: usize, from: &[u8]) -> Result<(), Rule> {
        let to = self.place(at, from.len())?;
        // SAFETY: `place()` says that the window has this many bytes there; a slice is never part of a window.
        unsafe { bindings::memcpy(to.cast(), from.as_ptr().cast(), from.len()) };
        Ok(())
    }

    /// Copies out of the window.
    ///
    /// # Errors
    ///
    /// [`Rule::OutOfBounds`].
    pub(crate) fn take(&self, at: usize, into: &mut [u8]) -> Result<(), Rule> {
        let from = self.place(at, into.len())?;
        // SAFETY: As for `put()`.
        unsafe { bindings::memcpy(into.as_mut_ptr().cast(), from.cast(), into.len()) };
        Ok(())
    }

    /// Makes a part of it zero.
    ///
    /// # Errors
    ///
    /// [`Rule::OutOfBounds`].
    pub(crate) fn zero(&self, at: usize, bytes: usize) -> Result<(), Rule> {
        let to = self.place(at, bytes)?;
        // SAFETY: As for `put()`.
        unsafe { bindings::memset(to.cast(), 0, bytes) };
        Ok(())
    }

    /// A CRC-32 of a part of it, going on from `seed`; `seed` if there is no such part.
    pub(crate) fn crc32(&self, seed: u32, at: usize, bytes: usize) -> u32 {
        let Ok(from) = self.place(at, bytes) else { return seed };
        // SAFETY: As for `put()`.
        unsafe { bindings::vfio_mediate_crc32(seed, from.cast(), bytes) }
    }

    /// Answers a read with what is at `at`.
    ///
    /// # Errors
    ///
    /// [`Rule::OutOfBounds`]; [`Rule::BadAddress`], and then the user may have got a part.
    pub(crate) fn give(&self, at: usize, access: &Access) -> Result<(), Rule> {
        let from = self.place(at, access.bytes)?;
        // SAFETY: As for `put()`; the function checks the user's address itself.
        let left = unsafe {
            bindings::copy_to_user(access.user.as_mut_ptr(), from.cast(), access.bytes as c_ulong)
        };
        if left == 0 {
            Ok(())
        } else {
            Err(Rule::BadAddress)
        }
    }

    /// Takes what a write brings to `at`.
    ///
    /// # Errors
    ///
    /// [`Rule::OutOfBounds`]; [`Rule::BadAddress`], and then the window may have changed in part.
    pub(crate) fn receive(&self, at: usize, access: &Access) -> Result<(), Rule> {
        let to = self.place(at, access.bytes)?;
        // SAFETY: As for `give()`.
        let left = unsafe {
            bindings::copy_from_user(to.cast(), access.user.as_const_ptr(), access.bytes as c_ulong)
        };
        if left == 0 {
            Ok(())
        } else {
            Err(Rule::BadAddress)
        }
    }

    /// Maps the pages from `at` on for user space, for as long as the mapping is.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the mapping is longer than what is left, or private.
    pub(crate) fn map(&self, at: usize, mapping: &Mapping) -> Result {
        let bytes = usize::try_from(mapping.bytes).map_err(|_| EINVAL)?;
        if !mapping.is_shared() {
            return Err(EINVAL);
        }
        self.place(at, bytes).map_err(|_| EINVAL)?;
        // SAFETY: The mapping is being set up by its caller, and the memory is of `vfio_mediate_window_alloc()`; the function
        // checks the range once more.
        kernel::error::to_result(unsafe {
            bindings::vfio_mediate_window_map(mapping.vma(), self.base.as_ptr().cast(), at)
        })?;
        self.mapped.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: The memory is of `vfio_mediate_window_alloc()`, and nobody has a pointer to it any more.
        unsafe { bindings::vfio_mediate_window_free(self.base.as_ptr().cast()) }
    }
}
