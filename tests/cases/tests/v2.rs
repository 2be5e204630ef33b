// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The v2 protocol of a driver that knows nothing of us (mtty, Linux 6.7 and later): the agent's account against the client's.

use std::net::SocketAddr;
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cases::demo::agent::Agent;
use cases::guest;
use cases::mdev::{Mtty, Ports};
use cases::session::PATIENCE;
use cases::v2::Client;
use cases::vfio::Vfio;
use migrator::clock::monotonic_ns;
use migscope_abi::v2::{FEATURE_GET, MIG_DATA_SIZE, MigState};
use serde_json::Value;

fn main() -> ExitCode {
    guest::run(&[
        ("a_migration_is_told_as_the_client_made_it", whole),
        ("a_source_that_runs_on_was_cancelled", cancelled),
        ("a_refused_question_for_the_size_is_a_reason", size_refused),
        ("what_a_driver_refuses_is_told_and_changes_nothing", refused),
        ("a_device_that_is_closed_or_reset_in_the_middle_has_failed", failed),
        ("an_agent_that_comes_late_says_what_it_saw", late),
        ("a_driver_that_is_loaded_later_is_seen", loaded_later),
        ("two_devices_of_a_process_are_one_migration", two_devices),
    ])
}

const UUIDS: [&str; 2] =
    ["6d696773-636f-7065-0000-0000000000a1", "6d696773-636f-7065-0000-0000000000a2"];
/// What the client does between the steps, so that each part has a length of its own.
const THOUGHT: Duration = Duration::from_millis(120);
/// By how much a part may be shorter than what was measured around it: the way into and out of the system calls.
const BOUND_NS: u64 = 50_000_000;

fn modprobe(arguments: &[&str]) {
    let status = Command::new("modprobe").args(arguments).status().expect("modprobe");
    assert!(status.success(), "modprobe {arguments:?}");
}

fn machine() -> [Mtty; 2] {
    modprobe(&["-a", "mtty", "vfio_iommu_type1"]);
    UUIDS.map(|uuid| Mtty::create(uuid, Ports::Two).expect("it is made"))
}

fn client(device: &Mtty) -> Client {
    Client::new(Vfio::open_mdev(device.uuid()).expect("it is opened"))
}

/// An agent whose probes of the v2 protocol are in place.
fn agent() -> Agent {
    let agent = Agent::start(SocketAddr::from(([127, 0, 0, 1], 10479))).expect("the agent starts");
    sees_data(&agent);
    agent
}

fn sees_data(agent: &Agent) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ready = agent.get("/readyz").expect("the agent answers");
        if ready.contains("probe data_read: attached") {
            return;
        }
        assert!(Instant::now() < deadline, "not attached: {ready}");
        sleep(Duration::from_millis(50));
    }
}

/// Asks for the snapshot until `found` finds what it wants.
fn until(agent: &Agent, what: &str, found: impl Fn(&Value) -> Option<Value>) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = agent.get("/api/v1/snapshot").expect("the agent answers");
        let snapshot: Value = serde_json::from_str(&text).expect("JSON");
        if let Some(value) = found(&snapshot) {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not in {snapshot:#}");
        sleep(Duration::from_millis(20));
    }
}

fn session(agent: &Agent, device: &Mtty, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    until(agent, what, |snapshot| {
        let sessions = snapshot["sessions"].as_array()?;
        let mut of_device = sessions.iter().filter(|session| session["device"] == device.uuid());
        of_device.find(|session| is_it(session)).cloned()
    })
}

/// The first session of the device that has ended.
fn ended(agent: &Agent, device: &Mtty) -> Value {
    session(agent, device, "an ended session", |session| !session["result"].is_null())
}

fn within(what: &str, told_ns: &Value, measured_ns: u64) {
    let told_ns = told_ns.as_u64().unwrap_or_else(|| panic!("{what}: {told_ns}"));
    assert!(told_ns <= measured_ns, "{what}: {told_ns} told, {measured_ns} measured around it");
    assert!(told_ns + BOUND_NS >= measured_ns, "{what}: {told_ns} told of {measured_ns}");
}

fn set(client: &mut Client, state: MigState) {
    client.set_state(state).unwrap_or_else(|error| panic!("{state:?}: {error}"));
}

/// A value of the exposition; absent is none.
fn scraped(agent: &Agent, series: &str) -> Option<f64> {
    let text = agent.get("/metrics").expect("the agent answers");
    let line = text.lines().find_map(|line| line.strip_prefix(series))?;
    line.trim().parse().ok()
}

fn whole() {
    let devices = machine();
    let agent = agent();
    let [from, to] = &devices;
    let (mut source, mut destination) = (client(from), client(to));
    let size = source.data_size().expect("mtty tells it");

    set(&mut source, MigState::PreCopy);
    let info = source.precopy_info().expect("mtty tells it");
    let before = session(&agent, from, "a session", |session| {
        session["pending_bytes"] == info.initial_bytes + info.dirty_bytes
    });
    assert_eq!(before["role"], "source");
    assert_eq!(before["protocol"], "v2");
    let mut buffers = source.read_all();
    sleep(THOUGHT);

    let stop_began_ns = monotonic_ns();
    set(&mut source, MigState::PreCopyP2p);
    set(&mut source, MigState::StopCopy);
    sleep(THOUGHT);
    let data_began_ns = monotonic_ns();
    buffers.extend(source.read_all());
    let data_ns = monotonic_ns() - data_began_ns;
    sleep(THOUGHT);
    set(&mut source, MigState::Stop);
    let stopped_ns = monotonic_ns() - stop_began_ns;

    let resume_began_ns = monotonic_ns();
    set(&mut destination, MigState::Resuming);
    for buffer in &buffers {
        destination.write(buffer).expect("it takes its own image");
    }
    sleep(THOUGHT);
    set(&mut destination, MigState::RunningP2p);
    set(&mut destination, MigState::Running);
    let resumed_ns = monotonic_ns() - resume_began_ns;

    let saved = ended(&agent, from);
    assert_eq!(
        (&saved["result"], &saved["exact"]),
        (&"completed".into(), &true.into()),
        "{saved:#}"
    );
    assert_eq!(saved["data_bytes"], source.account.bytes);
    assert_eq!(saved["size_queries"], 0, "it was asked before it began");
    assert_eq!(saved["iterations"], source.account.bursts);
    let states: Vec<_> = saved["transitions"].as_array().expect("a list").iter().collect();
    let told: Vec<_> = states.iter().map(|change| change["to"].as_str().expect("a name")).collect();
    assert_eq!(told, ["pre_copy", "pre_copy_p2p", "stop_and_copy", "stopped"]);
    within("source", &saved["downtime"]["source_ns"], stopped_ns);
    within("final data", &saved["downtime"]["final_data_ns"], data_ns);

    let resumed = ended(&agent, to);
    assert_eq!(
        (&resumed["result"], &resumed["exact"]),
        (&"completed".into(), &true.into()),
        "{resumed:#}"
    );
    assert_eq!(resumed["role"], "destination");
    assert_eq!(resumed["data_bytes"], destination.account.bytes);
    assert_eq!(resumed["iterations"], destination.account.bursts);
    within("destination", &resumed["downtime"]["destination_ns"], resumed_ns);

    let uuid = from.uuid();
    let expected = [
        (
            format!("vfio_migration_data_bytes_total{{device=\"{uuid}\",direction=\"save\"}}"),
            source.account.bytes,
        ),
        (format!("vfio_migration_stop_copy_bytes{{device=\"{uuid}\"}}"), size),
        (
            format!(
                "vfio_migration_device_info{{device=\"{uuid}\",driver=\"mtty\",protocol=\"v2\""
            ),
            0,
        ),
    ];
    for (series, value) in &expected[..2] {
        let deadline = Instant::now() + PATIENCE;
        while scraped(&agent, series) != Some(*value as f64) {
            assert!(
                Instant::now() < deadline,
                "{series}: {:?}, not {value}",
                scraped(&agent, series)
            );
            sleep(Duration::from_millis(50));
        }
    }
    let text = agent.get("/metrics").expect("the agent answers");
    assert!(text.contains(&expected[2].0), "{text}");
    assert_eq!(scraped(&agent, "migscope_events_lost_total{reason=\"unfinished\"}"), Some(0.0));
    agent.stop().expect("it ends");
}

fn cancelled() {
    let devices = machine();
    let agent = agent();
    let mut source = client(&devices[0]);
    set(&mut source, MigState::PreCopy);
    let _data = source.read_all();
    set(&mut source, MigState::Running);
    let session = ended(&agent, &devices[0]);
    assert_eq!(session["result"], "cancelled");
    assert_eq!(session["data_bytes"], source.account.bytes);
    agent.stop().expect("it ends");
}

/// No driver of the kernel's tree refuses it, so the kernel does, for want of room for the answer: to who asks it is the same.
fn size_refused() {
    let devices = machine();
    let agent = agent();
    let mut source = client(&devices[0]);
    set(&mut source, MigState::PreCopy);
    let refusal = source.vfio.feature(FEATURE_GET | MIG_DATA_SIZE, &mut []).expect_err("no room");
    assert_eq!(refusal.raw_os_error(), Some(libc::EINVAL));
    let blocked = session(&agent, &devices[0], "a reason", |session| {
        let mut reasons = session["outlook"]["blocked"].as_array().into_iter().flatten();
        reasons.any(|blocked| blocked["reason"] == "size_query_failed")
    });
    assert_eq!(blocked["outlook"]["verdict"], "not_converging", "{blocked:#}");
    source.data_size().expect("mtty tells it");
    set(&mut source, MigState::Running);
    assert_eq!(ended(&agent, &devices[0])["size_queries"], 2);
    agent.stop().expect("it ends");
}

fn refused() {
    let devices = machine();
    let agent = agent();
    let mut source = client(&devices[0]);
    set(&mut source, MigState::PreCopy);
    assert!(source.set_number(77).is_err(), "no state has this number");
    set(&mut source, MigState::StopCopy);
    assert!(source.set_state(MigState::PreCopy).is_err(), "there is no way back from here");
    assert_eq!(source.state().expect("told"), MigState::StopCopy as u32);
    set(&mut source, MigState::Running);
    let session = ended(&agent, &devices[0]);
    assert_eq!(
        (&session["result"], &session["exact"]),
        (&"cancelled".into(), &true.into()),
        "{session:#}"
    );
    let all = session["transitions"].as_array().expect("a list");
    let refused: Vec<_> = all.iter().filter(|change| change["result"] != "ok").collect();
    assert_eq!(refused.len(), 2, "{session:#}");

    // A destination that is given what is no image.
    let mut destination = client(&devices[1]);
    set(&mut destination, MigState::Resuming);
    destination.write(&[0xee; 8]).expect("less than a header is looked at later");
    let refusal = destination.set_state(MigState::Running).expect_err("that is no image");
    let told = refusal_of(&agent, &devices[1]);
    assert_eq!(told["now"], "resuming", "{refusal}: {told:#}");
    agent.stop().expect("it ends");
}

/// The first change of state that was refused.
fn refusal_of(agent: &Agent, device: &Mtty) -> Value {
    let refused = |session: &Value| {
        let mut all = session["transitions"].as_array()?.iter();
        all.find(|change| change["result"] != "ok").cloned()
    };
    refused(&session(agent, device, "a refusal", |session| refused(session).is_some()))
        .expect("it is there")
}

fn failed() {
    let devices = machine();
    let agent = agent();
    let mut source = client(&devices[0]);
    set(&mut source, MigState::PreCopy);
    drop(source);
    assert_eq!(ended(&agent, &devices[0])["result"], "failed", "closed");
    let mut destination = client(&devices[1]);
    set(&mut destination, MigState::Resuming);
    destination.vfio.reset().expect("mtty can be reset");
    assert_eq!(ended(&agent, &devices[1])["result"], "failed", "reset");
    agent.stop().expect("it ends");
}

fn late() {
    let devices = machine();
    let mut source = client(&devices[0]);
    set(&mut source, MigState::PreCopy);
    let agent = agent();
    let _data = source.read_all();
    set(&mut source, MigState::StopCopy);
    let _more = source.read_all();
    set(&mut source, MigState::Stop);
    let session = ended(&agent, &devices[0]);
    assert_eq!(
        (&session["result"], &session["exact"]),
        (&"completed".into(), &false.into()),
        "{session:#}"
    );
    assert_eq!(session["seen_from_start"], false);
    agent.stop().expect("it ends");
}

fn loaded_later() {
    // With Debian's 3, only who has CAP_SYS_ADMIN may attach, and an agent that waits for a driver has kept CAP_BPF and CAP_PERFMON.
    std::fs::write("/proc/sys/kernel/perf_event_paranoid", "2").expect("it is set");
    modprobe(&["-r", "mtty"]);
    let agent = Agent::start(SocketAddr::from(([127, 0, 0, 1], 10479))).expect("the agent starts");
    let deadline = Instant::now() + PATIENCE;
    while !agent.get("/readyz").expect("it answers").contains("probe data_read: missing: no driver")
    {
        assert!(Instant::now() < deadline, "a probe without work");
        sleep(Duration::from_millis(50));
    }
    let devices = machine();
    sees_data(&agent);
    let mut source = client(&devices[0]);
    set(&mut source, MigState::StopCopy);
    let _data = source.read_all();
    set(&mut source, MigState::Stop);
    let session = ended(&agent, &devices[0]);
    assert_eq!(
        (&session["result"], &session["exact"]),
        (&"completed".into(), &true.into()),
        "{session:#}"
    );
    assert_eq!(session["data_bytes"], source.account.bytes);
    agent.stop().expect("it ends");
}

fn two_devices() {
    let devices = machine();
    let agent = agent();
    let mut sources = devices.each_ref().map(client);
    for state in [MigState::PreCopy, MigState::StopCopy] {
        sources.iter_mut().for_each(|source| set(source, state));
        sources.iter_mut().for_each(|source| drop(source.read_all()));
    }
    sources.iter_mut().for_each(|source| set(source, MigState::Stop));
    let migration = until(&agent, "one migration", |snapshot| {
        let migrations = snapshot["migrations"].as_array()?;
        migrations.iter().find(|migration| !migration["result"].is_null()).cloned()
    });
    assert_eq!(migration["result"], "completed");
    assert_eq!(migration["sessions"].as_array().map(Vec::len), Some(2), "{migration:#}");
    agent.stop().expect("it ends");
}
