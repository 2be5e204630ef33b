// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask build-driver`: the kernel module, out of tree; and for tests, a module that builds upon it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::cache::Key;
use crate::child;
use crate::kernel::{Kernel, Make, Variant};
use crate::workspace::Workspace;

/// The driver's folder in the checkout.
const SOURCE: &str = "driver";
/// What Kbuild makes of it.
const MODULE: &str = "vfio_mediate.ko";
/// The folder of the vendor's module that tests load.
pub(crate) const PROVIDER: &str = "tests/vm/provider";
const PROVIDER_MODULE: &str = "mediate_testdev.ko";

/// The folder of the driver with a migration region that knows nothing of ours.
pub(crate) const REGION: &str = "tests/vm/region";
const REGION_MODULE: &str = "region_testdev.ko";

/// Builds that driver against a kernel's build tree, and returns the variable that tells tests where it is.
pub(crate) fn region(workspace: &Workspace, tree: &Path) -> Result<(OsString, OsString)> {
    let output = make_folder(workspace, tree, "region", REGION, &[])?;
    Ok(("MIGSCOPE_REGION_DRIVER".into(), output.join(REGION_MODULE).into()))
}

/// The folder of the driver that logs DMA.
pub(crate) const LOGGING: &str = "tests/vm/logging";
const LOGGING_MODULE: &str = "logging_testdev.ko";

/// Builds that driver against a kernel's build tree, and returns the variable that tells tests where it is.
pub(crate) fn logging(workspace: &Workspace, tree: &Path) -> Result<(OsString, OsString)> {
    let output = make_folder(workspace, tree, "logging", LOGGING, &[])?;
    Ok(("MIGSCOPE_LOGGING_DRIVER".into(), output.join(LOGGING_MODULE).into()))
}

/// Builds the module against a kernel's build tree; returns its path.
pub(crate) fn build(workspace: &Workspace, tree: &Path) -> Result<PathBuf> {
    let output = make(workspace, tree, &[])?;
    Ok(output.join(MODULE))
}

/// Builds the vendor's module, and returns the variable that tells tests where it is.
pub(crate) fn provider(
    workspace: &Workspace,
    tree: &Path,
    driver: &Path,
) -> Result<(OsString, OsString)> {
    let module = build_provider(workspace, tree, driver, &[])?;
    Ok(("MIGSCOPE_PROVIDER".into(), module.into()))
}

/// Builds the vendor's module against the driver that [`build`] built; returns its path.
pub(crate) fn build_provider(
    workspace: &Workspace,
    tree: &Path,
    driver: &Path,
    arguments: &[&str],
) -> Result<PathBuf> {
    let symbols =
        format!("KBUILD_EXTRA_SYMBOLS={}", driver.with_file_name("Module.symvers").display());
    let arguments: Vec<&str> = arguments.iter().copied().chain([symbols.as_str()]).collect();
    let output = make_folder(workspace, tree, "provider", PROVIDER, &arguments)?;
    Ok(output.join(PROVIDER_MODULE))
}

/// Runs `make` for the driver with more arguments; returns the folder of what it made.
pub(crate) fn make(workspace: &Workspace, tree: &Path, arguments: &[&str]) -> Result<PathBuf> {
    make_folder(workspace, tree, "driver", SOURCE, arguments)
}

/// The kernel module that measures the driver's dirty log, and its folder.
const BENCH: &str = "tests/perf/module";
const BENCH_MODULE: &str = "vfio_mediate_bench.ko";

/// Builds the module that measures the driver's dirty log; returns its path.
pub(crate) fn build_bench(
    workspace: &Workspace,
    tree: &Path,
    arguments: &[&str],
) -> Result<PathBuf> {
    Ok(make_folder(workspace, tree, "bench", BENCH, arguments)?.join(BENCH_MODULE))
}

/// Runs `make` for a folder of modules with more arguments; returns the folder of what it made.
///
/// MO= (Documentation/kbuild/modules.rst) keeps the source folder clean. Each set of arguments has an
/// output of its own: kbuild would not notice that, say, CLIPPY=1 is new. So has each checkout, where several share cargo's folder.
fn make_folder(
    workspace: &Workspace,
    tree: &Path,
    name: &str,
    source: &str,
    arguments: &[&str],
) -> Result<PathBuf> {
    let tree = tree
        .canonicalize()
        .with_context(|| format!("{} is no kernel build tree", tree.display()))?;
    let make = Make::find(workspace)?;
    let source = workspace.root.join(source);
    let key = Key::new()
        .with("tree", tree.to_string_lossy())
        .with("source", source.to_string_lossy())
        .with("make", arguments.join(" "));
    let output = workspace.output(&format!("{name}-{}", key.digest()))?;
    let log = output.join("log");
    fs::write(&log, "").with_context(|| format!("failed to write {}", log.display()))?;
    let mut command = make.command(&tree)?;
    command
        .arg(format!("M={}", source.display()))
        .arg(format!("MO={}", output.display()))
        .args(arguments)
        .arg("modules");
    child::logged(&mut command, &log, |line| {
        // Diagnostics are for people, the rest is for the log.
        if !is_step(line) && !is_pahole(line) {
            eprintln!("{line}");
        }
    })
    .with_context(|| format!("the {name} does not build"))?;
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
pub(crate) fn run(workspace: &Workspace, tree: Option<PathBuf>, kernel: Variant) -> Result<()> {
    let tree = match tree {
        Some(tree) => tree,
        None => Kernel::ensure(workspace, kernel)?.build_tree(),
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
