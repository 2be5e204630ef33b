// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The Rust compiler of this workspace and the source of its library.
//!
//! The kernel compiles `core` itself, and so does `-Z build-std` for BPF; both need rust-src of
//! exactly this compiler.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::apt::Suite;
use crate::cache::Key;
use crate::child;
use crate::workspace::Workspace;

/// The compiler and its library's source.
pub(crate) struct Rust {
    /// All that `rustc -vV` says.
    pub(crate) version: String,
    pub(crate) sysroot: PathBuf,
    /// The folder `library` of rust-src.
    pub(crate) library: PathBuf,
    /// Whether that folder is in the sysroot, where cargo finds it by itself.
    pub(crate) in_sysroot: bool,
}

impl Rust {
    pub(crate) fn find(workspace: &Workspace) -> Result<Self> {
        // In the checkout, where rustup answers with the pinned toolchain.
        let rustc = |arguments: &[&str]| {
            child::capture(Command::new("rustc").args(arguments).current_dir(&workspace.root))
        };
        let version = rustc(&["-vV"])?;
        let sysroot = PathBuf::from(rustc(&["--print", "sysroot"])?);
        let inside = sysroot.join("lib/rustlib/src/rust/library");
        if complete(&inside) {
            return Ok(Self { version, sysroot, library: inside, in_sysroot: true });
        }
        // In our own cache rather than by rustup: the user's toolchain is not ours to change, and a
        // machine without rustup's server can have a Debian mirror.
        match from_debian(workspace, &version, release(&version)?) {
            Ok(library) => Ok(Self { version, sysroot, library, in_sysroot: false }),
            Err(debian) => {
                eprintln!(
                    "adding rust-src to the toolchain with rustup; not from Debian: {debian:#}"
                );
                child::run(
                    Command::new("rustup")
                        .args(["component", "add", "rust-src"])
                        .current_dir(&workspace.root),
                )
                .context("rust-src, the source of Rust's library, is needed")?;
                anyhow::ensure!(
                    complete(&inside),
                    "rustup put no rust-src in {}",
                    inside.display()
                );
                Ok(Self { version, sysroot, library: inside, in_sysroot: true })
            }
        }
    }

    /// PATH with this toolchain first. rustup's own `rustc` is a proxy that chooses by the current
    /// folder, and in the kernel's folder it would choose another toolchain.
    pub(crate) fn path(&self, more: &[&Path]) -> Result<OsString> {
        let bin = self.sysroot.join("bin");
        let old = std::env::var_os("PATH").unwrap_or_default();
        // depmod lives in sbin, which a plain user's PATH may lack.
        let last = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let all = std::iter::once(bin)
            .chain(more.iter().map(|path| path.to_path_buf()))
            .chain(std::env::split_paths(&old))
            .chain(last);
        std::env::join_paths(all).context("a folder's name has a colon and cannot be in PATH")
    }
}

/// The folder `library` of Debian's package of this release.
fn from_debian(workspace: &Workspace, version: &str, release: &str) -> Result<PathBuf> {
    let key = Key::new().with("rustc", version);
    let entry = workspace.cache.make("rust-src", &key, |dir| {
        let scratch = dir.join("apt");
        let suite = Suite::open(&scratch)?;
        let prefix = format!("{release}+");
        let package = suite.version("rust-src", |it| it.starts_with(&prefix))?;
        suite.unpack("rust-src", &package, dir)?;
        anyhow::ensure!(
            complete(&unpacked(dir, release)),
            "rust-src {package} holds no library where it was"
        );
        std::fs::remove_dir_all(&scratch).context("failed to remove apt's scratch folder")
    })?;
    Ok(unpacked(&entry, release))
}

fn unpacked(entry: &Path, release: &str) -> PathBuf {
    entry.join(format!("usr/src/rustc-{release}/library"))
}

fn complete(library: &Path) -> bool {
    library.join("core/src/lib.rs").is_file()
}

/// `release: 1.95.0` of `rustc -vV`.
fn release(version: &str) -> Result<&str> {
    version
        .lines()
        .find_map(|line| line.strip_prefix("release: "))
        .with_context(|| format!("`rustc -vV` names no release:\n{version}"))
}
