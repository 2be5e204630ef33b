// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Drivers for tests (`tests/vm`), and the devices that are given to them.

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use migscope_abi::device::DeviceKey;
use rustix::system::finit_module;

/// Set by `xtask vm`: the addresses of the devices.
const DEVICES: &str = "MIGSCOPE_DEVICES";

/// Loads modules that the kernel's own index has.
///
/// # Panics
///
/// When it has them not.
pub fn modprobe(modules: &[&str]) {
    let status = Command::new("modprobe").arg("-a").args(modules).status().expect("modprobe");
    assert!(status.success(), "the kernel's own index has {modules:?}");
}

/// Loads a driver that stands on vfio-pci-core, and gives it the guest's devices. Its file is named by the variable `file`, where
/// the kernel's own index does not have it.
///
/// # Panics
///
/// When it does not take them.
pub fn give(driver: &str, file: &str) -> Vec<DeviceKey> {
    modprobe(&["vfio-pci", "vfio_iommu_type1"]);
    if !Path::new("/sys/module").join(driver).exists() {
        match env::var_os(file) {
            Some(file) => {
                let file = File::open(file).expect("the module's file");
                finit_module(file, c"", 0).expect("it is loaded");
            }
            None => modprobe(&[driver]),
        }
    }
    let text = env::var(DEVICES).expect("xtask names them");
    let devices: Vec<_> =
        text.split(',').map(|address| DeviceKey::parse(address).expect("a PCI address")).collect();
    devices.iter().for_each(|device| bind(device, driver));
    devices
}

fn bind(device: &DeviceKey, driver: &str) {
    let folder = Path::new("/sys/bus/pci/devices").join(device.to_string());
    fs::write(folder.join("driver_override"), driver).expect("it takes the name");
    let bound = || {
        let driver = fs::read_link(folder.join("driver")).ok()?;
        Some(driver.file_name()?.to_string_lossy().into_owned())
    };
    if bound().is_some_and(|other| other != driver) {
        fs::write(folder.join("driver/unbind"), device.to_string()).expect("it is taken away");
    }
    if bound().is_none() {
        fs::write("/sys/bus/pci/drivers_probe", device.to_string()).expect("it is probed");
    }
    assert_eq!(bound().as_deref(), Some(driver));
}
