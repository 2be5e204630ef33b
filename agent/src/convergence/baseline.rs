// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What others would say, from the same readings. Each stands for what its source computes, blind spots included, so that
//! the two can be held side by side; where the source's input is not told, neither is its answer.

pub(super) mod geometric;
pub(super) mod kubevirt;
pub(super) mod qemu;

use super::rate::seconds;
use super::reading::Reading;
use serde::Serialize;

/// What one model says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Prediction {
    /// Until the end of the migration, in nanoseconds.
    pub remaining_ns: Option<u64>,
    /// The downtime if it stopped as the model thinks, in nanoseconds.
    pub downtime_ns: Option<u64>,
}

/// What the known models say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Baselines {
    /// QEMU up to 11.0.
    pub qemu: Prediction,
    /// KubeVirt's stall detector.
    pub kubevirt: Prediction,
    /// The geometric model.
    pub geometric: Prediction,
}

/// Shortest time over which a bandwidth is taken: QEMU's `BUFFER_DELAY`, and the age of libvirt's figure.
const SNAPSHOT_NS: u64 = 100_000_000;

/// The bandwidth of the last tenth of a second.
#[derive(Clone, Copy, Debug, Default)]
struct Snapshot {
    began: Option<(u64, u64)>,
}

impl Snapshot {
    /// Takes in a reading. Gives bytes a second when one more snapshot is full.
    fn observe(&mut self, reading: &Reading) -> Option<f64> {
        let moved = reading.moved_bytes?;
        let Some((since_ns, before)) = self.began else {
            self.began = Some((reading.at_ns, moved));
            return None;
        };
        let Some((bytes, ns)) = moved.checked_sub(before).zip(reading.at_ns.checked_sub(since_ns))
        else {
            self.began = Some((reading.at_ns, moved));
            return None;
        };
        if ns < SNAPSHOT_NS {
            return None;
        }
        self.began = Some((reading.at_ns, moved));
        Some(bytes as f64 / seconds(ns))
    }
}

/// The memory that is left, as QEMU and libvirt tell it: without what devices keep for the stop.
fn memory_left(reading: &Reading) -> Option<u64> {
    Some(reading.remaining_bytes?.saturating_sub(reading.stop_copy_bytes.unwrap_or(0)))
}

/// Bytes over bytes a second, in seconds; `None` while nothing moves.
fn time_for(bytes: u64, bandwidth: f64) -> Option<f64> {
    (bandwidth > 0.0).then(|| bytes as f64 / bandwidth)
}
