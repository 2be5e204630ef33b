// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which session a device is in: the one that a change of state begins, goes on with, or ends.

use super::{Coverage, End, Role, Session};
use crate::{
    device_key::DeviceKey,
    event::StateChange,
    state::{State, protocol_of},
};
use migscope_abi::{ring::DeviceSums, state::Cause};

/// Follows one device through its sessions.
#[derive(Debug, Default)]
pub struct Tracker {
    current: Option<Session>,
    /// When the device left a running state and how long that took, while it does not run.
    stopped: Option<(u64, u64)>,
}

impl Tracker {
    /// The session that is under way.
    pub fn current(&self) -> Option<&Session> {
        self.current.as_ref()
    }

    /// The same, to be changed.
    pub fn current_mut(&mut self) -> Option<&mut Session> {
        self.current.as_mut()
    }

    /// Takes in a change of state. Gives the session that it ended, if any; `next_id` numbers one that it begins.
    pub fn advance(
        &mut self,
        change: &StateChange,
        next_id: &mut u64,
        coverage: Coverage,
    ) -> Vec<Session> {
        let mut ended = Vec::new();
        if let Some(session) = &self.current
            && session.state != change.from
        {
            // Between two records that we have there is one that we have not.
            ended.extend(self.end_unseen(change.began_ns()));
        }
        if change.refused() {
            if let Some(session) = &mut self.current {
                session.push(change);
            }
            return ended;
        }
        // The first that is seen of a migration may be a change in its middle, or its end. One whose middle was lost is no other one.
        if let (true, None, Some(sums)) = (ended.is_empty(), &self.current, change.sums) {
            self.found(change.device, change.from, sums, change.began_ns(), next_id, coverage);
        }
        if change.from.is_running() && !change.now.is_running() {
            self.stopped = Some((change.began_ns(), change.duration_ns));
        }
        if let Some(session) = &mut self.current {
            session.note_stop(self.stopped);
            session.advance(change);
            if session.end.is_some() {
                ended.extend(self.current.take());
            }
        }
        if self.current.is_none() && change.cause == Cause::Write {
            self.current = self.begin(change, next_id, coverage);
        }
        if change.now.is_running() || change.cause == Cause::Close {
            self.stopped = None;
        }
        ended
    }

    /// Ends the session under way without having seen its end.
    pub fn end_unseen(&mut self, at_ns: u64) -> Option<Session> {
        let mut session = self.current.take()?;
        session.exact = false;
        session.finish(End::Unknown, at_ns.max(session.began_ns));
        Some(session)
    }

    /// The device was found in `state`, in the middle of a session whose beginning nobody saw. Gives whether one was begun.
    pub fn found(
        &mut self,
        device: DeviceKey,
        state: State,
        sums: DeviceSums,
        at_ns: u64,
        next_id: &mut u64,
        coverage: Coverage,
    ) -> bool {
        let role = match state {
            State::PreCopy | State::PreCopyP2p | State::StopAndCopy => Role::Source,
            State::Resuming => Role::Destination,
            State::Stopped | State::Running | State::RunningP2p | State::Error => return false,
        };
        if self.current.is_some() {
            return false;
        }
        let mut session = Session {
            seen_from_start: false,
            exact: false,
            protocol: protocol_of(&sums),
            ..Session::new(*next_id, device, role, (state, at_ns), Some(sums), coverage)
        };
        *next_id += 1;
        session.note(at_ns, true);
        self.current = Some(session);
        true
    }

    fn begin(
        &self,
        change: &StateChange,
        next_id: &mut u64,
        coverage: Coverage,
    ) -> Option<Session> {
        let role = match (change.from, change.now) {
            (_, State::PreCopy | State::PreCopyP2p | State::StopAndCopy) => Role::Source,
            (from, State::Resuming) if from != State::Resuming => Role::Destination,
            _ => return None,
        };
        let id = *next_id;
        *next_id += 1;
        let entered = (change.now, change.began_ns());
        let mut session = Session {
            tgid: Some(change.tgid),
            protocol: change.protocol,
            // One that was under way when the agent came lacks its first part.
            exact: !change.from.is_saving() && change.sums.is_some(),
            seen_from_start: !change.from.is_saving(),
            transitions: vec![change.clone()],
            ..Session::new(id, change.device, role, entered, change.sums, coverage)
        };
        session.note_stop(self.stopped);
        session.note(change.at_ns, true);
        Some(session)
    }
}
