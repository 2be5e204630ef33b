// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The program as its users meet it: started, asked over HTTP, told to stop.

mod support;

use migscope_abi::probe::Probe;
use rustix::process::Signal;
use serde_json::Value;
use std::process::Output;
use support::{Agent, migscope};

fn output(words: &[&str]) -> Output {
    migscope(words).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
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
fn a_wrong_command_line_ends_with_64() {
    for words in [&["agent", "--web.listen-address", "nowhere"][..], &["observe"], &[]] {
        let output = output(words);
        assert_eq!(output.status.code(), Some(64), "{words:?}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
}

#[test]
fn check_prints_one_json_object_and_ends_by_what_it_says() {
    let output = output(&["check", "--json"]);
    let findings: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let complete = findings["complete"].as_bool().expect("a verdict");
    let code = match findings["verdict"].as_str() {
        Some("complete") => 0,
        Some("degraded") => 1,
        Some("useless") => 2,
        other => panic!("no verdict: {other:?}"),
    };
    assert_eq!(output.status.code(), Some(code));
    assert_eq!(complete, code == 0);
    let probes = findings["probes"].as_array().expect("a list");
    assert_eq!(probes.len(), Probe::COUNT);
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
    assert_eq!(
        ready.lines().filter(|line| line.starts_with("probe ")).count(),
        Probe::COUNT,
        "{ready}"
    );

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
    assert!(body.contains("href=\"metrics\"") && !body.contains("{{"), "{body}");
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
    assert!(agent.get("/").2.contains("href=\"probe\""));
}
