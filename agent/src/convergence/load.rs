// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the guest is taken to write from now on, from the most that is known of it:
//!
//! ```text
//!   nothing told ──▶ what loads usually write
//!   reports      ──▶ their rate into a wide set, up to what a load that converges can have
//!   syncs        ──▶ the curve, as much nearer to the usual load as there are fewer of them
//! ```
//!
//! A first pass that found much more than usual was, more often than not, a pass in which more than usual was written (regression
//! to the mean). So the logarithm of the rate is the mean of what was seen and what is usual, the passes with a weight of one each
//! and the usual load with that of [`USUAL_PASSES`]: the posterior mean of normal distributions (Efron and Morris, JASA 1975). Less than
//! usual is believed at once: a rate that is low makes the time that is left neither long nor uncertain.

use super::curve::{Curve, Fit};
use super::rate::Fading;

/// Time in which reports are forgotten, in seconds: some passes.
const REPORTS_S: f64 = 10.0;
/// Dirty rate over throughput before anybody told.
const USUAL_RATIO: f64 = 0.4;
/// How many passes the usual load weighs.
const USUAL_PASSES: f64 = 1.0;
/// Most dirty rate over throughput that reports between syncs are believed. They are of short windows: what they have above
/// it either is a hot set, which a pass finds once and not once a report, or will not last, or the migration does not
/// converge. Which one, only syncs say.
const MOST_REPORTED: f64 = 0.6;
/// How far off the logarithm of the dirty rate may lie (standard deviation) if all passes were alike,
const LEAST_ERROR: f64 = 0.05;
/// if there was only one,
const FEW_PASSES: f64 = 0.4;
/// if only reports between syncs were seen,
const REPORTS_ERROR: f64 = 0.5;
/// and if nobody told anything.
const USUAL_ERROR: f64 = 0.6;

/// What was told of dirty pages.
#[derive(Clone, Debug)]
pub(super) struct Load {
    curve: Curve,
    /// Dirty bytes told between syncs, and the windows of that.
    reports: Fading,
    report_windows: Fading,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            curve: Curve::default(),
            reports: Fading::new(REPORTS_S),
            report_windows: Fading::new(REPORTS_S),
        }
    }
}

impl Load {
    /// Takes in a report between syncs: `bytes` in `window` seconds.
    pub(super) fn reported(&mut self, window: f64, bytes: f64) {
        self.reports.add(bytes, window);
        self.report_windows.add(window * window, window);
    }

    /// A sync found `bytes` after `window` seconds; it is now `at` seconds, and there are `memory` bytes in all.
    pub(super) fn synced(&mut self, window: f64, bytes: f64, at: f64, memory: f64) {
        if let Some((rate, window)) = self.reports.rate().zip(self.report_windows.rate()) {
            self.curve.reports(window, rate * window, at);
        }
        self.curve.add(window, bytes, at, memory);
    }

    /// Whether anybody has told anything.
    pub(super) fn is_known(&self) -> bool {
        self.curve.fit().is_some() || self.reports.rate().is_some()
    }

    /// What is to be expected beside a link of `throughput` bytes a second, of `memory` bytes.
    pub(super) fn expected(&self, throughput: f64, memory: f64) -> Fit {
        let usual = Fit::wide(USUAL_RATIO * throughput, memory);
        let Some(fit) = self.curve.fit() else {
            let reported = |rate: f64| Fit::wide(rate.min(MOST_REPORTED * throughput), memory);
            return self.reports.rate().map_or(usual, reported);
        };
        let pass = memory / throughput;
        let ratio = fit.dirty_after(pass) / usual.dirty_after(pass);
        if ratio.is_finite() && ratio > 1.0 {
            let weight = USUAL_PASSES / (USUAL_PASSES + fit.passes.max(1) as f64);
            fit.scaled(ratio.powf(-weight))
        } else {
            fit
        }
    }

    /// Standard deviation of the logarithm of the dirty rate to come: what passes differ by, and what so few may hide.
    pub(super) fn error(&self) -> f64 {
        match self.curve.fit() {
            Some(fit) => {
                let few = FEW_PASSES / (fit.passes.max(1) as f64).sqrt();
                (fit.spread * fit.spread + few * few + LEAST_ERROR * LEAST_ERROR).sqrt()
            }
            None if self.reports.rate().is_some() => REPORTS_ERROR,
            None => USUAL_ERROR,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: f64 = 1e9;
    const MEMORY: f64 = 8e9;

    /// What a pass over the whole memory is expected to find, as a share of what the link carries in it.
    fn ratio(load: &Load) -> f64 {
        let pass = MEMORY / LINK;
        load.expected(LINK, MEMORY).dirty_after(pass) / (LINK * pass)
    }

    #[test]
    fn what_nobody_told_is_what_is_usual_and_the_least_certain() {
        let mut load = Load::default();
        assert!(!load.is_known());
        assert!((0.2..USUAL_RATIO).contains(&ratio(&load)), "some pages are written twice");
        let unknown = load.error();
        load.reported(0.1, 0.2 * LINK * 0.1);
        assert!(load.is_known());
        let reported = load.error();
        load.synced(8.0, 0.2 * LINK * 8.0, 8.0, MEMORY);
        assert!(unknown > reported && reported > load.error());
    }

    #[test]
    fn short_windows_are_not_taken_for_more_than_converges() {
        let told = |rate: f64| {
            let mut load = Load::default();
            (0..50).for_each(|_| load.reported(0.1, rate * LINK * 0.1));
            ratio(&load)
        };
        assert!((0.08..0.1).contains(&told(0.1)), "{}", told(0.1));
        assert!(told(0.5) > told(0.3));
        assert!((told(3.0) - told(MOST_REPORTED)).abs() < 1e-9, "{}", told(3.0));
    }

    #[test]
    fn one_pass_that_found_much_is_half_believed_and_ten_are_nearly() {
        let after = |passes: u32, rate: f64| {
            let mut load = Load::default();
            for at in 0..passes {
                load.synced(8.0, rate * LINK * 8.0, 8.0 * f64::from(at), MEMORY);
            }
            ratio(&load)
        };
        // The usual load finds 0.29 in such a pass.
        assert!((0.38..0.45).contains(&after(1, 0.56)), "{}", after(1, 0.56));
        assert!((0.51..0.56).contains(&after(10, 0.56)), "{}", after(10, 0.56));
        assert!((after(1, 0.1) - 0.1).abs() < 1e-6, "{}", after(1, 0.1));
    }
}
