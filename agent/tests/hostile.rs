// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Clients that mean harm: the others are served, and the agent's memory stays within a bound.

mod support;

use rustix::process::{Resource, getrlimit, setrlimit};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
};
use support::{Agent, client};

/// Connections that are opened, a few times as many as the agent keeps.
const MANY: usize = 2000;
/// What the agent's memory may grow by: 512 connections with 16 KiB of head each are 8 MiB, and their buffers and tasks a few more.
const GROWTH_KIB: u64 = 48 * 1024;

/// An agent that has started, so that what grows after that is its clients' doing: while it looks for probes it holds the kernel's types,
/// which are tens of MiB. It finds none here, and keeps nothing of them.
fn started() -> (Agent, tempfile::TempDir) {
    let nothing = tempfile::tempdir().expect("a folder");
    let agent = Agent::start(&["--path.sysfs", nothing.path().to_str().expect("text")]);
    agent.wait_until_ready();
    (agent, nothing)
}

fn resident_kib(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
}

fn open_files(agent: &Agent) -> usize {
    fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("it runs").count()
}

/// Lets this process have as many sockets as it may.
fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("no more than the maximum");
}

fn assert_served(agent: &Agent) {
    for _ in 0..10 {
        let (status, _, body) = agent.get("/metrics");
        assert_eq!(status, 200);
        assert!(body.contains("migscope_build_info"));
    }
}

#[test]
fn thousands_of_connections_that_begin_a_request_and_do_not_end_it() {
    raise_limit();
    let (agent, _sysfs) = started();
    assert_served(&agent);
    let before = resident_kib(&agent);
    let begun = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(12 * 1024));
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..MANY {
        let mut stream = client::tcp(agent.address());
        // One that had to give way is closed; that is the point.
        let _ = stream.write_all(begun.as_bytes());
        held.push(stream);
    }
    assert_served(&agent);
    assert!(open_files(&agent) < 600, "{} descriptors", open_files(&agent));
    let growth = resident_kib(&agent).saturating_sub(before);
    assert!(growth < GROWTH_KIB, "it has grown by {growth} KiB");
}

#[test]
fn hundreds_of_clients_that_ask_many_times_and_do_not_read() {
    raise_limit();
    let (agent, _sysfs) = started();
    let before = resident_kib(&agent);
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..600 {
        let mut stream = client::tcp(agent.address());
        for _ in 0..10 {
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        }
        held.push(stream);
    }
    assert_served(&agent);
    let growth = resident_kib(&agent).saturating_sub(before);
    assert!(growth < GROWTH_KIB, "it has grown by {growth} KiB");
}

#[test]
fn a_body_without_end_is_not_read() {
    let (agent, _sysfs) = started();
    assert_served(&agent);
    let before = resident_kib(&agent);
    let mut stream = client::tcp(agent.address());
    let head = b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head).expect("sent");
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let mut sent = 0_usize;
    while sent < 256 << 20 && stream.write_all(chunk.as_bytes()).is_ok() {
        sent += chunk.len();
    }
    assert!(sent < 64 << 20, "it took {sent} bytes of a body that nobody wants");
    let mut start = [0; 12];
    if stream.read_exact(&mut start).is_ok() {
        assert_eq!(&start, b"HTTP/1.1 405");
    }
    let growth = resident_kib(&agent).saturating_sub(before);
    assert!(growth < GROWTH_KIB, "it has grown by {growth} KiB");
    assert_served(&agent);
}

#[test]
fn who_guesses_passwords_does_not_hold_up_who_has_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("web.yml");
    let hash = bcrypt::hash("open", 10).expect("hashed");
    fs::write(&config, format!("basic_auth_users: {{alice: {hash}}}\n")).expect("written");
    let agent = Agent::start(&["--web.config.file", config.to_str().expect("text")]);
    let right = [client::password("alice", "open")];
    let ask = || client::get(client::tcp(agent.address()), "/metrics", &right).0;
    assert_eq!(ask(), 200);
    let guess = client::password("alice", "guess");
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{guess}\r\n\r\n");
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..200 {
        let mut stream = client::tcp(agent.address());
        stream.write_all(request.as_bytes()).expect("sent");
        held.push(stream);
    }
    assert_eq!(ask(), 200);
    // Of 200 at once no more than 33 are in line: the others are told so at once.
    let statuses: Vec<_> = held
        .into_iter()
        .map(|mut stream| {
            let mut start = [0; 12];
            stream.read_exact(&mut start).expect("an answer");
            String::from_utf8_lossy(&start).into_owned()
        })
        .collect();
    assert!(statuses.iter().all(|status| status.ends_with("401") || status.ends_with("503")));
    assert!(statuses.iter().any(|status| status.ends_with("503")), "{statuses:?}");
}
