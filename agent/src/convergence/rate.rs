// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A rate that forgets: bytes over time, both fading with their age.
//!
//! ```text
//!   rate = Σ bytesᵢ·e^(−ageᵢ/T) / Σ secondsᵢ·e^(−ageᵢ/T)        window = Σ secondsᵢ·e^(−ageᵢ/T)  ≤ T
//! ```
//!
//! Fading sums instead of a list: the memory does not depend on how often somebody reads. The spread is that of the rates
//! of single intervals about their mean; with intervals shorter than the time in which the link changes, it says how far
//! a longer stretch may lie off, not how well the mean is known.

use serde::Serialize;

const NANOS: f64 = 1e9;

/// A rate and the time it was measured over.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// The window, in nanoseconds. For dirty pages it is part of the number: a page counts once a window, so a longer one
    /// gives a smaller rate.
    pub window_ns: u64,
}

/// Nanoseconds as seconds.
pub(super) fn seconds(ns: u64) -> f64 {
    ns as f64 / NANOS
}

/// Seconds as nanoseconds: 0 for what is negative or no number, the largest for what is too large.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from float saturates, and makes 0 of what is no number: that is what is wanted"
)]
pub(super) fn nanoseconds(seconds: f64) -> u64 {
    (seconds * NANOS) as u64
}

/// Bytes over time that fade with their age.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fading {
    time_constant: f64,
    bytes: f64,
    seconds: f64,
    squares: f64,
}

impl Fading {
    /// Nothing yet; what is `time_constant` seconds old will have lost 63 % of its weight.
    pub(super) fn new(time_constant: f64) -> Self {
        Self { time_constant, bytes: 0.0, seconds: 0.0, squares: 0.0 }
    }

    /// Adds an interval that is over now. One without length adds nothing.
    pub(super) fn add(&mut self, bytes: f64, seconds: f64) {
        if seconds <= 0.0 {
            return;
        }
        let keep = (-seconds / self.time_constant).exp();
        // The interval itself fades while it lasts: T·(1 − e^(−s/T)) is what is left of its seconds.
        let weight = self.time_constant * (1.0 - keep);
        let rate = bytes / seconds;
        self.bytes = self.bytes * keep + rate * weight;
        self.seconds = self.seconds * keep + weight;
        self.squares = self.squares * keep + rate * rate * weight;
    }

    /// Bytes a second; `None` before the first interval.
    pub(super) fn rate(&self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.bytes / self.seconds)
    }

    /// The window, in seconds.
    pub(super) fn window(&self) -> f64 {
        self.seconds
    }

    /// Standard deviation of the intervals' rates, as a share of the mean.
    pub(super) fn spread(&self) -> f64 {
        match self.rate() {
            Some(mean) if mean > 0.0 => {
                let variance = self.squares / self.seconds - mean * mean;
                variance.max(0.0).sqrt() / mean
            }
            _ => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_rate_is_found_whatever_the_intervals_are() {
        for step in [0.001, 0.1, 3.0] {
            let mut fading = Fading::new(4.0);
            for _ in 0..100 {
                fading.add(1e9 * step, step);
            }
            let rate = fading.rate().unwrap();
            assert!((rate / 1e9 - 1.0).abs() < 1e-9, "{step}: {rate}");
            assert!(fading.spread() < 1e-6);
        }
    }

    #[test]
    fn the_window_is_what_was_seen_and_never_longer_than_the_time_constant() {
        let mut fading = Fading::new(4.0);
        fading.add(1.0, 0.1);
        assert!((fading.window() - 0.1).abs() < 0.002);
        for _ in 0..1000 {
            fading.add(1.0, 0.1);
        }
        assert!((fading.window() - 4.0).abs() < 0.001);
    }

    #[test]
    fn an_old_rate_gives_way_to_a_new_one() {
        let mut fading = Fading::new(4.0);
        fading.add(4e9, 4.0);
        fading.add(80e6, 8.0);
        let rate = fading.rate().unwrap();
        // A third of the window is what came first, faded by e^−2.
        let (old, new) = ((1.0 - (-1.0_f64).exp()) * (-2.0_f64).exp(), 1.0 - (-2.0_f64).exp());
        let expected = (1e9 * old + 10e6 * new) / (old + new);
        assert!((rate / expected - 1.0).abs() < 1e-9, "{rate} {expected}");
        assert!(fading.spread() > 1.0);
    }

    #[test]
    fn seconds_are_nanoseconds_and_what_is_none_is_zero() {
        assert_eq!(nanoseconds(0.3), 300_000_000);
        assert_eq!(nanoseconds(f64::NAN), 0);
        assert_eq!(nanoseconds(-1.0), 0);
        assert_eq!(nanoseconds(f64::INFINITY), u64::MAX);
        assert!((seconds(1_500_000_000) - 1.5).abs() < 1e-12);
    }
}
