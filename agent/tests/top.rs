// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope top` as its users meet it: as lines, and on the terminal of a tmux server of its own, from an agent that always says
//! the same.

use serde_json::Value;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{JoinHandle, sleep},
    time::{Duration, Instant},
};

/// How long anything here may take; it takes milliseconds, or seconds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const SNAPSHOT: &str = include_str!("top/snapshot.json");
const TIMELINE: &str = include_str!("top/timeline.json");
/// `me:secret` in Base64.
const AUTHORIZATION: &str = "authorization: basic bwu6c2vjcmv0";

/// An agent that says what is in `tests/top`; what has moved grows with each answer.
struct Agent {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Agent {
    fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), false)
    }

    fn start_at(address: SocketAddr, guarded: bool) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let answers = AtomicU64::new(0);
        let server = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // A client that went away is the business of the test that sent it.
                let _ = answer(stream.expect("a connection"), &answers, guarded);
            }
        });
        Self { address, stop, server: Some(server) }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the server; it is over when it has seen the flag.
        let _ = TcpStream::connect(self.address);
        if let Some(server) = self.server.take() {
            server.join().expect("the server ended well");
        }
    }
}

fn answer(mut stream: TcpStream, answers: &AtomicU64, guarded: bool) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut part = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let length = stream.read(&mut part)?;
        if length == 0 {
            return Ok(());
        }
        request.extend_from_slice(&part[..length]);
    }
    let request = String::from_utf8_lossy(&request).to_lowercase();
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match path {
        _ if guarded && !request.contains(AUTHORIZATION) => ("401 Unauthorized", String::new()),
        "/api/v1/snapshot" => ("200 OK", snapshot(answers.fetch_add(1, Ordering::Relaxed))),
        "/api/v1/sessions/1" => ("200 OK", format!("{{\"timeline\":{TIMELINE}}}")),
        _ => ("404 Not Found", String::new()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn snapshot(answers: u64) -> String {
    let mut snapshot: Value = serde_json::from_str(SNAPSHOT).expect("JSON");
    let now = snapshot["monotonic_ns"].as_u64().expect("a time") + answers * 500_000_000;
    snapshot["monotonic_ns"] = now.into();
    let moved = &mut snapshot["devices"][0]["session"]["data_bytes"];
    *moved = (moved.as_u64().expect("bytes") + answers * 52_428_800).into();
    snapshot.to_string()
}

fn top(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_migscope"));
    command.arg("top").args(words).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn without_a_terminal_it_writes_a_line_a_device_and_then_what_changes() {
    let agent = Agent::start();
    let output = top(&["--agent", &agent.url(), "--count", "3", "--interval", "50ms"]);
    let lines = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let of = |device: &str| lines.lines().filter(|line| line.contains(device)).collect::<Vec<_>>();
    assert_eq!(of(" device=0000:00:11.0 ").len(), 2, "once, and once its rate is known\n{lines}");
    assert_eq!(of(" device=0000:00:13.0 ").len(), 1, "nothing has changed\n{lines}");
    let moving = of(" device=0000:00:10.0 ");
    assert_eq!(moving.len(), 3, "{lines}");
    assert!(moving[0].contains(" vm=web state=pre_copy "), "{lines}");
    assert!(moving[0].contains(" data_bytes_per_second=? "), "{lines}");
    assert!(moving[2].contains(" data_bytes_per_second=104857600 "), "{lines}");
    assert!(!lines.contains('\u{1b}'), "{lines}");
}

#[test]
fn once_asks_once_and_json_is_what_the_agent_said() {
    let agent = Agent::start();
    let output = top(&["--agent", &agent.url(), "--once", "--json"]);
    let lines = text(&output.stdout);
    assert_eq!(lines.lines().count(), 1);
    let said: Value = serde_json::from_str(&lines).expect("one object");
    assert_eq!(
        said,
        serde_json::from_str::<Value>(&snapshot(1)).expect("JSON"),
        "the second answer"
    );
}

#[test]
fn a_user_and_a_password_open_a_guarded_agent() {
    let agent = Agent::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), true);
    let refused = top(&["--agent", &agent.url(), "--once"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("--agent.user"), "{}", text(&refused.stderr));
    let mut password = tempfile::NamedTempFile::new().expect("a file");
    writeln!(password, "secret").expect("written");
    let path = password.path().to_str().expect("text");
    let user = ["--agent.user", "me", "--agent.password-file", path];
    let output = top(&[&["--agent", &agent.url(), "--once"][..], &user].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn an_agent_that_is_not_there_is_told_with_its_address() {
    let nobody = Agent::start().url();
    let output = top(&["--agent", &nobody, "--once"]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains(&nobody) && error.contains("no agent listens"), "{error}");
}

#[test]
fn what_is_no_agent_is_told_apart() {
    let agent = Agent::start();
    let elsewhere = format!("{}/other", agent.url());
    for (url, told) in [
        (&*elsewhere, "no migscope agent"),
        ("ftp://host", "no address"),
        ("http://", "no address"),
    ] {
        let output = top(&["--agent", url, "--once"]);
        assert_eq!(output.status.code(), Some(1), "{url}");
        assert!(text(&output.stderr).contains(told), "{url}: {}", text(&output.stderr));
    }
    let missing = top(&["--agent", &agent.url(), "--agent.ca-file", "/nonexistent", "--once"]);
    assert!(text(&missing.stderr).contains("/nonexistent"), "{}", text(&missing.stderr));
    let none = top(&["--agent", &agent.url(), "--agent.ca-file", "/proc/self/stat", "--once"]);
    assert!(text(&none.stderr).contains("PEM"), "{}", text(&none.stderr));
}

#[test]
fn a_reader_who_has_read_enough_is_no_failure() {
    let agent = Agent::start();
    let line = format!(
        "{} top --json --interval 50ms --agent {} 2>&1 | head -n 1 | wc -l; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_migscope"),
        agent.url()
    );
    let output = Command::new("bash").args(["-c", &line]).output().expect("bash runs");
    assert_eq!(text(&output.stdout), "1\n0\n", "{}", text(&output.stderr));
}

/// A terminal: a tmux server of its own, with a shell in it; killed with it.
struct Terminal {
    socket: tempfile::TempDir,
}

impl Terminal {
    /// `None`, with the reason printed, where there is no tmux.
    fn open(width: u16, height: u16) -> Option<Self> {
        let socket = tempfile::tempdir().expect("a folder");
        let terminal = Self { socket };
        let (width, height) = (width.to_string(), height.to_string());
        let size = ["-x", width.as_str(), "-y", height.as_str()];
        let mut command = terminal.command(&["-f", "/dev/null", "new-session", "-d"]);
        command.args(size).args(["env", "PS1=shell> ", "bash", "--norc", "--noprofile", "-i"]);
        match command.output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("not run: there is no tmux");
                return None;
            }
            output => assert!(output.expect("it starts").status.success()),
        }
        terminal.wait_for(&["shell>"]);
        Some(terminal)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-u").arg("-S").arg(self.socket.path().join("tmux")).args(words);
        command.env_remove("TMUX");
        command
    }

    fn tmux(&self, words: &[&str]) -> String {
        let output = self.command(words).output().expect("tmux runs");
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn send(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"][..], keys].concat());
    }

    fn start(&self, words: &str) {
        self.send(&["-l", &format!("{} top {words}", env!("CARGO_BIN_EXE_migscope"))]);
        self.send(&["Enter"]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The screen, once it has all of these texts.
    fn wait_for(&self, texts: &[&str]) -> String {
        self.wait_until(&format!("{texts:?}"), |screen| {
            texts.iter().all(|text| screen.contains(text))
        })
    }

    fn wait_until(&self, what: &str, good: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if good(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "{what} never came:\n{screen}");
            sleep(Duration::from_millis(20));
        }
    }

    /// Whether the shell has its terminal back: the ordinary screen, the cursor, and lines that are edited.
    fn is_given_back(&self) {
        self.wait_until("the shell", |screen| screen.trim_end().ends_with("shell>"));
        let state = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        assert_eq!(state.trim(), "0 1");
        self.send(&["-l", "stty -a | grep -ow -e '-*icanon' -e '-*echo'"]);
        self.send(&["Enter"]);
        let screen = self.wait_until("stty", |screen| screen.matches("shell>").count() >= 3);
        assert!(screen.contains("\nicanon\n") && screen.contains("\necho\n"), "{screen}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // This server and no other: it has a socket of its own.
        let _ = self.command(&["kill-server"]).output();
    }
}

#[test]
fn on_a_terminal_keys_work_and_quitting_gives_it_back() {
    let agent = Agent::start();
    let Some(terminal) = Terminal::open(80, 24) else { return };
    terminal.start(&format!("--agent {} --interval 100ms", agent.url()));
    let screen =
        terminal.wait_for(&["›0000:00:10.0", "pre_copy", "100M", "completed 257ms", "F10Quit"]);
    assert!(screen.starts_with(&format!(" migscope 0.1.0  agent {}", agent.url())), "{screen}");
    terminal.send(&["Down", "j", "j"]);
    terminal.wait_for(&["›0000:00:13.0"]);
    terminal.send(&["Enter"]);
    terminal.wait_for(&["Transitions", "transfer gap", "moved", "┃pre_copy"]);
    terminal.send(&["Escape"]);
    terminal.wait_for(&["›0000:00:13.0"]);
    terminal.send(&["F5"]);
    terminal.wait_for(&["web · pid 4711 · 2 devices", "└─ 0000:00:13.0"]);
    terminal.send(&["F5", "/"]);
    terminal.wait_for(&["Filter:"]);
    terminal.send(&["-l", "gpu"]);
    terminal.send(&["Enter"]);
    terminal.wait_until("the filter", |screen| {
        screen.contains("c0ffee") && !screen.contains("00:10.0")
    });
    terminal.send(&["?"]);
    terminal.wait_for(&["unknown, which is not 0"]);
    terminal.send(&["q"]);
    terminal.wait_for(&["filter: gpu"]);
    terminal.send(&["q"]);
    terminal.is_given_back();
}

#[test]
fn a_lost_agent_is_told_and_asked_again() {
    let agent = Agent::start();
    let address = agent.address;
    let Some(terminal) = Terminal::open(100, 24) else { return };
    terminal.start(&format!("--agent {} --interval 100ms", agent.url()));
    terminal.wait_for(&["›0000:00:10.0"]);
    drop(agent);
    terminal.wait_for(&["agent gone since", "›0000:00:10.0", "pre_copy"]);
    let _agent = Agent::start_at(address, false);
    terminal.wait_until("its return", |screen| !screen.contains("agent gone since"));
    terminal.send(&["F10"]);
    terminal.is_given_back();
}

#[test]
fn a_terminal_that_changes_its_size_is_filled() {
    let agent = Agent::start();
    let Some(terminal) = Terminal::open(80, 24) else { return };
    terminal.start(&format!("--agent {} --interval 100ms", agent.url()));
    terminal.wait_for(&["›0000:00:10.0", "PENDING"]);
    terminal.tmux(&["resize-window", "-x", "160", "-y", "40"]);
    terminal.wait_for(&["PROTO", "DIRTY/s", "LAST 60", "F10Quit"]);
    terminal.tmux(&["resize-window", "-x", "60", "-y", "12"]);
    terminal.wait_until("the small one", |screen| {
        screen.contains("VERDICT") && !screen.contains("PENDING") && screen.contains("F10Quit")
    });
    terminal.send(&["C-c"]);
    terminal.is_given_back();
}

#[test]
fn signals_end_it_or_stop_it_and_the_terminal_is_given_back() {
    let agent = Agent::start();
    for signal in ["TERM", "INT"] {
        let Some(terminal) = Terminal::open(80, 24) else { return };
        terminal.start(&format!("--agent {} --interval 100ms", agent.url()));
        terminal.wait_for(&["›0000:00:10.0"]);
        terminal.tmux(&["run-shell", &format!("kill -{signal} $(pgrep -P #{{pane_pid}})")]);
        terminal.is_given_back();
    }
    let Some(terminal) = Terminal::open(80, 24) else { return };
    terminal.start(&format!("--agent {} --interval 100ms", agent.url()));
    terminal.wait_for(&["›0000:00:10.0"]);
    terminal.send(&["C-z"]);
    terminal.wait_for(&["Stopped", "shell>"]);
    terminal.send(&["-l", "fg"]);
    terminal.send(&["Enter"]);
    terminal.wait_for(&["›0000:00:10.0", "F10Quit"]);
    terminal.tmux(&["run-shell", "kill -TSTP $(pgrep -P #{pane_pid})"]);
    terminal.wait_until("the stop", |screen| screen.matches("Stopped").count() == 2);
    terminal.send(&["-l", "fg"]);
    terminal.send(&["Enter"]);
    terminal.wait_for(&["›0000:00:10.0", "F10Quit"]);
    terminal.send(&["q"]);
    terminal.wait_until("the shell", |screen| screen.trim_end().ends_with("shell>"));
}
