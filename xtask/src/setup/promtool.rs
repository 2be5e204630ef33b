// SPDX-License-Identifier: Apache-2.0 OR MIT
//! promtool, which checks and tests rules, and lints an exposition.
//!
//! It comes in Debian's package `prometheus`. That is unpacked, not installed: installing would start a
//! server on the machine.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::packages;
use crate::cache::Key;
use crate::child;
use crate::workspace::Workspace;

/// The package that has it.
const PACKAGE: &str = "prometheus";

/// The major version: the one of Debian 12, and of most Prometheus servers.
const VERSION: &str = "2";

/// The program: the one in PATH if it has the right version, else one in the cache.
pub(crate) fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(path) = super::in_path("promtool", VERSION) {
        return Ok(path);
    }
    let key = Key::new().with("package", PACKAGE);
    let entry = workspace.cache.make("promtool", &key, |dir| {
        let scratch = dir.join("download");
        fs::create_dir(&scratch).context("failed to make a download folder")?;
        let download = || {
            // Sandboxed downloads run as user _apt, who may not enter a cache below /root.
            let arguments = ["-q", "-o", "APT::Sandbox::User=root", "download", PACKAGE];
            child::run(child::bound("apt-get").args(arguments).current_dir(&scratch))
        };
        eprintln!("downloading promtool (unpacked in the cache, not installed)");
        // The lists may be absent (a fresh container) or older than the mirror.
        download()
            .or_else(|_| packages::apt_get(&["update"]).and_then(|()| download()))
            .context("promtool is needed; install it by hand with: apt-get install prometheus")?;
        for item in fs::read_dir(&scratch).context("failed to list the download")? {
            let path = item.context("failed to list the download")?.path();
            child::run(Command::new("dpkg").arg("-x").arg(&path).arg(&scratch))?;
        }
        fs::rename(scratch.join("usr/bin/promtool"), dir.join("promtool"))
            .with_context(|| format!("Debian's package {PACKAGE} has no promtool"))?;
        fs::remove_dir_all(&scratch).context("failed to remove the download")
    })?;
    Ok(entry.join("promtool"))
}
