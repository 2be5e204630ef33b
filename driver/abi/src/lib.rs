// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Cargo's door to [`abi`](self): the kernel's build enters by `mod.rs`, where a crate attribute would be refused.
#![no_std]

#[path = "mod.rs"]
mod abi;
pub use abi::*;
