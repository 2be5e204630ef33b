// SPDX-License-Identifier: Apache-2.0 OR MIT
//! bindgen, which the kernel's build runs over C headers.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::packages::{self, Group};
use crate::cache::Key;
use crate::child;
use crate::workspace::Workspace;

/// The version that the pinned kernel was proved with.
const VERSION: &str = "0.73";

/// The program: the one in PATH if it has the right version, else one in the cache.
pub(crate) fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    // Also for a bindgen that is there: libclang is loaded when it runs.
    packages::ensure(&[Group::Bindgen])?;
    if let Some(path) = super::in_path("bindgen", VERSION) {
        return Ok(path);
    }
    let key = Key::new().with("bindgen-cli", VERSION);
    let entry = workspace.cache.make("bindgen", &key, |dir| {
        super::cargo_install(dir, "bindgen-cli", VERSION, &[], |_| {})
    })?;
    Ok(entry.join("bin/bindgen"))
}

/// What `bindgen --version` says, with the libclang that it will load.
pub(crate) fn version(program: &Path) -> Result<String> {
    child::capture(Command::new(program).arg("--version").env("LIBCLANG_PATH", libclang()))
        .context("bindgen does not run")
}

/// For LIBCLANG_PATH.
pub(crate) fn libclang() -> String {
    format!("{}/lib", super::llvm_prefix())
}
