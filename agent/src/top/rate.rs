// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How fast a session goes, from what it had moved in one snapshot and in the next.
//!
//! ```text
//!   snapshots   │    │    │    │    │        throughput: bytes between two, over the time between them
//!   queries         q         q   q          dirty rate: bytes between two snapshots that saw new queries, over that time:
//!                                            between queries nobody is told of dirty pages, which is not "none"
//! ```
//!
//! A counter that went backwards, another session, an agent that began anew: there is no rate across these, and it is unknown,
//! never negative. So it is in the first snapshot of a session.

use crate::session::report::Report;
use std::collections::VecDeque;

/// Rates that are kept for the sparkline.
pub const HISTORY: usize = 60;
/// A dirty rate without a new query for this long says nothing about now, in nanoseconds.
const DIRTY_VALID_NS: u64 = 10_000_000_000;

/// How fast something grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Bytes in a second; finite and not negative.
    pub bytes_per_second: f64,
    /// The time that it was seen over, in nanoseconds; not 0.
    pub window_ns: u64,
}

impl Rate {
    /// From `before` at one time to `after` at another; `None` when either ran backwards or no time went by.
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown with three digits")]
    pub fn between(before: (u64, u64), after: (u64, u64)) -> Option<Self> {
        let (before_ns, before_bytes) = before;
        let (after_ns, after_bytes) = after;
        let window_ns = after_ns.checked_sub(before_ns).filter(|window| *window > 0)?;
        let bytes = after_bytes.checked_sub(before_bytes)?;
        Some(Self { bytes_per_second: bytes as f64 * 1e9 / window_ns as f64, window_ns })
    }
}

/// What one device's session had done when it was last looked at.
#[derive(Clone, Debug, Default)]
pub struct Track {
    /// Number and beginning of the session: numbers begin anew with the agent.
    session: Option<(u64, u64)>,
    /// When, and the data moved until then, in bytes.
    data: Option<(u64, u64)>,
    /// When a new query was seen last, and what had been told dirty until then, in bytes.
    dirty_at: Option<(u64, u64)>,
    queries: Option<u64>,
    throughput: Option<Rate>,
    dirty: Option<Rate>,
    history: VecDeque<Option<Rate>>,
}

impl Track {
    /// Takes in the session that was under way at `now_ns`, `None` when there was none. The history stays until the next begins.
    pub fn take(&mut self, now_ns: u64, report: Option<&Report>) {
        let Some(report) = report else {
            let history = std::mem::take(&mut self.history);
            *self = Self { history, ..Self::default() };
            return;
        };
        let session = (report.id, report.began_monotonic_ns);
        if self.session != Some(session) {
            *self = Self { session: Some(session), ..Self::default() };
        }
        let data = report.figures.data_bytes.map(|bytes| (now_ns, bytes));
        self.throughput =
            self.data.zip(data).and_then(|(before, after)| Rate::between(before, after));
        self.data = data;
        self.take_dirty(now_ns, report);
        if self.history.len() >= HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(self.throughput);
    }

    fn take_dirty(&mut self, now_ns: u64, report: &Report) {
        let Some(account) = report.figures.dirty else {
            (self.dirty, self.dirty_at, self.queries) = (None, None, None);
            return;
        };
        let told = account.queries;
        // A query that failed told nothing.
        let queries = [told.none, told.all, told.bitmap].into_iter().fold(0, u64::saturating_add);
        if self.queries != Some(queries) {
            let after = (now_ns, account.bytes);
            self.dirty = self.dirty_at.and_then(|before| Rate::between(before, after));
            self.dirty_at = (queries > 0).then_some(after);
            self.queries = Some(queries);
        }
        if self.dirty_at.is_none_or(|(at_ns, _)| now_ns.saturating_sub(at_ns) > DIRTY_VALID_NS) {
            self.dirty = None;
        }
    }

    /// Device data moved.
    pub fn throughput(&self) -> Option<Rate> {
        self.throughput
    }

    /// Memory reported dirty.
    pub fn dirty(&self) -> Option<Rate> {
        self.dirty
    }

    /// The throughput in the last snapshots of this session or the last one, oldest first; at most [`HISTORY`].
    pub fn history(&self) -> impl ExactSizeIterator<Item = Option<Rate>> + DoubleEndedIterator {
        self.history.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dirty::{Account, Queries},
        top::canned,
    };
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn report(id: u64, data_bytes: Option<u64>, dirty: Option<(u64, u64)>) -> Report {
        let mut report = canned::source();
        report.id = id;
        report.figures.data_bytes = data_bytes;
        report.figures.dirty = dirty.map(|(bytes, bitmap)| Account {
            pages: bytes / 4096,
            bytes,
            queries: Queries { bitmap, ..Queries::default() },
        });
        report
    }

    fn rate(rate: Option<Rate>) -> Option<(f64, u64)> {
        rate.map(|rate| (rate.bytes_per_second, rate.window_ns))
    }

    #[test]
    fn a_rate_has_the_window_between_two_snapshots() {
        let mut track = Track::default();
        track.take(SECOND, Some(&report(1, Some(100), None)));
        assert_eq!(track.throughput(), None, "one snapshot is no rate");
        track.take(3 * SECOND, Some(&report(1, Some(700), None)));
        assert_eq!(rate(track.throughput()), Some((300.0, 2 * SECOND)));
    }

    #[test]
    fn what_ran_backwards_or_began_anew_is_unknown() {
        let mut track = Track::default();
        let steps = [
            (1, 1, Some(100)),
            (2, 1, Some(50)),  // the counter
            (2, 1, Some(60)),  // no time
            (1, 1, Some(70)),  // the clock
            (3, 2, Some(500)), // the session
            (4, 2, None),      // the probe
            (5, 2, Some(900)), // nothing before it
        ];
        for (at, id, data) in steps {
            track.take(at * SECOND, Some(&report(id, data, None)));
            assert_eq!(track.throughput(), None, "at {at}");
        }
        track.take(6 * SECOND, Some(&report(2, Some(900), None)));
        assert_eq!(rate(track.throughput()), Some((0.0, SECOND)), "0 is an answer");
    }

    #[test]
    fn another_agent_with_the_same_number_is_another_session() {
        let mut track = Track::default();
        track.take(SECOND, Some(&report(1, Some(100), None)));
        let mut other = report(1, Some(200), None);
        other.began_monotonic_ns += 1;
        track.take(2 * SECOND, Some(&other));
        assert_eq!((track.throughput(), track.history().len()), (None, 1));
    }

    #[test]
    fn the_dirty_rate_goes_from_query_to_query() {
        let mut track = Track::default();
        let mut take = |at: u64, bytes, queries| {
            track.take(at * SECOND, Some(&report(1, None, Some((bytes, queries)))));
            rate(track.dirty())
        };
        assert_eq!(take(0, 0, 0), None, "nobody asked");
        assert_eq!(take(1, 4096, 1), None, "since when is not known");
        assert_eq!(take(2, 4096, 1), None);
        assert_eq!(take(3, 12288, 2), Some((4096.0, 2 * SECOND)));
        assert_eq!(take(4, 12288, 2), Some((4096.0, 2 * SECOND)), "nothing new was told");
        assert_eq!(take(5, 12288, 3), Some((0.0, 2 * SECOND)), "told that nothing was dirty");
        assert_eq!(take(15, 12288, 3), Some((0.0, 2 * SECOND)));
        assert_eq!(take(16, 12288, 3), None, "too long ago");
    }

    #[test]
    fn the_shape_of_a_session_stays_until_the_next_begins() {
        let mut track = Track::default();
        for at in 0..100 {
            track.take(at * SECOND, Some(&report(1, Some(at), None)));
        }
        track.take(200 * SECOND, None);
        assert_eq!((track.history().len(), track.throughput()), (HISTORY, None));
        track.take(201 * SECOND, Some(&report(2, Some(0), None)));
        assert_eq!(track.history().len(), 1);
    }

    proptest! {
        #[test]
        fn no_rate_is_negative_or_infinite(
            steps in proptest::collection::vec((any::<u64>(), 0_u64..3, any::<Option<u64>>(), any::<Option<(u64, u64)>>()), 0..30),
        ) {
            let mut track = Track::default();
            for (at_ns, id, data, dirty) in steps {
                track.take(at_ns, Some(&report(id, data, dirty)));
                for rate in [track.throughput(), track.dirty()].into_iter().flatten() {
                    prop_assert!(rate.bytes_per_second.is_finite() && rate.bytes_per_second >= 0.0);
                    prop_assert!(rate.window_ns > 0);
                }
            }
            prop_assert!(track.history().len() <= HISTORY);
        }
    }
}
