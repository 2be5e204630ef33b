// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The course of QEMU's migrations: what is asked of QEMU, and which arcs come of it, whatever the device is.
//!
//! The arcs are those of QEMU `hw/vfio/migration.c`, which writes some states twice: `vfio_vmstate_change()` when the machine
//! starts and stops, `vfio_save_setup()`, `vfio_save_complete_precopy()`, `vfio_load_setup()`, `vfio_migration_state_notifier()`.

use std::process::ExitCode;

use cases::guest::{self, Case};
use libtest_mimic::{Arguments, Trial};
use migscope_abi::device::DeviceKey;
use migscope_abi::state::State::{self, PreCopy, Resuming, Running, StopAndCopy, Stopped};
use serde_json::json;

use crate::account::Account;
use crate::machine::{self, Machine};

/// From the machine's start to a save.
pub(crate) const SAVED: [(State, State); 5] = [
    (Running, Running),
    (Running, PreCopy),
    (PreCopy, StopAndCopy),
    (StopAndCopy, StopAndCopy),
    (StopAndCopy, Stopped),
];

/// From the start of a machine that is paused to a save.
pub(crate) const SAVED_PAUSED: [(State, State); 5] =
    [SAVED[0], (Running, Stopped), (Stopped, StopAndCopy), SAVED[3], SAVED[4]];

/// From the start to the first moment of running, then the machine's end.
pub(crate) const LOADED: [(State, State); 3] =
    [(Running, Resuming), (Resuming, Running), (Running, Stopped)];

/// Runs a binary's tests, if there is a QEMU that can.
pub(crate) fn run(cases: &'static [Case]) -> ExitCode {
    let Some(why) = machine::why_not() else { return guest::run(cases) };
    eprintln!("not run: {why}");
    let trials = cases.iter().map(|(name, _)| {
        let why = why.clone();
        Trial::test(*name, move || Err(why.into())).with_ignored_flag(true)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// A pre-copy that goes on until [`let_converge`]: type1 says that all memory is dirty, and that takes longer than a millisecond.
pub(crate) fn start_migration(machine: &Machine, uri: &str) {
    machine.execute("migrate-set-parameters", json!({ "downtime-limit": 1 }));
    machine.execute("migrate", json!({ "uri": uri }));
}

/// Lets the migration come to its end, however much is left.
pub(crate) fn let_converge(machine: &Machine) {
    let milliseconds = 20_000;
    let unlimited = 0;
    let parameters = json!({ "downtime-limit": milliseconds, "max-bandwidth": unlimited });
    machine.execute("migrate-set-parameters", parameters);
}

/// Lets QEMU wait when the machine has stopped, before it asks the device for the rest of its data.
pub(crate) fn wait_before_switchover(machine: &Machine) {
    let wait_there = json!([{ "capability": "pause-before-switchover", "state": true }]);
    machine.execute("migrate-set-capabilities", json!({ "capabilities": wait_there }));
}

/// Cancels the migration under way; the machine and its device go on.
pub(crate) fn cancel(machine: &Machine) {
    machine.execute("migrate_cancel", json!({}));
    machine.wait_for_migration("cancelled");
    machine.wait_for_status("running");
}

pub(crate) fn assert_arcs(driver: &Account, device: DeviceKey, expected: &[(State, State)]) {
    assert_nothing_refused(driver, device);
    assert_eq!(driver.arcs(device), expected, "the arcs of {device}");
}

pub(crate) fn assert_nothing_refused(driver: &Account, device: DeviceKey) {
    let refusals = driver.refusals(device);
    assert!(refusals.is_empty(), "the driver refused {device}: {refusals:#?}");
}

/// Asserts that as much device data went into one device as came out of the other, and gives how much.
///
/// QEMU's own figure (`vfio` in `query-migrate`) would be the better judge, but 7.2 has none: `migration/target.c` is compiled
/// without the option that it asks for, which 8.0 mended.
pub(crate) fn assert_data(driver: &Account, [one, other]: [DeviceKey; 2]) -> u64 {
    let saved = driver.data_bytes(one);
    assert_eq!(driver.data_bytes(other), saved);
    saved
}

/// Ends a machine after a cancelled migration. QEMU writes `running` once or several times then, from two threads.
pub(crate) fn ran_on(machine: Machine, driver: &Account, device: DeviceKey) {
    machine.quit();
    assert_nothing_refused(driver, device);
    let written = driver.arcs(device);
    let cancel = written.iter().rposition(|(from, to)| from != to && *to == Running);
    let [after @ .., end] = &written[cancel.expect("it was cancelled") + 1..] else {
        panic!("the machine's end is not in {written:?}");
    };
    assert!(after.iter().all(|arc| *arc == (Running, Running)), "{written:?}");
    assert_eq!(*end, (Running, Stopped));
}

/// A file in the guest's scratch folder.
pub(crate) fn path(name: &str) -> String {
    format!("/tmp/migscope-qemu-{}.{name}", std::process::id())
}
