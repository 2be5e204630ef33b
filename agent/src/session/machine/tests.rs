// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Machines with one device, with several, and with more than are kept.

use super::*;
use crate::device_key::DeviceKey;
use crate::{
    event::StateChange, session::Coverage, session::Tracker, state::Protocol, state::State,
};
use migscope_abi::{ring::DeviceSums, state::Cause};

const ALL: Coverage = Coverage {
    data: true,
    dirty: true,
    dma: true,
    access: true,
    errors: true,
    state: true,
    trackers: [true; 3],
};

/// Devices of several processes, driven by hand, as the observer drives them.
#[derive(Default)]
struct Host {
    machines: Machines,
    next_id: u64,
    trackers: std::collections::BTreeMap<u64, (Tracker, State)>,
}

impl Host {
    /// Device `device` of process `tgid` is written the state `now`, in 10 ns that end at `at_ns`.
    fn write(&mut self, tgid: u32, device: u64, now: State, at_ns: u64) -> Option<Migration> {
        self.step(tgid, device, now, Cause::Write, at_ns)
    }

    fn step(
        &mut self,
        tgid: u32,
        device: u64,
        now: State,
        cause: Cause,
        at_ns: u64,
    ) -> Option<Migration> {
        let (tracker, state) =
            self.trackers.entry(device).or_insert((Tracker::default(), State::Running));
        let change = StateChange {
            device: DeviceKey(device),
            at_ns,
            tgid,
            protocol: Protocol::Region,
            from: *state,
            requested: Some(now),
            now,
            cause,
            duration_ns: 10,
            result: 0,
            sums: Some(DeviceSums { data_bytes: [at_ns, 0], ..DeviceSums::default() }),
        };
        *state = now;
        let first_new = self.next_id;
        let ended = tracker.advance(&change, &mut self.next_id, ALL);
        let migration = ended.iter().filter_map(|session| self.machines.ended(session)).next();
        if let Some(begun) = tracker.current().filter(|session| session.id >= first_new) {
            self.machines.began(begun);
        }
        migration
    }
}

#[test]
fn two_devices_of_one_machine_are_one_migration() {
    let mut host = Host::default();
    for (device, at_ns) in [(1, 100), (2, 120)] {
        host.write(7, device, State::PreCopy, at_ns);
    }
    for (device, at_ns) in [(1, 200), (2, 260)] {
        host.write(7, device, State::StopAndCopy, at_ns);
    }
    assert_eq!(host.write(7, 2, State::Stopped, 300), None, "the other one is still moving");
    let migration = host.write(7, 1, State::Stopped, 350).expect("the last has ended");
    assert_eq!(migration.sessions, [0, 1]);
    assert_eq!(migration.result.as_deref(), Some("completed"));
    assert_eq!(migration.began_monotonic_ns, 90);
    assert_eq!(migration.ended_monotonic_ns, Some(350));
    assert_eq!(migration.downtime_ns, Some(350 - 190), "from the first that stopped");
    assert_eq!(migration.data_bytes, Some((300 - 120) + (350 - 100)));
    assert!(migration.exact);
    assert_eq!(host.machines.all(), [migration]);
}

#[test]
fn machines_and_roles_are_told_apart() {
    let mut host = Host::default();
    host.write(7, 1, State::PreCopy, 100);
    host.write(8, 2, State::PreCopy, 110);
    host.write(7, 3, State::Resuming, 120);
    assert_eq!(host.machines.all().len(), 3);
    let migration = host.write(8, 2, State::Running, 200).expect("its only device");
    assert_eq!((migration.pid, migration.result.as_deref()), (8, Some("cancelled")));
}

#[test]
fn one_device_that_failed_is_a_machine_that_failed() {
    let mut host = Host::default();
    host.write(7, 1, State::PreCopy, 100);
    host.write(7, 2, State::PreCopy, 100);
    host.step(7, 1, State::Running, Cause::Reset, 200);
    host.write(7, 2, State::StopAndCopy, 300);
    let migration = host.write(7, 2, State::Stopped, 400).expect("the last has ended");
    assert_eq!(migration.result.as_deref(), Some("failed"));
    assert_eq!(migration.downtime_ns, None, "how long it stood is not known");
}

#[test]
fn the_next_migration_of_a_machine_is_another_one() {
    let mut host = Host::default();
    for at_ns in [100, 300] {
        host.write(7, 1, State::PreCopy, at_ns);
        host.write(7, 1, State::Running, at_ns + 100);
    }
    let ids: Vec<_> = host.machines.all().iter().map(|migration| migration.id).collect();
    assert_eq!(ids, [1, 2]);
}

#[test]
fn what_is_kept_is_bounded() {
    let mut host = Host::default();
    for device in 0..1_000 {
        host.write(7, device, State::PreCopy, 100);
    }
    assert_eq!(host.machines.all()[0].sessions.len(), DEVICES);
    for device in 0..1_000 {
        host.write(7, device, State::Running, 200);
    }
    assert!(host.machines.running.is_empty(), "those that were left out hold nothing open");
    for turn in 0..1_000 {
        host.write(9, 1, State::PreCopy, 1_000 + turn * 10);
        host.write(9, 1, State::Running, 1_005 + turn * 10);
    }
    assert_eq!(host.machines.all().len(), HISTORY);
}
