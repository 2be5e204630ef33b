// SPDX-License-Identifier: GPL-2.0
//! The mediate ops: how a provider stands between user space and vfio-pci-core.
//!
//! The shape is that of the RFC "vfio/pci: register a default migration region" and its first part, "introduce mediate ops
//! to intercept vfio-pci ops" (Yan Zhao, 2019): a provider has a name and registers; it is asked at each open of a device and
//! says by its capabilities what it brings; then region information, accesses and mappings go to it first, and each is
//! answered with "pass through", which leaves it to vfio-pci-core, or "handled". A provider that declares
//! [`Capabilities::MIGRATION`] gets a region of type 3, subtype 1, size 0 and no handlers, and overrides its size and its
//! accesses.
//!
//! ```text
//!   register ──▶ registry.rs ◀── unregister, which waits
//!   open ──▶ the providers, the last registered first: open(device) ──▶ Opened ──▶ Mediation { handle, hold }
//!   region info, read, write, mmap, reset ──▶ handle ──▶ Handled | PassThrough ──▶ vfio-pci-core
//!   close ──▶ Mediation::release(): handle.release(), then the hold ends
//! ```
//!
//! Providers are modules of their own (`vendor.rs`), or models of this one (`device.rs`); both register alike.
//!
//! Where this differs from the RFC: the handle is an object, not a number; a region can be described with an error; a
//! provider's module is held for it; unregistering waits; and the calls that a migration must see (reset, change of address
//! space) are ops too, for providers in Rust. A provider that fails to open a device harms nobody: the next is asked, and
//! the failure is the user's only if none takes the device.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::{
    abi::region,
    device::Models,
    vendor::ModuleReference,
    vfio::{
        Access,
        Device,
        Driver,
        Mapping,
        RegionInfo, //
    },
};

pub(crate) mod registry;

use registry::{
    Hold,
    Registration, //
};

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
    /// `VFIO_MEDIATE_CAP_MIGRATION`: the device gets the default migration region.
    pub(crate) const MIGRATION: Self = Self(0x01);
    /// All that there are.
    const KNOWN: Self = Self::MIGRATION;

    /// Those of a provider in C.
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

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
    /// Whether [`Handle::reset`] resets a device for which vfio-pci-core has no way to.
    pub(crate) offers_reset: bool,
    /// The provider's side of the open device.
    pub(crate) handle: Arc<dyn Handle>,
}

/// Somebody who mediates devices.
pub(crate) trait Provider: Send + Sync {
    /// The provider's name, which no other has.
    fn name(&self) -> &CStr;

    /// A reference to the module that the provider's code is in; `None` if that is going, and the provider with it.
    ///
    /// Called with the registry's lock held.
    fn module_reference(&self) -> Option<ModuleReference>;

    /// Takes the device, or says `ENODEV`: not mine.
    ///
    /// # Errors
    ///
    /// With any, the next provider is asked. The device must be as it was before.
    fn open(&self, device: &Device, left: Leftover) -> Result<Opened>;
}

/// One device, as its provider sees it between open and close.
///
/// Calls may come from several threads at once. All but [`Handle::mmap`] may sleep on the handle's own lock.
pub(crate) trait Handle: Send + Sync {
    /// The device is being closed: no call comes after this one. There is no device to do anything with if it does not wake.
    fn release(&self, device: Option<&Device>) -> Leftover;

    /// Overrides what vfio-pci-core says about a region.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, for capabilities, and what else the provider says.
    fn region_info(&self, info: &mut RegionInfo<'_>) -> Result;

    /// Reads or writes a region; the answer is the number of bytes moved.
    fn rw(&self, device: &Device, access: &Access) -> Answer<Result<usize>>;

    /// Maps a part of a region.
    ///
    /// Called with the address space locked, so it must not take a lock under which user memory is touched.
    fn mmap(&self, mapping: &Mapping) -> Answer<Result>;

    /// `VFIO_DEVICE_RESET`; or the bus was reset under the device, when "pass through" leaves it at that.
    fn reset(&self, device: &Device) -> Answer<Result>;

    /// Runs `change`, which attaches the device to an address space or detaches it, while nothing else is done with it.
    fn address_space_changes(&self, change: &mut dyn FnMut());
}

/// An open device and its provider.
pub(crate) struct Mediation {
    // In this order: nothing of the provider's is left when it is told that nobody needs it.
    handle: Arc<dyn Handle>,
    _hold: Hold,
}

impl Mediation {
    /// The provider's side of the device.
    pub(crate) fn handle(&self) -> &Arc<dyn Handle> {
        &self.handle
    }

    /// The device is being closed.
    pub(crate) fn release(self, device: Option<&Device>) -> Leftover {
        self.handle.release(device)
    }
}

/// Finds the provider of a device that is being opened, and gives the device what the provider's capabilities ask for.
///
/// A provider that registers meanwhile is not asked.
///
/// # Errors
///
/// `ENODEV` if every provider says so, or there is none; else the first other error, in the order in which they are asked.
pub(crate) fn open(device: &Device, left: Leftover) -> Result<Mediation> {
    let mut failure = ENODEV;
    let mut serial = u64::MAX;
    while let Some(candidate) = registry::candidate_before(serial) {
        serial = candidate.serial;
        match open_with(&*candidate.provider, device, left) {
            Ok(handle) => {
                let name = candidate.provider.name();
                pr_debug!("{:?} mediates device {:#x}\n", name, device.key().0);
                return Ok(Mediation { handle, _hold: candidate.hold });
            }
            Err(error) if failure == ENODEV => failure = error,
            Err(_) => {}
        }
    }
    Err(failure)
}

fn open_with(provider: &dyn Provider, device: &Device, left: Leftover) -> Result<Arc<dyn Handle>> {
    let Opened { capabilities, offers_reset, handle } = provider.open(device, left)?;
    let equip = || {
        if !Capabilities::KNOWN.contains(capabilities) {
            return Err(EINVAL);
        }
        if capabilities.contains(Capabilities::MIGRATION) {
            device.add_region(region::REGION_TYPE, region::REGION_SUBTYPE)?;
        }
        Ok(())
    };
    if let Err(error) = equip() {
        handle.release(Some(device));
        return Err(error);
    }
    if offers_reset {
        device.offer_reset();
    }
    Ok(handle)
}

/// The loaded module; unloading unregisters the driver, which closes the devices, and then the models.
pub(crate) struct Module {
    _driver: Driver,
    _models: Registration,
}

impl kernel::Module for Module {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        registry::init();
        crate::windows::check_parameters()?;
        let models = Registration::new(Arc::new(Models, GFP_KERNEL)?)?;
        Ok(Self { _driver: Driver::register()?, _models: models })
    }
}
