// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask bench intake`: builds the agent's example `intake` and runs it, on the host.

use anyhow::Result;

use crate::child;
use crate::programs;
use crate::workspace::Workspace;

/// The report, as the example prints it.
pub(super) fn measure(workspace: &Workspace, runs: u32) -> Result<String> {
    let mut command = programs::cargo(workspace)?;
    command.args(["run", "--quiet", "--release", "--package", "migscope", "--example", "intake"]);
    command.args(["--", &format!("--runs={runs}")]);
    child::capture(&mut command)
}
