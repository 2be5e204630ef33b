// SPDX-License-Identifier: GPL-2.0
//! A device as a provider sees it, and what user space asks of it.

use core::{
    mem::{
        offset_of,
        size_of, //
    },
    ptr::NonNull,
};

use kernel::{
    prelude::*,
    types::Opaque,
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};

use super::{
    Decoding,
    Scratch,
    OFFSET_BITS,
    REGION_OPS, //
};
use crate::{
    abi::{
        device::DeviceKey,
        region::Op,
        rule::Rule, //
    },
    ffi::bindings,
};

/// Which region an access, a mapping or a question is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Region {
    /// A base address register.
    Bar(u32),
    /// A region that the driver added, by type and subtype.
    Added(u32, u32),
    /// Configuration space, ROM or VGA.
    Other,
    /// There is none.
    None,
}

/// A read or write by user space.
pub(crate) struct Access {
    /// The region.
    pub(crate) region: Region,
    /// Offset in the region, in bytes.
    pub(crate) offset: u64,
    /// The direction.
    pub(crate) op: Op,
    /// Length, in bytes; not zero.
    pub(crate) bytes: usize,
    /// Region and offset, as in the device's file.
    pub(crate) position: bindings::loff_t,
    pub(super) user: UserPtr,
}

impl Access {
    /// The user's buffer.
    pub(crate) fn user(&self) -> UserPtr {
        self.user
    }

    /// Copies from the user's buffer, starting `at` bytes in.
    ///
    /// # Errors
    ///
    /// [`Rule::BadAddress`]; `out` may have been written in part.
    pub(crate) fn take(&self, at: usize, out: &mut [u8]) -> Result<(), Rule> {
        UserSlice::new(self.user.wrapping_byte_add(at), out.len())
            .reader()
            .read_slice(out)
            .map_err(|_| Rule::BadAddress)
    }

    /// Copies to the user's buffer, starting `at` bytes in.
    ///
    /// # Errors
    ///
    /// [`Rule::BadAddress`]; the user may have got a part.
    pub(crate) fn give(&self, at: usize, bytes: &[u8]) -> Result<(), Rule> {
        UserSlice::new(self.user.wrapping_byte_add(at), bytes.len())
            .writer()
            .write_slice(bytes)
            .map_err(|_| Rule::BadAddress)
    }
}

/// `struct vfio_region_info` and the capabilities behind it, as vfio-pci-core has filled them in.
pub(crate) struct RegionInfo<'a> {
    /// The region.
    pub(crate) region: Region,
    pub(super) info: &'a mut bindings::vfio_region_info,
    pub(super) caps: *mut bindings::vfio_info_cap,
}

impl RegionInfo<'_> {
    /// What has been said so far.
    pub(crate) fn said(&self) -> bindings::vfio_region_info {
        let bindings::vfio_region_info { argsz, flags, index, cap_offset, size, offset } =
            *self.info;
        bindings::vfio_region_info { argsz, flags, index, cap_offset, size, offset }
    }

    /// Where capabilities are added; valid as long as this.
    pub(crate) fn capabilities(&self) -> *mut bindings::vfio_info_cap {
        self.caps
    }

    /// Says what can be done with the region: `VFIO_REGION_INFO_FLAG_*`.
    pub(crate) fn set_flags(&mut self, flags: u32) {
        self.info.flags = flags;
    }

    /// Says how long the region is, in bytes.
    pub(crate) fn set_bytes(&mut self, bytes: u64) {
        self.info.size = bytes;
    }

    /// Takes the offer to map the region away.
    pub(crate) fn forbid_mmap(&mut self) {
        self.info.flags &= !bindings::VFIO_REGION_INFO_FLAG_MMAP;
    }

    /// Offers to map the whole region.
    pub(crate) fn offer_mmap(&mut self) {
        self.info.flags |= bindings::VFIO_REGION_INFO_FLAG_MMAP;
    }

    /// Offers to map these parts of the region, and no others: `VFIO_REGION_INFO_CAP_SPARSE_MMAP`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn offer_mmap_of(&mut self, areas: &[Area]) -> Result {
        let count = u32::try_from(areas.len()).map_err(|_| EINVAL)?;
        // SAFETY: An area is laid out as `struct vfio_region_sparse_mmap_area`, there are `count` of them, and `caps` is the
        // kernel's own for the time of the call this comes in.
        kernel::error::to_result(unsafe {
            bindings::vfio_mediate_add_sparse_mmap(self.caps, areas.as_ptr().cast(), count)
        })?;
        self.offer_mmap();
        Ok(())
    }
}

/// A part of a region that can be mapped: whole pages.
#[repr(C)]
pub(crate) struct Area {
    /// Offset in the region, in bytes.
    pub(crate) offset: u64,
    /// Length, in bytes.
    pub(crate) bytes: u64,
}

const _: () = assert!(
    size_of::<Area>() == size_of::<bindings::vfio_region_sparse_mmap_area>()
        && offset_of!(Area, bytes) == offset_of!(bindings::vfio_region_sparse_mmap_area, size)
);

impl Area {
    /// Whether a mapping lies inside.
    pub(crate) fn contains(&self, mapping: &Mapping) -> bool {
        let end = mapping.offset.checked_add(mapping.bytes);
        mapping.offset >= self.offset && end.is_some_and(|end| end <= self.offset + self.bytes)
    }
}

/// A mapping that user space asks for.
pub(crate) struct Mapping {
    /// The region.
    pub(crate) region: Region,
    /// Offset in the region, in bytes.
    pub(crate) offset: u64,
    /// Length, in bytes.
    pub(crate) bytes: u64,
    pub(super) vma: *mut bindings::vm_area_struct,
}

impl Mapping {
    /// The mapping itself; valid as long as this.
    pub(crate) fn vma(&self) -> *mut bindings::vm_area_struct {
        self.vma
    }

    /// Whether writes through it are to be seen by others (`MAP_SHARED`).
    pub(crate) fn is_shared(&self) -> bool {
        // SAFETY: A value of this type lives only as long as the call that sets the mapping up.
        let flags = unsafe { (*self.vma).__bindgen_anon_2.vm_flags };
        flags & bindings::VM_SHARED as bindings::vm_flags_t != 0
    }
}

/// A device that vfio-pci-core has enabled.
///
/// # Invariants
///
/// A reference to it is given out only between `vfio_pci_core_enable()` and `vfio_pci_core_disable()`. The methods that touch
/// the hardware are called by a provider, from calls during which the device is awake.
#[repr(transparent)]
pub(crate) struct Device(Opaque<bindings::vfio_pci_core_device>);

impl Device {
    /// The device around vfio-pci-core's part of it.
    pub(super) fn new(core: &Opaque<bindings::vfio_pci_core_device>) -> &Self {
        // SAFETY: This type is a transparent wrapper around that one.
        unsafe { &*core::ptr::from_ref(core).cast() }
    }

    pub(super) fn core(&self) -> *mut bindings::vfio_pci_core_device {
        self.0.get()
    }

    /// The PCI device, which is live as long as this.
    pub(crate) fn pci(&self) -> *mut bindings::pci_dev {
        // SAFETY: vfio-pci-core sets the pointer when it initialises the device, and never changes it.
        unsafe { (*self.core()).pdev }
    }

    /// The device's address.
    pub(crate) fn key(&self) -> DeviceKey {
        // SAFETY: The PCI device outlives its binding to this driver, and its address does not change.
        DeviceKey(unsafe { bindings::vfio_mediate_device_key(self.pci()) })
    }

    /// Vendor and device number.
    pub(crate) fn ids(&self) -> (u16, u16) {
        // SAFETY: The PCI device outlives its binding to this driver, and its numbers do not change.
        unsafe { ((*self.pci()).vendor, (*self.pci()).device) }
    }

    /// Splits a file position into region and offset.
    pub(super) fn locate(&self, position: u64) -> (Region, u64) {
        let offset = position & ((1 << OFFSET_BITS) - 1);
        // The position has 24 bits above the offset, so the index fits.
        let index = u32::try_from(position >> OFFSET_BITS).unwrap_or(u32::MAX);
        let region = match index {
            0..=5 => Region::Bar(index),
            _ => match index.checked_sub(bindings::VFIO_PCI_NUM_REGIONS) {
                Some(added) => self.added_region(added),
                None => Region::Other,
            },
        };
        (region, offset)
    }

    fn added_region(&self, number: u32) -> Region {
        // SAFETY: Regions are only added while the device is being opened and removed while it is being closed; this is
        // called in between, so neither the count nor the array changes, and the array has as many entries as the count says.
        unsafe {
            let core = self.core();
            match (usize::try_from(number), u32::try_from((*core).num_regions)) {
                (Ok(at), Ok(count)) if number < count => {
                    let region = (*core).region.add(at);
                    Region::Added((*region).type_, (*region).subtype)
                }
                _ => Region::None,
            }
        }
    }

    /// Adds a region of size 0 that can be read and written, as the RFC's default region.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn add_region(&self, kind: u32, subtype: u32) -> Result {
        // SAFETY: Providers are asked between `vfio_pci_core_enable()` and `vfio_pci_core_finish_enable()`, which is when a
        // region may be added; the table is static and has the two callbacks that must be there.
        kernel::error::to_result(unsafe {
            bindings::vfio_pci_core_register_dev_region(
                self.core(),
                kind,
                subtype,
                &REGION_OPS.0,
                0,
                bindings::VFIO_REGION_INFO_FLAG_READ | bindings::VFIO_REGION_INFO_FLAG_WRITE,
                core::ptr::null_mut(),
            )
        })
    }

    /// Makes `VFIO_DEVICE_GET_INFO` say `VFIO_DEVICE_FLAGS_RESET`.
    pub(crate) fn offer_reset(&self) {
        // SAFETY: The device is enabled, and nobody has it open yet.
        unsafe { bindings::vfio_mediate_offer_reset(self.core()) }
    }

    /// Wakes the device and keeps it awake.
    ///
    /// # Errors
    ///
    /// Those of the runtime power management.
    pub(super) fn wake(&self) -> Result<Awake<'_>> {
        // SAFETY: The PCI device outlives its binding to this driver; no lock is held that its resume takes.
        kernel::error::to_result(unsafe { bindings::vfio_mediate_wake(self.pci()) })?;
        Ok(Awake(self))
    }

    /// Length of a BAR, in bytes.
    pub(crate) fn bar_bytes(&self, bar: u32) -> u64 {
        // SAFETY: The function reads the device's resources, which do not change while a driver is bound.
        unsafe { bindings::vfio_mediate_bar_bytes(self.core(), bar) }
    }

    /// The address of `width` bytes in a memory BAR.
    fn bar_address(&self, bar: u32, offset: u64, width: usize) -> Result<*mut c_void, Rule> {
        let width_bytes = u64::try_from(width).map_err(|_| Rule::OutOfBounds)?;
        let end = offset.checked_add(width_bytes).ok_or(Rule::OutOfBounds)?;
        if end > self.bar_bytes(bar) || offset.checked_rem(width_bytes) != Some(0) {
            return Err(Rule::OutOfBounds);
        }
        // SAFETY: The device is enabled, so its BARs are mapped or marked as not mapped.
        let base = unsafe { bindings::vfio_mediate_bar(self.core(), bar) };
        if base.is_null() {
            return Err(Rule::DeviceFailed);
        }
        let offset = usize::try_from(offset).map_err(|_| Rule::OutOfBounds)?;
        Ok(base.cast::<u8>().wrapping_add(offset).cast())
    }

    /// Reads 1, 2, 4 or 8 aligned bytes of a memory BAR, as the user may: only while the guest has the memory decoded.
    ///
    /// # Errors
    ///
    /// [`Rule::OutOfBounds`]; [`Rule::DeviceFailed`] if the BAR is not there or not decoded.
    pub(crate) fn bar_read(&self, bar: u32, offset: u64, width: usize) -> Result<u64, Rule> {
        // SAFETY: `raw_read()` asks that `memory_lock` is held or to be tested: it is tested.
        unsafe { self.raw_read(bar, offset, width, true) }
    }

    /// Writes 1, 2, 4 or 8 aligned bytes of a memory BAR, as the user may.
    ///
    /// # Errors
    ///
    /// As for [`Device::bar_read`].
    pub(crate) fn bar_write(
        &self,
        bar: u32,
        offset: u64,
        width: usize,
        value: u64,
    ) -> Result<(), Rule> {
        // SAFETY: As for `bar_read()`.
        unsafe { self.raw_write(bar, offset, width, value, true) }
    }

    /// # Safety
    ///
    /// Either `test` is set or the caller holds `memory_lock` and has the memory decoded.
    pub(super) unsafe fn raw_read(
        &self,
        bar: u32,
        offset: u64,
        width: usize,
        test: bool,
    ) -> Result<u64, Rule> {
        let io = self.bar_address(bar, offset, width)?;
        let core = self.core();
        let (mut byte, mut half, mut word, mut quad) = (0_u8, 0_u16, 0_u32, 0_u64);
        // SAFETY: `io` lies with its whole width in the mapped BAR and is aligned to it; the values are local.
        let result = unsafe {
            match width {
                1 => bindings::vfio_pci_core_ioread8(core, test, &mut byte, io),
                2 => bindings::vfio_pci_core_ioread16(core, test, &mut half, io),
                4 => bindings::vfio_pci_core_ioread32(core, test, &mut word, io),
                8 => bindings::vfio_pci_core_ioread64(core, test, &mut quad, io),
                _ => return Err(Rule::OutOfBounds),
            }
        };
        if result != 0 {
            return Err(Rule::DeviceFailed);
        }
        Ok(match width {
            1 => u64::from(byte),
            2 => u64::from(half),
            4 => u64::from(word),
            _ => quad,
        })
    }

    /// # Safety
    ///
    /// As for [`Device::raw_read`].
    pub(super) unsafe fn raw_write(
        &self,
        bar: u32,
        offset: u64,
        width: usize,
        value: u64,
        test: bool,
    ) -> Result<(), Rule> {
        let io = self.bar_address(bar, offset, width)?;
        let core = self.core();
        let [b0, b1, b2, b3, ..] = value.to_le_bytes();
        // SAFETY: As for `raw_read()`.
        let result = unsafe {
            match width {
                1 => bindings::vfio_pci_core_iowrite8(core, test, b0, io),
                2 => {
                    bindings::vfio_pci_core_iowrite16(core, test, u16::from_le_bytes([b0, b1]), io)
                }
                4 => bindings::vfio_pci_core_iowrite32(
                    core,
                    test,
                    u32::from_le_bytes([b0, b1, b2, b3]),
                    io,
                ),
                8 => bindings::vfio_pci_core_iowrite64(core, test, value, io),
                _ => return Err(Rule::OutOfBounds),
            }
        };
        if result == 0 {
            Ok(())
        } else {
            Err(Rule::DeviceFailed)
        }
    }

    /// Leaves a write to a BAR to vfio-pci-core.
    ///
    /// # Errors
    ///
    /// Those of vfio-pci-core.
    pub(super) fn core_write(&self, bar: u32, access: &Access) -> Result<usize> {
        let position = (u64::from(bar) << OFFSET_BITS) + access.offset;
        let mut position = bindings::loff_t::try_from(position).map_err(|_| EINVAL)?;
        // SAFETY: The device is open; the pointer is the user's, which the function checks, and the position is local.
        let done = unsafe {
            bindings::vfio_pci_core_write(
                self.core().cast(),
                access.user.as_const_ptr().cast(),
                access.bytes,
                &mut position,
            )
        };
        match usize::try_from(done) {
            Ok(done) => Ok(done),
            Err(_) => Err(Error::from_errno(i32::try_from(done).unwrap_or(-5))),
        }
    }

    /// Makes the device decode its memory and master the bus until the guard goes, whatever the guest has set.
    pub(crate) fn decode(&self) -> Decoding<'_> {
        // SAFETY: The device is enabled and awake; the caller holds no lock that comes after `memory_lock`. The guard gives
        // the lock back.
        let command = unsafe { bindings::vfio_mediate_decode_on(self.core()) };
        Decoding::new(self, command)
    }

    /// Maps a page of the driver's own where the device can reach it, below `limit`; see [`Scratch`].
    ///
    /// # Errors
    ///
    /// [`Rule::NotAttached`], [`Rule::NoIova`] or [`Rule::NoMemory`].
    pub(crate) fn scratch(&self, first_choice: u64, limit: u64) -> Result<Scratch, Rule> {
        // SAFETY: The PCI device is live; the device lock, which the caller holds, keeps the domain alive (`shim.c`).
        let domain = NonNull::new(unsafe { bindings::vfio_mediate_domain(self.pci()) })
            .ok_or(Rule::NotAttached)?;
        Scratch::map(domain, first_choice, limit)
    }
}

/// Keeps a device awake.
pub(super) struct Awake<'a>(&'a Device);

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        // SAFETY: A value of this type exists only after the device was woken.
        unsafe { bindings::vfio_mediate_rest(self.0.pci()) }
    }
}
