// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What will happen if things go on as they are: the passes that are still to come, one after the other.
//!
//! ```text
//!   left │╲        sync
//!        │ ╲      ╱│╲
//!        │  ╲    ╱ │ ╲  ╱│╲  stop
//!   B·L ─┼───╲──╱──┼──╲╱─┼─╲─│──────
//!        └────────────────────────── time
//!            pass     pass
//! ```
//!
//! A VMM copies what it knows of until that would fit into the downtime it allows (QEMU's `migration_iteration_run`:
//! pending ≤ bandwidth × downtime-limit), looks again, and finds what was dirtied meanwhile: U(W) of the curve
//! (`curve.rs`). If all of it with the devices' stop-copy part S fits, it stops the device; else it goes on. With U(W) =
//! D·W and passes to the end that is the geometric model, V_(i+1) = λ·V_i (Liu et al., HPDC'11); the saturating curve,
//! the stop part and the pass under way are what is added. Memory cannot be dirtier than all of it.

use super::curve::Fit;

/// Shortest pass: QEMU leaves its loop at least this often (`MAX_WAIT`, 50 ms).
const SHORTEST_PASS: f64 = 0.05;
/// Passes looked ahead. A ratio of 0.95 takes 180 to halve what is left ten thousand times.
const PASSES: u32 = 200;

/// Where a source stands. Bytes, seconds, bytes a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// What is known to be left and can move before the stop.
    pub(super) left: f64,
    /// What can move only after it.
    pub(super) stop_copy: f64,
    /// Bytes moved a second.
    pub(super) throughput: f64,
    /// Bytes by which `left` falls a second in this pass: more than `throughput` where pages are sent as a note that they
    /// are zero.
    pub(super) drain: f64,
    /// How much is dirty after how long.
    pub(super) curve: Fit,
    /// Since the last sync.
    pub(super) age: f64,
    /// Downtime that is allowed.
    pub(super) budget: f64,
    /// All that there is.
    pub(super) total: f64,
    /// What is left unsent when it looks again, as a share of what fits into the downtime: 1 is QEMU, 0 a VMM that sends
    /// each pass to its end.
    pub(super) leaves: f64,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Course {
    /// Until the device stops.
    pub(super) until_stop: f64,
    /// What is left then, the stop-copy part included.
    pub(super) left_at_stop: f64,
}

impl Standing {
    /// What can move in the downtime that is allowed.
    pub(super) fn fits(&self) -> f64 {
        self.throughput * self.budget
    }

    /// Follows the passes to the stop. `None`: it does not come to that.
    pub(super) fn follow(&self) -> Option<Course> {
        let Self { stop_copy, throughput, .. } = *self;
        if throughput <= 0.0 {
            return None;
        }
        let fits = self.fits();
        let (mut left, mut age, mut drain) = (self.left, self.age, self.drain.max(throughput));
        let mut until_stop = 0.0;
        for _ in 0..PASSES {
            let sent = (left - self.leaves * fits).max(drain * SHORTEST_PASS).min(left.max(0.0));
            let pass = (sent / drain).max(SHORTEST_PASS);
            until_stop += pass;
            let found = self.curve.dirty_after(age + pass);
            left = (left - sent + found).min(self.total.max(left));
            if left + stop_copy <= fits {
                return Some(Course { until_stop, left_at_stop: left + stop_copy });
            }
            (age, drain) = (0.0, throughput);
        }
        None
    }

    /// The same with a link `faster` times as fast and memory that is dirtied `dirtier` times as much.
    pub(super) fn with(&self, faster: f64, dirtier: f64) -> Self {
        Self {
            throughput: self.throughput * faster,
            drain: self.drain * faster,
            curve: self.curve.scaled(dirtier),
            ..*self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: f64 = 1_073_741_824.0;

    fn standing(dirty_rate: f64) -> Standing {
        Standing {
            left: 4.0 * GIB,
            stop_copy: 0.0,
            throughput: GIB,
            drain: 0.0,
            curve: Fit::wide(dirty_rate, f64::INFINITY),
            age: 0.0,
            budget: 0.3,
            total: 4.0 * GIB,
            leaves: 1.0,
        }
    }

    #[test]
    fn an_idle_machine_takes_its_memory_over_the_link() {
        let course = standing(0.0).follow().unwrap();
        // All but what fits into the downtime.
        assert!((course.until_stop - 3.7).abs() < 0.01, "{course:?}");
        assert!((course.left_at_stop / GIB - 0.3).abs() < 0.01, "{course:?}");
    }

    #[test]
    fn the_whole_time_is_that_of_the_geometric_series() {
        // (M/B)·(1/(1 − λ)), and what is left at the stop takes its part of it.
        for ratio in [0.2, 0.5, 0.8] {
            let course = standing(ratio * GIB).follow().unwrap();
            let whole = course.until_stop + course.left_at_stop / GIB;
            let series = 4.0 / (1.0 - ratio);
            assert!((0.85..1.05).contains(&(whole / series)), "{ratio}: {whole} {series}");
        }
    }

    #[test]
    fn a_rate_above_the_link_never_ends_and_one_below_does() {
        assert_eq!(standing(1.02 * GIB).follow(), None);
        assert!(standing(0.9 * GIB).follow().is_some());
    }

    #[test]
    fn a_stop_part_above_the_budget_never_ends_however_idle_the_machine() {
        let above = Standing { stop_copy: 0.31 * GIB, ..standing(0.0) };
        assert_eq!(above.follow(), None);
        let below = Standing { stop_copy: 0.29 * GIB, ..standing(0.0) };
        assert!(below.follow().is_some());
    }

    #[test]
    fn a_working_set_that_fits_is_no_hindrance_however_fast_it_is_written() {
        let saturated = |hot: f64| Standing {
            curve: Fit { hot, hot_time: 0.001, ..Fit::wide(0.0, f64::INFINITY) },
            // What is left is sent to the end, or there is no room for the working set.
            budget: 0.3,
            ..standing(0.0)
        };
        assert!(saturated(0.04 * GIB).follow().is_some());
        assert_eq!(saturated(0.5 * GIB).follow(), None);
    }

    proptest! {
        #[test]
        fn a_faster_link_never_takes_longer(
            left in 0.0..64.0 * GIB,
            ratio in 0.0_f64..1.2,
            stop_share in 0.0_f64..1.2,
            faster in 1.0_f64..10.0,
        ) {
            let slow = Standing {
                left,
                total: left,
                stop_copy: stop_share * 0.3 * GIB,
                ..standing(ratio * GIB)
            };
            let fast = slow.with(faster, 1.0);
            if let Some(course) = slow.follow() {
                let faster = fast.follow();
                prop_assert!(faster.is_some());
                let until = faster.map_or(f64::MAX, |course| course.until_stop);
                // Passes are whole: the last may be one more.
                prop_assert!(until <= course.until_stop + SHORTEST_PASS + 1e-6);
            }
        }

        #[test]
        fn more_dirt_never_takes_shorter(left in 0.0..64.0 * GIB, ratio in 0.0_f64..1.0, dirtier in 1.0_f64..3.0) {
            let clean = Standing { left, total: left, ..standing(ratio * GIB) };
            if let Some(dirty) = clean.with(1.0, dirtier).follow() {
                let course = clean.follow();
                prop_assert!(course.is_some());
                let until = course.map_or(f64::MAX, |course| course.until_stop);
                prop_assert!(until <= dirty.until_stop + SHORTEST_PASS + 1e-6);
            }
        }
    }
}
