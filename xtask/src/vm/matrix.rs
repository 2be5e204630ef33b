// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask vm matrix`: one command, several kernels, one after the other.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;

use super::{Machine, Outcome, Streams, Task, Timings, boot};
use crate::kernel::{Choice, Series};
use crate::programs::{self, Programs};
use crate::test::report::{Counts, Heard};
use crate::workspace::Workspace;

/// The test binary of `cases` that needs nothing of ours in the kernel.
pub(crate) const TESTS: &str = "stock";
/// The tests of the v2 protocol, which run on any kernel whose mtty migrates.
pub(crate) const MIGRATIONS: &str = "v2";

/// The tests of a migration region of a driver that is built against each kernel.
pub(crate) const REGIONS: &str = "region_driver";

/// Arguments of `vm matrix`.
#[derive(Args)]
pub(crate) struct MatrixArgs {
    /// A kernel to run it on; may be repeated [default: 6.1 6.12 7.2 7.3, as Debian ships them]
    #[arg(long = "kernel", value_name = Choice::VALUES)]
    kernels: Vec<Choice>,
    /// Print one JSON object on stdout, and nothing else there
    #[arg(long)]
    json: bool,
    /// Kill a guest after this many seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
    /// The command and its arguments [default: the tests of tests/cases/tests/stock.rs]
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// How the command ended on one kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    /// As it was asked for.
    kernel: String,
    /// What `uname -r` says; not known of a kernel that is not to be had.
    release: Option<String>,
    result: Ending,
    /// What tests the command said it ran.
    pub(crate) tests: Counts,
    /// What they measured: names and values.
    pub(crate) measured: Vec<(String, String)>,
    /// From the start of QEMU to the start of the command, and the command itself; in nanoseconds.
    ready_ns: Option<u64>,
    command_ns: Option<u64>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Ending {
    /// With this exit code: 0 is good.
    Exited(u8),
    TimedOut,
    /// The guest did not do its job, or its kernel complained.
    GuestFailed(String),
    /// There is no such kernel here.
    Unavailable(String),
}

impl Row {
    /// Whether the command ran and ended well.
    pub(crate) fn is_good(&self) -> bool {
        self.result == Ending::Exited(0)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(0) => write!(f, "passed"),
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::TimedOut => write!(f, "timed out"),
            Self::GuestFailed(_) => write!(f, "guest failed"),
            Self::Unavailable(_) => write!(f, "not to be had"),
        }
    }
}

/// The command with what it needs to know.
pub(crate) struct Program {
    argv: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Program {
    /// Tests for kernels that have nothing of ours, by the name of their binary.
    pub(crate) fn tests(workspace: &Workspace, programs: &Programs, name: &str) -> Result<Self> {
        let argv = vec![programs::guest_test(workspace, name)?.into(), "--test-threads=1".into()];
        Ok(Self { argv, environment: programs.environment() })
    }
}

/// Runs the program on one kernel.
///
/// # Errors
///
/// When this machine cannot run guests; whatever is the matter with this one is in the row.
pub(crate) fn on(
    workspace: &Workspace,
    choice: Choice,
    program: &Program,
    limit: Duration,
) -> Result<Row> {
    let kernel = choice.to_string();
    let row = |release: Option<&str>, result, heard: Heard, timings: Option<Timings>| Row {
        kernel: kernel.clone(),
        release: release.map(str::to_owned),
        result,
        tests: heard.counts,
        measured: heard.measured,
        ready_ns: timings.map(|timings| timings.ready_ns),
        command_ns: timings.map(|timings| timings.command_ns),
    };
    let bootable = match choice.ensure(workspace) {
        Ok(bootable) => bootable,
        Err(error) => {
            let why = format!("{error:#}");
            eprintln!("{kernel}: error: {why}");
            return Ok(row(None, Ending::Unavailable(why), Heard::default(), None));
        }
    };
    let release = bootable.release();
    eprintln!("{kernel}: booting {release}");
    let task = Task {
        argv: program.argv.clone(),
        environment: program.environment.clone(),
        driver: None,
        timeout: Some(limit),
    };
    let heard = Mutex::new(Heard::default());
    let hear = |line: &str| {
        // Both outputs pass here; neither holds the lock while it can fail.
        heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner).hear(line);
        writeln!(io::stderr(), "{kernel}| {line}")
    };
    let streams = Streams::Separate {
        stdout: Box::new(Lines::new(&hear)),
        stderr: Box::new(Lines::new(&hear)),
    };
    let outcome = boot(workspace, bootable.as_ref(), &Machine::default(), task, streams)?;
    let heard = heard.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(match outcome {
        Outcome::Ended { status, timings, .. } => {
            row(Some(release), Ending::Exited(status.code()), heard, Some(timings))
        }
        Outcome::TimedOut { .. } => row(Some(release), Ending::TimedOut, heard, None),
        Outcome::GuestFailed { reason } => {
            eprintln!("{kernel}: error: {reason}");
            row(Some(release), Ending::GuestFailed(reason), heard, None)
        }
    })
}

/// The subcommand.
pub(crate) fn run(workspace: &Workspace, arguments: MatrixArgs) -> Result<ExitCode> {
    let MatrixArgs { kernels, json, timeout, command } = arguments;
    let kernels = match kernels.as_slice() {
        [] => Series::ALL.map(Choice::Stock).to_vec(),
        _ => kernels,
    };
    let program = match command.as_slice() {
        [] => Program::tests(workspace, &Programs::build(workspace)?, TESTS)?,
        _ => Program { argv: command, environment: Vec::new() },
    };
    let start = Instant::now();
    let mut rows = Vec::new();
    for (number, &choice) in (1_usize..).zip(&kernels) {
        eprintln!("[{number}/{}, {} s]", kernels.len(), start.elapsed().as_secs());
        rows.push(on(workspace, choice, &program, Duration::from_secs(timeout))?);
    }
    if json {
        let object = serde_json::json!({ "kernels": rows });
        println!("{object}");
    } else {
        write_table(&mut io::stdout().lock(), &rows).context("failed to print the table")?;
    }
    let good = rows.iter().all(Row::is_good);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write_table(to: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    let line = |to: &mut dyn Write, cells: [&str; 6]| {
        let [kernel, release, result, tests, boot, command] = cells;
        writeln!(to, "{kernel:<7} {release:<24} {result:<14} {tests:>6} {boot:>8} {command:>8}")
    };
    line(to, ["KERNEL", "RELEASE", "RESULT", "TESTS", "BOOT", "COMMAND"])?;
    for Row { kernel, release, result, tests, measured: _, ready_ns, command_ns } in rows {
        let Counts { passed, failed, ignored } = *tests;
        let all = passed + failed + ignored;
        let tests = if all == 0 { "-".to_owned() } else { format!("{passed}/{all}") };
        let seconds = |ns: &Option<u64>| match ns {
            Some(ns) => format!("{:.1} s", Duration::from_nanos(*ns).as_secs_f64()),
            None => "-".to_owned(),
        };
        let release = release.as_deref().unwrap_or("-");
        let (boot, command) = (seconds(ready_ns), seconds(command_ns));
        line(to, [kernel, release, &result.to_string(), &tests, &boot, &command])?;
    }
    Ok(())
}

/// Calls for each line, the last one without an end included; what is no UTF-8 in it is replaced.
struct Lines<F: Fn(&str) -> io::Result<()>> {
    pending: Vec<u8>,
    line: F,
}

impl<F: Fn(&str) -> io::Result<()>> Lines<F> {
    fn new(line: F) -> Self {
        Self { pending: Vec::new(), line }
    }
}

impl<F: Fn(&str) -> io::Result<()>> Write for Lines<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        while let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            (self.line)(String::from_utf8_lossy(&line).trim_end())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: Fn(&str) -> io::Result<()>> Drop for Lines<F> {
    fn drop(&mut self) {
        if !self.pending.is_empty() {
            // Standard error is gone: there is nobody to tell.
            let _gone = (self.line)(String::from_utf8_lossy(&self.pending).trim_end());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kernel: &str, result: Ending) -> Row {
        let tests = Counts { passed: 4, failed: 1, ignored: 0 };
        let ready_ns = Some(10_040_000_000);
        let (kernel, measured) = (kernel.to_owned(), Vec::new());
        Row { kernel, release: None, result, tests, measured, ready_ns, command_ns: None }
    }

    #[test]
    fn the_table_has_a_line_for_each_kernel() {
        let rows = [
            row("6.1", Ending::Exited(0)),
            row("7.2", Ending::Unavailable("no mirror".to_owned())),
        ];
        let mut text = Vec::new();
        write_table(&mut text, &rows).unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["6.1", "-", "passed", "4/5", "10.0", "s", "-"]);
        assert_eq!(lines[2][2..5], ["not", "to", "be"]);
        assert!(rows[0].is_good() && !rows[1].is_good());
    }

    #[test]
    fn only_exit_code_0_is_good() {
        assert!(!row("6.1", Ending::Exited(1)).is_good());
        assert!(!row("6.1", Ending::TimedOut).is_good());
        let json =
            serde_json::to_value(row("6.1", Ending::GuestFailed("oops".to_owned()))).unwrap();
        assert_eq!(json["result"]["guest_failed"], "oops");
        assert_eq!(json["tests"]["failed"], 1);
    }

    #[test]
    fn output_is_passed_on_line_by_line_whatever_it_is() {
        let seen = Mutex::new(Vec::new());
        let mut lines = Lines::new(|line: &str| {
            seen.lock().unwrap().push(line.to_owned());
            Ok(())
        });
        lines.write_all(b"a\nb\xff").unwrap();
        lines.write_all(b"c\nrest").unwrap();
        drop(lines);
        assert_eq!(*seen.lock().unwrap(), ["a", "b\u{fffd}c", "rest"]);
    }
}
