// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask demo`: the main job on a bare machine.
//!
//! Boots the guest with two edu devices and runs `migscope-demo` (tests/cases) in it, which migrates one
//! to the other under load with the agent watching, and gives one JSON object with both accounts.

pub(crate) mod monitoring;
mod summary;

use std::io::{self, Write};
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::build_driver;
use crate::kernel::{Kernel, Variant};
use crate::programs::Programs;
use crate::setup;
use crate::vm::{self, Forward, Machine, Outcome, Streams, Task, Timings};
use crate::workspace::Workspace;
pub(crate) use summary::{Demo, milliseconds};

/// The agent's port, in the guest and if possible on the host.
const PORT: u16 = 10477;
/// Far more than the demo needs, on a slow machine too.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Runs the demo.
pub(crate) fn run(workspace: &Workspace, json: bool, keep: bool) -> Result<ExitCode> {
    setup::packages()?;
    let kernel = Kernel::ensure(workspace, Variant::Ours)?;
    let driver = build_driver::build(workspace, &kernel.build_tree())?;
    let programs = Programs::build(workspace)?;

    let port = free_port()?;
    let machine =
        Machine { forwards: vec![Forward { host: port, guest: PORT }], ..Machine::default() };
    // Not the loopback: QEMU forwards to the guest's network card.
    let mut argv =
        vec![programs.demo.clone().into(), "--listen".into(), format!("0.0.0.0:{PORT}").into()];
    argv.extend(keep.then(|| "--keep".into()));
    let task = Task {
        argv,
        environment: programs.environment(),
        driver: Some(&driver),
        timeout: (!keep).then_some(TIMEOUT),
    };
    let url = format!("http://127.0.0.1:{port}/");
    eprintln!("booting the guest; while it migrates, the live page is at {url}");

    let mut object = None;
    let stdout = Lines::new(|line| {
        let demo = show(line, json)?;
        if keep {
            eprintln!("the guest stays, with the live page at {url}; Ctrl-C ends it");
        }
        if object.replace(demo).is_some() {
            return Err(io::Error::other("the demo gave more than one result"));
        }
        Ok(())
    });
    let streams = Streams::Separate { stdout: Box::new(stdout), stderr: Box::new(io::stderr()) };
    match vm::boot(workspace, &kernel, &machine, task, streams)? {
        Outcome::Ended { status, timings, .. } => {
            let demo = object.context("the demo ended without a result; what it said is above")?;
            if !json {
                print_timings(&timings);
            }
            // The demo fails for more reasons than a disagreement, an agent that does not end, say.
            Ok(if demo.agree { ExitCode::from(status.code()) } else { ExitCode::FAILURE })
        }
        Outcome::TimedOut { limit } => bail!("the demo did not end within {} s", limit.as_secs()),
        Outcome::GuestFailed { reason } => bail!("{reason}"),
    }
}

/// Prints one result: for people, or as it is.
fn show(line: &str, json: bool) -> io::Result<Demo> {
    let demo: Demo = serde_json::from_str(line)?;
    let mut stdout = io::stdout();
    if json {
        writeln!(stdout, "{line}")?
    } else {
        write!(stdout, "{demo}")?
    }
    stdout.flush()?;
    Ok(demo)
}

fn print_timings(timings: &Timings) {
    let Timings { boot_ns, driver_load_ns, .. } = *timings;
    println!("guest boot {:.2} s", Duration::from_nanos(boot_ns).as_secs_f64());
    if let Some(load) = driver_load_ns {
        println!("driver load {:.1} ms", Duration::from_nanos(load).as_secs_f64() * 1e3);
    }
}

/// The agent's own port if it is free, else any; an agent of the host may have it.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", PORT))
        .or_else(|_taken| TcpListener::bind(("127.0.0.1", 0)))
        .context("failed to find a free TCP port")?;
    let address = listener.local_addr().context("failed to ask for a port's number")?;
    Ok(address.port())
}

/// Gives whole lines on as they come.
pub(crate) struct Lines<F> {
    pending: Vec<u8>,
    line: F,
}

impl<F: FnMut(&str) -> io::Result<()>> Lines<F> {
    pub(crate) fn new(line: F) -> Self {
        Self { pending: Vec::new(), line }
    }
}

impl<F: FnMut(&str) -> io::Result<()>> Write for Lines<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        while let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let line = str::from_utf8(&line).map_err(io::Error::other)?;
            (self.line)(line.trim_end())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_they_were_cut() {
        let mut seen = Vec::new();
        let mut lines = Lines::new(|line| {
            seen.push(line.to_owned());
            Ok(())
        });
        for part in ["{\"a\"", ":1}\n{", "}\nrest"] {
            lines.write_all(part.as_bytes()).unwrap();
        }
        assert_eq!(seen, ["{\"a\":1}", "{}"]);
    }
}
