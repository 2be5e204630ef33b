// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One device: the state that it is in, how long it was in each, and what it last told of itself.
//!
//! ```text
//!            a record or the sums tell the state
//!   unknown ────────────────────────────────────▶ in(state) ──▶ in(another state)
//!      ▲                                            │  │
//!      └───────────── a record was lost ────────────┘  └── close ──▶ closed ──open──▶ in(running)
//! ```
//!
//! Time is added to a state only while it is known that the device was in it. What passes in *unknown* is added to none. What was
//! added once is never taken back: it was shown as a counter.

use crate::device_key::DeviceKey;
use crate::{
    event::StateChange,
    metrics::Remaining,
    state::{Protocol, Seen, State, is_closed, told_by},
};
use migscope_abi::{
    ring::{DeviceSums, Left},
    state::Cause,
};

/// What is known about a device's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: no record yet, or one was lost.
    Unknown,
    /// It is in this state, since then (`CLOCK_MONOTONIC`, nanoseconds).
    In(State, u64),
    /// Nobody has it open, since then (`CLOCK_MONOTONIC`, nanoseconds).
    Closed(u64),
}

/// A device that was seen.
#[derive(Clone, Debug)]
pub struct Device {
    key: DeviceKey,
    standing: Standing,
    /// Time in each state up to `counted_ns`, in nanoseconds, by the place in [`State::ALL`].
    stayed_ns: [u64; State::COUNT],
    /// Up to when (`CLOCK_MONOTONIC`, nanoseconds) time was added.
    counted_ns: u64,
    /// Process that last changed the state.
    tgid: Option<u32>,
    protocol: Protocol,
    sums: Option<DeviceSums>,
    /// `pending_reads` when what was read before lost its meaning.
    pending_void: u64,
    /// The same of what is told of what is left.
    left_void: Left,
}

impl Device {
    /// A device of which nothing is known but its name.
    pub fn new(key: DeviceKey) -> Self {
        Self {
            key,
            standing: Standing::Unknown,
            stayed_ns: [0; State::COUNT],
            counted_ns: 0,
            tgid: None,
            protocol: Protocol::Region,
            sums: None,
            pending_void: 0,
            left_void: Left::NONE,
        }
    }

    /// The device's name.
    pub fn key(&self) -> DeviceKey {
        self.key
    }

    /// What is known about its state.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Process that last changed the state.
    pub fn tgid(&self) -> Option<u32> {
        self.tgid
    }

    /// By which protocol it migrates.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// How it is seen, as far as its sums tell.
    pub fn seen(&self) -> Seen {
        match (&self.sums, self.protocol) {
            (Some(sums), _) => Seen::of(sums),
            (None, Protocol::V2) => Seen::V2,
            (None, Protocol::Region) => Seen::Tracepoints,
        }
    }

    /// Its sums, as last read.
    pub fn sums(&self) -> Option<&DeviceSums> {
        self.sums.as_ref()
    }

    /// Takes in a change of state, or a refused one, which tells the state as well.
    pub fn changed(&mut self, change: &StateChange) {
        if matches!(self.standing, Standing::In(state, _) if state == change.from) {
            self.settle(change.at_ns);
        }
        self.tgid = Some(change.tgid);
        self.protocol = change.protocol;
        self.standing = match change.cause {
            Cause::Close => Standing::Closed(change.at_ns),
            Cause::Write | Cause::Open | Cause::Reset | Cause::Failure => {
                Standing::In(change.now, change.at_ns)
            }
        };
        let starts_over = match change.cause {
            Cause::Open | Cause::Close | Cause::Reset | Cause::Failure => true,
            // A pause or the end of saving leaves what was told last; a device that runs on is in no migration.
            Cause::Write => !change.refused() && change.now == State::Running,
        };
        if let Some(sums) = change.sums {
            if starts_over {
                self.pending_void = sums.pending_reads;
                self.left_void = sums.left;
            }
            self.sums = Some(sums);
        }
    }

    /// Takes in a reading of its sums. They tell the state when nothing else does.
    pub fn sampled(&mut self, sums: DeviceSums) {
        if self.standing == Standing::Unknown {
            self.standing = match told_by(&sums) {
                Some((state, protocol)) => {
                    self.protocol = protocol;
                    Standing::In(state, sums.last_seen_ns)
                }
                None if is_closed(&sums) => Standing::Closed(sums.last_seen_ns),
                None => Standing::Unknown,
            };
        }
        self.sums = Some(sums);
    }

    /// A record was lost: the state may be another by now.
    pub fn lost(&mut self) {
        if let Standing::In(..) = self.standing {
            self.standing = Standing::Unknown;
        }
    }

    /// The device is in no host's list any more: nobody can have it open.
    pub fn gone(&mut self, now_ns: u64) {
        if !matches!(self.standing, Standing::Closed(_)) {
            self.standing = Standing::Closed(now_ns);
        }
    }

    /// What `pending_bytes` last read as; `None` while that is unknown or means nothing.
    pub fn pending_bytes(&self) -> Option<u64> {
        let sums = self.sums?;
        (sums.pending_reads > self.pending_void && !matches!(self.standing, Standing::Closed(_)))
            .then_some(sums.pending_bytes)
    }

    /// What it last told of what is left, by the v2 protocol; each is `None` while that is unknown or means nothing.
    pub fn remaining(&self) -> Remaining {
        let Some(sums) = self.sums.filter(|_| !matches!(self.standing, Standing::Closed(_))) else {
            return Remaining::default();
        };
        let (left, void) = (sums.left, self.left_void);
        let in_precopy = left.precopy_tellings > void.precopy_tellings;
        let in_stop_copy = left.stop_copy_tellings > void.stop_copy_tellings;
        Remaining {
            precopy_initial_bytes: in_precopy.then_some(left.initial_bytes),
            precopy_dirty_bytes: in_precopy.then_some(left.dirty_bytes),
            stop_copy_bytes: in_stop_copy.then_some(left.stop_copy_bytes),
        }
    }

    /// Adds the time up to `now_ns` to the state that the device is in. All records up to then must have been taken in.
    pub fn settle(&mut self, now_ns: u64) {
        if let Standing::In(present, since_ns) = self.standing {
            let new_ns = now_ns.saturating_sub(since_ns.max(self.counted_ns));
            for (state, stayed_ns) in State::ALL.into_iter().zip(&mut self.stayed_ns) {
                if state == present {
                    *stayed_ns = stayed_ns.saturating_add(new_ns);
                }
            }
        }
        self.counted_ns = self.counted_ns.max(now_ns);
    }

    /// How long it was known to be in each state until it was last settled, in nanoseconds. States that it was never seen in are
    /// left out.
    pub fn stayed_ns(&self) -> impl Iterator<Item = (State, u64)> {
        let present = match self.standing {
            Standing::In(state, _) => Some(state),
            Standing::Unknown | Standing::Closed(_) => None,
        };
        State::ALL
            .into_iter()
            .zip(self.stayed_ns)
            .filter(move |(state, ns)| *ns > 0 || present == Some(*state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migscope_abi::ring::STATE_CLOSED;

    fn change(from: State, now: State, cause: Cause, at_ns: u64) -> StateChange {
        StateChange {
            device: DeviceKey(1),
            at_ns,
            tgid: 7,
            from,
            protocol: Protocol::Region,
            requested: Some(now),
            now,
            cause,
            duration_ns: 10,
            result: 0,
            sums: None,
        }
    }

    fn stayed(device: &mut Device, now_ns: u64) -> Vec<(State, u64)> {
        device.settle(now_ns);
        device.stayed_ns().collect()
    }

    #[test]
    fn time_goes_to_the_state_that_the_device_was_in() {
        let mut device = Device::new(DeviceKey(1));
        device.changed(&change(State::Running, State::Running, Cause::Open, 1_000));
        device.changed(&change(State::Running, State::PreCopy, Cause::Write, 3_000));
        device.changed(&change(State::PreCopy, State::StopAndCopy, Cause::Write, 8_000));
        assert_eq!(
            stayed(&mut device, 9_000),
            [(State::Running, 2_000), (State::StopAndCopy, 1_000), (State::PreCopy, 5_000)]
        );
    }

    #[test]
    fn time_after_a_loss_goes_to_no_state_until_the_sums_tell_it() {
        let mut device = Device::new(DeviceKey(1));
        device.changed(&change(State::Running, State::Running, Cause::Open, 1_000));
        device.lost();
        assert_eq!(device.standing(), Standing::Unknown);
        assert_eq!(stayed(&mut device, 5_000), []);
        device.sampled(DeviceSums { state: 3, last_seen_ns: 6_000, ..DeviceSums::default() });
        assert_eq!(stayed(&mut device, 9_000), [(State::PreCopy, 3_000)]);
    }

    #[test]
    fn time_that_was_shown_is_never_taken_back() {
        let mut device = Device::new(DeviceKey(1));
        device.changed(&change(State::Running, State::Running, Cause::Open, 1_000));
        assert_eq!(stayed(&mut device, 5_000), [(State::Running, 4_000)]);
        device.lost();
        assert_eq!(stayed(&mut device, 7_000), [(State::Running, 4_000)]);
        // A record that tells of a change before the last settling moves nothing from one state to another.
        device.changed(&change(State::Running, State::PreCopy, Cause::Write, 6_000));
        assert_eq!(stayed(&mut device, 8_000), [(State::Running, 4_000), (State::PreCopy, 1_000)]);
    }

    #[test]
    fn sums_that_tell_no_state_leave_it_unknown() {
        let mut device = Device::new(DeviceKey(1));
        device.sampled(DeviceSums { state: u64::MAX, ..DeviceSums::default() });
        assert_eq!(device.standing(), Standing::Unknown);
        device.sampled(DeviceSums { state: 5, ..DeviceSums::default() });
        assert_eq!(device.standing(), Standing::Unknown);
    }

    #[test]
    fn a_close_that_was_lost_is_told_by_the_sums() {
        let mut device = Device::new(DeviceKey(1));
        device.changed(&change(State::Running, State::Running, Cause::Open, 1_000));
        device.lost();
        let state = STATE_CLOSED;
        device.sampled(DeviceSums { state, last_seen_ns: 6_000, ..DeviceSums::default() });
        assert_eq!(device.standing(), Standing::Closed(6_000));
    }

    #[test]
    fn a_closed_device_is_in_no_state_and_its_clock_stands() {
        let mut device = Device::new(DeviceKey(1));
        device.changed(&change(State::Running, State::Running, Cause::Open, 1_000));
        device.changed(&change(State::Running, State::Running, Cause::Close, 4_000));
        assert_eq!(device.standing(), Standing::Closed(4_000));
        assert_eq!(stayed(&mut device, 9_000), [(State::Running, 3_000)]);
    }

    #[test]
    fn pending_bytes_are_unknown_until_read_and_void_after_a_cancel() {
        let mut device = Device::new(DeviceKey(1));
        let mut sums = DeviceSums { state: 3, ..DeviceSums::default() };
        device.sampled(sums);
        assert_eq!(device.pending_bytes(), None);
        sums.pending_reads = 1;
        sums.pending_bytes = 0;
        device.sampled(sums);
        assert_eq!(device.pending_bytes(), Some(0));
        let mut cancel = change(State::PreCopy, State::Running, Cause::Write, 5_000);
        sums.state = 1;
        cancel.sums = Some(sums);
        device.changed(&cancel);
        assert_eq!(device.pending_bytes(), None);
    }
}
