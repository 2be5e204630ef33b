// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What earlier migrations of like devices took: the part of a downtime that does not depend on bytes.
//!
//! Devices are alike if the same driver has them. The last migration counts, not the mean of all: a device that was given another
//! firmware, or a host another kernel, is as it was last.

use super::{End, Role, Session};
use std::collections::BTreeMap;

/// Drivers that are remembered. A host has a handful.
const DRIVERS: usize = 64;

/// Lengths that were seen, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The source's changes of state that lie in the downtime.
    pub transitions_ns: Option<u64>,
    /// The destination's change of state that makes the device run.
    pub start_ns: Option<u64>,
}

/// What is remembered, by driver.
#[derive(Clone, Debug, Default)]
pub struct Experience {
    seen: BTreeMap<String, Seen>,
}

impl Experience {
    /// What was seen of devices of `driver`; an empty name is no driver.
    pub fn of(&self, driver: &str) -> Seen {
        self.seen.get(driver).copied().unwrap_or_default()
    }

    /// Learns from a session that has ended.
    pub fn learn(&mut self, driver: &str, session: &Session) {
        let completed = matches!(session.end, Some((End::Completed, _))) && session.exact;
        let full = self.seen.len() >= DRIVERS && !self.seen.contains_key(driver);
        if !completed || driver.is_empty() || full {
            return;
        }
        let seen = self.seen.entry(driver.to_owned()).or_default();
        match session.role {
            Role::Source => {
                let stood = session.transitions.iter().filter(|change| !change.refused());
                let after_stop = stood.filter(|change| !change.now.is_running());
                let total_ns = after_stop.fold(0_u64, |sum, c| sum.saturating_add(c.duration_ns));
                seen.transitions_ns = Some(total_ns);
            }
            Role::Destination => seen.start_ns = session.downtime.start_ns,
        }
    }
}
