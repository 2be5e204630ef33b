// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a session had moved at each moment: the points behind its plots and its estimates.
//!
//! ```text
//!   sums of the device, ten times a second while a session runs ──▶ point ─┐
//!   the copy of the sums in each record of a state change ────────▶ edge ──┴▶ at most 1024 points
//! ```
//!
//! A migration may take hours, and what is kept of it is bounded: when the points are full, every other one goes and the least
//! distance between two doubles. Edges, the points of state changes, stay: they are exact, and few ([`super::TRANSITIONS`]).

use super::Figures;
use crate::{convergence::Assessment, state::State};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Most points that are kept.
pub const LIMIT: usize = 1024;
/// Least distance between two points to begin with, in nanoseconds: they are read this often.
const SPACING_NS: u64 = 50_000_000;

/// What a session had moved at one moment; what is unknown is `None`. Amounts count from the session's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// When, `CLOCK_MONOTONIC` in nanoseconds.
    pub at_monotonic_ns: u64,
    /// The device's state from then on.
    pub state: State,
    /// Whether this point is a change of state.
    pub edge: bool,
    /// Device data moved in the session's direction, in bytes.
    pub data_bytes: Option<u64>,
    /// Buffers that it came in.
    pub iterations: Option<u64>,
    /// What was still pending, as last told, in bytes.
    pub pending_bytes: Option<u64>,
    /// Memory reported dirty, in bytes.
    pub dirty_bytes: Option<u64>,
    /// Bytes that the device wrote to memory.
    pub dma_to_memory_bytes: Option<u64>,
    /// Time that was expected to be left then.
    pub estimated_remaining_ns: Option<u64>,
    /// Downtime that was expected then.
    pub estimated_downtime_ns: Option<u64>,
}

impl Point {
    /// The point that `figures` and what was thought then make.
    pub fn new(
        at_monotonic_ns: u64,
        state: State,
        edge: bool,
        figures: &Figures,
        assessment: Option<&Assessment>,
    ) -> Self {
        Self {
            at_monotonic_ns,
            state,
            edge,
            data_bytes: figures.data_bytes,
            iterations: figures.iterations,
            pending_bytes: figures.pending_bytes,
            dirty_bytes: figures.dirty.map(|account| account.bytes),
            dma_to_memory_bytes: figures.dma_to_memory_bytes,
            estimated_remaining_ns: assessment.and_then(|a| Some(a.remaining?.expected_ns)),
            estimated_downtime_ns: assessment.and_then(|a| Some(a.downtime?.expected_ns)),
        }
    }
}

/// The points of one session, in the order of time.
#[derive(Clone, Debug)]
pub struct Timeline {
    points: Vec<Point>,
    spacing_ns: u64,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { points: Vec::new(), spacing_ns: SPACING_NS }
    }
}

impl Timeline {
    /// The points.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// How fast data moved over the last `window_ns`, in bytes per second; unknown until points lie that far apart.
    pub fn data_rate(&self, window_ns: u64) -> Option<f64> {
        let last = self.points.last()?;
        let since_ns = last.at_monotonic_ns.checked_sub(window_ns)?;
        let first = self.points.iter().rev().find(|point| point.at_monotonic_ns <= since_ns)?;
        let bytes = last.data_bytes?.checked_sub(first.data_bytes?)?;
        let elapsed = Duration::from_nanos(last.at_monotonic_ns - first.at_monotonic_ns);
        Some(bytes as f64 / elapsed.as_secs_f64()).filter(|rate| rate.is_finite())
    }

    /// Adds a point. One that comes too soon after the last is left out, unless it is an edge; one that lies before the last is
    /// left out too: sums are read later than the records that overtook them.
    pub fn push(&mut self, point: Point) {
        // A record can be read after a reading of the maps that was made after it: the edge is worth more than such points.
        let at_ns = point.at_monotonic_ns;
        while point.edge
            && self.points.last().is_some_and(|last| !last.edge && last.at_monotonic_ns > at_ns)
        {
            self.points.pop();
        }
        if let Some(last) = self.points.last() {
            let too_soon =
                point.at_monotonic_ns < last.at_monotonic_ns.saturating_add(self.spacing_ns);
            let earlier = point.at_monotonic_ns < last.at_monotonic_ns;
            if earlier || (too_soon && !point.edge) {
                return;
            }
        }
        if self.points.len() >= LIMIT {
            self.thin_out();
        }
        if self.points.len() < LIMIT {
            self.points.push(point);
        }
    }

    fn thin_out(&mut self) {
        self.spacing_ns = self.spacing_ns.saturating_mul(2);
        let mut keep = true;
        self.points.retain(|point| {
            keep = !keep;
            point.edge || keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn point(at_ns: u64, edge: bool) -> Point {
        Point {
            at_monotonic_ns: at_ns,
            state: State::PreCopy,
            edge,
            data_bytes: Some(at_ns),
            iterations: None,
            pending_bytes: None,
            dirty_bytes: None,
            dma_to_memory_bytes: None,
            estimated_remaining_ns: None,
            estimated_downtime_ns: None,
        }
    }

    #[test]
    fn a_long_session_keeps_its_whole_length_and_all_edges() {
        let mut timeline = Timeline::default();
        for step in 0..100_000_u64 {
            timeline.push(point(step * SPACING_NS, step % 10_000 == 0));
        }
        let points = timeline.points();
        assert!(points.len() <= LIMIT && points.len() >= LIMIT / 4, "{}", points.len());
        assert_eq!(points.iter().filter(|point| point.edge).count(), 10);
        let last = points.last().expect("some").at_monotonic_ns;
        assert!(last > 98_000 * SPACING_NS, "{last}");
    }

    #[test]
    fn an_edge_that_is_read_late_is_kept_in_its_place() {
        let mut timeline = Timeline::default();
        for (at_ns, edge) in [(SPACING_NS, true), (9 * SPACING_NS, false), (8 * SPACING_NS, true)] {
            timeline.push(point(at_ns, edge));
        }
        let points = timeline.points();
        let told: Vec<_> = points.iter().map(|point| (point.at_monotonic_ns, point.edge)).collect();
        assert_eq!(told, [(SPACING_NS, true), (8 * SPACING_NS, true)]);
    }

    proptest! {
        #[test]
        fn points_stay_in_order_and_bounded(
            steps in proptest::collection::vec((0_u64..1 << 33, any::<bool>()), 0..3000),
        ) {
            let mut timeline = Timeline::default();
            for (at_ns, edge) in steps {
                timeline.push(point(at_ns, edge));
            }
            let points = timeline.points();
            prop_assert!(points.len() <= LIMIT);
            prop_assert!(points.windows(2).all(|pair| pair[0].at_monotonic_ns <= pair[1].at_monotonic_ns));
        }
    }
}
