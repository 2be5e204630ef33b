// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A Debian of its own for one test: unpacked, used and thrown away.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::Uid;

use crate::child;
use crate::setup::debian_root;
use crate::workspace::Workspace;

/// The unpacked folder; it goes with the value.
pub(super) struct CleanRoot {
    folder: tempfile::TempDir,
}

impl CleanRoot {
    pub(super) fn unpack(workspace: &Workspace) -> Result<Self> {
        ensure!(Uid::effective().is_root(), "a package is installed as root; run this as root");
        let archive = debian_root::ensure(workspace)?;
        let folder = tempfile::Builder::new()
            .prefix("migscope-root-")
            .tempdir()
            .context("failed to make a folder for a clean Debian")?;
        // Others may look into it, as into any root.
        let mut tar = Command::new("tar");
        tar.args(["--numeric-owner", "--extract", "--file"]).arg(archive);
        child::run(tar.arg("--directory").arg(folder.path()))?;
        Ok(Self { folder })
    }

    /// A path in it, as this machine sees it.
    pub(super) fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside.trim_start_matches('/'))
    }

    /// Copies a file into it.
    pub(super) fn put(&self, file: &Path, inside: &str) -> Result<()> {
        fs::copy(file, self.path(inside))
            .with_context(|| format!("failed to copy {} into a root", file.display()))?;
        Ok(())
    }

    /// Runs a command in it; returns what it prints.
    pub(super) fn run(&self, argv: &[&str]) -> Result<String> {
        child::capture(debian_root::enter(self.folder.path()).args(argv))
    }

    /// Runs a command that may fail; returns its exit code and what it prints.
    pub(super) fn ended(&self, argv: &[&str]) -> Result<(i32, String)> {
        let mut command = debian_root::enter(self.folder.path());
        let output = command
            .args(argv)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("failed to start {}", argv.join(" ")))?;
        let code = output.status.code().context("it was killed")?;
        let said = String::from_utf8(output.stdout).context("it printed what is not UTF-8")?;
        Ok((code, said.trim_end().to_owned()))
    }

    /// Every path in it, as it sees them.
    pub(super) fn paths(&self) -> Result<BTreeSet<PathBuf>> {
        let root = self.folder.path();
        let mut found = BTreeSet::new();
        let mut open = vec![root.to_owned()];
        while let Some(folder) = open.pop() {
            let entries = fs::read_dir(&folder)
                .with_context(|| format!("failed to list {}", folder.display()))?;
            for entry in entries {
                let entry = entry.context("failed to list a folder")?;
                let kind = entry.file_type().context("failed to look at a file")?;
                let path = entry.path();
                let inside = path.strip_prefix(root).context("a path is not in its root")?;
                found.insert(Path::new("/").join(inside));
                if kind.is_dir() {
                    open.push(path);
                }
            }
        }
        Ok(found)
    }
}
