// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Debian packages: what is missing is named, then installed with apt-get.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::unistd::Uid;

use crate::child;

/// What a group of packages is for. The LLVM packages follow [`super::LLVM`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Build a kernel, or a module for one.
    Kernel,
    /// Build bpf-linker.
    BpfLinker,
    /// Build bindgen, and run it: it loads libclang and reads clang's own headers.
    Bindgen,
    /// Boot the guest. busybox is the initramfs; it has to be static, there is nothing else in it.
    Vm,
    /// Run the kernel's checkpatch.pl.
    Lint,
    /// Hold the dashboards against Grafana's types.
    Node,
    /// Hold the probes against a script.
    Bpftrace,
    /// Build programs for another machine: a compiler, and the C library that they are linked with.
    CrossX86_64,
    CrossAarch64,
    /// Run them here.
    Emulator,
    /// Tell a program of a newer Debian where its libraries are.
    Patchelf,
    /// Make a Debian package: the libraries that it depends on.
    Package,
    /// Check a Debian package, and make a Debian to try it in.
    CleanRoot,
    /// Build a container's image, without a daemon.
    Container,
    /// Get packages of PyPI.
    Pip,
}

impl Group {
    #[cfg(test)]
    const ALL: [Self; 15] = [
        Self::Kernel,
        Self::BpfLinker,
        Self::Bindgen,
        Self::Vm,
        Self::Lint,
        Self::Node,
        Self::Bpftrace,
        Self::CrossX86_64,
        Self::CrossAarch64,
        Self::Emulator,
        Self::Patchelf,
        Self::Package,
        Self::CleanRoot,
        Self::Container,
        Self::Pip,
    ];

    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Kernel => &[
                "make",
                "gcc",
                "libc6-dev",
                "flex",
                "bison",
                "bc",
                "libelf-dev",
                "libssl-dev",
                // pahole, which makes BTF.
                "dwarves",
                "kmod",
                "xz-utils",
                "zstd",
                "perl",
                "python3",
                // For kernel.org's tarball, where Debian's package is not to be had.
                "curl",
                "ca-certificates",
            ],
            Self::BpfLinker => {
                &["llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev", "g++"]
            }
            Self::Bindgen => &["libclang-22-dev", "clang-22"],
            // tmux is the terminal in which `migscope top` is tested.
            Self::Vm => &["qemu-system-x86", "busybox-static", "kmod", "tmux"],
            Self::Lint => &["perl"],
            Self::Node => &["nodejs", "npm"],
            Self::Bpftrace => &["bpftrace"],
            Self::CrossX86_64 => &["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"],
            Self::CrossAarch64 => &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
            Self::Emulator => &["qemu-user"],
            Self::Patchelf => &["patchelf"],
            Self::Package => &["dpkg-dev"],
            Self::CleanRoot => &["lintian", "mmdebstrap"],
            Self::Container => &["buildah"],
            Self::Pip => &["python3", "python3-pip"],
        }
    }
}

/// Installs the packages of these groups that are missing.
pub(crate) fn ensure(groups: &[Group]) -> Result<()> {
    let mut wanted: Vec<&str> = groups.iter().flat_map(|group| group.packages()).copied().collect();
    wanted.sort_unstable();
    wanted.dedup();
    let missing = missing(&wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install -y --no-install-recommends {}", missing.join(" "));
    eprintln!("installing Debian packages that are missing: {}", missing.join(" "));
    // The lists may be absent (a fresh container) or older than the mirror.
    let done = apt_get(&["update"]).and_then(|()| {
        let mut arguments = vec!["install", "-y", "--no-install-recommends"];
        arguments.extend(&missing);
        apt_get(&arguments)
    });
    done.with_context(|| {
        format!(
            "these packages are needed and could not be installed; install them by hand and try \
             again (LLVM {} is in Debian 12's security suite and newer releases, elsewhere see \
             https://apt.llvm.org): {install}",
            super::LLVM
        )
    })
}

/// Which of these packages are not installed.
fn missing<'a>(wanted: &[&'a str]) -> Result<Vec<&'a str>> {
    // dpkg-query fails when it does not know one of the names, and still prints the others.
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status} ${Package}\n"])
        .args(wanted)
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => bail!(
            "this is no Debian or Ubuntu (dpkg-query: {error}); install what these Debian packages \
             hold by hand, then give xtask a dpkg-query that knows them: {}",
            wanted.join(" ")
        ),
    };
    let installed = String::from_utf8_lossy(&output.stdout);
    let installed: Vec<&str> =
        installed.lines().filter_map(|line| line.strip_prefix("installed ")).collect();
    Ok(wanted.iter().copied().filter(|name| !installed.contains(name)).collect())
}

/// Runs apt-get, through sudo where we are not root.
pub(crate) fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = if Uid::effective().is_root() {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("apt-get");
        sudo
    };
    child::run(command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_nobody_has_is_missing() {
        let absent = "migscope-no-such-package";
        assert_eq!(missing(&["dpkg", absent]).unwrap(), [absent]);
    }

    #[test]
    fn packages_of_llvm_are_of_the_one_version() {
        for package in Group::ALL.iter().flat_map(|group| group.packages()) {
            let digits: String = package.chars().filter(char::is_ascii_digit).collect();
            if package.contains("llvm") || package.contains("clang") || package.contains("polly") {
                assert_eq!(digits, super::super::LLVM, "{package}");
            }
        }
    }
}
