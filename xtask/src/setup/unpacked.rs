// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Debian packages that are unpacked in the cache, and not installed: installing would start a server on the machine.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
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
        unpack(program, &[package], &scratch, &scratch)?;
        fs::rename(scratch.join("usr/bin").join(program), dir.join(program))
            .with_context(|| format!("Debian's package {package} has no {program}"))?;
        fs::remove_dir_all(&scratch).context("failed to remove the download")
    })?;
    Ok(entry.join(program))
}

/// A folder with all the files of these packages. A link from one to another leads into the folder, and not to the machine's own files.
pub(super) fn tree(workspace: &Workspace, name: &str, packages: &[&str]) -> Result<PathBuf> {
    let key = Key::new().with("packages", packages.join(" "));
    workspace.cache.make(&format!("{name}-tree"), &key, |dir| {
        let scratch = dir.join("download");
        fs::create_dir(&scratch).context("failed to make a download folder")?;
        unpack(name, packages, &scratch, dir)?;
        fs::remove_dir_all(&scratch).context("failed to remove the download")?;
        keep_inside(dir, "").context("failed to set the packages' links right")
    })
}

/// Downloads packages for `what` to `scratch` and unpacks them below `into`.
fn unpack(what: &str, packages: &[&str], scratch: &Path, into: &Path) -> Result<()> {
    let download = || {
        // Sandboxed downloads run as user _apt, who may not enter a cache below /root.
        let arguments = ["-q", "-o", "APT::Sandbox::User=root", "download"];
        child::run(child::bound("apt-get").args(arguments).args(packages).current_dir(scratch))
    };
    eprintln!("downloading {what} (unpacked in the cache, not installed)");
    // The lists may be absent (a fresh container) or older than the mirror.
    download().or_else(|_| packages::apt_get(&["update"]).and_then(|()| download())).with_context(
        || format!("{what} is needed; install it by hand with: apt-get install {}", packages[0]),
    )?;
    for item in fs::read_dir(scratch).context("failed to list the download")? {
        let path = item.context("failed to list the download")?.path();
        child::run(Command::new("dpkg").arg("-x").arg(&path).arg(into))?;
    }
    Ok(())
}

/// Makes links to absolute paths relative ones, in a folder that lies `up` below what is to be their root.
fn keep_inside(folder: &Path, up: &str) -> std::io::Result<()> {
    for item in fs::read_dir(folder)? {
        let item = item?;
        let path = item.path();
        if item.file_type()?.is_dir() {
            keep_inside(&path, &format!("../{up}"))?;
        } else if item.file_type()?.is_symlink()
            && let Ok(target) = fs::read_link(&path)?.strip_prefix("/")
        {
            fs::remove_file(&path)?;
            symlink(Path::new(up).join(target), &path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("usr/share");
        fs::create_dir_all(&deep).unwrap();
        fs::write(root.path().join("usr/file"), "ours").unwrap();
        symlink("/usr/file", deep.join("absolute")).unwrap();
        symlink("../file", deep.join("relative")).unwrap();
        keep_inside(root.path(), "").unwrap();
        for link in ["absolute", "relative"] {
            assert_eq!(fs::read_to_string(deep.join(link)).unwrap(), "ours", "{link}");
        }
    }
}
