// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Durations: kept in an HDR histogram, shown in the buckets of Prometheus.
//!
//! ```text
//!   probe: 272 buckets ──fold──▶ ┌───────────┐
//!                                │ hdr + sum │──▶ _bucket{le=…} _sum _count
//!   ring record: one duration ──▶└───────────┘──▶ quantiles of reports, interval log
//! ```
//!
//! The bounds are powers of four nanoseconds. Each of them is an edge of the probes' buckets (`migscope_abi::latency`) and of the
//! HDR histogram's, so no bucket is split and the counts that are shown are exact but for one thing: the buckets of the probes
//! hold their lower edge, those of Prometheus their upper, so a duration of exactly 4^n ns counts as longer than the bound 4^n ns.

pub mod interval_log;
pub mod schedule;

use hdrhistogram::Histogram;
use migscope_abi::latency::{BUCKETS, bucket, lower_bound_ns};
use std::time::Duration;

/// Bounds for what a driver does in one call: 256 ns to 17.2 s.
pub const CALL: Bounds = Bounds { first_exponent: 8, count: 14 };
/// Bounds for what a migration takes: 1.05 ms to 1100 s.
pub const MIGRATION: Bounds = Bounds { first_exponent: 20, count: 11 };

/// Longest duration that is told apart from longer ones: 2^42 ns, 73 minutes.
const LONGEST_NS: u64 = 1 << 42;
/// Two decimal digits are finer than the probes' buckets, an eighth of a power of two.
const DIGITS: u8 = 2;

/// Most durations that one distribution holds: as many as a float counts exactly, which the rank of a quantile is reckoned in. A
/// million a second come to that in 285 years, but a recording may say anything.
const MOST: u64 = 1 << 53;

/// How far a quantile may be above the truth, relative to it, where each duration was recorded by itself: the width of the HDR
/// histogram's buckets, 128 to each power of two.
const RECORDED_ERROR: f64 = 1.0 / 128.0;
/// How far a quantile may be from the truth, relative to it, where durations came in the probes' buckets. They are up to an eighth
/// wide and stand for their middle, so the truth is up to a sixteenth away; the middle then falls into a bucket of the histogram.
const FOLDED_ERROR: f64 = 1.0 / 16.0 + 1.0 / 64.0;

/// Upper bounds of buckets: `count` powers of four, from 2^`first_exponent` ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    first_exponent: u32,
    count: u32,
}

impl Bounds {
    /// The bounds, in nanoseconds, ascending.
    pub fn ns(self) -> impl Iterator<Item = u64> {
        (0..self.count).map(move |step| 1 << (self.first_exponent + 2 * step))
    }

    /// The place of the bucket that a duration falls into; the one after the last bound is that of all that is longer.
    pub fn place(self, ns: u64) -> usize {
        self.ns().take_while(|bound| *bound <= ns).count()
    }
}

/// A distribution of durations.
#[derive(Clone, Debug)]
pub struct Latency {
    histogram: Histogram<u64>,
    sum_ns: u64,
    /// What the probes' buckets held when they were last folded in.
    folded: Vec<u64>,
    folded_sum_ns: u64,
}

/// A distribution as Prometheus shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Cumulative {
    /// Upper bound and how many durations are shorter.
    pub buckets: Vec<(Duration, u64)>,
    /// How many durations there are.
    pub count: u64,
    /// All of them together.
    pub sum: Duration,
}

impl Default for Latency {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, DIGITS)
            .expect("the bounds are constants that hdrhistogram takes");
        Self { histogram, sum_ns: 0, folded: Vec::new(), folded_sum_ns: 0 }
    }
}

impl Latency {
    /// Adds one duration, in nanoseconds.
    pub fn record(&mut self, ns: u64) {
        add(&mut self.histogram, ns, 1);
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// Adds what has come to the probes' buckets since the last time. `buckets` and `sum_ns` count from the probes' loading.
    pub fn fold(&mut self, buckets: &[u64], sum_ns: u64) {
        self.folded.resize(buckets.len().max(self.folded.len()), 0);
        for (index, (seen, before)) in (0_u32..).zip(buckets.iter().zip(&mut self.folded)) {
            let new = seen.saturating_sub(*before);
            if new > 0 {
                add(&mut self.histogram, middle_ns(index), new);
            }
            *before = *seen;
        }
        self.sum_ns = self.sum_ns.saturating_add(sum_ns.saturating_sub(self.folded_sum_ns));
        self.folded_sum_ns = sum_ns;
    }

    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The duration below which, or at which, a part `quantile` (0 to 1) of all durations are, in nanoseconds. `None` if there is no
    /// duration, or no such quantile.
    ///
    /// The truth is the duration with the rank `ceil(quantile * count)`, in order; what is given differs from it by
    /// [`Latency::relative_error`] at most. Durations past the longest that is told apart are only known to be that long: 2^42 ns
    /// where they were recorded by themselves, 2^36 ns (68.7 s) where they came from the probes.
    pub fn quantile_ns(&self, quantile: f64) -> Option<u64> {
        let known = !self.histogram.is_empty() && (0.0..=1.0).contains(&quantile);
        known.then(|| self.histogram.value_at_quantile(quantile))
    }

    /// How far a quantile may be from the truth, relative to it: 0.8 % for durations that were recorded by themselves, 7.9 % for
    /// those that came from the probes' buckets.
    pub fn relative_error(&self) -> f64 {
        if self.folded.is_empty() { RECORDED_ERROR } else { FOLDED_ERROR }
    }

    /// What came since `before`, an earlier reading of the same distribution; `None` if it is none.
    pub fn since(&self, before: &Self) -> Option<Self> {
        let mut new = self.clone();
        new.histogram.subtract(&before.histogram).ok()?;
        new.sum_ns = self.sum_ns.checked_sub(before.sum_ns)?;
        Some(new)
    }

    /// The distribution within `bounds`.
    pub fn cumulative(&self, bounds: Bounds) -> Cumulative {
        let mut counts = vec![0_u64; bounds.ns().count()];
        // Once through the histogram, not once for each bound: this is most of what a scrape costs.
        for recorded in self.histogram.iter_recorded() {
            if let Some(count) = counts.get_mut(bounds.place(recorded.value_iterated_to())) {
                *count = count.saturating_add(recorded.count_at_value());
            }
        }
        let below = counts.iter().scan(0_u64, |below, count| {
            *below = below.saturating_add(*count);
            Some(*below)
        });
        Cumulative {
            buckets: bounds.ns().map(Duration::from_nanos).zip(below).collect(),
            count: self.count(),
            sum: Duration::from_nanos(self.sum_ns),
        }
    }
}

/// A duration that stands for a bucket of the probes: its middle. A recording may have more buckets than there are here; what is in
/// those is as long as the last one tells.
fn middle_ns(index: u32) -> u64 {
    let last = u32::try_from(BUCKETS - 1).expect("some hundred");
    let index = index.min(last);
    let (start, end) = (lower_bound_ns(index), lower_bound_ns(index.saturating_add(1)));
    debug_assert_eq!(bucket(start), index);
    start + (end - start) / 2
}

/// Counts `count` durations, as far as there is room.
fn add(histogram: &mut Histogram<u64>, ns: u64, count: u64) {
    let count = count.min(MOST.saturating_sub(histogram.len()));
    // The histogram would take none of it for the longest there is.
    if count > 0 {
        histogram.saturating_record_n(ns, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn buckets_of(durations: &[u64]) -> Vec<u64> {
        let mut buckets = vec![0; BUCKETS];
        for ns in durations {
            buckets[usize::try_from(bucket(*ns)).expect("a small number")] += 1;
        }
        buckets
    }

    #[test]
    fn every_bound_is_an_edge_of_the_probes_buckets() {
        for ns in CALL.ns().chain(MIGRATION.ns()).filter(|ns| *ns < 1 << 36) {
            assert_eq!(lower_bound_ns(bucket(ns)), ns);
        }
        assert_eq!(CALL.ns().next(), Some(256));
        assert_eq!(CALL.ns().last(), Some(1 << 34));
    }

    #[test]
    fn a_duration_longer_than_the_longest_is_counted_in_the_last_bucket() {
        let mut latency = Latency::default();
        latency.record(u64::MAX);
        let shown = latency.cumulative(CALL);
        assert_eq!(shown.count, 1);
        assert!(shown.buckets.iter().all(|(_, count)| *count == 0));
    }

    #[test]
    fn what_was_folded_once_is_not_folded_again() {
        let mut latency = Latency::default();
        latency.fold(&buckets_of(&[300, 300]), 600);
        latency.fold(&buckets_of(&[300, 300, 5_000]), 5_600);
        assert_eq!(latency.count(), 3);
        assert_eq!(latency.cumulative(CALL).sum, Duration::from_nanos(5_600));
    }

    #[test]
    fn what_is_in_buckets_past_the_last_is_as_long_as_the_last() {
        let mut latency = Latency::default();
        let mut buckets = vec![0; 1024];
        (buckets[BUCKETS - 1], buckets[BUCKETS], buckets[1023]) = (1, 1, 1);
        latency.fold(&buckets, 0);
        assert_eq!((latency.count(), latency.histogram.iter_recorded().count()), (3, 1));
    }

    #[test]
    fn a_bucket_has_its_place() {
        for (ns, place) in
            [(0, 0), (255, 0), (256, 1), (1 << 33, 13), (1 << 34, 14), (u64::MAX, 14)]
        {
            assert_eq!(CALL.place(ns), place, "{ns}");
        }
    }

    #[test]
    fn there_is_no_quantile_of_nothing_and_none_past_all() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile_ns(0.5), None);
        latency.record(5);
        assert_eq!(latency.quantile_ns(0.5), Some(5));
        for none in [-0.1, 1.1, f64::NAN] {
            assert_eq!(latency.quantile_ns(none), None, "{none}");
        }
    }

    #[test]
    fn more_durations_than_can_be_are_as_many_as_a_float_counts() {
        let mut latency = Latency::default();
        let mut buckets = vec![0; BUCKETS];
        (buckets[40], buckets[200]) = (u64::MAX, u64::MAX);
        latency.fold(&buckets, u64::MAX);
        latency.record(u64::MAX);
        assert_eq!(latency.count(), MOST);
        assert_eq!(latency.cumulative(CALL).count, MOST);
        assert_eq!(latency.quantile_ns(1.0), latency.quantile_ns(0.5));
        assert!(latency.quantile_ns(1.0).is_some_and(|ns| ns > 0), "not the 0 of no duration");
    }

    /// Whether `latency` tells each of some quantiles of `durations` as exactly as it says.
    fn tells_quantiles(latency: &Latency, mut durations: Vec<u64>) -> Result<(), TestCaseError> {
        durations.sort_unstable();
        for quantile in [0.01, 0.25, 0.5, 0.9, 0.99, 1.0] {
            // Ranks of a few hundred durations are small numbers.
            let rank = (0..durations.len())
                .find(|rank| (rank + 1) as f64 >= quantile * durations.len() as f64)
                .expect("the last rank is past every quantile");
            let truth = durations[rank] as f64;
            let told = latency.quantile_ns(quantile).expect("there are durations") as f64;
            let allowed = latency.relative_error() * truth;
            prop_assert!((told - truth).abs() <= allowed, "{} of {}: {}", quantile, truth, told);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn quantiles_are_as_exact_as_they_are_said_to_be(
            durations in proptest::collection::vec((0_u32..36, 0_u64..1 << 36), 1..200),
        ) {
            let durations: Vec<_> = durations.iter().map(|(shift, ns)| ns >> shift).collect();
            let mut recorded = Latency::default();
            for ns in &durations {
                recorded.record(*ns);
            }
            tells_quantiles(&recorded, durations.clone())?;
            let mut folded = Latency::default();
            folded.fold(&buckets_of(&durations), durations.iter().sum());
            tells_quantiles(&folded, durations)?;
        }

        #[test]
        fn an_interval_holds_what_came_in_it(
            first in proptest::collection::vec(0_u64..1 << 40, 0..100),
            second in proptest::collection::vec(0_u64..1 << 40, 0..100),
        ) {
            let both: Vec<_> = first.iter().chain(&second).copied().collect();
            let mut latency = Latency::default();
            latency.fold(&buckets_of(&first), first.iter().sum());
            let before = latency.clone();
            latency.fold(&buckets_of(&both), both.iter().sum());
            let mut alone = Latency::default();
            alone.fold(&buckets_of(&second), second.iter().sum());
            let interval = latency.since(&before).expect("an earlier reading");
            prop_assert_eq!(interval.cumulative(CALL), alone.cumulative(CALL));
            prop_assert_eq!(&interval.histogram, &alone.histogram);
            if !second.is_empty() {
                prop_assert!(before.since(&latency).is_none(), "a later reading is not an earlier one");
            }
        }

        #[test]
        fn folding_keeps_every_count_and_every_bound_is_exact(
            durations in proptest::collection::vec(0_u64..1 << 40, 0..200),
        ) {
            let mut latency = Latency::default();
            latency.fold(&buckets_of(&durations), durations.iter().sum());
            let shown = latency.cumulative(CALL);
            prop_assert_eq!(usize::try_from(shown.count).expect("small"), durations.len());
            prop_assert_eq!(shown.sum, Duration::from_nanos(durations.iter().sum()));
            for (bound, count) in shown.buckets {
                let shorter = durations.iter().filter(|ns| Duration::from_nanos(**ns) < bound);
                prop_assert_eq!(usize::try_from(count).expect("small"), shorter.count());
            }
        }

        #[test]
        fn recording_one_by_one_gives_the_same_bounds(
            durations in proptest::collection::vec(0_u64..1 << 41, 0..200),
        ) {
            let mut latency = Latency::default();
            for ns in &durations {
                latency.record(*ns);
            }
            for bounds in [CALL, MIGRATION] {
                for (bound, count) in latency.cumulative(bounds).buckets {
                    let shorter = durations.iter().filter(|ns| Duration::from_nanos(**ns) < bound);
                    prop_assert_eq!(usize::try_from(count).expect("small"), shorter.count());
                }
            }
        }
    }
}
