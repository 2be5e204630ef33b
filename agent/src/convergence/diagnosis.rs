// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which reasons hold, and the verdict.
//!
//! ```text
//!   stopped ──────────────────────────────────────▶ converging
//!   told outright, or by numbers that were told ──▶ not converging    (size, tracking, stop part, error, initial data)
//!   nothing moves for 10 s ───────────────────────▶ not converging
//!   no end in sight for 28 s, not even with luck ─▶ not converging    (dirty rate, no progress)
//!   stuck for 40 s and the forecast sees no end ──▶ not converging
//!   stuck for 55 s whatever the forecast sees ────▶ not converging
//!   the forecast sees an end ─────────────────────▶ converging
//!   else ─────────────────────────────────────────▶ unknown
//! ```
//!
//! Progress alone would be too slow: passes of which each leaves 5 % less than the one before are progress for minutes and
//! may yet tend to something that never fits, and of passes that swing by chance one in a few is a record. The forecast knows
//! where they tend to; and since it follows the swings of a load, it must have seen no end nearly all of the time (`lately.rs`).

use super::assessment::{Evidence, Verdict};
use super::progress::{FROZEN_S, LAST_PATIENCE_S, PATIENCE_S, UNDRAINED_S};
use super::rate::{nanoseconds, seconds};
use super::reading::{Facts, Phase, Tracking};
use super::reason::Reason;

/// How much above the downtime the stop part must be: the throughput is known to a few percent only.
const CLEARLY_ABOVE: f64 = 1.05;
/// Standard deviations by which the link is now and then faster than on average: QEMU decides with the bandwidth of a tenth of a
/// second, and one of forty is as fast.
const SWINGS: f64 = 2.0;
/// Dirty rate over throughput from which the rate is to blame. Passes that neither grow nor shrink have 1, give or take
/// noise.
const TO_BLAME: f64 = 0.9;
/// Share of all memory that is left after a sync, from which "all is dirty" is taken at its word.
const NEARLY_ALL: f64 = 0.9;
/// Share of its time from which a destination is the bottleneck.
const BUSY: f64 = 0.9;

/// What is looked at. Bytes, bytes a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signs<'a> {
    pub(super) phase: Phase,
    pub(super) facts: &'a Facts,
    pub(super) evidence: &'a Evidence,
    pub(super) throughput: Option<f64>,
    /// Standard deviation of the throughput of single readings, as a share.
    pub(super) swing: f64,
    /// Dirty rate over throughput.
    pub(super) ratio: Option<f64>,
    /// Whether the forecast sees an end; `None` where it could not be made.
    pub(super) ends: Option<bool>,
    /// Whether the stop part has lately been too large.
    pub(super) above_budget: bool,
    /// Least that was left right after a sync.
    pub(super) least_after_sync: Option<f64>,
    /// Most that was ever left.
    pub(super) total: Option<f64>,
    /// Complete syncs seen.
    pub(super) syncs: u64,
}

impl Signs<'_> {
    /// What fits into the downtime.
    fn fits(&self) -> Option<f64> {
        Some(self.throughput? * seconds(self.facts.downtime_budget_ns))
    }

    /// All pages are dirty, and they do not fit.
    fn untracked(&self) -> bool {
        let left = self.evidence.remaining_bytes.map(|left| left as f64);
        let all = left.zip(self.total).is_none_or(|(left, total)| left >= NEARLY_ALL * total);
        let fits = left.zip(self.fits()).is_some_and(|(left, fits)| left <= fits);
        // The first pass moves everything in any case; only a sync shows that it was for nothing.
        self.facts.tracking == Tracking::AllDirty && !fits && (all || self.syncs > 0)
    }

    fn undrained(&self) -> bool {
        self.evidence.undrained_ns.is_some_and(|ns| seconds(ns) >= UNDRAINED_S)
    }

    /// Nothing moves, though something could: what is for the stop waits for it.
    fn frozen(&self) -> bool {
        let for_stop = match self.phase {
            Phase::PreCopy => self.evidence.stop_copy_bytes.unwrap_or(0),
            Phase::Stopped => 0,
        };
        let left = self.evidence.remaining_bytes.is_some_and(|left| left > for_stop);
        left && self.evidence.still_ns.is_some_and(|ns| seconds(ns) >= FROZEN_S)
    }

    /// Whether a sync has left so little that it would have been the last with the link a little faster at that moment: of
    /// many, one will be. (What does fit, and is not stopped for, is held by something else.)
    fn nearly_fitted(&self) -> bool {
        self.least_after_sync.zip(self.fits()).is_some_and(|(least, fits)| {
            (fits..=(1.0 + SWINGS * self.swing) * fits).contains(&least)
        })
    }

    fn stuck(&self) -> bool {
        let patience = if self.ends == Some(true) { LAST_PATIENCE_S } else { PATIENCE_S };
        let long = self.evidence.stuck_ns.is_some_and(|ns| seconds(ns) >= patience);
        self.evidence.no_end_in_sight || (long && !self.nearly_fitted())
    }

    fn destination_slow(&self) -> bool {
        let Some(destination) = self.facts.destination else { return false };
        let busy = self.evidence.destination_busy.is_some_and(|share| share >= BUSY);
        // Busy alone is what a destination should be; data that waits for it longer than the downtime is not.
        let waiting = destination
            .backlog_bytes
            .zip(self.fits())
            .is_none_or(|(backlog, fits)| backlog as f64 > fits);
        busy && waiting
    }

    /// All reasons that hold, in their order.
    pub(super) fn reasons(&self) -> Vec<Reason> {
        let before_stop = self.phase == Phase::PreCopy;
        let too_dirty = self.stuck() && self.ratio.is_some_and(|ratio| ratio >= TO_BLAME);
        let holds = |reason: &Reason| match reason {
            Reason::DeviceError => self.facts.device_error,
            Reason::SizeQueryFailed => before_stop && self.facts.size_query_failed,
            Reason::NoDirtyTracking => before_stop && self.untracked(),
            Reason::StopCopyAboveBudget => before_stop && self.above_budget,
            Reason::InitialBytesNotDrained => before_stop && self.undrained(),
            Reason::DirtyRateAboveThroughput => before_stop && too_dirty,
            Reason::DestinationSlow => self.destination_slow(),
            Reason::NoProgress => self.frozen() || (before_stop && self.stuck()),
            Reason::AgentBlind => self.facts.blind,
        };
        Reason::ALL.into_iter().filter(holds).collect()
    }

    /// Whether it comes to an end.
    pub(super) fn verdict(&self, reasons: &[Reason]) -> Verdict {
        let stops = |reason: &Reason| match reason {
            Reason::DeviceError
            | Reason::SizeQueryFailed
            | Reason::NoDirtyTracking
            | Reason::StopCopyAboveBudget
            | Reason::InitialBytesNotDrained
            | Reason::DirtyRateAboveThroughput
            | Reason::NoProgress => true,
            Reason::DestinationSlow | Reason::AgentBlind => false,
        };
        match (self.phase, self.ends) {
            _ if reasons.iter().any(stops) => Verdict::NotConverging,
            (Phase::Stopped, _) => Verdict::Converging,
            (Phase::PreCopy, Some(true)) if self.throughput.is_some() => Verdict::Converging,
            (Phase::PreCopy, _) => Verdict::Unknown,
        }
    }
}

/// Whether a stop part of `bytes` is above what `fits`, also when a link that swings by `swing` (a share) is fast.
pub(super) fn above_budget(bytes: u64, fits: f64, swing: f64) -> bool {
    fits > 0.0 && bytes as f64 > (CLEARLY_ABOVE + SWINGS * swing) * fits
}

/// Seconds as the evidence holds them.
pub(super) fn shown(seconds: Option<f64>) -> Option<u64> {
    seconds.map(nanoseconds)
}
