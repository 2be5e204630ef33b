// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether it gets on: progress is what counts, never time alone. A long migration that gets on is no fault (KubeVirt
//! withdrew its alert on long ones), and one that swings is not stuck while its lows go lower.
//!
//! What is left falls in every pass and jumps at its end, so its lowest value says nothing. What is looked at is how much
//! is left *right after* a sync: progress is a sync that leaves 4 % less than any before (the margin of KubeVirt's
//! detector, VEP 248). Before the first sync, progress is that less is left. It is stuck when 40 seconds and two syncs
//! went by without any: a third of a minute before the 60 seconds after which KubeVirt gives up, and long enough for a
//! load that swings with a period up to that to show its next low. A load that is at rest more rarely is taken for stuck
//! meanwhile. (Progress that never gets to where it fits is found by the forecast: `diagnosis.rs`.)

use super::rate::seconds;
use super::reading::Reading;

/// What must go away for it to be progress.
const MARGIN: f64 = 0.04;
/// How long nothing may go away, in seconds.
pub(super) const PATIENCE_S: f64 = 40.0;
/// How long it may be stuck by what syncs found while the forecast still sees an end, in seconds.
pub(super) const LAST_PATIENCE_S: f64 = 55.0;
/// How long nothing at all may move, in seconds.
pub(super) const FROZEN_S: f64 = 10.0;
/// How long the initial data may stay as much as it is, in seconds.
pub(super) const UNDRAINED_S: f64 = 10.0;

/// What was best, and when.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Least that was left after a sync.
    least_after_sync: Option<f64>,
    /// Least that was left at all, before the first sync.
    least: Option<u64>,
    /// When that was.
    best_ns: Option<u64>,
    syncs_since: u64,
    moved_ns: Option<u64>,
    initial_least: Option<u64>,
    initial_ns: Option<u64>,
}

impl Progress {
    /// Takes in a reading; `syncs` of them were complete since the last one, which moved `moved` bytes.
    pub(super) fn observe(&mut self, reading: &Reading, syncs: u64, moved: Option<u64>) {
        let now_ns = reading.at_ns;
        if moved != Some(0) {
            self.moved_ns = Some(now_ns);
        }
        self.initial(reading);
        let Some(left) = reading.remaining_bytes else { return };
        if syncs > 0 {
            self.syncs_since = self.syncs_since.saturating_add(syncs);
            let best = self.least_after_sync.unwrap_or(f64::INFINITY);
            if (left as f64) < best * (1.0 - MARGIN) {
                (self.least_after_sync, self.best_ns, self.syncs_since) =
                    (Some(left as f64), Some(now_ns), 0);
            }
        } else if self.least_after_sync.is_none() && self.least.is_none_or(|least| left < least) {
            (self.least, self.best_ns) = (Some(left), Some(now_ns));
        }
    }

    fn initial(&mut self, reading: &Reading) {
        let Some(left) = reading.initial_bytes else { return };
        // More than before: it began anew, which the protocol allows.
        let anew = self.initial_last_grew(left);
        if anew || self.initial_least.is_none_or(|least| left < least) {
            (self.initial_least, self.initial_ns) = (Some(left), Some(reading.at_ns));
        }
    }

    fn initial_last_grew(&self, left: u64) -> bool {
        self.initial_least.is_some_and(|least| left > least)
    }

    /// Least that was left right after a sync, in bytes, to within the margin.
    pub(super) fn least_after_sync(&self) -> Option<f64> {
        self.least_after_sync
    }

    /// Since the best was reached, in seconds, if two syncs at least have failed to better it.
    pub(super) fn stuck_for(&self, now_ns: u64) -> Option<f64> {
        let since = since(self.best_ns?, now_ns);
        (self.syncs_since >= 2).then_some(since)
    }

    /// Since anything moved, in seconds.
    pub(super) fn still_for(&self, now_ns: u64) -> Option<f64> {
        Some(since(self.moved_ns?, now_ns))
    }

    /// Since the initial data became less, in seconds, while there is some.
    pub(super) fn undrained_for(&self, now_ns: u64) -> Option<f64> {
        let some = self.initial_least.is_some_and(|left| left > 0);
        some.then_some(since(self.initial_ns?, now_ns))
    }
}

fn since(then_ns: u64, now_ns: u64) -> f64 {
    seconds(now_ns.saturating_sub(then_ns))
}
