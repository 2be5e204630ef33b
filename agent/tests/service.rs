// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The agent as a service: what it tells systemd, the sockets that systemd hands over, SIGHUP, and the unit files.

mod support;

use migscope_abi::probe::Probe;
use rustix::process::Signal;
use std::{
    fs,
    net::TcpListener,
    os::unix::net::{UnixDatagram, UnixStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};
use support::{Agent, PATIENCE, client, migscope};

/// A service manager that only listens.
struct Manager {
    folder: tempfile::TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("bound");
        socket.set_read_timeout(Some(PATIENCE)).expect("a duration");
        Self { folder, socket }
    }

    fn command(&self) -> Command {
        let mut command = migscope(&["agent", "--web.listen-address", "127.0.0.1:0"]);
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify"));
        command
    }

    /// The next message.
    fn message(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// The next message that has a line which starts so.
    fn message_with(&self, start: &str) -> String {
        loop {
            let message = self.message();
            if message.lines().any(|line| line.starts_with(start)) {
                return message;
            }
        }
    }
}

#[test]
fn the_manager_is_told_of_readiness_reload_and_end() {
    let manager = Manager::new();
    let agent = Agent::spawn(&mut manager.command(), 1);
    let first = manager.message();
    assert!(first.starts_with("READY=1\n"), "nothing comes before it: {first}");
    let standing = format!(" of {} probes attached", Probe::COUNT);
    assert!(first.contains("STATUS=") && first.contains(&standing), "{first}");
    assert_eq!(agent.get("/readyz").0, 200, "ready means that the probes were tried");

    agent.signal(Signal::HUP);
    let reloading = manager.message_with("RELOADING=1");
    let stamp = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(stamp.is_some_and(|stamp| stamp.parse::<u64>().is_ok()), "{reloading}");
    manager.message_with("READY=1");

    let (code, log) = agent.stop(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    manager.message_with("STOPPING=1");
}

#[test]
fn the_watchdog_is_fed_where_there_is_one() {
    let manager = Manager::new();
    let mut command = manager.command();
    command.env("WATCHDOG_USEC", "1200000");
    let _agent = Agent::spawn(&mut command, 1);
    for _ in 0..2 {
        manager.message_with("WATCHDOG=1");
    }
}

#[test]
fn without_a_watchdog_nobody_is_fed() {
    let manager = Manager::new();
    let agent = Agent::spawn(&mut manager.command(), 1);
    manager.message_with("READY=1");
    assert_eq!(agent.stop(Signal::TERM).0, Some(0));
    manager.socket.set_nonblocking(true).expect("possible");
    let mut bytes = [0; 4096];
    while let Ok(length) = manager.socket.recv(&mut bytes) {
        assert!(!bytes[..length].starts_with(b"WATCHDOG"));
    }
}

/// Kills systemd-socket-activate, or the agent that it has become.
struct Activated(Child);

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn sockets_of_systemd_are_taken_tcp_and_unix() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("activated.sock");
    // A port that was free a moment ago, as the tool has none for "any".
    let port = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("bound").port();
    let address = format!("127.0.0.1:{port}");
    let mut command = Command::new("systemd-socket-activate");
    command.args(["-l", &address, "-l"]).arg(&path).arg(env!("CARGO_BIN_EXE_migscope"));
    command.args(["agent", "--web.systemd-socket"]).stderr(Stdio::null());
    let child = match command.spawn() {
        Ok(child) => Activated(child),
        Err(error) => return eprintln!("not run: systemd-socket-activate: {error}"),
    };
    let deadline = Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(Instant::now() < deadline, "it does not listen");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let stream = client::tcp(address.parse().expect("an address"));
    assert_eq!(client::get(stream, "/healthz", &[]).0, 200);
    let stream = UnixStream::connect(&path).expect("it listens");
    assert_eq!(client::get(stream, "/healthz", &[]).0, 200);
    drop(child);
    assert!(path.exists(), "the file is systemd's, and stays");
}

#[test]
fn without_sockets_of_systemd_it_says_how_to_be_started() {
    let output = migscope(&["agent", "--web.systemd-socket"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("migscope.socket"), "{error}");
}

#[test]
fn sighup_reads_the_configuration_again_and_says_what_needs_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("migscope.toml");
    fs::write(&path, "[log]\nlevel = \"info\"\n").expect("written");
    let mut agent = Agent::start(&["--config.file", path.to_str().expect("text")]);
    agent.wait_until_ready();

    fs::write(
        &path,
        "[log]\nlevel = \"debug\"\n[series]\nkeep = \"1s\"\n[web]\nmax-requests = 1\n",
    )
    .expect("written");
    agent.signal(Signal::HUP);
    for key in ["log.level", "series.keep"] {
        let line = agent.hear(key);
        assert!(line.contains("\"level\":\"INFO\""), "{line}");
    }
    let line = agent.hear("web.max-requests");
    assert!(line.contains("needs a restart") && line.contains("\"level\":\"WARN\""), "{line}");

    fs::write(&path, "[web]\nmax-requests = \"many\"\n").expect("written");
    agent.signal(Signal::HUP);
    let line = agent.hear("goes on holding");
    assert!(line.contains("migscope.toml"), "{line}");
    assert_eq!(agent.get("/healthz").0, 200);
    // The level that it had is still the new one: a connection that ends early is told at level debug.
    drop(client::tcp(agent.address()));
    let (code, _) = agent.stop(Signal::TERM);
    assert_eq!(code, Some(0));
}

#[test]
fn config_check_prints_what_holds_and_does_not_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("migscope.toml");
    fs::write(&path, "[web]\nmax-requests = 3\n").expect("written");
    let path = path.to_str().expect("text");
    let words = ["agent", "--config.file", path, "--config.check", "--privileges", "keep"];
    let output = migscope(&words).output().expect("it runs");
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let table: toml::Table = text.parse().expect("TOML");
    assert_eq!(table["web"]["max-requests"].as_integer(), Some(3));
    assert_eq!(table["privileges"].as_str(), Some("keep"));
    assert_eq!(table["series"]["keep"].as_str(), Some("10m"));

    fs::write(path, "[web]\nmax_requests = 3\n").expect("written");
    let output = migscope(&words).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    for word in [path, "line 2", "max_requests", "max-requests"] {
        assert!(error.contains(word), "{word}: {error}");
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/systemd");
    let folder = tempfile::tempdir().expect("a folder");
    let mut paths = Vec::new();
    for name in ["migscope.service", "migscope.socket"] {
        let text = fs::read_to_string(units.join(name)).expect("there");
        // verify wants the program to be there, which it is elsewhere than where it will be installed.
        let text = text.replace("/usr/bin/migscope", env!("CARGO_BIN_EXE_migscope"));
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        paths.push(path);
    }
    let mut command = Command::new("systemd-analyze");
    match command.args(["verify", "--man=no"]).args(&paths).output() {
        Ok(output) => {
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            let ours: Vec<_> = told.lines().filter(|line| line.contains("migscope")).collect();
            assert!(output.status.success() && ours.is_empty(), "{told}");
        }
        Err(error) => eprintln!("not run: systemd-analyze: {error}"),
    }
}
