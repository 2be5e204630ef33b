// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask build-agent`: the agent as it is put on a host, with the probes in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::arch::Arch;
use crate::build_ebpf;
use crate::child;
use crate::programs;
use crate::setup::packages::{self, Group};
use crate::workspace::Workspace;

/// How much the compiler does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// For a look at it.
    Dev,
    /// For hosts.
    Release,
}

/// Builds the agent for a machine; returns its path.
pub(crate) fn build(workspace: &Workspace, arch: Arch, profile: Profile) -> Result<PathBuf> {
    let object = build_ebpf::build(workspace, arch, true)?;
    let mut command = child::bound("cargo");
    command
        .args(["build", "--package", "migscope", "--bin", "migscope"])
        .args((profile == Profile::Release).then_some("--release"))
        .current_dir(&workspace.root)
        .env(programs::OBJECT, object);
    let mut output = workspace.target.clone();
    if !arch.is_native() {
        arch.ensure_cross_tools(workspace)?;
        let triple = arch.triple();
        let underscored = triple.replace('-', "_");
        command
            .args(["--target", &triple])
            .env(format!("CC_{underscored}"), arch.c_compiler())
            .env(format!("CARGO_TARGET_{}_LINKER", underscored.to_uppercase()), arch.c_compiler());
        output.push(triple);
    }
    child::run(&mut command).with_context(|| format!("the agent does not build for {arch}"))?;
    let folder = match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
    };
    let agent = output.join(folder).join("migscope");
    anyhow::ensure!(agent.is_file(), "cargo built no {}", agent.display());
    Ok(agent)
}

/// Runs the agent of another machine under QEMU's emulation of its instructions, on this machine's kernel; returns what it prints.
pub(crate) fn emulated(agent: &Path, arch: Arch, arguments: &[&str]) -> Result<String> {
    packages::ensure(&[Group::Emulator])?;
    let mut command = Command::new(format!("qemu-{arch}"));
    // Where the cross compiler's package puts the C library of that machine.
    command.args(["-L", &format!("/usr/{arch}-linux-gnu")]).arg(agent).args(arguments);
    child::capture(&mut command)
}

/// The subcommand.
pub(crate) fn run(workspace: &Workspace, arch: Arch) -> Result<()> {
    println!("{}", build(workspace, arch, Profile::Release)?.display());
    Ok(())
}
