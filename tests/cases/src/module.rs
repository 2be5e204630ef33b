// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The driver's module, loaded anew with other parameters: its devices are taken from it, it goes, it comes back, and the
//! devices are given to it again.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::{env, str};

use rustix::fs::OFlags;
use rustix::system::{delete_module, finit_module};

use crate::refusal;

const DRIVER: &str = "/sys/bus/pci/drivers/vfio_mediate";
/// Set by `xtask vm`: the file of the module, and the addresses of the devices.
const FILE: &str = "MIGSCOPE_DRIVER";
const DEVICES: &str = "MIGSCOPE_DEVICES";

/// Loads the module anew, and gives it its devices.
///
/// # Panics
///
/// When it cannot be done.
pub fn reload(parameters: &[(&str, u32)]) {
    unload();
    load(parameters).unwrap_or_else(|error| panic!("{parameters:?} are taken: {error}"));
    for device in devices() {
        // Its driver_override still names the driver.
        fs::write("/sys/bus/pci/drivers_probe", &device).expect("the device is probed");
        assert!(Path::new(DRIVER).join(&device).exists(), "{device} is bound");
    }
    refusal::resume().expect("tracefs has the driver's events");
}

/// Takes the devices away and removes the module, if it is there.
///
/// # Panics
///
/// When it cannot be done: somebody uses it.
pub fn unload() {
    for device in devices() {
        if Path::new(DRIVER).join(&device).exists() {
            fs::write(Path::new(DRIVER).join("unbind"), &device).expect("the device is taken away");
        }
    }
    if Path::new("/sys/module/vfio_mediate").exists() {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        delete_module(c"vfio_mediate", flags).expect("nobody uses the module");
    }
}

/// Loads the module; it has no device then.
///
/// # Errors
///
/// What the kernel refused with.
///
/// # Panics
///
/// When the guest does not say where the module is.
pub fn load(parameters: &[(&str, u32)]) -> io::Result<()> {
    let path = env::var_os(FILE).expect("xtask says where the module is");
    let text: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let text = CString::new(text.join(" ")).expect("no parameter has a zero byte");
    finit_module(File::open(path)?, &text, 0)?;
    Ok(())
}

fn devices() -> Vec<String> {
    let devices = env::var(DEVICES).expect("xtask says which devices there are");
    devices.split(',').map(str::to_owned).collect()
}

/// The kernel's log from a moment on.
#[derive(Debug)]
pub struct Log(File);

impl Log {
    /// From now on.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn from_now() -> io::Result<Self> {
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        let mut file = OpenOptions::new().read(true).custom_flags(nonblocking).open("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self(file))
    }

    /// What was logged since it was last asked.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn text(&mut self) -> io::Result<String> {
        let mut text = String::new();
        // One read gives one record.
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(bytes) => text.push_str(&String::from_utf8_lossy(&record[..bytes])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(text),
                Err(error) => return Err(error),
            }
        }
    }
}
