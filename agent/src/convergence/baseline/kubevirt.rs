// SPDX-License-Identifier: Apache-2.0 OR MIT
//! KubeVirt's stall detector: `remaining / EWMA(bandwidth)` with α = 0.4 (VEP 248 and
//! pkg/virt-launcher/virtwrap/stall-detector.go in kubevirt/kubevirt). It takes the quotient for the downtime of a stop
//! at this moment, and there is no other number for the time that is left. Devices' bytes are not in it.

use super::{Prediction, Snapshot, memory_left, time_for};
use crate::convergence::rate::nanoseconds;
use crate::convergence::reading::Reading;

/// Weight of the newest snapshot.
const ALPHA: f64 = 0.4;

/// KubeVirt's account.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::convergence) struct KubeVirt {
    snapshot: Snapshot,
    bandwidth: Option<f64>,
    remaining: Option<u64>,
}

impl KubeVirt {
    pub(in crate::convergence) fn observe(&mut self, reading: &Reading) {
        self.remaining = memory_left(reading);
        if let Some(newest) = self.snapshot.observe(reading) {
            let before = self.bandwidth.unwrap_or(newest);
            self.bandwidth = Some(ALPHA * newest + (1.0 - ALPHA) * before);
        }
    }

    pub(in crate::convergence) fn predict(&self) -> Prediction {
        let implied =
            self.remaining.zip(self.bandwidth).and_then(|(bytes, rate)| time_for(bytes, rate));
        let implied_ns = implied.map(nanoseconds);
        Prediction { remaining_ns: implied_ns, downtime_ns: implied_ns }
    }
}
