// SPDX-License-Identifier: GPL-2.0
//! Providers in C: `include/vfio_mediate.h` in the terms of [`mediate`](crate::mediate).
//!
//! ```text
//!   vendor's module ── vfio_mediate_register_ops() ──▶ shim.c ──▶ Vendor: Provider
//!        ▲                                                           │ open()
//!        └── ops->rw(), … ◀── VendorHandle: Handle ◀─────────────────┘
//! ```
//!
//! What the header promises to a vendor's module is kept here or in [`registry`](crate::mediate::registry). What the module
//! answers is not trusted further than it must be: results are checked, and of a region's description only length and flags
//! are taken.

#![expect(unsafe_code, reason = "the border to vendors' modules")]

use core::ptr::{
    self,
    NonNull, //
};

use kernel::{
    prelude::*,
    sync::{
        Arc,
        UniqueArc, //
    },
};

use crate::{
    abi::region::Op,
    ffi::bindings,
    mediate::{
        registry::{
            self,
            Key, //
        },
        Answer,
        Capabilities,
        Handle,
        Leftover,
        Opened,
        Provider, //
    },
    vfio::{
        Access,
        Device,
        Mapping,
        Region,
        RegionInfo, //
    },
};

/// A counted reference to the module that some code is in.
pub(crate) struct ModuleReference(*mut bindings::module);

// SAFETY: References to modules are counted, whichever thread counts.
unsafe impl Send for ModuleReference {}
// SAFETY: As above; through a shared reference nothing can be done.
unsafe impl Sync for ModuleReference {}

impl ModuleReference {
    /// For code of this driver: vfio itself takes a reference to it for as long as a device is open.
    pub(crate) fn of_this_driver() -> Self {
        Self(ptr::null_mut())
    }

    /// A reference to a module, or to none for code that cannot go; `None` if the module is going.
    ///
    /// # Safety
    ///
    /// `module` is NULL or a module that is not yet freed.
    unsafe fn take(module: *mut bindings::module) -> Option<Self> {
        // SAFETY: By the caller's promise; the function takes NULL, too.
        unsafe { bindings::vfio_mediate_module_get(module) }.then_some(Self(module))
    }
}

impl Drop for ModuleReference {
    fn drop(&mut self) {
        // SAFETY: The value stands for one reference to the module, or holds NULL, which the function takes.
        unsafe { bindings::vfio_mediate_module_put(self.0) }
    }
}

/// A vendor's table.
///
/// # Invariants
///
/// The table is valid and does not change until its provider has been unregistered, and `vfio_mediate_unregister_ops()` does not
/// return while there is a copy of this outside of the registry.
#[derive(Clone, Copy)]
struct Ops(NonNull<bindings::vfio_mediate_ops>);

// SAFETY: The table is not written while there is a copy of this.
unsafe impl Send for Ops {}
// SAFETY: As above.
unsafe impl Sync for Ops {}

impl Ops {
    fn get(&self) -> &bindings::vfio_mediate_ops {
        // SAFETY: By the type's invariant.
        unsafe { self.0.as_ref() }
    }
}

/// A provider in C. Its table has a name and an `open`.
struct Vendor(Ops);

impl Provider for Vendor {
    fn name(&self) -> &CStr {
        // SAFETY: The name is there (`vfio_mediate_register()`), a string, and stays as long as the table.
        unsafe { CStr::from_char_ptr(self.0.get().name) }
    }

    fn module_reference(&self) -> Option<ModuleReference> {
        // SAFETY: The provider is registered, so its owner, which is to unregister it, is not yet freed.
        unsafe { ModuleReference::take(self.0.get().owner) }
    }

    fn open(&self, device: &Device, _left: Leftover) -> Result<Opened> {
        let open = self.0.get().open.ok_or(EINVAL)?;
        // Before the call, so that nothing can fail after it.
        let place = UniqueArc::<VendorHandle>::new_uninit(GFP_KERNEL)?;
        let (mut capabilities, mut handle) = (0, ptr::null_mut());
        // SAFETY: The device is enabled, and the pointers are to local values; the caller holds the provider.
        status(unsafe { open(device.pci(), &mut capabilities, &mut handle) })?;
        Ok(Opened {
            capabilities: Capabilities::from_bits(capabilities),
            offers_reset: false,
            handle: Arc::from(place.write(VendorHandle { ops: self.0, handle })),
        })
    }
}

/// A device that a vendor's module has taken.
struct VendorHandle {
    ops: Ops,
    /// Whatever `open` gave.
    handle: *mut c_void,
}

// SAFETY: The header tells the vendor that calls come from any thread.
unsafe impl Send for VendorHandle {}
// SAFETY: The header tells the vendor that calls may come from several threads at once.
unsafe impl Sync for VendorHandle {}

impl Handle for VendorHandle {
    fn release(&self, _device: Option<&Device>) -> Leftover {
        if let Some(release) = self.ops.get().release {
            // SAFETY: The handle is the vendor's own, and this is its last call.
            unsafe { release(self.handle) }
        }
        Leftover::Unknown
    }

    fn region_info(&self, info: &mut RegionInfo<'_>) -> Result {
        let Some(get_region_info) = self.ops.get().get_region_info else { return Ok(()) };
        let cap_type = match info.region {
            Region::Added(kind, subtype) => Some(bindings::vfio_region_info_cap_type {
                header: bindings::vfio_info_cap_header {
                    id: bindings::VFIO_REGION_INFO_CAP_TYPE as u16,
                    version: 1,
                    next: 0,
                },
                type_: kind,
                subtype,
            }),
            _ => None,
        };
        let mut said = info.said();
        let cap_type = cap_type.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: `said`, `cap_type` and the capabilities live for the call; the handle is the vendor's own.
        status(unsafe { get_region_info(self.handle, &mut said, info.capabilities(), cap_type) })?;
        info.set_bytes(said.size);
        info.set_flags(said.flags);
        Ok(())
    }

    fn rw(&self, _device: &Device, access: &Access) -> Answer<Result<usize>> {
        let Some(rw) = self.ops.get().rw else { return Answer::PassThrough };
        let mut position = access.position;
        let mut pass_through = true;
        // SAFETY: `position` and `pass_through` live for the call; the buffer is user space's, and marked so in the header.
        let moved = unsafe {
            rw(
                self.handle,
                access.user().as_mut_ptr().cast(),
                access.bytes,
                &mut position,
                access.op == Op::Write,
                &mut pass_through,
            )
        };
        if pass_through {
            return Answer::PassThrough;
        }
        Answer::Handled(match usize::try_from(moved) {
            Ok(moved) if moved <= access.bytes => Ok(moved),
            Ok(_) => Err(EIO),
            Err(_) => Err(c_int::try_from(moved).map_or(EIO, Error::from_errno)),
        })
    }

    fn mmap(&self, mapping: &Mapping) -> Answer<Result> {
        let Some(mmap) = self.ops.get().mmap else { return Answer::PassThrough };
        let mut pass_through = true;
        // SAFETY: The mapping is being set up by its caller; `pass_through` lives for the call.
        let result = unsafe { mmap(self.handle, mapping.vma(), &mut pass_through) };
        if pass_through {
            Answer::PassThrough
        } else {
            Answer::Handled(status(result))
        }
    }

    fn reset(&self, _device: &Device) -> Answer<Result> {
        Answer::PassThrough
    }

    fn address_space_changes(&self, change: &mut dyn FnMut()) {
        change();
    }
}

/// The result of a call that returns 0 or an error. Anything else is no errno, and must not get to anybody who takes it for
/// one, nor for a success.
fn status(result: c_int) -> Result {
    match result {
        0 => Ok(()),
        1.. => Err(EIO),
        error => Err(Error::from_errno(error)),
    }
}

/// `vfio_mediate_register_ops()`, exported by `shim.c`.
///
/// # Safety
///
/// `ops` is NULL or as `include/vfio_mediate.h` says.
#[no_mangle]
unsafe extern "C" fn vfio_mediate_register(ops: *const bindings::vfio_mediate_ops) -> c_int {
    let register = || {
        let table = NonNull::new(ops.cast_mut()).ok_or(EINVAL)?;
        // INVARIANT: The caller promises that the table is valid and does not change, and `registry::unregister()` waits for
        // all who hold the provider.
        let table = Ops(table);
        if table.get().name.is_null() || table.get().open.is_none() {
            return Err(EINVAL);
        }
        registry::register(Key::of(ops), Arc::new(Vendor(table), GFP_KERNEL)?)
    };
    register().map_or_else(Error::to_errno, |()| 0)
}

/// `vfio_mediate_unregister_ops()`, exported by `shim.c`.
#[no_mangle]
extern "C" fn vfio_mediate_unregister(ops: *const bindings::vfio_mediate_ops) {
    registry::unregister(Key::of(ops));
}
