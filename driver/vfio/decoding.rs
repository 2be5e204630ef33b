// SPDX-License-Identifier: GPL-2.0
//! The guard under which the driver itself touches a device's registers.

use super::Device;
use crate::{
    abi::rule::Rule,
    ffi::bindings, //
};

/// A device that decodes its memory and masters the bus for the driver's own sake.
///
/// A VMM restores configuration space after the device's data, and a guest may have switched decoding off: the state must
/// move all the same. The guard switches both on in the physical command register, behind the guest's virtual one, and holds
/// `memory_lock` for writing: nobody can access the memory through it, nor write the register, until it is put back. (The bus
/// master bit is not virtual, so a read of the register in this time shows it.)
pub(crate) struct Decoding<'a> {
    device: &'a Device,
    command: u16,
}

impl<'a> Decoding<'a> {
    /// The guard of a device for which decoding was switched on; `command` is what the register held before.
    pub(super) fn new(device: &'a Device, command: u16) -> Self {
        Self { device, command }
    }

    /// Reads 4 or 8 aligned bytes of a memory BAR.
    ///
    /// # Errors
    ///
    /// As for [`Device::bar_read`].
    pub(crate) fn read(&self, bar: u32, offset: u64, width: usize) -> Result<u64, Rule> {
        // SAFETY: The guard holds `memory_lock` and has switched decoding on.
        unsafe { self.device.raw_read(bar, offset, width, false) }
    }

    /// Writes 4 or 8 aligned bytes of a memory BAR.
    ///
    /// # Errors
    ///
    /// As for [`Device::bar_read`].
    pub(crate) fn write(
        &self,
        bar: u32,
        offset: u64,
        width: usize,
        value: u64,
    ) -> Result<(), Rule> {
        // SAFETY: As for `read()`.
        unsafe { self.device.raw_write(bar, offset, width, value, false) }
    }
}

impl Drop for Decoding<'_> {
    fn drop(&mut self) {
        // SAFETY: The guard's creation took `memory_lock` and gave this value.
        unsafe { bindings::vfio_mediate_decode_restore(self.device.core(), self.command) }
    }
}
