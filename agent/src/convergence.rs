// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Convergence: whether a migration comes to an end, when, how long the guest will be down, and if not, why.
//!
//! ```text
//!                   ┌─▶ rate: throughput, dirty rate ─┐
//!   reading ────────┼─▶ curve: U(W), what syncs found ┼─▶ forecast: the passes to come ─▶ remaining, downtime ─┐
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
mod progress;
mod rate;
mod reading;
mod reason;

pub use assessment::{Assessment, Downtime, Evidence, FixedFrom, Remaining, Verdict};
pub use baseline::{Baselines, Prediction};
pub use downtime::ASSUMED_TRANSITIONS_NS;
pub use rate::Rate;
pub use reading::{DEFAULT_DOWNTIME_BUDGET_NS, DestinationFacts, Facts, Phase, Reading, Tracking};
pub use reason::Reason;

use baseline::{geometric::Geometric, kubevirt::KubeVirt, qemu::Qemu};
use curve::{Curve, Fit};
use diagnosis::{Signs, shown};
use downtime::Rest;
use forecast::{Course, Standing};
use progress::Progress;
use rate::{Fading, nanoseconds, seconds};

/// Time in which the throughput forgets, in seconds: QEMU's 100 ms swing with the link, and a migration has minutes.
const THROUGHPUT_S: f64 = 4.0;
/// Time in which the dirty rate forgets, in seconds: some passes.
const DIRTY_S: f64 = 10.0;
/// Dirty rate over throughput before anybody told: most migrations converge well.
const ASSUMED_RATIO: f64 = 0.3;
/// How much of a rate that was told in windows shorter than a pass goes where pages are written again: the ratio r of a
/// report becomes r/(1 + REPEATED·r) over a pass.
const REPEATED: f64 = 1.0;
/// Shares to which the dirty rate must fall where no course comes to an end: the first with which one does.
const LULLS: [f64; 3] = [0.5, 0.3, 0.15];
/// How far off the mean throughput of the rest may lie if that of single readings does not swing at all.
const LEAST_ERROR: f64 = 0.02;
/// Readings swing more than the mean of the time that is left does: the share of their spread that the band takes.
const OF_READINGS: f64 = 0.6;
/// How far off the logarithm of the dirty rate may lie (standard deviation) if all passes were alike,
const LEAST_DIRTY_ERROR: f64 = 0.05;
/// if there was only one,
const FEW_PASSES: f64 = 0.4;
/// if only reports between syncs were seen,
const REPORTS_ERROR: f64 = 0.5;
/// and if nobody told anything.
const ASSUMED_ERROR: f64 = 0.6;
/// Standard deviations at which the courses are followed: the middles of seven parts of a normal distribution that are as
/// likely.
const QUANTILES: [f64; 7] = [-1.465, -0.792, -0.366, 0.0, 0.366, 0.792, 1.465];
/// Standard deviations of the band, for eight of ten to lie within: fewer than the 1.28 of a normal distribution, since
/// the link's error is added to that of the dirty rate at its worst.
const BAND: f64 = 1.1;

/// Follows one source.
#[derive(Clone, Debug)]
pub struct Estimator {
    first_ns: Option<u64>,
    last: Option<Reading>,
    throughput: Fading,
    drain: Fading,
    dirty: Fading,
    /// Sum of the windows in which dirty pages were told, fading as they do.
    windows: Fading,
    /// Dirty bytes told between syncs, and the windows of that.
    reports: Fading,
    report_windows: Fading,
    curve: Curve,
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
            drain: Fading::new(THROUGHPUT_S),
            dirty: Fading::new(DIRTY_S),
            windows: Fading::new(DIRTY_S),
            reports: Fading::new(DIRTY_S),
            report_windows: Fading::new(DIRTY_S),
            unsent_s: None,
            curve: Curve::default(),
            pass_began_ns: 0,
            pass_dirtied: None,
            told_ns: 0,
            stopped_ns: None,
            syncs: 0,
            total: None,
            progress: Progress::default(),
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
        if let Some(bytes) = moved
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
        if syncs > 0 || told.is_some_and(|bytes| bytes > 0) {
            let window = seconds(reading.at_ns.saturating_sub(self.told_ns));
            if let Some(bytes) = told {
                self.dirty.add(bytes as f64, window);
                self.windows.add(window * window / (syncs.max(1) as f64), window);
                if syncs == 0 {
                    self.reports.add(bytes as f64, window);
                    self.report_windows.add(window * window, window);
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
            if let Some((rate, window)) = self.reports.rate().zip(self.report_windows.rate()) {
                self.curve.reports(window, rate * window, at);
            }
            self.curve.add(window, bytes, at);
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

    /// What follows from the readings so far; `None` before the first.
    pub fn assess(&self, facts: &Facts) -> Option<Assessment> {
        let last = self.last.as_ref()?;
        let throughput = self.throughput.rate().filter(|rate| *rate > 0.0);
        let dirty = self.dirty_rate();
        let ratio = dirty
            .zip(throughput)
            .map(|(dirty, throughput)| dirty.bytes_per_second / throughput)
            .filter(|ratio| ratio.is_finite());
        let standing = throughput.and_then(|rate| self.standing(last, facts, rate));
        let course = standing.as_ref().and_then(Standing::follow);
        let evidence = self.evidence(last, facts);
        let signs = Signs {
            phase: last.phase,
            facts,
            evidence: &evidence,
            throughput,
            ratio,
            ends: standing.filter(|_| self.dirty_known().is_some()).map(|_| course.is_some()),
            total: self.total.map(|bytes| bytes as f64),
            syncs: self.syncs,
        };
        let blocked = signs.reasons();
        let verdict = signs.verdict(&blocked);
        let downtime = self.downtime(last, facts, standing.as_ref(), course);
        let remaining = match last.phase {
            Phase::Stopped => downtime.map(|downtime| self.rest_of(last, downtime)),
            Phase::PreCopy => standing
                .filter(|_| verdict != Verdict::NotConverging)
                .zip(downtime)
                .and_then(|(standing, downtime)| {
                    let gone_ns = last.at_ns.saturating_sub(self.first_ns.unwrap_or(last.at_ns));
                    self.remaining(&standing, downtime, seconds(gone_ns))
                }),
        };
        Some(Assessment {
            at_ns: last.at_ns,
            throughput: throughput.map(|bytes_per_second| Rate {
                bytes_per_second,
                window_ns: nanoseconds(self.throughput.window()),
            }),
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

    fn dirty_rate(&self) -> Option<Rate> {
        // The mean window, longer ones counting as much more as they are longer.
        let window = self.windows.rate()?;
        Some(Rate { bytes_per_second: self.dirty.rate()?, window_ns: nanoseconds(window) })
    }

    /// The curve; before the first sync, the rate of the reports that came between syncs.
    fn dirty_known(&self) -> Option<Fit> {
        let reported = || {
            let (rate, throughput) = self.reports.rate().zip(self.throughput.rate())?;
            let often = if throughput > 0.0 { 1.0 + REPEATED * rate / throughput } else { 1.0 };
            Some(Fit::constant(rate / often, self.reports.spread()))
        };
        self.curve.fit().or_else(reported)
    }

    fn standing(&self, last: &Reading, facts: &Facts, throughput: f64) -> Option<Standing> {
        let remaining = last.remaining_bytes? as f64;
        let stop_copy = (last.stop_copy_bytes.unwrap_or(0) as f64).min(remaining);
        let budget = seconds(facts.downtime_budget_ns);
        let drain = match self.syncs {
            0 => self.drain.rate().unwrap_or(throughput),
            _ => throughput,
        };
        Some(Standing {
            left: remaining - stop_copy,
            stop_copy,
            throughput,
            drain,
            curve: self
                .dirty_known()
                .unwrap_or_else(|| Fit::constant(ASSUMED_RATIO * throughput, 0.0)),
            age: seconds(last.at_ns.saturating_sub(self.pass_began_ns)),
            budget,
            total: self.total.unwrap_or(0) as f64,
            leaves: match self.unsent_s {
                Some(unsent_s) if budget > 0.0 => (unsent_s / budget).min(1.0),
                _ => 1.0,
            },
        })
    }

    fn throughput_error(&self) -> f64 {
        LEAST_ERROR + OF_READINGS * self.throughput.spread().min(1.0)
    }

    /// The courses for more and less dirt. The number that is expected is the one with the least expected *relative*
    /// error of the whole time: the median of the courses, each weighted with one over its whole time (Gneiting, "Making
    /// and evaluating point forecasts", JASA 2011: the (−1)-median). The band takes the outermost with a better and a worse link.
    fn remaining(&self, standing: &Standing, downtime: Downtime, gone: f64) -> Option<Remaining> {
        let known = self.dirty_known();
        let dirt = self.dirty_error();
        let error = self.throughput_error().min(0.9);
        let follow = |faster: f64, quantile: f64| {
            standing.with(faster, (dirt * quantile).exp()).follow().map(|course| course.until_stop)
        };
        let mut times: [Option<f64>; QUANTILES.len()] = QUANTILES.map(|at| follow(1.0, at));
        times.sort_by(|a, b| a.unwrap_or(f64::INFINITY).total_cmp(&b.unwrap_or(f64::INFINITY)));
        let weight = |time: f64| 1.0 / (gone + time + seconds(downtime.expected_ns)).max(1e-3);
        let half = times.iter().flatten().map(|time| weight(*time)).sum::<f64>() / 2.0;
        let mut sum = 0.0;
        let expected = times.into_iter().flatten().find(|time| {
            sum += weight(*time);
            sum >= half
        });
        let lull =
            || LULLS.iter().find_map(|lull| Some(standing.with(1.0, *lull).follow()?.until_stop));
        let expected = expected.or_else(lull)?;
        let until = |time: f64, downtime_ns: u64| nanoseconds(time).saturating_add(downtime_ns);
        let expected_ns = until(expected, downtime.expected_ns);
        let low = match known {
            Some(_) => follow(1.0 + error, -BAND),
            // Nobody has said that anything is dirtied at all.
            None => follow(1.0 + error, f64::NEG_INFINITY),
        }
        .unwrap_or(0.0);
        let high = follow(1.0 - error, BAND);
        Some(Remaining {
            expected_ns,
            low_ns: until(low, downtime.low_ns).min(expected_ns),
            high_ns: high.map(|time| until(time, downtime.high_ns).max(expected_ns)),
            dirty_rate_known: known.is_some(),
        })
    }

    /// Standard deviation of the logarithm of the dirty rate to come: what passes differ by, and what so few may hide.
    fn dirty_error(&self) -> f64 {
        match self.curve.fit() {
            Some(fit) => {
                let few = FEW_PASSES / (fit.passes.max(1) as f64).sqrt();
                (fit.spread * fit.spread + few * few + LEAST_DIRTY_ERROR * LEAST_DIRTY_ERROR).sqrt()
            }
            None if self.reports.rate().is_some() => REPORTS_ERROR,
            None => ASSUMED_ERROR,
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
            error: LEAST_ERROR + self.throughput.spread(),
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
/// says nothing of its link, and taken for a slow one its devices' stop part would seem too large.
fn starved(last: &Reading, moved: u64) -> bool {
    let movable = |left: u64| match last.phase {
        Phase::PreCopy => left.saturating_sub(last.stop_copy_bytes.unwrap_or(0)),
        Phase::Stopped => left,
    };
    last.remaining_bytes.is_some_and(|left| movable(left) <= moved)
}

/// How much more `later` is; `None` if either is unknown or it is less.
fn difference(later: Option<u64>, earlier: Option<u64>) -> Option<u64> {
    later?.checked_sub(earlier?)
}

#[cfg(test)]
mod tests;
