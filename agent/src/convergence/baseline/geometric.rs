// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The geometric model (Liu et al., HPDC'11, 10.1145/1996130.1996154), with the average rates of Akoush et al.'s AVG
//! (MASCOTS'10):
//!
//! ```text
//!   λ = D/B      n = ⌈log_λ(V_thd/M)⌉      T_mig = (M/B)·(1 − λ^(n+1))/(1 − λ)      T_down = M·λ^n/B + T_resume
//! ```
//!
//! M is what was left at the beginning, V_thd = B × the allowed downtime, T_resume a constant. No working set, no device,
//! and no answer for λ ≥ 1 or before a sync has told D.

use super::Prediction;
use crate::convergence::downtime::ASSUMED_TRANSITIONS_NS;
use crate::convergence::rate::{nanoseconds, seconds};
use crate::convergence::reading::Reading;

/// The geometric model's account.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::convergence) struct Geometric {
    first: Option<Point>,
    last: Option<Point>,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    at_ns: u64,
    moved: u64,
    remaining: u64,
    dirtied: u64,
    iteration: u64,
}

impl Geometric {
    pub(in crate::convergence) fn observe(&mut self, reading: &Reading) {
        let (Some(moved), Some(remaining), Some(dirtied)) =
            (reading.moved_bytes, reading.remaining_bytes, reading.dirtied_bytes)
        else {
            return;
        };
        let point =
            Point { at_ns: reading.at_ns, moved, remaining, dirtied, iteration: reading.iteration };
        self.first.get_or_insert(point);
        self.last = Some(point);
    }

    pub(in crate::convergence) fn predict(&self, budget_ns: u64) -> Prediction {
        self.formula(budget_ns).unwrap_or_default()
    }

    fn formula(&self, budget_ns: u64) -> Option<Prediction> {
        let (first, last) = (self.first?, self.last?);
        let told = last.iteration != first.iteration || last.dirtied != first.dirtied;
        let elapsed_ns = last.at_ns.checked_sub(first.at_ns).filter(|ns| *ns > 0)?;
        let elapsed = seconds(elapsed_ns);
        let bandwidth = last.moved.checked_sub(first.moved)? as f64 / elapsed;
        let dirty_rate = last.dirtied.checked_sub(first.dirtied)? as f64 / elapsed;
        let ratio = dirty_rate / bandwidth;
        if !told || !(0.0..1.0).contains(&ratio) {
            return None;
        }
        let memory = first.remaining as f64;
        let threshold = bandwidth * seconds(budget_ns);
        let rounds = if memory <= threshold {
            0.0
        } else if ratio > 0.0 && threshold > 0.0 {
            ((threshold / memory).ln() / ratio.ln()).ceil()
        } else {
            1.0
        };
        let whole = memory / bandwidth * (1.0 - ratio.powf(rounds + 1.0)) / (1.0 - ratio);
        let downtime = memory * ratio.powf(rounds) / bandwidth;
        Some(Prediction {
            remaining_ns: Some(nanoseconds(whole).saturating_sub(elapsed_ns)),
            downtime_ns: Some(nanoseconds(downtime).saturating_add(ASSUMED_TRANSITIONS_NS)),
        })
    }
}
