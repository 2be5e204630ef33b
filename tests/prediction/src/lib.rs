// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How well the agent predicts: `cargo xtask bench prediction` runs this program on the host.
//!
//! ```text
//!   simulate ──▶ trace: readings, true end ──▶ replay: the agent's estimator ──▶ score ──▶ report
//!   FILE ──────▶                                       and the baselines
//! ```
//!
//! - [`simulate`]: migrations, page by page; knows nothing of the agent's models
//! - [`trace`]: readings with the true end; also the format of recorded ones
//! - [`replay`]: what each predictor said at a quarter, a half and three quarters, and before the stop
//! - [`score`], [`report`]: errors by family
//!
//! The error of the *total* time is that of the prediction "so much has gone by, so much is left" over the true total: at
//! half-way a predictor that knows nothing and says 0 has 50 %. The error of the *remaining* time is over what was truly
//! left, and twice as large there. Who gives no answer has no error; the table has the share that was answered in
//! brackets.

mod replay;
mod report;
mod score;
mod simulate;
mod trace;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum as _};
use replay::Replayed;
use report::Results;
use score::Score;
use simulate::{Family, Knows, Split, error_at};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use trace::Trace;

/// Predicts simulated and recorded migrations and prints the errors of all predictors
#[derive(Parser)]
#[command(name = "migscope-prediction")]
struct Cli {
    /// Simulated migrations of each family
    #[arg(long, value_name = "N", default_value_t = 200)]
    per_family: u64,
    /// Which half of them
    #[arg(long, value_enum, default_value = "held-out")]
    split: Split,
    /// Also say what one who knows the simulation would be wrong by, from so many other futures of each migration (16 take some
    /// ten minutes)
    #[arg(long, value_name = "FUTURES", default_value_t = 0)]
    oracle: u64,
    /// A recorded migration; with any, nothing is simulated
    #[arg(long, value_name = "FILE")]
    trace: Vec<PathBuf>,
    /// Print one JSON object, and nothing else
    #[arg(long)]
    json: bool,
}

/// The program.
pub fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let families = if cli.trace.is_empty() {
        simulated(cli.split, cli.per_family, cli.oracle)
    } else {
        vec![("recorded", recorded(&cli.trace)?)]
    };
    let mut scores: Vec<_> =
        families.iter().map(|(name, replayed)| Score::new(name, replayed)).collect();
    scores.push(Score::new("overall", families.iter().flat_map(|(_, replayed)| replayed)));
    if cli.json {
        let text = serde_json::to_string(&Results::of(&scores));
        println!("{}", text.context("failed to write the results")?);
    } else {
        print!("{}", report::table(&scores));
    }
    Ok(())
}

fn recorded(paths: &[PathBuf]) -> Result<Vec<Replayed>> {
    paths.iter().map(|path| Ok(replay::replay(&Trace::read(path)?))).collect()
}

/// All families, a thread for each CPU.
fn simulated(split: Split, per_family: u64, futures: u64) -> Vec<(&'static str, Vec<Replayed>)> {
    let families = Family::value_variants();
    // Those that never end take longest, and come first.
    let work = families.iter().rev().flat_map(|family| (0..per_family).map(|at| (*family, at)));
    let work = Mutex::new(work);
    let done = Mutex::new(Vec::new());
    let thread = || {
        loop {
            let taken = work.lock().expect("no thread panics with it").next();
            let Some((family, number)) = taken else { return };
            let (trace, left_out) = simulate::migration(family, split, number, per_family);
            let mut replayed = replay::replay(&trace);
            if futures > 0 && family.converges() {
                let seed = number + left_out * per_family;
                replayed.oracle_errors =
                    Knows::ALL.map(|knows| error_at(family, split, seed, 0.5, futures, knows));
            }
            let mut done = done.lock().expect("no thread panics with it");
            done.push((family, number, left_out, replayed));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(thread);
        }
    });
    let mut done = done.into_inner().expect("no thread panics with it");
    done.sort_by_key(|(_, number, ..)| *number);
    let of = |wanted: Family| {
        let its = done.iter().filter(move |(family, ..)| *family == wanted);
        let left_out: u64 = its.clone().map(|(_, _, left_out, _)| left_out).sum();
        eprintln!("{}: {per_family} migrations, {left_out} left out", wanted.name());
        (wanted.name(), its.map(|(.., replayed)| replayed.clone()).collect())
    };
    families.iter().map(|family| of(*family)).collect()
}
