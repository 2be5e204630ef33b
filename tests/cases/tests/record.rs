// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Recordings of real migrations: what is played back is what an agent said while it happened.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cases::demo::agent::Agent;
use cases::guest;
use migscope::feed::Nobody;
use migscope::metrics::Metrics;
use migscope::observer::Observer;
use migscope::record;
use serde_json::Value;

/// How long an agent may take to have read what happened last, or to load its probes.
const PATIENCE: Duration = Duration::from_secs(60);
const LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 10477);

fn main() -> ExitCode {
    guest::run(&[
        ("what_an_agent_recorded_is_played_to_the_last_digit", agents_own),
        ("a_recording_beside_an_agent_has_the_same_figures", beside_an_agent),
        ("a_recording_that_is_killed_is_read_up_to_the_last_change_of_state", killed),
    ])
}

fn program(variable: &str) -> Command {
    Command::new(std::env::var_os(variable).expect("`cargo xtask test` names the programs"))
}

/// Migrates the first device to the second.
fn migrate() {
    let [source, destination] = guest::devices().map(|device| device.to_string());
    let status = program("MIGSCOPE_MIGRATOR")
        .args(["live", "--json", "--source", &source, "--destination", &destination])
        .stdout(Stdio::null())
        .status()
        .expect("the migrator starts");
    assert!(status.success(), "the migration failed");
}

/// What the agent says of its sessions, once both ends of the migration have ended and found each other.
fn told(agent: &Agent) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let body = agent.get("/api/v1/sessions").expect("the agent answers");
        let mut answer: Value = serde_json::from_str(&body).expect("JSON");
        let sessions = answer["sessions"].take();
        let sessions = sessions.as_array().expect("an array");
        if sessions.len() == 2 && sessions.iter().all(|session| session["peer"].is_u64()) {
            return sessions.clone();
        }
        assert!(Instant::now() < deadline, "the agent did not see the migration: {body}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Another observer, to which a recording was played.
fn play(file: &Path) -> (Observer, Option<record::RecordError>) {
    let mut observer = Observer::new(Nobody, Arc::new(Metrics::new(prometheus::Registry::new())));
    let mut error = None;
    for item in record::open(file).expect("a recording") {
        match item {
            Ok(input) => input.play(&mut observer),
            Err(told) => error = Some(told),
        }
    }
    (observer, error)
}

/// Its sessions, as the API would give them. They have ended, so the time does not matter.
fn played(observer: &Observer) -> Vec<Value> {
    let reports = observer.session_reports(0);
    reports.iter().map(|report| serde_json::to_value(report).expect("JSON")).collect()
}

/// A running `migscope record` whose probes are attached.
struct Recorder {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
}

impl Recorder {
    fn start(file: &Path, words: &[&str]) -> Self {
        let mut command = program("MIGSCOPE_AGENT");
        command.args(["--log.level", "warn", "record", "-o"]).arg(file).args(words);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let first = lines.next().expect("it says what it watches").expect("text");
        assert!(first.contains(": all ") && first.contains(" probes are attached"), "{first}");
        assert!(!first.contains("missing"), "{first}");
        Self { child, lines }
    }
}

fn agents_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a name of letters");
    let agent =
        Agent::start_with(SocketAddr::from(LISTEN), &["--record.dir", path]).expect("it starts");
    migrate();
    let told = told(&agent);
    let timeline = |id: &Value| -> Value {
        let body = agent.get(&format!("/api/v1/sessions/{id}")).expect("the agent answers");
        let mut session: Value = serde_json::from_str(&body).expect("JSON");
        session["timeline"].take()
    };
    let timelines: Vec<_> = told.iter().map(|session| timeline(&session["id"])).collect();
    agent.stop().expect("it stops");

    let (observer, error) = play(&folder.path().join("agent.migscope"));
    assert!(error.is_none(), "{error:?}");
    assert_eq!(played(&observer), told);
    let mut sessions: Vec<_> = observer.sessions().collect();
    sessions.sort_by_key(|session| session.id);
    for (session, timeline) in sessions.into_iter().zip(timelines) {
        assert_eq!(serde_json::to_value(session.timeline.points()).expect("JSON"), timeline);
    }
}

fn beside_an_agent() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("live.migscope");
    let agent = Agent::start(SocketAddr::from(LISTEN)).expect("it starts");
    let mut recorder = Recorder::start(&file, &["--until-end"]);
    migrate();
    let told = told(&agent);
    agent.stop().expect("it stops");
    let lines: Vec<_> = recorder.lines.by_ref().map(|line| line.expect("text")).collect();
    assert!(recorder.child.wait().expect("it ends").success(), "{lines:?}");
    let bytes = fs::metadata(&file).expect("there").len();
    let last = format!("{}: {bytes} bytes, 2 sessions, no record lost", file.display());
    assert_eq!(lines.last(), Some(&last));
    assert_eq!(lines.iter().filter(|line| line.contains(": completed after ")).count(), 2);
    println!("measured: recording_of_a_migration {bytes} bytes");

    let (observer, error) = play(&file);
    assert!(error.is_none(), "{error:?}");
    let played = played(&observer);
    assert_eq!(played.len(), told.len());
    for (played, told) in played.iter().zip(&told) {
        // All but the moments, which each one's probes read for themselves.
        for figure in [
            "device",
            "role",
            "protocol",
            "result",
            "exact",
            "pid",
            "data_bytes",
            "iterations",
            "dirty",
            "pending_bytes",
            "data_busy_ns",
            "query_busy_ns",
            "dma_to_memory_bytes",
            "dma_to_memory_transfers",
            "violations",
            "peer",
            "transitions_left_out",
        ] {
            assert_eq!(played[figure], told[figure], "{figure}");
            // Nothing is pending at a destination, and nobody asks it.
            assert!(figure == "pending_bytes" || !told[figure].is_null(), "{figure} is unknown");
        }
        assert_eq!(arcs(played), arcs(told));
    }
}

/// The changes of state, without their moments.
fn arcs(session: &Value) -> Vec<Vec<Value>> {
    let fields = ["duration_ns", "from", "to", "now", "cause", "result"];
    let transitions = session["transitions"].as_array().expect("an array").iter();
    transitions.map(|arc| fields.iter().map(|field| arc[field].clone()).collect()).collect()
}

fn killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("killed.migscope");
    let mut recorder = Recorder::start(&file, &[]);
    migrate();
    // Its line on the destination comes after the block with that session's end was on its way.
    let ended = recorder
        .lines
        .by_ref()
        .filter(|line| line.as_ref().is_ok_and(|line| line.contains(": completed after ")));
    assert_eq!(ended.take(2).count(), 2);
    let deadline = Instant::now() + PATIENCE;
    while play(&file).0.sessions().filter(|session| session.end.is_some()).count() < 2 {
        assert!(Instant::now() < deadline, "a change of state was not written");
        std::thread::sleep(Duration::from_millis(50));
    }
    recorder.child.kill().expect("it is there");
    recorder.child.wait().expect("it ends");
    let (observer, error) = play(&file);
    assert!(matches!(error, Some(record::RecordError::CutOff { .. })), "{error:?}");
    assert!(observer.sessions().all(|session| session.exact && session.end.is_some()));
}
