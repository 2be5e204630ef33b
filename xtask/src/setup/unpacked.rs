// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A program of a Debian package that is unpacked in the cache, and not installed: installing would start a server on the machine.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::packages;
use crate::cache::Key;
use crate::child;
use crate::workspace::Workspace;

/// The program from the package's `/usr/bin`.
pub(super) fn ensure(workspace: &Workspace, package: &str, program: &str) -> Result<PathBuf> {
    let key = Key::new().with("package", package);
    let entry = workspace.cache.make(program, &key, |dir| {
        let scratch = dir.join("download");
        fs::create_dir(&scratch).context("failed to make a download folder")?;
        let download = || {
            // Sandboxed downloads run as user _apt, who may not enter a cache below /root.
            let arguments = ["-q", "-o", "APT::Sandbox::User=root", "download", package];
            child::run(child::bound("apt-get").args(arguments).current_dir(&scratch))
        };
        eprintln!("downloading {program} (unpacked in the cache, not installed)");
        // The lists may be absent (a fresh container) or older than the mirror.
        download()
            .or_else(|_| packages::apt_get(&["update"]).and_then(|()| download()))
            .with_context(|| {
                format!("{program} is needed; install it by hand with: apt-get install {package}")
            })?;
        for item in fs::read_dir(&scratch).context("failed to list the download")? {
            let path = item.context("failed to list the download")?.path();
            child::run(Command::new("dpkg").arg("-x").arg(&path).arg(&scratch))?;
        }
        fs::rename(scratch.join("usr/bin").join(program), dir.join(program))
            .with_context(|| format!("Debian's package {package} has no {program}"))?;
        fs::remove_dir_all(&scratch).context("failed to remove the download")
    })?;
    Ok(entry.join(program))
}
