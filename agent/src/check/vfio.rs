// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What VFIO there is to watch.

use super::finding::Finding;
use crate::{
    host::{
        Paths,
        vfio::{self, BoundDevice},
    },
    probes::attach::Missing,
};

/// Devices that are named; a host can have hundreds.
const NAMED: usize = 8;

/// Everything about VFIO.
pub(super) fn findings(paths: &Paths) -> Vec<Finding> {
    vec![core(paths), modules(paths), iommu(paths), devices(paths)]
}

fn core(paths: &Paths) -> Finding {
    if vfio::is_there(paths) {
        return Finding::present("vfio", "/dev/vfio/vfio");
    }
    Finding::absent(
        "vfio",
        Missing::new(
            "there is no VFIO in this kernel: no /sys/class/misc/vfio, so no /dev/vfio/vfio",
            "load it: modprobe vfio-pci",
        ),
    )
}

fn modules(paths: &Paths) -> Finding {
    let loaded = vfio::modules(paths);
    if !loaded.is_empty() {
        return Finding::present("vfio modules", loaded.join(", ")).optional();
    }
    Finding::absent(
        "vfio modules",
        Missing::new(
            "no module of VFIO is loaded",
            "load the drivers of the devices: modprobe vfio-pci, vfio_mediate, …",
        ),
    )
    .optional()
}

fn iommu(paths: &Paths) -> Finding {
    let (iommus, groups) = (vfio::iommus(paths), vfio::iommu_groups(paths));
    if groups > 0 {
        let by = if iommus.is_empty() { "" } else { ", of " };
        return Finding::present("iommu", format!("groups: {groups}{by}{}", iommus.join(", ")));
    }
    Finding::absent(
        "iommu",
        Missing::new(
            "there are no IOMMU groups: no device can be given to a guest safely",
            "switch the IOMMU on in the firmware and the kernel (intel_iommu=on; AMD's is on by itself)",
        ),
    )
}

fn devices(paths: &Paths) -> Finding {
    let bound = vfio::bound_devices(paths);
    if bound.is_empty() {
        return Finding::absent(
            "vfio devices",
            Missing::new(
                "no PCI device has a VFIO driver, so there is nothing to watch yet",
                "give one to a driver: write the driver's name to the device's driver_override, \
                         and its address to /sys/bus/pci/drivers_probe",
            ),
        )
        .optional();
    }
    let name = |BoundDevice { address, driver, group }: &BoundDevice| match group {
        Some(group) => format!("{address} ({driver}, group {group})"),
        None => format!("{address} ({driver}, no group)"),
    };
    let mut named: Vec<_> = bound.iter().take(NAMED).map(name).collect();
    if let Some(more) = bound.len().checked_sub(NAMED).filter(|more| *more > 0) {
        named.push(format!("and {more} more"));
    }
    Finding::present("vfio devices", named.join(", ")).optional()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn each_is_there_once_sysfs_says_so_and_else_has_a_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = Paths { sysfs: folder.path().into(), ..Paths::default() };
        for absent in findings(&paths) {
            assert!(!absent.available && absent.remedy.is_some(), "{absent:?}");
            assert_eq!(absent.needed, ["vfio", "iommu"].contains(&absent.name.as_str()));
        }
        for name in ["class/misc/vfio", "module/vfio", "class/iommu/dmar0", "kernel/iommu_groups/1"]
        {
            fs::create_dir_all(folder.path().join(name)).expect("made");
        }
        for number in 0..NAMED + 2 {
            let device = folder.path().join(format!("bus/pci/devices/0000:00:{number:02x}.0"));
            fs::create_dir_all(&device).expect("made");
            symlink("../../drivers/vfio-pci", device.join("driver")).expect("linked");
        }
        let found = findings(&paths);
        assert!(found.iter().all(|finding| finding.available), "{found:?}");
        let details: Vec<_> = found.iter().flat_map(|finding| finding.detail.clone()).collect();
        assert_eq!(details[..3], ["/dev/vfio/vfio", "vfio", "groups: 1, of dmar0"]);
        assert!(
            details[3].contains("0000:00:07.0 (vfio-pci, no group), and 2 more"),
            "{}",
            details[3]
        );
    }
}
