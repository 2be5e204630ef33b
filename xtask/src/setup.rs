// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask setup`: all that is needed and not made here, each thing only if it is missing.
//!
//! Every other subcommand calls for what it needs through the functions of these modules, so running
//! this by hand is never necessary; it only separates the downloads from the work.

pub(crate) mod apt;
pub(crate) mod bindgen;
pub(crate) mod bpf_linker;
pub(crate) mod cargo_deb;
pub(crate) mod chart_tools;
pub(crate) mod debian_root;
pub(crate) mod kernel_source;
pub(crate) mod node;
pub(crate) mod node_exporter;
pub(crate) mod packages;
pub(crate) mod prometheus;
pub(crate) mod promtool;
pub(crate) mod qemu;
pub(crate) mod rust;
mod unpacked;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use self::packages::Group;
use crate::child;
use crate::dashboards;
use crate::workspace::Workspace;

/// LLVM's major version: the one that the pinned rustc carries (`rustc -vV`), which bpf-linker must
/// share because it reads rustc's bitcode.
pub(crate) const LLVM: &str = "22";

/// Where Debian puts that LLVM; `libclang`, `clang` and `llvm-config` are below it.
pub(crate) fn llvm_prefix() -> String {
    format!("/usr/lib/llvm-{LLVM}")
}

/// The packages of all that `demo` and `test` do, in one go: whoever waits for them need not come back.
pub(crate) fn packages() -> Result<()> {
    let mut groups = vec![Group::Kernel, Group::Bindgen, Group::Vm, Group::Lint];
    if bpf_linker::in_path().is_none() {
        groups.push(Group::BpfLinker);
    }
    if !node::in_path() {
        groups.push(Group::Node);
    }
    packages::ensure(&groups)
}

/// Everything at once, and says where each thing is.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    packages()?;
    let rust = rust::Rust::find(workspace)?;
    println!("rust-src     {}", rust.library.display());
    println!("bindgen      {}", bindgen::ensure(workspace)?.display());
    println!("bpf-linker   {}", bpf_linker::ensure(workspace, &rust)?.display());
    println!("promtool     {}", promtool::ensure(workspace)?.display());
    println!("prometheus   {}", prometheus::ensure(workspace)?.program.display());
    println!("linux source {}", kernel_source::ensure(workspace)?.display());
    println!("qemu 10      {}", qemu::ensure(workspace, qemu::Version::Ten)?.display());
    println!("qemu 11      {}", qemu::ensure(workspace, qemu::Version::Eleven)?.display());
    println!("grafana      {} (types)", dashboards::types(workspace)?.display());
    println!("cargo-deb    {}", cargo_deb::ensure(workspace)?.display());
    println!("clean debian {}", debian_root::ensure(workspace)?.display());
    println!("chart tools  {}", chart_tools::ChartTools::ensure(workspace)?.folder().display());
    Ok(())
}

/// A program in PATH whose `--version` is `version` or a patch release of it.
fn in_path(program: &str, version: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())?;
    let said = child::capture(
        Command::new(&found).arg("--version").env("LIBCLANG_PATH", bindgen::libclang()),
    )
    .ok()?;
    if is_version(&said, version) {
        return Some(found);
    }
    eprintln!("{} is {said}, not {version}; taking one of our own", found.display());
    None
}

fn is_version(said: &str, version: &str) -> bool {
    said.split_whitespace().any(|word| {
        word.strip_prefix(version).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// `cargo install` into a folder of the cache.
fn cargo_install(
    root: &Path,
    package: &str,
    version: &str,
    more: &[&str],
    adapt: impl FnOnce(&mut Command),
) -> Result<()> {
    eprintln!("building {package} {version} with cargo install (a minute or two)");
    let target = root.join("target");
    let mut command = child::bound("cargo");
    command
        .args(["install", package, "--locked", "--version", &format!("^{version}")])
        .args(more)
        .arg("--root")
        .arg(root)
        .env("CARGO_TARGET_DIR", &target)
        .env("LIBCLANG_PATH", bindgen::libclang())
        // A tool for this host, whatever flags the caller builds the workspace with.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    adapt(&mut command);
    child::run(&mut command)
        .with_context(|| format!("cannot install {package}; by hand: cargo install {package}"))?;
    std::fs::remove_dir_all(&target).context("failed to remove the build's leftovers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_release_is_of_its_version_and_a_longer_number_is_not() {
        assert!(is_version("bindgen 0.73.1", "0.73"));
        assert!(is_version("bpf-linker 0.13", "0.13"));
        assert!(!is_version("bpf-linker 0.130.0", "0.13"));
        assert!(!is_version("bindgen 0.72.1", "0.73"));
    }
}
