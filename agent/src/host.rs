// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host, as its files tell of it: the kernel and what it permits, the devices, the processes that use them.
//!
//! All of it is text under two directories, which are parameters: in a container they are mounted elsewhere.

pub mod device;
pub mod kernel;
pub mod process;

use std::path::PathBuf;

/// Where the kernel's files are.
#[derive(Clone, Debug)]
pub struct Paths {
    /// sysfs, normally `/sys`.
    pub sysfs: PathBuf,
    /// procfs, normally `/proc`.
    pub procfs: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { sysfs: "/sys".into(), procfs: "/proc".into() }
    }
}
