// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask build-driver`: the kernel module, out of tree.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::cache::Key;
use crate::child;
use crate::kernel::{Kernel, Make};
use crate::workspace::Workspace;

/// The driver's folder in the checkout.
const SOURCE: &str = "driver";
/// What Kbuild makes of it.
const MODULE: &str = "vfio_mediate.ko";

/// Builds the module against a kernel's build tree; returns its path.
pub(crate) fn build(workspace: &Workspace, tree: &Path) -> Result<PathBuf> {
    let output = make(workspace, tree, &[])?;
    Ok(output.join(MODULE))
}

/// Runs `make` for the driver with more arguments; returns the folder of what it made.
///
/// MO= (Documentation/kbuild/modules.rst) keeps the source folder clean. Each set of arguments has an
/// output of its own: kbuild would not notice that, say, CLIPPY=1 is new.
pub(crate) fn make(workspace: &Workspace, tree: &Path, arguments: &[&str]) -> Result<PathBuf> {
    let tree = tree
        .canonicalize()
        .with_context(|| format!("{} is no kernel build tree", tree.display()))?;
    let make = Make::find(workspace)?;
    let key = Key::new().with("tree", tree.to_string_lossy()).with("make", arguments.join(" "));
    let output = workspace.output(&format!("driver-{}", key.digest()))?;
    let log = output.join("log");
    fs::write(&log, "").with_context(|| format!("failed to write {}", log.display()))?;
    let mut command = make.command(&tree)?;
    command
        .arg(format!("M={}", workspace.root.join(SOURCE).display()))
        .arg(format!("MO={}", output.display()))
        .args(arguments)
        .arg("modules");
    child::logged(&mut command, &log, |line| {
        // Diagnostics are for people, the rest is for the log.
        if !is_step(line) && !is_pahole(line) {
            eprintln!("{line}");
        }
    })
    .context("the driver does not build")?;
    Ok(output)
}

/// `  CC [M]  shim.o`, `make[1]: Entering directory`; a compiler's own lines look otherwise.
fn is_step(line: &str) -> bool {
    let step = line
        .strip_prefix("  ")
        .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_uppercase()));
    step || (line.starts_with("make") && line.contains("ing directory"))
}

/// pahole, which makes BTF, wonders at Rust's debug information and goes on.
fn is_pahole(line: &str) -> bool {
    ["tag__", "die__"].iter().any(|function| line.starts_with(function))
}

/// The subcommand.
pub(crate) fn run(workspace: &Workspace, tree: Option<PathBuf>) -> Result<()> {
    let tree = match tree {
        Some(tree) => tree,
        None => Kernel::ensure(workspace)?.build_tree(),
    };
    println!("{}", build(workspace, &tree)?.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diagnostics_are_shown_and_steps_are_not() {
        assert!(is_step("  RUSTC [M] vfio_mediate_rs.o"));
        assert!(is_step("make[1]: Entering directory '/x'"));
        assert!(!is_step("make[3]: *** [Kbuild:15: vfio_mediate_rs.o] Error 1"));
        assert!(!is_step("  --> driver/region.rs:1:2"));
        assert!(!is_step("warning: unused import"));
        assert!(is_pahole(
            "die__process_function: tag not supported 0x2f (template_type_parameter)!"
        ));
        assert!(!is_pahole("error: cannot find type `tag__x`"));
    }
}
