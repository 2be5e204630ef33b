// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The machines that the agent is built for.
//!
//! A probe reads the arguments of the function that it is attached to out of registers, and which register holds which argument is the
//! machine's own. So an agent for another machine needs probes of its own, too (`aya-ebpf`'s cfg `bpf_target_arch`).

use std::env::consts;
use std::fmt;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::child;
use crate::setup::packages::{self, Group};
use crate::workspace::Workspace;

/// A machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    #[value(name = "x86_64")]
    X86_64,
    #[value(name = "aarch64")]
    Aarch64,
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Arch {
    /// As rustc, `uname -m` and aya-ebpf have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// As Debian has it.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Rust's name for Linux on it.
    pub(crate) fn triple(self) -> String {
        format!("{}-unknown-linux-gnu", self.name())
    }

    /// That of the machine that this runs on; on any other but these two, x86-64 is built for.
    pub(crate) fn native() -> Self {
        if Self::Aarch64.is_native() { Self::Aarch64 } else { Self::X86_64 }
    }

    /// Whether it is that of the machine that this runs on.
    pub(crate) fn is_native(self) -> bool {
        self.name() == consts::ARCH
    }

    /// What a program for it is compiled and linked with.
    pub(crate) fn c_compiler(self) -> String {
        format!("{}-linux-gnu-gcc", self.name())
    }

    /// Gets what builds programs for it on a machine of another kind: a C compiler and Rust's library.
    pub(crate) fn ensure_cross_tools(self, workspace: &Workspace) -> Result<()> {
        packages::ensure(&[match self {
            Self::X86_64 => Group::CrossX86_64,
            Self::Aarch64 => Group::CrossAarch64,
        }])?;
        // In the checkout, where rustup answers for the pinned toolchain. It does nothing where the library is there.
        let mut rustup = Command::new("rustup");
        rustup.args(["target", "add", &self.triple()]).current_dir(&workspace.root);
        child::run(&mut rustup).with_context(|| format!("Rust's library for {self} is needed"))
    }
}
