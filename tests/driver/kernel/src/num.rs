// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `rust/kernel/num/casts.rs`.

/// Casts that lose nothing on a machine of 64 bits.
pub mod casts {
    /// Widens, or keeps, a length.
    pub const fn usize_as_u64(value: usize) -> u64 {
        const { assert!(size_of::<usize>() <= size_of::<u64>()) };
        value as u64
    }
}
