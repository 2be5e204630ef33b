// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Programs of a newer Debian, run on this machine with that Debian's own libraries.
//!
//! The programs of kbuild in trixie-backports ask for a C library that Debian 12 does not have, and those kernels' BTF is
//! written by a pahole that it does not have either. A program's interpreter is just a program: it is called by a script in the
//! program's place, with the libraries from the cache.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::cache::Key;
use crate::setup::apt::{Name, Suite};
use crate::workspace::Workspace;

/// The programs of linux-kbuild and pahole need these.
const PACKAGES: &[&str] = &[
    "libc6",
    "libelf1t64",
    "zlib1g",
    "libzstd1",
    "pahole",
    "libbpf1",
    "libdw1t64",
    "libbz2-1.0",
    "liblzma5",
];
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const PAHOLE: &str = "usr/bin/pahole";
const INTERPRETER: &str = "ld-linux-x86-64.so.2";
/// What a program is called after a script took its name.
const ASIDE: &str = ".elf";

/// Debian 13's libraries, and its pahole.
pub(super) struct Tools(PathBuf);

impl Tools {
    pub(super) fn ensure(workspace: &Workspace) -> Result<Self> {
        let key = Key::new().with("packages", PACKAGES.join(" "));
        let entry = workspace.cache.make("trixie-tools", &key, |dir| {
            let scratch = dir.join("apt");
            let suite = Suite::open_all(&scratch, &[Name::Trixie])?;
            for package in PACKAGES {
                suite.unpack(package, &suite.version(package, |_| true)?, dir)?;
            }
            // From beside itself: the entry is not yet where it will be.
            replace(&dir.join(PAHOLE), &format!("${{0%/*}}/../../{LIBRARIES}"))?;
            fs::remove_dir_all(&scratch).context("failed to remove apt's scratch folder")
        })?;
        Ok(Self(entry))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    pub(super) fn pahole(&self) -> PathBuf {
        self.0.join(PAHOLE)
    }

    /// Has all programs below a folder run with these libraries.
    pub(super) fn adopt(&self, folder: &Path) -> Result<()> {
        let listing =
            fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))?;
        for item in listing {
            let item = item.context("failed to list a folder of programs")?;
            let kind = item.file_type().context("failed to look at a program")?;
            if kind.is_dir() {
                self.adopt(&item.path())?;
            } else if kind.is_file() && is_program(&item.path())? {
                replace(&item.path(), &self.0.join(LIBRARIES).to_string_lossy())?;
            }
        }
        Ok(())
    }
}

/// Puts a script in a program's place that runs it with the libraries of a folder, as the shell finds that.
fn replace(program: &Path, libraries: &str) -> Result<()> {
    let mut aside = program.as_os_str().to_owned();
    aside.push(ASIDE);
    // modpost and objtool look for others of their name beside themselves, by their first argument.
    let script = format!(
        "#!/bin/sh\nlibraries=\"{libraries}\"\n\
         exec \"$libraries/{INTERPRETER}\" --library-path \"$libraries\" --argv0 \"$0\" \"$0{ASIDE}\" \"$@\"\n"
    );
    fs::rename(program, &aside)
        .and_then(|()| fs::write(program, script))
        .and_then(|()| fs::set_permissions(program, Permissions::from_mode(0o755)))
        .with_context(|| format!("failed to replace {}", program.display()))
}

/// Whether a file is a program that no script stands for yet.
fn is_program(path: &Path) -> Result<bool> {
    if path.to_string_lossy().ends_with(ASIDE) {
        return Ok(false);
    }
    let bytes = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(bytes.starts_with(b"\x7fELF"))
}
