// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `rust/kernel/prelude.rs`: flags, the vector, and the traits of zerocopy that the kernel's prelude brings.

use std::ops::{Deref, DerefMut};

pub use macros::kunit_tests;
pub use zerocopy::{FromBytes, IntoBytes};

pub use crate::allocator::AllocError;
use crate::allocator::allocate;

/// Flags of an allocation, which mean nothing here.
#[derive(Clone, Copy, Debug)]
pub struct Flags(());

/// May sleep.
pub const GFP_KERNEL: Flags = Flags(());
/// May sleep, and is charged to the caller's memory control group.
pub const GFP_KERNEL_ACCOUNT: Flags = Flags(());

/// The kernel's result; its error here is the one that pure code meets.
pub type Result<T = (), E = AllocError> = core::result::Result<T, E>;

/// A vector whose growth can fail.
#[derive(Debug)]
pub struct KVVec<T>(Vec<T>);

impl<T> KVVec<T> {
    /// An empty vector, for which nothing is allocated.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Makes room for `additional` more.
    ///
    /// # Errors
    ///
    /// [`AllocError`]; the vector is as it was.
    pub fn reserve(&mut self, additional: usize, _flags: Flags) -> Result {
        if self.0.capacity() - self.0.len() < additional {
            allocate()?;
            self.0.reserve(additional);
        }
        Ok(())
    }

    /// Adds one at the end.
    ///
    /// # Errors
    ///
    /// [`AllocError`]; the vector is as it was.
    pub fn push(&mut self, value: T, flags: Flags) -> Result {
        self.reserve(1, flags)?;
        self.0.push(value);
        Ok(())
    }

    /// Shortens to `length`.
    pub fn truncate(&mut self, length: usize) {
        self.0.truncate(length);
    }
}

/// The same; the kernel has it in memory that is contiguous.
pub type KVec<T> = KVVec<T>;

impl<T: Clone> KVVec<T> {
    /// `count` clones of `value`.
    ///
    /// # Errors
    ///
    /// [`AllocError`].
    pub fn from_elem(value: T, count: usize, _flags: Flags) -> Result<Self> {
        allocate()?;
        Ok(Self(vec![value; count]))
    }

    /// Shortens to `length`, or lengthens with clones of `value`.
    ///
    /// # Errors
    ///
    /// [`AllocError`]; the vector is as it was.
    pub fn resize(&mut self, length: usize, value: T, flags: Flags) -> Result {
        self.reserve(length.saturating_sub(self.0.len()), flags)?;
        self.0.resize(length, value);
        Ok(())
    }

    /// Adds a slice at the end.
    ///
    /// # Errors
    ///
    /// [`AllocError`]; the vector is as it was.
    pub fn extend_from_slice(&mut self, slice: &[T], flags: Flags) -> Result {
        self.reserve(slice.len(), flags)?;
        self.0.extend_from_slice(slice);
        Ok(())
    }
}

impl<T> Default for KVVec<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Deref for KVVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for KVVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}
