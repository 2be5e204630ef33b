// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sessions: one migration of one device, from leaving its ordinary life to its end.
//!
//! ```text
//!  source                                                destination
//!
//!   running ──▶ pre_copy ──▶ stop_and_copy ──▶ stopped    running or stopped ──▶ resuming ──▶ running
//!           begins │              │         completed              begins            │   completed
//!                  ├──▶ running   ├──▶ running  cancelled                            ├──▶ stopped   cancelled
//!                  ├──▶ stopped   │             cancelled                            │
//!                  └──▶ error, reset, close ◀┘  failed                               └──▶ error, reset, close   failed
//! ```
//!
//! A session of a source also begins with stop_and_copy, from running or from stopped: a machine that is paused is migrated
//! without pre-copy. A pause alone is no session.
//!
//! A session's figures are the difference between the copies of the device's sums in the record that began it and in the
//! record that ended it. So they are exact whenever the agent reads them, unless a record was lost, and then `exact` says so. A
//! session whose end was lost ends as *unknown*: it is counted, with no guess at what became of it.

pub mod conduct;
pub mod downtime;
pub mod experience;
pub mod machine;
pub mod outlook;
pub mod pairing;
pub mod report;
pub mod timeline;
mod tracker;

use crate::device_key::DeviceKey;
use crate::{
    dirty::Account,
    event::StateChange,
    probes::Standing,
    state::{Protocol, Seen, State, unseen_bitmaps},
};
use conduct::Violations;
pub use downtime::Downtime;
use downtime::Stamps;
use migscope_abi::{
    probe::Probe,
    ring::DeviceSums,
    state::Cause,
    trace::{DataDirection, DmaDirection},
};
use outlook::Outlook;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use timeline::{Point, Timeline};
pub use tracker::Tracker;

/// Transitions kept of one session; a migration makes four. More are counted only: a process may write states for ever.
const TRANSITIONS: usize = 256;

/// Which end of a migration a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It gives its state away.
    Source,
    /// It takes state in.
    Destination,
}

impl Role {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Source, Self::Destination];

    /// The value of the label `role`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The source was saved to its end, or the destination runs.
    Completed,
    /// The VMM went back: the source runs on, the destination was put aside. Whether a user wanted that or the VMM could not go on (QEMU's
    /// `cancelled` and `failed`), a device is not told.
    Cancelled,
    /// The device failed, was reset, or was closed in the middle.
    Failed,
    /// The record of the end was lost.
    Unknown,
}

impl End {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Completed, Self::Cancelled, Self::Failed, Self::Unknown];

    /// The value of the label `result`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// What is added up at all: a sum that no probe feeds is unknown, not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Device data and iterations.
    pub data: bool,
    /// Dirty pages and queries.
    pub dirty: bool,
    /// DMA.
    pub dma: bool,
    /// Accesses and what `pending_bytes` reads as.
    pub access: bool,
    /// Broken rules.
    pub errors: bool,
    /// States, and so sessions.
    pub state: bool,
}

/// What is added up, by protocol: other probes feed it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverages {
    /// Of devices of our driver, whose tracepoints tell.
    pub region: Coverage,
    /// Of devices with a migration region of any driver.
    pub outside: Coverage,
    /// Of devices of any driver of the v2 protocol.
    pub v2: Coverage,
}

impl Coverages {
    /// What the probes that are there cover.
    pub fn of_probes(standing: &Standing) -> Self {
        let attached = |probe| standing.get(&probe).is_some_and(Result::is_ok);
        let call = |entry, end| attached(entry) && attached(end);
        let ioctls = call(Probe::DeviceIoctl, Probe::DeviceIoctlReturn);
        let read = call(Probe::DataRead, Probe::DataReadReturn);
        let written = call(Probe::DataWrite, Probe::DataWriteReturn);
        // Those that come and go miss nothing while they are gone.
        let at_hand = |probe| match standing.get(&probe) {
            Some(Ok(())) => true,
            Some(Err(missing)) => missing.dormant,
            None => false,
        };
        let accesses = [Probe::RegionRead, Probe::RegionWrite, Probe::RegionReturn];
        let outside = ioctls && accesses.into_iter().all(at_hand);
        Self {
            region: Coverage {
                data: attached(Probe::Data),
                dirty: attached(Probe::DirtyQuery),
                dma: attached(Probe::Dma),
                access: attached(Probe::RegionAccess),
                errors: attached(Probe::Error),
                state: attached(Probe::State),
            },
            outside: Coverage {
                data: outside,
                dirty: outside,
                // Neither what the device's DMA does nor which rule a refusal was for can be told from outside.
                dma: false,
                access: outside,
                errors: false,
                state: outside && attached(Probe::DeviceRelease),
            },
            v2: Coverage {
                data: read && written,
                dirty: ioctls,
                // What a device's DMA does is the device's own affair.
                dma: false,
                access: ioctls && call(Probe::DataIoctl, Probe::DataIoctlReturn),
                errors: ioctls,
                state: ioctls && attached(Probe::StateStep) && attached(Probe::DeviceRelease),
            },
        }
    }

    /// What of them holds for a device that is seen in this way.
    pub fn of(&self, seen: Seen) -> Coverage {
        match seen {
            Seen::Tracepoints => self.region,
            Seen::Outside => self.outside,
            Seen::V2 => self.v2,
        }
    }

    /// What of them holds for the device of a change of state.
    pub fn of_change(&self, change: &StateChange) -> Coverage {
        self.of(match (&change.sums, change.protocol) {
            (Some(sums), _) => Seen::of(sums),
            (None, Protocol::V2) => Seen::V2,
            (None, Protocol::Region) => Seen::Tracepoints,
        })
    }
}

/// One migration of one device.
#[derive(Clone, Debug)]
pub struct Session {
    /// Number of this session in this agent, from 1.
    pub id: u64,
    /// Which device.
    pub device: DeviceKey,
    /// Which end.
    pub role: Role,
    /// Process that began it; unknown while no change of state of it was seen.
    pub tgid: Option<u32>,
    /// By which protocol the device migrates.
    pub protocol: Protocol,
    /// `CLOCK_MONOTONIC` when the change of state that began it began, in nanoseconds; where that was not seen, when the agent
    /// first saw it under way.
    pub began_ns: u64,
    /// Whether its beginning was seen. What was moved before is in none of its figures.
    pub seen_from_start: bool,
    /// How and when (`CLOCK_MONOTONIC`, nanoseconds) it ended.
    pub end: Option<(End, u64)>,
    /// Whether nothing of it was lost and it was seen from its beginning.
    pub exact: bool,
    /// Changes of state in it, refused ones too, in their order.
    pub transitions: Vec<StateChange>,
    /// Changes past the number that is kept.
    pub transitions_left_out: u64,
    /// Rules that were broken in it.
    pub violations: Violations,
    /// What it had moved at each moment.
    pub timeline: Timeline,
    /// What was being added up while it ran.
    pub coverage: Coverage,
    /// What is to come of it, while it is a source under way; afterwards, what was thought last.
    pub outlook: Outlook,
    /// The downtime, as far as it is known.
    pub downtime: Downtime,
    /// The session at the other end, where it is known.
    pub peer: Option<u64>,
    state: State,
    stop_began_ns: Option<u64>,
    stamps: Stamps,
    base: Option<DeviceSums>,
    last: Option<DeviceSums>,
}

/// What a device of the v2 protocol says of itself; a region has no such questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// What `VFIO_DEVICE_FEATURE_MIG_DATA_SIZE` last told.
    pub stop_copy_bytes: Option<u64>,
    /// Whether that question was refused.
    pub query_failed: bool,
    /// How often the initial data of pre-copy began anew.
    pub reinits: u64,
}

/// What a source that runs did not give in this session, though it told it to be left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dry {
    /// How often it had nothing to give.
    pub answers: u64,
    /// What was left the last time, in bytes.
    pub bytes: u64,
}

/// What was moved and reported in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Device data moved in the session's direction, in bytes.
    pub data_bytes: Option<u64>,
    /// Buffers that it came in.
    pub iterations: Option<u64>,
    /// Dirty pages.
    pub dirty: Option<Account>,
    /// What is still pending, as last told in this session, in bytes.
    pub pending_bytes: Option<u64>,
    /// How often the VMM asked a source what is left to move once the device stands (`VFIO_DEVICE_FEATURE_MIG_DATA_SIZE`), refused
    /// questions too. QEMU (10.0, `migration_iteration_run()`) asks when what it believes to be left has come to fit into the downtime that
    /// is allowed: what it then does not stop for was a switch-over that it put off. Without a measured bandwidth it stops unasked.
    pub size_queries: Option<u64>,
    /// Time that the driver was busy staging or taking in data, in nanoseconds.
    pub data_busy_ns: Option<u64>,
    /// Time that the driver was busy answering dirty queries, in nanoseconds.
    pub query_busy_ns: Option<u64>,
    /// Bytes that the device wrote to memory.
    pub dma_to_memory_bytes: Option<u64>,
    /// Transfers that wrote them.
    pub dma_to_memory_transfers: Option<u64>,
}

impl Session {
    /// What was moved, from its beginning to its end, or to what is known now.
    pub fn figures(&self) -> Figures {
        let Coverage { data, dirty, dma, access, .. } = self.coverage;
        let direction = match self.role {
            Role::Source => DataDirection::Save,
            Role::Destination => DataDirection::Resume,
        } as usize;
        let to_memory = DmaDirection::ToMemory as usize;
        let difference = |covered: bool, of: &dyn Fn(&DeviceSums) -> u64| {
            let (base, last) = (self.base.as_ref()?, self.last.as_ref()?);
            if covered { of(last).checked_sub(of(base)) } else { None }
        };
        Figures {
            data_bytes: difference(data, &|sums| sums.data_bytes[direction]),
            iterations: difference(data, &|sums| sums.iterations[direction]),
            dirty: match (&self.base, &self.last) {
                (Some(base), Some(last))
                    if dirty && unseen_bitmaps(base) == unseen_bitmaps(last) =>
                {
                    Account::from(last).since(&base.into())
                }
                _ => None,
            },
            pending_bytes: self.pending_bytes(),
            size_queries: difference(
                access && self.protocol == Protocol::V2 && self.role == Role::Source,
                &|sums| sums.left.stop_copy_tellings.saturating_add(sums.left.stop_copy_refusals),
            ),
            data_busy_ns: difference(data, &|sums| sums.data_busy_ns[direction]),
            query_busy_ns: difference(dirty, &|sums| sums.query_busy_ns),
            dma_to_memory_bytes: difference(dma, &|sums| sums.dma_bytes[to_memory]),
            dma_to_memory_transfers: difference(dma, &|sums| sums.dma_transfers[to_memory]),
        }
    }

    /// When the state that began it had been entered (`CLOCK_MONOTONIC`, nanoseconds), if that was seen.
    pub fn entered_ns(&self) -> Option<u64> {
        self.transitions.first().filter(|_| self.seen_from_start).map(|entered| entered.at_ns)
    }

    /// When the source's device began to stop (`CLOCK_MONOTONIC`, nanoseconds).
    pub fn stop_began_ns(&self) -> Option<u64> {
        self.stop_began_ns
    }

    /// What is pending, if it was told in this session: what was told in the one before means nothing.
    fn pending_bytes(&self) -> Option<u64> {
        let (base, last) = (self.base.as_ref()?, self.last.as_ref()?);
        let told = self.coverage.access && last.pending_reads > base.pending_reads;
        (told && self.role == Role::Source).then_some(last.pending_bytes)
    }

    /// What the device said of what can only move once it stands, by the v2 protocol.
    ///
    /// A VMM asks for it before it begins to save as well (QEMU, `vfio_save_setup`), so what was told before the first record counts.
    pub fn sizes(&self) -> Sizes {
        let (Some(base), Some(last)) = (self.base.as_ref(), self.last.as_ref()) else {
            return Sizes::default();
        };
        let (base, last) = (base.left, last.left);
        let asked_before = base.stop_copy_refusals > 0 && last.stop_copy_tellings == 0;
        Sizes {
            stop_copy_bytes: (last.stop_copy_tellings > 0).then_some(last.stop_copy_bytes),
            query_failed: last.stop_copy_refusals > base.stop_copy_refusals || asked_before,
            reinits: last.reinits.saturating_sub(base.reinits),
        }
    }

    /// Whether its device is one that is seen from outside.
    pub fn is_seen_from_outside(&self) -> bool {
        self.last.or(self.base).is_some_and(|sums| Seen::of(&sums) == Seen::Outside)
    }

    /// How often the device had nothing to give while it ran, and what was left of what it told.
    pub fn dry(&self) -> Dry {
        let (Some(base), Some(last)) = (self.base.as_ref(), self.last.as_ref()) else {
            return Dry::default();
        };
        let answers = last.withheld.answers.saturating_sub(base.withheld.answers);
        Dry { answers, bytes: last.withheld.bytes }
    }

    /// When the ends of the migration can be seen to meet.
    pub fn stamps(&self) -> Stamps {
        self.stamps
    }

    /// The state that the device is in, as far as this session was told.
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes in a reading of the sums while the session runs. One that was taken before the record that is already known is old.
    pub fn sampled(&mut self, sums: DeviceSums, at_ns: u64) {
        if self.last.is_some_and(|last| sums.last_seen_ns < last.last_seen_ns) {
            return;
        }
        self.last = Some(sums);
        self.note(at_ns, false);
    }

    /// Adds what is known now to the timeline.
    fn note(&mut self, at_ns: u64, edge: bool) {
        let thought = self.outlook.assessment();
        let point = Point::new(at_ns, self.state, edge, &self.figures(), thought);
        self.timeline.push(point);
    }

    /// Something was lost in `window` (`CLOCK_MONOTONIC`, nanoseconds): what overlaps it is not exact.
    pub fn lost(&mut self, window: &RangeInclusive<u64>) {
        let ended_before = self.end.is_some_and(|(_, at_ns)| at_ns < *window.start());
        if !ended_before && self.began_ns <= *window.end() {
            self.exact = false;
        }
    }

    fn push(&mut self, change: &StateChange) {
        if self.transitions.len() < TRANSITIONS {
            self.transitions.push(change.clone());
        } else {
            self.transitions_left_out = self.transitions_left_out.saturating_add(1);
        }
    }

    fn advance(&mut self, change: &StateChange) {
        self.push(change);
        if change.refused() {
            return;
        }
        self.state = change.now;
        self.tgid = self.tgid.or(Some(change.tgid));
        self.last = change.sums;
        self.exact &= change.sums.is_some();
        self.left(change);
        self.note(change.at_ns, true);
        if let Some(end) = self.end_by(change) {
            self.finish(end, change.at_ns);
        }
    }

    /// Takes in the stay in a state that `change` ended.
    fn left(&mut self, change: &StateChange) {
        let Some(sums) = change.sums else {
            return;
        };
        let Coverage { data, dirty, .. } = self.coverage;
        match (self.role, change.from, change.now) {
            (Role::Source, State::StopAndCopy, _) => {
                self.downtime.source_stood(&sums.stay, dirty, data);
                let last_ns = sums.stay.data_ended_ns;
                self.stamps.last_buffer_ns = (data && last_ns != 0).then_some(last_ns);
            }
            (Role::Destination, _, State::Running) => {
                self.downtime.start_ns = Some(change.duration_ns);
                self.downtime.load_ns = self.figures().data_busy_ns;
                self.stamps.start_began_ns = Some(change.began_ns());
            }
            _ => {}
        }
    }

    /// How `change` ends the session, if it does.
    fn end_by(&self, change: &StateChange) -> Option<End> {
        match (change.cause, self.role, change.now) {
            (Cause::Close | Cause::Reset | Cause::Failure | Cause::Open, ..)
            | (Cause::Write, _, State::Error) => Some(End::Failed),
            (
                Cause::Write,
                Role::Source,
                State::PreCopy | State::PreCopyP2p | State::StopAndCopy,
            )
            | (Cause::Write, Role::Destination, State::Resuming) => None,
            // A stop on the way to running or from it (v2): neither the end nor the beginning of anything.
            (Cause::Write, Role::Destination, State::RunningP2p) => None,
            (Cause::Write, Role::Source, State::Stopped) => match change.from {
                State::StopAndCopy => Some(End::Completed),
                _ => Some(End::Cancelled),
            },
            (Cause::Write, Role::Source, State::Running | State::RunningP2p | State::Resuming) => {
                Some(End::Cancelled)
            }
            (Cause::Write, Role::Destination, State::Running) => Some(End::Completed),
            (
                Cause::Write,
                Role::Destination,
                State::Stopped | State::PreCopy | State::PreCopyP2p | State::StopAndCopy,
            ) => Some(End::Cancelled),
        }
    }

    fn finish(&mut self, end: End, at_ns: u64) {
        self.end = Some((end, at_ns));
        // A device that failed or was closed stays down beyond the session: how long is not known.
        let measured = matches!(end, End::Completed | End::Cancelled);
        match self.role {
            Role::Source if measured => {
                self.downtime.source_ns =
                    self.stop_began_ns.map(|began| at_ns.saturating_sub(began));
            }
            Role::Destination if end == End::Completed => {
                self.downtime.destination_ns =
                    self.entered_ns().map(|entered_ns| at_ns.saturating_sub(entered_ns));
            }
            Role::Source | Role::Destination => {}
        }
    }

    /// A session that nothing has happened in; `entered` is the state that it begins with, and since when.
    fn new(
        id: u64,
        device: DeviceKey,
        role: Role,
        entered: (State, u64),
        sums: Option<DeviceSums>,
        coverage: Coverage,
    ) -> Self {
        let (state, began_ns) = entered;
        Self {
            id,
            device,
            role,
            tgid: None,
            protocol: Protocol::Region,
            began_ns,
            seen_from_start: true,
            end: None,
            exact: true,
            transitions: Vec::new(),
            transitions_left_out: 0,
            violations: Violations::default(),
            timeline: Timeline::default(),
            coverage,
            outlook: Outlook::default(),
            downtime: Downtime::default(),
            peer: None,
            state,
            stop_began_ns: None,
            stamps: Stamps::default(),
            base: sums,
            last: sums,
        }
    }

    fn note_stop(&mut self, stopped: Option<(u64, u64)>) {
        if let (Role::Source, Some((began_ns, duration_ns)), None) =
            (self.role, stopped, self.stop_began_ns)
        {
            self.stop_began_ns = Some(began_ns);
            self.downtime.stop_ns = Some(duration_ns);
        }
    }
}

#[cfg(test)]
mod tests;
