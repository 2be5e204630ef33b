// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A VMM that knows nothing of us migrates devices of a driver that knows nothing of us: QEMU 10 and mtty. The agent's account
//! against QEMU's own.
//!
//! ```text
//!   QEMU's account                                       the agent's
//!     trace vfio_migration_set_state, _set_device_state    transitions, each between the two
//!     events VFIO_MIGRATION                                the states in their order
//!     trace vfio_save_block, vfio_load_state_device_data   data bytes
//!     query-migrate: vfio.transferred                      the same
//!     trace vfio_state_pending(_exact)                     stop-copy bytes, and how often they were asked for
//!     query-migrate: downtime, trace vmstate_downtime_…    the parts of the downtime
//!     -name, -uuid                                         vm, vm_uuid
//! ```
//!
//! **The downtime.** QEMU's begins before it pauses the virtual processors and ends when all of the machine's state is written; the
//! agent's begins with the first state that is asked of a device, and ends (`source`) when the device has left stop-and-copy, which QEMU
//! puts off until its own account is closed. So the device's part must lie inside QEMU's, and is held to that; what is left over is the
//! pause before, and memory and all other devices after. Between the two ends the agent's `total` must lie within what QEMU's traces of
//! both ends leave open.
//!
//! The machines' processors halt at once, but where it is said: nothing writes memory, so that a migration does the same each time.

use std::panic::{catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};

use cases::guest::{self, Case};
use cases::mdev::{Mtty, Ports};
use cases::vmm::{Accelerator, Firmware, Machine, Plan, Trace, machine, wait};
use libtest_mimic::{Arguments, Trial};
use migscope_abi::v2::MigState::{
    self, PreCopy, PreCopyP2p, Resuming, Running, RunningP2p, Stop, StopCopy,
};
use serde_json::{Value, json};

use account::{Account, Clock, Stood, agent, assert_told};

#[path = "qemu_v2/account.rs"]
mod account;
#[path = "qemu_v2/idle.rs"]
mod idle;

static CASES: [Case; 10] = [
    ("one_device_is_told_as_qemu_tells_it", || seen(one_device)),
    ("two_devices_of_a_machine_are_one_migration", || seen(two_devices)),
    ("two_pairs_at_once_are_told_apart", || seen(two_pairs)),
    ("state_that_goes_over_several_connections_is_counted", || seen(multifd)),
    ("a_migration_that_is_cancelled_in_pre_copy_is_told", || seen(cancelled_in_pre_copy)),
    ("a_migration_that_is_cancelled_once_the_machine_stands_is_told", || {
        seen(cancelled_when_stopped)
    }),
    ("a_migration_whose_other_end_is_gone_is_told", || seen(other_end_gone)),
    ("a_destination_whose_device_refuses_has_failed", || seen(destination_refuses)),
    ("a_switchover_that_is_put_off_is_counted", || seen(put_off)),
    ("under_kvm_it_is_the_same_and_nothing_runs_while_nothing_migrates", || seen(kvm)),
];

/// How often a scenario is tried of which the kernel did not show all.
const TRIES: u32 = 3;

/// Runs a scenario, and once more where it failed and the agent says that the kernel left out runs of its programs meanwhile.
///
/// The kernel runs no program of a kprobe on a CPU on which another thread is in the middle of reading a map (`bpf_prog_active`), and on
/// a busy emulated CPU that thread may be set aside there. The agent counts such runs and calls the session not exact, which is right;
/// but then there is nothing to hold against QEMU.
fn seen(scenario: fn()) {
    for _ in 1..TRIES {
        agent();
        let before = account::skipped_runs();
        let Err(failure) = catch_unwind(scenario) else { return };
        let skipped = account::skipped_runs() - before;
        if skipped == 0.0 {
            resume_unwind(failure);
        }
        eprintln!("tried again: the kernel left out {skipped} runs of the probes");
    }
    scenario();
}

fn main() -> ExitCode {
    let Some(why) = machine::why_not() else { return guest::run(&CASES) };
    eprintln!("not run: {why}");
    let trials = CASES.iter().map(|(name, _)| {
        let why = why.clone();
        Trial::test(*name, move || Err(why.into())).with_ignored_flag(true)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// From the machine's start to the end of a migration.
const SAVED: [MigState; 6] = [RunningP2p, Running, PreCopy, PreCopyP2p, StopCopy, Stop];
const LOADED: [MigState; 3] = [Resuming, RunningP2p, Running];

/// A pre-copy that does not end before [`converge`]: no device has as little as fits into what is allowed, which is `fits` bytes. Without
/// the limit of the bandwidth the memory would be gone before QEMU has measured anything, and then it stops at once.
fn linger(machine: &Machine, fits: u64) {
    let parameters = json!({
        "max-bandwidth": 4096, "avail-switchover-bandwidth": 1000 * fits, "downtime-limit": 1,
    });
    machine.set(parameters);
}

/// Lets the migration come to its end, however much is left.
fn converge(machine: &Machine) {
    let parameters = json!({
        "max-bandwidth": 0, "avail-switchover-bandwidth": 0, "downtime-limit": 20_000,
    });
    machine.set(parameters);
}

fn socket(name: &str) -> String {
    format!("unix:/tmp/migscope-vmm-{}.{name}", std::process::id())
}

/// Devices that no test had before; the probes watch before they are there.
fn devices<const N: usize>(ports: [Ports; N]) -> [Mtty; N] {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    agent();
    ports.map(|ports| {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let uuid = format!("6d696773-636f-7065-0002-{number:012}");
        Mtty::create(&uuid, ports).expect("it is made")
    })
}

/// Two machines, which start at the same time.
fn start(plans: [&Plan<'_>; 2]) -> [Machine; 2] {
    let start = |plan| move || Machine::start(plan).expect("it starts");
    std::thread::scope(|scope| {
        let other = scope.spawn(start(plans[1]));
        [start(plans[0])(), other.join().expect("it has started")]
    })
}

/// A machine that runs and one that waits for it.
struct Pair {
    from: Machine,
    to: Machine,
    socket: String,
}

impl Pair {
    fn start(name: &str, from: &Plan<'_>, to: &Plan<'_>) -> Self {
        let socket = socket(name);
        let to = Plan { incoming: Some(&socket), ..*to };
        let [from, to] = start([from, &to]);
        from.wait_for_status("running");
        Self { from, to, socket }
    }

    /// Migrates, and gives QEMU's account of it.
    fn migrate(&self) -> Value {
        self.from.migrate(&self.socket);
        let account = self.from.wait_for_departure();
        self.to.wait_for_status("running");
        account
    }

    fn traces(&self) -> [Trace; 2] {
        [self.from.trace(), self.to.trace()]
    }

    fn quit(self) {
        self.from.quit();
        self.to.quit();
    }
}

const NAMES: [&str; 2] = ["shop, the first", "shop-copy"];
const VMS: [&str; 2] =
    ["11111111-2222-3333-4444-555555555501", "11111111-2222-3333-4444-555555555502"];

/// The plans of both ends; QEMU has a comma in a value stand twice.
fn plans<'a>(from: &'a [&'a Mtty], to: &'a [&'a Mtty]) -> [Plan<'a>; 2] {
    [Plan::new("shop,, the first", VMS[0], from), Plan::new(NAMES[1], VMS[1], to)]
}

/// Holds one device's migration that went well against QEMU's traces of both ends. Gives the bytes, and how long the source's device stood.
fn assert_moved([from, to]: [&Mtty; 2], traces: &[Trace; 2]) -> (u64, Stood) {
    let clock = Clock::now();
    let source = Account::of(from).ended(1).remove(0);
    let destination = Account::of(to).ended(1).remove(0);
    assert_told(&source, ("source", "completed"), &traces[0], &clock);
    assert_told(&destination, ("destination", "completed"), &traces[1], &clock);
    assert_eq!(states(&traces[0], from), SAVED);
    assert_eq!(states(&traces[1], to), LOADED);
    let saved = traces[0].sum(from.uuid(), "vfio_save_block", "data_size ");
    assert_eq!(source["data_bytes"], saved, "{source:#}");
    let loaded = traces[1].sum(to.uuid(), "vfio_load_state_device_data", "size ");
    assert_eq!((saved, &destination["data_bytes"]), (loaded, &loaded.into()), "{destination:#}");
    // A buffer may come in two pieces; then it is written in two.
    let buffers = traces[1].of(to.uuid(), "vfio_load_state_device_data").len();
    assert!(destination["iterations"].as_u64() >= Some(buffers as u64), "{destination:#}");
    (saved, account::assert_downtime([&source, &destination], traces, &clock))
}

fn states(trace: &Trace, device: &Mtty) -> Vec<MigState> {
    trace.changes(device.uuid()).iter().map(|change| change.state).collect()
}

fn one_device() {
    let [from, to] = devices([Ports::Two; 2]);
    let (froms, tos) = ([&from], [&to]);
    let [source, destination] = plans(&froms, &tos);
    let pair = Pair::start("one", &source, &destination);
    let qemu = pair.migrate();
    let traces = pair.traces();
    let (bytes, stood) = assert_moved([&from, &to], &traces);
    assert_eq!(qemu["vfio"]["transferred"], bytes, "{qemu:#}");
    assert!(stood.total_ns.is_some(), "the two ends do not know of each other");
    stood.record("qemu_tcg");
    // What management applications are told of is what was traced, and so what the agent told. QMP begins when the source runs already.
    for (machine, names) in [(&pair.from, &SAVED[2..]), (&pair.to, &LOADED)] {
        let told = machine.told_states(&machine::device_id(0));
        let names: Vec<String> =
            names.iter().map(|state| account::qapi_name(*state).to_owned()).collect();
        assert!(told.ends_with(&names), "{told:?}");
    }
    account::assert_transitions(&from, &traces[0]);
    account::assert_transitions(&to, &traces[1]);
    account::assert_qemu_downtime(&qemu, &traces[0]);
    for (device, machine, end) in [(&from, &pair.from, 0), (&to, &pair.to, 1)] {
        let migration = Account::of(device).migration(machine.pid());
        assert_eq!(migration["vm"], NAMES[end], "{migration:#}");
        assert_eq!(migration["vm_uuid"], VMS[end], "{migration:#}");
        assert_eq!(migration["data_bytes"], bytes, "{migration:#}");
        let info = account::info(device);
        let expected = [NAMES[end], VMS[end], "mtty", "v2"].map(str::to_owned);
        assert_eq!(info, expected);
    }
    pair.quit();
}

fn two_devices() {
    let [from_a, from_b, to_a, to_b] = devices([Ports::Two, Ports::One, Ports::Two, Ports::One]);
    let (froms, tos) = ([&from_a, &from_b], [&to_a, &to_b]);
    let [source, destination] = plans(&froms, &tos);
    let pair = Pair::start("two", &source, &destination);
    let qemu = pair.migrate();
    let traces = pair.traces();
    let (bytes_a, _) = assert_moved([&from_a, &to_a], &traces);
    let (bytes_b, _) = assert_moved([&from_b, &to_b], &traces);
    let bytes = bytes_a + bytes_b;
    // QEMU adds its devices up.
    assert_eq!(qemu["vfio"]["transferred"], bytes, "{qemu:#}");
    for (devices, machine) in [(froms, &pair.from), (tos, &pair.to)] {
        let migration = Account::of(devices[0]).migration(machine.pid());
        let sessions: Vec<_> = devices
            .iter()
            .map(|device| Account::of(device).ended(1).remove(0)["id"].clone())
            .collect();
        let mut told = migration["sessions"].as_array().expect("a list").clone();
        told.sort_by_key(Value::as_u64);
        assert!(told.len() == 2 && sessions.iter().all(|id| told.contains(id)), "{migration:#}");
        assert_eq!(migration["data_bytes"], bytes, "{migration:#}");
        assert_eq!(migration["result"], "completed");
    }
    pair.quit();
}

fn two_pairs() {
    let devices = devices([Ports::Two; 4]);
    let [from_a, from_b, to_a, to_b] = &devices;
    let lists = devices.each_ref().map(|device| [device]);
    let plan = |name, end: usize, list: usize| Plan::new(name, VMS[end], &lists[list]);
    let pairs = [
        Pair::start("a", &plan("a", 0, 0), &plan("a", 1, 2)),
        Pair::start("b", &plan("b", 0, 1), &plan("b", 1, 3)),
    ];
    // Both are under way before either may end.
    for pair in &pairs {
        linger(&pair.from, 1);
        pair.from.migrate(&pair.socket);
    }
    for device in [from_a, from_b] {
        Account::of(device).under_way("pre_copy");
    }
    for pair in &pairs {
        converge(&pair.from);
    }
    for (pair, ends) in pairs.iter().zip([[from_a, to_a], [from_b, to_b]]) {
        let qemu = pair.from.wait_for_departure();
        pair.to.wait_for_status("running");
        let (bytes, _) = assert_moved(ends, &pair.traces());
        assert_eq!(qemu["vfio"]["transferred"], bytes, "{qemu:#}");
    }
    let [one, other] = pairs;
    one.quit();
    other.quit();
}

/// The devices' state is read by a thread of its own for each, sent as packets, and written by another.
fn multifd() {
    let [from_a, from_b, to_a, to_b] = devices([Ports::Two, Ports::One, Ports::Two, Ports::One]);
    let (froms, tos) = ([&from_a, &from_b], [&to_a, &to_b]);
    let [source, destination] = plans(&froms, &tos);
    // The destination has to know of it before the first connection comes, each of which names the machine.
    let destination =
        Plan { incoming: Some("defer"), multifd: true, uuid: source.uuid, ..destination };
    let [from, to] = start([&Plan { multifd: true, ..source }, &destination]);
    for machine in [&from, &to] {
        machine.enable(&["multifd", "return-path"]);
        machine.set(json!({ "multifd-channels": 4 }));
    }
    let socket = socket("multifd");
    to.execute("migrate-incoming", json!({ "uri": socket }));
    from.wait_for_status("running");
    let pair = Pair { from, to, socket };
    let qemu = pair.migrate();
    let traces = pair.traces();
    let clock = Clock::now();
    let mut bytes = 0;
    let mut packets = 0;
    for (from, to) in froms.into_iter().zip(tos) {
        let source = Account::of(from).ended(1).remove(0);
        let destination = Account::of(to).ended(1).remove(0);
        assert_told(&source, ("source", "completed"), &traces[0], &clock);
        assert_told(&destination, ("destination", "completed"), &traces[1], &clock);
        assert_eq!(source["data_bytes"], destination["data_bytes"]);
        // mtty's whole image is what it says it has to move.
        assert_eq!(source["data_bytes"].as_f64(), account::stop_copy_bytes(from), "{source:#}");
        bytes += source["data_bytes"].as_u64().expect("it is known");
        let threads = traces[0].of(from.uuid(), "vfio_save_complete_precopy_thread_end").len();
        assert_eq!(threads, 1, "the device's state did not go this way");
        packets += traces[1].of(to.uuid(), "vfio_load_state_device_buffer_incoming").len() as u64;
    }
    // QEMU counts what it sends: each packet with its head, and the packet of each device's configuration space.
    let transferred = qemu["vfio"]["transferred"].as_u64().expect("it is told");
    assert!(transferred >= bytes + packets * account::PACKET_HEAD_BYTES, "{qemu:#}");
    guest::measured("qemu_multifd_bytes_not_the_devices", transferred - bytes, "bytes");
    pair.quit();
}

fn cancelled_in_pre_copy() {
    let [device] = devices([Ports::Two]);
    let list = [&device];
    let machine = Machine::start(&Plan::new("patient", VMS[0], &list)).expect("it starts");
    machine.wait_for_status("running");
    linger(&machine, 1);
    machine.migrate("exec:cat > /dev/null");
    Account::of(&device).under_way("pre_copy");
    machine.execute("migrate_cancel", json!({}));
    machine.wait_for_migration("cancelled");
    machine.wait_for_status("running");
    let trace = machine.trace();
    let session = Account::of(&device).ended(1).remove(0);
    assert_told(&session, ("source", "cancelled"), &trace, &Clock::now());
    assert_eq!(session["data_bytes"], trace.sum(device.uuid(), "vfio_save_block", "data_size "));
    account::assert_transitions(&device, &trace);

    // The same machine once more, and this time it goes well.
    converge(&machine);
    machine.migrate("exec:cat > /dev/null");
    let qemu = machine.wait_for_departure();
    let session = Account::of(&device).ended(2).remove(1);
    let trace = machine.quit();
    assert_told(&session, ("source", "completed"), &trace, &Clock::now());
    assert_eq!(session["data_bytes"], qemu["vfio"]["transferred"], "{qemu:#}");
}

fn cancelled_when_stopped() {
    let [device] = devices([Ports::Two]);
    let list = [&device];
    let machine = Machine::start(&Plan::new("hesitant", VMS[0], &list)).expect("it starts");
    machine.wait_for_status("running");
    machine.enable(&["pause-before-switchover"]);
    machine.migrate("exec:cat > /dev/null");
    machine.wait_for_migration("pre-switchover");
    Account::of(&device).under_way("stop_and_copy");
    machine.execute("migrate_cancel", json!({}));
    machine.wait_for_migration("cancelled");
    machine.wait_for_status("running");
    let session = Account::of(&device).ended(1).remove(0);
    let trace = machine.quit();
    assert_told(&session, ("source", "cancelled"), &trace, &Clock::now());
    assert!(session["downtime"]["source_ns"].is_u64(), "{session:#}");
}

/// A device does not see whether the VMM goes back because it was told to or because it must: of both the source runs on.
fn other_end_gone() {
    let [from, to] = devices([Ports::Two; 2]);
    let (froms, tos) = ([&from], [&to]);
    let [source, destination] = plans(&froms, &tos);
    let Pair { from: source, to: destination, socket } = Pair::start("gone", &source, &destination);
    linger(&source, 1);
    source.migrate(&socket);
    Account::of(&from).under_way("pre_copy");
    Account::of(&to).under_way("resuming");
    let lost = destination.kill();
    source.wait_for_migration("failed");
    source.wait_for_status("running");
    let session = Account::of(&to).ended(1).remove(0);
    assert_told(&session, ("destination", "failed"), &lost, &Clock::now());
    let session = Account::of(&from).ended(1).remove(0);
    assert_told(&session, ("source", "cancelled"), &source.trace(), &Clock::now());

    // Now the source goes, in the middle of another one.
    source.migrate("exec:cat > /dev/null");
    wait("pre-copy", || Account::of(&from).is_in("pre_copy"));
    let trace = source.kill();
    let session = Account::of(&from).ended(2).remove(1);
    assert_told(&session, ("source", "failed"), &trace, &Clock::now());
}

/// mtty does not take the image of a card with another number of ports.
fn destination_refuses() {
    let [from, to] = devices([Ports::Two, Ports::One]);
    let (froms, tos) = ([&from], [&to]);
    let [source, destination] = plans(&froms, &tos);
    let Pair { from: source, to: destination, socket } =
        Pair::start("other", &source, &destination);
    linger(&source, 1);
    source.migrate(&socket);
    let trace = destination.gives_up();
    let session = Account::of(&to).ended(1).remove(0);
    assert_told(&session, ("destination", "failed"), &trace, &Clock::now());
    // What was refused was not moved.
    assert_eq!(session["data_bytes"], 0, "{session:#}");
    source.wait_for_migration("failed");
    let session = Account::of(&from).ended(1).remove(0);
    assert_told(&session, ("source", "cancelled"), &source.quit(), &Clock::now());
}

/// QEMU measures before it switches over, and each time it finds too much it goes on. Nothing but the device is left here, which
/// has more than fits into what is allowed.
fn put_off() {
    let [device] = devices([Ports::Two]);
    let list = [&device];
    let machine = Machine::start(&Plan::new("late", VMS[0], &list)).expect("it starts");
    machine.wait_for_status("running");
    linger(&machine, 50);
    machine.migrate("exec:cat > /dev/null");
    wait("a switch-over that is put off", || machine.trace().exact_sizes(device.uuid()).len() > 2);
    let session = Account::of(&device).under_way("pre_copy");
    converge(&machine);
    machine.wait_for_departure();
    assert!(session["outlook"].is_object(), "{session:#}");
    let session = Account::of(&device).ended(1).remove(0);
    let told = account::stop_copy_bytes(&device);
    let trace = machine.quit();
    assert_told(&session, ("source", "completed"), &trace, &Clock::now());
    let asked = trace.exact_sizes(device.uuid());
    assert_eq!(session["size_queries"], asked.len(), "{session:#}");
    assert_eq!(told, Some(asked[0] as f64));
    guest::measured("qemu_switchovers_put_off", asked.len() - 1, "times");
}

fn kvm() {
    guest::load_modules(&["kvm-amd"]);
    let devices = devices([Ports::Two, Ports::One, Ports::Two, Ports::One]);
    let [from, ring_from, to, ring_to] = &devices;
    for (from, to, accelerator, name) in [
        (from, to, Accelerator::Kvm, "log"),
        (ring_from, ring_to, Accelerator::KvmDirtyRing(4096), "ring"),
    ] {
        let (froms, tos) = ([from], [to]);
        let [source, destination] = plans(&froms, &tos).map(|plan| Plan {
            accelerator,
            firmware: Firmware::SeaBios,
            ..plan
        });
        let watches = accelerator == Accelerator::Kvm;
        let before = watches.then(idle::runs);
        let pair = Pair::start(name, &source, &destination);
        if let Some(before) = before {
            idle::assert_nothing_runs(&before);
        }
        let qemu = pair.migrate();
        let (bytes, stood) = assert_moved([from, to], &pair.traces());
        assert_eq!(qemu["vfio"]["transferred"], bytes, "{qemu:#}");
        stood.record(&format!("qemu_kvm_{name}"));
        pair.quit();
    }
}
