// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `rust/kernel/num/casts.rs`.

/// Casts that lose nothing on a machine of 64 bits.
pub mod casts {
    /// Widens, or keeps, a length.
    pub const fn usize_as_u64(value: usize) -> u64 {
        const { assert!(size_of::<usize>() <= size_of::<u64>()) };
        value as u64
    }

    /// Widens a number.
    pub const fn u32_as_usize(value: u32) -> usize {
        const { assert!(size_of::<u32>() <= size_of::<usize>()) };
        value as usize
    }

    /// Casts that lose nothing on this machine.
    pub mod arch {
        /// Keeps an offset.
        #[expect(clippy::cast_possible_truncation, reason = "asserted right here")]
        pub const fn u64_as_usize(value: u64) -> usize {
            const { assert!(size_of::<usize>() == size_of::<u64>()) };
            value as usize
        }
    }
}
