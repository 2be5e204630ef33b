// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One line of the table: a device, and the session that it is in or was in last.

use super::{
    outlook::Outlook,
    rate::{Rate, Track},
};
use crate::{observer::DeviceReport, session::report::Report};

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

#[cfg(test)]
mod tests {
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
    fn a_filter_looks_at_what_is_shown() {
        let row = canned::row();
        for text in ["00:10", "WEB", "source", "pre_copy", "region", ""] {
            assert!(row.contains(text), "{text}");
        }
        assert!(!row.contains("destination"));
    }
}
