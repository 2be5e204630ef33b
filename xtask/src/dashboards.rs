// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask dashboards`: the dashboards for Grafana, from the files of this module.
//!
//! One file is one dashboard: [`fleet`], [`migration`], [`device`], [`destination`], [`agent`], and the pages of [`runbooks`]. They
//! are made of [`panel`]s, whose expressions begin in [`query`]. What Grafana imports is written to dashboards/grafana, and is in the
//! tree: who uses it needs neither this program nor a network.
//!
//! Three things watch over it. The tests of `rules` hold every expression against agent/METRICS.md, and the dashboards against the
//! rules of grafana/dashboard-linter. [`schema`] holds the files against Grafana's own types. And [`check`] says when a file is not what
//! this module would write.

mod agent;
mod annotation;
mod dashboard;
mod destination;
mod device;
mod field;
mod fleet;
mod last_session;
mod migration;
mod panel;
mod query;
mod reason;
#[cfg(test)]
mod rules;
mod runbooks;
mod schema;
mod state;
mod variable;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use self::dashboard::Dashboard;
use self::runbooks::Runbooks;
use crate::workspace::Workspace;

/// Where the files are.
const FOLDER: &str = "dashboards/grafana";
/// What mends a file that is not current.
const MEND: &str = "mend it with: cargo xtask dashboards";

/// The subcommand: writes the files.
pub(crate) fn write(workspace: &Workspace) -> Result<()> {
    for (name, json) in files(&workspace.root)? {
        fs::write(workspace.root.join(&name), text(&json)?)
            .with_context(|| format!("failed to write {name}"))?;
        println!("{name}");
    }
    Ok(())
}

/// The check: the files are what the subcommand would write, there are no others, and Grafana's types take them.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let wanted = files(&workspace.root)?;
    for (name, json) in &wanted {
        let there = fs::read_to_string(workspace.root.join(name))
            .with_context(|| format!("failed to read {name}; {MEND}"))?;
        ensure!(there == text(json)?, "{name} is not current; {MEND}");
    }
    let listing = fs::read_dir(workspace.root.join(FOLDER))
        .with_context(|| format!("failed to list {FOLDER}"))?;
    for item in listing {
        let name = item.with_context(|| format!("failed to list {FOLDER}"))?.file_name();
        let name = format!("{FOLDER}/{}", name.to_string_lossy());
        if name.ends_with(".json") && !wanted.iter().any(|(known, _)| *known == name) {
            bail!("{name} is of no dashboard in xtask/src/dashboards; remove it");
        }
    }
    schema::check(workspace, &wanted)
}

/// Grafana's types, in the cache.
pub(crate) fn types(workspace: &Workspace) -> Result<PathBuf> {
    schema::packages(workspace)
}

/// Each file's name, from the root of the checkout, and what is in it.
fn files(root: &Path) -> Result<Vec<(String, Value)>> {
    let dashboards = all(root)?;
    let file = |it: &Dashboard| (format!("{FOLDER}/{}.json", it.uid), it.json());
    Ok(dashboards.iter().map(file).collect())
}

fn all(root: &Path) -> Result<Vec<Dashboard>> {
    let runbooks = Runbooks::read(root)?;
    Ok(vec![
        fleet::dashboard(&runbooks)?,
        migration::dashboard(&runbooks)?,
        device::dashboard(&runbooks)?,
        destination::dashboard(&runbooks)?,
        agent::dashboard(&runbooks)?,
        runbooks.dashboard(),
    ])
}

fn text(json: &Value) -> Result<String> {
    let text = serde_json::to_string_pretty(json).context("failed to write JSON")?;
    Ok(text + "\n")
}
