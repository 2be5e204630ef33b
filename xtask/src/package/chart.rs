// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The Helm chart as one file, with the alerts in it: in the checkout they are a link to dashboards/prometheus.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::child;
use crate::setup::chart_tools::ChartTools;
use crate::workspace::Workspace;

/// The chart's folder.
pub(crate) const CHART: &str = "agent/dist/kubernetes/migscope";

/// Helm's own packing, by its library.
const PACK: &str =
    "import sys, helm_python; print(helm_python.package(sys.argv[1], destination=sys.argv[2]))";

/// Packs it; returns the file's path.
pub(super) fn build(workspace: &Workspace) -> Result<PathBuf> {
    let tools = ChartTools::ensure(workspace)?;
    let output = workspace.output("package")?;
    let mut python = tools.python();
    python.args(["-c", PACK, CHART]).arg(output).current_dir(&workspace.root);
    child::capture(&mut python).map(PathBuf::from).context("the chart could not be packed")
}
