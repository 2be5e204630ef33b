// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The licence that the kernel reads: helpers such as `bpf_probe_read_kernel` are for programs compatible with the GPL only.
#![expect(
    unsafe_code,
    reason = "a symbol's section and name are attributes that Rust calls unsafe"
)]

/// One of the strings of `license_is_gpl_compatible()` (`include/linux/license.h`).
// SAFETY: the section holds this string alone, as the kernel's loaders expect, and no other symbol is called `LICENSE`.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
