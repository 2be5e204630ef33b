// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Kernels as Debian ships them, unmodified, with their own modules.
//!
//! ```text
//! stock-6.12-DIGEST/           what the packages hold (packages.rs)
//!   vmlinuz, release, version
//!   modules/lib/modules/RELEASE/
//!   usr/src/linux-headers-*, usr/lib/linux-kbuild-*
//!   mtty.c                     the sample driver, of the same version's source
//! stock-6.12-modules-DIGEST/   what is made of it (modules.rs)
//!   lib/modules/RELEASE/       the same modules by a link, mtty.ko beside them, and depmod's index
//!   early/                     what the initramfs loads, not compressed
//! ```
//!
//! The sample driver is the one thing that is added: Debian ships no samples, and mtty is the only driver for which a
//! machine without special hardware has a device that migrates.

mod bzimage;
mod modules;
mod packages;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Bootable;
use crate::setup::apt;
use crate::workspace::Workspace;

/// A series of stable releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Series {
    /// Debian 12's own: migration is region based or v2, mdev, no cdev, no migration of mtty.
    V6_1,
    /// Debian 12's newer one, and Debian 13's.
    V6_12,
    V7_2,
    /// The series of our own kernel.
    V7_3,
}

impl Series {
    pub(crate) const ALL: [Self; 4] = [Self::V6_1, Self::V6_12, Self::V7_2, Self::V7_3];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7_2 => "7.2",
            Self::V7_3 => "7.3",
        }
    }

    /// Where the newest of the series is.
    fn suites(self) -> &'static [apt::Name] {
        match self {
            Self::V6_1 => &[apt::Name::Bookworm, apt::Name::BookwormSecurity],
            Self::V6_12 => &[apt::Name::BookwormSecurity],
            Self::V7_2 | Self::V7_3 => &[apt::Name::TrixieBackports],
        }
    }

    /// Whether the programs of its packages were built for a Debian with a newer C library than Debian 12's.
    fn needs_newer_libc(self) -> bool {
        self.suites().contains(&apt::Name::TrixieBackports)
    }
}

/// A kernel of Debian.
pub(crate) struct Stock {
    /// What `uname -r` says in the guest.
    release: String,
    packages: PathBuf,
    modules: PathBuf,
    early: Vec<PathBuf>,
}

impl Stock {
    /// The kernel from the cache, downloaded if it is not there.
    ///
    /// An entry stays as it is when Debian publishes a newer one of the series, as the kernel's source does: nobody waits
    /// because of the date. Without the entry's folder the newest is fetched.
    pub(crate) fn ensure(workspace: &Workspace, series: Series) -> Result<Self> {
        let packages = packages::ensure(workspace, series)
            .with_context(|| format!("Debian's kernel {} is not to be had", series.as_str()))?;
        let release = note(&packages, "release")?;
        let entry = modules::ensure(workspace, series, &release, &packages)
            .with_context(|| format!("the modules of Debian's kernel {release}"))?;
        let early = modules::early(&entry)?;
        let modules = entry.join("lib/modules").join(&release);
        Ok(Self { release, packages, modules, early })
    }
}

impl Bootable for Stock {
    fn image(&self) -> PathBuf {
        self.packages.join("vmlinuz")
    }

    fn release(&self) -> &str {
        &self.release
    }

    fn modules(&self) -> PathBuf {
        self.modules.clone()
    }

    fn early(&self) -> &[PathBuf] {
        &self.early
    }

    /// Debian builds no iommufd, and so no character device of a VFIO device: groups and containers are all there is.
    fn vfio_modules(&self) -> &'static [&'static str] {
        &["vfio_iommu_type1", "vfio-pci"]
    }

    fn watches_itself(&self) -> bool {
        false
    }

    fn driver_tree(&self) -> Option<PathBuf> {
        None
    }
}

/// One of the small files that tell of an entry.
fn note(entry: &Path, name: &str) -> Result<String> {
    let path = entry.join(name);
    let text = fs::read_to_string(&path);
    Ok(text.with_context(|| format!("failed to read {}", path.display()))?.trim().to_owned())
}
