// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The licences of the crates that are built into the agent. Most of them ask that their notice goes with every copy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use cargo_metadata::{DependencyKind, MetadataCommand, Package, PackageId};

use crate::arch::Arch;
use crate::workspace::Workspace;

/// What the names of files with a licence or a notice begin with, in capitals.
const NAMES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];

/// One text: a line for each crate, with its version and what its manifest says of its licence, and then each licence's text once, behind the
/// crates that it came with.
pub(super) fn collect(workspace: &Workspace, arch: Arch) -> Result<String> {
    let metadata = MetadataCommand::new()
        .current_dir(&workspace.root)
        .other_options(["--locked".to_owned(), "--filter-platform".to_owned(), arch.triple()])
        .exec()
        .context("failed to ask cargo for the crates that the agent is built of")?;
    let resolve = metadata.resolve.as_ref().context("cargo resolved no crates")?;
    let nodes: BTreeMap<&PackageId, _> =
        resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let agent = metadata.packages.iter().find(|package| package.name == "migscope");
    let mut open = vec![&agent.context("the workspace has no package migscope")?.id];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            let node = nodes.get(id).context("cargo resolved a crate to nothing")?;
            let normal = node.deps.iter().filter(|dependency| {
                dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal)
            });
            open.extend(normal.map(|dependency| &dependency.pkg));
        }
    }
    // What has no source is a package of this workspace.
    let foreign = |package: &&Package| package.source.is_some() && seen.contains(&package.id);
    let mut crates: Vec<_> = metadata.packages.iter().filter(foreign).collect();
    crates.sort_by_key(|package| (package.name.clone(), package.version.clone()));
    ensure!(!crates.is_empty(), "cargo knows no crate that the agent is built of");
    text(&crates)
}

fn text(crates: &[&Package]) -> Result<String> {
    let mut list = String::new();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in crates {
        let name = format!("{} {}", package.name, package.version);
        let licence = package.license.as_deref().unwrap_or("see its text");
        list += &format!("{name}: {licence}\n");
        let folder = package.manifest_path.parent().context("a manifest is in no folder")?;
        for file in files(folder.as_std_path())? {
            let text =
                fs::read(&file).with_context(|| format!("failed to read {}", file.display()))?;
            let text = String::from_utf8_lossy(&text).replace("\r\n", "\n").trim_end().to_owned();
            texts.entry(text).or_default().push(name.clone());
        }
    }
    let bodies =
        texts.iter().map(|(text, names)| format!("\n\n==== {}\n\n{text}\n", names.join(", ")));
    Ok(format!("These crates are built into migscope:\n\n{list}{}", bodies.collect::<String>()))
}

/// The files of a crate that hold its licence, also those in the folder that some keep them in.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder)
        .with_context(|| format!("failed to list the crate in {}", folder.display()))?;
    for entry in entries {
        let path = entry.context("failed to list a crate")?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if !NAMES.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        if path.is_dir() {
            let inner = fs::read_dir(&path).context("failed to list a folder of licences")?;
            found.extend(inner.flatten().map(|entry| entry.path()).filter(|path| path.is_file()));
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_and_notices_are_found_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["LICENSE-MIT", "license", "NOTICE.md", "README.md", "lib.rs"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        fs::create_dir(folder.path().join("LICENSES")).unwrap();
        fs::write(folder.path().join("LICENSES/0BSD.txt"), "text").unwrap();
        let found = files(folder.path()).unwrap();
        let names: Vec<_> =
            found.iter().map(|path| path.strip_prefix(folder.path()).unwrap()).collect();
        let names: Vec<_> = names.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(names, ["LICENSE-MIT", "LICENSES/0BSD.txt", "NOTICE.md", "license"]);
    }
}
