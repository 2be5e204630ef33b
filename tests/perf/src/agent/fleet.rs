// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A host with many devices, as far as the agent can tell.
//!
//! ```text
//!   sysfs (a folder) ──▶ agent ◀── ring, maps ◀── probes ◀── BPF_PROG_TEST_RUN ◀── records
//! ```
//!
//! Real are the agent (the released binary, its probes in the kernel, their maps and ring) and everything that it does. Not real are
//! the devices: a folder stands for sysfs, and their records come from [`super::probes::Player`] and not from the driver. Each device
//! has migrated once before anything is measured, so that it has all the series that a device can have after one that went well.
//!
//! The maps of the probes and the families of the agent have room for 1,024 devices (`migscope::metrics::DEVICES`), so that nothing may be
//! lost.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use migscope_abi::device::DeviceKey;

use super::probes::Player;
use super::records;

/// How long the agent is given to read the ring, after as many records as it holds a multiple of.
pub(super) const RING_PAUSE: Duration = Duration::from_millis(5);

/// Where the folder is: in the guest's memory.
const SYSFS: &str = "/run/migscope-bench/sysfs";

/// The devices, and the folder that stands for sysfs.
pub(super) struct Fleet {
    pub(super) devices: Vec<DeviceKey>,
    sysfs: PathBuf,
}

impl Fleet {
    /// A host with `count` devices.
    pub(super) fn new(count: u32) -> Result<Self> {
        let sysfs = PathBuf::from(SYSFS);
        if sysfs.exists() {
            fs::remove_dir_all(&sysfs).context("failed to remove an older sysfs")?;
        }
        let bus = sysfs.join("bus/pci/devices");
        fs::create_dir_all(&bus).context("failed to make a sysfs")?;
        let devices: Vec<_> = (0..count).map(address).collect();
        for (group, device) in devices.iter().enumerate() {
            let folder = bus.join(device.to_string());
            fs::create_dir(&folder).context("failed to make a device")?;
            symlink("../../../../bus/pci/drivers/vfio_mediate", folder.join("driver"))?;
            symlink(
                format!("../../../../kernel/iommu_groups/{group}"),
                folder.join("iommu_group"),
            )?;
        }
        Ok(Self { devices, sysfs })
    }

    /// What the agent is to take for sysfs.
    pub(super) fn sysfs(&self) -> &Path {
        &self.sysfs
    }

    /// Opens all devices, and lets each migrate once.
    pub(super) fn settle(&self, player: &Player) -> Result<()> {
        for device in &self.devices {
            player.play(&records::open(*device))?;
            player.play(&records::migration(*device))?;
            sleep(RING_PAUSE);
        }
        Ok(())
    }
}

/// The address of a device: 32 slots of 8 functions a bus, as with virtual functions.
fn address(number: u32) -> DeviceKey {
    let [function, bus, ..] = number.to_le_bytes();
    DeviceKey::pci(1, bus, function)
}

/// Makes sure that nothing was lost, and that no rule was found broken.
pub(super) fn check(exposition: &str) -> Result<()> {
    for line in exposition.lines().filter(|line| !line.starts_with('#')) {
        let value = line.rsplit(' ').next().unwrap_or_default();
        let lost = line.starts_with("migscope_events_lost_total") && value != "0";
        ensure!(!lost, "records were lost: {line}");
        let broken = line.starts_with("vfio_migration_protocol_violations_total");
        ensure!(!broken || line.contains("field_width"), "a rule was broken: {line}");
    }
    Ok(())
}
