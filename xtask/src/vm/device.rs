// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The devices under test that a machine can have, and what QEMU is told of each.

use std::fmt;
use std::str::FromStr;

/// A device under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// QEMU's educational device (docs/specs/edu.rst): registers, an interrupt, a DMA engine.
    Edu,
    /// Shared memory (docs/specs/ivshmem-spec.rst) that is shared with nobody: registers in BAR 0, and in
    /// BAR 2 a memory of this many MiB, a power of two.
    Ivshmem {
        /// Length of BAR 2.
        mib: u32,
    },
    /// A device to test QEMU itself with (docs/specs/pci-testdev.rst). The driver has no model of it; the
    /// vendor's module in `tests/vm/provider` has.
    PciTestdev,
}

impl Device {
    /// The least and the most that BAR 2 of [`Device::Ivshmem`] has.
    const IVSHMEM_MIB: std::ops::RangeInclusive<u32> = 1..=4096;
    const IVSHMEM_DEFAULT: Self = Self::Ivshmem { mib: 16 };

    /// QEMU's arguments for this device in a slot of the machine's bus 0.
    pub(super) fn arguments(self, slot: usize) -> Vec<String> {
        match self {
            Self::Edu => vec!["-device".to_owned(), format!("edu,addr={slot:#x}")],
            // `share=on` is what the device asks for; the memory is the host's, apart from the guest's own.
            Self::Ivshmem { mib } => vec![
                "-object".to_owned(),
                format!("memory-backend-ram,id=ivshmem{slot:x},size={mib}M,share=on"),
                "-device".to_owned(),
                format!("ivshmem-plain,memdev=ivshmem{slot:x},addr={slot:#x}"),
            ],
            Self::PciTestdev => vec!["-device".to_owned(), format!("pci-testdev,addr={slot:#x}")],
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            None if text == "edu" => Ok(Self::Edu),
            None if text == "ivshmem" => Ok(Self::IVSHMEM_DEFAULT),
            None if text == "pci-testdev" => Ok(Self::PciTestdev),
            Some(("ivshmem", size)) => {
                let (number, mib) = match size.strip_suffix('G') {
                    Some(number) => (number, 1024),
                    None => (size.strip_suffix('M').unwrap_or_default(), 1),
                };
                let mib = number.parse().ok().and_then(|number: u32| number.checked_mul(mib));
                mib.filter(|mib| mib.is_power_of_two() && Self::IVSHMEM_MIB.contains(mib))
                    .map(|mib| Self::Ivshmem { mib })
                    .ok_or_else(|| format!("`{size}` is no power of two from 1M to 4G"))
            }
            _ => Err("expected edu, ivshmem[=SIZE] or pci-testdev".to_owned()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edu => write!(f, "edu"),
            Self::Ivshmem { mib } => write!(f, "ivshmem={mib}M"),
            Self::PciTestdev => write!(f, "pci-testdev"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_reads_as_it_is_written() {
        let ivshmem = [Device::IVSHMEM_DEFAULT, Device::Ivshmem { mib: 1024 }];
        for device in [Device::Edu, Device::PciTestdev].into_iter().chain(ivshmem) {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert_eq!("ivshmem=1G".parse(), Ok(Device::Ivshmem { mib: 1024 }));
        for wrong in ["", "ivshmem=", "ivshmem=48M", "ivshmem=64", "ivshmem=4194304G", "edu=1M"] {
            assert!(wrong.parse::<Device>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_memory_of_each_slot_has_a_name_of_its_own() {
        let arguments = Device::Ivshmem { mib: 64 }.arguments(0x11);
        assert_eq!(arguments[1], "memory-backend-ram,id=ivshmem11,size=64M,share=on");
        assert_eq!(arguments[3], "ivshmem-plain,memdev=ivshmem11,addr=0x11");
    }
}
