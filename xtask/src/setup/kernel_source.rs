// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The source of the guest's kernel.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::apt::Suite;
use super::packages::{self, Group};
use crate::cache::Key;
use crate::child;
use crate::workspace::Workspace;

/// Debian's package of the release whose Rust interfaces `driver/` is written against; also the tree's
/// name in its entry, wherever it comes from.
const PACKAGE: &str = "linux-source-7.3";
/// Where no Debian mirror is: its point release from kernel.org.
const TARBALL: &str = "https://cdn.kernel.org/pub/linux/kernel/v7.x/linux-7.3.4.tar.xz";

/// The unpacked source tree. An entry stays as it is when Debian publishes a newer point release, so
/// that nobody waits for a kernel because of the date; the exact version goes into the kernel's key.
pub(crate) fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    let key = Key::new().with("package", PACKAGE);
    let entry = workspace.cache.make("linux-source", &key, |dir| {
        packages::ensure(&[Group::Kernel])?;
        let scratch = dir.join("download");
        let (archive, version) = match from_debian(&scratch) {
            Ok(found) => found,
            Err(debian) => {
                eprintln!("downloading {TARBALL}; not from Debian: {debian:#}");
                from_kernel_org(&scratch)
                    .context("the kernel's source is needed, from Debian or kernel.org")?
            }
        };
        eprintln!("unpacking the kernel source (1.5 GB)");
        let tree = dir.join(PACKAGE);
        fs::create_dir(&tree).context("failed to make the source tree's folder")?;
        child::run(
            child::bound("tar")
                .arg("-xf")
                .arg(&archive)
                .arg("-C")
                .arg(&tree)
                .arg("--strip-components=1"),
        )?;
        fs::remove_dir_all(&scratch).context("failed to remove the download")?;
        fs::write(dir.join("version"), version).context("failed to note the version")
    })?;
    Ok(entry.join(PACKAGE))
}

/// Debian's linux-source and its version.
fn from_debian(scratch: &Path) -> Result<(PathBuf, String)> {
    let suite = Suite::open(scratch)?;
    let version = suite.version(PACKAGE, |_| true)?;
    suite.unpack(PACKAGE, &version, scratch)?;
    Ok((scratch.join(format!("usr/src/{PACKAGE}.tar.xz")), version))
}

fn from_kernel_org(scratch: &Path) -> Result<(PathBuf, String)> {
    fs::create_dir_all(scratch).context("failed to make a download folder")?;
    let archive = scratch.join("linux.tar.xz");
    child::run(
        child::bound("curl")
            .args(["--fail", "--location", "--proto", "=https", TARBALL, "--output"])
            .arg(&archive),
    )?;
    Ok((archive, TARBALL.to_owned()))
}

/// The exact package version of a tree that [`ensure`] returned.
pub(crate) fn version(source: &Path) -> Result<String> {
    let note = source.with_file_name("version");
    fs::read_to_string(&note).with_context(|| format!("failed to read {}", note.display()))
}
