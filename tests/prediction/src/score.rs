// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The errors of many migrations, together.

use crate::replay::{MOMENTS, Replayed};

/// A set of numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    sorted: Vec<f64>,
    /// How many there would be if every one were known.
    asked: usize,
}

impl Numbers {
    pub(crate) fn of(numbers: impl Iterator<Item = Option<f64>>) -> Self {
        let mut asked = 0;
        let mut sorted: Vec<f64> = numbers.inspect(|_| asked += 1).flatten().collect();
        sorted.sort_by(f64::total_cmp);
        Self { sorted, asked }
    }

    pub(crate) fn mean(&self) -> Option<f64> {
        let count = self.sorted.len();
        (count > 0).then(|| self.sorted.iter().sum::<f64>() / count as f64)
    }

    pub(crate) fn least(&self) -> Option<f64> {
        self.sorted.first().copied()
    }

    pub(crate) fn most(&self) -> Option<f64> {
        self.sorted.last().copied()
    }

    pub(crate) fn median(&self) -> Option<f64> {
        self.sorted.get(self.sorted.len() / 2).copied()
    }

    pub(crate) fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The share that is known.
    pub(crate) fn answered(&self) -> Option<f64> {
        (self.asked > 0).then(|| self.sorted.len() as f64 / self.asked as f64)
    }
}

/// What was measured of a family, or of all of them.
pub(crate) struct Score<'a> {
    pub(crate) name: String,
    migrations: Vec<&'a Replayed>,
}

impl<'a> Score<'a> {
    pub(crate) fn new(name: &str, migrations: impl IntoIterator<Item = &'a Replayed>) -> Self {
        Self { name: name.to_owned(), migrations: migrations.into_iter().collect() }
    }

    pub(crate) fn count(&self) -> usize {
        self.migrations.len()
    }

    fn ended(&self) -> impl Iterator<Item = &Replayed> {
        self.migrations.iter().copied().filter(|one| one.converged)
    }

    /// Errors of the whole time at moment `at`, by predictor `who`.
    pub(crate) fn total(&self, at: usize, who: usize) -> Numbers {
        Numbers::of(self.ended().map(|one| one.total_errors[at][who]))
    }

    /// Errors of the whole time at half-way, by oracle `who`.
    pub(crate) fn oracle(&self, who: usize) -> Numbers {
        Numbers::of(self.ended().map(|one| one.oracle_errors[who]))
    }

    /// Errors of the time that was left then.
    pub(crate) fn remaining(&self, at: usize, who: usize) -> Numbers {
        Numbers::of(self.ended().map(|one| one.remaining_errors[at][who]))
    }

    /// Errors of the downtime, as shares.
    pub(crate) fn downtime(&self, who: usize) -> Numbers {
        Numbers::of(self.ended().map(|one| one.downtime_errors[who]))
    }

    /// Errors of the downtime, in milliseconds.
    pub(crate) fn downtime_ms(&self, who: usize) -> Numbers {
        Numbers::of(self.ended().map(|one| one.downtime_off_ms[who]))
    }

    /// How many times as large predictor `who`'s mean error of the downtime is as migscope's, of those that both predicted.
    pub(crate) fn downtime_ratio(&self, who: usize) -> Option<f64> {
        let both = |one: &Replayed| one.downtime_errors[0].zip(one.downtime_errors[who]);
        let (ours, theirs) = self
            .ended()
            .filter_map(both)
            .fold((0.0, 0.0), |(ours, theirs), (our, their)| (ours + our, theirs + their));
        (ours > 0.0).then(|| theirs / ours)
    }

    /// Share of the bands at moment `at` that hold the truth.
    pub(crate) fn coverage(&self, at: usize) -> Numbers {
        Numbers::of(
            self.ended().map(|one| one.in_band[at].map(|inside| f64::from(u8::from(inside)))),
        )
    }

    /// The same of all moments.
    pub(crate) fn coverage_of_all(&self) -> Numbers {
        let all = (0..MOMENTS.len()).flat_map(|at| self.ended().map(move |one| one.in_band[at]));
        Numbers::of(all.map(|inside| inside.map(|inside| f64::from(u8::from(inside)))))
    }

    pub(crate) fn downtime_coverage(&self) -> Numbers {
        let inside = self.ended().map(|one| one.downtime_in_band);
        Numbers::of(inside.map(|inside| inside.map(|inside| f64::from(u8::from(inside)))))
    }

    /// Migrations that came to an end and of which it was said that they would not.
    pub(crate) fn false_alarms(&self) -> usize {
        self.ended().filter(|one| one.gave_up_s.is_some()).count()
    }

    /// Migrations that came to no end and of which it was not said.
    pub(crate) fn missed(&self) -> usize {
        self.endless().filter(|one| one.gave_up_s.is_none()).count()
    }

    /// Seconds until it was said.
    pub(crate) fn gave_up(&self) -> Numbers {
        Numbers::of(self.endless().map(|one| one.gave_up_s))
    }

    fn endless(&self) -> impl Iterator<Item = &Replayed> {
        self.migrations.iter().copied().filter(|one| !one.converged)
    }

    /// Nanoseconds for a reading: observing it, and observing and assessing it.
    pub(crate) fn speed(&self) -> [Numbers; 2] {
        let per = |one: &Replayed, ns: u128| Some(ns as f64 / f64::from(one.readings.max(1)));
        let both = |one: &Replayed| (one.observing + one.assessing).as_nanos();
        [
            Numbers::of(self.migrations.iter().map(|one| per(one, one.observing.as_nanos()))),
            Numbers::of(self.migrations.iter().map(|one| per(one, both(one)))),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_not_in_the_mean_and_shows_in_what_was_answered() {
        let numbers = Numbers::of([Some(3.0), None, Some(1.0), Some(8.0)].into_iter());
        assert_eq!(numbers.mean(), Some(4.0));
        assert_eq!(
            (numbers.least(), numbers.median(), numbers.most()),
            (Some(1.0), Some(3.0), Some(8.0))
        );
        assert_eq!((numbers.count(), numbers.answered()), (3, Some(0.75)));
        assert_eq!(Numbers::default().mean(), None);
    }

    #[test]
    fn a_ratio_is_of_those_that_both_predicted() {
        let of = |ours, theirs| Replayed {
            converged: true,
            downtime_errors: [ours, theirs, None, None],
            ..Replayed::default()
        };
        let all = [of(Some(0.1), Some(0.3)), of(Some(0.1), Some(0.1)), of(Some(7.0), None)];
        let score = Score::new("all", &all);
        assert!((score.downtime_ratio(1).unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(score.downtime_ratio(2), None);
    }

    #[test]
    fn alarms_are_false_where_it_ended_and_missed_where_it_did_not() {
        let of = |converged, gave_up_s| Replayed { converged, gave_up_s, ..Replayed::default() };
        let all = [of(true, None), of(true, Some(1.0)), of(false, None), of(false, Some(41.0))];
        let score = Score::new("all", &all);
        assert_eq!((score.false_alarms(), score.missed(), score.count()), (1, 1, 4));
        assert_eq!(score.gave_up().mean(), Some(41.0));
    }
}
