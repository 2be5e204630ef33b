// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The kernel's own structures: followed from one to the next, by the offsets that the agent found in the kernel's type information.
//!
//! ```text
//!   file ─private_data─▶ vfio_device_file ─device─▶ vfio_device ─dev─▶ device.kobj ─name─▶ "0000:00:03.0" or a UUID
//!                        (before Linux 6.6 not there)
//!   task ─files─▶ files_struct ─fdt─▶ fdtable ─fd[n]─▶ file ─f_op─▶ file_operations ─read, write, unlocked_ioctl─▶ functions
//! ```
#![expect(unsafe_code, reason = "kernel memory is reached through raw pointers")]

use crate::maps::{DEVICE_NAMES, OFFSETS, TRACKING_OFFSETS};
use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_task, bpf_probe_read_kernel,
        bpf_probe_read_kernel_str_bytes, bpf_probe_read_user,
    },
};
use migscope_abi::{
    device::{DeviceKey, NAME_BYTES},
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

/// The device whose file this is. Its name is put down.
#[inline(always)]
pub(crate) fn device_of(file: u64, offsets: &Offsets) -> Option<u64> {
    let mut device = pointer(file, offsets.file_private_data)?;
    if offsets.device_file_device_plus_one != 0 {
        device = pointer(device, offsets.device_file_device_plus_one.wrapping_sub(1))?;
    }
    let parent = pointer(device, offsets.vfio_device_dev)?;
    let name = pointer(parent, offsets.device_name)?;
    let mut bytes = [0; NAME_BYTES];
    // SAFETY: the helper takes any address and writes no more than `bytes` has room for.
    unsafe { bpf_probe_read_kernel_str_bytes(name as *const u8, &mut bytes) }.ok()?;
    let key = DeviceKey::of_name(&bytes);
    // It is there already but the first time. Without room for it the device is shown by its key.
    let _ = DEVICE_NAMES.insert(key.0, bytes, u64::from(BPF_NOEXIST));
    Some(key.0)
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
    // `migscope_abi::v2` and `tracking` or an integer, for which every bit pattern is a value.
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
