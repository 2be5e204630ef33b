// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The distribution's unmodified QEMU, of the versions that speak the RFC's protocol (5.2 to 7.2), migrates our devices.
//!
//! ```text
//!  the test ── QMP ───▶ QEMU A ── vfio-pci ──▶ device A        all of it inside the guest,
//!     │ └──── qtest ──▶   │ file or socket                     QEMU under TCG in a guest under TCG
//!     │                   ▼
//!     ├─ QMP, qtest ──▶ QEMU B ── vfio-pci ──▶ device B
//!     └─ tracefs: the driver's account
//! ```
//!
//! The machines have no operating system: what a driver in them would do to the device is done over qtest, so every access to
//! the BAR and every DMA is QEMU's own. Checked are QEMU's verdict, the arcs, that the driver refused nothing, that as much
//! device data went in as came out, and what the device holds afterwards: all registers and the buffer, with other
//! values in each test, so that what an earlier test left in the device cannot pass.
//!
//! Not checked is the driver's dirty log: QEMU 7.2 asks type1 for dirty pages, never the region, and type1 calls all of a
//! machine's memory dirty, which the driver leaves so for the reasons at the head of `driver/bar.rs`. What a user of such a QEMU
//! can do about it, `x-pre-copy-dirty-page-tracking=off`, has a test. Nor can a test cancel at a chosen moment while the last data
//! is copied; it does so just before.

use std::process::ExitCode;

use cases::guest::{self, Case};
use cases::module;
use cases::session::PATIENCE;
use migscope_abi::device::DeviceKey;
use migscope_abi::state::State::{PreCopy, Running, StopAndCopy};
use serde_json::json;
use workload::edu::{IRQ_RAISE, LIVENESS, STATUS, STATUS_IRQ_ON_FACTORIAL, Snapshot, Transfer};

use account::Account;
use course::{
    LOADED, SAVED, SAVED_PAUSED, assert_arcs, let_converge, path, ran_on, start_migration,
    wait_before_switchover,
};
use machine::{Machine, wait};

#[path = "qemu/account.rs"]
mod account;
#[path = "qemu/course.rs"]
mod course;
#[path = "qemu/machine.rs"]
mod machine;
#[path = "qemu/qtest.rs"]
mod qtest;

static CASES: [Case; 8] = [
    ("qemu_saves_and_restores_a_device_through_mapped_windows", || through_a_file(MAPPED)),
    ("qemu_saves_and_restores_a_device_by_system_calls", || through_a_file(TRAPPED)),
    ("qemu_saves_and_restores_a_device_in_both_ways_at_once", || through_a_file(PARTITIONED)),
    ("qemu_migrates_a_device_live_with_what_it_did_meanwhile", live),
    ("qemu_converges_if_it_leaves_the_devices_pages_for_the_stop", tracking_off),
    ("a_device_runs_on_when_qemu_cancels_in_pre_copy", cancel_in_pre_copy),
    ("a_device_runs_on_when_qemu_cancels_in_stop_and_copy", cancel_in_stop_and_copy),
    ("qemu_migrates_a_paused_machine_which_stays_paused", paused),
];

fn main() -> ExitCode {
    course::run(&CASES)
}

/// Where the machines' memory has what the device loads, and two places where it stores. The firmware uses none of them.
const LOAD_FROM: u64 = 16 << 20;
const STORE_TO: u64 = 17 << 20;
const STORE_MEANWHILE_TO: u64 = 18 << 20;
/// Bytes of the device's buffer that are used, and where they begin in it.
const BUFFER_USED: u32 = 1000;
const BUFFER_AT: u32 = 77;

/// What a device holds.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    registers: Snapshot,
    buffer: Vec<u8>,
}

fn transfer(memory: u64, to_memory: bool) -> Transfer {
    Transfer { memory, buffer_at: BUFFER_AT, bytes: BUFFER_USED, to_memory }
}

/// Gives a device contents that no other seed gives it.
fn fill(machine: &Machine, seed: u64) -> Contents {
    let mut random = fastrand::Rng::with_seed(seed);
    let edu = machine.edu();
    edu.write_u32(LIVENESS, random.u32(1..)).expect("a register");
    edu.factorial(random.u32(5..34), PATIENCE).expect("a factorial");
    edu.write_u32(STATUS, STATUS_IRQ_ON_FACTORIAL).expect("a register");
    edu.write_u32(IRQ_RAISE, random.u32(1..)).expect("a register");
    let buffer: Vec<u8> = (0..BUFFER_USED).map(|_| random.u8(..)).collect();
    machine.qtest().write_memory(LOAD_FROM, &buffer).expect("memory");
    edu.transfer(transfer(LOAD_FROM, false), PATIENCE).expect("the device reads memory");
    let registers = edu.snapshot().expect("registers");
    assert_eq!(registers.dma_count, u64::from(BUFFER_USED));
    Contents { registers, buffer }
}

/// Asserts that a device holds this, and works.
fn check(machine: &Machine, contents: &Contents) {
    let edu = machine.edu();
    assert_eq!(edu.snapshot().expect("registers"), contents.registers);
    edu.transfer(transfer(STORE_TO, true), PATIENCE).expect("the device writes memory");
    assert!(stored(machine, STORE_TO) == contents.buffer, "the buffer holds something else");
    assert_eq!(edu.factorial(5, PATIENCE).expect("it computes"), 120);
}

fn stored(machine: &Machine, at: u64) -> Vec<u8> {
    let bytes = usize::try_from(BUFFER_USED).expect("fits");
    machine.qtest().read_memory(at, bytes).expect("memory")
}

/// How the device data is reached: the values of the module's parameter `data_section`.
const TRAPPED: u32 = 0;
const MAPPED: u32 = 1;
const PARTITIONED: u32 = 2;

fn through_a_file(data_section: u32) {
    module::reload(&[("data_section", data_section)]);
    let [one, other] = guest::devices();
    let (driver, image) = (Account::watch_accesses().expect("tracefs"), path("image"));
    let from = Machine::boot(one);
    let contents = fill(&from, 1);
    let_converge(&from);
    from.execute("migrate", json!({ "uri": format!("exec:cat > {image}") }));
    from.wait_for_departure();
    from.quit();
    assert_arcs(&driver, one, &SAVED);

    let to = Machine::incoming(other, &format!("exec:cat {image}"));
    to.wait_for_status("running");
    assert_eq!(to.migration(), "completed");
    check(&to, &contents);
    to.quit();
    assert_arcs(&driver, other, &LOADED);
    assert_data(&driver, [one, other]);
    // What went by mapping the driver does not see; QEMU takes the rest in pieces of eight bytes at most.
    for device in [one, other] {
        let (trapped, moved) = (driver.trapped_bytes(device), driver.data_bytes(device));
        match data_section {
            TRAPPED => assert_eq!(trapped, moved, "{device}"),
            MAPPED => assert_eq!(trapped, 0, "{device}"),
            _ => assert!(trapped > 0 && trapped < moved, "{device}: {trapped} of {moved}"),
        }
    }
    module::reload(&[]);
}

fn live() {
    let [one, other] = guest::devices();
    let (driver, socket) = (Account::watch().expect("tracefs"), format!("unix:{}", path("sock")));
    let from = Machine::boot(one);
    fill(&from, 2);
    let to = Machine::incoming(other, &socket);
    start_migration(&from, &socket);
    wait("pre-copy", || driver.arcs(one).last() == Some(&(Running, PreCopy)));
    // Everything changes once more, and the device writes to memory.
    let mut contents = fill(&from, 3);
    let edu = from.edu();
    edu.transfer(transfer(STORE_MEANWHILE_TO, true), PATIENCE).expect("the device writes memory");
    contents.registers = edu.snapshot().expect("registers");
    assert_eq!((from.status(), from.migration()), ("running".into(), "active".into()));
    assert_eq!(
        driver.arcs(one).last(),
        Some(&(Running, PreCopy)),
        "it was over before it was meant to"
    );

    let_converge(&from);
    let account = from.wait_for_departure();
    guest::measured("qemu_migration_downtime", &account["downtime"], "ms");
    to.wait_for_status("running");
    assert_eq!(to.migration(), "completed");
    assert!(stored(&to, STORE_MEANWHILE_TO) == contents.buffer, "the device's DMA was lost");
    check(&to, &contents);
    from.quit();
    to.quit();
    assert_arcs(&driver, one, &SAVED);
    assert_arcs(&driver, other, &LOADED);
    assert_data(&driver, [one, other]);
}

/// QEMU does not ask type1 while the device runs, so only the CPU's pages keep pre-copy going, and takes all of the memory
/// once more when the device has stopped. So what the device wrote meanwhile arrives.
fn tracking_off() {
    let [one, other] = guest::devices();
    let (driver, image) = (Account::watch().expect("tracefs"), path("tracking"));
    let from = Machine::boot_with(one, "x-pre-copy-dirty-page-tracking=off");
    fill(&from, 7);
    // With so little the first pass lasts until the limit is gone.
    from.execute("migrate-set-parameters", json!({ "downtime-limit": 1, "max-bandwidth": 4096 }));
    from.execute("migrate", json!({ "uri": format!("exec:cat > {image}") }));
    wait("pre-copy", || driver.arcs(one).last() == Some(&(Running, PreCopy)));
    let mut contents = fill(&from, 8);
    let edu = from.edu();
    edu.transfer(transfer(STORE_MEANWHILE_TO, true), PATIENCE).expect("the device writes memory");
    contents.registers = edu.snapshot().expect("registers");
    assert_eq!(driver.arcs(one).last(), Some(&(Running, PreCopy)));
    // QEMU's own limit.
    from.execute("migrate-set-parameters", json!({ "downtime-limit": 300, "max-bandwidth": 0 }));
    let account = from.wait_for_departure();
    guest::measured("qemu_passes_tracking_off", &account["ram"]["dirty-sync-count"], "passes");
    from.quit();
    assert_arcs(&driver, one, &SAVED);

    let to = Machine::incoming(other, &format!("exec:cat {image}"));
    to.wait_for_status("running");
    assert_eq!(to.migration(), "completed");
    assert!(stored(&to, STORE_MEANWHILE_TO) == contents.buffer, "the device's DMA was lost");
    check(&to, &contents);
    to.quit();
    assert_arcs(&driver, other, &LOADED);
    assert_data(&driver, [one, other]);
}

/// Asserts that as much device data went in as came out, and that the buffer is in it.
fn assert_data(driver: &Account, devices: [DeviceKey; 2]) {
    let saved = course::assert_data(driver, devices);
    assert!(saved > u64::from(BUFFER_USED), "{saved} bytes hold no buffer");
}

fn cancel_in_pre_copy() {
    let [one, _] = guest::devices();
    let driver = Account::watch().expect("tracefs");
    let machine = Machine::boot(one);
    let contents = fill(&machine, 4);
    start_migration(&machine, "exec:cat > /dev/null");
    wait("pre-copy", || driver.arcs(one).last() == Some(&(Running, PreCopy)));
    cancelled(&machine, &contents);
    assert_eq!(driver.arcs(one)[..3], [SAVED[0], SAVED[1], (PreCopy, Running)]);
    ran_on(machine, &driver, one);
}

fn cancel_in_stop_and_copy() {
    let [one, _] = guest::devices();
    let driver = Account::watch().expect("tracefs");
    let machine = Machine::boot(one);
    let contents = fill(&machine, 5);
    wait_before_switchover(&machine);
    let_converge(&machine);
    machine.execute("migrate", json!({ "uri": "exec:cat > /dev/null" }));
    machine.wait_for_migration("pre-switchover");
    assert_eq!(driver.arcs(one), SAVED[..3]);
    cancelled(&machine, &contents);
    assert_eq!(driver.arcs(one)[..4], [SAVED[0], SAVED[1], SAVED[2], (StopAndCopy, Running)]);
    ran_on(machine, &driver, one);
}

/// Cancels the migration under way; the machine and its device go on.
fn cancelled(machine: &Machine, contents: &Contents) {
    course::cancel(machine);
    check(machine, contents);
}

fn paused() {
    let [one, other] = guest::devices();
    let (driver, socket) = (Account::watch().expect("tracefs"), format!("unix:{}", path("sock")));
    let from = Machine::boot(one);
    let contents = fill(&from, 6);
    from.execute("stop", json!({}));
    let to = Machine::incoming(other, &socket);
    let_converge(&from);
    from.execute("migrate", json!({ "uri": socket }));
    from.wait_for_departure();
    to.wait_for_status("paused");
    assert_eq!(to.migration(), "completed");
    assert_eq!(
        driver.arcs(other),
        LOADED[..1],
        "the device began to run while the machine is paused"
    );
    to.execute("cont", json!({}));
    to.wait_for_status("running");
    check(&to, &contents);
    from.quit();
    to.quit();
    assert_arcs(&driver, one, &SAVED_PAUSED);
    assert_arcs(&driver, other, &LOADED);
    assert_data(&driver, [one, other]);
}
