// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host, as its files tell of it: the kernel and what it permits, the devices, the processes that use them.
//!
//! All of it is text under two directories, which are parameters: in a container they are mounted elsewhere.

pub mod device;
pub mod kernel;
pub mod process;
pub mod vfio;

use crate::device_key::DeviceKey;
use crate::{feed::Describe, metrics::Info};
use std::path::PathBuf;

/// Where the kernel's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
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

impl Describe for Paths {
    fn describe(&self, device: DeviceKey, tgid: Option<u32>) -> Option<Info> {
        let machine = tgid.and_then(|pid| process::machine(self, pid)).unwrap_or_default();
        Some(Info {
            driver: device::driver(self, device).unwrap_or_default(),
            iommu_group: device::iommu_group(self, device).unwrap_or_default(),
            vm: machine.name.unwrap_or_default(),
            vm_uuid: machine.uuid.unwrap_or_default(),
        })
    }

    fn is_present(&self, device: DeviceKey) -> bool {
        device::present(self, device)
    }
}
