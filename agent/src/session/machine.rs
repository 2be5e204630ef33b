// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The migration of a machine: the sessions of all its devices, as one.
//!
//! ```text
//!   process 4711, source    device A  ├───────────────────┤
//!                           device B    ├───────────────┤
//!                           machine   ╞═══════════════════╡
//! ```
//!
//! A VMM opens the devices of its one machine, so sessions of one process with one role that overlap in time are one migration.
//! It ends when the last of them does. Its result is the worst of theirs: a machine whose one device failed has not moved.

use super::{
    End, Role, Session,
    trackers::{Bounds, BySource, Trackers},
};
use crate::metrics::Info;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::VecDeque};

/// Ended migrations that are kept.
const HISTORY: usize = 128;
/// Devices of one machine whose sessions are listed; a PCI bus has 32 places.
const DEVICES: usize = 256;

/// One migration of one machine, as the API gives it. Times are nanoseconds of `CLOCK_MONOTONIC`; what is unknown is `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// Number of the migration in this agent, from 1.
    pub id: u64,
    /// The machine's process.
    pub pid: u32,
    /// The machine's name, where it could be told.
    pub vm: Option<String>,
    /// The machine's UUID, where it could be told.
    pub vm_uuid: Option<String>,
    /// `source` or `destination`.
    pub role: Cow<'static, str>,
    /// The sessions of its devices, by their numbers.
    pub sessions: Vec<u64>,
    /// When the first of them began.
    pub began_monotonic_ns: u64,
    /// When the last of them ended; `null` while one runs.
    pub ended_monotonic_ns: Option<u64>,
    /// The worst end of them; `null` while one runs.
    pub result: Option<Cow<'static, str>>,
    /// Whether every record of all of them was seen.
    pub exact: bool,
    /// Device data moved by the sessions that have ended, in bytes.
    pub data_bytes: Option<u64>,
    /// How long the machine's devices stood: from the first that stopped until the last session ended (source), or from the first
    /// that entered resuming until the last that ran (destination).
    pub downtime_ns: Option<u64>,
    /// What was told of dirty pages of the machine by `type1`, `iommufd` and `kvm`, from the beginning of the first session until the end of
    /// the last; as far as it was when one ended, while another runs, and `null` before. See [`Report::machine_dirty`](super::report::Report).
    #[serde(default)]
    pub machine_dirty: Option<BySource>,
    /// How much memory that was, if a page counts once that several of them told: not exactly, but within these bounds.
    #[serde(default)]
    pub machine_dirty_union: Option<Bounds>,
}

impl Migration {
    /// Whether its machine ran here before, so that the time for which its devices stood is a downtime: a source. The devices of a
    /// destination stand from the beginning, most of that time while the source still runs.
    pub fn ran_before(&self) -> bool {
        self.role == Role::Source.name()
    }
}

/// Puts sessions together.
#[derive(Debug, Default)]
pub struct Machines {
    running: Vec<Running>,
    history: VecDeque<Migration>,
    last_id: u64,
}

#[derive(Debug)]
struct Running {
    migration: Migration,
    open: Vec<u64>,
    worst: Option<End>,
    stop_began_ns: Option<u64>,
    /// From the beginning of the first session.
    trackers: Trackers,
}

impl Machines {
    /// A session has begun.
    pub fn began(&mut self, session: &Session) {
        let Some(pid) = session.tgid else {
            return; // which machine's it is will be told by its first change of state
        };
        if let Some(running) = self.of(session) {
            if running.migration.sessions.len() < DEVICES {
                running.migration.sessions.push(session.id);
                running.open.push(session.id);
            }
            return;
        }
        self.last_id += 1;
        let migration = Migration {
            id: self.last_id,
            pid,
            vm: None,
            vm_uuid: None,
            role: session.role.name().into(),
            sessions: vec![session.id],
            began_monotonic_ns: session.began_ns,
            ended_monotonic_ns: None,
            result: None,
            exact: session.seen_from_start,
            data_bytes: Some(0),
            downtime_ns: None,
            machine_dirty: None,
            machine_dirty_union: None,
        };
        let open = vec![session.id];
        let trackers = session.trackers.clone();
        self.running.push(Running { migration, open, worst: None, stop_began_ns: None, trackers });
    }

    /// The process of a session was found to be this machine.
    pub fn described(&mut self, session: &Session, info: &Info) {
        let Some(pid) = session.tgid else {
            return;
        };
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        for running in self.running.iter_mut().filter(|running| running.migration.pid == pid) {
            let Migration { vm, vm_uuid, .. } = &mut running.migration;
            *vm = known(&info.vm).or(vm.take());
            *vm_uuid = known(&info.vm_uuid).or(vm_uuid.take());
        }
    }

    /// A session has ended. Gives the migration that ended with it.
    pub fn ended(&mut self, session: &Session) -> Option<Migration> {
        let (end, at_ns) = session.end?;
        let running = self.of(session)?;
        let before = running.open.len();
        running.open.retain(|id| *id != session.id);
        if running.open.len() == before {
            return None; // one of more devices than are kept
        }
        running.worst = running.worst.max(Some(end));
        running.trackers.follow(&session.trackers);
        let told = running.trackers.by_source(session.coverage.trackers);
        running.migration.machine_dirty_union = told.as_ref().map(Bounds::of);
        running.migration.machine_dirty = told;
        let migration = &mut running.migration;
        migration.exact &= session.exact;
        let moved = session.figures().data_bytes;
        migration.data_bytes = migration.data_bytes.zip(moved).map(|(a, b)| a.saturating_add(b));
        let stopped_ns = match session.role {
            Role::Source => session.stop_began_ns(),
            Role::Destination => session.entered_ns(),
        };
        running.stop_began_ns = match (running.stop_began_ns, stopped_ns) {
            (Some(first), Some(this)) => Some(first.min(this)),
            (first, this) => first.or(this),
        };
        if !running.open.is_empty() {
            return None;
        }
        let id = migration.id;
        let place = self.running.iter().position(|running| running.migration.id == id)?;
        let Running { mut migration, worst, stop_began_ns, .. } = self.running.swap_remove(place);
        migration.ended_monotonic_ns = Some(at_ns);
        migration.result = worst.map(|end| end.name().into());
        // Where a device failed or was lost sight of, nobody knows how long the machine stood.
        let stood = match (worst, session.role) {
            (Some(End::Completed), _) | (Some(End::Cancelled), Role::Source) => stop_began_ns,
            _ => None,
        };
        migration.downtime_ns = stood.map(|began_ns| at_ns.saturating_sub(began_ns));
        self.history.push_back(migration.clone());
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
        Some(migration)
    }

    /// The migrations that are kept and those under way, by their numbers.
    pub fn all(&self) -> Vec<Migration> {
        let running = self.running.iter().map(|running| &running.migration);
        let mut all: Vec<_> = self.history.iter().chain(running).cloned().collect();
        all.sort_by_key(|migration| migration.id);
        all
    }

    /// The migration that the session is or would be a part of.
    fn of(&mut self, session: &Session) -> Option<&mut Running> {
        let pid = session.tgid?;
        self.running.iter_mut().find(|Running { migration, .. }| {
            migration.pid == pid && migration.role == session.role.name()
        })
    }
}

#[cfg(test)]
mod tests;
