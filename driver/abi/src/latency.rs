// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Buckets for durations: exact below 8 ns, then eight to each power of two, so a bucket is at most 12.5 % wide.
//!
//! The probes count into these buckets because a histogram per CPU is cheap and a record per access is not. A power of two is
//! always the start of a bucket: an exporter that puts its bounds there splits no bucket, and what it says is exact.

/// Powers of two above the exact ones that have buckets of their own; 2^36 ns is 68.7 s.
const LAST_EXPONENT: u32 = 35;
/// Buckets in one power of two, as a power of two.
const SUB_BITS: u32 = 3;
/// How many buckets there are; the last one also takes all that is longer.
pub const BUCKETS: usize = 272;

/// The bucket that a duration of `ns` nanoseconds falls into; always below [`BUCKETS`].
#[expect(
    clippy::cast_possible_truncation,
    reason = "each value is below 2^32: masked, or compared just before"
)]
pub const fn bucket(ns: u64) -> u32 {
    if ns < 1 << SUB_BITS {
        return ns as u32;
    }
    let exponent = 63 - ns.leading_zeros();
    if exponent > LAST_EXPONENT {
        return BUCKETS as u32 - 1;
    }
    let sub = (ns >> (exponent - SUB_BITS)) as u32 & ((1 << SUB_BITS) - 1);
    ((exponent - SUB_BITS + 1) << SUB_BITS) + sub
}

/// The shortest duration of a bucket, in nanoseconds. Past the last bucket: where it would start.
pub const fn lower_bound_ns(bucket: u32) -> u64 {
    if bucket < 1 << SUB_BITS {
        return bucket as u64;
    }
    let group = (bucket >> SUB_BITS) - 1;
    let sub = (bucket & ((1 << SUB_BITS) - 1)) as u64;
    if group > LAST_EXPONENT {
        return u64::MAX;
    }
    ((1 << SUB_BITS) + sub) << group
}
