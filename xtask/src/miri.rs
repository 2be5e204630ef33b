// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask miri`: the driver's pure files and `driver/abi` under Miri, which finds undefined behaviour.
//!
//! These files hold no `unsafe`; what they lean on does (zerocopy's casts of records and bitmaps to bytes), and a wrong
//! alignment or a byte of padding there shows in no other test.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::child;
use crate::workspace::Workspace;

/// Miri is a part of nightly compilers only. This one has it, and is beside the workspace's own: nothing else is built
/// by it but what [`fuzz parsers`](crate::fuzz) instruments.
pub(crate) const TOOLCHAIN: &str = "nightly-2026-10-30";
/// Of crates with files that the module is made of.
const PACKAGES: [&str; 2] = ["driver-on-host", "migscope-abi"];
/// Random cases of each property. Miri interprets, so a case takes thousands of times as long as usual.
const CASES: &str = "2";

/// The command that runs the tests.
///
/// # Errors
///
/// The toolchain is not there, and rustup cannot get it.
pub(crate) fn command(workspace: &Workspace) -> Result<Command> {
    let miri = || {
        let mut command = child::bound("rustup");
        command.current_dir(&workspace.root).args(["run", TOOLCHAIN, "cargo", "miri"]);
        command
    };
    if child::capture(miri().arg("--version")).is_err() {
        eprintln!("getting {TOOLCHAIN} for Miri, with rustup");
        child::run(
            Command::new("rustup")
                .args(["toolchain", "install", TOOLCHAIN, "--profile", "minimal"])
                .args(["--component", "miri", "--component", "rust-src"]),
        )
        .with_context(|| format!("there is no Miri without the toolchain {TOOLCHAIN}"))?;
    }
    let mut command = miri();
    command.args(["test", "--lib", "--tests", "--no-fail-fast", "--target-dir"]);
    command.arg(workspace.output("miri")?);
    command.args(PACKAGES.map(|name| ["--package", name]).as_flattened());
    command.env("PROPTEST_CASES", CASES);
    // proptest looks for the cases that failed before, in files.
    command.env("MIRIFLAGS", "-Zmiri-disable-isolation");
    Ok(command)
}

/// The subcommand.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    child::run(&mut command(workspace)?)
}
