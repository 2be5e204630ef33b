// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the tests of the program share: starting it, asking it, and certificates.
#![expect(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod certificate;
pub(crate) mod client;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

/// How long anything here may take; it takes milliseconds, or a second on a machine that emulates another.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The program, with what is typed after its name.
pub(crate) fn migscope(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_migscope"));
    command.args(words);
    command
}

/// An agent that is stopped when the test is over.
pub(crate) struct Agent {
    child: Child,
    /// Where it said that it listens, as it said it.
    pub(crate) addresses: Vec<String>,
    lines: Receiver<String>,
    /// How much of `heard` was searched.
    searched: usize,
    /// What it has logged, as far as it was read.
    pub(crate) heard: String,
}

impl Agent {
    /// On a port of its own.
    pub(crate) fn start(words: &[&str]) -> Self {
        let mut command = migscope(&["agent", "--web.listen-address", "127.0.0.1:0"]);
        command.args(words);
        Self::spawn(&mut command, 1)
    }

    /// As the command says, until it listens on as many addresses.
    pub(crate) fn spawn(command: &mut Command, addresses: usize) -> Self {
        let command = command.args(["--log.format", "json"]).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let (sender, lines) = channel();
        // Ends with the agent, or with the test.
        std::thread::spawn(move || {
            log.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let heard = String::new();
        let mut agent = Self { child, addresses: Vec::new(), lines, searched: 0, heard };
        while agent.addresses.len() < addresses {
            let line = agent.hear_line();
            let line: Value = serde_json::from_str(&line).expect("one JSON object a line");
            if let Some(address) = line["fields"]["address"].as_str() {
                agent.addresses.push(address.into());
            }
        }
        agent
    }

    /// The next line of its log.
    fn hear_line(&mut self) -> String {
        let line = self.lines.recv_timeout(PATIENCE);
        let line = line.unwrap_or_else(|error| panic!("{error}, after: {}", self.heard));
        self.heard.push_str(&line);
        self.heard.push('\n');
        line
    }

    /// Reads its log on to a line that has `words`, and gives that line. What was searched before is not searched again.
    pub(crate) fn hear(&mut self, words: &str) -> String {
        loop {
            while let Some((line, _)) = self.heard[self.searched..].split_once('\n') {
                let line = line.to_owned();
                self.searched += line.len() + 1;
                if line.contains(words) {
                    return line;
                }
            }
            self.hear_line();
        }
    }

    /// Where it listens first, over TCP.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0].parse().expect("an address")
    }

    /// Status, headers and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String, String) {
        client::get(client::tcp(self.address()), path, &[])
    }

    /// Waits until the probes were tried.
    pub(crate) fn wait_until_ready(&self) -> String {
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

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("it runs");
    }

    /// Stops it; exit status, and all of its log.
    pub(crate) fn stop(mut self, signal: Signal) -> (Option<i32>, String) {
        self.signal(signal);
        let status = self.child.wait().expect("it ends");
        let rest: String = self.lines.iter().map(|line| line + "\n").collect();
        (status.code(), std::mem::take(&mut self.heard) + &rest)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It has ended already when the test stopped it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
