// SPDX-License-Identifier: GPL-2.0
//! The mediate ops: how a provider stands between user space and vfio-pci-core.
//!
//! The shape is that of the RFC "vfio/pci: register a default migration region" and its first part, "introduce mediate ops
//! to intercept vfio-pci ops" (Yan Zhao, 2019): a provider has a name; it is asked at each open of a device and says by its
//! capabilities what it brings; then region information, accesses and mappings go to it first, and each is answered with
//! "pass through", which leaves it to vfio-pci-core, or "handled". A provider that declares [`Capabilities::MIGRATION`]
//! gets a region of type 3, subtype 1, size 0 and no handlers, and overrides its size and its accesses.
//!
//! Where this differs from the RFC: the handle is a reference-counted object, not a number, and the calls that a migration
//! must see (reset, change of address space) are ops too.
//!
//! ```text
//!   open ──▶ PROVIDERS, in turn: open(device) ──▶ Opened { capabilities, handle }
//!   region info, read, write, mmap, reset ──▶ handle ──▶ Handled | PassThrough ──▶ vfio-pci-core
//!   close ──▶ handle.release()
//! ```

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::{
    abi::region,
    device::Models,
    vfio::{
        Access,
        Device,
        Driver,
        Mapping,
        RegionInfo, //
    },
};

/// The providers, asked in this order; the first that takes a device has it.
static PROVIDERS: [&dyn Provider; 1] = [&Models];

/// What a provider says to a call that could also go to vfio-pci-core.
pub(crate) enum Answer<T> {
    /// Not mine: vfio-pci-core shall do it.
    PassThrough,
    /// Done, and this is the result.
    Handled(T),
}

/// What a provider brings to a device, as in `vfio_pci_mediate_ops.open()`.
#[derive(Clone, Copy)]
pub(crate) struct Capabilities(u64);

impl Capabilities {
    /// `VFIO_PCI_DEVICE_CAP_MIGRATION`: the device gets the default migration region.
    pub(crate) const MIGRATION: Self = Self(0x01);

    /// Whether all capabilities of `other` are here.
    pub(crate) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What a device was left like when it was last closed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leftover {
    /// As at power-on.
    Clean,
    /// Whatever another user or driver left there.
    Unknown,
}

/// A device that a provider has taken.
pub(crate) struct Opened {
    /// What the provider brings.
    pub(crate) capabilities: Capabilities,
    /// The provider's side of the open device.
    pub(crate) handle: Arc<dyn Handle>,
}

/// Somebody who mediates devices.
pub(crate) trait Provider: Sync {
    /// The provider's name, for the log.
    fn name(&self) -> &'static str;

    /// Takes the device, or says `ENODEV`: not mine.
    ///
    /// # Errors
    ///
    /// Any other error ends the open.
    fn open(&self, device: &Device, left: Leftover) -> Result<Opened>;
}

/// One device, as its provider sees it between open and close.
///
/// Calls may come from several threads at once. All but [`Handle::mmap`] may sleep on the handle's own lock.
pub(crate) trait Handle: Send + Sync {
    /// The device is being closed: no call comes after this one.
    fn release(&self, device: &Device) -> Leftover;

    /// Overrides what vfio-pci-core says about a region.
    fn region_info(&self, info: &mut RegionInfo);

    /// Reads or writes a region; the answer is the number of bytes moved.
    fn rw(&self, device: &Device, access: &Access) -> Answer<Result<usize>>;

    /// Maps a part of a region.
    ///
    /// Called with the address space locked, so it must not take a lock under which user memory is touched.
    fn mmap(&self, mapping: &Mapping) -> Answer<Result>;

    /// `VFIO_DEVICE_RESET`.
    fn reset(&self, device: &Device) -> Result;

    /// Runs `change`, which attaches the device to an address space or detaches it, while nothing else is done with it.
    fn address_space_changes(&self, change: &mut dyn FnMut());
}

/// Finds the provider of a device that is being opened, and gives the device what the provider's capabilities ask for.
///
/// # Errors
///
/// The provider's error; `ENODEV` if no provider takes the device; `ENOMEM` if the region cannot be added.
pub(crate) fn open(device: &Device, left: Leftover) -> Result<Arc<dyn Handle>> {
    for provider in PROVIDERS {
        let opened = match provider.open(device, left) {
            Err(error) if error == ENODEV => continue,
            opened => opened?,
        };
        if opened.capabilities.contains(Capabilities::MIGRATION) {
            if let Err(error) = device.add_region(region::REGION_TYPE, region::REGION_SUBTYPE) {
                opened.handle.release(device);
                return Err(error);
            }
        }
        pr_debug!("{} mediates device {:#x}\n", provider.name(), device.key().0);
        return Ok(opened.handle);
    }
    Err(ENODEV)
}

/// The loaded module; unloading unregisters the driver.
pub(crate) struct Module {
    _driver: Driver,
}

impl kernel::Module for Module {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        crate::device::layout().inspect_err(|_| {
            pr_err!("data_window and bitmap_window must be multiples of the page size, at most 16 MiB\n")
        })?;
        Ok(Self { _driver: Driver::register()? })
    }
}
