// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Migrations by hand, as the agent tells of them: the parts of the downtime against what the client measured around them, every
//! way to end, an agent that comes late, a process with two devices.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cases::demo::agent::Agent;
use cases::guest;
use cases::session::{PATIENCE, Session};
use migrator::clock::monotonic_ns;
use migscope_abi::region::Field;
use migscope_abi::state::State;
use serde_json::Value;

fn main() -> ExitCode {
    guest::run(&[
        ("a_downtime_is_told_in_its_parts", parts),
        ("a_source_that_runs_on_was_cancelled", cancelled),
        ("a_device_that_was_reset_or_closed_has_failed", failed),
        ("an_agent_that_comes_late_says_what_it_saw", late),
        ("two_devices_of_a_process_are_one_migration", two_devices),
    ])
}

/// What the client does between the steps, so that each part has a length of its own.
const THOUGHT: Duration = Duration::from_millis(120);
/// By how much a part may be shorter than what was measured around it: the way into and out of the system calls.
const BOUND_NS: u64 = 50_000_000;

fn agent() -> Agent {
    Agent::start(SocketAddr::from(([127, 0, 0, 1], 10478))).expect("the agent starts")
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

/// The first session of the device that has ended.
fn ended(agent: &Agent, session: &Session) -> Value {
    nth_ended(agent, session, 0)
}

/// The session of the device that has ended after `before` others.
fn nth_ended(agent: &Agent, session: &Session, before: usize) -> Value {
    let device = session.device.key().to_string();
    until(agent, "an ended session", |snapshot| {
        let sessions = snapshot["sessions"].as_array()?;
        let of_device = sessions.iter().filter(|session| session["device"] == device.as_str());
        of_device.filter(|session| !session["result"].is_null()).nth(before).cloned()
    })
}

fn run_on(session: &mut Session) {
    session.region.set_state(State::Running).expect("every state goes back to running");
}

fn all_data(session: &mut Session) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| session.region.next_buffer(State::StopAndCopy).expect("data")).collect()
}

fn ns(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// What was measured around a part holds it, and not much more.
fn within(what: &str, told_ns: &Value, measured_ns: u64) {
    let told_ns = ns(told_ns);
    assert!(told_ns <= measured_ns, "{what}: {told_ns} told, {measured_ns} measured around it");
    assert!(told_ns + BOUND_NS >= measured_ns, "{what}: {told_ns} told of {measured_ns}");
}

fn parts() {
    let agent = agent();
    let (mut from, mut to) = (Session::open(0), Session::open(1));
    let measure = |step: &mut dyn FnMut()| {
        let began_ns = monotonic_ns();
        step();
        monotonic_ns() - began_ns
    };
    from.region.set_state(State::PreCopy).expect("pre-copy");
    to.region.set_state(State::Resuming).expect("resuming");
    from.store(3, 64);
    sleep(THOUGHT);

    let stop_began_ns = monotonic_ns();
    let stop_ns = measure(&mut || drop(from.region.set_state(State::StopAndCopy)));
    sleep(THOUGHT);
    let dirty_ns = measure(&mut || {
        assert_eq!(from.dirty(), [3]);
        sleep(THOUGHT);
        assert!(from.dirty().is_empty());
    });
    sleep(THOUGHT);
    let mut buffers = Vec::new();
    let data_ns = measure(&mut || {
        buffers = all_data(&mut from);
        sleep(THOUGHT);
        assert_eq!(from.region.pending_bytes().expect("told"), 0);
    });
    let last_out_ns = monotonic_ns();
    sleep(THOUGHT);
    let load_ns = measure(&mut || {
        for buffer in &buffers {
            to.region.load_buffer(buffer).expect("a good image");
        }
    });
    from.region.set_state(State::Stopped).expect("saved");
    let gap_ns = monotonic_ns() - last_out_ns;
    let start_ns = measure(&mut || run_on(&mut to));
    let total_ns = monotonic_ns() - stop_began_ns;

    let source = ended(&agent, &from);
    assert_eq!((&source["result"], &source["exact"]), (&"completed".into(), &true.into()));
    within("stop", &source["downtime"]["stop_ns"], stop_ns);
    within("final dirty pages", &source["downtime"]["final_dirty_ns"], dirty_ns);
    // The last look at pending_bytes ends no buffer: what the client slept before it is not the device's.
    let final_data_ns = ns(&source["downtime"]["final_data_ns"]);
    assert!(final_data_ns <= data_ns, "{final_data_ns} of {data_ns}");
    assert!(
        final_data_ns + BOUND_NS >= data_ns - u64::try_from(THOUGHT.as_nanos()).expect("short")
    );
    let destination = ended(&agent, &to);
    within("start", &destination["downtime"]["start_ns"], start_ns);
    let told_load_ns = ns(&destination["downtime"]["load_ns"]);
    assert!(told_load_ns > 0 && told_load_ns <= load_ns, "{told_load_ns} of {load_ns}");
    // The two ends are known to be one migration once both have ended.
    let of_both = until(&agent, "a pair", |snapshot| {
        let sessions = snapshot["sessions"].as_array()?;
        sessions
            .iter()
            .find(|session| session["id"] == source["id"] && !session["peer"].is_null())
            .cloned()
    });
    assert_eq!(of_both["peer"], destination["id"]);
    within("total", &of_both["downtime"]["total_ns"], total_ns);
    let told_gap_ns = ns(&of_both["downtime"]["transfer_gap_ns"]);
    assert!(told_gap_ns >= gap_ns, "the last buffer was out before: {told_gap_ns} of {gap_ns}");
    assert!(told_gap_ns <= gap_ns + data_ns, "{told_gap_ns} of {gap_ns}");

    // Each part comes to Prometheus once.
    let exposition = agent.scrape().expect("a scrape");
    for part in ["stop", "final_dirty", "final_data", "transfer_gap", "load", "start", "total"] {
        let count = exposition.sum("vfio_migration_downtime_seconds_count", &[("part", part)]);
        assert_eq!(count, Some(1.0), "{part}");
    }
    // The timeline has the edges, and points between them.
    let path = format!("/api/v1/sessions/{}", source["id"]);
    let whole: Value = serde_json::from_str(&agent.get(&path).expect("kept")).expect("JSON");
    let points = whole["timeline"].as_array().expect("points");
    let edges = points.iter().filter(|point| point["edge"] == true).count();
    assert_eq!(edges, 3, "pre_copy, stop_and_copy, stopped: {points:#?}");
    assert!(points.len() > edges + 3, "several readings in 600 ms: {}", points.len());
    agent.stop().expect("it ends");
}

fn cancelled() {
    let agent = agent();
    let ways = [&[State::PreCopy][..], &[State::PreCopy, State::StopAndCopy]];
    for (before, through) in ways.into_iter().enumerate() {
        let mut session = Session::first();
        for state in through {
            session.region.set_state(*state).expect("the arcs of a migration");
        }
        run_on(&mut session);
        let told = nth_ended(&agent, &session, before);
        assert_eq!((&told["role"], &told["result"]), (&"source".into(), &"cancelled".into()));
        let stood = told["downtime"]["source_ns"].is_u64();
        assert_eq!(stood, through.len() == 2, "only the second one stopped: {told:#}");
    }
    agent.stop().expect("it ends");
}

fn failed() {
    let agent = agent();
    let mut session = Session::first_in(State::PreCopy);
    session.region.reset().expect("a device can be reset at any time");
    assert_eq!(ended(&agent, &session)["result"], "failed");
    session.bring_to(State::PreCopy);
    let device = session.device.key().to_string();
    drop(session);
    let failures = until(&agent, "a second failure", |snapshot| {
        let sessions = snapshot["sessions"].as_array()?;
        let failed =
            sessions.iter().filter(|s| s["device"] == device.as_str() && s["result"] == "failed");
        (failed.count() == 2).then(|| sessions.last().cloned())?
    });
    let last = failures["transitions"].as_array().expect("a list").last().cloned().expect("one");
    assert_eq!(last["cause"], "close");
    agent.stop().expect("it ends");
}

fn late() {
    let (mut from, mut to) = (Session::open(0), Session::open(1));
    from.region.set_state(State::PreCopy).expect("pre-copy");
    to.region.set_state(State::Resuming).expect("resuming");
    let mut buffers = Vec::new();
    while let Some(buffer) = from.region.next_buffer(State::PreCopy).expect("data") {
        buffers.push(buffer);
    }
    let before: usize = buffers.iter().map(Vec::len).sum();
    let agent = agent();
    // Nobody has told this agent anything: the device is not there, which is not the same as running.
    let device = from.device.key().to_string();
    let snapshot: Value =
        serde_json::from_str(&agent.get("/api/v1/snapshot").expect("it answers")).expect("JSON");
    assert_eq!(snapshot["devices"], Value::Array(Vec::new()));

    // One look at the device is enough to find it in the middle of a migration.
    from.get(Field::PendingBytes).expect("told");
    let found = until(&agent, "a session under way", |snapshot| {
        let sessions = snapshot["sessions"].as_array()?;
        sessions.iter().find(|session| session["device"] == device.as_str()).cloned()
    });
    assert_eq!((&found["role"], &found["result"]), (&"source".into(), &Value::Null));
    assert_eq!((&found["exact"], &found["seen_from_start"]), (&false.into(), &false.into()));
    assert_eq!(found["pid"], Value::Null);

    from.region.set_state(State::StopAndCopy).expect("stop-and-copy");
    let rest = all_data(&mut from);
    let after: usize = rest.iter().map(Vec::len).sum();
    from.region.set_state(State::Stopped).expect("saved");
    let told = ended(&agent, &from);
    assert_eq!((&told["result"], &told["exact"]), (&"completed".into(), &false.into()));
    assert_eq!(told["data_bytes"], after, "{before} bytes moved before anybody looked");
    assert!(told["downtime"]["stop_ns"].is_u64(), "the stop was seen");
    assert_eq!(told["pid"], std::process::id());
    for buffer in buffers.iter().chain(&rest) {
        to.region.load_buffer(buffer).expect("a good image");
    }
    run_on(&mut to);
    assert_eq!(ended(&agent, &to)["seen_from_start"], false);
    agent.stop().expect("it ends");
}

fn two_devices() {
    let agent = agent();
    let mut both = [Session::open(0), Session::open(1)];
    for state in [State::PreCopy, State::StopAndCopy] {
        for session in &mut both {
            session.region.set_state(state).expect("the arcs of a migration");
        }
    }
    let mut bytes = 0;
    for session in &mut both {
        bytes += all_data(session).iter().map(Vec::len).sum::<usize>();
    }
    for session in &mut both {
        session.region.set_state(State::Stopped).expect("saved");
    }
    let migration = until(&agent, "the migration of a machine", |snapshot| {
        let migrations = snapshot["migrations"].as_array()?;
        migrations.iter().find(|migration| !migration["result"].is_null()).cloned()
    });
    assert_eq!(migration["sessions"].as_array().map(Vec::len), Some(2), "{migration:#}");
    assert_eq!((&migration["result"], &migration["exact"]), (&"completed".into(), &true.into()));
    assert_eq!(
        (&migration["data_bytes"], &migration["pid"]),
        (&bytes.into(), &std::process::id().into())
    );
    assert!(migration["downtime_ns"].is_u64());
    agent.stop().expect("it ends");
}
