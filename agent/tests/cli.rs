// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The program as its users meet it: started, asked over HTTP, told to stop.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStderr, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// How long anything here may take; it takes milliseconds, or a second on a machine that emulates another.
const PATIENCE: Duration = Duration::from_secs(30);

fn migscope(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_migscope"));
    command.args(words);
    command
}

fn output(words: &[&str]) -> Output {
    migscope(words).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An agent on a port of its own, stopped when the test is over.
struct Agent {
    child: Child,
    address: SocketAddr,
    log: BufReader<ChildStderr>,
}

impl Agent {
    fn start(words: &[&str]) -> Self {
        let fixed = ["agent", "--web.listen-address", "127.0.0.1:0", "--log.format", "json"];
        let mut command = migscope(&fixed);
        let mut child = command.args(words).stderr(Stdio::piped()).spawn().expect("it starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut agent = Self { child, address: nowhere, log };
        while agent.address == nowhere {
            let mut line = String::new();
            let length = agent.log.read_line(&mut line).expect("text");
            assert!(length > 0, "the agent ended before it listened");
            let line: Value = serde_json::from_str(&line).expect("one JSON object a line");
            if let Some(address) = line["fields"]["address"].as_str() {
                agent.address = address.parse().expect("an address");
            }
        }
        agent
    }

    /// Status, headers and body.
    fn get(&self, path: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a duration");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status"), head.to_lowercase(), body.to_owned())
    }

    fn wait_until_ready(&self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, _, body) = self.get("/readyz");
            match status {
                200 => return body,
                503 if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                _ => panic!("not ready: {status} {body}"),
            }
        }
    }

    fn stop(mut self, signal: Signal) -> (Option<i32>, String) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("it runs");
        let status = self.child.wait().expect("it ends");
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).expect("text");
        (status.code(), rest)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It has ended already when the test stopped it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn help_names_every_flag_and_its_default() {
    let help = text(&output(&["agent", "--help"]).stdout);
    for flag in ["--web.listen-address", "--web.telemetry-path", "--log.level", "--log.format"] {
        assert!(help.contains(flag), "{flag}: {help}");
    }
    assert!(help.contains("127.0.0.1:10477"), "{help}");
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    for words in [&["agent", "--web.listen-address", "nowhere"][..], &["observe"], &[]] {
        let output = output(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
}

#[test]
fn check_prints_one_json_object_and_ends_by_what_it_says() {
    let output = output(&["check", "--json"]);
    let findings: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let complete = findings["complete"].as_bool().expect("a verdict");
    assert_eq!(output.status.code(), Some(if complete { 0 } else { 1 }));
    let probes = findings["probes"].as_array().expect("a list");
    assert_eq!(probes.len(), 6);
    for probe in probes {
        let told = if probe["available"] == true { "detail" } else { "remedy" };
        assert!(probe[told].is_string(), "{probe}");
    }
}

#[test]
fn check_is_for_people_too() {
    let output = output(&["check"]);
    let text = text(&output.stdout);
    assert!(text.contains("Host\n") && text.contains("Probes\n"), "{text}");
}

#[test]
fn the_agent_serves_with_any_probe_missing_and_stops_when_it_is_told() {
    let agent = Agent::start(&[]);
    assert_eq!(agent.get("/healthz").0, 200);
    let ready = agent.wait_until_ready();
    assert_eq!(ready.lines().filter(|line| line.starts_with("probe ")).count(), 6, "{ready}");

    let (status, head, body) = agent.get("/metrics");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    for family in ["migscope_build_info", "migscope_probe_attached", "process_open_fds"] {
        assert!(body.contains(&format!("# TYPE {family} gauge")), "{family}: {body}");
    }

    for (path, list) in [("/api/v1/devices", "devices"), ("/api/v1/sessions", "sessions")] {
        let (status, head, body) = agent.get(path);
        assert_eq!(status, 200);
        assert!(head.contains("content-type: application/json"), "{head}");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        assert!(answer[list].is_array(), "{body}");
    }

    let (status, head, body) = agent.get("/");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/html"), "{head}");
    assert!(body.contains("href=\"/metrics\"") && !body.contains("{{"), "{body}");
    assert_eq!(agent.get("/nothing").0, 404);

    let (code, log) = agent.stop(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("\"signal\":\"SIGTERM\""), "{log}");
}

#[test]
fn an_interrupt_stops_it_as_well() {
    assert_eq!(Agent::start(&[]).stop(Signal::INT).0, Some(0));
}

#[test]
fn the_metrics_can_be_elsewhere() {
    let agent = Agent::start(&["--web.telemetry-path", "/probe"]);
    assert_eq!(agent.get("/probe").0, 200);
    assert_eq!(agent.get("/metrics").0, 404);
    assert!(agent.get("/").2.contains("href=\"/probe\""));
}

#[test]
fn an_address_in_use_is_told_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let output = output(&["agent", "--web.listen-address", &address]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains(&address) && error.contains("--web.listen-address"), "{error}");
}
