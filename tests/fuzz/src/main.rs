// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope-fuzz`: runs in the guest, where `cargo xtask fuzz` starts it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use fuzz::run::{self, Plan};
use fuzz::target::Target;
use migscope_abi::device::DeviceKey;

/// Random calls against the driver, held against a model of the protocol
#[derive(Parser)]
struct Arguments {
    /// The device [default: the first of MIGSCOPE_DEVICES]
    #[arg(long, value_name = "ADDRESS")]
    device: Option<String>,
    /// Stop after this time
    #[arg(long, value_name = "N", default_value_t = 30)]
    seconds: u64,
    /// Stop after so many rounds, however long they take
    #[arg(long, value_name = "N")]
    rounds: Option<u64>,
    /// Decides on every operation [default: another one each time]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 3)]
    threads: usize,
    /// Operations of each thread in a round
    #[arg(long, value_name = "K", default_value_t = 4)]
    operations: usize,
}

fn main() -> Result<ExitCode> {
    let Arguments { device, seconds, rounds, seed, threads, operations } = Arguments::parse();
    let device = match device {
        Some(device) => device,
        None => {
            let all = std::env::var("MIGSCOPE_DEVICES").context("no --device was given")?;
            all.split(',').next().unwrap_or_default().to_owned()
        }
    };
    let key = DeviceKey::parse(&device).with_context(|| format!("`{device}` is no address"))?;
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("fuzz: seed {seed}, {threads} threads of {operations} operations, device {device}");
    let (target, setup) = Target::open(key)?;
    let time = rounds.is_none().then(|| Duration::from_secs(seconds));
    let plan = Plan { seed, threads: threads.max(1), operations, time, rounds };
    match run::run(&target, &setup, plan)? {
        Ok(counts) => {
            println!("fuzz: {counts}");
            Ok(ExitCode::SUCCESS)
        }
        Err(violation) => {
            println!("fuzz: {violation}");
            Ok(ExitCode::FAILURE)
        }
    }
}
