// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask bench NAME`: how fast, beside what one would use instead.
//!
//! The guest is emulated, so only ratios mean something, and each is of two things that were measured in turn in one run. What is
//! no matter of speed runs on the host.

mod agent;
pub(crate) mod cardinality;
mod driver;
mod intake;
mod overhead;
mod prediction;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use serde::Deserialize;

use crate::kernel::Kernel;
use crate::vm::{self, Machine, Outcome, Streams, Task};
use crate::workspace::Workspace;

const TIMEOUT: Duration = Duration::from_secs(1800);
const MIB: f64 = 1_048_576.0;

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// The driver: saving against memcpy and mtty, dirty queries against type 1, the cost of a write fault
    Driver(Arguments),
    /// The agent: its probes against bpftrace; CPU, memory and scrapes against prometheus-node-exporter
    ///
    /// Time of each eBPF program for an event, by BPF_PROG_TEST_RUN (beside an empty program) and in a client's accesses (beside a
    /// bpftrace script that counts the same), and what the accesses take with nothing attached, with the agent, with bpftrace. Then CPU
    /// time and memory of the agent with 0, 64 and 1,000 devices, idle and with four of them migrating at a time, and time and
    /// bytes of a scrape for each series; beside Debian's prometheus-node-exporter, scraped in the same seconds by the same client.
    ///
    /// The devices of a fleet are made up: their records are given to the agent's own probes in the kernel. Ten minutes on two CPUs.
    #[command(after_long_help = agent::EXAMPLES)]
    Agent(Arguments),
    /// The agent's intake: how many records of the probes it takes in a second, by what they tell
    ///
    /// Held against a million. On the host, without a kernel's part in it.
    Intake(Arguments),
    /// What it costs a migration to be watched: QEMU 10 and mtty, with the agent and without, in turn
    ///
    /// Total time and downtime of each pair of migrations, with the agent over without it. Five minutes on two CPUs.
    #[command(after_long_help = overhead::EXAMPLES)]
    Overhead(overhead::Arguments),
    /// The agent's predictions: their errors beside those of QEMU, KubeVirt and the geometric model
    ///
    /// Replays migrations that are simulated page by page, or recorded ones. A few minutes on two CPUs.
    Prediction(prediction::Arguments),
    /// How many series an agent has, and what a fleet and its migrations make a Prometheus keep
    ///
    /// Counted in what the agent's own code exposes of migrations that it is told of. On the host; the same numbers each time.
    Cardinality(cardinality::Arguments),
}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How often each thing is measured
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: u32,
    /// Print one JSON object on stdout, and nothing else there
    #[arg(long)]
    json: bool,
}

/// What the program in the guest prints.
#[derive(Deserialize)]
struct Report {
    results: Vec<Measured>,
}

#[derive(Deserialize)]
struct Measured {
    name: String,
    value: f64,
    unit: String,
    min: f64,
    max: f64,
    runs: usize,
    vs: Option<Versus>,
}

#[derive(Deserialize)]
struct Versus {
    name: String,
    value: f64,
    ratio: f64,
}

/// Runs a benchmark and shows what it found.
pub(crate) fn run(workspace: &Workspace, bench: &Bench) -> Result<ExitCode> {
    let (text, json) = match bench {
        Bench::Driver(Arguments { runs, json }) => (driver::run(workspace, *runs)?, *json),
        Bench::Agent(Arguments { runs, json }) => (agent::run(workspace, *runs)?, *json),
        Bench::Intake(Arguments { runs, json }) => (intake::measure(workspace, *runs)?, *json),
        Bench::Overhead(overhead::Arguments { pairs, json }) => {
            (overhead::run(workspace, *pairs)?, *json)
        }
        Bench::Prediction(arguments) => return prediction::run(workspace, arguments),
        Bench::Cardinality(arguments) => {
            return cardinality::run(workspace, arguments).map(|()| ExitCode::SUCCESS);
        }
    };
    if json {
        println!("{}", text.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let report: Report = serde_json::from_str(&text)
        .with_context(|| format!("the benchmark printed no report: {text}"))?;
    print(&report).context("failed to print")?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the benchmarks' program in the guest and gives what it prints on stdout.
fn in_guest(
    workspace: &Workspace,
    kernel: &Kernel,
    machine: &Machine,
    task: Task<'_>,
) -> Result<String> {
    let mut stdout = Vec::new();
    let streams =
        Streams::Separate { stdout: Box::new(&mut stdout), stderr: Box::new(io::stderr()) };
    match vm::boot(workspace, kernel, machine, task, streams)? {
        Outcome::Ended { status, .. } if status.code() == 0 => {}
        Outcome::Ended { .. } => bail!("the benchmark failed; what it said is above"),
        Outcome::TimedOut { limit } => bail!("it did not end within {} s", limit.as_secs()),
        Outcome::GuestFailed { reason } => bail!("{reason}"),
    }
    String::from_utf8(stdout).context("the benchmark printed no text")
}

fn print(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:34} {:>12} {:>24} {:>5}  {:20} {:>12} {:>7}",
        "", "median", "from … to", "runs", "against", "median", "ratio"
    )?;
    for Measured { name, value, unit, min, max, runs, vs } in &report.results {
        let range = format!("{} … {}", shown(*min, unit), shown(*max, unit));
        write!(out, "{name:34} {:>12} {range:>24} {runs:>5}", shown(*value, unit))?;
        match vs {
            Some(Versus { name, value, ratio }) => {
                writeln!(out, "  {name:20} {:>12} {ratio:>7.2}", shown(*value, unit))?;
            }
            None => writeln!(out)?,
        }
    }
    writeln!(out, "A ratio above 1 is better than what it is held against.")
}

/// A number in a unit that people read.
fn shown(value: f64, unit: &str) -> String {
    match unit {
        "B/s" => format!("{:.0} MiB/s", value / MIB),
        "B" if value >= MIB => format!("{:.1} MiB", value / MIB),
        "%" => format!("{value:.1} %"),
        "ratio" => format!("{value:.3}"),
        "ns" if value >= 1e6 => format!("{:.1} ms", value / 1e6),
        "ns" if value >= 1e4 => format!("{:.1} us", value / 1e3),
        _ => format!("{value:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units_that_people_read() {
        assert_eq!(shown(104_857_600.0, "B/s"), "100 MiB/s");
        assert_eq!(shown(14_500_000.0, "ns"), "14.5 ms");
        assert_eq!(shown(25_448.0, "ns"), "25.4 us");
        assert_eq!(shown(950.0, "ns"), "950 ns");
        assert_eq!(shown(20_000_000.0, "B"), "19.1 MiB");
        assert_eq!(shown(101.4, "B"), "101 B");
        assert_eq!(shown(0.26, "%"), "0.3 %");
        assert_eq!(shown(1.0064, "ratio"), "1.006");
    }

    #[test]
    fn a_report_of_the_guest_is_read() {
        let text = r#"{"results":[{"name":"a","value":1.0,"unit":"ns","min":1.0,"max":2.0,"runs":3,
            "vs":{"name":"b","value":2.0,"ratio":2.0}},{"name":"c","value":1.0,"unit":"B/s","min":1.0,
            "max":1.0,"runs":1,"vs":null}]}"#;
        let report: Report = serde_json::from_str(text).unwrap();
        assert_eq!(report.results.len(), 2);
        assert!(report.results[1].vs.is_none());
    }
}
