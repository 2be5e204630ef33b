// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Mediated devices (Documentation/driver-api/vfio-mediated-device.rst) of the sample driver mtty: serial ports that are
//! nowhere, but migrate since Linux 6.7.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The parent that the module mtty registers.
const PARENT: &str = "/sys/class/mdev_bus/mtty/mdev_supported_types";
const DEVICES: &str = "/sys/bus/mdev/devices";

/// A serial card with one port, or with two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Type `mtty-1`.
    One,
    /// Type `mtty-2`.
    Two,
}

/// A mediated device; it is removed when this is dropped.
#[derive(Debug)]
pub struct Mtty {
    uuid: String,
}

impl Mtty {
    /// Makes one. The module has to be loaded.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn create(uuid: &str, ports: Ports) -> io::Result<Self> {
        let kind = match ports {
            Ports::One => "mtty-1",
            Ports::Two => "mtty-2",
        };
        fs::write(Path::new(PARENT).join(kind).join("create"), uuid)?;
        Ok(Self { uuid: uuid.to_owned() })
    }

    /// The UUID, which is the device's name.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// The device in sysfs.
    pub fn sysfs(&self) -> PathBuf {
        Path::new(DEVICES).join(&self.uuid)
    }
}

impl Drop for Mtty {
    fn drop(&mut self) {
        // It is there until somebody removes it, and nobody else knows of it.
        if let Err(error) = fs::write(self.sysfs().join("remove"), "1") {
            eprintln!("the mediated device {} stays: {error}", self.uuid);
        }
    }
}
