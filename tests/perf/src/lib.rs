// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Benchmarks that need the guest: `cargo xtask bench NAME` boots it and runs this program in it.
//!
//! The guest is emulated, so a number by itself says nothing. Every result stands beside what one would use instead, measured
//! in the same run, the two in turn; what counts is the ratio.
//!
//! ```text
//!   xtask bench ──▶ guest: migscope-bench driver ──▶ save        the device's data, by mapping and by read()
//!                                                 ├─ faults      the first write to a watched page
//!                                                 ├─ mtty        a v2 driver's read() path
//!                                                 ├─ type1       GET_BITMAP
//!                                                 └─ dirty_log   the driver's log, in a kernel module of its own
//!                    migscope-bench agent ───▶ accesses, test_run, load, scrape: see there
//!                    migscope-bench overhead ▶ migrations by QEMU 10, with the agent and without
//! ```

mod agent;
mod driver;
mod overhead;
mod result;
mod sys;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use result::Report;

/// Runs benchmarks; only in the guest
#[derive(Parser)]
#[command(name = "migscope-bench")]
struct Cli {
    /// How often each thing is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..), global = true)]
    runs: u32,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// The driver: saving, write faults, dirty queries
    Driver(driver::Arguments),
    /// The agent: its probes, CPU, memory, scrapes
    Agent(agent::Arguments),
    /// The agent's part in a migration's time
    Overhead,
}

/// The program: prints one JSON object on standard output, and progress on standard error.
pub fn main() -> ExitCode {
    let Cli { runs, bench } = Cli::parse();
    let done = match bench {
        Bench::Driver(arguments) => driver::run(&arguments, runs),
        Bench::Agent(arguments) => agent::run(&arguments, runs),
        Bench::Overhead => overhead::run(runs),
    };
    match done.and_then(|report| print(&report)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(report: &Report) -> Result<()> {
    println!("{}", serde_json::to_string(report).context("failed to write the report")?);
    Ok(())
}
