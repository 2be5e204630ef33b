// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The sums of one device: found or made, and changed in place.
#![expect(unsafe_code, reason = "map values are reached through raw pointers")]

use crate::{
    emit::{lost, now_ns},
    maps::DEVICE_SUMS,
};
use aya_ebpf::bindings::BPF_NOEXIST;
use core::hint::black_box;
use migscope_abi::{
    probe::Probe,
    ring::{DeviceSums, Left, Lost, STATE_UNKNOWN, Stay, Withheld},
};

/// What a device starts with: nothing counted, and its state not yet told. Too large for a program's stack of 512 bytes.
pub(crate) static START: DeviceSums = DeviceSums {
    data_bytes: [0; 2],
    iterations: [0; 2],
    dirty_queries: [0; 4],
    dirty_pages: 0,
    dirty_bytes: 0,
    dma_transfers: [0; 2],
    dma_bytes: [0; 2],
    pending_bytes: 0,
    pending_reads: 0,
    state: STATE_UNKNOWN,
    last_seen_ns: 0,
    data_busy_ns: [0; 2],
    query_busy_ns: 0,
    stay: Stay::NONE,
    left: Left::NONE,
    withheld: Withheld::NEVER,
};

/// Changes the sums of `device` and gives them back, or counts the loss when the map has no room for another device.
#[inline(always)]
pub(crate) fn update(
    probe: Probe,
    device: u64,
    change: impl FnOnce(&mut DeviceSums),
) -> Option<*mut DeviceSums> {
    let entry = entry(probe, device)?;
    // SAFETY: `entry` is a value of the map, aligned to eight bytes and alive while the program runs. The driver emits all
    // records of a device under that device's lock, so no other program changes this value; user space gets copies.
    let sums = unsafe { &mut *entry };
    change(sums);
    sums.last_seen_ns = now_ns();
    Some(entry)
}

/// The entry of `device`, which is made if there is none; or counts the loss when the map has no room for another device.
#[inline(always)]
pub(crate) fn entry(probe: Probe, device: u64) -> Option<*mut DeviceSums> {
    let entry = DEVICE_SUMS.get_ptr_mut(device).or_else(|| {
        // Another CPU may have made the entry meanwhile: whoever came first, it is found now.
        #[expect(
            clippy::needless_borrows_for_generic_args,
            reason = "by value it would be copied to the stack"
        )]
        let _ = DEVICE_SUMS.insert(device, &START, u64::from(BPF_NOEXIST));
        DEVICE_SUMS.get_ptr_mut(device)
    });
    if entry.is_none() {
        lost(probe, Lost::MapFull);
    }
    entry
}

/// Adds to one of a row of counters; an index that is none adds nothing.
#[inline(always)]
pub(crate) fn add<const N: usize>(row: &mut [u64; N], index: u32, amount: u64) {
    // The compiler may know that the index fits and leave the check out; the verifier follows no such proof and wants to see it.
    let index = black_box(index as usize);
    if let Some(slot) = row.get_mut(index) {
        *slot = slot.wrapping_add(amount);
    }
}
