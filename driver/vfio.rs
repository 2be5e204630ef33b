// SPDX-License-Identifier: GPL-2.0
//! A vfio-pci variant driver in safe terms: registration, the device as vfio-pci-core sees it, user buffers, and the two
//! guards under which the driver itself touches a device.
//!
//! The callbacks of `vfio_device_ops` are here; each turns its C arguments into safe ones and asks [`mediate`].
//!
//! # Locks
//!
//! In this order, outermost first:
//!
//! 1. `dev_set->lock` of vfio: held around open, close and iommufd's attach and detach, and so around [`Provider::open`]
//!    and [`Handle::release`]. Unregistering a provider waits for closes, so it is done with none of these locks held.
//! 2. The device lock: the mutex of the provider's handle (`device.rs`).
//! 3. iommufd's locks: attach and detach run under the device lock, and pin user memory.
//! 4. `mmap_lock`: user memory is copied under the device lock. So [`Handle::mmap`], which runs with `mmap_lock` held, must not
//!    take the device lock.
//! 5. `memory_lock` of vfio-pci-core: taken by [`Decoding`] and [`BarMemory`] for writing. No user memory is touched under it,
//!    for vfio-pci-core and [`BarMemory`] take it in page faults.
//!
//! The registry's mutex (`mediate/registry.rs`) is taken after `dev_set->lock`, and nothing of this list after it: no
//! provider is called under it. [`Instance::mediation`]'s spin lock is a leaf: nothing is taken under it.
//!
//! [`Provider::open`]: crate::mediate::Provider::open

#![expect(unsafe_code, reason = "the border to vfio-pci-core")]

use core::{
    cell::UnsafeCell,
    mem::{
        offset_of,
        size_of,
        MaybeUninit, //
    },
    ptr::addr_of_mut,
};

use kernel::{
    new_spinlock,
    num::casts::usize_as_u64,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    },
    types::Opaque,
    uaccess::UserPtr,
};

use crate::{
    abi::region::Op,
    ffi::bindings,
    mediate::{
        self,
        Answer,
        Handle,
        Leftover,
        Mediation, //
    },
};

mod bar_memory;
mod decoding;
mod device;
mod scratch;
mod window;

pub(crate) use bar_memory::{
    BarMemory,
    Mode, //
};
pub(crate) use decoding::Decoding;
pub(crate) use device::{
    Access,
    Area,
    Device,
    Mapping,
    Region,
    RegionInfo, //
};
pub(crate) use scratch::Scratch;
pub(crate) use window::Window;

/// Bits of a file offset that are the offset in the region (`VFIO_PCI_OFFSET_SHIFT`).
const OFFSET_BITS: u32 = 40;

/// The registration with the PCI core.
///
/// The kernel's own PCI adapter does not fit: it keeps its own pointer in the device's driver data, where vfio-pci-core's
/// runtime power management and error handlers expect theirs, and it cannot say `driver_managed_dma`.
pub(crate) struct Driver(());

impl Driver {
    /// Registers the driver.
    ///
    /// # Errors
    ///
    /// Those of `pci_register_driver()`.
    pub(crate) fn register() -> Result<Self> {
        // SAFETY: The table that is registered is static, its callbacks are below, and `Drop` unregisters it before the
        // module goes.
        kernel::error::to_result(unsafe { bindings::vfio_mediate_register_driver() })?;
        Ok(Self(()))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // SAFETY: A value of this type exists only after a successful registration.
        unsafe { bindings::vfio_mediate_unregister_driver() }
    }
}

/// What the driver keeps for a bound device; allocated by vfio, which counts the references to it.
#[repr(C)]
struct Instance {
    core: Opaque<bindings::vfio_pci_core_device>,
    /// The provider's part while the device is open. Initialised by [`init`], dropped by [`release`].
    mediation: MaybeUninit<SpinLock<Option<Mediation>>>,
    /// How the last close left the device; only open and close touch it, under `dev_set->lock`.
    left: UnsafeCell<Leftover>,
}

// vfio finds the instance by the address of its `vfio_device`.
const _: () = assert!(
    offset_of!(Instance, core) == 0 && offset_of!(bindings::vfio_pci_core_device, vdev) == 0
);

/// Makes a table of callbacks, which holds raw pointers, shareable.
#[repr(transparent)]
struct Table<T>(T);

// SAFETY: The tables are never written, and what their pointers point to is static.
unsafe impl<T> Sync for Table<T> {}

static OPS: Table<bindings::vfio_device_ops> = Table(bindings::vfio_device_ops {
    name: kernel::str::as_char_ptr_in_const_context(c"vfio_mediate").cast_mut(),
    init: Some(init),
    release: Some(release),
    bind_iommufd: Some(bindings::vfio_iommufd_physical_bind),
    unbind_iommufd: Some(bindings::vfio_iommufd_physical_unbind),
    attach_ioas: Some(attach_ioas),
    detach_ioas: Some(detach_ioas),
    // A device under its own page table for each PASID would do DMA that no log sees.
    pasid_attach_ioas: None,
    pasid_detach_ioas: None,
    open_device: Some(open_device),
    close_device: Some(close_device),
    read: Some(read),
    write: Some(write),
    ioctl: Some(ioctl),
    get_region_info_caps: Some(get_region_info_caps),
    mmap: Some(mmap),
    request: Some(bindings::vfio_pci_core_request),
    match_: Some(bindings::vfio_pci_core_match),
    match_token_uuid: Some(bindings::vfio_pci_core_match_token_uuid),
    dma_unmap: None,
    device_feature: Some(device_feature),
});

/// The migration region's own operations. Its accesses go to the provider before they get here, so all that is left is what
/// vfio-pci-core calls without looking whether it is there.
static REGION_OPS: Table<bindings::vfio_pci_regops> = Table(bindings::vfio_pci_regops {
    rw: Some(region_rw),
    release: Some(region_release),
    mmap: None,
    add_capability: None,
});

/// Called by the PCI core through the table in `shim.c`.
///
/// # Safety
///
/// `pdev` is a device that is being bound to this driver.
#[no_mangle]
unsafe extern "C" fn vfio_mediate_probe(
    pdev: *mut bindings::pci_dev,
    _id: *const bindings::pci_device_id,
) -> c_int {
    // SAFETY: `pdev` is live, and `Instance` starts with its `vfio_device`, as asserted above.
    let vdev = unsafe {
        bindings::_vfio_alloc_device(size_of::<Instance>(), addr_of_mut!((*pdev).dev), &OPS.0)
    };
    let vdev = match kernel::error::from_err_ptr(vdev) {
        Ok(vdev) => vdev,
        Err(error) => return error.to_errno(),
    };
    let core: *mut bindings::vfio_pci_core_device = vdev.cast();
    // vfio-pci-core warns if the driver data is not there when it registers.
    // SAFETY: Both are live; `core` stays so until `vfio_mediate_remove()`, which the PCI core calls before it forgets `pdev`.
    unsafe { bindings::vfio_mediate_set_drvdata(pdev, core) };
    // SAFETY: `core` was allocated and initialised by `_vfio_alloc_device()` through `init()`.
    let registered = unsafe { bindings::vfio_pci_core_register_device(core) };
    if registered != 0 {
        // SAFETY: `vdev` holds the one reference that the allocation gave.
        unsafe { bindings::vfio_mediate_put_device(vdev) };
    }
    registered
}

/// Called by the PCI core through the table in `shim.c`.
///
/// # Safety
///
/// `pdev` was bound by [`vfio_mediate_probe`].
#[no_mangle]
unsafe extern "C" fn vfio_mediate_remove(pdev: *mut bindings::pci_dev) {
    // SAFETY: The probe put the pointer there.
    let core = unsafe { bindings::vfio_mediate_drvdata(pdev) };
    // SAFETY: The probe registered it. The call waits until the device is closed, asking its user to do so.
    unsafe { bindings::vfio_pci_core_unregister_device(core) };
    // SAFETY: This gives back the reference of the probe's allocation.
    unsafe { bindings::vfio_mediate_put_device(addr_of_mut!((*core).vdev)) };
}

/// `vfio_device_ops.init`.
///
/// # Safety
///
/// `vdev` is at the start of the zeroed memory of an [`Instance`], which nobody else sees yet.
unsafe extern "C" fn init(vdev: *mut bindings::vfio_device) -> c_int {
    // SAFETY: vfio calls this with the zeroed memory of the allocation.
    let result = unsafe { bindings::vfio_pci_core_init_dev(vdev) };
    if result != 0 {
        return result;
    }
    let instance: *mut Instance = vdev.cast();
    // SAFETY: The memory is an `Instance`'s, nobody else sees it yet, and it does not move until `release()`.
    unsafe {
        let slot = addr_of_mut!((*instance).mediation).cast::<SpinLock<Option<Mediation>>>();
        addr_of_mut!((*instance).left).write(UnsafeCell::new(Leftover::Unknown));
        match new_spinlock!(None).__init(slot) {
            Ok(()) => 0,
            Err(never) => match never {},
        }
    }
}

/// `vfio_device_ops.release`.
///
/// # Safety
///
/// `vdev` is a device of this driver to which the last reference is gone.
unsafe extern "C" fn release(vdev: *mut bindings::vfio_device) {
    let instance: *mut Instance = vdev.cast();
    // SAFETY: `init()` succeeded, or vfio would not call this, and the last reference is gone.
    unsafe {
        addr_of_mut!((*instance).mediation).cast::<SpinLock<Option<Mediation>>>().drop_in_place();
        bindings::vfio_pci_core_release_dev(vdev);
    }
}

/// The device and its handle's place behind a pointer that vfio passes to a callback.
///
/// # Safety
///
/// `vdev` is a device of this driver, and the reference is not used after the callback.
unsafe fn instance<'a>(vdev: *mut bindings::vfio_device) -> &'a Instance {
    // SAFETY: By the caller's promise and the layout asserted above. Only shared references are ever made, and all that
    // changes is in cells.
    unsafe { &*vdev.cast::<Instance>() }
}

impl Instance {
    fn slot(&self) -> &SpinLock<Option<Mediation>> {
        // SAFETY: `init()` initialised it before anybody could get a reference to the instance.
        unsafe { self.mediation.assume_init_ref() }
    }

    fn device(&self) -> &Device {
        Device::new(&self.core)
    }

    /// The provider's handle; `None` while the device is closed.
    fn handle(&self) -> Option<Arc<dyn Handle>> {
        self.slot().lock().as_ref().map(|it| it.handle().clone())
    }
}

/// `vfio_device_ops.open_device`.
///
/// # Safety
///
/// `vdev` is a closed device of this driver; `dev_set->lock` is held.
unsafe extern "C" fn open_device(vdev: *mut bindings::vfio_device) -> c_int {
    let core: *mut bindings::vfio_pci_core_device = vdev.cast();
    // SAFETY: vfio passes a device of this driver, and calls open and close in turn, under `dev_set->lock`.
    let (instance, enabled) = unsafe { (instance(vdev), bindings::vfio_pci_core_enable(core)) };
    if enabled != 0 {
        return enabled;
    }
    // SAFETY: Only open and close touch it, under `dev_set->lock`.
    let left = unsafe { *instance.left.get() };
    match mediate::open(instance.device(), left) {
        Ok(mediation) => {
            *instance.slot().lock() = Some(mediation);
            // SAFETY: The device was enabled above; regions are added before this call, as they must be.
            unsafe {
                *instance.left.get() = Leftover::Unknown;
                bindings::vfio_pci_core_finish_enable(core);
            }
            0
        }
        Err(error) => {
            // SAFETY: The device was enabled above, and `dev_set->lock` is held.
            unsafe { bindings::vfio_pci_core_disable(core) };
            error.to_errno()
        }
    }
}

/// `vfio_device_ops.close_device`.
///
/// # Safety
///
/// `vdev` is an open device of this driver; `dev_set->lock` is held.
unsafe extern "C" fn close_device(vdev: *mut bindings::vfio_device) {
    // SAFETY: vfio passes an open device of this driver.
    let instance = unsafe { instance(vdev) };
    let mediation = instance.slot().lock().take();
    if let Some(mediation) = mediation {
        // A user may have put the device to sleep before it went away.
        let awake = instance.device().wake();
        let left = mediation.release(awake.is_ok().then(|| instance.device()));
        // SAFETY: Only open and close touch it, under `dev_set->lock`.
        unsafe { *instance.left.get() = left };
    }
    // SAFETY: The device is open, and this is its one close.
    unsafe { bindings::vfio_pci_core_close_device(vdev) }
}

/// `vfio_device_ops.read`.
///
/// # Safety
///
/// `vdev` is an open device of this driver, and `ppos` is valid for reads and writes.
unsafe extern "C" fn read(
    vdev: *mut bindings::vfio_device,
    buf: *mut c_char,
    count: usize,
    ppos: *mut bindings::loff_t,
) -> isize {
    // SAFETY: vfio passes an open device of this driver, the user's pointer and length, and the file's position.
    unsafe {
        mediated_rw(vdev, buf, count, ppos, Op::Read)
            .unwrap_or_else(|| bindings::vfio_pci_core_read(vdev, buf, count, ppos))
    }
}

/// `vfio_device_ops.write`.
///
/// # Safety
///
/// `vdev` is an open device of this driver, and `ppos` is valid for reads and writes.
unsafe extern "C" fn write(
    vdev: *mut bindings::vfio_device,
    buf: *const c_char,
    count: usize,
    ppos: *mut bindings::loff_t,
) -> isize {
    // SAFETY: As for `read()`.
    unsafe {
        mediated_rw(vdev, buf.cast_mut(), count, ppos, Op::Write)
            .unwrap_or_else(|| bindings::vfio_pci_core_write(vdev, buf, count, ppos))
    }
}

/// Asks the provider; `None` if vfio-pci-core shall do the access.
///
/// # Safety
///
/// `vdev` is an open device of this driver, `ppos` is valid for reads and writes.
unsafe fn mediated_rw(
    vdev: *mut bindings::vfio_device,
    buf: *mut c_char,
    count: usize,
    ppos: *mut bindings::loff_t,
    op: Op,
) -> Option<isize> {
    if count == 0 {
        return None;
    }
    // SAFETY: By the caller's promise.
    let (instance, position) = unsafe { (instance(vdev), *ppos) };
    let handle = instance.handle()?;
    let device = instance.device();
    let (region, offset) = device.locate(u64::try_from(position).ok()?);
    if region == Region::None {
        return None;
    }
    let user = UserPtr::from_ptr(buf.cast());
    let access = Access { region, offset, op, bytes: count, position, user };

    // A provider may touch the hardware, which must not be asleep.
    let Ok(_awake) = device.wake() else {
        return Some(errno_as_size(EIO));
    };
    let result = match handle.rw(device, &access) {
        Answer::PassThrough => return None,
        Answer::Handled(result) => result,
    };
    Some(match result.and_then(|moved| i64::try_from(moved).map_err(|_| EINVAL)) {
        Ok(moved) => {
            // SAFETY: By the caller's promise. A region ends far below the sign bit, so the sum cannot overflow.
            unsafe { *ppos = (*ppos).wrapping_add(moved) };
            isize::try_from(moved).unwrap_or(0)
        }
        Err(error) => errno_as_size(error),
    })
}

fn errno_as_size(error: Error) -> isize {
    isize::try_from(error.to_errno()).unwrap_or(-1)
}

/// `vfio_device_ops.ioctl`.
///
/// # Safety
///
/// `vdev` is an open device of this driver, and is awake.
unsafe extern "C" fn ioctl(
    vdev: *mut bindings::vfio_device,
    command: c_uint,
    argument: c_ulong,
) -> c_long {
    // SAFETY: vfio passes an open device of this driver, and wakes the device around every ioctl.
    let instance = unsafe { instance(vdev) };
    // SAFETY: The arguments are passed on as they came.
    let core = || unsafe { bindings::vfio_pci_core_ioctl(vdev, command, argument) };
    let reset = || match instance.handle().map(|it| it.reset(instance.device())) {
        Some(Answer::Handled(Ok(()))) => Some(0),
        Some(Answer::Handled(Err(error))) => Some(errno_as_size(error)),
        Some(Answer::PassThrough) | None => None,
    };
    match command {
        bindings::vfio_mediate_ioctl_VFIO_MEDIATE_DEVICE_RESET => reset().unwrap_or_else(core),
        // The bus has been reset under the device: bring the driver's idea of it in line.
        bindings::vfio_mediate_ioctl_VFIO_MEDIATE_DEVICE_PCI_HOT_RESET => match core() {
            0 => reset().unwrap_or(0),
            error => error,
        },
        // An ioeventfd writes to a BAR behind the trap, so there is no such ioctl here.
        bindings::vfio_mediate_ioctl_VFIO_MEDIATE_DEVICE_IOEVENTFD => errno_as_size(ENOTTY),
        _ => core(),
    }
}

/// `vfio_device_ops.device_feature`.
///
/// # Safety
///
/// `vdev` is an open device of this driver.
unsafe extern "C" fn device_feature(
    vdev: *mut bindings::vfio_device,
    flags: u32,
    argument: *mut c_void,
    bytes: usize,
) -> c_int {
    // As with an ioeventfd: another device would write to a BAR by DMA, behind the trap and unseen by the notes on device memory.
    if flags & bindings::VFIO_DEVICE_FEATURE_MASK == bindings::VFIO_DEVICE_FEATURE_DMA_BUF {
        return ENOTTY.to_errno();
    }
    // SAFETY: The arguments are passed on as they came.
    unsafe { bindings::vfio_pci_core_ioctl_feature(vdev, flags, argument, bytes) }
}

/// `vfio_device_ops.get_region_info_caps`.
///
/// # Safety
///
/// `vdev` is an open device of this driver; `info` and `caps` are the kernel's own.
unsafe extern "C" fn get_region_info_caps(
    vdev: *mut bindings::vfio_device,
    info: *mut bindings::vfio_region_info,
    caps: *mut bindings::vfio_info_cap,
) -> c_int {
    // SAFETY: The arguments are passed on as they came.
    let result = unsafe { bindings::vfio_pci_ioctl_get_region_info(vdev, info, caps) };
    if result != 0 {
        return result;
    }
    // SAFETY: vfio passes an open device of this driver, and `info` is the kernel's own copy.
    let (instance, info) = unsafe { (instance(vdev), &mut *info) };
    if let Some(handle) = instance.handle() {
        let (region, _) = instance.device().locate(u64::from(info.index) << OFFSET_BITS);
        if let Err(error) = handle.region_info(&mut RegionInfo { region, info, caps }) {
            return error.to_errno();
        }
    }
    0
}

/// `vfio_device_ops.mmap`.
///
/// # Safety
///
/// `vdev` is an open device of this driver, and `vma` is being set up.
unsafe extern "C" fn mmap(
    vdev: *mut bindings::vfio_device,
    vma: *mut bindings::vm_area_struct,
) -> c_int {
    // SAFETY: vfio passes an open device of this driver and a mapping that is being made.
    let (instance, page, bytes) = unsafe {
        let range = (*vma).__bindgen_anon_1.__bindgen_anon_1;
        (instance(vdev), (*vma).vm_pgoff, range.vm_end.saturating_sub(range.vm_start))
    };
    if let Some(handle) = instance.handle() {
        let position = usize_as_u64(page) << bindings::PAGE_SHIFT;
        let (region, offset) = instance.device().locate(position);
        let mapping = Mapping { region, offset, bytes: usize_as_u64(bytes), vma };
        if region != Region::None {
            if let Answer::Handled(result) = handle.mmap(&mapping) {
                return result.map_or_else(Error::to_errno, |()| 0);
            }
        }
    }
    // SAFETY: The arguments are passed on as they came.
    unsafe { bindings::vfio_pci_core_mmap(vdev, vma) }
}

/// `vfio_device_ops.attach_ioas`.
///
/// # Safety
///
/// `vdev` is a device of this driver that is bound to an iommufd; `dev_set->lock` is held.
unsafe extern "C" fn attach_ioas(vdev: *mut bindings::vfio_device, pt_id: *mut u32) -> c_int {
    let mut result = ENODEV.to_errno();
    // SAFETY: vfio passes an open device of this driver, under `dev_set->lock`; the arguments are passed on as they came.
    unsafe {
        instance(vdev).with_address_space(&mut || {
            result = bindings::vfio_iommufd_physical_attach_ioas(vdev, pt_id);
        });
    }
    result
}

/// `vfio_device_ops.detach_ioas`.
///
/// # Safety
///
/// `vdev` is a device of this driver that is bound to an iommufd; `dev_set->lock` is held.
unsafe extern "C" fn detach_ioas(vdev: *mut bindings::vfio_device) {
    // SAFETY: As for `attach_ioas()`.
    unsafe {
        instance(vdev).with_address_space(&mut || {
            bindings::vfio_iommufd_physical_detach_ioas(vdev);
        });
    }
}

impl Instance {
    /// Runs `change` under the device lock if the device is open.
    fn with_address_space(&self, change: &mut dyn FnMut()) {
        match self.handle() {
            Some(handle) => handle.address_space_changes(change),
            None => change(),
        }
    }
}

/// `vfio_pci_regops.rw`.
extern "C" fn region_rw(
    _core: *mut bindings::vfio_pci_core_device,
    _buf: *mut c_char,
    _count: usize,
    _ppos: *mut bindings::loff_t,
    _write: bool,
) -> isize {
    errno_as_size(EINVAL)
}

/// `vfio_pci_regops.release`.
extern "C" fn region_release(
    _core: *mut bindings::vfio_pci_core_device,
    _region: *mut bindings::vfio_pci_region,
) {
}
