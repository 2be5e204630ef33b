// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Convergence: whether a migration comes to an end, when, how long the guest will be down, and if not, why.
//!
//! ```text
//!                   ┌─▶ rate: throughput, dirty rate ─┐
//!   reading ────────┼─▶ load: curve U(W) of the syncs ┼─▶ forecast: the passes to come ─▶ remaining, downtime ─┐
//!   (any protocol)  ├─▶ progress: is it stuck ────────┴────────────┐                                          ├─▶ assessment
//!                   └─▶ baseline: QEMU, KubeVirt, geometric ───────┼──────────────────────────────────────────┤
//!   facts ─────────────────────────────────────────────────────────┴─▶ diagnosis: reasons, verdict ───────────┘
//! ```
//!
//! Everything here is arithmetic on what it is given: no clock, no file, and memory that does not grow. A reading costs a few
//! additions, a sync a small fit; an assessment follows the passes to come, 200 of them at most. Whatever the numbers are,
//! nothing panics, and what comes out is finite or absent. `cargo xtask bench prediction` holds it against migrations that
//! were simulated page by page.

mod assessment;
mod baseline;
mod curve;
mod diagnosis;
mod downtime;
mod forecast;
mod lately;
mod load;
mod progress;
mod rate;
mod reading;
mod reason;
mod remaining;

pub use assessment::{Assessment, Downtime, Evidence, FixedFrom, Remaining, Verdict};
pub use baseline::{Baselines, Prediction};
pub use downtime::ASSUMED_TRANSITIONS_NS;
pub use rate::Rate;
pub use reading::{DEFAULT_DOWNTIME_BUDGET_NS, DestinationFacts, Facts, Phase, Reading, Tracking};
pub use reason::Reason;

use baseline::{geometric::Geometric, kubevirt::KubeVirt, qemu::Qemu};
use diagnosis::{Signs, above_budget, shown};
use downtime::Rest;
use forecast::{Course, Standing};
use lately::Lately;
use load::Load;
use progress::Progress;
use rate::{Fading, nanoseconds, seconds};
use remaining::Outset;

/// Time in which the throughput forgets, in seconds: QEMU's 100 ms swing with the link, and a migration has minutes.
const THROUGHPUT_S: f64 = 4.0;
/// Time in which the dirty rate forgets, in seconds: some passes.
const DIRTY_S: f64 = 10.0;
/// How far off the mean throughput of the rest may lie if that of single readings does not swing at all.
const LEAST_ERROR: f64 = 0.02;
/// Readings swing more than the mean of the time that is left does: the share of their spread that the band takes.
const OF_READINGS: f64 = 0.6;
/// How far off the throughput may lie, as a share, where only the time is known that the source's driver was busy: the link may be slower.
const OF_DRIVER: f64 = 0.8;
/// Time in which it is forgotten, in seconds, that the forecast saw an end, or none: what is said after 2.3 times that (`lately.rs`)
/// must not be said of a load that swings, and 28 seconds are longer than one with a period of half a minute is high.
const PROSPECT_S: f64 = 12.0;
/// The same of a stop part that does not fit, in seconds: a link that dips comes up again.
const ABOVE_BUDGET_S: f64 = 2.0;

/// Follows one source.
#[derive(Clone, Debug)]
pub struct Estimator {
    first_ns: Option<u64>,
    last: Option<Reading>,
    throughput: Fading,
    /// What had been moved, and how long the driver had been busy with it, at the first reading that told.
    given_before: Option<(u64, u64)>,
    drain: Fading,
    dirty: Fading,
    /// Sum of the windows in which dirty pages were told, fading as they do.
    windows: Fading,
    load: Load,
    /// What was unsent at the last syncs: bytes over throughput, in seconds.
    unsent_s: Option<f64>,
    /// When the pass under way began, and what was reported dirty until then.
    pass_began_ns: u64,
    pass_dirtied: Option<u64>,
    /// When dirty pages were last told.
    told_ns: u64,
    stopped_ns: Option<u64>,
    syncs: u64,
    /// Most that was ever left.
    total: Option<u64>,
    progress: Progress,
    /// Whether the forecast saw no end.
    hopeless: Lately,
    /// Whether the stop part did not fit into the downtime.
    above_budget: Lately,
    qemu: Qemu,
    kubevirt: KubeVirt,
    geometric: Geometric,
}

impl Default for Estimator {
    fn default() -> Self {
        Self {
            first_ns: None,
            last: None,
            throughput: Fading::new(THROUGHPUT_S),
            given_before: None,
            drain: Fading::new(THROUGHPUT_S),
            dirty: Fading::new(DIRTY_S),
            windows: Fading::new(DIRTY_S),
            load: Load::default(),
            unsent_s: None,
            pass_began_ns: 0,
            pass_dirtied: None,
            told_ns: 0,
            stopped_ns: None,
            syncs: 0,
            total: None,
            progress: Progress::default(),
            hopeless: Lately::new(PROSPECT_S),
            above_budget: Lately::new(ABOVE_BUDGET_S),
            qemu: Qemu::default(),
            kubevirt: KubeVirt::default(),
            geometric: Geometric::default(),
        }
    }
}

impl Estimator {
    /// Takes in a reading.
    pub fn observe(&mut self, reading: &Reading) {
        self.qemu.observe(reading);
        self.kubevirt.observe(reading);
        self.geometric.observe(reading);
        self.total = self.total.max(reading.remaining_bytes);
        if reading.phase == Phase::Stopped {
            self.stopped_ns.get_or_insert(reading.at_ns);
        }
        self.given_before = self.given_before.or(reading.moved_bytes.zip(reading.busy_ns));
        let last = self.last.replace(reading.clone());
        match last {
            Some(last) if last.at_ns <= reading.at_ns => self.step(&last, reading),
            // The first one, or time went back.
            _ => {
                self.first_ns.get_or_insert(reading.at_ns);
                (self.pass_began_ns, self.told_ns) = (reading.at_ns, reading.at_ns);
                self.pass_dirtied = reading.dirtied_bytes;
                self.progress.observe(reading, 0, None);
            }
        }
    }

    fn step(&mut self, last: &Reading, reading: &Reading) {
        let elapsed = seconds(reading.at_ns - last.at_ns);
        let moved = difference(reading.moved_bytes, last.moved_bytes);
        let dry = reading.empty_answers > last.empty_answers;
        if let Some(bytes) = moved
            && !dry
            && !starved(last, bytes)
        {
            self.throughput.add(bytes as f64, elapsed);
        }
        let syncs = reading.iteration.saturating_sub(last.iteration);
        self.progress.observe(reading, syncs, moved);
        // After the stop nothing is dirtied that would be looked for again.
        if reading.phase == Phase::Stopped {
            return;
        }
        if syncs == 0
            && let Some(bytes) = difference(last.remaining_bytes, reading.remaining_bytes)
        {
            self.drain.add(bytes as f64, elapsed);
        }
        let told = difference(reading.dirtied_bytes, last.dirtied_bytes);
        // Who holds back the rest, and has nothing else to give, has told that nothing became stale.
        let dry = reading.empty_answers > last.empty_answers && reading.stop_copy_bytes.is_some();
        if syncs > 0 || dry || told.is_some_and(|bytes| bytes > 0) {
            let window = seconds(reading.at_ns.saturating_sub(self.told_ns));
            if let Some(bytes) = told {
                self.dirty.add(bytes as f64, window);
                self.windows.add(window * window / (syncs.max(1) as f64), window);
                if syncs == 0 {
                    self.load.reported(window, bytes as f64);
                }
            }
            self.told_ns = reading.at_ns;
        }
        if syncs > 0 {
            self.synced(last, reading, syncs);
        }
    }

    /// A pass is over, or several that were too short to be read one by one: then they are taken to be alike.
    fn synced(&mut self, last: &Reading, reading: &Reading, syncs: u64) {
        self.syncs = self.syncs.saturating_add(syncs);
        let passes = syncs as f64;
        let window = seconds(reading.at_ns.saturating_sub(self.pass_began_ns)) / passes;
        let jump = difference(reading.remaining_bytes, last.remaining_bytes);
        let told = difference(reading.dirtied_bytes, self.pass_dirtied);
        let found = reading
            .last_sync_bytes
            .map(|bytes| bytes as f64)
            .or_else(|| Some(told? as f64 / passes))
            .or_else(|| jump.map(|bytes| bytes as f64));
        if let Some(bytes) = found {
            let first_ns = self.first_ns.unwrap_or(reading.at_ns);
            let at = seconds(reading.at_ns.saturating_sub(first_ns));
            self.load.synced(window, bytes, at, self.memory());
            self.note_unsent(reading, bytes);
        }
        self.pass_began_ns = reading.at_ns;
        self.pass_dirtied = reading.dirtied_bytes;
    }

    /// What is left beyond what the sync found had not been sent when the VMM looked.
    fn note_unsent(&mut self, reading: &Reading, found: f64) {
        if let (Some(left), Some(throughput)) = (reading.remaining_bytes, self.throughput.rate())
            && throughput > 0.0
        {
            let stop_copy = reading.stop_copy_bytes.unwrap_or(0);
            let unsent = left.saturating_sub(stop_copy) as f64 - found;
            let newest = unsent.max(0.0) / throughput;
            self.unsent_s = Some(self.unsent_s.map_or(newest, |before| (before + newest) / 2.0));
        }
    }

    /// What follows from the readings so far; `None` before the first. It is to be asked after each reading: how long something
    /// has been so is counted here, where the facts are known.
    pub fn assess(&mut self, facts: &Facts) -> Option<Assessment> {
        let last = &self.last.clone()?;
        let moves = self.moves(last);
        let throughput = moves.map(|rate| rate.bytes_per_second);
        let dirty = self.dirty_rate();
        let ratio = dirty
            .zip(throughput)
            .map(|(dirty, throughput)| dirty.bytes_per_second / throughput)
            .filter(|ratio| ratio.is_finite());
        let outset = throughput.and_then(|rate| self.outset(last, facts, rate));
        let standing = outset.map(|outset| outset.standing);
        let course = standing.as_ref().and_then(Standing::follow);
        self.look(last, facts, outset.as_ref());
        let evidence = self.evidence(last, facts);
        let signs = Signs {
            phase: last.phase,
            facts,
            evidence: &evidence,
            throughput,
            swing: self.swing(),
            ratio,
            ends: standing.filter(|_| self.load.is_known()).map(|_| course.is_some()),
            above_budget: self.above_budget.mostly(),
            least_after_sync: self.progress.least_after_sync(),
            total: self.total.map(|bytes| bytes as f64),
            syncs: self.syncs,
        };
        let blocked = signs.reasons();
        let verdict = signs.verdict(&blocked);
        let downtime = self.downtime(last, facts, standing.as_ref(), course);
        let remaining = match last.phase {
            Phase::Stopped => downtime.map(|downtime| self.rest_of(last, downtime)),
            Phase::PreCopy => outset
                .filter(|_| verdict != Verdict::NotConverging)
                .zip(downtime)
                .and_then(|(outset, downtime)| {
                    let gone_ns = last.at_ns.saturating_sub(self.first_ns.unwrap_or(last.at_ns));
                    outset.remaining(downtime, seconds(gone_ns))
                }),
        };
        Some(Assessment {
            at_ns: last.at_ns,
            throughput: moves,
            dirty,
            ratio,
            remaining,
            downtime,
            verdict,
            blocked,
            evidence,
            baselines: Baselines {
                qemu: self.qemu.predict(),
                kubevirt: self.kubevirt.predict(),
                geometric: self.geometric.predict(facts.downtime_budget_ns),
            },
        })
    }

    /// How fast data moves while there is some to move.
    ///
    /// A source that never had more to give than was asked of it says nothing of its link. What is known then is how long its driver took for
    /// what it gave, and that data moves no faster than that.
    fn moves(&self, last: &Reading) -> Option<Rate> {
        if let Some(bytes_per_second) = self.measured() {
            let window_ns = nanoseconds(self.throughput.window());
            return Some(Rate { bytes_per_second, window_ns });
        }
        let (moved, busy_ns) = self.given_before.filter(|_| last.empty_answers > 0)?;
        let bytes = difference(last.moved_bytes, Some(moved)).filter(|bytes| *bytes > 0)?;
        let window_ns = difference(last.busy_ns, Some(busy_ns)).filter(|ns| *ns > 0)?;
        Some(Rate { bytes_per_second: bytes as f64 / seconds(window_ns), window_ns })
    }

    fn measured(&self) -> Option<f64> {
        self.throughput.rate().filter(|rate| *rate > 0.0)
    }

    /// By how much the throughput of single readings swings about the mean, as a share; where none was measured, how far off it may lie.
    fn swing(&self) -> f64 {
        if self.measured().is_some() { self.throughput.spread() } else { OF_DRIVER }
    }

    fn dirty_rate(&self) -> Option<Rate> {
        // The mean window, longer ones counting as much more as they are longer.
        let window = self.windows.rate()?;
        Some(Rate { bytes_per_second: self.dirty.rate()?, window_ns: nanoseconds(window) })
    }

    /// Most that was ever left, in bytes.
    fn memory(&self) -> f64 {
        self.total.unwrap_or(0) as f64
    }

    fn outset(&self, last: &Reading, facts: &Facts, throughput: f64) -> Option<Outset> {
        Some(Outset {
            standing: self.standing(last, facts, throughput)?,
            dirty_known: self.load.is_known(),
            dirty_error: self.load.error(),
            throughput_error: self.throughput_error().min(0.9),
            drained: is_drained(last),
        })
    }

    fn standing(&self, last: &Reading, facts: &Facts, throughput: f64) -> Option<Standing> {
        let remaining = last.remaining_bytes? as f64;
        let stop_copy = (last.stop_copy_bytes.unwrap_or(0) as f64).min(remaining);
        let budget = seconds(facts.downtime_budget_ns);
        let total = self.memory();
        let drain = match self.syncs {
            0 => self.drain.rate().unwrap_or(throughput),
            _ => throughput,
        };
        Some(Standing {
            left: remaining - stop_copy,
            stop_copy,
            throughput,
            drain,
            curve: self.load.expected(throughput, total),
            age: seconds(last.at_ns.saturating_sub(self.pass_began_ns)),
            budget,
            total,
            leaves: match self.unsent_s {
                Some(unsent_s) if budget > 0.0 => (unsent_s / budget).min(1.0),
                _ => 1.0,
            },
        })
    }

    /// Notes what is only said if it stays so.
    fn look(&mut self, last: &Reading, facts: &Facts, outset: Option<&Outset>) {
        if last.phase == Phase::Stopped {
            return;
        }
        let above = outset.is_some_and(|outset| {
            let told = last.stop_copy_bytes.filter(|_| !facts.size_query_failed);
            told.is_some_and(|bytes| above_budget(bytes, outset.standing.fits(), self.swing()))
        });
        self.above_budget.look(above, last.at_ns);
        // One pass does not tell what is usual of this guest.
        if self.syncs > 1 {
            self.hopeless.look(outset.is_some_and(Outset::is_hopeless), last.at_ns);
        }
    }

    fn throughput_error(&self) -> f64 {
        match self.measured() {
            Some(_) => LEAST_ERROR + OF_READINGS * self.throughput.spread().min(1.0),
            None => OF_DRIVER,
        }
    }

    fn downtime(
        &self,
        last: &Reading,
        facts: &Facts,
        standing: Option<&Standing>,
        course: Option<Course>,
    ) -> Option<Downtime> {
        let standing = standing?;
        let now = standing.left + standing.stop_copy;
        let (bytes, gone) = match (last.phase, course) {
            (Phase::Stopped, _) => {
                let since = self.stopped_ns.unwrap_or(last.at_ns);
                (now, seconds(last.at_ns.saturating_sub(since)))
            }
            (Phase::PreCopy, Some(course)) => (course.left_at_stop, 0.0),
            // Stopped now: with what a last look would find.
            (Phase::PreCopy, None) => (now + standing.curve.dirty_after(standing.age), 0.0),
        };
        let rest = Rest {
            bytes,
            stop_copy: last.stop_copy_bytes.map(|bytes| bytes as f64),
            more: match last.phase {
                Phase::PreCopy => 0.1 * bytes,
                Phase::Stopped => 0.0,
            },
            throughput: standing.throughput,
            error: LEAST_ERROR + self.swing(),
            gone,
        };
        downtime::expect(&rest, facts)
    }

    /// What is left of a downtime that has begun.
    fn rest_of(&self, last: &Reading, downtime: Downtime) -> Remaining {
        let gone_ns = last.at_ns.saturating_sub(self.stopped_ns.unwrap_or(last.at_ns));
        Remaining {
            expected_ns: downtime.expected_ns.saturating_sub(gone_ns),
            low_ns: downtime.low_ns.saturating_sub(gone_ns),
            high_ns: Some(downtime.high_ns.saturating_sub(gone_ns)),
            dirty_rate_known: true,
        }
    }

    fn evidence(&self, last: &Reading, facts: &Facts) -> Evidence {
        let busy = facts.destination.filter(|destination| destination.window_ns > 0).map(
            |DestinationFacts { busy_ns, window_ns, .. }| {
                (seconds(busy_ns) / seconds(window_ns)).min(1.0)
            },
        );
        Evidence {
            remaining_bytes: last.remaining_bytes,
            stop_copy_bytes: last.stop_copy_bytes,
            initial_bytes: last.initial_bytes,
            downtime_budget_ns: facts.downtime_budget_ns,
            stuck_ns: shown(self.progress.stuck_for(last.at_ns)),
            no_end_in_sight: self.hopeless.mostly(),
            still_ns: shown(self.progress.still_for(last.at_ns)),
            undrained_ns: shown(self.progress.undrained_for(last.at_ns)),
            reinits: facts.reinits,
            destination_busy: busy,
            destination_backlog_bytes: facts
                .destination
                .and_then(|destination| destination.backlog_bytes),
        }
    }
}

/// Whether less may have moved than could have, since all that there was before the stop has gone: a source that waits
/// says nothing of its link, and taken for a slow one its devices' stop part would seem too large. One that had nothing to give may
/// have nothing yet, as long as nothing comes.
fn starved(last: &Reading, moved: u64) -> bool {
    let empty = last.phase == Phase::PreCopy && last.empty_answers > 0 && moved == 0;
    empty || movable(last).is_some_and(|left| left <= moved)
}

/// What is left and can move in the present phase.
fn movable(reading: &Reading) -> Option<u64> {
    let stop_copy = match reading.phase {
        Phase::PreCopy => reading.stop_copy_bytes.unwrap_or(0),
        Phase::Stopped => 0,
    };
    reading.remaining_bytes.map(|left| left.saturating_sub(stop_copy))
}

/// Whether a device that runs was seen to have nothing more to give before it stands.
fn is_drained(reading: &Reading) -> bool {
    reading.phase == Phase::PreCopy && reading.empty_answers > 0 && movable(reading) == Some(0)
}

/// How much more `later` is; `None` if either is unknown or it is less.
fn difference(later: Option<u64>, earlier: Option<u64>) -> Option<u64> {
    later?.checked_sub(earlier?)
}

#[cfg(test)]
mod tests;
