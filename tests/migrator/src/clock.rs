// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `CLOCK_MONOTONIC`, the clock that the kernel's probes read too, so that both accounts share an axis.

use std::fs;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since an unspecified start, the same for every process of this boot.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// What tells this boot's clock from every other; two ends with the same one can compare times. `None` when the kernel does
/// not say.
pub fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}
