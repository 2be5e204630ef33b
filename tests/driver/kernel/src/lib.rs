// SPDX-License-Identifier: Apache-2.0 OR MIT
//! As much of the kernel crate (`rust/kernel` of Linux 7.3) as the driver's pure files use, on top of the standard library.
//!
//! The names, signatures and failures are the kernel's. In the kernel every allocation can fail; here the [`allocator`] fails on
//! demand, so a test reaches the paths that a machine with memory never takes.

pub mod allocator;
pub mod num;
pub mod prelude;
pub mod rbtree;
