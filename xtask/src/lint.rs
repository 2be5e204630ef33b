// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask lint`: all that can be said about the source without running it.

mod distribution;
mod kept;
mod prometheus;
mod promql;
mod rules;
mod runbooks;
mod source;

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::arch::Arch;
use crate::bench::cardinality;
use crate::build_driver;
use crate::build_ebpf;
use crate::child;
use crate::dashboards;
use crate::kernel::{Kernel, Variant};
use crate::metrics_doc;
use crate::programs;
use crate::setup::packages::{self, Group};
use crate::workspace::Workspace;

/// One check.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Workspace) -> Result<()>,
}

/// All of them, the quick ones first.
pub(crate) const CHECKS: &[Check] = &[
    Check { name: "licence headers and file lengths", run: source::check },
    Check { name: "rustfmt", run: rustfmt },
    Check { name: "rules, their tests and runbooks, exposition", run: prometheus::check },
    Check { name: "dashboards, against Grafana's types", run: dashboards::check },
    Check { name: "Helm chart, container file, example for Prometheus", run: distribution::check },
    Check { name: "clippy", run: clippy },
    Check { name: "page of all metrics", run: metrics_doc::check },
    Check { name: "page of series at scale", run: cardinality::check },
    Check { name: "clippy of the probes", run: clippy_ebpf },
    Check { name: "clippy of the driver", run: clippy_driver },
    Check { name: "checkpatch of the driver", run: checkpatch },
];

/// Cargo's packages, and the driver, which cargo does not know.
fn rustfmt(workspace: &Workspace) -> Result<()> {
    let root = &workspace.root;
    // It would colour a log file, too.
    let colour = if io::stderr().is_terminal() { "--color=always" } else { "--color=never" };
    let arguments = ["fmt", "--all", "--", "--check", colour];
    child::run(Command::new("cargo").args(arguments).current_dir(root))
        .context("some files are not formatted; mend it with: cargo fmt --all")?;
    // The kernel compiles the driver as edition 2021. The root module leads rustfmt to the others.
    let modules = ["driver/vfio_mediate.rs", "tests/perf/module/vfio_mediate_bench.rs"];
    let arguments = ["--check", colour, "--edition", "2021"];
    child::run(Command::new("rustfmt").args(arguments).args(modules).current_dir(root))
        .with_context(|| format!("mend it with: rustfmt --edition 2021 {}", modules.join(" ")))
}

fn clippy(workspace: &Workspace) -> Result<()> {
    let arguments = ["clippy", "--quiet", "--workspace", "--exclude", build_ebpf::PACKAGE];
    child::run(programs::cargo(workspace)?.args(arguments).args([
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

/// Those of a release, and those that log.
fn clippy_ebpf(workspace: &Workspace) -> Result<()> {
    for release in [true, false] {
        let arguments = ["--quiet", "--", "-D", "warnings"];
        build_ebpf::cargo(workspace, Arch::native(), "clippy", release, &arguments)?;
    }
    Ok(())
}

/// The kernel's own choice of lints (its Makefile, `rust_common_flags`); W=e makes warnings errors, of
/// the C compiler too.
fn clippy_driver(workspace: &Workspace) -> Result<()> {
    let kernel = Kernel::ensure(workspace, Variant::Ours)?;
    let tree = kernel.build_tree();
    build_driver::make(workspace, &tree, &["CLIPPY=1", "W=e"])?;
    build_driver::build_bench(workspace, &tree, &["CLIPPY=1", "W=e"])?;
    let driver = build_driver::build(workspace, &tree)?;
    build_driver::build_provider(workspace, &tree, &driver, &["W=e"])?;
    build_driver::region(workspace, &tree)?;
    build_driver::logging(workspace, &tree).map(|_module| ())
}

fn checkpatch(workspace: &Workspace) -> Result<()> {
    packages::ensure(&[Group::Lint])?;
    let kernel = Kernel::ensure(workspace, Variant::Ours)?;
    let mut files = Vec::new();
    for folder in ["driver", build_driver::PROVIDER, build_driver::REGION, build_driver::LOGGING] {
        let found = c_files(&workspace.root.join(folder))?;
        if found.is_empty() {
            bail!("{folder} has no C file to check");
        }
        files.extend(found);
    }
    child::run(
        Command::new("perl")
            .arg(kernel.source.join("scripts/checkpatch.pl"))
            .args(["--no-summary", "--terse", "--show-types", "--no-tree"])
            // A trace event's format takes lists of arguments, which have no parentheses; the driver for tests is for several kernels.
            .arg("--ignore=COMPLEX_MACRO,LINUX_VERSION_CODE,CONSTANT_COMPARISON")
            .arg("--file")
            .args(files),
    )
}

fn c_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for file in source::files(folder)? {
        if file.extension().is_some_and(|extension| extension == "c" || extension == "h") {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

/// The subcommand: every check, then whether all passed.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut failed = Vec::new();
    for Check { name, run } in CHECKS {
        match run(workspace) {
            Ok(()) => eprintln!("ok   {name}"),
            Err(error) => {
                eprintln!("FAIL {name}: {error:#}");
                failed.push(*name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}
