// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a report says, before anybody decides how it looks.
//!
//! ```text
//!   document ─┬─ recording            who wrote it, where, when, and whether it is whole
//!             ├─ moves ─┬─ verdict    one device's way: the source, the destination, or both where both were seen
//!             │         └─ waterfall
//!             ├─ migrations           of whole machines
//!             ├─ sessions ── states, points, rates, latencies, transitions, violations, prediction
//!             └─ losses, unknown      what is not in it
//! ```
//!
//! `report --json` writes it as it is. Times are nanoseconds of the recording host's `CLOCK_MONOTONIC` or lengths in nanoseconds,
//! amounts are bytes, rates are bytes a second; what is not known is `null`.

use super::prediction::Prediction;
use crate::{
    dirty::Queries,
    metrics::Info,
    session::{Downtime, machine::Migration, report::Report, timeline::Point},
    snapshot::Probe,
};
use serde::Serialize;
use std::borrow::Cow;

/// A recording, told.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    /// Version of the program that tells it.
    pub migscope: Cow<'static, str>,
    /// What was recorded.
    pub recording: Recording,
    /// The whole in a sentence.
    pub verdict: Verdict,
    /// The devices that moved, or tried to, in the order of their sessions.
    pub moves: Vec<Move>,
    /// Migrations of whole machines.
    pub migrations: Vec<Migration>,
    /// The sessions in full, by their numbers.
    pub sessions: Vec<Detail>,
    /// The probes at the end of the recording.
    pub probes: Vec<Probe>,
    /// What did not reach the agent while it recorded.
    pub losses: Losses,
    /// What is not known, and why; a sentence each.
    pub unknown: Vec<String>,
}

/// Where a recording comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Recording {
    /// The file's name.
    pub file: String,
    /// The host's name.
    pub host: Option<String>,
    /// The host's kernel.
    pub kernel: Option<String>,
    /// Version of the agent that recorded.
    pub version: Option<String>,
    /// One moment by both clocks.
    pub clock: Option<Clock>,
    /// First moment that it tells of.
    pub began_monotonic_ns: Option<u64>,
    /// Last moment that it tells of.
    pub ended_monotonic_ns: Option<u64>,
    /// What of it could not be read, a sentence each: a part that is damaged, or the end that was cut off.
    pub faults: Vec<String>,
}

/// One moment by the clock on the wall and by `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Clock {
    /// Nanoseconds since 1970, UTC.
    pub unix_ns: u64,
    /// `CLOCK_MONOTONIC` at that moment.
    pub monotonic_ns: u64,
}

impl Clock {
    /// The clock on the wall (nanoseconds since 1970) at a moment of `CLOCK_MONOTONIC`. It drifts with what set the clock in between.
    pub fn unix_ns(self, monotonic_ns: u64) -> u64 {
        let Self { unix_ns, monotonic_ns: then_ns } = self;
        if monotonic_ns >= then_ns {
            unix_ns.saturating_add(monotonic_ns - then_ns)
        } else {
            unix_ns.saturating_sub(then_ns - monotonic_ns)
        }
    }
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tone {
    /// It was done.
    Good,
    /// It was called off, or its end was not seen.
    Open,
    /// It failed.
    Bad,
}

/// What came of it, and why, in sentences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// How it stands.
    pub tone: Tone,
    /// What came of it.
    pub headline: String,
    /// Why, the weightiest first.
    pub why: Vec<String>,
}

/// One device's way from its source to its destination, as far as it was seen.
#[derive(Clone, Debug, Serialize)]
pub struct Move {
    /// Session of the source.
    pub source: Option<u64>,
    /// Session of the destination.
    pub destination: Option<u64>,
    /// What came of it.
    pub verdict: Verdict,
    /// From the beginning of the first session to the end of the last; `null` while one has no end.
    pub duration_ns: Option<u64>,
    /// The parts of the downtime, of both ends.
    pub downtime: Downtime,
    /// The same in time.
    pub waterfall: Option<Waterfall>,
}

/// A downtime, part after part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waterfall {
    /// When the source's device began to stop; where the source was not seen, when the destination entered resuming.
    pub from_ns: u64,
    /// When the destination's device ran; where the destination was not seen, when the source's session ended.
    pub to_ns: u64,
    /// Whether it is the whole downtime, and not the part of one end.
    pub whole: bool,
    /// The parts, in the order in which they begin.
    pub bars: Vec<Bar>,
    /// Time that no part accounts for: what the VMM does between them. `null` where parts are not known.
    pub other_ns: Option<u64>,
}

/// One part of a downtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bar {
    /// Name of the part, as in the label `part`.
    pub part: &'static str,
    /// What it is, for people.
    pub what: &'static str,
    /// When it began.
    pub from_ns: u64,
    /// When it was over.
    pub to_ns: u64,
    /// How much of that the driver was busy; `null` where it is the whole of it.
    pub busy_ns: Option<u64>,
}

/// One session in full.
#[derive(Clone, Debug, Serialize)]
pub struct Detail {
    /// The session as the agent told it.
    #[serde(flatten)]
    pub report: Report,
    /// What the device was, and whose.
    pub info: Info,
    /// When it began by the clock on the wall, in nanoseconds since 1970.
    pub began_unix_ns: Option<u64>,
    /// The states that it went through.
    pub states: Vec<Stay>,
    /// What it had moved at each moment.
    pub timeline: Vec<Point>,
    /// How fast it moved and dirtied.
    pub rates: Rates,
    /// Answered queries for dirty pages.
    pub queries: Vec<Query>,
    /// How long accesses and queries took while it lasted.
    pub latencies: Latencies,
    /// What was foretold, and what came; of a source with enough readings.
    pub prediction: Option<Prediction>,
}

/// A stay in a state; amounts are those of the stay, exact where the session is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stay {
    /// The state.
    pub state: &'static str,
    /// When it was entered.
    pub from_ns: u64,
    /// When it was left.
    pub to_ns: u64,
    /// The same by the clock on the wall, nanoseconds since 1970.
    pub from_unix_ns: Option<u64>,
    /// Device data moved.
    pub data_bytes: Option<u64>,
    /// Buffers that it came in.
    pub iterations: Option<u64>,
    /// Memory reported dirty.
    pub dirty_bytes: Option<u64>,
    /// What was pending at its end.
    pub pending_bytes: Option<u64>,
}

impl Stay {
    /// How long it was.
    pub fn ns(&self) -> u64 {
        self.to_ns.saturating_sub(self.from_ns)
    }
}

/// Rates over windows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rates {
    /// Least length of a window. Windows end where a reading is, so most are a little longer, and a change of state ends one that is
    /// half as long.
    pub window_ns: u64,
    /// The windows, in the order of time.
    pub windows: Vec<RateWindow>,
}

/// Rates in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RateWindow {
    /// Its beginning.
    pub from_ns: u64,
    /// Its end.
    pub to_ns: u64,
    /// Device data moved, a second.
    pub throughput_bytes_per_second: Option<u64>,
    /// Memory reported dirty, a second.
    pub dirty_bytes_per_second: Option<u64>,
}

/// One answered query for dirty pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Query {
    /// When it was answered.
    pub at_ns: u64,
    /// How long the driver took.
    pub duration_ns: u64,
    /// `none`, `all`, `bitmap` or `error`.
    pub outcome: &'static str,
    /// First address of the range.
    pub start_bytes: u64,
    /// Length of the range.
    pub range_bytes: u64,
    /// How much of it was reported dirty.
    pub dirty_bytes: u64,
}

/// Distributions of durations.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Latencies {
    /// From when on accesses are counted; `null` where it is since the probes were loaded.
    pub from_ns: Option<u64>,
    /// Until when; `null` where nothing was read.
    pub to_ns: Option<u64>,
    /// The distributions. Accesses are those of all devices on the host in that time, queries those of the session.
    pub series: Vec<Latency>,
}

/// One distribution of durations.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// What took so long: `read pending_bytes`, `dirty query`.
    pub what: String,
    /// How many durations there are.
    pub count: u64,
    /// Their quantiles.
    pub quantiles: Quantiles,
    /// How far a quantile may be from the truth, relative to it.
    pub relative_error: f64,
    /// More quantiles, for a plot: the share of all, and the duration.
    pub curve: Vec<(f64, u64)>,
}

/// Quantiles that everybody asks for, in nanoseconds; `null` where there are too few durations to tell it from the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// Half are no longer.
    pub p50_ns: u64,
    /// Nine of ten.
    pub p90_ns: Option<u64>,
    /// 99 of 100.
    pub p99_ns: Option<u64>,
    /// 999 of 1000.
    pub p999_ns: Option<u64>,
    /// All of them.
    pub max_ns: u64,
}

/// What did not reach the agent while it recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// Records by the reason of their loss.
    pub records: Vec<(Cow<'static, str>, u64)>,
    /// Runs of probes that the kernel left out; `null` where it does not say.
    pub skipped: Option<u64>,
    /// How often something was lost of which nobody kept count.
    pub uncounted: u64,
    /// Sessions older than the newest that are kept.
    pub sessions_left_out: u64,
    /// Queries and refusals older than the newest that are kept.
    pub events_left_out: u64,
}

impl Document {
    /// The session with this number.
    pub fn session(&self, id: u64) -> Option<&Detail> {
        self.sessions.iter().find(|detail| detail.report.id == id)
    }

    /// Keeps one session, its other end, and what belongs to them. `false` if there is no such session; then nothing has changed.
    pub fn keep_only(&mut self, id: u64) -> bool {
        let holds = |this: &Move| [this.source, this.destination].contains(&Some(id));
        let Some(kept) = self.moves.iter().find(|this| holds(this)).cloned() else {
            return false;
        };
        let ends = [kept.source, kept.destination];
        self.sessions.retain(|detail| ends.contains(&Some(detail.report.id)));
        self.migrations.retain(|machine| {
            machine.sessions.iter().any(|session| ends.contains(&Some(*session)))
        });
        self.verdict = kept.verdict.clone();
        self.moves = vec![kept];
        self.unknown = super::assemble::unknown(self);
        true
    }

    /// The clock on the wall at a moment of `CLOCK_MONOTONIC`.
    pub fn unix_ns(&self, monotonic_ns: u64) -> Option<u64> {
        self.recording.clock.map(|clock| clock.unix_ns(monotonic_ns))
    }
}

/// Queries by the name of their outcome.
pub fn outcomes(queries: &Queries) -> [(&'static str, u64); 4] {
    use migscope_abi::dirty::Outcome;
    Outcome::ALL.map(|outcome| (outcome.name(), queries.of(outcome)))
}
