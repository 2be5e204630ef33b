// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The kernel's own structures: followed from one to the next, by the offsets that the agent found in the kernel's type information.
//!
//! ```text
//!   file ─private_data─▶ vfio_device_file ─device─▶ vfio_device ─dev─▶ device.kobj ─name─▶ "0000:00:03.0" or a UUID
//!                        (before Linux 6.6 not there)
//!   task ─files─▶ files_struct ─fdt─▶ fdtable ─fd[n]─▶ file ─f_op─▶ file_operations ─read, write, unlocked_ioctl─▶ functions
//! ```
#![expect(unsafe_code, reason = "kernel memory is reached through raw pointers")]

use crate::maps::{DEVICE_NAMES, OFFSETS, REGION_OFFSETS, TRACKING_OFFSETS};
use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_task, bpf_probe_read_kernel,
        bpf_probe_read_kernel_str_bytes, bpf_probe_read_user,
    },
};
use migscope_abi::{
    device::{DeviceKey, NAME_BYTES},
    outside::RegionOffsets,
    probe::FileOp,
    tracking::TrackingOffsets,
    v2::Offsets,
};

/// The offsets, once the agent has written them.
#[inline(always)]
pub(crate) fn offsets() -> Option<&'static Offsets> {
    OFFSETS.get(0).filter(|offsets| offsets.known == 1)
}

/// The offsets in structures of iommufd and KVM, as far as the agent has written them.
#[inline(always)]
pub(crate) fn tracking_offsets() -> Option<&'static TrackingOffsets> {
    TRACKING_OFFSETS.get(0)
}

/// Reads a pointer at `offset` into the structure at `base`; `None` where there is nothing to read, and for a null pointer.
#[inline(always)]
pub(crate) fn pointer(base: u64, offset: u32) -> Option<u64> {
    from_kernel::<u64>(base.wrapping_add(u64::from(offset))).filter(|found| *found != 0)
}

/// Reads the kernel's memory.
#[inline(always)]
pub(crate) fn from_kernel<T: Copy>(address: u64) -> Option<T> {
    // SAFETY: the helper takes any address: it fails where there is nothing to read and never faults. `T` is an integer or one of the
    // structures of `migscope_abi::tracking`, for which every bit pattern is a value.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}

/// The offsets that lead to regions, once the agent has written them.
#[inline(always)]
pub(crate) fn region_offsets() -> Option<&'static RegionOffsets> {
    REGION_OFFSETS.get(0).filter(|offsets| offsets.known != 0)
}

/// The device whose file this is. Its name is put down.
#[inline(always)]
pub(crate) fn device_of(file: u64, offsets: &Offsets) -> Option<u64> {
    named(pointer(vfio_device(file, offsets)?, offsets.vfio_device_dev)?, offsets)
}

/// The `struct vfio_device` behind a device's file.
#[inline(always)]
fn vfio_device(file: u64, offsets: &Offsets) -> Option<u64> {
    let device = pointer(file, offsets.file_private_data)?;
    if offsets.device_file_device_plus_one == 0 {
        return Some(device);
    }
    pointer(device, offsets.device_file_device_plus_one.wrapping_sub(1))
}

/// The key of the device whose `struct device` this is. Its name is put down.
#[inline(always)]
fn named(device: u64, offsets: &Offsets) -> Option<u64> {
    let name = pointer(device, offsets.device_name)?;
    let mut bytes = [0; NAME_BYTES];
    // SAFETY: the helper takes any address and writes no more than `bytes` has room for.
    unsafe { bpf_probe_read_kernel_str_bytes(name as *const u8, &mut bytes) }.ok()?;
    let key = DeviceKey::of_name(&bytes);
    // It is there already but the first time. Without room for it the device is shown by its key.
    let _ = DEVICE_NAMES.insert(key.0, bytes, u64::from(BPF_NOEXIST));
    Some(key.0)
}

/// The device of a `struct vfio_pci_core_device`, and how many regions of its own it has; `None` also for one whose own tracepoints tell.
#[inline(always)]
pub(crate) fn core_device(
    core: u64,
    offsets: &Offsets,
    region: &RegionOffsets,
) -> Option<(u64, u64)> {
    let device = pointer(core, region.core_pdev)?.wrapping_add(u64::from(region.pci_dev_dev));
    if is_told(device, region) {
        return None;
    }
    let regions = core.wrapping_add(u64::from(region.core_num_regions)) as *const u32;
    // SAFETY: as in `pointer`.
    let regions = unsafe { bpf_probe_read_kernel(regions) }.ok()?;
    Some((named(device, offsets)?, u64::from(regions)))
}

/// Whether the tracepoints of our own driver tell of the device whose file this is.
#[inline(always)]
pub(crate) fn is_told_by_tracepoints(file: u64, offsets: &Offsets, region: &RegionOffsets) -> bool {
    let device = vfio_device(file, offsets).and_then(|vfio| pointer(vfio, offsets.vfio_device_dev));
    device.is_some_and(|device| is_told(device, region))
}

#[inline(always)]
fn is_told(device: u64, region: &RegionOffsets) -> bool {
    // With its zero: no other driver's name begins so.
    const OURS: [u8; 13] = *b"vfio_mediate\0";
    if region.ours_are_told == 0 {
        return false;
    }
    let name = pointer(device, region.device_driver)
        .and_then(|driver| pointer(driver, region.driver_name));
    let Some(name) = name else {
        return false;
    };
    // SAFETY: as in `pointer`.
    unsafe { bpf_probe_read_kernel(name as *const [u8; 13]) }.is_ok_and(|name| name == OURS)
}

/// Whether nobody has the device open any more when this file of it is closed.
#[inline(always)]
pub(crate) fn is_last_user(file: u64, offsets: &Offsets, region: &RegionOffsets) -> bool {
    // Where nobody counts, one file is all there is, as far as anybody can tell.
    let Some(at) = region.open_count_plus_one.checked_sub(1) else {
        return true;
    };
    let Some(device) = vfio_device(file, offsets) else {
        return true;
    };
    // SAFETY: as in `pointer`.
    let count = unsafe { bpf_probe_read_kernel(device.wrapping_add(u64::from(at)) as *const u32) };
    count.is_ok_and(|count| count <= 1)
}

/// Reads a number of the kernel's.
#[inline(always)]
pub(crate) fn number(address: u64) -> Option<u64> {
    // SAFETY: as in `pointer`.
    unsafe { bpf_probe_read_kernel(address as *const u64) }.ok()
}

/// The file that this process has open as `descriptor`.
#[inline(always)]
pub(crate) fn file_of(descriptor: i32, offsets: &Offsets) -> Option<u64> {
    let descriptor = u32::try_from(descriptor).ok()?;
    // SAFETY: the helper takes nothing and cannot fail.
    let task = unsafe { bpf_get_current_task() };
    let files = pointer(task, offsets.task_files)?;
    let table = pointer(files, offsets.files_fdt)?;
    let limit = table.wrapping_add(u64::from(offsets.fdtable_max_fds)) as *const u32;
    // SAFETY: as in `pointer`.
    let limit = unsafe { bpf_probe_read_kernel(limit) }.ok()?;
    if descriptor >= limit {
        return None;
    }
    let row = pointer(table, offsets.fdtable_fd)?;
    pointer(row.wrapping_add(u64::from(descriptor) * 8), 0)
}

/// The address of the function behind an operation of `file`.
#[inline(always)]
pub(crate) fn operation(file: u64, op: FileOp, offsets: &Offsets) -> Option<u64> {
    let operations = pointer(file, offsets.file_f_op)?;
    let [read, write, ioctl] = offsets.f_op;
    let offset = match op {
        FileOp::Read => read,
        FileOp::Write => write,
        FileOp::Ioctl => ioctl,
    };
    pointer(operations, offset)
}

/// How far `file` was read or written, in bytes.
#[inline(always)]
pub(crate) fn position(file: u64, offsets: &Offsets) -> u64 {
    pointer(file, offsets.file_f_pos).unwrap_or(0)
}

/// Reads the memory of the process. What is not resident is not read.
#[inline(always)]
pub(crate) fn from_user<T: Copy>(address: u64) -> Option<T> {
    // SAFETY: the helper takes any address: it fails where there is nothing to read and never faults. `T` is one of the structures of
    // `migscope_abi::v2`, `tracking` and `outside` or an integer, for which every bit pattern is a value.
    unsafe { bpf_probe_read_user(address as *const T) }.ok()
}

/// The running thread.
#[inline(always)]
pub(crate) fn thread() -> u64 {
    bpf_get_current_pid_tgid()
}

/// The process that it is of.
#[inline(always)]
pub(crate) fn process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}
