// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What puts the agent on hosts, as far as it can be checked without one: the Helm chart, the container file, an example for Prometheus.

use std::fs::File;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use super::prometheus;
use crate::child;
use crate::package::chart::CHART;
use crate::setup::chart_tools::ChartTools;
use crate::setup::promtool;
use crate::workspace::Workspace;

const CHECKER: &str = "xtask/src/lint/kubernetes.py";
const CONTAINER: &str = "agent/dist/container/Containerfile";
const PROMETHEUS: &str = "dashboards/prometheus/scale/prometheus.yml";

/// The check.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let root = &workspace.root;
    let promtool = promtool::ensure(workspace)?;
    child::run(child::bound(promtool).args(["check", "config", PROMETHEUS]).current_dir(root))?;
    let tools = ChartTools::ensure(workspace)?;
    let mut kubernetes = tools.python();
    kubernetes
        .args([CHECKER, CHART, env!("CARGO_PKG_VERSION")])
        .args(prometheus::rule_files(workspace)?);
    kubernetes.current_dir(root);
    child::run(&mut kubernetes)?;
    // By its standard input, since it knows a container file by another name.
    let file =
        File::open(root.join(CONTAINER)).with_context(|| format!("failed to open {CONTAINER}"))?;
    let mut hadolint = tools.hadolint();
    let output = hadolint
        .args(["--no-color", "--failure-threshold", "info", "-"])
        .stdin(Stdio::from(file))
        .output()
        .context("failed to start hadolint")?;
    if !output.status.success() {
        bail!("{CONTAINER}:\n{}", String::from_utf8_lossy(&output.stdout).trim_end());
    }
    Ok(())
}
