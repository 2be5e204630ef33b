// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A client of QEMU's control protocol QMP: JSON, one line a message.
//!
//! ```text
//!  ◀ {"QMP": …}                                    the greeting
//!  ▶ {"execute": "query-status", "arguments": {}}
//!  ◀ {"event": …}                                  at any time; kept
//!  ◀ {"return": …}  or  {"error": {"desc": …}}
//! ```
//!
//! Source: QEMU `docs/interop/qmp-spec.txt`.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// A connection that takes commands.
#[derive(Debug)]
pub struct Qmp {
    stream: RefCell<BufReader<UnixStream>>,
    events: RefCell<Vec<Value>>,
}

impl Qmp {
    /// Reads the greeting and leaves the negotiation mode.
    ///
    /// # Errors
    ///
    /// What the connection failed with; a peer that does not speak QMP.
    pub fn new(stream: UnixStream) -> Result<Self> {
        let stream = RefCell::new(BufReader::new(stream));
        let qmp = Self { stream, events: RefCell::default() };
        let greeting = qmp.message().context("QEMU sent no greeting")?;
        if greeting.get("QMP").is_none() {
            bail!("not a greeting of QMP: {greeting}");
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and gives what it returns.
    ///
    /// # Errors
    ///
    /// What the connection failed with; QEMU's own words where it refused.
    pub fn execute(&self, command: &str, arguments: Value) -> Result<Value> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        let sent = self.stream.borrow_mut().get_mut().write_all(line.as_bytes());
        sent.with_context(|| format!("could not send {command}"))?;
        loop {
            let mut answer = self.message().with_context(|| format!("no answer to {command}"))?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                bail!("QEMU refused {command}: {}", error["desc"]);
            }
            if answer.get("event").is_some() {
                self.events.borrow_mut().push(answer);
            }
        }
    }

    /// The events of this name that have come before the last answer, in their order: what each tells.
    pub fn events(&self, name: &str) -> Vec<Value> {
        let events = self.events.borrow();
        events.iter().filter(|it| it["event"] == name).map(|it| it["data"].clone()).collect()
    }

    fn message(&self) -> Result<Value> {
        let mut line = String::new();
        if self.stream.borrow_mut().read_line(&mut line)? == 0 {
            bail!("QEMU has closed the connection");
        }
        serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))
    }
}
