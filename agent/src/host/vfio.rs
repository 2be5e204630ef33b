// SPDX-License-Identifier: Apache-2.0 OR MIT
//! VFIO, as sysfs tells of it (`Documentation/driver-api/vfio.rst`).

use super::Paths;
use crate::device_key::DeviceKey;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A PCI device that a VFIO driver has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundDevice {
    /// Its address.
    pub address: String,
    /// The driver.
    pub driver: String,
    /// Its IOMMU group, where it has one.
    pub group: Option<String>,
}

/// Whether there is `/dev/vfio/vfio`, by the misc device behind it.
pub fn is_there(paths: &Paths) -> bool {
    paths.sysfs.join("class/misc/vfio").exists()
}

/// Modules of VFIO that are loaded, or built in with parameters; sorted.
pub fn modules(paths: &Paths) -> Vec<String> {
    let all = names(&paths.sysfs.join("module"));
    all.into_iter().filter(|name| is_vfio(name)).collect()
}

/// IOMMUs that have a driver, e.g. `dmar0`.
pub fn iommus(paths: &Paths) -> Vec<String> {
    names(&paths.sysfs.join("class/iommu")).into_iter().collect()
}

/// How many groups the IOMMUs keep devices in.
pub fn iommu_groups(paths: &Paths) -> usize {
    names(&paths.sysfs.join("kernel/iommu_groups")).len()
}

/// PCI devices that a VFIO driver has, by address.
pub fn bound_devices(paths: &Paths) -> Vec<BoundDevice> {
    let bus: PathBuf = paths.sysfs.join("bus/pci/devices");
    let device = |address: String| {
        let key = DeviceKey::parse(&address)?;
        let driver = super::device::driver(paths, key).filter(|driver| is_vfio(driver))?;
        Some(BoundDevice { group: super::device::iommu_group(paths, key), address, driver })
    };
    names(&bus).into_iter().filter_map(device).collect()
}

/// `vfio-pci`, `vfio_mediate`, `mlx5_vfio_pci`, `vfio_iommu_type1`: they all say so.
fn is_vfio(name: &str) -> bool {
    name.split(['-', '_']).any(|part| part == "vfio")
}

/// The names in a folder, sorted; none where there is none.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_bare_host_has_nothing_and_a_host_with_vfio_tells_all() {
        let sysfs = tempfile::tempdir().expect("a folder");
        let paths = Paths { sysfs: sysfs.path().into(), ..Paths::default() };
        assert!(!is_there(&paths) && modules(&paths).is_empty() && iommus(&paths).is_empty());
        assert_eq!((iommu_groups(&paths), bound_devices(&paths)), (0, vec![]));
        for folder in [
            "class/misc/vfio",
            "class/iommu/dmar0",
            "kernel/iommu_groups/3",
            "kernel/iommu_groups/10",
            "module/vfio_pci_core",
            "module/vfio",
            "module/kvm",
            "bus/pci/devices/0000:00:10.0",
            "bus/pci/devices/0000:00:11.0",
            "bus/pci/devices/0000:00:1f.0",
        ] {
            fs::create_dir_all(sysfs.path().join(folder)).expect("made");
        }
        let link = |device: &str, name: &str, target: &str| {
            let link = sysfs.path().join("bus/pci/devices").join(device).join(name);
            symlink(target, link).expect("linked");
        };
        link("0000:00:10.0", "driver", "../../drivers/vfio_mediate");
        link("0000:00:10.0", "iommu_group", "../../../../kernel/iommu_groups/3");
        link("0000:00:11.0", "driver", "../../drivers/mlx5_vfio_pci");
        link("0000:00:1f.0", "driver", "../../drivers/ahci");
        assert!(is_there(&paths));
        assert_eq!(modules(&paths), ["vfio", "vfio_pci_core"]);
        assert_eq!(iommus(&paths), ["dmar0"]);
        assert_eq!(iommu_groups(&paths), 2);
        let bound = bound_devices(&paths);
        assert_eq!(bound.len(), 2, "{bound:?}");
        assert_eq!(
            (bound[0].driver.as_str(), bound[0].group.as_deref()),
            ("vfio_mediate", Some("3"))
        );
        assert_eq!((bound[1].driver.as_str(), bound[1].group.as_deref()), ("mlx5_vfio_pci", None));
    }
}
