// SPDX-License-Identifier: GPL-2.0 OR MIT
//! How a device is named in records and maps: eight bytes instead of a string.

use core::fmt;

/// The key of a device: its PCI address, packed as `domain << 16 | bus << 8 | device << 3 | function`.
///
/// Bit 63 is clear in every PCI key (a domain has at most 32 bits). Probes that know a device by its name alone, be it an address or the
/// UUID of a mediated device, use bit 63 and a hash of the name, and tell the names once each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct DeviceKey(pub u64);

/// The longest name of a device that is told, with a zero behind it. A UUID has 36 characters.
pub const NAME_BYTES: usize = 64;

/// Marks the key of a device that is named and not addressed.
const NAMED: u64 = 1 << 63;

impl DeviceKey {
    /// The key of the device whose name in sysfs this is, with zeros behind it.
    ///
    /// A hash of the whole (after MurmurHash3's mixing of 64 bits): without a branch, so that the kernel's verifier has one path to
    /// follow. Whether the name is an address is for user space to see.
    pub fn of_name(name: &[u8; NAME_BYTES]) -> Self {
        let mut hash = 0_u64;
        for word in name.as_chunks::<8>().0 {
            let mut mixed = u64::from_ne_bytes(*word).wrapping_mul(0xff51_afd7_ed55_8ccd);
            mixed ^= mixed >> 33;
            hash = (hash.rotate_left(27) ^ mixed).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
            hash ^= hash >> 33;
        }
        Self(hash | NAMED)
    }

    /// Whether it is the hash of a name.
    pub const fn is_named(self) -> bool {
        self.0 & NAMED != 0
    }

    /// Packs a PCI address; `devfn` is `device << 3 | function`, as in `struct pci_dev`.
    pub const fn pci(domain: u32, bus: u8, devfn: u8) -> Self {
        // `From` is not const; the three casts widen.
        Self((domain as u64) << 16 | (bus as u64) << 8 | devfn as u64)
    }

    /// Reads an address as sysfs writes it, `0000:00:03.0`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (domain, bus, slot) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let (device, function) = slot.split_once('.')?;
        let lengths_fit =
            domain.len() >= 4 && bus.len() == 2 && device.len() == 2 && function.len() == 1;
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !lengths_fit || ![domain, bus, device, function].into_iter().all(digits) {
            return None;
        }
        let device = u8::from_str_radix(device, 16).ok().filter(|device| *device < 32)?;
        let function = u8::from_str_radix(function, 16).ok().filter(|function| *function < 8)?;
        Some(Self::pci(
            u32::from_str_radix(domain, 16).ok()?,
            u8::from_str_radix(bus, 16).ok()?,
            device << 3 | function,
        ))
    }
}

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_named() {
            return write!(f, "unnamed-{:016x}", self.0);
        }
        let (domain, bus, devfn) = (self.0 >> 16, self.0 >> 8 & 0xff, self.0 & 0xff);
        write!(f, "{domain:04x}:{bus:02x}:{:02x}.{}", devfn >> 3, devfn & 7)
    }
}
