// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The one clock: `CLOCK_MONOTONIC`, which the probes read too, so that their times and the agent's can be subtracted.

use rustix::time::{ClockId, clock_gettime};

/// Now, in nanoseconds.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Neither part is negative: the clock starts at zero when the machine does.
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}
