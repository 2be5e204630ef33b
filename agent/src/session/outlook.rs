// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The outlook of a source: its session, read as [`crate::convergence`] wants it.
//!
//! ```text
//!   sums, 20 times a second ─┐
//!   state changes ───────────┼─▶ reading ──▶ estimator ──▶ assessment
//!   dirty queries ───────────┴─▶ facts ────────┘
//! ```
//!
//! **What a region tells, and what not.** Its `pending_bytes` is all that the device has yet to give, and falls by what is read and rises
//! by what the device's work makes stale. So `moved + pending` grows by just what was made stale: that is the dirty rate which the device's
//! own data has to keep up with, and a rise of pending is the end of a pass. The memory that the device's DMA dirtied is another
//! flow: the region says which pages, but nothing that is seen here says how fast the VMM sends them. So memory is in the
//! account only in one case: if a query is answered "all", a whole range is dirty for as long as nobody tells pages apart, and it is
//! part of what is left.
//!
//! **What the v2 protocol tells.** In pre-copy `initial_bytes + dirty_bytes` is what can be read now, and takes the place of `pending_bytes`.
//! `MIG_DATA_SIZE` estimates all that would have to move if the device stopped now, so what it is more than that can only move then
//! (QEMU's fix "Report only stop-copy size": the two are not to be added).
//!
//! **What neither has a word for.** A device that runs may tell something to be left and have none of it to give: a region whose
//! `data_size` is 0 though `pending_bytes` is not, which QEMU 5.2 to 7.2 takes for "done for now" (`hw/vfio/migration.c`,
//! `vfio_save_iterate()`) and asks again some 14 times a second; or a file whose read ends with ENOMSG before all of
//! `initial_bytes + dirty_bytes` was read. Once the device stands, what is pending must be to be had. So of R bytes left, the W that it
//! had left when it gave nothing can only move then:
//!
//! ```text
//!   stop-copy part = min(R, W)      before the stop: R − min(R, W)      remaining = until the stop + downtime(stop-copy part)
//! ```
//!
//! Asked once is not enough, for a device may only be slow; and one that later gives some of W was just that ([`Withholding`]).

use super::{Dry, Role, Session};
use crate::{
    convergence::{Assessment, DestinationFacts, Estimator, Facts, Phase, Rate, Reading, Tracking},
    event::DirtyQuery,
    state::State,
};
use migscope_abi::dirty::Outcome;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, time::Duration};

/// Follows one source.
#[derive(Clone, Debug, Default)]
pub struct Outlook {
    estimator: Estimator,
    /// Pending when it was first told.
    first_pending: Option<u64>,
    last_pending: Option<u64>,
    /// Most of `moved + pending` so far: what the device had to give, stale data counted again.
    produced: u64,
    passes: u64,
    last_pass_bytes: Option<u64>,
    tracking: Tracking,
    /// The dirty part of the round of queries under way, and of the last whole one.
    round: Round,
    memory_dirty: Option<Rate>,
    all_dirty_bytes: u64,
    loading: Loading,
    withholding: Withholding,
    assessment: Option<Assessment>,
}

/// How long a destination was busy lately, from how long it was since its session began: a share of the whole session would need
/// minutes to show that a destination became slow, and as long to forget it. Its account is cut into pieces, and what is looked
/// at is the present one with the whole one before.
#[derive(Clone, Copy, Debug, Default)]
struct Loading {
    /// Where the piece before began: time busy, of how much time. In nanoseconds.
    before: (u64, u64),
    /// Where the present one began.
    present: (u64, u64),
}

/// Queries that go once over memory: each begins where one before ended.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    began_ns: u64,
    /// When the round before began; pages that this one tells became dirty since.
    since_ns: Option<u64>,
    dirty_bytes: u64,
    next_bytes: u64,
    all_bytes: u64,
    per_page: bool,
}

/// What is known from beside the session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings {
    /// Downtime that the VMM allows, in nanoseconds.
    pub downtime_budget_ns: u64,
    /// How long the source's changes of state took in an earlier migration of a like device.
    pub transitions_ns: Option<u64>,
    /// The destination, where it is known and seen; how long it was busy is since its session began.
    pub destination: Option<DestinationFacts>,
}

/// What a device that runs holds back until it stands.
#[derive(Clone, Copy, Debug, Default)]
struct Withholding {
    /// What was left when it last had nothing to give, and what had been moved until then. In bytes.
    held: Option<(u64, u64)>,
    /// It gave some of that later: it is slow, and holds nothing back.
    slow: bool,
}

impl Withholding {
    /// How often it must have had nothing to give.
    const ANSWERS: u64 = 2;

    /// Takes in that `pending` bytes are left after `moved`, and how often there was nothing to give.
    fn look(&mut self, pending: u64, moved: u64, dry: Dry) {
        let gave = |(held, before): (u64, u64)| pending < held && moved > before;
        self.slow |= self.held.is_some_and(gave);
        if dry.answers > 0 {
            self.held = Some((dry.bytes.min(pending), moved));
        }
    }

    /// How much it is, once that can be said.
    fn bytes(&self, dry: Dry) -> Option<u64> {
        let told = !self.slow && dry.answers >= Self::ANSWERS;
        self.held.filter(|_| told).map(|(bytes, _)| bytes)
    }
}

impl Loading {
    /// Length of a piece, in nanoseconds: some readings, and about what the throughput is taken over.
    const PIECE_NS: u64 = 2_000_000_000;

    /// `told` since the session's beginning, as it was lately.
    fn lately(&mut self, told: DestinationFacts) -> DestinationFacts {
        let now = (told.busy_ns, told.window_ns);
        if now.0 < self.present.0 || now.1 < self.present.1 {
            // Another session.
            *self = Self::default();
        }
        if now.1 - self.present.1 >= Self::PIECE_NS {
            (self.before, self.present) = (self.present, now);
        }
        let Self { before, .. } = *self;
        DestinationFacts { busy_ns: now.0 - before.0, window_ns: now.1 - before.1, ..told }
    }
}

impl Round {
    /// How fast memory became dirty, as this round told.
    fn rate(&self) -> Option<Rate> {
        let window_ns = self.began_ns.checked_sub(self.since_ns?).filter(|ns| *ns > 0)?;
        let window = Duration::from_nanos(window_ns).as_secs_f64();
        Some(Rate { bytes_per_second: self.dirty_bytes as f64 / window, window_ns })
    }
}

impl Outlook {
    /// How fast the device's DMA made memory dirty: what the last whole round of queries told, over the time since the round before.
    pub fn memory_dirty(&self) -> Option<Rate> {
        self.memory_dirty
    }

    /// What followed from the last reading.
    pub fn assessment(&self) -> Option<&Assessment> {
        self.assessment.as_ref()
    }

    /// Takes in an answered dirty query.
    pub fn queried(&mut self, query: &DirtyQuery) {
        if query.start_bytes < self.round.next_bytes || self.round.next_bytes == 0 {
            // The next round has begun: the one before is whole.
            if self.round.next_bytes != 0 {
                self.all_dirty_bytes = self.round.all_bytes;
                self.tracking = match (self.round.per_page, self.round.all_bytes) {
                    (_, 1..) => Tracking::AllDirty,
                    (true, 0) => Tracking::PerPage,
                    (false, 0) => self.tracking,
                };
            }
            let since_ns = (self.round.next_bytes != 0).then_some(self.round.began_ns);
            self.memory_dirty = self.round.rate().or(self.memory_dirty);
            self.round = Round { began_ns: query.at_ns, since_ns, ..Round::default() };
        }
        self.round.dirty_bytes = self.round.dirty_bytes.saturating_add(query.dirty_bytes);
        self.round.next_bytes = query.start_bytes.saturating_add(query.range_bytes);
        match query.outcome {
            Outcome::All => {
                self.round.all_bytes = self.round.all_bytes.saturating_add(query.range_bytes);
            }
            Outcome::None | Outcome::Bitmap => self.round.per_page = true,
            Outcome::Error => {}
        }
    }

    /// Takes in how `session` stands at `at_ns` (`CLOCK_MONOTONIC`, nanoseconds).
    pub fn read(&mut self, session: &Session, at_ns: u64, around: &Surroundings) {
        let sizes = session.sizes();
        let reading = self.reading(session, at_ns);
        let facts = Facts {
            size_query_failed: sizes.query_failed,
            tracking: self.tracking,
            device_error: session.state() == State::Error,
            blind: session.is_blind(),
            destination: around.destination.map(|told| self.loading.lately(told)),
            transitions_ns: around.transitions_ns,
            downtime_budget_ns: around.downtime_budget_ns,
            reinits: sizes.reinits,
        };
        self.estimator.observe(&reading);
        self.assessment = self.estimator.assess(&facts);
    }

    fn reading(&mut self, session: &Session, at_ns: u64) -> Reading {
        let phase = if session.state().is_running() { Phase::PreCopy } else { Phase::Stopped };
        let figures = session.figures();
        let mut reading = Reading::unknown(at_ns, phase);
        reading.moved_bytes = figures.data_bytes;
        reading.busy_ns = figures.data_busy_ns;
        if let Some(pending) = figures.pending_bytes {
            if self.last_pending.is_some_and(|last| pending > last) && phase == Phase::PreCopy {
                self.passes = self.passes.saturating_add(1);
                self.last_pass_bytes = Some(pending);
            }
            self.last_pending = Some(pending);
            let all = if phase == Phase::PreCopy { self.all_dirty_bytes } else { 0 };
            reading.remaining_bytes = Some(pending.saturating_add(all));
            if let Some(moved) = figures.data_bytes {
                let first = *self.first_pending.get_or_insert(pending.saturating_add(moved));
                self.produced = self.produced.max(moved.saturating_add(pending));
                reading.dirtied_bytes = Some(self.produced.saturating_sub(first));
            }
        }
        if phase == Phase::PreCopy {
            let pending = figures.pending_bytes.unwrap_or(0);
            let beyond = session.sizes().stop_copy_bytes.map(|size| size.saturating_sub(pending));
            if let Some(beyond) = beyond {
                let left = reading.remaining_bytes.unwrap_or(0);
                reading.remaining_bytes = Some(left.saturating_add(beyond));
            }
            let withheld = self.withheld(session.dry(), figures.pending_bytes, figures.data_bytes);
            reading.stop_copy_bytes = match (beyond, withheld) {
                (None, None) => None,
                (beyond, withheld) => {
                    Some(beyond.unwrap_or(0).saturating_add(withheld.unwrap_or(0)))
                }
            };
        }
        if !self.withholding.slow {
            reading.empty_answers = session.dry().answers;
        }
        reading.last_sync_bytes = self.last_pass_bytes;
        reading.iteration = self.passes;
        reading
    }
}

impl Outlook {
    /// What of `pending` the device holds back until it stands, as far as that is known.
    fn withheld(&mut self, dry: Dry, pending: Option<u64>, moved: Option<u64>) -> Option<u64> {
        let (pending, moved) = pending.zip(moved)?;
        self.withholding.look(pending, moved, dry);
        self.withholding.bytes(dry)
    }
}

impl Session {
    /// Whether something of it was lost, or a probe is missing that would tell of it.
    pub fn is_blind(&self) -> bool {
        let super::Coverage { data, dirty, access, errors, state, .. } = self.coverage;
        // Which rule a refusal was for can be told by our driver only.
        let errors = errors || self.is_seen_from_outside();
        !(self.exact && data && dirty && access && errors && state)
    }

    /// Takes in what surrounds it, and follows from it what is to come; a destination has no outlook.
    pub fn look_ahead(&mut self, at_ns: u64, around: &Surroundings) {
        if self.role != Role::Source || self.end.is_some() {
            return;
        }
        let mut outlook = std::mem::take(&mut self.outlook);
        outlook.read(self, at_ns, around);
        self.outlook = outlook;
    }
}

/// An outlook as the API gives it; what is unknown is `null`. Rates have the window over which they were taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutlookReport {
    /// `converging`, `not_converging` or `unknown`.
    pub verdict: Cow<'static, str>,
    /// What stands in the way, what to look at first at the front.
    pub blocked: Vec<Blocked>,
    /// How fast device data moves.
    pub throughput_bytes_per_second: Option<f64>,
    /// The window of the throughput.
    pub throughput_window_ns: Option<u64>,
    /// How fast device data is made stale.
    pub dirty_bytes_per_second: Option<f64>,
    /// The window of the dirty rate.
    pub dirty_window_ns: Option<u64>,
    /// Dirty rate over throughput: above 1, passes grow.
    pub convergence_ratio: Option<f64>,
    /// Time until the end of the migration.
    pub remaining: Option<Band>,
    /// The downtime to come.
    pub downtime: Option<Band>,
    /// The part of it that does not depend on bytes.
    pub downtime_fixed_ns: Option<u64>,
    /// Where that is from: `seen`, `partly` or `assumed`.
    pub downtime_fixed_from: Option<Cow<'static, str>>,
    /// Downtime that the VMM is taken to allow.
    pub downtime_budget_ns: u64,
    /// What other models say, from the same data.
    pub baselines: Vec<Baseline>,
}

/// An estimate with its band: eight of ten lie in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Band {
    /// What is expected.
    pub expected_ns: u64,
    /// The lower end.
    pub low_ns: u64,
    /// The upper end; `null` where there may be none.
    pub high_ns: Option<u64>,
}

/// A reason, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// The value of the label `reason`.
    pub reason: Cow<'static, str>,
    /// A sentence with this migration's numbers.
    pub explanation: String,
    /// The file of its page in `dashboards/runbooks`.
    pub runbook: Cow<'static, str>,
}

/// What another model says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// `qemu`, `kubevirt` or `geometric`.
    pub model: Cow<'static, str>,
    /// Time until the end.
    pub remaining_ns: Option<u64>,
    /// The downtime.
    pub downtime_ns: Option<u64>,
}

impl From<&Assessment> for OutlookReport {
    fn from(assessment: &Assessment) -> Self {
        let blocked = assessment.blocked.iter().map(|reason| Blocked {
            reason: reason.name().into(),
            explanation: assessment.explain(*reason),
            runbook: reason.runbook().into(),
        });
        let baselines = &assessment.baselines;
        let models = [
            ("qemu", baselines.qemu),
            ("kubevirt", baselines.kubevirt),
            ("geometric", baselines.geometric),
        ];
        let remaining = assessment.remaining.map(|remaining| Band {
            expected_ns: remaining.expected_ns,
            low_ns: remaining.low_ns,
            high_ns: remaining.high_ns,
        });
        let downtime = assessment.downtime.map(|downtime| Band {
            expected_ns: downtime.expected_ns,
            low_ns: downtime.low_ns,
            high_ns: Some(downtime.high_ns),
        });
        Self {
            verdict: assessment.verdict.name().into(),
            blocked: blocked.collect(),
            throughput_bytes_per_second: assessment.throughput.map(|rate| rate.bytes_per_second),
            throughput_window_ns: assessment.throughput.map(|rate| rate.window_ns),
            dirty_bytes_per_second: assessment.dirty.map(|rate| rate.bytes_per_second),
            dirty_window_ns: assessment.dirty.map(|rate| rate.window_ns),
            convergence_ratio: assessment.ratio,
            remaining,
            downtime,
            downtime_fixed_ns: assessment.downtime.map(|downtime| downtime.fixed_ns),
            downtime_fixed_from: assessment.downtime.map(|downtime| {
                match downtime.fixed_from {
                    crate::convergence::FixedFrom::Seen => "seen",
                    crate::convergence::FixedFrom::Partly => "partly",
                    crate::convergence::FixedFrom::Assumed => "assumed",
                }
                .into()
            }),
            downtime_budget_ns: assessment.evidence.downtime_budget_ns,
            baselines: models
                .map(|(model, prediction)| Baseline {
                    model: model.into(),
                    remaining_ns: prediction.remaining_ns,
                    downtime_ns: prediction.downtime_ns,
                })
                .into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share that a destination was busy lately, told ten times a second, each time with what it was busy since.
    fn shares(busy: impl IntoIterator<Item = u64>) -> Vec<f64> {
        let mut loading = Loading::default();
        let mut told = DestinationFacts::default();
        let mut shares = Vec::new();
        for percent in busy {
            told.busy_ns += percent * 1_000_000;
            told.window_ns += 100_000_000;
            let DestinationFacts { busy_ns, window_ns, .. } = loading.lately(told);
            assert!(window_ns <= 2 * Loading::PIECE_NS);
            shares.push(busy_ns as f64 / window_ns as f64);
        }
        shares
    }

    #[test]
    fn a_destination_that_becomes_busy_is_seen_to_be_within_two_pieces() {
        let shares = shares([vec![0; 600], vec![95; 45], vec![0; 45]].concat());
        assert_eq!(shares[599], 0.0);
        assert!((shares[644] - 0.95).abs() < 1e-9, "{}", shares[644]);
        assert!(shares[689] < 1e-9, "and forgotten as soon: {}", shares[689]);
    }

    #[test]
    fn before_the_first_piece_is_whole_it_is_all_that_there_is() {
        let shares = shares(vec![50; 30]);
        assert!(shares.iter().all(|share| (share - 0.5).abs() < 1e-9), "{shares:?}");
    }

    #[test]
    fn another_session_begins_a_new_account() {
        let mut loading = Loading::default();
        let told = |busy_s: u64, window_s: u64| DestinationFacts {
            busy_ns: busy_s * 1_000_000_000,
            window_ns: window_s * 1_000_000_000,
            ..DestinationFacts::default()
        };
        loading.lately(told(50, 60));
        let lately = loading.lately(told(0, 1));
        assert_eq!((lately.busy_ns, lately.window_ns), (0, 1_000_000_000));
    }
}
