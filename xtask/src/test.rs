// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask test`: all that CI runs.
//!
//! Every step runs whatever became of the others; the last line of the output is the total.

mod report;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::build_driver;
use crate::build_ebpf;
use crate::child;
use crate::demo;
use crate::kernel::Kernel;
use crate::lint;
use crate::programs::{self, Executable, Programs};
use crate::setup;
use crate::vm::{self, Machine, Outcome, Streams, Task, Timings};
use crate::workspace::Workspace;
use report::{Counts, Report};

/// For one test binary in the guest.
const GUEST_TIMEOUT: Duration = Duration::from_secs(900);

/// Runs everything.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    setup::packages()?;
    let mut report = Report::default();
    for check in lint::CHECKS {
        report.step(format!("lint: {}", check.name), || {
            (check.run)(workspace).map(|()| Counts::ONE_PASSED)
        });
    }
    report.step("unit tests on the host", || host_tests(workspace));
    report.step("tests of xtask in the guest", || xtask_tests(workspace));
    guest_suite(workspace, &mut report);
    demo_json(workspace, &mut report);

    println!("\n{report}");
    Ok(if report.total().failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn host_tests(workspace: &Workspace) -> Result<Counts> {
    let excluded = [build_ebpf::PACKAGE, "cases"].map(|name| ["--exclude", name]);
    let mut command = programs::cargo(workspace)?;
    counted(command.args(["test", "--workspace", "--no-fail-fast"]).args(excluded.as_flattened()))
}

/// Left out of a plain `cargo test` (`test = false` in its manifest): they boot the guest.
fn xtask_tests(workspace: &Workspace) -> Result<Counts> {
    Kernel::ensure(workspace)?;
    // One at a time: each guest has two CPUs of its own.
    counted(programs::cargo(workspace)?.args([
        "test",
        "--package",
        "xtask",
        "--test",
        "guest",
        "--",
        "--test-threads=1",
    ]))
}

/// Runs libtest programs, shows what they say and adds up their results.
fn counted(command: &mut Command) -> Result<Counts> {
    let log = tempfile::NamedTempFile::new().context("failed to make a scratch file")?;
    let mut counts = Counts::default();
    let done = child::logged(command, log.path(), |line| {
        eprintln!("{line}");
        counts.hear(line);
    });
    if let Err(error) = &done {
        eprintln!("error: {error:#}");
    }
    Ok(counts.or_failed(done.is_ok()))
}

/// The tests of `cases`, each binary in a guest of its own: a kernel that one of them broke is not the
/// next one's.
fn guest_suite(workspace: &Workspace, report: &mut Report) {
    let prepared = || -> Result<_> {
        let kernel = Kernel::ensure(workspace)?;
        let driver = build_driver::build(workspace, &kernel.build_tree())?;
        Ok((kernel, driver, Programs::build(workspace)?, programs::guest_tests(workspace)?))
    };
    let mut ready = None;
    report.step("build of all that the guest runs", || {
        let all = prepared()?;
        ensure!(!all.3.is_empty(), "the package cases has no test binary");
        ready = Some(all);
        Ok(Counts::ONE_PASSED)
    });
    let Some((kernel, driver, programs, tests)) = ready else { return };
    let mut timings = None;
    let mut measured = Vec::new();
    for Executable { name, path } in &tests {
        report.step(format!("guest: {name}"), || {
            let (heard, took) = guest_binary(workspace, &kernel, &driver, &programs, path)?;
            timings = timings.or(Some(took));
            measured.extend(heard.measured);
            Ok(heard.counts)
        });
    }
    if let Some(Timings { boot_ns, driver_load_ns, driver_bind_ns, ready_ns, .. }) = timings {
        let seconds = |ns| format!("{:.2} s", Duration::from_nanos(ns).as_secs_f64());
        report.record("guest boot, to its first process", seconds(boot_ns));
        report.record("guest boot, to the first command", seconds(ready_ns));
        for (what, ns) in [("driver load", driver_load_ns), ("driver bind", driver_bind_ns)] {
            if let Some(ns) = ns {
                report.record(what, format!("{:.1} ms", demo::milliseconds(ns)));
            }
        }
    }
    // Several tests may measure one thing.
    let mut by_name = BTreeMap::<String, Vec<String>>::new();
    for (what, value) in measured {
        by_name.entry(what).or_default().push(value);
    }
    for (what, values) in by_name {
        report.record(what, values.join(", "));
    }
}

/// What a test binary said that is for the summary.
#[derive(Default)]
struct Heard {
    counts: Counts,
    /// Name and value of its lines `measured: NAME VALUE UNIT`.
    measured: Vec<(String, String)>,
}

impl Heard {
    fn hear(&mut self, line: &str) {
        self.counts.hear(line);
        let measured = line.strip_prefix("measured: ").and_then(|rest| rest.split_once(' '));
        self.measured.extend(measured.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}

fn guest_binary(
    workspace: &Workspace,
    kernel: &Kernel,
    driver: &Path,
    programs: &Programs,
    binary: &Path,
) -> Result<(Heard, Timings)> {
    let mut heard = Heard::default();
    let streams = Streams::Separate {
        stdout: Box::new(demo::Lines::new(|line| {
            heard.hear(line);
            writeln!(io::stderr(), "{line}")
        })),
        stderr: Box::new(io::stderr()),
    };
    // One at a time: all of them use the same two devices.
    let argv = vec![binary.into(), "--test-threads=1".into()];
    let task = Task {
        argv,
        environment: programs.environment(),
        driver: Some(driver),
        timeout: Some(GUEST_TIMEOUT),
    };
    match vm::boot(workspace, kernel, &Machine::default(), task, streams)? {
        Outcome::Ended { status, timings } => {
            heard.counts = heard.counts.or_failed(status.code() == 0);
            Ok((heard, timings))
        }
        Outcome::TimedOut { limit } => bail!("it did not end within {} s", limit.as_secs()),
        Outcome::GuestFailed { reason } => bail!("{reason}"),
    }
}

/// `demo --json` as a script would use it: one object on stdout, and nothing else.
fn demo_json(workspace: &Workspace, report: &mut Report) {
    let mut measured = None;
    report.step("demo --json", || {
        let mut command = child::bound(&workspace.xtask);
        command.args(["demo", "--json"]).stdin(Stdio::null()).stderr(Stdio::inherit());
        let shown = child::show(&command);
        let output = command.output().with_context(|| format!("failed to start {shown}"))?;
        ensure!(output.status.success(), "{shown} failed: {}", output.status);
        let object: serde_json::Value = serde_json::from_slice(&output.stdout)
            .context("its stdout is not one JSON object and nothing else")?;
        ensure!(object["agree"] == true, "the accounts do not agree");
        for account in ["migrator", "agent"] {
            ensure!(object[account].is_object(), "it has no object `{account}`");
        }
        let demo = serde_json::from_value(object).context("its summary cannot be read")?;
        measured = Some(demo);
        Ok(Counts::ONE_PASSED)
    });
    let Some(demo::Demo { migrator, cost, .. }) = measured else { return };
    let milliseconds = |ns| format!("{:.1} ms", demo::milliseconds(ns));
    report.record("migration, total", milliseconds(migrator.source.total_ns));
    if let Some(downtime) = migrator.source.downtime {
        report.record("migration, downtime", milliseconds(downtime.total_ns));
    }
    if let Some(cost) = cost {
        let ns = |value| format!("{value:.0} ns");
        report.record("region access without probes", ns(cost.access_ns_without_probes));
        report.record("region access with probes", ns(cost.access_ns_with_probes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_values_are_kept_for_the_summary() {
        let mut heard = Heard::default();
        heard.hear("measured: region_read 1250 ns");
        heard.hear("test result: ok. 1 passed; 0 failed; 0 ignored");
        assert_eq!(heard.measured, [("region_read".to_owned(), "1250 ns".to_owned())]);
        assert_eq!(heard.counts, Counts::ONE_PASSED);
    }
}
