// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The agent for aarch64: that it is built, carries probes and, on an emulated machine, reads a recording as the one for this machine does.
//!
//! The probes themselves do not run here: that takes a kernel of that machine.

use anyhow::{Context as _, Result, ensure};

use super::report::{Counts, Report};
use crate::arch::Arch;
use crate::build_agent::{self, Profile};
use crate::child;
use crate::programs::Programs;
use crate::workspace::Workspace;

/// A migration of edu, which the agent's own tests describe.
const RECORDING: &str = "agent/tests/recordings/edu-live.migscope";

/// All of it, as one step.
pub(super) fn step(workspace: &Workspace, report: &mut Report) {
    report.step("the agent for aarch64, emulated", || {
        reads_a_recording(workspace).map(|()| Counts::ONE_PASSED)
    });
}

fn reads_a_recording(workspace: &Workspace) -> Result<()> {
    let ours = Programs::build(workspace)?.agent;
    let theirs = build_agent::build(workspace, Arch::Aarch64, Profile::Dev)?;
    let recording = workspace.root.join(RECORDING);
    let recording = recording.to_str().context("the checkout's path is not UTF-8")?;
    let arguments = ["report", recording, "--json"];
    let expected = child::capture(std::process::Command::new(ours).args(arguments))?;
    let found = build_agent::emulated(&theirs, Arch::Aarch64, &arguments)?;
    ensure!(
        found == expected,
        "the report for aarch64 is another:\n{found}\n\nand not\n{expected}"
    );
    Ok(())
}
