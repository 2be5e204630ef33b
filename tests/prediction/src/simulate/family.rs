// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The families of migrations: what kind of load there is, and from which ranges everything is drawn.
//!
//! What is tuned is tuned on [`Split::Train`]. [`Split::HeldOut`], which the benchmark reports, has other seeds, wider
//! ranges, and rhythms of another shape.

use super::device::Device;
use super::link::Link;
use super::load::{Order, Rhythm, Writer, writes_per_s};
use super::vmm::{self, Scenario, Style, Told};
use super::whole;
use crate::trace::Trace;
use clap::ValueEnum;
use fastrand::Rng;
use migscope::convergence::{DestinationFacts, Facts, Tracking};

const MIB: f64 = 1_048_576.0;
const PAGES_A_MIB: f64 = 256.0;

/// Which half of the migrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Split {
    /// For tuning.
    Train,
    /// For measuring.
    HeldOut,
}

/// What the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Family {
    /// Writes at one rate, anywhere in its working set.
    Steady,
    /// Short bursts.
    Bursty,
    /// Some seconds of this, some seconds of that.
    Phased,
    /// A few pages over and over, and some here and there.
    WriteHotSet,
    /// Above what the link can do and below it in turn, and it comes to an end.
    OscillatingButConverging,
    /// It does not come to an end: too dirty, a hot set or a stop part too large, no size, or no tracking.
    NeverConverging,
}

/// Draws from ranges.
struct Draw {
    rng: Rng,
    split: Split,
}

impl Draw {
    /// From a range whose ends are magnitudes: as likely between 1 and 2 as between 2 and 4.
    fn size(&mut self, low: f64, high: f64) -> f64 {
        let (low, high) = match self.split {
            Split::Train => (low, high),
            Split::HeldOut => (low / 1.5, high * 1.5),
        };
        low * (high / low).powf(self.rng.f64())
    }

    /// From a range of shares, evenly.
    fn share(&mut self, low: f64, high: f64) -> f64 {
        let (low, high) = match self.split {
            Split::Train => (low, high),
            Split::HeldOut => (low * 0.7, high * 1.1),
        };
        low + (high - low) * self.rng.f64()
    }

    fn chance(&mut self, share: f64) -> bool {
        self.rng.f64() < share
    }

    /// Some phases, and one that lasts.
    fn phases(&mut self) -> Vec<(f64, f64)> {
        let count = 2 + self.rng.usize(0..4);
        let mut phases: Vec<_> =
            (0..count).map(|_| (self.size(3.0, 12.0), self.share(0.05, 1.2))).collect();
        phases.push((0.0, self.share(0.05, 0.6)));
        phases
    }

    fn held_out(&self) -> bool {
        self.split == Split::HeldOut
    }
}

impl Family {
    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Bursty => "bursty",
            Self::Phased => "phased",
            Self::WriteHotSet => "write_hot_set",
            Self::OscillatingButConverging => "oscillating_but_converging",
            Self::NeverConverging => "never_converging",
        }
    }

    /// Whether its migrations come to an end.
    pub(crate) fn converges(self) -> bool {
        self != Self::NeverConverging
    }

    /// Migration number `seed` of the family.
    pub(crate) fn simulate(self, split: Split, seed: u64) -> Trace {
        let (scenario, facts) = self.scenario(split, seed);
        let (readings, outcome) = vmm::run(&scenario, self.stream(split, seed));
        Trace::new(format!("{}-{seed}", self.name()), facts, outcome, readings)
    }

    /// The seed of everything that is drawn for it.
    pub(super) fn stream(self, split: Split, seed: u64) -> u64 {
        (self as u64) << 40 | u64::from(split == Split::HeldOut) << 39 | seed
    }

    /// What was drawn for it before it begins, and what is known of that beside the readings.
    pub(super) fn scenario(self, split: Split, seed: u64) -> (Scenario, Facts) {
        let mut draw = Draw { rng: Rng::with_seed(self.stream(split, seed)), split };
        let mut scenario = scenario(&mut draw);
        let mut facts = Facts { tracking: Tracking::PerPage, ..Facts::default() };
        self.load(&mut draw, &mut scenario, &mut facts);
        if let Some(factor) = scenario.device.seen_before {
            let ns = |seconds: f64| whole(seconds * factor * 1e9);
            facts.transitions_ns = Some(ns(scenario.device.transitions_s));
            facts.destination = Some(DestinationFacts {
                load_ns: Some(ns(scenario.device.load_s)),
                ..DestinationFacts::default()
            });
        }
        facts.downtime_budget_ns = whole(scenario.budget_s * 1e9);
        (scenario, facts)
    }

    /// The load of another migration that comes to an end, of any family, with all else as in `scenario`.
    pub(super) fn any_load(split: Split, seed: u64, scenario: &Scenario) -> Vec<Writer> {
        let mut draw = Draw { rng: Rng::with_seed(seed), split };
        let mut families = Self::value_variants().to_vec();
        families.retain(|family| family.converges());
        let family = draw.rng.choice(families).expect("most families converge");
        let mut other = scenario.clone();
        family.load(&mut draw, &mut other, &mut Facts::default());
        other.writers
    }

    fn load(self, draw: &mut Draw, scenario: &mut Scenario, facts: &mut Facts) {
        let link = scenario.link.bytes_per_s;
        let all = scenario.pages;
        let part = |draw: &mut Draw, low, high| share_of(all, draw.share(low, high));
        // A rate as a share of the link's.
        let rate = |share: f64| writes_per_s(share * link);
        let writer = |pages: usize, writes_per_s: f64, rhythm: Rhythm| Writer {
            first_page: 0,
            pages,
            order: Order::Random,
            writes_per_s,
            rhythm,
        };
        let writers = match self {
            Self::Steady => {
                let (pages, share) = (part(draw, 0.2, 1.0), draw.share(0.02, 0.75));
                let mut writer = writer(pages, rate(share), Rhythm::Steady);
                if draw.chance(0.3) {
                    writer.order = Order::Sequential;
                }
                vec![writer]
            }
            Self::Bursty => {
                let (pages, share) = (part(draw, 0.2, 1.0), draw.share(0.05, 0.6));
                let (period_s, duty) = (draw.size(0.4, 3.0), draw.share(0.15, 0.5));
                let rhythm = if draw.held_out() {
                    let (mean_on_s, mean_off_s) = (duty * period_s, (1.0 - duty) * period_s);
                    Rhythm::Bursts { mean_on_s, mean_off_s, low: 0.1, high: 1.0 / duty }
                } else {
                    Rhythm::Square { period_s, duty, low: 0.1, high: 1.0 / duty }
                };
                vec![writer(pages, rate(share), rhythm)]
            }
            Self::Phased => {
                let pages = part(draw, 0.3, 1.0);
                vec![writer(pages, rate(1.0), Rhythm::Phases(draw.phases()))]
            }
            Self::WriteHotSet => {
                // Up to four fifths of what fits into the downtime, written many times a second.
                let fits = link * scenario.budget_s / 4096.0;
                let hot = share_of(whole_pages(fits), draw.share(0.05, 0.6)).max(64);
                let often = hot as f64 * draw.size(2.0, 20.0);
                let cold = draw.share(0.01, 0.3);
                let mut hot = writer(hot.min(all), often.min(rate(4.0)), Rhythm::Steady);
                hot.first_page = all / 3;
                hot.pages = hot.pages.min(all - hot.first_page);
                vec![hot, writer(all, rate(cold), Rhythm::Steady)]
            }
            Self::OscillatingButConverging => {
                let pages = part(draw, 0.4, 1.0);
                let (period_s, low, high) =
                    (draw.size(3.0, 16.0), draw.share(0.1, 0.5), draw.share(1.1, 2.0));
                let rhythm = if draw.held_out() {
                    Rhythm::Sine { period_s, low, high }
                } else {
                    Rhythm::Square { period_s, duty: draw.share(0.3, 0.6), low, high }
                };
                vec![writer(pages, rate(1.0), rhythm)]
            }
            Self::NeverConverging => never(draw, scenario, facts),
        };
        scenario.writers = writers;
    }
}

/// The phases that were seen until `at_s`, the last one without its end, and others after them: drawn until they agree with
/// what was seen, the factor of the present phase to within [`AGREES`].
pub(super) fn other_phases(
    split: Split,
    seed: u64,
    phases: &[(f64, f64)],
    at_s: f64,
) -> Vec<(f64, f64)> {
    /// Narrow beside the range that factors are drawn from, and wide enough to be met in some dozen draws.
    const AGREES: f64 = 0.03;
    let mut draw = Draw { rng: Rng::with_seed(seed), split };
    let mut began_s = 0.0;
    let ended = phases.iter().take_while(|(seconds, _)| {
        let ended = began_s + seconds <= at_s;
        began_s += if ended { *seconds } else { 0.0 };
        ended
    });
    let present = ended.count().min(phases.len() - 1);
    loop {
        let mut other = draw.phases();
        let last = other.len() - 1;
        let agrees = other.get(present).is_some_and(|(seconds, factor)| {
            (present == last || began_s + seconds > at_s)
                && (factor - phases[present].1).abs() < AGREES
        });
        if agrees {
            other[..present].copy_from_slice(&phases[..present]);
            other[present].1 = phases[present].1;
            return other;
        }
    }
}

/// One of the ways not to come to an end.
fn never(draw: &mut Draw, scenario: &mut Scenario, facts: &mut Facts) -> Vec<Writer> {
    let link = scenario.link.bytes_per_s;
    let fits = link * scenario.budget_s;
    scenario.limit_s = 90.0;
    let idle = Writer {
        first_page: 0,
        pages: scenario.pages,
        order: Order::Random,
        writes_per_s: writes_per_s(draw.share(0.02, 0.3) * link),
        rhythm: Rhythm::Steady,
    };
    match draw.rng.usize(0..5) {
        0 => vec![Writer { writes_per_s: writes_per_s(draw.share(1.3, 3.0) * link), ..idle }],
        1 => {
            let pages = whole_pages(fits * draw.share(1.5, 4.0) / 4096.0).min(scenario.pages);
            vec![Writer { pages, writes_per_s: writes_per_s(draw.share(2.0, 4.0) * link), ..idle }]
        }
        2 => {
            scenario.device.size_told = true;
            scenario.device.stop_copy_bytes = whole(fits * draw.share(1.3, 4.0));
            scenario.style = Style::Estimate;
            vec![idle]
        }
        3 => {
            scenario.assumed_stop_copy = Some(100 << 30);
            scenario.device.size_told = false;
            facts.size_query_failed = true;
            vec![idle]
        }
        _ => {
            scenario.all_dirty = true;
            facts.tracking = Tracking::AllDirty;
            vec![idle]
        }
    }
}

/// Everything but the load.
fn scenario(draw: &mut Draw) -> Scenario {
    let bytes_per_s = draw.size(150.0, 700.0) * MIB;
    // From two to fifteen seconds of the link.
    let memory = bytes_per_s * draw.size(2.0, 12.0);
    let budget_s = if draw.chance(0.7) { 0.3 } else { draw.size(0.1, 1.0) };
    let fits = bytes_per_s * budget_s;
    let stop_share = if draw.chance(0.3) { 0.0 } else { draw.share(0.02, 0.7) };
    Scenario {
        pages: whole_pages(memory / MIB * PAGES_A_MIB),
        zero_share: if draw.chance(0.7) { 0.0 } else { draw.share(0.05, 0.5) },
        writers: Vec::new(),
        link: Link {
            bytes_per_s,
            noise: draw.size(0.02, 0.12),
            memory_s: draw.size(0.3, 3.0),
            dips_per_s: if draw.chance(0.5) { 0.0 } else { draw.size(0.05, 0.3) },
        },
        device: Device {
            initial_bytes: whole(fits * draw.share(0.0, 0.4)),
            stale_bytes_per_s: bytes_per_s * draw.share(0.0, 0.02),
            stop_copy_bytes: whole(fits * stop_share),
            size_told: draw.chance(0.8),
            transitions_s: draw.size(0.01, 0.08),
            load_s: if draw.chance(0.5) { draw.size(0.005, 0.05) } else { draw.size(0.05, 0.6) },
            seen_before: draw.chance(0.5).then(|| draw.size(0.9, 1.1)),
        },
        style: if draw.chance(0.7) { Style::Estimate } else { Style::FullPass },
        told: if draw.chance(0.5) { Told::AtSyncs } else { Told::Every(draw.size(0.1, 1.0)) },
        all_dirty: false,
        assumed_stop_copy: None,
        budget_s,
        limit_s: 120.0,
    }
}

/// Pages, from a number of them.
fn whole_pages(number: f64) -> usize {
    usize::try_from(whole(number)).expect("a simulated memory fits into the memory").max(1024)
}

/// A share of a number of pages, at least one.
fn share_of(pages: usize, share: f64) -> usize {
    usize::try_from(whole(pages as f64 * share)).expect("it is a part").clamp(1, pages)
}
