// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMU up to 11.0: `expected_downtime = dirty_bytes_last_sync / bandwidth` (`migration_update_counters()`,
//! migration/migration.c, read in 10.2.50 and 10.0.13), the bandwidth being that of the last 100 ms.
//!
//! It is of memory alone: the devices' part is in what decides on the stop, and not in this. For the time that is left
//! QEMU has no number; what its users divide is `ram.remaining` by `ram.mbps`, and so does this.

use super::{Prediction, Snapshot, memory_left, time_for};
use crate::convergence::rate::nanoseconds;
use crate::convergence::reading::Reading;

/// QEMU's account.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::convergence) struct Qemu {
    snapshot: Snapshot,
    bandwidth: Option<f64>,
    remaining: Option<u64>,
    last_sync: Option<u64>,
}

impl Qemu {
    pub(in crate::convergence) fn observe(&mut self, reading: &Reading) {
        self.bandwidth = self.snapshot.observe(reading).or(self.bandwidth);
        self.remaining = memory_left(reading);
        self.last_sync = reading.last_sync_bytes;
    }

    pub(in crate::convergence) fn predict(&self) -> Prediction {
        let over = |bytes: Option<u64>| time_for(bytes?, self.bandwidth?).map(nanoseconds);
        Prediction { remaining_ns: over(self.remaining), downtime_ns: over(self.last_sync) }
    }
}
