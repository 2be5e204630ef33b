// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A PCI device in sysfs (`Documentation/ABI/testing/sysfs-bus-pci`, `Documentation/driver-api/vfio.rst`).

use super::Paths;
use migscope_abi::device::DeviceKey;
use std::{fs, path::PathBuf};

/// Name of the driver that the device is bound to.
pub fn driver(paths: &Paths, device: DeviceKey) -> Option<String> {
    link_name(folder(paths, device).join("driver"))
}

/// Number of the device's IOMMU group.
pub fn iommu_group(paths: &Paths, device: DeviceKey) -> Option<String> {
    link_name(folder(paths, device).join("iommu_group"))
}

/// Whether the device is on the bus. Unknown, and so `true`, where there is no bus to look at.
pub fn present(paths: &Paths, device: DeviceKey) -> bool {
    !bus(paths).is_dir() || folder(paths, device).is_dir()
}

fn bus(paths: &Paths) -> PathBuf {
    paths.sysfs.join("bus/pci/devices")
}

fn folder(paths: &Paths, device: DeviceKey) -> PathBuf {
    bus(paths).join(device.to_string())
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
        let folder = folder(&paths, device);
        fs::create_dir_all(&folder).expect("made");
        assert_eq!((driver(&paths, device), iommu_group(&paths, device)), (None, None));
        symlink("../../../bus/pci/drivers/vfio_mediate", folder.join("driver")).expect("linked");
        symlink("../../../kernel/iommu_groups/7", folder.join("iommu_group")).expect("linked");
        assert_eq!(driver(&paths, device).as_deref(), Some("vfio_mediate"));
        assert_eq!(iommu_group(&paths, device).as_deref(), Some("7"));
        assert!(!present(&paths, DeviceKey::parse("0000:00:11.0").expect("an address")));
    }
}
