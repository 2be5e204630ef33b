// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the guest does meanwhile: writers, each with its pages, its way through them and its rhythm.

use super::pages::{PAGE, Pages};
use fastrand::Rng;

/// How a rate goes up and down.
#[derive(Clone, Debug)]
pub(crate) enum Rhythm {
    /// It stays.
    Steady,
    /// `high` for `duty` of each period, `low` for the rest; factors of the writer's rate.
    Square { period_s: f64, duty: f64, low: f64, high: f64 },
    /// Between `low` and `high`.
    Sine { period_s: f64, low: f64, high: f64 },
    /// On and off, each for a time that is drawn anew (exponential).
    Bursts { mean_on_s: f64, mean_off_s: f64, low: f64, high: f64 },
    /// One factor after the other, each for so many seconds; the last for ever.
    Phases(Vec<(f64, f64)>),
}

/// The order in which pages are written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Any, each time anew.
    Random,
    /// One after the other, and again.
    Sequential,
}

/// Pages that are written, and how fast.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    pub(crate) first_page: usize,
    pub(crate) pages: usize,
    pub(crate) order: Order,
    /// Writes a second at a factor of 1, each to one page.
    pub(crate) writes_per_s: f64,
    pub(crate) rhythm: Rhythm,
}

/// A writer at work.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(super) writer: Writer,
    cursor: usize,
    due: f64,
    on: bool,
    switch_at_s: f64,
}

impl Running {
    pub(crate) fn new(writer: Writer) -> Self {
        Self { writer, cursor: 0, due: 0.0, on: false, switch_at_s: 0.0 }
    }

    /// Writes what falls into `step_s` seconds from `now_s` on, into each of `logs`.
    pub(crate) fn step(&mut self, now_s: f64, step_s: f64, rng: &mut Rng, logs: &mut [&mut Pages]) {
        self.due += self.writer.writes_per_s * self.factor(now_s, rng) * step_s;
        while self.due >= 1.0 {
            self.due -= 1.0;
            let offset = match self.writer.order {
                Order::Random => rng.usize(0..self.writer.pages),
                Order::Sequential => {
                    self.cursor = (self.cursor + 1) % self.writer.pages;
                    self.cursor
                }
            };
            for log in &mut *logs {
                log.insert(self.writer.first_page + offset);
            }
        }
    }

    /// Draws anew what was drawn already and lies ahead: a time with an exponential distribution has no memory.
    pub(super) fn forget(&mut self, now_s: f64, rng: &mut Rng) {
        if let Rhythm::Bursts { mean_on_s, mean_off_s, .. } = &self.writer.rhythm {
            let mean = if self.on { mean_on_s } else { mean_off_s };
            self.switch_at_s = now_s - mean * (1.0 - rng.f64()).ln();
        }
    }

    fn factor(&mut self, now_s: f64, rng: &mut Rng) -> f64 {
        match &self.writer.rhythm {
            Rhythm::Steady => 1.0,
            Rhythm::Square { period_s, duty, low, high } => {
                if (now_s / period_s).fract() < *duty {
                    *high
                } else {
                    *low
                }
            }
            Rhythm::Sine { period_s, low, high } => {
                let wave = 0.5 + 0.5 * (std::f64::consts::TAU * now_s / period_s).sin();
                low + (high - low) * wave
            }
            Rhythm::Bursts { mean_on_s, mean_off_s, low, high } => {
                if now_s >= self.switch_at_s {
                    self.on = !self.on;
                    let mean = if self.on { mean_on_s } else { mean_off_s };
                    self.switch_at_s = now_s - mean * (1.0 - rng.f64()).ln();
                }
                if self.on { *high } else { *low }
            }
            Rhythm::Phases(phases) => {
                let mut until = 0.0;
                let current = phases.iter().find(|(seconds, _)| {
                    until += seconds;
                    now_s < until
                });
                current.or(phases.last()).map_or(0.0, |(_, factor)| *factor)
            }
        }
    }
}

/// Writes a second that dirty so many bytes a second where no page is written twice.
pub(crate) fn writes_per_s(bytes_per_s: f64) -> f64 {
    bytes_per_s / PAGE as f64
}
