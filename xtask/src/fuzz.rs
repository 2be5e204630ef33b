// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask fuzz`: random calls against the driver, in a guest whose kernel watches itself.
//!
//! Two judges: the fuzzer's model (tests/fuzz) says whether the driver kept to the protocol, and the kernel (its console,
//! and [`watch`](crate::vm) at the end) whether it kept to the kernel's rules.
//!
//! `cargo xtask fuzz parsers` is about the agent, and needs no guest.

pub(crate) mod parsers;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::build_driver;
use crate::kernel::{Kernel, Variant};
use crate::programs;
use crate::setup;
use crate::vm::{self, Machine, Outcome, Streams, Suite, Task};
use crate::workspace::Workspace;

/// For booting, loading, and looking for leaks, on top of the fuzzing itself.
const AROUND: Duration = Duration::from_secs(300);

/// Arguments of `fuzz`.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) instead: Option<Instead>,
    /// How long
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub(crate) seconds: u64,
    /// Or how many rounds, however long they take
    #[arg(long, value_name = "N")]
    pub(crate) rounds: Option<u64>,
    /// Decides on every operation, as printed by the run to be replayed [default: another one each time]
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Threads; with 1 every step is checked by itself
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) threads: u64,
    /// Operations of each thread in a round
    #[arg(long, value_name = "K", default_value_t = 4)]
    pub(crate) operations: u64,
    /// The kernel that the guest runs
    #[arg(long, value_enum, default_value_t = Variant::Debug)]
    pub(crate) kernel: Variant,
}

/// What else can be fuzzed.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Instead {
    /// The agent's parsers: ring records, recordings, configuration, /proc, HTTP, and what else it reads
    ///
    /// libFuzzer feeds them, led by coverage, under AddressSanitizer. What it finds is kept below the folder of cargo's output, and said
    /// with how to look at it; what led it somewhere new is kept there too, and the next run goes on from it.
    Parsers(parsers::Arguments),
}

/// The run of `cargo xtask test`.
pub(crate) const SHORT: Arguments = Arguments {
    instead: None,
    seconds: 30,
    rounds: None,
    seed: None,
    threads: 3,
    operations: 4,
    kernel: Variant::Debug,
};

/// What a run that found nothing has to tell.
pub(crate) struct Passed {
    /// The KUnit suites that ran when the driver was loaded; none on a kernel without KUnit.
    pub(crate) kunit: Vec<Suite>,
}

/// Boots the guest and fuzzes in it.
///
/// # Errors
///
/// What was found, or why nothing could be looked for.
pub(crate) fn fuzz(workspace: &Workspace, arguments: &Arguments) -> Result<Passed> {
    let Arguments { instead: _, seconds, rounds, seed, threads, operations, kernel } = arguments;
    let kernel = Kernel::ensure(workspace, *kernel)?;
    let driver = build_driver::build(workspace, &kernel.build_tree())?;
    let mut argv = vec![programs::fuzzer(workspace)?.into()];
    let mut option = |name: &str, value: u64| argv.push(format!("--{name}={value}").into());
    option("seconds", *seconds);
    option("threads", *threads);
    option("operations", *operations);
    for (name, value) in [("rounds", rounds), ("seed", seed)] {
        if let Some(value) = value {
            option(name, *value);
        }
    }
    // How long rounds take is not known before.
    let timeout = rounds.is_none().then(|| Duration::from_secs(*seconds) + AROUND);
    let task = Task { argv, environment: Vec::new(), driver: Some(&driver), timeout };
    let streams =
        Streams::Separate { stdout: Box::new(io::stderr()), stderr: Box::new(io::stderr()) };
    match vm::boot(workspace, &kernel, &Machine::default(), task, streams)? {
        Outcome::Ended { status, kunit, .. } => match status.code() {
            0 => Ok(Passed { kunit }),
            _ => bail!("the fuzzer failed; what it said is above"),
        },
        Outcome::TimedOut { limit } => bail!("it did not end within {} s", limit.as_secs()),
        Outcome::GuestFailed { reason } => bail!("{reason}"),
    }
}

/// The subcommand.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    if let Some(Instead::Parsers(arguments)) = &arguments.instead {
        return parsers::run(workspace, arguments);
    }
    setup::packages()?;
    let Passed { kunit } = fuzz(workspace, arguments)?;
    let mut failed = false;
    for Suite { name, passed, failed: bad, skipped, results } in kunit {
        println!("KUnit {name}: {passed} passed, {bad} failed, {skipped} skipped");
        if bad > 0 {
            failed = true;
            println!("{results}");
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
