// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is to be expected of a device's session, and why: the one place where that is read from a snapshot.

use crate::{observer::DeviceReport, session::report::Report};

/// What is to be expected; what is unknown is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outlook {
    /// Whether it comes to an end: `converging`, `not_converging`.
    pub verdict: Option<String>,
    /// What stands in the way, by the name that it has in the metrics: what to look at first.
    pub reason: Option<String>,
    /// The same in a sentence.
    pub explanation: Option<String>,
    /// Time until the end, in nanoseconds.
    pub remaining_ns: Option<u64>,
    /// The downtime to come, in nanoseconds.
    pub downtime_ns: Option<u64>,
}

impl Outlook {
    /// What the agent says of `device`, in the session that is under way. Of one that has ended nothing is to be expected.
    pub fn of(device: &DeviceReport, session: Option<&Report>) -> Self {
        let blocked = |reason: &str, explanation: &str| Self {
            reason: Some(reason.to_owned()),
            explanation: Some(explanation.to_owned()),
            ..Self::default()
        };
        if device.state.as_deref() == Some("error") {
            return blocked(
                "device_error",
                "the device is in its error state; only a reset brings it back",
            );
        }
        let Some(session) = session.filter(|session| session.result.is_none()) else {
            return Self::default();
        };
        let Some(outlook) = &session.outlook else {
            return if session.exact {
                Self::default()
            } else {
                // A destination, of which nothing else is foretold.
                blocked(
                    "agent_blind",
                    "the agent has not seen all of this session: figures may be too low",
                )
            };
        };
        let first = outlook.blocked.first();
        Self {
            verdict: (outlook.verdict != "unknown").then(|| outlook.verdict.to_string()),
            reason: first.map(|blocked| blocked.reason.to_string()),
            explanation: first.map(|blocked| blocked.explanation.clone()),
            remaining_ns: outlook.remaining.map(|band| band.expected_ns),
            downtime_ns: outlook.downtime.map(|band| band.expected_ns),
        }
    }
}
