// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What comes out.

use super::baseline::Baselines;
use super::rate::Rate;
use super::reason::Reason;
use serde::Serialize;

/// Whether it comes to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As things go, what is left will fit into the downtime that is allowed.
    Converging,
    /// It will not: something in the way is known, or long enough nothing got better.
    NotConverging,
    /// Too little is known, or it does not look like it but not for long enough.
    Unknown,
}

impl Verdict {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Converging => "converging",
            Self::NotConverging => "not_converging",
            Self::Unknown => "unknown",
        }
    }
}

/// Until the end of the migration, in nanoseconds from the reading. Eight of ten migrations end between `low_ns` and
/// `high_ns` (`cargo xtask bench prediction` measures how many do).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Remaining {
    /// What is expected.
    pub expected_ns: u64,
    /// Lower end of the band.
    pub low_ns: u64,
    /// Upper end; `None` where it may never end.
    pub high_ns: Option<u64>,
    /// Whether anybody has told how fast memory is dirtied. If not, three tenths of the throughput are assumed, and the
    /// band begins at nothing.
    pub dirty_rate_known: bool,
}

/// Where the fixed part of a downtime comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FixedFrom {
    /// Both ends were seen in an earlier migration.
    Seen,
    /// One of them was.
    Partly,
    /// Neither was.
    Assumed,
}

/// The downtime if the device stops where the forecast says, or now, if that sees no end. The band is as that of
/// [`Remaining`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Downtime {
    /// What is expected, in nanoseconds.
    pub expected_ns: u64,
    /// Lower end of the band.
    pub low_ns: u64,
    /// Upper end.
    pub high_ns: u64,
    /// The part in which the devices' stop-copy data moves; `None` while its size is unknown, and then it is not in the sum.
    pub devices_ns: Option<u64>,
    /// The part that does not depend on bytes.
    pub fixed_ns: u64,
    /// How that is known.
    pub fixed_from: FixedFrom,
}

/// Numbers that the reasons are explained with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Evidence {
    /// Left, as last told.
    pub remaining_bytes: Option<u64>,
    /// The part for the stop.
    pub stop_copy_bytes: Option<u64>,
    /// Initial data that is left.
    pub initial_bytes: Option<u64>,
    /// Downtime that is allowed.
    pub downtime_budget_ns: u64,
    /// Since syncs found less than before.
    pub stuck_ns: Option<u64>,
    /// Whether the forecast has lately seen no end, not even with a better link and less dirt than expected.
    pub no_end_in_sight: bool,
    /// Since anything moved.
    pub still_ns: Option<u64>,
    /// Since the initial data became less.
    pub undrained_ns: Option<u64>,
    /// Times that the initial data began anew.
    pub reinits: u64,
    /// Share of its time that the destination is busy, 0 to 1.
    pub destination_busy: Option<f64>,
    /// Sent to the destination and not loaded.
    pub destination_backlog_bytes: Option<u64>,
}

/// One source at one moment, as a whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Assessment {
    /// Moment of the last reading (`CLOCK_MONOTONIC`, nanoseconds).
    pub at_ns: u64,
    /// How fast data moves while there is some to move.
    pub throughput: Option<Rate>,
    /// How fast memory is dirtied; the window is that of a sync, in which a page counts once.
    pub dirty: Option<Rate>,
    /// Dirty rate over throughput: above 1, passes grow.
    pub ratio: Option<f64>,
    /// Until the end; `None` where it is not known or there is none.
    pub remaining: Option<Remaining>,
    /// How long the guest will be down.
    pub downtime: Option<Downtime>,
    /// Whether it comes to an end.
    pub verdict: Verdict,
    /// What stands in the way, what to look at first at the front.
    pub blocked: Vec<Reason>,
    /// The numbers behind it.
    pub evidence: Evidence,
    /// What others would say.
    pub baselines: Baselines,
}

impl Assessment {
    /// `reason` in a sentence for people, with this migration's numbers.
    pub fn explain(&self, reason: Reason) -> String {
        reason.explain(self)
    }
}
