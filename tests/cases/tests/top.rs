// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope top` on a terminal (tmux), beside an agent and without one, while a device migrates.

use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use cases::demo::agent::Agent;
use cases::guest;

/// How long anything here may take; loading probes takes longest, on an emulated CPU.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    guest::run(&[
        ("a_migration_is_seen_while_it_runs_and_when_it_is_over", beside_an_agent),
        ("without_an_agent_its_own_probes_see_a_migration", with_its_own_probes),
        ("lines_tell_the_same_as_the_agent", as_lines),
    ])
}

/// What an environment variable names; `cargo xtask test` sets them.
fn program(variable: &str) -> String {
    let program = std::env::var(variable);
    program.unwrap_or_else(|_| panic!("{variable} must name a program; `cargo xtask test` sets it"))
}

/// An agent on a port of its own, so that no default finds it.
fn agent() -> (Agent, String) {
    let listen: SocketAddr = "127.0.0.1:10480".parse().expect("an address");
    (Agent::start(listen).expect("an agent"), format!("http://{listen}"))
}

/// A migration that takes some seconds.
fn migrate() -> Child {
    let [source, destination] = guest::devices().map(|device| device.to_string());
    let mut command = Command::new(program("MIGSCOPE_MIGRATOR"));
    command.args(["live", "--seconds", "4", "--source", &source, "--destination", &destination]);
    command.stdout(Stdio::null()).spawn().expect("a migrator")
}

/// A terminal: a tmux server with a socket of its own, ended with it.
struct Terminal {
    socket: std::path::PathBuf,
}

impl Terminal {
    fn running(name: &str, arguments: &str) -> Self {
        let file = format!("migscope-top-{}-{name}", std::process::id());
        let terminal = Self { socket: std::env::temp_dir().join(file) };
        // The shell stays when the program is over: what it left behind can be looked at.
        let line = format!(
            "{} top {arguments}; echo ended with $?; exec sleep 1000",
            program("MIGSCOPE_AGENT")
        );
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", &line]);
        terminal
    }

    fn tmux(&self, words: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.arg("-u").arg("-S").arg(&self.socket).args(words).env_remove("TMUX");
        let output = command.output().expect("tmux is installed");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "tmux {words:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn wait_for(&self, texts: &[&str]) -> String {
        self.wait_until(&format!("{texts:?}"), |screen| {
            texts.iter().all(|text| screen.contains(text))
        })
    }

    fn wait_until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.tmux(&["capture-pane", "-p"]);
            if wanted(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "{what} never came:\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn send(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// The program gave the ordinary screen and the cursor back.
    fn is_over(&self) {
        self.wait_for(&["ended with 0"]);
        let state = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        assert_eq!(state.trim(), "0 1");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// Whether every probe that has something to watch is attached, however many there are: `probes 10/10`.
fn all_attached(screen: &str) -> bool {
    let told = screen.lines().find_map(|line| line.trim_start().strip_prefix("probes "));
    let numbers = told.and_then(|told| told.split_whitespace().next()?.split_once('/'));
    numbers.is_some_and(|(there, all)| there == all && there.parse::<u32>().is_ok_and(|n| n > 0))
}

/// Watches a migration from its first state to its result, and goes through the keys meanwhile.
fn watch(terminal: &Terminal) {
    let [source, destination] = guest::devices().map(|device| device.to_string());
    let mut migrator = migrate();
    let table = terminal.wait_for(&[&source, &destination, "pre_copy", "resuming", "src", "dst"]);
    eprintln!("{table}");
    // What has begun stands at the top, and the first line is selected.
    terminal.send("Enter");
    let page = terminal.wait_for(&["Transitions", "running → pre_copy", "Dirty pages", "moved"]);
    eprintln!("{page}");
    terminal.send("Escape");
    assert!(migrator.wait().expect("it ends").success(), "the migration failed");
    let over = terminal.wait_for(&["completed", "closed", "0 migrating"]);
    eprintln!("{over}");
    terminal.send("Enter");
    let page = terminal.wait_for(&["stop_and_copy → stopped", "transfer gap", "final data"]);
    assert!(!page.contains("not all of it was seen"), "{page}");
    eprintln!("{page}");
    terminal.send("F10");
    terminal.is_over();
}

fn beside_an_agent() {
    let (agent, url) = agent();
    let terminal = Terminal::running("agent", &format!("--agent {url} --interval 200ms"));
    terminal.wait_for(&[&format!("agent {url}"), "lost 0"]);
    terminal.wait_until("all probes", all_attached);
    watch(&terminal);
    agent.stop().expect("the agent stops");
}

fn with_its_own_probes() {
    let terminal = Terminal::running("probes", "--interval 200ms");
    terminal.wait_for(&["own probes, no agent"]);
    terminal.wait_until("all probes", all_attached);
    watch(&terminal);
}

fn as_lines() {
    let (agent, url) = agent();
    assert!(migrate().wait().expect("it ends").success(), "the migration failed");
    let deadline = Instant::now() + PATIENCE;
    let line = loop {
        let mut command = Command::new(program("MIGSCOPE_AGENT"));
        let output = command.args(["top", "--once", "--agent", &url]).output().expect("it runs");
        assert!(output.status.success());
        let lines = String::from_utf8(output.stdout).expect("text");
        let [source, _] = guest::devices();
        let of_source = format!(" device={source} ");
        let found = lines.lines().find(|line| line.contains(&of_source));
        match found.filter(|line| line.contains(" result=completed ")) {
            Some(line) => break line.to_owned(),
            None => assert!(Instant::now() < deadline, "no result came:\n{lines}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let sessions = agent.get("/api/v1/sessions").expect("sessions");
    let sessions: serde_json::Value = serde_json::from_str(&sessions).expect("JSON");
    let source = &sessions["sessions"].as_array().expect("a list").iter();
    let source = source.clone().find(|session| session["role"] == "source").expect("one");
    let bytes = source["data_bytes"].as_u64().expect("known");
    assert!(
        line.contains(&format!(" data_bytes={bytes} pending_bytes=0 progress=1.000 ")),
        "{line}"
    );
    agent.stop().expect("the agent stops");
}
