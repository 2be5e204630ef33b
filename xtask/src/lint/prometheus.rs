// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What goes to Prometheus, checked by its own tool: the alerts with their tests, and the exposition.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};

use crate::child;
use crate::setup::promtool;
use crate::workspace::Workspace;

const ALERTS: &str = "dashboards/prometheus/alerts.yml";
const TESTS: &str = "dashboards/prometheus/alerts.test.yml";
/// The agent's test compares it with what the agent says, byte for byte.
const EXPOSITION: &str = "agent/tests/exposition.txt";
/// The same as OpenMetrics.
const OPEN_METRICS: &str = "agent/tests/exposition.openmetrics.txt";

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
    open_metrics(workspace, &promtool)?;
    runbooks(workspace)
}

/// Has Prometheus' own parser of OpenMetrics read the exposition. Of promtool's commands only the one that imports old samples
/// has it, so these get a time, and the blocks that it makes are thrown away.
fn open_metrics(workspace: &Workspace, promtool: &Path) -> Result<()> {
    let text = fs::read_to_string(workspace.root.join(OPEN_METRICS))
        .with_context(|| format!("failed to read {OPEN_METRICS}"))?;
    let folder = tempfile::tempdir().context("failed to make a scratch folder")?;
    let timed = folder.path().join("timed.txt");
    fs::write(&timed, with_times(&text)).context("failed to write into the scratch folder")?;
    let mut command = child::bound(promtool);
    command.args(["tsdb", "create-blocks-from", "openmetrics"]).arg(&timed);
    let told = child::capture(command.arg(folder.path().join("blocks")))
        .with_context(|| format!("{OPEN_METRICS} is no OpenMetrics"))?;
    let samples = text.lines().filter(|line| !line.starts_with('#')).count().to_string();
    let stored = told
        .lines()
        .last()
        .is_some_and(|block| block.split_whitespace().any(|column| column == samples));
    ensure!(stored, "promtool did not store {samples} samples of {OPEN_METRICS}:\n{told}");
    Ok(())
}

/// The exposition with a time for each sample. It stands behind the value, before an exemplar; no label of ours has ` # ` in it.
fn with_times(exposition: &str) -> String {
    let timed = |line: &str| match line.split_once(" # ") {
        _ if line.starts_with('#') => format!("{line}\n"),
        Some((sample, exemplar)) => format!("{sample} 1700000000.000 # {exemplar}\n"),
        None => format!("{line} 1700000000.000\n"),
    };
    exposition.lines().map(timed).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_stands_behind_the_value() {
        let text = "# TYPE a counter\na_total 1.0\nb_bucket{le=\"1.0\"} 1 # {x=\"y\"} 0.5\n# EOF\n";
        let timed = "# TYPE a counter\na_total 1.0 1700000000.000\n\
                     b_bucket{le=\"1.0\"} 1 1700000000.000 # {x=\"y\"} 0.5\n# EOF\n";
        assert_eq!(with_times(text), timed);
    }
}
