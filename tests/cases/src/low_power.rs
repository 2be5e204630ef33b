// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY` and `…_EXIT`: the user of a device lets it sleep.
#![expect(unsafe_code, reason = "an ioctl without a safe wrapper")]

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use migrator::device::Device;

/// `_IO(VFIO_TYPE, VFIO_BASE + 17)`, `include/uapi/linux/vfio.h`.
const VFIO_DEVICE_FEATURE: libc::c_ulong = 0x3b75;
const SET: u32 = 1 << 17;
const LOW_POWER_ENTRY: u32 = 3;
const LOW_POWER_EXIT: u32 = 5;

/// `struct vfio_device_feature` without data.
#[repr(C)]
struct Feature {
    argsz: u32,
    flags: u32,
}

/// Lets the device sleep until [`exit`]; an access wakes it for its own time.
///
/// # Errors
///
/// What the kernel refused with.
pub fn enter(device: &Device) -> io::Result<()> {
    set(device, LOW_POWER_ENTRY)
}

/// The device stays awake from now on.
///
/// # Errors
///
/// What the kernel refused with.
pub fn exit(device: &Device) -> io::Result<()> {
    set(device, LOW_POWER_EXIT)
}

fn set(device: &Device, feature: u32) -> io::Result<()> {
    let mut argument = Feature { argsz: 8, flags: SET | feature };
    // SAFETY: `ioctl` wants an argument of the request's type: `argsz` says its length, and these two features have no data
    // behind it. The descriptor is the device's own and open as long as `device`.
    let done =
        unsafe { libc::ioctl(device.as_fd().as_raw_fd(), VFIO_DEVICE_FEATURE, &raw mut argument) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
