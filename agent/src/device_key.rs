// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which device: the key that the probes use, which shows itself as sysfs names the device.
//!
//! ```text
//!   our driver's records     address, packed ───────────────────────────┐
//!   other probes             hash of a name ─┬─ of an address ─────────▶ address, packed
//!                            (name: once)    └─ of a UUID, or another ─▶ the hash
//! ```
//!
//! A hash means the same name whoever asks, so there is one table of names for the whole process. What has not been looked up in it is
//! a [`RawKey`].

use migscope_abi::device::{DeviceKey as Packed, NAME_BYTES};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{PoisonError, RwLock},
};

/// Names that are kept; the probes tell 1,024 devices apart, and a recording may have met more of them.
const NAMES: usize = 4096;

static KNOWN: RwLock<BTreeMap<u64, String>> = RwLock::new(BTreeMap::new());

/// The key of a device as probes use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct RawKey(pub u64);

impl RawKey {
    /// The device.
    pub fn device(self) -> DeviceKey {
        if !Packed(self.0).is_named() {
            return DeviceKey(self.0);
        }
        let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&self.0).and_then(|name| DeviceKey::parse(name)).unwrap_or(DeviceKey(self.0))
    }

    /// Whether it is known which device that is.
    pub fn is_known(self) -> bool {
        let known = || KNOWN.read().unwrap_or_else(PoisonError::into_inner).contains_key(&self.0);
        !Packed(self.0).is_named() || known()
    }
}

/// The key of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct DeviceKey(pub u64);

impl DeviceKey {
    /// The device at a PCI address; `devfn` is `device << 3 | function`, as in `struct pci_dev`.
    pub const fn pci(domain: u32, bus: u8, devfn: u8) -> Self {
        Self(Packed::pci(domain, bus, devfn).0)
    }

    /// Reads an address as sysfs writes it, `0000:00:03.0`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        Packed::parse(text).map(|key| Self(key.0))
    }

    /// The device of this name, which is shown by it from now on. `None` for a name that is empty, too long, or not plain text.
    pub fn named(name: &str) -> Option<Self> {
        let bytes = name.as_bytes();
        let plain = bytes.iter().all(u8::is_ascii_graphic);
        let mut padded = [0; NAME_BYTES];
        padded
            .get_mut(..bytes.len())
            .filter(|_| !bytes.is_empty() && plain)?
            .copy_from_slice(bytes);
        // Without an end a longer name could have the same beginning.
        if padded.last() != Some(&0) {
            return None;
        }
        let key = Packed::of_name(&padded);
        let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < NAMES {
            known.entry(key.0).or_insert_with(|| name.into());
        }
        Some(Self::parse(name).unwrap_or(Self(key.0)))
    }

    /// The keys that probes may use for it.
    pub fn raw(self) -> Vec<RawKey> {
        let mut keys = vec![RawKey(self.0)];
        let mut padded = [0; NAME_BYTES];
        let name = self.to_string();
        if let Some(room) = padded.get_mut(..name.len()).filter(|_| !self.is_named()) {
            room.copy_from_slice(name.as_bytes());
            keys.push(RawKey(Packed::of_name(&padded).0));
        }
        keys
    }

    /// Whether the device has a name instead of an address.
    pub const fn is_named(self) -> bool {
        Packed(self.0).is_named()
    }

    /// Whether it can be shown by its name.
    pub fn is_known(self) -> bool {
        RawKey(self.0).is_known()
    }
}

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_named() {
            let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(name) = known.get(&self.0) {
                return f.write_str(name);
            }
        }
        Packed(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_same_device_however_it_was_told() {
        let key = DeviceKey::named("0000:00:03.0").expect("a name");
        assert_eq!(key, DeviceKey::pci(0, 0, 3 << 3));
        assert_eq!(key.to_string(), "0000:00:03.0");
        let raw = key.raw();
        assert_eq!(raw.len(), 2);
        assert!(raw.iter().all(|raw| raw.is_known() && raw.device() == key), "{raw:?}");
    }

    #[test]
    fn a_name_is_shown_once_it_was_told() {
        let uuid = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001";
        let key = DeviceKey::named(uuid).expect("a name");
        assert!(key.is_named() && key.is_known());
        assert_eq!(key.to_string(), uuid);
        let other = DeviceKey(key.0 ^ 1);
        assert!(!other.is_known());
        assert_eq!(other.to_string(), format!("unnamed-{:016x}", other.0));
    }

    #[test]
    fn what_cannot_be_a_label_or_is_cut_off_is_no_name() {
        for name in ["", "a b", "line\nbreak", &"x".repeat(NAME_BYTES), &"x".repeat(500)] {
            assert_eq!(DeviceKey::named(name), None, "{name:?}");
        }
        assert!(DeviceKey::named(&"x".repeat(NAME_BYTES - 1)).is_some());
    }
}
