// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A Debian that nobody has used yet, as an archive: what is unpacked from it is thrown away.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::apt::{self, Name};
use super::packages::{self, Group};
use crate::cache::Key;
use crate::child;
use crate::workspace::Workspace;

/// Beside the packages that every Debian has: what the agent is a service of.
const INCLUDED: &str = "systemd";

/// The archive. Its release is this machine's, since the agent needs a C library that is not older than the one that it was built with; of
/// machines with another distribution, the newest stable one.
pub(crate) fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    let release = release()?;
    let key = Key::new().with("release", release.as_str()).with("included", INCLUDED);
    let entry = workspace.cache.make("debian-root", &key, |dir| {
        packages::ensure(&[Group::CleanRoot])?;
        let mirror = apt::mirror(release.label())?;
        eprintln!("unpacking a clean Debian {} (a minute)", release.as_str());
        let mut command = child::bound("mmdebstrap");
        command.args(["--quiet", "--variant=minbase", &format!("--include={INCLUDED}")]);
        command.arg(release.as_str()).arg(dir.join("root.tar")).arg(mirror);
        child::run(&mut command).context("a clean Debian could not be had")
    })?;
    Ok(entry.join("root.tar"))
}

fn release() -> Result<Name> {
    let text = fs::read_to_string("/etc/os-release").context("failed to read /etc/os-release")?;
    Ok(release_of(&text))
}

fn release_of(text: &str) -> Name {
    let value = |key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.map(|value| value.trim_matches('"'))
    };
    match (value("ID"), value("VERSION_CODENAME")) {
        (Some("debian"), Some("bookworm")) => Name::Bookworm,
        _ => Name::Trixie,
    }
}

/// A command that runs in the folder that the archive was unpacked to, as the first process of a machine would: it sees no other
/// process, and its file systems go with it.
pub(crate) fn enter(root: &std::path::Path) -> Command {
    let mut command = child::bound("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(format!("--root={}", root.display()));
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_this_machines_where_that_is_debian() {
        assert_eq!(release_of("ID=debian\nVERSION_CODENAME=bookworm\n"), Name::Bookworm);
        assert_eq!(release_of("VERSION_CODENAME=\"trixie\"\nID=debian\n"), Name::Trixie);
        assert_eq!(release_of("ID=ubuntu\nVERSION_CODENAME=jammy\n"), Name::Trixie);
    }
}
