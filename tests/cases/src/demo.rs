// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One migration, two accounts: what the client of the region counted and what the agent saw, side by side.
//!
//! ```text
//!   migrator live ──▶ region ──▶ driver ──▶ tracepoints ──▶ probes ──▶ agent ──▶ /metrics
//!        │                                                                          │
//!   Account (both ends) ───────────────▶ comparison ◀────────────────── Exposition ─┘
//! ```
//!
//! The two share no code but `migscope-abi`, and count at the two ends of the chain; so where they agree, what lies between
//! works. Counts must be equal. A time that the agent tells is a part of the time that the client measured around it, and may be
//! shorter by no more than [`compare::TIME_BOUND`]. What the agent foretold stands beside what came, and is not judged: see
//! [`report::Forecast`].

pub mod agent;
pub mod compare;
pub mod cost;
pub mod exposition;
pub mod report;
pub mod sessions;

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use migrator::live::Outcome;

use self::agent::Agent;
use self::exposition::Exposition;
use self::report::{Demo, Seen};
use self::sessions::Sessions;

/// How often the agent is asked while the migration runs; an operator's Prometheus asks far less often.
const SCRAPE_INTERVAL: Duration = Duration::from_millis(200);
/// How long the agent may take to have read what happened last.
const SETTLE: Duration = Duration::from_secs(10);

/// Migrates a device under load with the agent on it, and compares the accounts of the two.
#[derive(Parser)]
#[command(name = "migscope-demo", version)]
struct Cli {
    /// Address that the agent listens on
    #[arg(long, default_value = "127.0.0.1:10477")]
    listen: std::net::SocketAddr,
    /// What the device does meanwhile, as `migrator live --workload` takes it
    #[arg(long)]
    workload: Option<String>,
    /// Let the agent go on after the summary, until this program gets SIGTERM or SIGINT
    #[arg(long)]
    keep: bool,
}

/// The program: progress on stderr, one [`Demo`] on stdout; fails when the accounts do not agree.
pub fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("migscope-demo: the two accounts do not agree");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("migscope-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<bool> {
    let devices = migrator::device::bound_devices()
        .context("failed to list the devices of vfio_mediate; is the module loaded?")?;
    let [source, destination, ..] = devices.as_slice() else {
        bail!("two devices bound to vfio_mediate are needed, {} found", devices.len());
    };
    let without_probes = cost::of_one_access(*source)?;

    let agent = Agent::start(cli.listen)?;
    let missing = agent.scrape()?.detached_probes();
    ensure!(missing.is_empty(), "probes are missing: {}; see the agent's log", missing.join(", "));

    eprintln!("migrating {source} to {destination}");
    let mut migrator = Command::new(program("MIGSCOPE_MIGRATOR")?);
    migrator.args(["live", "--json", "--source", &source.to_string()]);
    migrator.args(["--destination", &destination.to_string()]);
    if let Some(workload) = &cli.workload {
        migrator.args(["--workload", workload]);
    }
    let (accounts, seen) = migrate(&agent, migrator)?;

    let mut demo = settle(&agent, &accounts, seen)?;
    let with_probes = cost::of_one_access(*source)?;
    demo.cost = Some(report::Cost {
        access_ns_without_probes: without_probes,
        access_ns_with_probes: with_probes,
    });
    println!("{}", serde_json::to_string(&demo)?);
    if cli.keep {
        agent.wait()?;
    } else {
        agent.stop()?;
    }
    Ok(demo.agree)
}

/// Runs the migration and asks the agent meanwhile.
fn migrate(agent: &Agent, mut command: Command) -> Result<(Outcome, Vec<Seen>)> {
    let began = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start {command:?}"))?;
    // Read aside: a migrator that fills the pipe would wait for us while we wait for it.
    let mut stdout = child.stdout.take().context("the migrator's stdout is not there")?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stdout, &mut text).map(|_| text)
    });
    let mut seen = Vec::new();
    let status = loop {
        seen.push(agent.scrape()?.glance(began.elapsed()));
        if let Some(status) = child.try_wait().context("failed to wait for the migrator")? {
            break status;
        }
        std::thread::sleep(SCRAPE_INTERVAL);
    };
    let text = reader
        .join()
        .map_err(|_panic| anyhow::anyhow!("the thread that reads the migrator's account died"))?
        .context("failed to read the migrator's account")?;
    ensure!(status.success(), "the migration failed: {command:?} ended with {status}");
    let accounts = serde_json::from_str(&text)
        .with_context(|| format!("failed to understand the migrator's account: {text}"))?;
    Ok((accounts, seen))
}

/// Compares until the accounts agree or the agent has had its time: it reads its maps at intervals.
fn settle(agent: &Agent, accounts: &Outcome, seen: Vec<Seen>) -> Result<Demo> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let exposition: Exposition = agent.scrape()?;
        let sessions = Sessions::ask(agent, &accounts.source.device)?;
        let comparison = compare::compare(accounts, &exposition, &sessions);
        let agree =
            accounts.verified && !comparison.is_empty() && comparison.iter().all(|row| row.agrees);
        if agree || Instant::now() >= deadline {
            return Ok(Demo {
                agent: report::AgentAccount {
                    devices: compare::told_of(&comparison),
                    seen,
                    samples: exposition.samples(),
                },
                migrator: accounts.clone(),
                comparison,
                forecast: sessions.forecast(accounts),
                cost: None,
                agree,
            });
        }
        std::thread::sleep(SCRAPE_INTERVAL);
    }
}

/// The program that an environment variable names; `cargo xtask` sets them.
pub(crate) fn program(variable: &str) -> Result<std::ffi::OsString> {
    std::env::var_os(variable)
        .with_context(|| format!("{variable} must name a program; `cargo xtask demo` sets it"))
}
