// SPDX-License-Identifier: Apache-2.0 OR MIT
//! When allocations fail, for each thread apart.

use std::cell::Cell;

thread_local! {
    static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// An allocation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocError;

/// Lets `allocations` more succeed on this thread, and none after them, until the guard goes.
pub fn fail_after(allocations: u32) -> Failing {
    LEFT.set(Some(allocations));
    Failing(())
}

/// Allocations are counted down, or fail.
#[derive(Debug)]
pub struct Failing(());

impl Drop for Failing {
    fn drop(&mut self) {
        LEFT.set(None);
    }
}

pub(crate) fn allocate() -> Result<(), AllocError> {
    match LEFT.get() {
        None => Ok(()),
        Some(0) => Err(AllocError),
        Some(left) => {
            LEFT.set(Some(left - 1));
            Ok(())
        }
    }
}
