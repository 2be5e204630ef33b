// SPDX-License-Identifier: Apache-2.0 OR MIT
//! cargo-deb, which makes a Debian package of what cargo built.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::cache::Key;
use crate::workspace::Workspace;

/// The version whose options and tables ours are written for.
const VERSION: &str = "3.8";

/// The program: the one in PATH if it has the right version, else one in the cache.
pub(crate) fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(path) = super::in_path("cargo-deb", VERSION) {
        return Ok(path);
    }
    let key = Key::new().with("cargo-deb", VERSION);
    let entry = workspace.cache.make("cargo-deb", &key, |dir| {
        super::cargo_install(dir, "cargo-deb", VERSION, &[], |_command| {})
            .context("cargo-deb could not be built; a prebuilt one in PATH would be used")
    })?;
    Ok(entry.join("bin/cargo-deb"))
}
