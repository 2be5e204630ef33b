// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The object file with the probes, as `build.rs` found it.

/// The object, or `None` in a binary that was built without one.
#[cfg(embedded_probes)]
pub const EMBEDDED: Option<&[u8]> =
    Some(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probes.o")));
/// The object, or `None` in a binary that was built without one.
#[cfg(not(embedded_probes))]
pub const EMBEDDED: Option<&[u8]> = None;
