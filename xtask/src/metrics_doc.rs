// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask metrics-doc`: the page of all metrics, from the registry of the agent.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::child;
use crate::programs;
use crate::workspace::Workspace;

const PAGE: &str = "agent/METRICS.md";

/// The subcommand: writes the page.
pub(crate) fn write(workspace: &Workspace) -> Result<()> {
    let page = made(workspace)?;
    fs::write(workspace.root.join(PAGE), page)
        .with_context(|| format!("failed to write {PAGE}"))?;
    println!("{PAGE}");
    Ok(())
}

/// The check: the page is what the subcommand would write.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let there = fs::read_to_string(workspace.root.join(PAGE)).with_context(|| {
        format!("failed to read {PAGE}; write it with: cargo xtask metrics-doc")
    })?;
    let wanted = made(workspace)?;
    if there == wanted {
        return Ok(());
    }
    let (line, (is, should)) = (1..)
        .zip(lines(&there).zip(lines(&wanted)))
        .find(|(_, (is, should))| is != should)
        .context("two pages that differ have a line that differs")?;
    bail!(
        "{PAGE} is not current; mend it with: cargo xtask metrics-doc\n  line {line} is: {is}\n  and should be: {should}"
    );
}

/// The lines of a page, and then none for ever: one page may be the beginning of the other.
fn lines(page: &str) -> impl Iterator<Item = &str> {
    page.split('\n').chain(std::iter::repeat("(nothing)"))
}

/// The page as the agent's example prints it.
fn made(workspace: &Workspace) -> Result<String> {
    let program = programs::example(workspace, "metrics_doc")?;
    let mut page = child::capture(&mut child::bound(program))?;
    page.push('\n'); // the last, which `capture` takes away
    Ok(page)
}
