// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMUs that migrate by the v2 protocol, for tests and benchmarks in the guest.
//!
//! Debian 12's own, 7.2, boots the guest and stays what it is: it is the last that speaks the migration region. The others are
//! unpacked in the cache, beside it:
//!
//! ```text
//!   10  bookworm-backports   asks for no library that 7.2's packages have not brought already
//!   11  trixie-backports     asks for Debian 13's C library and what is linked with that: they are unpacked with it, and the
//!                            program is told to look for them there (patchelf). It stays an ordinary program, whose command line
//!                            and file are its own, which a script in front of it would change.
//! ```

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::apt::{Name, Suite};
use super::packages::{self, Group};
use crate::cache::Key;
use crate::child;
use crate::workspace::Workspace;

/// Tells a program in the guest where QEMU is.
const VARIABLE: &str = "MIGSCOPE_QEMU10";

/// The program, its own firmware, and the PC's.
const PACKAGES: [&str; 3] = ["qemu-system-x86", "qemu-system-data", "seabios"];
const PROGRAM: &str = "qemu-system-x86_64";
/// What the program of trixie-backports is linked with, and what that is linked with.
const LIBRARIES: [&str; 45] = [
    "libaio1t64",
    "libatomic1",
    "libblkid1",
    "libbpf1",
    "libc6",
    "libcap2",
    "libcapstone5",
    "libdaxctl1",
    "libelf1t64",
    "libfdt1",
    "libffi8",
    "libfuse3-4",
    "libglib2.0-0t64",
    "libgmp10",
    "libgnutls30t64",
    "libhogweed6t64",
    "libibverbs1",
    "libidn2-0",
    "libjpeg62-turbo",
    "libkmod2",
    "libmount1",
    "libndctl6",
    "libnettle8t64",
    "libnl-3-200",
    "libnl-route-3-200",
    "libnuma1",
    "libp11-kit0",
    "libpcre2-8-0",
    "libpixman-1-0",
    "libpmem1",
    "libpng16-16t64",
    "librdmacm1t64",
    "libsasl2-2",
    "libseccomp2",
    "libselinux1",
    "libslirp0",
    "libssl3t64",
    "libtasn1-6",
    "libudev1",
    "libunistring5",
    "liburing2",
    "libuuid1",
    "libvdeplug2t64",
    "libzstd1",
    "zlib1g",
];
const LIBRARY_FOLDER: &str = "usr/lib/x86_64-linux-gnu";
const INTERPRETER: &str = "ld-linux-x86-64.so.2";

/// A major version that tests are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Ten,
    Eleven,
}

impl Version {
    /// What it is called by.
    pub(crate) fn number(self) -> &'static str {
        match self {
            Self::Ten => "10",
            Self::Eleven => "11",
        }
    }

    fn suites(self) -> &'static [Name] {
        match self {
            Self::Ten => &[Name::BookwormBackports],
            Self::Eleven => &[Name::Trixie, Name::TrixieBackports],
        }
    }

    fn libraries(self) -> &'static [&'static str] {
        match self {
            Self::Ten => &[],
            Self::Eleven => &LIBRARIES,
        }
    }

    /// `1:10.0.2+ds-2` is of version 10.
    fn has(self, version: &str) -> bool {
        let upstream = version.split_once(':').map_or(version, |(_epoch, upstream)| upstream);
        upstream.strip_prefix(self.number()).is_some_and(|rest| rest.starts_with('.'))
    }
}

/// The program: the one in PATH if it has the right version, else one in the cache.
pub(crate) fn ensure(workspace: &Workspace, version: Version) -> Result<PathBuf> {
    if let Some(found) = super::in_path(PROGRAM, version.number()) {
        return Ok(found);
    }
    let key = Key::new()
        .with("packages", PACKAGES.join(" "))
        .with("libraries", version.libraries().join(" "))
        .with("version", version.number());
    let program = Path::new("usr/bin").join(PROGRAM);
    // In place: the program holds the path of its interpreter.
    let entry = workspace.cache.make_in_place("qemu", &key, |dir| {
        packages::ensure(&[Group::Vm])?;
        unpack(version, dir)?;
        if !version.libraries().is_empty() {
            packages::ensure(&[Group::Patchelf])?;
            adopt(dir, &dir.join(&program))?;
        }
        child::capture(Command::new(dir.join(&program)).arg("--version")).map(drop).with_context(
            || format!("Debian's QEMU {} does not run on this machine", version.number()),
        )
    })?;
    Ok(entry.join(program))
}

fn unpack(version: Version, dir: &Path) -> Result<()> {
    let scratch = dir.join("apt");
    let suite = Suite::open_all(&scratch, version.suites())?;
    for package in PACKAGES {
        // The firmware has versions of its own.
        let fits = |found: &str| !package.starts_with("qemu") || version.has(found);
        suite.unpack(package, &suite.version(package, fits)?, dir)?;
    }
    for package in version.libraries() {
        suite.unpack(package, &suite.version(package, |_| true)?, dir)?;
    }
    fs::remove_dir_all(&scratch).context("failed to remove apt's scratch folder")
}

/// Has a program run with the libraries that were unpacked with it, and those with each other: DT_RPATH, unlike DT_RUNPATH, counts
/// for what a library needs as well.
fn adopt(dir: &Path, program: &Path) -> Result<()> {
    let libraries = dir.join(LIBRARY_FOLDER);
    let mut command = Command::new("patchelf");
    command.arg("--set-interpreter").arg(libraries.join(INTERPRETER));
    command.args(["--force-rpath", "--set-rpath"]).arg(&libraries).arg(program);
    child::run(&mut command)
}

/// What a program in the guest has to know of one.
pub(crate) fn environment(workspace: &Workspace, version: Version) -> Result<(OsString, OsString)> {
    Ok((VARIABLE.into(), ensure(workspace, version)?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_stands_behind_the_epoch() {
        assert!(Version::Ten.has("1:10.0.2+ds-2+deb13u1~bpo12+1"));
        assert!(Version::Eleven.has("1:11.1.3+ds-1~bpo13+1"));
        assert!(!Version::Ten.has("1:7.2+dfsg-7"));
        assert!(!Version::Ten.has("10:7.2"));
        assert!(!Version::Ten.has("1:100.0"));
    }
}
