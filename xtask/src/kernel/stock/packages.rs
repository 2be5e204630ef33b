// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which packages a kernel is in, and their files in one place.
//!
//! Debian has laid kernels out in two ways: up to 6.12 `linux-image-RELEASE` holds image and modules, later it is empty and
//! names `linux-binary-`, `linux-modules-` and `linux-base-RELEASE`. Images that are signed for secure boot are packages of
//! their own, which come some days later than those that are not, `-unsigned`.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Series, bzimage, tools::Tools};
use crate::cache::Key;
use crate::child;
use crate::setup::apt::Suite;
use crate::setup::kernel_source;
use crate::setup::packages::{self, Group};
use crate::workspace::Workspace;

/// What the guest's machine is, in Debian's words.
const ARCHITECTURE: &str = "amd64";
/// Below the source, and in the entry.
const SAMPLE: &str = "samples/vfio-mdev/mtty.c";

/// The entry with the newest kernel of a series.
pub(super) fn ensure(workspace: &Workspace, series: Series) -> Result<PathBuf> {
    let tools = match series.needs_newer_libc() {
        true => Some(Tools::ensure(workspace)?),
        false => None,
    };
    let name = format!("stock-{}", series.as_str());
    let key = Key::new().with("series", series.as_str()).with("layout", "1");
    let key = match &tools {
        Some(tools) => key.with("tools", tools.folder().to_string_lossy()),
        None => key,
    };
    workspace.cache.make(&name, &key, |dir| {
        packages::ensure(&[Group::Kernel])?;
        let scratch = dir.join("apt");
        let suite = Suite::open_all(&scratch, series.suites())?;
        let all: HashSet<String> = suite.packages("linux-")?.into_iter().collect();
        let image = newest(all.iter().map(String::as_str), series.as_str())
            .with_context(|| format!("the suites {:?} have none", series.suites()))?;
        let version = suite.version(&image.package, |_| true)?;
        for package in image.packages(&all, series)? {
            suite.unpack(&package, &version, dir)?;
        }
        arrange(dir, &image)?;
        if let Some(tools) = &tools {
            tools.adopt(&dir.join("usr/lib").join(image.kbuild(&all, series)?))?;
        }
        sample(workspace, &suite, series, &version, dir)?;
        fs::write(dir.join("release"), image.release())
            .and_then(|()| fs::write(dir.join("version"), &version))
            .and_then(|()| fs::remove_dir_all(&scratch))
            .context("failed to finish the entry")
    })
}

/// A kernel image among the packages.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Image {
    package: String,
    /// The release without the architecture: `6.12.117+deb12`.
    abi: String,
    signed: bool,
}

impl Image {
    fn release(&self) -> String {
        format!("{}-{ARCHITECTURE}", self.abi)
    }

    /// All that is needed to boot this kernel and to build a module for it.
    fn packages(&self, all: &HashSet<String>, series: Series) -> Result<Vec<String>> {
        let (release, abi) = (self.release(), &self.abi);
        let mut packages = if all.contains(&format!("linux-modules-{release}")) {
            let binary = ["linux-binary-", "linux-binary-unsigned-"];
            let mut binary = binary.iter().map(|prefix| format!("{prefix}{release}"));
            let binary = binary.find(|name| all.contains(name)).context("its image is missing")?;
            vec![format!("linux-base-{release}"), binary, format!("linux-modules-{release}")]
        } else {
            vec![self.package.clone()]
        };
        packages.extend([
            format!("linux-headers-{release}"),
            format!("linux-headers-{abi}-common"),
            self.kbuild(all, series)?,
        ]);
        Ok(packages)
    }

    /// The programs of kbuild; 6.1 has one package for the series.
    fn kbuild(&self, all: &HashSet<String>, series: Series) -> Result<String> {
        let names = [&self.abi, series.as_str()].map(|version| format!("linux-kbuild-{version}"));
        let found = names.into_iter().find(|name| all.contains(name));
        found.context("its package linux-kbuild is missing")
    }
}

/// The newest kernel of a series for ordinary machines: no realtime, no cloud, no debug symbols.
fn newest<'a>(packages: impl Iterator<Item = &'a str>, series: &str) -> Option<Image> {
    let image = |package: &str| {
        let name = package.strip_prefix("linux-image-")?;
        let (name, signed) = match name.strip_suffix("-unsigned") {
            Some(name) => (name, false),
            None => (name, true),
        };
        let abi = name.strip_suffix(ARCHITECTURE)?.strip_suffix('-')?;
        abi.strip_prefix(series)?.strip_prefix('.')?;
        // A flavour is a word; these words are none.
        let plain = abi.replace("deb", "").replace("bpo", "");
        plain.bytes().all(|byte| !byte.is_ascii_alphabetic()).then(|| Image {
            package: package.to_owned(),
            abi: abi.to_owned(),
            signed,
        })
    };
    packages.filter_map(image).max_by_key(|image| (numbers(&image.abi), image.signed))
}

/// The numbers in a release, to compare it by.
fn numbers(abi: &str) -> Vec<u64> {
    abi.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Puts image and modules where the entry's layout has them, wherever the packages do.
fn arrange(dir: &Path, image: &Image) -> Result<()> {
    let release = image.release();
    let found = |places: [String; 2]| {
        let mut places = places.into_iter().map(|place| dir.join(place));
        places.find(|path| path.exists()).context("the packages do not hold what they should")
    };
    let modules = dir.join("modules/lib/modules");
    fs::create_dir_all(&modules).context("failed to make a folder for the modules")?;
    let vmlinuz =
        found([format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")])?;
    fs::rename(vmlinuz, dir.join("vmlinuz")).context("failed to move the image")?;
    let from = found([format!("lib/modules/{release}"), format!("usr/lib/modules/{release}")])?;
    fs::rename(from, modules.join(&release)).context("failed to move the modules")?;

    // Newer headers bring the kernel's BTF, which a module's own BTF refers to; of older ones it is in the image only.
    let vmlinux = dir.join(format!("usr/src/linux-headers-{release}/vmlinux"));
    if !vmlinux.exists() {
        bzimage::unpack(&dir.join("vmlinuz"), &vmlinux)?;
    }
    Ok(())
}

/// The sample driver from the kernel's own source: one file of 1.5 GB, so the rest is not kept.
fn sample(
    workspace: &Workspace,
    suite: &Suite,
    series: Series,
    version: &str,
    dir: &Path,
) -> Result<()> {
    let target = dir.join("mtty.c");
    let ours = kernel_source::ensure(workspace)?;
    if kernel_source::version(&ours)? == version {
        fs::copy(ours.join(SAMPLE), target).context("failed to copy the sample driver")?;
        return Ok(());
    }
    let package = format!("linux-source-{}", series.as_str());
    let scratch = dir.join("source");
    suite.unpack(&package, version, &scratch)?;
    let output = File::create(&target).context("failed to make the sample driver's file")?;
    let mut tar = child::bound("tar");
    // --occurrence: nothing is read beyond the file.
    tar.args(["--extract", "--to-stdout", "--occurrence=1", "--file"])
        .arg(scratch.join(format!("usr/src/{package}.tar.xz")))
        .arg(format!("{package}/{SAMPLE}"));
    let status = tar.stdout(output).status().context("failed to start tar")?;
    anyhow::ensure!(status.success(), "{} failed: {status}", child::show(&tar));
    fs::remove_dir_all(&scratch).context("failed to remove the kernel's source")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> HashSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_newest_of_a_series_is_found_by_its_numbers() {
        let names = [
            "linux-image-6.1.0-9-amd64",
            "linux-image-6.1.0-56-amd64-unsigned",
            "linux-image-6.1.0-56-amd64",
            "linux-image-6.1.0-57-rt-amd64",
            "linux-image-6.1.0-58-amd64-dbg",
            "linux-image-6.12.90+deb12-amd64",
            "linux-image-6.12.90+deb12.1-amd64",
            "linux-image-6.12.99+deb12-cloud-amd64",
            "linux-image-7.3.4+deb13-amd64-unsigned",
            "linux-image-amd64",
        ];
        let newest = |series| newest(names.into_iter(), series).map(|image| image.package);
        assert_eq!(newest("6.1").as_deref(), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(newest("6.12").as_deref(), Some("linux-image-6.12.90+deb12.1-amd64"));
        assert_eq!(newest("7.3").as_deref(), Some("linux-image-7.3.4+deb13-amd64-unsigned"));
        assert_eq!(newest("7.2"), None);
    }

    #[test]
    fn both_layouts_of_packages_are_known() {
        let image = newest(["linux-image-6.1.0-56-amd64"].into_iter(), "6.1").unwrap();
        assert_eq!(image.release(), "6.1.0-56-amd64");
        let packages = image.packages(&set(&["linux-kbuild-6.1"]), Series::V6_1).unwrap();
        assert_eq!(
            packages,
            [
                "linux-image-6.1.0-56-amd64",
                "linux-headers-6.1.0-56-amd64",
                "linux-headers-6.1.0-56-common",
                "linux-kbuild-6.1",
            ]
        );
        let image = newest(["linux-image-7.3.4+deb13-amd64"].into_iter(), "7.3").unwrap();
        let all = set(&[
            "linux-modules-7.3.4+deb13-amd64",
            "linux-binary-unsigned-7.3.4+deb13-amd64",
            "linux-kbuild-7.3.4+deb13",
        ]);
        let packages = image.packages(&all, Series::V7_3).unwrap();
        assert_eq!(packages[1], "linux-binary-unsigned-7.3.4+deb13-amd64");
        assert_eq!(packages[5], "linux-kbuild-7.3.4+deb13");
        assert!(image.packages(&set(&[]), Series::V7_3).is_err());
    }
}
