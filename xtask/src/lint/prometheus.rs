// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What goes to Prometheus, checked by its own tool: the alerts with their tests, and the exposition.

use std::fs::{self, File};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};

use crate::child;
use crate::setup::promtool;
use crate::workspace::Workspace;

const ALERTS: &str = "dashboards/prometheus/alerts.yml";
const TESTS: &str = "dashboards/prometheus/alerts.test.yml";
/// The agent's test compares it with what the agent says, byte for byte.
const EXPOSITION: &str = "agent/tests/exposition.txt";

/// The check.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let promtool = promtool::ensure(workspace)?;
    let root = &workspace.root;
    child::run(child::bound(&promtool).args(["check", "rules", ALERTS]).current_dir(root))?;
    child::run(child::bound(&promtool).args(["test", "rules", TESTS]).current_dir(root))?;

    let exposition = File::open(root.join(EXPOSITION))
        .with_context(|| format!("failed to open {EXPOSITION}"))?;
    let mut command = child::bound(&promtool);
    command.args(["check", "metrics"]).stdin(Stdio::from(exposition));
    let output = command.output().context("failed to start promtool check metrics")?;
    // It may find fault and still exit with 0.
    if !output.status.success() || !output.stderr.is_empty() {
        bail!("{EXPOSITION}:\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    runbooks(workspace)
}

/// Every alert has a runbook, and the page is there.
fn runbooks(workspace: &Workspace) -> Result<()> {
    let text = fs::read_to_string(workspace.root.join(ALERTS))
        .with_context(|| format!("failed to read {ALERTS}"))?;
    let after = |key: &str| {
        let values = text.lines().filter_map(|line| line.trim_start().strip_prefix(key));
        values.map(str::trim).collect::<Vec<_>>()
    };
    let (alerts, pages) = (after("- alert:"), after("runbook_url:"));
    ensure!(alerts.len() == pages.len(), "{ALERTS}: an alert has no runbook_url");
    for (alert, page) in alerts.iter().zip(pages) {
        let named = page.ends_with(&format!("/{alert}.md"));
        ensure!(named, "{ALERTS}: the runbook of {alert} is {page}");
        let file = workspace.root.join(page);
        ensure!(file.is_file(), "{page} is missing, the runbook of {alert}");
    }
    Ok(())
}
