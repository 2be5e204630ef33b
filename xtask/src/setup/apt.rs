// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Packages of other Debian suites, downloaded and unpacked but not installed.
//!
//! The kernel source and rust-src that fit each other are in trixie-backports, also for machines that
//! run Debian 12; stock kernels are in several suites. An apt configuration of its own keeps the machine's
//! own sources as they are: apt would otherwise offer packages of those suites for everything. Which mirror
//! to ask is the machine's own business, so it is read from the sources that the machine has. apt verifies
//! each list by the archive's signature and each package by the list's digest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::packages;
use crate::child;

/// From the package debian-archive-keyring; also on Ubuntu under this path.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Bookworm,
    BookwormSecurity,
    BookwormBackports,
    Trixie,
    TrixieBackports,
}

impl Name {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::BookwormSecurity => "bookworm-security",
            Self::BookwormBackports => "bookworm-backports",
            Self::Trixie => "trixie",
            Self::TrixieBackports => "trixie-backports",
        }
    }

    /// The archive that has the suite, as its Release file labels itself.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::BookwormSecurity => "Debian-Security",
            Self::Bookworm | Self::BookwormBackports | Self::Trixie | Self::TrixieBackports => {
                "Debian"
            }
        }
    }
}

/// A private apt state below `scratch`, with the lists of one or more suites.
pub(crate) struct Suite {
    scratch: PathBuf,
    names: String,
}

impl Suite {
    /// The suite that has the kernel source and rust-src.
    pub(crate) fn open(scratch: &Path) -> Result<Self> {
        Self::open_all(scratch, &[Name::TrixieBackports])
    }

    /// Several suites, seen as one.
    pub(crate) fn open_all(scratch: &Path, suites: &[Name]) -> Result<Self> {
        if !Path::new(KEYRING).is_file() {
            bail!("{KEYRING} is missing; get it with: apt-get install debian-archive-keyring");
        }
        let mut lines = String::new();
        for suite in suites {
            let mirror = mirror(suite.label())?;
            lines += &format!("deb [signed-by={KEYRING}] {mirror} {} main\n", suite.as_str());
        }
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(scratch.join(folder)).context("failed to make apt's folders")?;
        }
        fs::write(scratch.join("sources.list"), lines).context("failed to write apt's sources")?;
        let names = suites.iter().map(|suite| suite.as_str()).collect::<Vec<_>>().join(", ");
        let suite = Self { scratch: scratch.to_owned(), names };
        eprintln!("reading the package lists of Debian's {}", suite.names);
        child::run(suite.command("apt-get").args(["-q", "update"]))?;
        Ok(suite)
    }

    /// The names of all packages that start so.
    pub(crate) fn packages(&self, prefix: &str) -> Result<Vec<String>> {
        let names = child::capture(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
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
                let names = &self.names;
                format!("Debian's {names} has no {package} that fits; it offers:\n{table}")
            })
    }

    /// Downloads one version of a package and unpacks its files below `into`.
    pub(crate) fn unpack(&self, package: &str, version: &str, into: &Path) -> Result<()> {
        let archive = self.download(package, version)?;
        child::run(Command::new("dpkg").arg("-x").arg(&archive).arg(into))?;
        fs::remove_file(&archive).context("failed to remove an unpacked package")
    }

    /// Downloads one version of a package; returns where it is, below the scratch folder.
    pub(crate) fn download(&self, package: &str, version: &str) -> Result<PathBuf> {
        eprintln!("downloading {package} {version} (unpacked in the cache, not installed)");
        let download = self.scratch.join("download");
        fs::create_dir_all(&download).context("failed to make a download folder")?;
        child::run(
            self.command("apt-get")
                .args(["-q", "download", &format!("{package}={version}")])
                .current_dir(&download),
        )?;
        let mut listing = fs::read_dir(&download).context("failed to list the download")?;
        let item = listing.next().with_context(|| format!("apt-get left no file of {package}"))?;
        let path = item.context("failed to list the download")?.path();
        let kept = self.scratch.join(path.file_name().context("a download without a name")?);
        fs::rename(&path, &kept).context("failed to move a download")?;
        Ok(kept)
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

/// The mirror of one of Debian's archives that the machine's own sources name.
pub(super) fn mirror(label: &str) -> Result<String> {
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
    find_mirror(&text, label).with_context(|| {
        format!(
            "no apt source of this machine is a mirror of the archive {label}, which has kernels, their \
             source or rust-src; add one (a line `deb URL SUITE main`), run `apt-get update` and try again"
        )
    })
}

fn find_mirror(targets: &str, label: &str) -> Option<String> {
    // The security archive is labelled Debian-Security and has no backports.
    let of_label = |line: &str| line.strip_prefix(label)?.strip_prefix(' ').map(str::to_owned);
    targets.lines().find_map(of_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_of_the_archive_that_was_asked_for() {
        let targets = "Debian-Security http://mirror.example/debian-security/\n\
                       Ubuntu http://mirror.example/ubuntu/\n\
                       Debian http://mirror.example/debian/\n";
        let find = |label| find_mirror(targets, label);
        assert_eq!(find("Debian").as_deref(), Some("http://mirror.example/debian/"));
        let security = Some("http://mirror.example/debian-security/");
        assert_eq!(find("Debian-Security").as_deref(), security);
        assert_eq!(find_mirror("Ubuntu http://mirror.example/ubuntu/\n", "Debian"), None);
    }
}
