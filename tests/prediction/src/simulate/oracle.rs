// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What can be known of the end of a migration: the error of one who knows the simulation.
//!
//! ```text
//!   ─────────────●───────────▶ what came of it
//!    the same    ├──────▶
//!    past        ├────────────────▶   other futures: the same pages, other draws
//!                └─────────▶
//! ```
//!
//! At the moment in question the simulation is copied, state and all, and every copy goes on with other draws. The forecast is
//! the one with the least expected relative error over their ends (as the agent's, see its `remaining`), and its error is
//! what the draws to come make of it. How much else is known is [`Knows`]: the best observer cannot know a rate that
//! nobody has told, nor a phase before it begins.
//!
//! It bounds forecasts that mean what they say at every moment. "Twice what has gone by" has no error at half-way, and would
//! beat it there alone.

use super::family::{Family, Split, other_phases};
use super::load::Rhythm;
use super::vmm::{Scenario, Vmm};
use fastrand::Rng;

/// How far what another load leaves to the first look may lie from what was found, as a share.
const AGREES: f64 = 0.05;
/// Loads that are tried for each future that is wanted.
const TRIES: u64 = 60;

/// How much the oracle knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Knows {
    /// Everything but draws of single steps: also how much is written that nobody looked at yet, and the phases to come.
    Plan,
    /// No more than could have been told, but all else. Where only syncs tell, and there was none or one, the load is any
    /// of any family that leaves what that one found. Where there were reports or more syncs it is known. The phases to
    /// come are any.
    Told,
}

impl Knows {
    pub(crate) const ALL: [Self; 2] = [Self::Told, Self::Plan];

    /// As the table has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Told => "oracle, told",
            Self::Plan => "oracle, plan",
        }
    }

    /// As JSON has it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Told => "oracle_told",
            Self::Plan => "oracle_plan",
        }
    }
}

/// One migration, at the moment of which is asked.
struct Question<'a> {
    split: Split,
    scenario: &'a Scenario,
    present: Vmm<'a>,
    stream: u64,
}

/// The error of the whole time of migration `seed`, as a share, predicted `share` of the way from `futures` of them. `None`
/// where it has no end, or none of the futures has.
pub(crate) fn error_at(
    family: Family,
    split: Split,
    seed: u64,
    share: f64,
    futures: u64,
    knows: Knows,
) -> Option<f64> {
    let (scenario, _) = family.scenario(split, seed);
    let stream = family.stream(split, seed);
    let start = || Vmm::new(&scenario, Rng::with_seed(stream));
    let truth = start().finish().1.total_ns? as f64 / 1e9;
    let mut present = start();
    if let Some(stopped_s) = present.pre_copy(share * truth) {
        // The device has stopped by then; it is asked just before that.
        present = start();
        present.pre_copy(stopped_s - 0.01);
    }
    let question = Question { split, scenario: &scenario, present, stream };
    let ends = match knows {
        Knows::Told if question.is_open() => question.ends_of_others(futures),
        _ => Vec::new(),
    };
    let ends = match ends.is_empty() {
        true => (0..futures).filter_map(|number| question.end(number, knows)).collect(),
        false => ends,
    };
    Some((forecast(ends)? - truth).abs() / truth)
}

impl Question<'_> {
    fn draws(&self, number: u64) -> u64 {
        self.stream ^ ((number + 1) << 44)
    }

    /// Whether too little was told to say what is written: one number at most.
    fn is_open(&self) -> bool {
        !self.scenario.told.between_syncs() && self.present.looks_so_far() < 2
    }

    /// When it ends in one of its futures.
    fn end(&self, number: u64, knows: Knows) -> Option<f64> {
        let mut future = self.present.clone();
        let draws = self.draws(number);
        future.diverge(Rng::with_seed(draws));
        let now_s = future.now_s();
        for writer in future.writers() {
            if let Rhythm::Phases(phases) = &mut writer.writer.rhythm
                && knows == Knows::Told
            {
                *phases = other_phases(self.split, draws, phases, now_s);
            }
        }
        Some(future.finish().1.total_ns? as f64 / 1e9)
    }

    /// When it would end with loads that look the same so far.
    fn ends_of_others(&self, futures: u64) -> Vec<f64> {
        let others = (0..futures * TRIES).filter_map(|number| self.end_of_other(number));
        others.take(usize::try_from(futures).unwrap_or(usize::MAX)).collect()
    }

    fn end_of_other(&self, number: u64) -> Option<f64> {
        let draws = self.draws(number);
        let writers = Family::any_load(self.split, draws, self.scenario);
        let scenario = Scenario { writers, ..self.scenario.clone() };
        let mut other = Vmm::new(&scenario, Rng::with_seed(draws));
        let now_s = self.present.now_s();
        let mut same_age_s = now_s;
        if let Some((found, looked_s)) = self.present.last_look() {
            if !other.look(1) {
                return None;
            }
            let (other_found, other_looked_s) = other.last_look()?;
            let agrees = other_found.abs_diff(found) as f64 <= AGREES * found as f64;
            if !agrees {
                return None;
            }
            same_age_s = other_looked_s + (now_s - looked_s);
        }
        let stopped = other.pre_copy(same_age_s).is_some();
        if stopped || other.looks_so_far() != self.present.looks_so_far() {
            return None;
        }
        // What the link did until now is known.
        let more_s = (self.present.left() - other.left()) / scenario.link.bytes_per_s;
        let total_s = other.finish().1.total_ns? as f64 / 1e9;
        Some(now_s + (total_s - same_age_s + more_s).max(0.0))
    }
}

/// The (−1)-median: the median of ends that count the less the later they are, which makes the expected relative error least
/// (Gneiting, "Making and evaluating point forecasts", JASA 2011).
fn forecast(mut ends: Vec<f64>) -> Option<f64> {
    ends.sort_by(f64::total_cmp);
    let half = ends.iter().map(|end| 1.0 / end).sum::<f64>() / 2.0;
    let mut sum = 0.0;
    ends.into_iter().find(|end| {
        sum += 1.0 / end;
        sum >= half
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(family: Family, knows: Knows, wanted: impl Fn(&Scenario) -> bool) -> f64 {
        let split = Split::Train;
        let seeds = (0..60).filter(|seed| wanted(&family.scenario(split, *seed).0)).take(6);
        let errors: Vec<_> =
            seeds.filter_map(|seed| error_at(family, split, seed, 0.5, 6, knows)).collect();
        errors.iter().sum::<f64>() / errors.len() as f64
    }

    #[test]
    fn who_knows_a_steady_load_is_wrong_by_the_noise_of_the_link_only() {
        let small = |scenario: &Scenario| scenario.pages < 200_000;
        let error = mean(Family::Steady, Knows::Plan, small);
        assert!((0.001..0.08).contains(&error), "{error}");
    }

    #[test]
    fn what_nobody_told_is_not_known() {
        let untold =
            |scenario: &Scenario| scenario.pages < 300_000 && !scenario.told.between_syncs();
        let plan = mean(Family::Steady, Knows::Plan, untold);
        let told = mean(Family::Steady, Knows::Told, untold);
        assert!(told > 1.5 * plan, "{told} {plan}");
    }

    #[test]
    fn of_two_ends_the_early_one_counts_more() {
        assert_eq!(forecast(vec![5.0, 1.0, 4.0]), Some(1.0), "and the plain median is 4");
        assert_eq!(forecast(vec![5.0, 4.5, 4.0]), Some(4.5));
        assert_eq!(forecast(Vec::new()), None);
    }
}
