// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A QEMU that migrates by the v2 protocol, for tests and benchmarks in the guest.
//!
//! Debian 12's own, 7.2, boots the guest and stays what it is: it is the last that speaks the migration region. The one of
//! bookworm-backports asks for no library that 7.2's packages have not brought already, and is unpacked beside it.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::apt::{Name, Suite};
use super::packages::{self, Group};
use crate::cache::Key;
use crate::child;
use crate::workspace::Workspace;

/// Tells a program in the guest where QEMU is.
const VARIABLE: &str = "MIGSCOPE_QEMU10";

/// The major version that tests are written for.
const VERSION: &str = "10";
/// The program, its own firmware, and the PC's.
const PACKAGES: [&str; 3] = ["qemu-system-x86", "qemu-system-data", "seabios"];
const PROGRAM: &str = "qemu-system-x86_64";

/// The program: the one in PATH if it has the right version, else one in the cache.
pub(crate) fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(found) = super::in_path(PROGRAM, VERSION) {
        return Ok(found);
    }
    let key = Key::new().with("packages", PACKAGES.join(" ")).with("version", VERSION);
    let entry = workspace.cache.make("qemu", &key, |dir| {
        packages::ensure(&[Group::Vm])?;
        let scratch = dir.join("apt");
        let suite = Suite::open_all(&scratch, &[Name::BookwormBackports])?;
        for package in PACKAGES {
            // The firmware has versions of its own.
            let fits = |version: &str| !package.starts_with("qemu") || is_wanted(version);
            suite.unpack(package, &suite.version(package, fits)?, dir)?;
        }
        fs::remove_dir_all(&scratch).context("failed to remove apt's scratch folder")?;
        let mut program = Command::new(dir.join("usr/bin").join(PROGRAM));
        child::capture(program.arg("--version"))
            .map(drop)
            .context("the QEMU of bookworm-backports does not run on this machine")
    })?;
    Ok(entry.join("usr/bin").join(PROGRAM))
}

/// What a program in the guest has to know of it.
pub(crate) fn environment(workspace: &Workspace) -> Result<(OsString, OsString)> {
    Ok((VARIABLE.into(), ensure(workspace)?.into()))
}

/// `1:10.0.2+ds-2` is of version 10.
fn is_wanted(version: &str) -> bool {
    let upstream = version.split_once(':').map_or(version, |(_epoch, upstream)| upstream);
    upstream.strip_prefix(VERSION).is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_stands_behind_the_epoch() {
        assert!(is_wanted("1:10.0.2+ds-2+deb13u1~bpo12+1"));
        assert!(!is_wanted("1:7.2+dfsg-7"));
        assert!(!is_wanted("10:7.2"));
        assert!(!is_wanted("1:100.0"));
    }
}
