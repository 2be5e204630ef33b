// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The source's VMM: passes, syncs, and the decision to stop.

use super::device::Device;
use super::link::{self, Link};
use super::load::{self, Writer};
use super::pages::{PAGE, Pages};
use super::whole;
use crate::trace::Outcome;
use fastrand::Rng;
use migscope::convergence::{Phase, Reading};

const STEP_S: f64 = 0.001;
/// A reading each.
const READING_S: f64 = 0.1;
/// The bandwidth that decisions are made with is that of so many steps: QEMU's `BUFFER_DELAY`, 100 ms.
const BANDWIDTH_STEPS: usize = 100;
/// Longest stretch of sending without a look at what is left: QEMU's `MAX_WAIT`, 50 ms.
const ROUND_S: f64 = 0.05;
/// What a page takes that is all zero: its address and a flag.
const ZERO_BYTES: f64 = 9.0;
/// The share of the link that devices have while they have something.
const DEVICE_SHARE: f64 = 0.15;

/// When it looks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// When what it knows of would fit into the downtime.
    Estimate,
    /// When it has sent all that it knows of.
    FullPass,
}

/// What is told of dirty pages, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Told {
    /// At each sync only: a dirty bitmap.
    AtSyncs,
    /// Every so many seconds besides: a dirty ring that is emptied, or queries of the device's log.
    Every(f64),
}

impl Told {
    /// Whether there is more than what syncs find.
    pub(crate) fn between_syncs(self) -> bool {
        matches!(self, Self::Every(_))
    }
}

/// A migration before it begins.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) pages: usize,
    /// Share of the pages that are all zero, in stretches of 2 MiB.
    pub(crate) zero_share: f64,
    pub(crate) writers: Vec<Writer>,
    pub(crate) link: Link,
    pub(crate) device: Device,
    pub(crate) style: Style,
    pub(crate) told: Told,
    /// Everybody says that every page is dirty.
    pub(crate) all_dirty: bool,
    /// The VMM could not learn the stop-copy size and takes it for this.
    pub(crate) assumed_stop_copy: Option<u64>,
    pub(crate) budget_s: f64,
    pub(crate) limit_s: f64,
}

/// A migration under way.
#[derive(Clone)]
pub(super) struct Vmm<'a> {
    scenario: &'a Scenario,
    rng: Rng,
    link: link::Running,
    writers: Vec<load::Running>,
    to_send: Pages,
    log: Pages,
    /// Pages reported since the last report, where there are reports between syncs.
    report: Option<Pages>,
    zero: Pages,
    cursor: usize,
    device_left: f64,
    initial_left: f64,
    credit: f64,
    moved: f64,
    recent: [f64; BANDWIDTH_STEPS],
    step: usize,
    now_s: f64,
    dirtied: u64,
    last_sync: Option<u64>,
    synced_s: f64,
    syncs: u64,
    next_round_s: f64,
    next_report_s: f64,
    next_reading_s: f64,
    readings: Vec<Reading>,
}

/// Runs it. Gives what an observer would have read, and how it ended.
pub(crate) fn run(scenario: &Scenario, seed: u64) -> (Vec<Reading>, Outcome) {
    Vmm::new(scenario, Rng::with_seed(seed)).finish()
}

impl<'a> Vmm<'a> {
    pub(super) fn new(scenario: &'a Scenario, mut rng: Rng) -> Self {
        const STRETCH: usize = 512;
        let mut zero = Pages::none(scenario.pages);
        for stretch in 0..scenario.pages / STRETCH {
            if rng.f64() < scenario.zero_share {
                (0..STRETCH).for_each(|page| zero.insert(stretch * STRETCH + page));
            }
        }
        let initial = scenario.device.initial_bytes as f64;
        Self {
            scenario,
            link: link::Running::new(scenario.link.clone()),
            writers: scenario.writers.iter().cloned().map(load::Running::new).collect(),
            to_send: Pages::all(scenario.pages),
            log: Pages::none(scenario.pages),
            report: match scenario.told {
                Told::AtSyncs => None,
                Told::Every(_) => Some(Pages::none(scenario.pages)),
            },
            zero,
            cursor: 0,
            device_left: initial,
            initial_left: initial,
            credit: 0.0,
            moved: 0.0,
            recent: [0.0; BANDWIDTH_STEPS],
            step: 0,
            now_s: 0.0,
            dirtied: 0,
            last_sync: None,
            synced_s: 0.0,
            syncs: 0,
            next_round_s: 0.0,
            next_report_s: 0.0,
            next_reading_s: 0.0,
            readings: Vec::new(),
            rng,
        }
    }

    /// To the end.
    pub(super) fn finish(mut self) -> (Vec<Reading>, Outcome) {
        let Some(stopped_s) = self.pre_copy(self.scenario.limit_s) else {
            return (
                self.readings,
                Outcome { converged: false, total_ns: None, downtime_ns: None },
            );
        };
        self.stop();
        let ns = |seconds: f64| Some(whole(seconds * 1e9));
        let outcome = Outcome {
            converged: true,
            total_ns: ns(self.now_s),
            downtime_ns: ns(self.now_s - stopped_s),
        };
        (self.readings, outcome)
    }

    /// Until the device stops; gives the moment, unless `until_s` comes first.
    pub(super) fn pre_copy(&mut self, until_s: f64) -> Option<f64> {
        while self.now_s < until_s {
            self.read(Phase::PreCopy);
            self.write();
            self.reported();
            self.send();
            self.now_s += STEP_S;
            if self.looks() && self.decides() {
                return Some(self.now_s);
            }
        }
        None
    }

    /// Until it has looked `syncs` times; gives whether it has, and goes on.
    pub(super) fn look(&mut self, syncs: u64) -> bool {
        while self.syncs < syncs && self.now_s < self.scenario.limit_s {
            if self.pre_copy(self.now_s + STEP_S).is_some() {
                return false;
            }
        }
        self.syncs == syncs
    }

    /// What the last look found, in bytes, and when that was.
    pub(super) fn last_look(&self) -> Option<(u64, f64)> {
        Some((self.last_sync?, self.synced_s))
    }

    /// How often it has looked.
    pub(super) fn looks_so_far(&self) -> u64 {
        self.syncs
    }

    /// What it has yet to send of what it knows of, in bytes.
    pub(super) fn left(&self) -> f64 {
        self.to_send.bytes() as f64 + self.device_left
    }

    /// Another future of the same migration: what is drawn from now on is drawn from `rng`.
    pub(super) fn diverge(&mut self, mut rng: Rng) {
        for writer in &mut self.writers {
            writer.forget(self.now_s, &mut rng);
        }
        self.rng = rng;
    }

    /// The writers, whose future may be changed.
    pub(super) fn writers(&mut self) -> &mut [load::Running] {
        &mut self.writers
    }

    /// Seconds since its beginning.
    pub(super) fn now_s(&self) -> f64 {
        self.now_s
    }

    fn write(&mut self) {
        let mut logs = vec![&mut self.log];
        logs.extend(self.report.as_mut());
        for writer in &mut self.writers {
            writer.step(self.now_s, STEP_S, &mut self.rng, &mut logs);
        }
        self.device_left += self.scenario.device.stale_bytes_per_s * STEP_S;
    }

    fn reported(&mut self) {
        if let (Told::Every(period_s), Some(report)) = (self.scenario.told, &mut self.report)
            && self.now_s >= self.next_report_s
        {
            self.next_report_s = self.now_s + period_s;
            self.dirtied += report.bytes();
            report.clear();
        }
    }

    fn send(&mut self) {
        let bytes = self.link.step(self.now_s, STEP_S, &mut self.rng);
        let mut used = 0.0;
        let device = (bytes * DEVICE_SHARE).min(self.device_left);
        self.device_left -= device;
        self.initial_left = (self.initial_left - device).max(0.0);
        used += device;
        self.credit += bytes - device;
        while self.credit > 0.0 {
            let Some(page) = self.to_send.next(self.cursor) else {
                // What the link could have carried is gone; devices may have it.
                let more = self.credit.min(self.device_left);
                self.device_left -= more;
                self.initial_left = (self.initial_left - more).max(0.0);
                used += more;
                self.credit = 0.0;
                break;
            };
            self.to_send.remove(page);
            self.cursor = page;
            let zero = self.zero.contains(page) && !self.log.contains(page);
            let cost = if zero { ZERO_BYTES } else { PAGE as f64 };
            self.zero.remove(page);
            self.credit -= cost;
            used += cost;
        }
        self.moved += used;
        self.recent[self.step % BANDWIDTH_STEPS] = used;
        self.step += 1;
    }

    /// What fits into the downtime, as the VMM sees it.
    fn fits(&self) -> f64 {
        let steps = self.step.clamp(1, BANDWIDTH_STEPS);
        let per_step = self.recent.iter().sum::<f64>() / steps as f64;
        per_step / STEP_S * self.scenario.budget_s
    }

    fn looks(&mut self) -> bool {
        if self.now_s < self.next_round_s && !self.to_send.is_empty() {
            return false;
        }
        self.next_round_s = self.now_s + ROUND_S;
        let known = self.to_send.bytes() as f64 + self.device_left;
        match self.scenario.style {
            Style::Estimate => known <= self.fits(),
            Style::FullPass => self.to_send.is_empty(),
        }
    }

    /// Looks at what was dirtied, and whether it can stop.
    fn decides(&mut self) -> bool {
        if self.scenario.all_dirty {
            self.log = Pages::all(self.scenario.pages);
        }
        let found = self.log.bytes();
        self.syncs += 1;
        self.last_sync = Some(found);
        self.synced_s = self.now_s;
        if self.report.is_none() {
            self.dirtied += found;
        }
        self.zero.subtract(&self.log);
        self.to_send.take(&mut self.log);
        let stop_copy = match self.scenario.assumed_stop_copy {
            Some(assumed) => assumed,
            None if self.scenario.device.size_told => self.scenario.device.stop_copy_bytes,
            None => 0,
        };
        let left = self.to_send.bytes() as f64 + self.device_left + stop_copy as f64;
        left <= self.fits() && self.initial_left <= 0.0
    }

    fn stop(&mut self) {
        let Device { stop_copy_bytes, transitions_s, load_s, .. } = self.scenario.device;
        self.wait(transitions_s);
        self.device_left += stop_copy_bytes as f64;
        while self.device_left > 0.0 || !self.to_send.is_empty() {
            self.read(Phase::Stopped);
            self.send();
            self.now_s += STEP_S;
        }
        self.wait(load_s);
    }

    fn wait(&mut self, seconds: f64) {
        let until_s = self.now_s + seconds;
        while self.now_s < until_s {
            self.read(Phase::Stopped);
            self.now_s += STEP_S;
        }
    }

    fn read(&mut self, phase: Phase) {
        if self.now_s < self.next_reading_s {
            return;
        }
        self.next_reading_s += READING_S + 0.005 * (self.rng.f64() - 0.5);
        let device = &self.scenario.device;
        let told = device.size_told && phase == Phase::PreCopy;
        let stop_copy = told.then_some(device.stop_copy_bytes);
        let known = self.to_send.bytes() + whole(self.device_left) + stop_copy.unwrap_or(0);
        self.readings.push(Reading {
            at_ns: whole(self.now_s * 1e9),
            phase,
            moved_bytes: Some(whole(self.moved)),
            remaining_bytes: Some(known),
            stop_copy_bytes: stop_copy,
            initial_bytes: Some(whole(self.initial_left.ceil())),
            dirtied_bytes: Some(self.dirtied),
            last_sync_bytes: self.last_sync,
            iteration: self.syncs,
            ..Reading::unknown(0, phase)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::{Order, Rhythm, writes_per_s};
    use super::*;

    const MIB: f64 = 1_048_576.0;

    /// 256 MiB over 100 MiB/s, without noise; `dirty` is what is written, as a share of the link.
    fn scenario(style: Style, dirty: f64) -> Scenario {
        let pages = 65_536;
        Scenario {
            pages,
            zero_share: 0.0,
            writers: vec![Writer {
                first_page: 0,
                pages,
                order: Order::Sequential,
                writes_per_s: writes_per_s(dirty * 100.0 * MIB),
                rhythm: Rhythm::Steady,
            }],
            link: Link { bytes_per_s: 100.0 * MIB, noise: 0.0, memory_s: 1.0, dips_per_s: 0.0 },
            device: Device::default(),
            style,
            told: Told::AtSyncs,
            all_dirty: false,
            assumed_stop_copy: None,
            budget_s: 0.3,
            limit_s: 60.0,
        }
    }

    fn seconds(ns: Option<u64>) -> f64 {
        ns.unwrap() as f64 / 1e9
    }

    #[test]
    fn an_idle_machine_takes_its_memory_over_the_link() {
        for style in [Style::Estimate, Style::FullPass] {
            let (readings, outcome) = run(&scenario(style, 0.0), 1);
            assert!((seconds(outcome.total_ns) - 2.56).abs() < 0.02, "{style:?}: {outcome:?}");
            let last = readings.last().unwrap();
            assert!(last.moved_bytes.unwrap() <= 256 << 20);
        }
    }

    #[test]
    fn one_that_writes_new_pages_at_half_the_speed_takes_twice_as_long() {
        for style in [Style::Estimate, Style::FullPass] {
            let (_, outcome) = run(&scenario(style, 0.5), 1);
            assert!((seconds(outcome.total_ns) - 5.12).abs() < 0.3, "{style:?}: {outcome:?}");
            assert!(seconds(outcome.downtime_ns) < 0.35, "{style:?}: {outcome:?}");
        }
    }

    #[test]
    fn one_that_writes_faster_than_the_link_never_ends() {
        let (readings, outcome) = run(&scenario(Style::Estimate, 1.2), 1);
        assert!(!outcome.converged);
        assert!(readings.iter().all(|reading| reading.phase == Phase::PreCopy));
    }

    #[test]
    fn a_device_adds_its_stop_part_and_its_times_to_the_downtime() {
        let mut with_device = scenario(Style::FullPass, 0.0);
        let (_, alone) = run(&with_device, 1);
        with_device.device = Device {
            stop_copy_bytes: 20 << 20,
            size_told: true,
            transitions_s: 0.1,
            load_s: 0.2,
            ..Device::default()
        };
        let (readings, together) = run(&with_device, 1);
        let more = seconds(together.downtime_ns) - seconds(alone.downtime_ns);
        assert!((more - 0.5).abs() < 0.01, "{more}");
        assert_eq!(readings[0].stop_copy_bytes, Some(20 << 20));
    }

    #[test]
    fn a_stop_part_that_does_not_fit_and_an_unknown_one_keep_it_from_ending() {
        let mut too_large = scenario(Style::Estimate, 0.0);
        too_large.device =
            Device { stop_copy_bytes: 31 << 20, size_told: true, ..Device::default() };
        assert!(!run(&too_large, 1).1.converged);
        let mut assumed = scenario(Style::Estimate, 0.0);
        assumed.assumed_stop_copy = Some(100 << 30);
        assert!(!run(&assumed, 1).1.converged);
    }

    #[test]
    fn what_was_written_is_what_a_sync_finds_and_a_seed_gives_the_same_again() {
        let (readings, _) = run(&scenario(Style::FullPass, 0.5), 7);
        let synced = readings.iter().find(|reading| reading.iteration == 1).unwrap();
        let found = synced.last_sync_bytes.unwrap() as f64 / MIB;
        assert!((found - 128.0).abs() < 2.0, "{found}");
        assert_eq!(synced.dirtied_bytes, synced.last_sync_bytes);
        assert_eq!(run(&scenario(Style::FullPass, 0.5), 7).0, readings);
    }
}
