// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How many bytes are dirty after a window: the working set, from what the syncs found.
//!
//! A page is dirty once, however often it is written, so the longer nobody looks the less is found per second:
//!
//! ```text
//!   U(W) = H·(1 − e^(−W/τ)) + d·θ·(1 − e^(−W/θ))          D(W) = U(W)/W
//!
//!   U │                  ·····  the wide set, d bytes a second at first, d·θ in all
//!     │          ········
//!     │    ······
//!     │  ··   H: the hot set, written over and over, 63 % of it within τ
//!     │ ·
//!     └──────────────────────── W
//! ```
//!
//! Writes that fall anywhere into a set of P bytes leave P·(1 − e^(−d·W/P)) dirty: each page is missed by all of them with a
//! probability of e^(−d·W/P). That is the saturating form of the writable working set of Clark et al. (NSDI'05), and of the
//! unique pages that QEMU's `calc-dirty-rate` documents. Two such sets are enough for what a guest does: a hot one, and a
//! wide one that its other writes fall into. The wide one cannot be larger than the memory, and where no window was long enough to
//! show how large it is, it is taken for [`WIDE`] of it: without that a straight line, the geometric model's (Liu et al.,
//! HPDC'11), would be drawn from the first pass, which is the longest, to the last ones, and say too little.
//!
//! θ follows from the longest window, and then for a given τ both sets are linear. So the fit is a search over a grid of τ,
//! each with a closed non-negative least squares of two unknowns, in relative errors, later and longer passes counting
//! more. A hot set is only believed in where the passes cannot be explained without.

/// Passes kept.
const PASSES: usize = 24;
/// Age at which a pass has lost 63 % of its weight, in seconds.
const MEMORY_S: f64 = 15.0;

/// Points of the grid of τ, from a quarter of the shortest window to the longest.
const GRID: u32 = 12;
/// Longest window over shortest from which a hot set is looked for.
const RANGE: f64 = 1.5;
/// Share of the memory that the wide set is taken for.
const WIDE: f64 = 0.6;
/// Nearest that a window may have come to the whole of the wide set: beyond that it does not say how fast it was.
const NEARLY_ALL: f64 = 0.95;
/// Differences of the spread that mean nothing. Of curves that fit alike the plainest is taken: through two passes goes
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
    /// H, in bytes.
    pub(super) hot: f64,
    /// τ, in seconds.
    pub(super) hot_time: f64,
    /// d, in bytes a second.
    pub(super) wide: f64,
    /// θ, in seconds; infinite if there is no end to it.
    pub(super) wide_time: f64,
    /// Standard deviation of the passes about the curve, as a share of it.
    pub(super) spread: f64,
    /// How many passes it stands on.
    pub(super) passes: usize,
}

impl Fit {
    /// Writes of `rate` bytes a second, anywhere into a usual part of `memory` bytes.
    pub(super) fn wide(rate: f64, memory: f64) -> Self {
        let wide_time = if rate > 0.0 { WIDE * memory / rate } else { f64::INFINITY };
        Self { hot: 0.0, hot_time: 1.0, wide: rate, wide_time, spread: 0.0, passes: 0 }
    }

    /// U(W): bytes dirty after `window` seconds.
    pub(super) fn dirty_after(&self, window: f64) -> f64 {
        let window = window.max(0.0);
        self.hot * saturated(window, self.hot_time) + self.wide * filled(window, self.wide_time)
    }

    /// The same with `factor` times as many dirty pages.
    pub(super) fn scaled(self, factor: f64) -> Self {
        Self { hot: self.hot * factor, wide: self.wide * factor, ..self }
    }
}

/// 1 − e^(−W/τ).
fn saturated(window: f64, time: f64) -> f64 {
    -(-window / time).exp_m1()
}

/// θ·(1 − e^(−W/θ)): the window, less what is written twice.
fn filled(window: f64, time: f64) -> f64 {
    if time.is_finite() { time * saturated(window, time) } else { window }
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

    /// A sync found `bytes` after `window` seconds; it is now `at` seconds, and there are `memory` bytes in all.
    pub(super) fn add(&mut self, window: f64, bytes: f64, at: f64, memory: f64) {
        if window <= 0.0 {
            return;
        }
        if let Some(slot) = self.passes.get_mut(self.next) {
            *slot = Some(Pass { window, bytes, at });
        }
        self.next = (self.next + 1) % PASSES;
        self.fit = self.fitted(at, memory);
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
                ((pass.at - now) / MEMORY_S).exp() * pass.window.sqrt() / (relative * relative);
            (*pass, weight)
        })
    }

    fn fitted(&self, now: f64, memory: f64) -> Option<Fit> {
        let by_window = |a: &&Pass, b: &&Pass| a.window.total_cmp(&b.window);
        let shortest = self.points().min_by(by_window)?.window;
        let longest = self.points().max_by(by_window)?;
        // From U = P·(1 − e^(−W/θ)), P being the usual part.
        let share = (longest.bytes / (WIDE * memory).max(1.0)).min(NEARLY_ALL);
        let wide_time =
            if share > 0.0 { -longest.window / (-share).ln_1p() } else { f64::INFINITY };
        let plain = self.least_squares(None, wide_time, now)?;
        if longest.window < RANGE * shortest {
            return Some(plain);
        }
        let (from, to) = ((shortest / 4.0).ln(), longest.window.ln());
        let step = (to - from) / f64::from(GRID - 1);
        let grid = (0..GRID).rev().map(|at| (from + f64::from(at) * step).exp());
        let hot = grid.filter_map(|time| self.least_squares(Some(time), wide_time, now));
        // The plainest first.
        let curves: Vec<Fit> = std::iter::once(plain).chain(hot).collect();
        let best = curves.iter().map(|fit| fit.spread).min_by(f64::total_cmp)?;
        let alike = best * best + ALIKE * ALIKE;
        curves.into_iter().find(|fit| fit.spread * fit.spread <= alike)
    }

    /// The best H and d for τ and θ, both at least 0; without a τ only d.
    fn least_squares(&self, hot_time: Option<f64>, wide_time: f64, now: f64) -> Option<Fit> {
        let (mut hh, mut hw, mut ww, mut hu, mut wu) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (pass, weight) in self.weighted(now) {
            let hot = hot_time.map_or(0.0, |time| saturated(pass.window, time));
            let wide = filled(pass.window, wide_time);
            hh += weight * hot * hot;
            hw += weight * hot * wide;
            ww += weight * wide * wide;
            hu += weight * hot * pass.bytes;
            wu += weight * wide * pass.bytes;
        }
        let determinant = hh * ww - hw * hw;
        let (mut hot, mut wide) = if determinant > 1e-9 * hh * ww {
            ((hu * ww - wu * hw) / determinant, (wu * hh - hu * hw) / determinant)
        } else {
            (0.0, wu / ww)
        };
        if hot < 0.0 {
            (hot, wide) = (0.0, wu / ww);
        } else if wide < 0.0 {
            (hot, wide) = (hu / hh, 0.0);
        }
        let hot_time = hot_time.unwrap_or(1.0);
        let mut fit = Fit { hot, hot_time, wide, wide_time, spread: 0.0, passes: 0 };
        let (mut squares, mut weights) = (0.0, 0.0);
        for (pass, weight) in self.weighted(now) {
            let error = pass.bytes - fit.dirty_after(pass.window);
            squares += weight * error * error;
            weights += weight * pass.bytes.max(1.0) * pass.bytes.max(1.0);
            fit.passes += 1;
        }
        fit.spread = (squares / weights).sqrt();
        let sound = fit.hot.is_finite() && fit.wide.is_finite() && fit.spread.is_finite();
        sound.then_some(fit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So much that nothing is written twice in the wide set.
    const ENDLESS: f64 = 1e15;

    fn fitted(of: impl Fn(f64) -> f64, windows: &[f64], memory: f64) -> Fit {
        let mut curve = Curve::default();
        for (at, window) in (0..).zip(windows) {
            curve.add(*window, of(*window), f64::from(at), memory);
        }
        curve.fit().unwrap()
    }

    #[test]
    fn a_constant_rate_stays_one() {
        let fit = fitted(|window| 50e6 * window, &[4.0, 2.0, 1.0, 0.5], ENDLESS);
        for window in [0.1, 0.5, 1.0, 4.0] {
            let ratio = fit.dirty_after(window) / (50e6 * window);
            assert!((0.99..1.01).contains(&ratio), "{window}: {ratio} {fit:?}");
        }
        assert!((fit.hot, fit.spread) < (1.0, 1e-6), "{fit:?}");
    }

    #[test]
    fn a_working_set_is_found_and_what_lies_between_the_windows_is_too() {
        let truth = |window: f64| 200e6 * (1.0 - (-window / 0.5_f64).exp());
        let fit = fitted(truth, &[8.0, 1.0, 0.3, 0.1], 8e9);
        for window in [0.1, 0.2, 0.6, 3.0, 8.0] {
            let ratio = fit.dirty_after(window) / truth(window);
            assert!((0.9..1.1).contains(&ratio), "{window}: {ratio} {fit:?}");
        }
    }

    #[test]
    fn a_hot_set_beside_a_stream_is_told_apart() {
        let truth = |window: f64| 64e6 * (1.0 - (-window / 0.05_f64).exp()) + 20e6 * window;
        let fit = fitted(truth, &[10.0, 3.0, 0.8, 0.2, 0.1], ENDLESS);
        assert!((fit.wide / 20e6 - 1.0).abs() < 0.1, "{fit:?}");
        assert!((fit.hot / 64e6 - 1.0).abs() < 0.1, "{fit:?}");
    }

    #[test]
    fn of_one_pass_over_a_wide_set_the_shorter_ones_follow() {
        // 1.2 GB of 2 GB, written once over in 4 s: of the first 8 s 13 % are new, and of the first second 88 %.
        let truth = |window: f64| 1.2e9 * (1.0 - (-window / 4.0_f64).exp());
        let fit = fitted(truth, &[8.0], 2e9);
        for window in [0.1, 1.0, 4.0, 8.0] {
            let ratio = fit.dirty_after(window) / truth(window);
            assert!((0.99..1.01).contains(&ratio), "{window}: {ratio} {fit:?}");
        }
        let straight = truth(8.0) / 8.0;
        assert!(straight < 0.5 * truth(1.0), "a straight line would say less than half of it");
    }

    #[test]
    fn a_pass_that_found_more_than_the_wide_set_has_is_no_infinite_rate() {
        let fit = fitted(|_| 2e9, &[8.0], 2e9);
        assert!((fit.dirty_after(8.0) / 2e9 - 1.0).abs() < 1e-6, "{fit:?}");
        assert!(fit.wide < 2e9, "{fit:?}");
    }

    #[test]
    fn windows_that_are_alike_tell_of_no_hot_set() {
        let fit = fitted(|window| 1e6 * (1.0 + 0.3 * (window - 1.1)), &[1.0, 1.2, 1.1], 4e6);
        assert!(fit.hot < 1.0, "{fit:?}");
        assert!((fit.dirty_after(1.1) / 1e6 - 1.0).abs() < 0.02, "{fit:?}");
        // A tenth of the window has more than a tenth of the pages, and not much more.
        let tenth = fit.dirty_after(0.11) / 1e6;
        assert!((0.1..0.2).contains(&tenth), "{tenth}");
    }

    #[test]
    fn a_sync_that_found_nothing_is_a_rate_of_zero() {
        let fit = fitted(|_| 0.0, &[1.0, 0.1], 1e9);
        assert!(fit.dirty_after(100.0) < 1.0, "{fit:?}");
    }
}
