// SPDX-License-Identifier: GPL-2.0
//! The driver's pure files, the very same ones, compiled for the host: so properties are tried on them by the thousand, and
//! allocations fail where a test wants it. Their KUnit suites are tests here, too.

use migscope_abi as abi;

#[cfg_attr(not(test), expect(dead_code, reason = "there is nothing here but tests"))]
#[path = "../../../driver/dirty.rs"]
mod dirty;

#[cfg_attr(not(test), expect(dead_code, reason = "there is nothing here but tests"))]
#[expect(
    clippy::map_err_ignore,
    reason = "the kernel's errors carry nothing, and clippy has other lints there"
)]
#[path = "../../../driver/image.rs"]
mod image;

#[cfg_attr(not(test), expect(dead_code, reason = "there is nothing here but tests"))]
#[expect(
    clippy::map_err_ignore,
    reason = "the kernel's errors carry nothing, and clippy has other lints there"
)]
#[path = "../../../driver/memory.rs"]
mod memory;

#[path = "../../../driver/kunit.rs"]
mod kunit;

/// What the driver's `ffi.rs` takes from C.
mod ffi {
    /// `crc32_le()`: neither inverts its seed nor its result.
    pub(crate) fn crc32(seed: u32, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(!seed);
        hasher.update(bytes);
        !hasher.finalize()
    }
}

#[cfg(test)]
mod dirty_tests;
#[cfg(test)]
mod image_tests;
#[cfg(test)]
mod memory_tests;
