// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How many bytes are dirty after a window: the working set, from what the syncs found.
//!
//! A page is dirty once, however often it is written, so the longer nobody looks the less is found per second:
//!
//! ```text
//!   U(W) = P·(1 − e^(−W/τ)) + d·W          D(W) = U(W)/W
//!
//!   U │             ·········  d·W: pages that are written once, for ever new ones
//!     │     ·······
//!     │  ···   P: the working set, written over and over, half of it within 0.7·τ
//!     │ ·
//!     └──────────────────── W
//! ```
//!
//! The first term is the saturating form of the writable working set of Clark et al. (NSDI'05) and of the unique pages that
//! QEMU's `calc-dirty-rate` documents; the second keeps the constant rate of the geometric model (Liu et al., HPDC'11) as
//! the case P = 0. For a given τ both are linear, so the fit is a search over a grid of τ, each with a closed
//! non-negative least squares of two unknowns, in relative errors, later and longer passes counting more. Where windows
//! are too much alike to tell a curve, a slight bend is assumed. With P = 0 and d alone, it is the constant rate of the
//! geometric model.

/// Passes kept.
const PASSES: usize = 24;
/// Age at which a pass has lost 63 % of its weight, in seconds.
const MEMORY: f64 = 15.0;
/// Points of the grid of τ, from a quarter of the shortest window to four of the longest.
const GRID: u32 = 14;
/// Longest window over shortest from which a curve is fitted.
const RANGE: f64 = 1.5;
/// τ over the longest window, where nothing tells it: some pages are always written twice.
const USUAL_BEND: f64 = 1.5;
/// How far from the usual bend a straight line is, as the logarithm of a ratio.
const UNBENT: f64 = 2.0;
/// Differences of the spread that mean nothing. Of curves that fit alike the most usual is taken: through two passes goes
/// one for every τ, and those with a small τ say anything of windows shorter than the two.
const ALIKE: f64 = 0.05;

/// What one sync found.
#[derive(Clone, Copy, Debug)]
struct Pass {
    window: f64,
    bytes: f64,
    /// When it was over, in seconds.
    at: f64,
}

/// The passes of a session, and what follows from them.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    passes: [Option<Pass>; PASSES],
    next: usize,
    /// What was found in windows shorter than a pass, as one.
    reports: Option<Pass>,
    fit: Option<Fit>,
}

/// The curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fit {
    /// P, in bytes.
    pub(super) working_set: f64,
    /// τ, in seconds.
    pub(super) time_constant: f64,
    /// d, in bytes a second.
    pub(super) linear: f64,
    /// Standard deviation of the passes about the curve, as a share of it.
    pub(super) spread: f64,
    /// How many passes it stands on.
    pub(super) passes: usize,
}

impl Fit {
    /// A constant rate, in bytes a second.
    pub(super) fn constant(rate: f64, spread: f64) -> Self {
        Self { working_set: 0.0, time_constant: 1.0, linear: rate, spread, passes: 0 }
    }

    /// U(W): bytes dirty after `window` seconds.
    pub(super) fn dirty_after(&self, window: f64) -> f64 {
        let saturated = 1.0 - (-window.max(0.0) / self.time_constant).exp();
        self.working_set * saturated + self.linear * window.max(0.0)
    }

    /// The same with `factor` times as much.
    pub(super) fn scaled(self, factor: f64) -> Self {
        Self { working_set: self.working_set * factor, linear: self.linear * factor, ..self }
    }
}

impl Default for Curve {
    fn default() -> Self {
        Self { passes: [None; PASSES], next: 0, reports: None, fit: None }
    }
}

impl Curve {
    /// Reports between syncs found `bytes` in `window` seconds, on average. They are of other windows than passes are,
    /// which is what a curve needs; they count as one pass, and take effect with the next.
    pub(super) fn reports(&mut self, window: f64, bytes: f64, at: f64) {
        self.reports = (window > 0.0).then_some(Pass { window, bytes, at });
    }

    /// A sync found `bytes` after `window` seconds; it is now `at` seconds.
    pub(super) fn add(&mut self, window: f64, bytes: f64, at: f64) {
        if window <= 0.0 {
            return;
        }
        if let Some(slot) = self.passes.get_mut(self.next) {
            *slot = Some(Pass { window, bytes, at });
        }
        self.next = (self.next + 1) % PASSES;
        self.fit = self.fitted(at);
    }

    /// The curve, once a sync was seen.
    pub(super) fn fit(&self) -> Option<Fit> {
        self.fit
    }

    fn points(&self) -> impl Iterator<Item = &Pass> {
        self.passes.iter().chain([&self.reports]).flatten()
    }

    fn weighted(&self, now: f64) -> impl Iterator<Item = (Pass, f64)> {
        self.points().map(move |pass| {
            // Relative errors, but one byte at least: a sync may have found nothing. A long pass has seen more than a
            // short one.
            let relative = pass.bytes.max(1.0);
            let weight =
                ((pass.at - now) / MEMORY).exp() * pass.window.sqrt() / (relative * relative);
            (*pass, weight)
        })
    }

    fn fitted(&self, now: f64) -> Option<Fit> {
        let windows = || self.points().map(|pass| pass.window);
        let shortest = windows().min_by(f64::total_cmp)?;
        let longest = windows().max_by(f64::total_cmp)?;
        let usual = USUAL_BEND * longest;
        if longest < RANGE * shortest {
            return self.least_squares(Some(usual), now);
        }
        let (from, to) = ((shortest / 4.0).ln(), (longest * 4.0).ln());
        let step = (to - from) / f64::from(GRID - 1);
        let grid = (0..GRID).map(|at| (from + f64::from(at) * step).exp());
        let bent =
            grid.chain([usual]).filter_map(|constant| self.least_squares(Some(constant), now));
        let curves: Vec<Fit> = bent.chain(self.least_squares(None, now)).collect();
        let best = curves.iter().map(|fit| fit.spread).min_by(f64::total_cmp)?;
        let alike = best * best + ALIKE * ALIKE;
        let unusual = |fit: &Fit| match fit.working_set > 0.0 {
            true => (fit.time_constant / usual).ln().abs(),
            false => UNBENT,
        };
        curves
            .into_iter()
            .filter(|fit| fit.spread * fit.spread <= alike)
            .min_by(|a, b| unusual(a).total_cmp(&unusual(b)))
    }

    /// The best P and d for a τ, both at least 0; without a τ only d.
    fn least_squares(&self, time_constant: Option<f64>, now: f64) -> Option<Fit> {
        let (mut ff, mut fw, mut ww, mut fu, mut wu) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (pass, weight) in self.weighted(now) {
            let saturated =
                time_constant.map_or(0.0, |constant| 1.0 - (-pass.window / constant).exp());
            ff += weight * saturated * saturated;
            fw += weight * saturated * pass.window;
            ww += weight * pass.window * pass.window;
            fu += weight * saturated * pass.bytes;
            wu += weight * pass.window * pass.bytes;
        }
        let determinant = ff * ww - fw * fw;
        let (mut working_set, mut linear) = if determinant > 1e-9 * ff * ww {
            ((fu * ww - wu * fw) / determinant, (wu * ff - fu * fw) / determinant)
        } else if ff > 0.0 {
            (fu / ff, 0.0)
        } else {
            (0.0, wu / ww)
        };
        if working_set < 0.0 {
            (working_set, linear) = (0.0, wu / ww);
        } else if linear < 0.0 {
            (working_set, linear) = (fu / ff, 0.0);
        }
        let mut fit = Fit {
            working_set,
            time_constant: time_constant.unwrap_or(1.0),
            linear,
            spread: 0.0,
            passes: 0,
        };
        let (mut squares, mut weights) = (0.0, 0.0);
        for (pass, weight) in self.weighted(now) {
            let error = pass.bytes - fit.dirty_after(pass.window);
            squares += weight * error * error;
            weights += weight * pass.bytes.max(1.0) * pass.bytes.max(1.0);
            fit.passes += 1;
        }
        fit.spread = (squares / weights).sqrt();
        let sound = fit.working_set.is_finite() && fit.linear.is_finite() && fit.spread.is_finite();
        sound.then_some(fit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(of: impl Fn(f64) -> f64, windows: &[f64]) -> Fit {
        let mut curve = Curve::default();
        for (at, window) in (0..).zip(windows) {
            curve.add(*window, of(*window), f64::from(at));
        }
        curve.fit().unwrap()
    }

    #[test]
    fn a_constant_rate_stays_one() {
        let fit = fitted(|window| 50e6 * window, &[4.0, 2.0, 1.0, 0.5]);
        for window in [0.1, 0.5, 1.0, 4.0] {
            let ratio = fit.dirty_after(window) / (50e6 * window);
            assert!((0.85..1.15).contains(&ratio), "{window}: {ratio} {fit:?}");
        }
    }

    #[test]
    fn a_working_set_is_found_and_what_lies_between_the_windows_is_too() {
        let truth = |window: f64| 200e6 * (1.0 - (-window / 0.5_f64).exp());
        let fit = fitted(truth, &[8.0, 1.0, 0.3, 0.1]);
        for window in [0.1, 0.2, 0.6, 3.0, 8.0] {
            let ratio = fit.dirty_after(window) / truth(window);
            assert!((0.9..1.1).contains(&ratio), "{window}: {ratio} {fit:?}");
        }
    }

    #[test]
    fn a_working_set_beside_a_stream_is_told_apart() {
        let truth = |window: f64| 64e6 * (1.0 - (-window / 0.05_f64).exp()) + 20e6 * window;
        let fit = fitted(truth, &[10.0, 3.0, 0.8, 0.2, 0.1]);
        assert!((fit.linear / 20e6 - 1.0).abs() < 0.1, "{fit:?}");
        assert!((fit.working_set / 64e6 - 1.0).abs() < 0.1, "{fit:?}");
    }

    #[test]
    fn windows_that_are_alike_tell_no_curve_and_the_usual_bend_is_taken() {
        let fit = fitted(|_| 1e6, &[1.0, 1.2, 1.1]);
        assert!((fit.time_constant / (USUAL_BEND * 1.2) - 1.0).abs() < 1e-9, "{fit:?}");
        assert!((fit.dirty_after(1.1) / 1e6 - 1.0).abs() < 0.02, "{fit:?}");
        // A tenth of the window has more than a tenth of the pages, and not much more.
        let tenth = fit.dirty_after(0.11) / 1e6;
        assert!((0.1..0.2).contains(&tenth), "{tenth}");
    }

    #[test]
    fn a_sync_that_found_nothing_is_a_rate_of_zero() {
        let fit = fitted(|_| 0.0, &[1.0, 0.1]);
        assert!(fit.dirty_after(100.0) < 1.0, "{fit:?}");
    }
}
