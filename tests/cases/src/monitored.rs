// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's part in `cargo xtask demo --monitoring`: an agent, and migrations that end in every way, while a Prometheus on the host
//! scrapes the agent.
//!
//! ```text
//!   host                                   guest
//!   Prometheus ── forwarded port ────────▶ agent ◀── probes ◀── driver
//!   xtask ◀── stdout: one event a line ─── this program ──▶ a process for each migration
//!
//!   not-converging  ├──────────── until the agent says why ────────────┤ cancelled
//!   others            ├ cancelled ┤ ├ refused ┤ ├ died ┤                  ├ converging ┤
//! ```
//!
//! Between two migrations it waits until somebody has scraped the agent again, and so knows that the figures of the one before are in
//! Prometheus. Each migration is a process of its own, as each VMM is, and accounts for what it did; the host holds that against
//! Prometheus.

mod told;
mod ways;

use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};

use self::told::{End, Event};
use self::ways::Way;
use crate::demo::agent::Agent;

/// How often Prometheus must have scraped the agent before what was is taken to be known to it. The first may have begun before.
const SCRAPES: f64 = 3.0;
/// How often that much is waited for after the last migration.
const AFTER_THE_LAST: u32 = 3;
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a migration may take to be called blocked: twice of what it takes.
const UNTIL_BLOCKED: Duration = Duration::from_secs(100);
/// How often the agent is asked.
const POLL: Duration = Duration::from_millis(200);

/// Migrates devices in every way while a Prometheus scrapes the agent.
#[derive(Parser)]
#[command(name = "migscope-monitored", version)]
struct Cli {
    #[command(subcommand)]
    part: Option<Part>,
    /// Address that the agent listens on
    #[arg(long, default_value = "127.0.0.1:10477")]
    listen: SocketAddr,
    /// Let the agent go on after the last migration, until this program gets SIGTERM or SIGINT
    #[arg(long)]
    keep: bool,
}

#[derive(Subcommand)]
enum Part {
    /// One migration in this process; prints what its ends did. One that does not end is cancelled when standard input does
    One {
        /// How it goes
        way: Way,
        /// What a VMM would be told of its machine
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        machine: Vec<String>,
    },
}

/// The program: events on stdout, one in a line of JSON; progress on stderr.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.part {
        Some(Part::One { way, machine: _ }) => way.run().and_then(|ends| {
            println!("{}", serde_json::to_string(&ends)?);
            Ok(())
        }),
        None => run(&cli),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("migscope-monitored: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let agent = Agent::start(cli.listen)?;
    let missing = agent.scrape()?.detached_probes();
    ensure!(missing.is_empty(), "probes are missing: {}; see the agent's log", missing.join(", "));
    Event::Ready.tell()?;
    scraped(&agent)?;

    let endless = Running::start(Way::NotConverging)?;
    for way in [Way::Cancelled, Way::Refused, Way::Died] {
        Running::start(way)?.ended()?;
        // What is told of the end, and the next beginning, are then at least a scrape apart.
        scraped(&agent)?;
    }
    blocked(&agent)?;
    // Somebody who watches has to see it before it is over.
    scraped(&agent)?;
    endless.ended()?;
    scraped(&agent)?;
    // The last of its devices, so that what is told of it is there to the end; and by itself, since the agent says which two ends belong to
    // each other only where no other may.
    Running::start(Way::Converging)?.ended()?;
    // Alerts follow from what is recorded of what was scraped.
    for _ in 0..AFTER_THE_LAST {
        scraped(&agent)?;
    }
    Event::Over.tell()?;
    if cli.keep { agent.wait() } else { agent.stop() }
}

/// Waits until the agent has been scraped by somebody who asks for OpenMetrics, as Prometheus does and we do not.
fn scraped(agent: &Agent) -> Result<()> {
    let count = || -> Result<f64> {
        let told = agent.scrape()?.sum("migscope_scrapes_total", &[("format", "openmetrics")]);
        Ok(told.unwrap_or(0.0))
    };
    let (before, deadline) = (count()?, Instant::now() + PATIENCE);
    while count()? < before + SCRAPES {
        ensure!(Instant::now() < deadline, "no Prometheus scrapes the agent");
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Waits until the agent says that memory is dirtied faster than it is moved.
fn blocked(agent: &Agent) -> Result<()> {
    let labels = [("reason", "dirty_rate_above_throughput")];
    let deadline = Instant::now() + UNTIL_BLOCKED;
    while agent.scrape()?.sum("vfio_migration_blocked", &labels) != Some(1.0) {
        if Instant::now() >= deadline {
            bail!("no migration was called blocked within {} s", UNTIL_BLOCKED.as_secs());
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// The process of one migration.
struct Running {
    way: Way,
    child: Child,
}

impl Running {
    fn start(way: Way) -> Result<Self> {
        let myself = std::env::current_exe().context("failed to find this program")?;
        let mut command = Command::new(myself);
        // As libvirt starts a VMM, by which the agent knows which machine has a device.
        command.arg0("qemu-system-x86_64").args(["one", way.name()]);
        let (name, uuid) = way.machine();
        command.args(["-name", &format!("guest={name}"), "-uuid", uuid]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Event::Begin { migration: way.name() }.tell()?;
        let child = command.spawn().with_context(|| format!("failed to start {command:?}"))?;
        Ok(Self { way, child })
    }

    /// Tells it to end, if it is one that would not, and passes on what it did.
    fn ended(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        let mut stdout = self.child.stdout.take().context("its stdout is not there")?;
        stdout.read_to_string(&mut text).context("failed to read what a migration did")?;
        let name = self.way.name();
        let status = self.child.wait().context("failed to wait for a migration")?;
        ensure!(status.success(), "the migration {name} ended with {status}");
        let ends: Vec<End> = serde_json::from_str(&text)
            .with_context(|| format!("failed to understand the account of {name}: {text}"))?;
        Event::End { migration: name, ends }.tell()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended and reaped in the good case, when both do nothing.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
