// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A device in sysfs, of PCI or mediated (`Documentation/ABI/testing/sysfs-bus-pci`, `Documentation/driver-api/vfio.rst`).

use super::Paths;
use crate::device_key::DeviceKey;
use std::{fs, path::PathBuf};

/// Name of the driver that the device is bound to.
pub fn driver(paths: &Paths, device: DeviceKey) -> Option<String> {
    link_name(folder(paths, device)?.join("driver"))
}

/// Number of the device's IOMMU group.
pub fn iommu_group(paths: &Paths, device: DeviceKey) -> Option<String> {
    link_name(folder(paths, device)?.join("iommu_group"))
}

/// Whether the device is on its bus. Unknown, and so `true`, where there is no bus to look at, and for one whose name is not known.
pub fn present(paths: &Paths, device: DeviceKey) -> bool {
    !buses(paths).is_dir() || !device.is_known() || folder(paths, device).is_some()
}

fn buses(paths: &Paths) -> PathBuf {
    paths.sysfs.join("bus")
}

/// The device's folder: below the bus of PCI by its address, or else below the bus that has a device of its name.
fn folder(paths: &Paths, device: DeviceKey) -> Option<PathBuf> {
    let on = |bus: PathBuf| Some(bus.join("devices").join(device.to_string()));
    if !device.is_named() {
        return on(buses(paths).join("pci")).filter(|folder| folder.is_dir());
    }
    let mut all = fs::read_dir(buses(paths)).ok()?.flatten();
    all.find_map(|bus| on(bus.path()).filter(|folder| folder.is_dir()))
}

/// The last part of what a link points to.
fn link_name(link: PathBuf) -> Option<String> {
    let target = fs::read_link(link).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn driver_and_group_are_the_ends_of_their_links() {
        let sysfs = tempfile::tempdir().expect("a folder");
        let paths = Paths { sysfs: sysfs.path().into(), ..Paths::default() };
        let device = DeviceKey::parse("0000:00:10.0").expect("an address");
        assert!(present(&paths, device), "unknown without a bus");
        let folder = buses(&paths).join("pci/devices").join(device.to_string());
        fs::create_dir_all(&folder).expect("made");
        assert_eq!((driver(&paths, device), iommu_group(&paths, device)), (None, None));
        symlink("../../../bus/pci/drivers/vfio_mediate", folder.join("driver")).expect("linked");
        symlink("../../../kernel/iommu_groups/7", folder.join("iommu_group")).expect("linked");
        assert_eq!(driver(&paths, device).as_deref(), Some("vfio_mediate"));
        assert_eq!(iommu_group(&paths, device).as_deref(), Some("7"));
        assert!(!present(&paths, DeviceKey::parse("0000:00:11.0").expect("an address")));
    }

    #[test]
    fn a_device_without_an_address_is_found_on_the_bus_that_has_it() {
        let sysfs = tempfile::tempdir().expect("a folder");
        let paths = Paths { sysfs: sysfs.path().into(), ..Paths::default() };
        let uuid = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001";
        let device = DeviceKey::named(uuid).expect("a name");
        fs::create_dir_all(buses(&paths).join("pci/devices")).expect("made");
        assert!(!present(&paths, device));
        let folder = buses(&paths).join("mdev/devices").join(uuid);
        fs::create_dir_all(&folder).expect("made");
        symlink("../../../bus/mdev/drivers/vfio_mtty", folder.join("driver")).expect("linked");
        assert!(present(&paths, device));
        assert_eq!(driver(&paths, device).as_deref(), Some("vfio_mtty"));
        let nameless = DeviceKey(device.0 ^ 1);
        assert!(present(&paths, nameless), "nobody knows");
    }
}
