// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask test`: all that CI runs.
//!
//! Every step runs whatever became of the others; the last line of the output is the total.

mod aarch64;
mod machines;
mod monitoring;
mod package;
mod page;
mod readme;
pub(crate) mod report;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::build_driver;
use crate::child;
use crate::demo;
use crate::fuzz::{self, parsers};
use crate::kernel::{Choice, Kernel, Series, Variant};
use crate::lint;
use crate::miri;
use crate::programs::{self, Executable, Programs};
use crate::setup::{self, qemu::Version};
use crate::vm::matrix::{self, Program};
use crate::vm::{self, Machine, Outcome, Streams, Task, Timings};
use crate::workspace::Workspace;
use report::{Counts, Heard, Report};

/// For one test binary in the guest.
const GUEST_TIMEOUT: Duration = Duration::from_secs(900);
/// For six suspensions of a second.
const SUSPEND_TIMEOUT: Duration = Duration::from_secs(120);

/// Tests that take any QEMU which migrates by the v2 protocol.
const QEMU_V2: &str = "qemu_v2";
const NEWER_QEMU: &str = "guest: qemu_v2, with QEMU 11";
const SUSPEND: &str = "guest: suspend";
/// What runs on kernels as a distribution ships them, and on which: the oldest and the newest whose mtty migrates are enough for the second.
const STOCK: [(&str, &[Series]); 3] = [
    (matrix::TESTS, &Series::ALL),
    (matrix::MIGRATIONS, &[Series::V6_12, Series::V7_3]),
    (matrix::REGIONS, &[Series::V6_1, Series::V6_12, Series::V7_2]),
];

/// Runs everything, or only the steps whose names contain one of `only`.
pub(crate) fn run(workspace: &Workspace, only: &[String]) -> Result<ExitCode> {
    setup::packages()?;
    let mut report = Report::of_only(only);
    for check in lint::CHECKS {
        report.step(format!("lint: {}", check.name), || {
            (check.run)(workspace).map(|()| Counts::ONE_PASSED)
        });
    }
    report.step("unit tests on the host", || host_tests(workspace));
    report.step("the driver's pure files under miri", || miri_tests(workspace));
    fuzz_parsers(workspace, &mut report);
    report.step("tests of xtask in the guest", || xtask_tests(workspace));
    guest_suite(workspace, &mut report);
    fuzz_and_kunit(workspace, &mut report);
    demo_json(workspace, &mut report);
    monitoring::step(workspace, &mut report);
    aarch64::step(workspace, &mut report);
    package::steps(workspace, &mut report);
    page::steps(workspace, None, &mut report);
    readme::step(workspace, &mut report);

    let Counts { passed, failed, ignored } = report.total();
    ensure!(passed + failed + ignored > 0, "no step has a name with one of: {}", only.join(", "));
    println!("\n{report}");
    Ok(if report.total().failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The tests of the live page alone, with pictures of what they see in a folder.
pub(crate) fn page(workspace: &Workspace, pictures: Option<&Path>) -> Result<ExitCode> {
    setup::packages()?;
    // Tests run in the folder of their package.
    let pictures = pictures
        .map(|folder| {
            std::fs::create_dir_all(folder).and_then(|()| folder.canonicalize()).with_context(
                || format!("failed to make the folder for pictures, {}", folder.display()),
            )
        })
        .transpose()?;
    let mut report = Report::default();
    page::steps(workspace, pictures.as_deref(), &mut report);
    println!("\n{report}");
    Ok(if report.total().failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn host_tests(workspace: &Workspace) -> Result<Counts> {
    let mut command = programs::cargo(workspace)?;
    command.args(["test", "--workspace", "--no-fail-fast"]).args(programs::NOT_ON_THE_HOST);
    counted(&mut command)
}

/// Without its toolchain, as on a machine that has no way to get it, this is a step that did not run.
fn miri_tests(workspace: &Workspace) -> Result<Counts> {
    match miri::command(workspace) {
        Ok(mut command) => counted(&mut command),
        Err(reason) => {
            eprintln!("not run: {reason:#}");
            Ok(Counts { ignored: 1, ..Counts::default() })
        }
    }
}

/// The agent's parsers, fuzzed for some seconds each, and the build of them apart: the first one takes minutes. Without its toolchain
/// this did not run.
fn fuzz_parsers(workspace: &Workspace, report: &mut Report) {
    let fuzz = format!("fuzz of the parsers, {} s each", parsers::SHORT_SECONDS);
    if !report.wants(&fuzz) {
        return;
    }
    let mut built = None;
    report.needed("build of the fuzz targets", || match parsers::program(workspace) {
        Ok(program) => {
            built = Some(program?);
            Ok(Counts::ONE_PASSED)
        }
        Err(reason) => {
            eprintln!("not run: {reason:#}");
            Ok(Counts { ignored: 1, ..Counts::default() })
        }
    });
    let Some(program) = built else { return };
    report.step(fuzz, || {
        let results = parsers::short(&program)?;
        eprintln!("{results}");
        let (passed, failed) = results.counts();
        Ok(Counts { passed, failed, ignored: 0 })
    });
}

/// Left out of a plain `cargo test` (`test = false` in its manifest): they boot the guest.
fn xtask_tests(workspace: &Workspace) -> Result<Counts> {
    Kernel::ensure(workspace, Variant::Ours)?;
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

/// The steps of [`guest_suite`], as the source has them: what it builds takes minutes.
fn guest_steps(workspace: &Workspace) -> Vec<String> {
    let sources = std::fs::read_dir(workspace.root.join("tests/cases/tests")).into_iter().flatten();
    let names = sources.flatten().filter_map(|item| {
        let path = item.path();
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        is_source.then(|| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()))?
    });
    let on_stock = |(name, kernels): (&str, &'static [Series])| {
        let name = name.to_owned();
        kernels.iter().map(move |series| stock_step(&name, Choice::Stock(*series)))
    };
    let stock = STOCK.into_iter().flat_map(on_stock);
    names
        .map(|name| guest_step(&name))
        .chain([SUSPEND, NEWER_QEMU].map(str::to_owned))
        .chain(stock)
        .collect()
}

/// What programs in the guest get, with one of the QEMUs. Without it its tests say themselves that they were not run.
fn with_qemu(
    workspace: &Workspace,
    environment: &[(OsString, OsString)],
    version: Version,
) -> Vec<(OsString, OsString)> {
    let qemu = setup::qemu::environment(workspace, version)
        .inspect_err(|error| eprintln!("there is no QEMU {}: {error:#}", version.number()));
    environment.iter().cloned().chain(qemu.ok()).collect()
}

fn guest_step(binary: &str) -> String {
    format!("guest: {binary}")
}

fn stock_step(binary: &str, kernel: Choice) -> String {
    format!("guest: {binary}, on Debian's kernel {kernel}")
}

/// The tests of `cases`, each binary in a guest of its own: a kernel that one of them broke is not the
/// next one's.
fn guest_suite(workspace: &Workspace, report: &mut Report) {
    let prepared = || -> Result<_> {
        let kernel = Kernel::ensure(workspace, Variant::Ours)?;
        let tree = kernel.build_tree();
        let driver = build_driver::build(workspace, &tree)?;
        let programs = Programs::build(workspace)?;
        let mut environment = programs.environment();
        environment.push(build_driver::provider(workspace, &tree, &driver)?);
        environment.push(build_driver::region(workspace, &tree)?);
        environment.push(build_driver::logging(workspace, &tree)?);
        let with_newer = with_qemu(workspace, &environment, Version::Eleven);
        let environment = with_qemu(workspace, &environment, Version::Ten);
        let debug = Kernel::ensure(workspace, Variant::Debug)?;
        let debug_driver = build_driver::build(workspace, &debug.build_tree())?;
        let guests = [(kernel, driver), (debug, debug_driver)];
        let stock = STOCK.map(|(name, kernels)| {
            Ok((name, kernels, Program::tests(workspace, &programs, name)?))
        });
        let stock = stock.into_iter().collect::<Result<Vec<_>>>()?;
        let mut tests = programs::guest_tests(workspace)?;
        // It is for kernels without our driver.
        tests.retain(|test| test.name != matrix::TESTS);
        Ok((guests, [environment, with_newer], tests, stock, programs.suspend))
    };
    if !guest_steps(workspace).iter().any(|name| report.wants(name)) {
        return;
    }
    let mut ready = None;
    report.needed("build of all that the guest runs", || {
        let all = prepared()?;
        ensure!(!all.2.is_empty(), "the package cases has no test binary");
        ready = Some(all);
        Ok(Counts::ONE_PASSED)
    });
    let Some(([usual, debug], [environment, with_newer], tests, stock, suspend)) = ready else {
        return;
    };
    let mut timings = None;
    let mut measured = Vec::new();
    for test in &tests {
        report.step(guest_step(&test.name), || {
            let on_debug = machines::kernel_of(&test.name) == Variant::Debug;
            let (kernel, driver) = if on_debug { &debug } else { &usual };
            let (heard, took) = guest_binary(workspace, kernel, driver, &environment, test)?;
            timings = timings.or(Some(took).filter(|_| !on_debug));
            measured.extend(heard.measured);
            Ok(heard.counts)
        });
    }
    for test in tests.iter().filter(|test| test.name == QEMU_V2) {
        report.step(NEWER_QEMU, || {
            let (kernel, driver) = &usual;
            let (heard, _) = guest_binary(workspace, kernel, driver, &with_newer, test)?;
            Ok(heard.counts)
        });
    }
    report.step(SUSPEND, || {
        let (kernel, driver) = &usual;
        suspended(workspace, kernel, driver, suspend)
    });
    for (name, kernels, program) in &stock {
        for series in kernels.iter().copied() {
            let kernel = Choice::Stock(series);
            report.step(stock_step(name, kernel), || {
                let row = matrix::on(workspace, kernel, program, GUEST_TIMEOUT)?;
                let counts = row.tests.or_failed(row.is_good());
                let named = |(what, value)| (format!("{what}, on Debian's kernel {kernel}"), value);
                measured.extend(row.measured.into_iter().map(named));
                Ok(counts)
            });
        }
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

fn guest_binary(
    workspace: &Workspace,
    kernel: &Kernel,
    driver: &Path,
    environment: &[(OsString, OsString)],
    test: &Executable,
) -> Result<(Heard, Timings)> {
    let mut heard = Heard::default();
    let streams = Streams::Separate {
        stdout: Box::new(demo::Lines::new(|line| {
            heard.hear(line);
            writeln!(io::stderr(), "{line}")
        })),
        stderr: Box::new(io::stderr()),
    };
    // One at a time: all of them use the same devices.
    let argv = vec![test.path.clone().into(), "--test-threads=1".into()];
    let task = Task {
        argv,
        environment: environment.to_vec(),
        driver: Some(driver),
        timeout: Some(GUEST_TIMEOUT),
    };
    match vm::boot(workspace, kernel, &machines::of(&test.name), task, streams)? {
        Outcome::Ended { status, timings, .. } => {
            heard.counts = heard.counts.or_failed(status.code() == 0);
            Ok((heard, timings))
        }
        Outcome::TimedOut { limit } => bail!("it did not end within {} s", limit.as_secs()),
        Outcome::GuestFailed { reason } => bail!("{reason}"),
    }
}

/// The test whose guest does not outlive it (tests/cases/src/suspend.rs): it ends with a crash, and what it found is among the
/// kernel's last words.
fn suspended(
    workspace: &Workspace,
    kernel: &Kernel,
    driver: &Path,
    program: PathBuf,
) -> Result<Counts> {
    const GOOD: &str = "migscope-suspend: every state was kept";
    let task = Task {
        argv: vec![program.into()],
        environment: Vec::new(),
        driver: Some(driver),
        timeout: Some(SUSPEND_TIMEOUT),
    };
    let streams =
        Streams::Separate { stdout: Box::new(io::stderr()), stderr: Box::new(io::stderr()) };
    match vm::boot(workspace, kernel, &Machine::default(), task, streams)? {
        Outcome::GuestFailed { reason } if reason.contains(GOOD) => Ok(Counts::ONE_PASSED),
        Outcome::GuestFailed { reason } => bail!("{reason}"),
        Outcome::Ended { .. } => bail!("the guest was to crash, and did not"),
        Outcome::TimedOut { limit } => bail!("it did not end within {} s", limit.as_secs()),
    }
}

/// A short fuzz on the kernel that watches itself. The driver's KUnit suites run there too, when it is loaded.
fn fuzz_and_kunit(workspace: &Workspace, report: &mut Report) {
    let mut suites = None;
    report.step("fuzz, 30 s on the debug kernel", || {
        suites = Some(fuzz::fuzz(workspace, &fuzz::SHORT)?.kunit);
        Ok(Counts::ONE_PASSED)
    });
    let Some(suites) = suites else { return };
    report.step("KUnit suites of the driver", || {
        ensure!(!suites.is_empty(), "the driver brought none");
        let mut counts = Counts::default();
        for vm::Suite { name, passed, failed, skipped, results } in suites {
            ensure!(passed + failed + skipped > 0, "the suite {name} has no result:\n{results}");
            if failed > 0 {
                eprintln!("{results}");
            }
            counts.add(Counts { passed, failed, ignored: skipped });
        }
        Ok(counts)
    });
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
