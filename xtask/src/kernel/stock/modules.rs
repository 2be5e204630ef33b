// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The modules of a stock kernel as the guest sees them: Debian's, the sample driver, a driver with a migration region, an index, and those
//! for the initramfs.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::super::bootable::module_name;
use super::{Series, note, tools::Tools};
use crate::build_driver;
use crate::cache::Key;
use crate::child;
use crate::setup::packages::{self, Group};
use crate::workspace::Workspace;

/// What the guest needs before it has a root (9p over virtio, below an overlay) and a way to speak to the host.
const EARLY: &[&str] = &["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"];

/// The driver with a migration region of its own, for tests (tests/vm/region).
const REGION: &str = "region_testdev";

/// The entry with the module tree and the early modules.
pub(super) fn ensure(
    workspace: &Workspace,
    series: Series,
    release: &str,
    kernel: &Path,
) -> Result<PathBuf> {
    packages::ensure(&[Group::Kernel])?;
    let pahole = match series.needs_newer_libc() {
        true => Tools::ensure(workspace)?.pahole(),
        false => PathBuf::from("pahole"),
    };
    let region = workspace.root.join(build_driver::REGION).join(format!("{REGION}.c"));
    let region_source = fs::read_to_string(&region)
        .with_context(|| format!("failed to read {}", region.display()))?;
    let tool = |program: &Path| child::capture(Command::new(program).arg("--version"));
    let key = Key::new()
        .with("kernel", kernel.to_string_lossy())
        .with("version", note(kernel, "version")?)
        .with("gcc", tool(Path::new("gcc"))?)
        .with("pahole", tool(&pahole)?)
        .with("region", region_source)
        .with("early", EARLY.join(" "));
    workspace.cache.make(&format!("stock-{}-modules", series.as_str()), &key, |dir| {
        let tree = dir.join("lib/modules").join(release);
        let extra = tree.join("extra");
        fs::create_dir_all(&extra).context("failed to make the module tree")?;
        let theirs = kernel.join("modules/lib/modules").join(release);
        for item in fs::read_dir(&theirs).context("failed to list the kernel's modules")? {
            let item = item.context("failed to list the kernel's modules")?.path();
            let name = item.file_name().context("an entry has no name")?;
            symlink(&item, tree.join(name)).context("failed to link the kernel's modules")?;
        }
        for (name, source) in [("mtty", &kernel.join("mtty.c")), (REGION, &region)] {
            let module = build(kernel, release, &pahole, dir, (name, source))?;
            fs::copy(&module, extra.join(format!("{name}.ko")))
                .with_context(|| format!("failed to add the module {name}"))?;
        }
        child::run(child::bound("/usr/sbin/depmod").arg("-b").arg(dir).arg(release))?;
        unpack_early(dir, release)
    })
}

/// Builds a module of one source file, by its name; returns its file.
fn build(
    kernel: &Path,
    release: &str,
    pahole: &Path,
    dir: &Path,
    (name, source): (&str, &Path),
) -> Result<PathBuf> {
    let build = dir.join(name);
    fs::create_dir(&build)
        .and_then(|()| fs::copy(source, build.join(format!("{name}.c"))).map(drop))
        .and_then(|()| fs::write(build.join("Kbuild"), format!("obj-m := {name}.o\n")))
        .with_context(|| format!("failed to lay the module {name} out"))?;
    let abi = release.rsplit_once('-').map_or(release, |(abi, _)| abi);
    let headers = |name: &str| kernel.join(format!("usr/src/linux-headers-{name}"));
    let tree = headers(release);
    let log = dir.join(format!("{name}.log"));
    let mut make = child::bound("make");
    // The Makefile of the headers themselves includes others by absolute paths, below /usr/src.
    make.arg("-C")
        .arg(headers(&format!("{abi}-common")))
        .arg(format!("O={}", tree.display()))
        .arg(format!("M={}", build.display()))
        // The headers name the compiler of their Debian. Modules of one kernel may be of several compilers, but then
        // options that an older one lacks have to go: gcc 12 has no -fmin-function-alignment.
        .args(["CC=gcc", "CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT="])
        .arg(format!("PAHOLE={}", pahole.display()))
        .arg("modules");
    if !tree.join("tools/bpf/resolve_btfids").exists() {
        // The headers of 6.1 lack it. It fills in the section .BTF_ids, which these modules do not have.
        make.arg("RESOLVE_BTFIDS=true");
    }
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CARGO_MAKEFLAGS"] {
        make.env_remove(name);
    }
    child::logged(&mut make, &log, |_| {})
        .with_context(|| format!("the end of {}:\n{}\n", log.display(), child::tail(&log)))?;
    let module = build.join(format!("{name}.ko"));
    let sections = child::capture(Command::new("readelf").args(["-S", "-W"]).arg(&module))?;
    // kbuild says no more than "Skipping BTF generation" where it cannot.
    ensure!(sections.contains(" .BTF "), "the module {name} has no BTF; see {}", log.display());
    Ok(module)
}

/// Puts the files of the early modules into `early/`, by the order of loading.
fn unpack_early(dir: &Path, release: &str) -> Result<()> {
    let mut modprobe = Command::new("/usr/sbin/modprobe");
    // Not this machine's configuration, which may say "install" for a module.
    modprobe.args(["-C", "/dev/null", "-S", release, "--show-depends", "-a"]);
    let steps = child::capture(modprobe.arg("-d").arg(dir).args(EARLY))?;
    let folder = dir.join("early");
    fs::create_dir(&folder).context("failed to make a folder")?;
    for (file, number) in in_order(&steps).into_iter().zip(10_u32..) {
        let name = module_name(Path::new(file)).with_context(|| format!("{file} is no module"))?;
        let to = folder.join(format!("{number}-{name}.ko"));
        if file.ends_with(".xz") {
            let output = File::create(&to).context("failed to make a module's file")?;
            let mut xz = child::bound("xz");
            let status = xz.args(["--decompress", "--stdout", file]).stdout(output).status();
            let status = status.context("failed to start xz")?;
            ensure!(status.success(), "{} failed: {status}", child::show(&xz));
        } else {
            fs::copy(file, &to).with_context(|| format!("failed to copy {file}"))?;
        }
    }
    Ok(())
}

/// The files in what `modprobe --show-depends` says, each once.
fn in_order(steps: &str) -> Vec<&str> {
    let mut files = Vec::new();
    // `insmod FILE [OPTIONS]`, or `builtin NAME`.
    for step in steps.lines().filter_map(|line| line.strip_prefix("insmod ")) {
        let file = step.split(' ').next().unwrap_or(step);
        if !files.contains(&file) {
            files.push(file);
        }
    }
    files
}

/// The files of the early modules of an entry, in the order of loading.
pub(super) fn early(entry: &Path) -> Result<Vec<PathBuf>> {
    let listing = fs::read_dir(entry.join("early")).context("failed to list the early modules")?;
    let mut files = listing
        .map(|item| Ok(item.context("failed to list the early modules")?.path()))
        .collect::<Result<Vec<PathBuf>>>()?;
    files.sort_unstable();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_module_is_loaded_once_and_after_what_it_needs() {
        let steps = "builtin virtio_pci\ninsmod /m/a.ko.xz \ninsmod /m/b.ko\n\
                     insmod /m/a.ko.xz \ninsmod /m/c.ko x=1\n";
        assert_eq!(in_order(steps), ["/m/a.ko.xz", "/m/b.ko", "/m/c.ko"]);
        assert!(in_order("builtin a\n").is_empty());
    }
}
