// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The time that is left: the courses for more and less dirt, and what is said of them.
//!
//! ```text
//!   dirt −1.5σ ──▶ 12 s ┐
//!         ⋮             ├─▶ the middle of those that end, early ones counting more: expected
//!   dirt +1.5σ ──▶ never┘
//! ```
//!
//! The number that is expected is the one with the least expected *relative* error of the whole time: the median of the courses,
//! each weighted with one over its whole time (Gneiting, "Making and evaluating point forecasts", JASA 2011: the (−1)-median).
//! The band takes the outermost with a better and a worse link.

use super::assessment::{Downtime, Remaining};
use super::forecast::Standing;
use super::rate::{nanoseconds, seconds};

/// Shares to which the dirty rate must fall where no course comes to an end: the first with which one does.
const LULLS: [f64; 3] = [0.5, 0.3, 0.15];
/// Standard deviations at which the courses are followed: the middles of seven parts of a normal distribution that are as
/// likely.
const QUANTILES: [f64; 7] = [-1.465, -0.792, -0.366, 0.0, 0.366, 0.792, 1.465];
/// Standard deviations of the band, for eight of ten to lie within: fewer than the 1.28 of a normal distribution, since
/// the link's error is added to that of the dirty rate at its worst.
const BAND: f64 = 1.1;

/// What the courses start from, and how well that is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outset {
    pub(super) standing: Standing,
    /// Whether anybody has told how much is dirtied.
    pub(super) dirty_known: bool,
    /// Standard deviation of the logarithm of the dirty rate.
    pub(super) dirty_error: f64,
    /// How far off the throughput may lie, as a share.
    pub(super) throughput_error: f64,
    /// Whether nothing can move any more until the device stands.
    pub(super) drained: bool,
}

impl Outset {
    fn follow(&self, faster: f64, quantile: f64) -> Option<f64> {
        let dirtier = (self.dirty_error * quantile).exp();
        self.standing.with(faster, dirtier).follow().map(|course| course.until_stop)
    }

    /// Whether it comes to no end even with a better link and less dirt than expected, by a standard deviation each.
    pub(super) fn is_hopeless(&self) -> bool {
        self.follow(1.0 + self.throughput_error, -1.0).is_none()
    }

    /// What is left after `gone` seconds; `None` where nothing sees an end.
    pub(super) fn remaining(&self, downtime: Downtime, gone: f64) -> Option<Remaining> {
        let mut times = QUANTILES.map(|at| self.follow(1.0, at));
        times.sort_by(|a, b| a.unwrap_or(f64::INFINITY).total_cmp(&b.unwrap_or(f64::INFINITY)));
        let weight = |time: f64| 1.0 / (gone + time + seconds(downtime.expected_ns)).max(1e-3);
        let half = times.iter().flatten().map(|time| weight(*time)).sum::<f64>() / 2.0;
        let mut sum = 0.0;
        let expected = times.into_iter().flatten().find(|time| {
            sum += weight(*time);
            sum >= half
        });
        let lull = |share: &f64| Some(self.standing.with(1.0, *share).follow()?.until_stop);
        let expected = expected.or_else(|| LULLS.iter().find_map(lull))?;
        let until = |time: f64, downtime_ns: u64| nanoseconds(time).saturating_add(downtime_ns);
        let expected_ns = until(expected, downtime.expected_ns);
        let error = self.throughput_error;
        // If nobody has told, it may be that nothing is dirtied at all.
        let cleanest = if self.dirty_known { -BAND } else { f64::NEG_INFINITY };
        let low = self.follow(1.0 + error, cleanest).unwrap_or(0.0);
        // When the VMM stops a device that waits for nothing but that follows from its memory, which is not seen here.
        let high = self.follow(1.0 - error, BAND).filter(|_| !self.drained);
        Some(Remaining {
            expected_ns,
            low_ns: until(low, downtime.low_ns).min(expected_ns),
            high_ns: high.map(|time| until(time, downtime.high_ns).max(expected_ns)),
            dirty_rate_known: self.dirty_known,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::curve::Fit;
    use super::*;

    const GIB: f64 = 1_073_741_824.0;

    fn outset(ratio: f64, dirty_error: f64, throughput_error: f64) -> Outset {
        let standing = Standing {
            left: 4.0 * GIB,
            stop_copy: 0.0,
            throughput: GIB,
            drain: 0.0,
            curve: Fit::wide(ratio * GIB, f64::INFINITY),
            age: 0.0,
            budget: 0.3,
            total: 4.0 * GIB,
            leaves: 1.0,
        };
        Outset { standing, dirty_known: true, dirty_error, throughput_error, drained: false }
    }

    fn remaining(of: &Outset) -> Remaining {
        let downtime = Downtime {
            expected_ns: 300_000_000,
            low_ns: 200_000_000,
            high_ns: 400_000_000,
            devices_ns: None,
            fixed_ns: 0,
            fixed_from: super::super::FixedFrom::Assumed,
        };
        of.remaining(downtime, 4.0).unwrap()
    }

    #[test]
    fn hope_is_less_dirt_or_a_better_link() {
        assert!(outset(1.2, 0.05, 0.02).is_hopeless());
        assert!(!outset(1.2, 0.4, 0.02).is_hopeless());
        assert!(!outset(1.2, 0.05, 0.3).is_hopeless());
        assert!(!outset(0.5, 0.05, 0.02).is_hopeless());
    }

    #[test]
    fn the_less_is_known_the_wider_the_band_and_the_earlier_the_end() {
        let (sure, unsure) =
            (remaining(&outset(0.6, 0.05, 0.02)), remaining(&outset(0.6, 0.5, 0.02)));
        assert!(
            unsure.low_ns < sure.low_ns && sure.low_ns < sure.expected_ns,
            "{sure:?} {unsure:?}"
        );
        assert!(unsure.high_ns.is_none_or(|high_ns| Some(high_ns) > sure.high_ns), "{unsure:?}");
        assert!(unsure.expected_ns <= sure.expected_ns, "{sure:?} {unsure:?}");
    }

    #[test]
    fn where_no_course_ends_a_lull_is_waited_for_and_there_is_no_upper_end() {
        let never = remaining(&outset(1.5, 0.05, 0.02));
        assert_eq!(never.high_ns, None);
        assert!(never.expected_ns > 4_000_000_000, "{never:?}");
    }
}
