// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Packages of a newer Debian suite, downloaded and unpacked but not installed.
//!
//! The kernel source and rust-src that fit each other are in trixie-backports, also for machines that
//! run Debian 12. An apt configuration of its own keeps the machine's own sources as they are: apt
//! would otherwise offer packages of that suite for everything. Which mirror to ask is the machine's
//! own business, so it is read from the sources that the machine has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::packages;
use crate::child;

/// The suite that has both packages.
const SUITE: &str = "trixie-backports";
/// From the package debian-archive-keyring; also on Ubuntu under this path.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A private apt state below `scratch`, with the suite's lists.
pub(crate) struct Suite {
    scratch: PathBuf,
}

impl Suite {
    pub(crate) fn open(scratch: &Path) -> Result<Self> {
        if !Path::new(KEYRING).is_file() {
            bail!("{KEYRING} is missing; get it with: apt-get install debian-archive-keyring");
        }
        let mirror = mirror()?;
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(scratch.join(folder)).context("failed to make apt's folders")?;
        }
        let line = format!("deb [signed-by={KEYRING}] {mirror} {SUITE} main\n");
        fs::write(scratch.join("sources.list"), line).context("failed to write apt's sources")?;
        let suite = Self { scratch: scratch.to_owned() };
        eprintln!("reading the package lists of Debian's {SUITE}");
        child::run(suite.command("apt-get").args(["-q", "update"]))?;
        Ok(suite)
    }

    /// The newest version of a package that `fits`.
    pub(crate) fn version(&self, package: &str, fits: impl Fn(&str) -> bool) -> Result<String> {
        let table = child::capture(self.command("apt-cache").args(["madison", package]))?;
        // `package | version | source`, newest first.
        table
            .lines()
            .filter_map(|line| line.split('|').nth(1))
            .map(str::trim)
            .find(|version| fits(version))
            .map(str::to_owned)
            .with_context(|| {
                format!("Debian's {SUITE} has no {package} that fits; it offers:\n{table}")
            })
    }

    /// Downloads one version of a package and unpacks its files below `into`.
    pub(crate) fn unpack(&self, package: &str, version: &str, into: &Path) -> Result<()> {
        eprintln!("downloading {package} {version} (unpacked in the cache, not installed)");
        let download = self.scratch.join("download");
        fs::create_dir_all(&download).context("failed to make a download folder")?;
        child::run(
            self.command("apt-get")
                .args(["-q", "download", &format!("{package}={version}")])
                .current_dir(&download),
        )?;
        for item in fs::read_dir(&download).context("failed to list the download")? {
            let path = item.context("failed to list the download")?.path();
            child::run(Command::new("dpkg").arg("-x").arg(&path).arg(into))?;
            fs::remove_file(&path).context("failed to remove an unpacked package")?;
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = child::bound(program);
        let option = |name: &str, path: &Path| format!("{name}={}", path.display());
        command
            .args(["-o", &option("Dir::Etc::sourcelist", &self.scratch.join("sources.list"))])
            .args(["-o", "Dir::Etc::sourceparts=/dev/null"])
            .args(["-o", &option("Dir::State::Lists", &self.scratch.join("lists"))])
            .args(["-o", &option("Dir::Cache", &self.scratch.join("cache"))])
            // Sandboxed downloads run as user _apt, who may not enter a cache below /root.
            .args(["-o", "APT::Sandbox::User=root"])
            // Hooks of the machine (containers clean apt's cache in one) are for its own apt.
            .args(["-o", "APT::Update::Post-Invoke=", "-o", "APT::Update::Post-Invoke-Success="]);
        command
    }
}

/// The Debian mirror that the machine's own sources name.
fn mirror() -> Result<String> {
    let targets = || {
        child::capture(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(LABEL) $(REPO_URI)",
            "Created-By: Packages",
        ]))
    };
    let mut text = targets()?;
    if text.is_empty() {
        // apt knows labels from downloaded lists only.
        packages::apt_get(&["update"])?;
        text = targets()?;
    }
    find_mirror(&text).context(
        "no apt source of this machine is a Debian mirror, which has the kernel source and rust-src; \
         add one (a line `deb URL stable main`), run `apt-get update` and try again",
    )
}

fn find_mirror(targets: &str) -> Option<String> {
    // The security archive is labelled Debian-Security and has no backports.
    targets.lines().find_map(|line| line.strip_prefix("Debian ")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_main_archive_of_debian() {
        let targets = "Debian-Security http://mirror.example/debian-security/\n\
                       Ubuntu http://mirror.example/ubuntu/\n\
                       Debian http://mirror.example/debian/\n";
        assert_eq!(find_mirror(targets).as_deref(), Some("http://mirror.example/debian/"));
        assert_eq!(find_mirror("Ubuntu http://mirror.example/ubuntu/\n"), None);
    }
}
