// SPDX-License-Identifier: Apache-2.0 OR MIT
//! bpf-linker, which turns rustc's bitcode into a BPF object.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::packages::{self, Group};
use super::rust::Rust;
use crate::cache::Key;
use crate::workspace::Workspace;

/// The first version that reads LLVM 22's bitcode.
const VERSION: &str = "0.13";

/// The program: the one in PATH if it has the right version, else one in the cache.
pub(crate) fn ensure(workspace: &Workspace, rust: &Rust) -> Result<PathBuf> {
    if let Some(path) = in_path() {
        return Ok(path);
    }
    // Also for one in the cache: it is linked with libLLVM, and the cache may outlive the machine.
    packages::ensure(&[Group::BpfLinker])?;
    let key = Key::new().with("bpf-linker", VERSION).with("rustc", &rust.version);
    let entry = workspace.cache.make("bpf-linker", &key, |dir| {
        let feature = format!("llvm-{}", super::LLVM);
        let prefix = super::llvm_prefix();
        let path = rust.path(&[&PathBuf::from(&prefix).join("bin")])?;
        super::cargo_install(
            dir,
            "bpf-linker",
            VERSION,
            &["--no-default-features", "--features", &feature],
            |command| {
                command.env("PATH", &path).env("LLVM_PREFIX", &prefix);
            },
        )
        .context("bpf-linker could not be built; a prebuilt one in PATH would be used")
    })?;
    Ok(entry.join("bin/bpf-linker"))
}

/// One that is installed, prebuilt maybe, and needs none of LLVM's packages.
pub(crate) fn in_path() -> Option<PathBuf> {
    super::in_path("bpf-linker", VERSION)
}
