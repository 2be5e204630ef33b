// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The dashboards held against Grafana's own types.
//!
//! Grafana publishes the shapes of dashboards and panels as TypeScript, in the npm package @grafana/schema, and those of queries and
//! the names of units in @grafana/grafana-foundation-sdk. `schema/check.ts` puts them together: it says which panel has which options. Each dashboard becomes a TypeScript
//! file that says its JSON is of that type, and the compiler judges. It refuses what is missing, what has the wrong type, and what no such thing has.
//!
//! `schema/mutants.ts` are dashboards that are wrong, each of which the compiler must refuse: so a check that takes everything fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::cache::Key;
use crate::child;
use crate::setup::node;
use crate::workspace::Workspace;

/// The packages at their versions, and the digests of what the registry must give.
const PACKAGE: &str = include_str!("schema/package.json");
const LOCK: &str = include_str!("schema/package-lock.json");
const TYPES: &str = include_str!("schema/check.ts");
const MUTANTS: &str = include_str!("schema/mutants.ts");
const CONFIG: &str = include_str!("schema/tsconfig.json");

/// The check.
pub(super) fn check(workspace: &Workspace, dashboards: &[(String, Value)]) -> Result<()> {
    let packages = packages(workspace)?;
    let folder = tempfile::tempdir().context("failed to make a scratch folder")?;
    let folder = folder.path();
    let put = |name: &str, text: &str| {
        fs::write(folder.join(name), text)
            .with_context(|| format!("failed to write {name} into the scratch folder"))
    };
    std::os::unix::fs::symlink(packages.join("node_modules"), folder.join("node_modules"))
        .context("failed to link the packages into the scratch folder")?;
    put("check.ts", TYPES)?;
    put("mutants.ts", MUTANTS)?;
    put("tsconfig.json", CONFIG)?;
    for (name, json) in dashboards {
        put(&format!("{}.ts", stem(name)), &module(json)?)?;
    }
    compile(&packages, folder).context(
        "Grafana's types do not take a dashboard; what the lines above say is of its JSON as a TypeScript file",
    )
}

fn stem(name: &str) -> &str {
    Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or(name)
}

/// JSON is TypeScript, too.
fn module(json: &Value) -> Result<String> {
    let text = serde_json::to_string_pretty(json).context("failed to write JSON")?;
    Ok(format!(
        "import type {{ Checked }} from './check';\nexport const dashboard: Checked = {text};\n"
    ))
}

fn compile(packages: &Path, folder: &Path) -> Result<()> {
    let compiler = packages.join("node_modules/typescript/bin/tsc");
    child::run(Command::new("node").arg(compiler).arg("--project").arg(folder))
}

/// The packages, in the cache.
pub(super) fn packages(workspace: &Workspace) -> Result<PathBuf> {
    node::ensure()?;
    let key = Key::new().with("package.json", PACKAGE).with("package-lock.json", LOCK);
    workspace.cache.make("grafana-schema", &key, |folder| {
        fs::write(folder.join("package.json"), PACKAGE)
            .and_then(|()| fs::write(folder.join("package-lock.json"), LOCK))
            .context("failed to write into the cache")?;
        // `ci` installs what the lock file says and nothing else; no package's own script is run.
        let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
        child::run(child::bound("npm").args(arguments).current_dir(folder))
            .context("cannot get Grafana's types from npm's registry")
    })
}
