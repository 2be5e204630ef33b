// SPDX-License-Identifier: Apache-2.0 OR MIT
//! States and rates of a session, from the points of its timeline.
//!
//! ```text
//!   points    E · · · · · · · E · · · · E       E: a change of state, exact
//!   stays     ├───pre_copy────┼─stop…───┤
//!   windows   ├─────┼─────┼───┼────┼────┤       each at least so long, from point to point
//! ```
//!
//! Windows begin and end where points are, so no amount is cut in two by a guess at what lay between two readings.

use super::{
    model::{Clock, RateWindow, Rates, Stay},
    units::per_second,
};
use crate::session::timeline::Point;

/// Least window: four readings.
const LEAST_WINDOW_NS: u64 = 200_000_000;
/// Windows in a session: as many as a plot shows apart.
const WINDOWS: u64 = 100;

/// The stays that the edges tell, the last one up to `until_ns`. A state that was written again is one stay.
pub(super) fn stays(points: &[Point], until_ns: u64, clock: Option<Clock>) -> Vec<Stay> {
    let mut stays = Vec::new();
    let mut entered: Option<&Point> = None;
    let mut last: Option<&Point> = None;
    let stay = |from: &Point, to: &Point, to_ns: u64| Stay {
        state: from.state.name(),
        from_ns: from.at_monotonic_ns,
        to_ns,
        from_unix_ns: clock.map(|clock| clock.unix_ns(from.at_monotonic_ns)),
        data_bytes: grown(from.data_bytes, to.data_bytes),
        iterations: grown(from.iterations, to.iterations),
        dirty_bytes: grown(from.dirty_bytes, to.dirty_bytes),
        pending_bytes: to.pending_bytes,
    };
    for point in points {
        match entered {
            None => entered = Some(point),
            Some(from) if from.state != point.state => {
                stays.push(stay(from, point, point.at_monotonic_ns));
                entered = Some(point);
            }
            Some(_) => {}
        }
        last = Some(point);
    }
    if let (Some(from), Some(to)) = (entered, last)
        && from.at_monotonic_ns < until_ns
    {
        stays.push(stay(from, to, until_ns));
    }
    stays
}

/// Throughput and dirty rate between points.
pub(super) fn rates(points: &[Point]) -> Rates {
    let ends = points.first().zip(points.last());
    let whole_ns = ends.map_or(0, |(a, b)| b.at_monotonic_ns.saturating_sub(a.at_monotonic_ns));
    let window_ns = (whole_ns / WINDOWS).max(LEAST_WINDOW_NS);
    let mut windows = Vec::new();
    let mut rest = points.iter();
    let mut from = rest.next();
    for to in rest {
        let Some(begin) = from else { break };
        let ns = to.at_monotonic_ns.saturating_sub(begin.at_monotonic_ns);
        if ns >= window_ns || (to.edge && ns >= window_ns / 2) {
            windows.extend(window(begin, to));
            from = Some(to);
        }
    }
    // What is left at the end, or all of a session that is shorter than a window.
    if let Some((begin, end)) = from.zip(points.last()) {
        windows.extend(window(begin, end));
    }
    Rates { window_ns, windows }
}

fn window(from: &Point, to: &Point) -> Option<RateWindow> {
    let ns = to.at_monotonic_ns.checked_sub(from.at_monotonic_ns).filter(|ns| *ns > 0)?;
    let rate = |before, after| per_second(grown(before, after)?, ns);
    Some(RateWindow {
        from_ns: from.at_monotonic_ns,
        to_ns: to.at_monotonic_ns,
        throughput_bytes_per_second: rate(from.data_bytes, to.data_bytes),
        dirty_bytes_per_second: rate(from.dirty_bytes, to.dirty_bytes),
    })
}

/// What was added; unknown where either is, or where it was counted anew in between.
fn grown(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    after?.checked_sub(before?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    fn point(at_ms: u64, state: State, edge: bool, data: u64, dirty: Option<u64>) -> Point {
        Point {
            at_monotonic_ns: at_ms * MS,
            state,
            edge,
            data_bytes: Some(data),
            iterations: Some(data / 100),
            pending_bytes: None,
            dirty_bytes: dirty,
            dma_to_memory_bytes: None,
            estimated_remaining_ns: None,
            estimated_downtime_ns: None,
        }
    }

    #[test]
    fn a_stay_counts_what_came_in_it() {
        let points = [
            point(0, State::PreCopy, true, 0, Some(0)),
            point(50, State::PreCopy, false, 100, Some(10)),
            point(80, State::StopAndCopy, true, 300, Some(10)),
            point(90, State::StopAndCopy, true, 350, Some(30)), // written again
            point(100, State::Stopped, true, 400, Some(30)),
        ];
        let stays = stays(&points, 100 * MS, None);
        let told: Vec<_> = stays
            .iter()
            .map(|stay| (stay.state, stay.ns() / MS, stay.data_bytes, stay.dirty_bytes))
            .collect();
        assert_eq!(
            told,
            [("pre_copy", 80, Some(300), Some(10)), ("stop_and_copy", 20, Some(100), Some(20))]
        );
    }

    #[test]
    fn a_state_that_has_no_end_lasts_until_the_recording_does() {
        let points = [point(0, State::PreCopy, true, 0, None)];
        assert_eq!(stays(&points, 70 * MS, None).first().map(Stay::ns), Some(70 * MS));
    }

    #[test]
    fn rates_are_amounts_over_the_time_between_two_readings() {
        let points = [
            point(0, State::PreCopy, true, 0, None),
            point(100, State::PreCopy, false, 500, None),
            point(250, State::PreCopy, false, 1_000, Some(0)),
            point(370, State::StopAndCopy, true, 1_600, Some(600)),
            point(380, State::Stopped, true, 1_600, Some(600)),
        ];
        let rates = rates(&points);
        assert_eq!(rates.window_ns, 200 * MS);
        let told: Vec<_> = rates
            .windows
            .iter()
            .map(|window| {
                let length_ms = (window.to_ns - window.from_ns) / MS;
                (length_ms, window.throughput_bytes_per_second, window.dirty_bytes_per_second)
            })
            .collect();
        assert_eq!(
            told,
            [(250, Some(4_000), None), (120, Some(5_000), Some(5_000)), (10, Some(0), Some(0))]
        );
    }

    proptest! {
        #[test]
        fn windows_cover_the_session_without_a_gap(
            // Two points of one moment leave no window between them.
            steps in proptest::collection::vec((1_u64..400, any::<bool>(), 0_u64..1 << 30), 2..200),
        ) {
            let (mut at_ms, mut data) = (0, 0);
            let mut points = Vec::new();
            for (step, edge, bytes) in steps {
                at_ms += step;
                data += bytes;
                points.push(point(at_ms, State::PreCopy, edge, data, None));
            }
            let (first, last) = (points[0], points[points.len() - 1]);
            let rates = rates(&points);
            let mut at_ns = first.at_monotonic_ns;
            let mut moved = 0_u128;
            for window in &rates.windows {
                prop_assert_eq!(window.from_ns, at_ns);
                at_ns = window.to_ns;
                let rate = u128::from(window.throughput_bytes_per_second.expect("known"));
                moved += rate * u128::from(window.to_ns - window.from_ns) / 1_000_000_000;
            }
            prop_assert_eq!(at_ns, last.at_monotonic_ns);
            // Each window rounds its rate down, by less than a byte a second, and the amount once more.
            let truth = u128::from(last.data_bytes.expect("known") - first.data_bytes.expect("known"));
            let seconds = u128::from(at_ms / 1000 + 1);
            prop_assert!(moved <= truth && truth <= moved + seconds + 2 * rates.windows.len() as u128);
        }
    }
}
