// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask build-ebpf`: the probes, one BPF object.
//!
//! The agent embeds the object that `MIGSCOPE_EBPF_OBJECT` names when it is built (agent/build.rs).
//! The two builds are apart, unlike in aya's template, so that `cargo build`, clippy and an editor need
//! neither bpf-linker nor rust-src.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::arch::Arch;
use crate::child;
use crate::setup::bpf_linker;
use crate::setup::rust::Rust;
use crate::workspace::Workspace;

/// Little endian, as the guest and nearly every host.
const TARGET: &str = "bpfel-unknown-none";
pub(crate) const PACKAGE: &str = "migscope-ebpf";

/// Builds the object; returns its path.
pub(crate) fn build(workspace: &Workspace, arch: Arch, release: bool) -> Result<PathBuf> {
    cargo(workspace, arch, "build", release, &[])?;
    let profile = if release { "release" } else { "debug" };
    let object = target(workspace, arch)?.join(TARGET).join(profile).join(PACKAGE);
    anyhow::ensure!(object.is_file(), "cargo built no {}", object.display());
    Ok(object)
}

/// Runs a cargo subcommand on the probes, for the BPF target.
pub(crate) fn cargo(
    workspace: &Workspace,
    arch: Arch,
    subcommand: &str,
    release: bool,
    more: &[&str],
) -> Result<()> {
    let rust = Rust::find(workspace)?;
    let linker = bpf_linker::ensure(workspace, &rust)?;
    let folder = linker.parent().context("bpf-linker's path has no folder")?;
    let mut command = child::bound("cargo");
    command
        .arg(subcommand)
        .args(["--package", PACKAGE, "--target", TARGET])
        // No prebuilt core exists for BPF. Building one is unstable, and the pinned compiler is stable.
        .args(["-Z", "build-std=core"])
        .args(if release { ["--release"].as_slice() } else { &["--features", "log"] })
        .args(more)
        .current_dir(&workspace.root)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("PATH", rust.path(&[folder])?)
        // Not the workspace's own: with these flags nothing that is there could be used, and an editor's
        // cargo would hold its lock.
        .env("CARGO_TARGET_DIR", target(workspace, arch)?)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(arch))
        .env_remove("RUSTFLAGS");
    if !release {
        // What rustc makes of core without optimising, the verifier refuses: calls that do not return
        // ("last insn is not an exit or jmp"), panics behind every addition, stacks past 512 bytes.
        for (setting, value) in
            [("OPT_LEVEL", "2"), ("OVERFLOW_CHECKS", "false"), ("DEBUG_ASSERTIONS", "false")]
        {
            command.env(format!("CARGO_PROFILE_DEV_{setting}"), value);
        }
    }
    if !rust.in_sysroot {
        // Where cargo looks for the library, if it is not in the sysroot; cargo's own tests use it.
        command.env("__CARGO_TESTS_ONLY_SRC_ROOT", &rust.library);
    }
    child::run(&mut command).context("the probes do not build")
}

/// As aya-build 0.2 has them; aya-ebpf's registers depend on the architecture that is traced.
fn flags(arch: Arch) -> String {
    let flags = [
        &format!("--cfg=bpf_target_arch=\"{arch}\""),
        // BTF is made from it, and the loader reads the maps' types there.
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        "-Clink-arg=--disable-expand-memcpy-in-order",
    ];
    // Cargo splits this variable at the unit separator.
    flags.join("\x1f")
}

/// One for each machine: with other flags nothing that is there could be used.
fn target(workspace: &Workspace, arch: Arch) -> Result<PathBuf> {
    workspace.output(&format!("ebpf-{arch}"))
}

/// The subcommand.
pub(crate) fn run(workspace: &Workspace, arch: Arch, release: bool) -> Result<()> {
    println!("{}", build(workspace, arch, release)?.display());
    Ok(())
}
