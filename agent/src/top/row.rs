// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One line of the table: a device, and the session that it is in or was in last.

use super::{
    outlook::Outlook,
    rate::{Rate, Track},
};
use crate::{observer::DeviceReport, session::report::Report};
use std::cmp::Ordering;

/// A device. Texts are as they came: whoever shows them makes them printable.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was told of the device, and of the session under way.
    pub device: DeviceReport,
    /// The session under way, or else the last one that is known of this device.
    pub session: Option<Report>,
    /// Time in the present state, in nanoseconds.
    pub in_state_ns: Option<u64>,
    /// Device data moved, per second.
    pub throughput: Option<Rate>,
    /// Memory reported dirty, per second.
    pub dirty: Option<Rate>,
    /// The throughput before, oldest first.
    pub history: Vec<Option<Rate>>,
    /// What is to be expected.
    pub outlook: Outlook,
}

/// Whether a device migrates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// A session is under way.
    Migrating,
    /// It had one, of which its line still tells.
    Ended,
    /// It had none that is known.
    Idle,
}

impl Row {
    /// The line of `device` at `now_ns`, by the agent's clock; `last` is the last session of it that has ended.
    pub fn new(device: &DeviceReport, last: Option<&Report>, track: &Track, now_ns: u64) -> Self {
        let session = device.session.as_ref().or(last).cloned();
        Self {
            in_state_ns: device.since_monotonic_ns.map(|since_ns| now_ns.saturating_sub(since_ns)),
            throughput: track.throughput(),
            dirty: track.dirty(),
            history: track.history().collect(),
            outlook: Outlook::of(device, session.as_ref()),
            device: device.clone(),
            session,
        }
    }

    /// Whether it migrates.
    pub fn phase(&self) -> Phase {
        match &self.session {
            Some(session) if session.result.is_none() => Phase::Migrating,
            Some(_) => Phase::Ended,
            None => Phase::Idle,
        }
    }

    /// The state, `?` while unknown.
    pub fn state(&self) -> &str {
        self.device.state.as_deref().unwrap_or("?")
    }

    /// The machine, if its name is known.
    pub fn vm(&self) -> Option<&str> {
        Some(self.device.info.vm.as_str()).filter(|vm| !vm.is_empty())
    }

    /// The role in the session.
    pub fn role(&self) -> Option<&str> {
        self.session.as_ref().map(|session| &*session.role)
    }

    /// The protocol of the session.
    pub fn protocol(&self) -> Option<&str> {
        self.session.as_ref().map(|session| &*session.protocol)
    }

    /// Bytes that are pending: as the session says, which knows whose they are.
    pub fn pending_bytes(&self) -> Option<u64> {
        self.session.as_ref()?.figures.pending_bytes
    }

    /// Share of the data that has moved, 0 to 1: moved over moved and pending. `None` where either is unknown; a destination
    /// is not told what is still to come.
    #[expect(clippy::cast_precision_loss, reason = "a share is shown in hundredths")]
    pub fn progress(&self) -> Option<f64> {
        let moved = self.session.as_ref()?.figures.data_bytes? as f64;
        let pending = self.pending_bytes()? as f64;
        (moved + pending > 0.0).then(|| moved / (moved + pending))
    }

    /// Downtime of a session that has ended, in nanoseconds: of both ends where they were seen, or else of this one.
    pub fn downtime_ns(&self) -> Option<u64> {
        let downtime = &self.session.as_ref()?.downtime;
        downtime.total_ns.or(downtime.source_ns).or(downtime.destination_ns)
    }

    /// What there is to say about the session in a word: how it ended, or what is to be expected. `None` while that is unknown
    /// and while there is no session.
    pub fn verdict(&self) -> Option<&str> {
        let ended = self.session.as_ref().and_then(|session| session.result.as_deref());
        ended.or(self.outlook.verdict.as_deref()).or(self.outlook.reason.as_deref())
    }

    /// Whether the line has `text` in it, whatever the case; it is looked for in what the table shows.
    pub fn contains(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        let shown = [
            Some(self.device.device.as_str()),
            self.vm(),
            self.role(),
            self.protocol(),
            Some(self.state()),
            self.verdict(),
            self.outlook.reason.as_deref(),
        ];
        shown.into_iter().flatten().any(|shown| shown.to_lowercase().contains(&text))
    }
}

/// By what lines are ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortBy {
    /// What migrates first, then what has, then the rest; each by name.
    #[default]
    Activity,
    /// The device's name.
    Device,
    /// The machine's name.
    Vm,
    /// The role.
    Role,
    /// The protocol.
    Protocol,
    /// The state.
    State,
    /// Time in that state.
    Time,
    /// Share of the data that has moved.
    Progress,
    /// Device data per second.
    Throughput,
    /// Dirty memory per second.
    Dirty,
    /// Bytes pending.
    Pending,
    /// Verdict or result.
    Verdict,
}

impl SortBy {
    /// All of them, in the order of the columns.
    pub const ALL: [Self; 12] = [
        Self::Activity,
        Self::Device,
        Self::Vm,
        Self::Role,
        Self::Protocol,
        Self::State,
        Self::Time,
        Self::Progress,
        Self::Throughput,
        Self::Dirty,
        Self::Pending,
        Self::Verdict,
    ];

    /// What it is called on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Activity => "activity",
            Self::Device => "device",
            Self::Vm => "vm",
            Self::Role => "role",
            Self::Protocol => "protocol",
            Self::State => "state",
            Self::Time => "time",
            Self::Progress => "progress",
            Self::Throughput => "data/s",
            Self::Dirty => "dirty/s",
            Self::Pending => "pending",
            Self::Verdict => "verdict",
        }
    }

    /// The order after this one, or before it.
    pub fn step(self, forward: bool) -> Self {
        let count = Self::ALL.len();
        let place = Self::ALL.iter().position(|by| *by == self).unwrap_or(0);
        let next = (place + if forward { 1 } else { count - 1 }) % count;
        Self::ALL.get(next).copied().unwrap_or_default()
    }

    /// Whether the largest is of interest first.
    fn largest_first(self) -> bool {
        matches!(self, Self::Time | Self::Progress | Self::Throughput | Self::Dirty | Self::Pending)
    }

    /// The order of two lines. What is unknown comes last, either way; equals are ordered by name, so that no line jumps.
    pub fn compare(self, a: &Row, b: &Row, reversed: bool) -> Ordering {
        let by_name = a.device.device.cmp(&b.device.device);
        let down = self.largest_first() != reversed;
        let order = match self {
            Self::Activity if reversed => b.phase().cmp(&a.phase()),
            Self::Activity => a.phase().cmp(&b.phase()),
            Self::Device if reversed => by_name.reverse(),
            Self::Device => by_name,
            Self::Vm => unknown_last(a.vm(), b.vm(), down, Ord::cmp),
            Self::Role => unknown_last(a.role(), b.role(), down, Ord::cmp),
            Self::Protocol => unknown_last(a.protocol(), b.protocol(), down, Ord::cmp),
            Self::State => {
                let state = |row: &Row| row.device.state.clone();
                unknown_last(state(a), state(b), down, Ord::cmp)
            }
            Self::Time => unknown_last(a.in_state_ns, b.in_state_ns, down, Ord::cmp),
            Self::Progress => unknown_last(a.progress(), b.progress(), down, f64::total_cmp),
            Self::Throughput => by_rate(a.throughput, b.throughput, down),
            Self::Dirty => by_rate(a.dirty, b.dirty, down),
            Self::Pending => unknown_last(a.pending_bytes(), b.pending_bytes(), down, Ord::cmp),
            Self::Verdict => unknown_last(a.verdict(), b.verdict(), down, Ord::cmp),
        };
        order.then(by_name)
    }
}

fn by_rate(a: Option<Rate>, b: Option<Rate>, down: bool) -> Ordering {
    let speed = |rate: Option<Rate>| rate.map(|rate| rate.bytes_per_second);
    unknown_last(speed(a), speed(b), down, f64::total_cmp)
}

fn unknown_last<T>(
    a: Option<T>,
    b: Option<T>,
    down: bool,
    order: fn(&T, &T) -> Ordering,
) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if down => order(&b, &a),
        (Some(a), Some(b)) => order(&a, &b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::canned;

    #[test]
    fn progress_is_unknown_while_either_part_is() {
        let mut row = canned::row();
        let mut progress = |moved, pending| {
            let session = row.session.as_mut().expect("canned");
            session.figures.data_bytes = moved;
            session.figures.pending_bytes = pending;
            row.progress()
        };
        assert_eq!(progress(Some(30), Some(10)), Some(0.75));
        assert_eq!(progress(Some(0), Some(10)), Some(0.0));
        assert_eq!(progress(Some(30), None), None);
        assert_eq!(progress(None, Some(10)), None);
        assert_eq!(progress(Some(0), Some(0)), None, "nothing moved, nothing told: no share");
        assert_eq!(progress(Some(u64::MAX), Some(u64::MAX)), Some(0.5));
    }

    #[test]
    fn what_is_unknown_comes_last_in_either_direction() {
        let known = canned::row();
        let mut unknown = canned::row();
        unknown.device.device = "0000:00:01.0".into();
        unknown.in_state_ns = None;
        for reversed in [false, true] {
            assert_eq!(SortBy::Time.compare(&known, &unknown, reversed), Ordering::Less);
        }
    }

    #[test]
    fn the_steps_go_through_all_orders_and_back() {
        let mut by = SortBy::Activity;
        for _ in SortBy::ALL {
            assert_eq!(by.step(true).step(false), by);
            by = by.step(true);
        }
        assert_eq!(by, SortBy::Activity);
    }

    #[test]
    fn a_filter_looks_at_what_is_shown() {
        let row = canned::row();
        for text in ["00:10", "WEB", "source", "pre_copy", "region", ""] {
            assert!(row.contains(text), "{text}");
        }
        assert!(!row.contains("destination"));
    }
}
