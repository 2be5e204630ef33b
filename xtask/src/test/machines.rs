// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which machine each test binary of `cases` runs in.

use crate::kernel::Variant;
use crate::vm::{Device, Machine};

const IVSHMEM_16M: Device = Device::Ivshmem { mib: 16 };
const IVSHMEM_64M: Device = Device::Ivshmem { mib: 64 };
const IVSHMEM_1G: Device = Device::Ivshmem { mib: 1024 };

/// Binaries that need other devices than the two of a migration that [`Machine::default`] has, by their names.
const DEVICES: &[(&str, &[Device])] = &[
    // A pair of each length; edu gives images of another kind of device.
    (
        "ivshmem",
        &[IVSHMEM_16M, IVSHMEM_16M, IVSHMEM_64M, IVSHMEM_64M, IVSHMEM_1G, IVSHMEM_1G, Device::Edu],
    ),
    ("qemu_ivshmem", &[IVSHMEM_16M, IVSHMEM_16M]),
    // One with a model in the driver, and one of a vendor's module.
    ("provider", &[Device::Edu, Device::PciTestdev]),
];

/// Binaries that need a kernel which makes allocations fail.
const ON_DEBUG: &[&str] = &["starved"];

/// The kernel for the test binary of this name.
pub(super) fn kernel_of(binary: &str) -> Variant {
    if ON_DEBUG.contains(&binary) { Variant::Debug } else { Variant::Ours }
}

/// The machine for the test binary of this name.
pub(super) fn of(binary: &str) -> Machine {
    let special = DEVICES.iter().find(|(name, _)| *name == binary);
    let mut machine = Machine::default();
    if let Some((_, devices)) = special {
        machine.devices = devices.to_vec();
    }
    machine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_without_needs_of_its_own_has_the_usual_devices() {
        assert_eq!(of("region").devices, [Device::Edu, Device::Edu]);
        assert_eq!(of("qemu_ivshmem").devices, [IVSHMEM_16M, IVSHMEM_16M]);
        assert_eq!(of("provider").devices, [Device::Edu, Device::PciTestdev]);
    }
}
