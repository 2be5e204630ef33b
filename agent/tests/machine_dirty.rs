// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What trackers told machines, in the sessions of their devices.

use migscope::device_key::DeviceKey;
use migscope::{
    dirty::Told,
    event::{Event, Machine, StateChange},
    feed::Nobody,
    metrics::Metrics,
    observer::Observer,
    probes::Standing,
    sample::Losses,
    state::{Protocol, State},
};
use migscope_abi::{
    machine::{MachineSums, Tracker},
    probe::Probe,
    ring::DeviceSums,
    state::Cause,
};
use prometheus::Registry;
use std::sync::Arc;

const DEVICES: [DeviceKey; 2] = [DeviceKey::pci(0, 0, 0x10 << 3), DeviceKey::pci(0, 0, 0x11 << 3)];
const PROCESSES: [u32; 2] = [41, 42];

/// KVM has told `pages` to the machine of this number, which is about to change the state of its device.
fn told(number: usize, at_ns: u64, pages: u64) -> Event {
    let kvm = MachineSums {
        queries: [0, 0, 1, 0],
        pages,
        bytes: pages * 4096,
        last_seen_ns: at_ns,
        ..MachineSums::default()
    };
    let mut told = Told::default();
    told[Tracker::Kvm as usize] = kvm;
    Event::Machine(Machine { device: DEVICES[number], at_ns, tgid: PROCESSES[number], told })
}

fn change(number: usize, at_ns: u64, from: State, now: State) -> Event {
    Event::State(StateChange {
        device: DEVICES[number],
        at_ns,
        tgid: PROCESSES[number],
        protocol: Protocol::Region,
        from,
        requested: Some(now),
        now,
        cause: Cause::Write,
        duration_ns: 1_000,
        result: 0,
        sums: Some(DeviceSums { state: 3, last_seen_ns: at_ns, ..DeviceSums::default() }),
    })
}

/// Two CPUs write into one ring: the records of one machine's change may have those of another's between them.
#[test]
fn what_two_machines_were_told_stays_apart_when_their_records_mix() {
    let mut observer = Observer::new(Nobody, Arc::new(Metrics::new(Registry::new())));
    let attached: Standing = Probe::ALL.into_iter().map(|probe| (probe, Ok(()))).collect();
    observer.probes(attached);
    observer.losses(Losses { told: [0; 4], skipped: Some(0) }, 1);
    observer.events(&[
        told(0, 1_000, 700),
        told(1, 1_010, 50),
        change(0, 1_020, State::Running, State::PreCopy),
        change(1, 1_030, State::Running, State::PreCopy),
    ]);
    observer.events(&[
        told(1, 2_000, 53),
        told(0, 2_010, 705),
        change(0, 2_020, State::PreCopy, State::Running),
        change(1, 2_030, State::PreCopy, State::Running),
    ]);
    let pages = |number: usize| {
        let reports = observer.session_reports(3_000);
        let of_device = DEVICES[number].to_string();
        let report = reports.iter().find(|report| report.device == of_device).expect("a session");
        let machine = report.machine_dirty.as_ref().expect("its beginning was seen");
        machine["kvm"].account.pages
    };
    assert_eq!([pages(0), pages(1)], [5, 3]);
}
