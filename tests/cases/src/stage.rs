// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's part in the test of the live page: the browser is on the host, where it is fast, and says when to migrate.
//!
//! ```text
//!   host                                        guest
//!   Chromium ─────── forwarded port ──────────▶ agent ◀── probes ◀── driver
//!   test ─────────── forwarded port ──────────▶ stage ──▶ migrator live
//!                       ◀──  "ready\n", when the agent is
//!        "migrate 3\n"  ──▶  the migrator's account, one line of JSON
//!        "stop\n"       ──▶  {"stopped_in_ns":…}; the agent has ended with 0, and so does the stage
//! ```

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use migscope_abi::device::DeviceKey;

use crate::demo::agent::Agent;
use crate::demo::program;

/// Runs an agent, and migrations when told to.
#[derive(Parser)]
#[command(name = "migscope-stage", version)]
struct Cli {
    /// Address that the agent listens on
    #[arg(long)]
    agent: SocketAddr,
    /// Address to hear commands on
    #[arg(long)]
    control: SocketAddr,
}

/// The program.
pub fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("migscope-stage: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let devices = migrator::device::bound_devices()
        .context("failed to list the devices of vfio_mediate; is the module loaded?")?;
    let [source, destination, ..] = *devices.as_slice() else {
        bail!("two devices bound to vfio_mediate are needed, {} found", devices.len());
    };
    let mut agent = Some(Agent::start(cli.agent)?);
    let listener = TcpListener::bind(cli.control)
        .with_context(|| format!("failed to listen on {}", cli.control))?;
    while let Some(running) = agent.take() {
        let (stream, _) = listener.accept().context("failed to take a connection")?;
        agent = serve(stream, running, source, destination)?;
    }
    Ok(())
}

/// Obeys one client until it goes; gives the agent back unless it was stopped.
fn serve(
    stream: TcpStream,
    agent: Agent,
    source: DeviceKey,
    destination: DeviceKey,
) -> Result<Option<Agent>> {
    let mut answers = stream.try_clone().context("failed to share a connection")?;
    // QEMU takes connections for a port that nobody listens on yet; this tells them apart.
    answers.write_all(b"ready\n").context("failed to greet")?;
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { break };
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("migrate", seconds) => {
                let account = migrate(source, destination, seconds)?;
                answers.write_all(account.as_bytes()).context("failed to answer")?;
            }
            ("stop", _) => {
                let began = Instant::now();
                agent.stop()?;
                writeln!(answers, "{{\"stopped_in_ns\":{}}}", began.elapsed().as_nanos())
                    .context("failed to answer")?;
                return Ok(None);
            }
            (other, _) => bail!("{other:?} is no command"),
        }
    }
    Ok(Some(agent))
}

/// One migration whose pre-copy lasts for `seconds`; gives the migrator's account.
fn migrate(source: DeviceKey, destination: DeviceKey, seconds: &str) -> Result<String> {
    let mut command = Command::new(program("MIGSCOPE_MIGRATOR")?);
    command.args(["live", "--json", "--seconds", seconds, "--workload", "hot=16"]);
    command.args(["--source", &source.to_string(), "--destination", &destination.to_string()]);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("failed to start {command:?}"))?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    let account: serde_json::Value = serde_json::from_slice(&output.stdout)
        .context("failed to understand the migrator's account")?;
    Ok(format!("{account}\n"))
}
