// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the kernel's files are.

use crate::config;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Flags {
    /// Where sysfs is mounted. [default: /sys]
    #[arg(long = "path.sysfs", value_name = "PATH", global = true)]
    sysfs: Option<PathBuf>,
    /// Where procfs is mounted. [default: /proc]
    #[arg(long = "path.procfs", value_name = "PATH", global = true)]
    procfs: Option<PathBuf>,
}

impl From<Flags> for config::Path {
    fn from(Flags { sysfs, procfs }: Flags) -> Self {
        Self { sysfs, procfs }
    }
}
