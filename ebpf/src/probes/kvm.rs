// SPDX-License-Identifier: GPL-2.0 OR MIT
//! KVM's account of what its processors write: the dirty log of a slot of memory, and the dirty rings.
//!
//! ```text
//!   kvm_vm_ioctl                begins ──▶ which call
//!     kvm_arch_sync_dirty_log   ─────────▶   the slot: how long its bitmap is, and whether the log forgets what it tells
//!   kvm_vm_ioctl                ends ────▶ sums
//! ```
//!
//! `KVM_RUN` goes through another function and pays nothing. Other ioctls of the machine (interrupts of a VMM with an irqchip of its
//! own) return at once.
//!
//! **What counts.** `KVM_GET_DIRTY_LOG` writes over the whole bitmap and forgets what it told, so each page that it tells counts. With
//! `KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2` it forgets nothing, and tells the same page each time until `KVM_CLEAR_DIRTY_LOG` names it. What it
//! tells then is what it told and was not cleared, and what was dirtied since; so the first is kept by slot, and taken off. A VMM clears what
//! it was told, in bitmaps that say so. The ring tells pages in memory that it shares with the VMM, and `KVM_RESET_DIRTY_RINGS` says of how
//! many it took the places back.
#![expect(unsafe_code, reason = "map values are reached through raw pointers")]

use crate::{
    emit::{lost, now_ns, seen},
    kernel::{from_kernel, from_user, pointer, thread, tracking_offsets},
    maps::{KVM_TOLD, KvmSlot, TRACKER_CALLS, TrackerCall},
    tracker::{Asked, UNCOUNTED, answered, ends},
};
use aya_ebpf::{
    bindings::BPF_ANY,
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use migscope_abi::{
    dirty::Outcome,
    machine::Tracker,
    probe::Probe,
    ring::Lost,
    tracking::{
        KVM_CLEAR_DIRTY_LOG, KVM_GET_DIRTY_LOG, KVM_RESET_DIRTY_RINGS, KVM_SET_USER_MEMORY_REGION,
        KVM_SET_USER_MEMORY_REGION2, KvmClearDirtyLog, KvmDirtyLog, TrackingOffsets,
    },
};

/// The slot was seen.
const SLOT_KNOWN: u32 = 1 << 0;
/// The log forgets only what it is told to.
const MANUAL: u32 = 1 << 1;

/// An ioctl begins.
#[kprobe]
fn kvm(ctx: ProbeContext) -> u32 {
    let (Some(file), Some(command), Some(arg)) =
        (ctx.arg::<u64>(0), ctx.arg::<u32>(1), ctx.arg::<u64>(2))
    else {
        return 0;
    };
    let looked_at = matches!(
        command,
        KVM_GET_DIRTY_LOG
            | KVM_CLEAR_DIRTY_LOG
            | KVM_RESET_DIRTY_RINGS
            | KVM_SET_USER_MEMORY_REGION
            | KVM_SET_USER_MEMORY_REGION2
    );
    if !looked_at {
        return 0;
    }
    seen(Probe::Kvm);
    if begins(file, command, arg).is_none() {
        lost(Probe::Kvm, Lost::Unreadable);
    }
    0
}

/// Takes in what is asked; `None` for what could not be read.
#[inline(always)]
fn begins(file: u64, command: u32, arg: u64) -> Option<()> {
    let offsets = offsets()?;
    let kvm = pointer(file, offsets.file_private_data)?;
    // `slot` is the first field of whatever is asked of one.
    let slot = match command {
        KVM_RESET_DIRTY_RINGS => 0,
        _ => u64::from(from_user::<u32>(arg)?),
    };
    let mut call = match command {
        KVM_GET_DIRTY_LOG => {
            let log = from_user::<KvmDirtyLog>(arg)?;
            TrackerCall { bitmap: log.bitmap, ..TrackerCall::new(Asked::Bitmap) }
        }
        KVM_CLEAR_DIRTY_LOG => {
            let log = from_user::<KvmClearDirtyLog>(arg)?;
            let mut call = TrackerCall::new(Asked::Clear);
            call.bitmap = log.bitmap;
            call.pages = u64::from(log.pages);
            call.bits_before = call.count();
            call
        }
        KVM_RESET_DIRTY_RINGS => TrackerCall::new(Asked::Reset),
        _ => {
            // The slot gets another log, or none.
            let _ = KVM_TOLD.remove(KvmSlot { kvm, slot });
            return Some(());
        }
    };
    call.object = kvm;
    call.slot = slot;
    call.page_bytes = u64::from(offsets.page_bytes);
    call.begins(Probe::Kvm);
    Some(())
}

/// The slot is found.
#[kprobe]
fn kvm_slot(ctx: ProbeContext) -> u32 {
    let Some(call) = TRACKER_CALLS.get_ptr_mut(thread()) else {
        return 0;
    };
    let (Some(kvm), Some(slot)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1)) else {
        return 0;
    };
    seen(Probe::KvmSlot);
    let field = |base: u64, offset: u32| from_kernel::<u64>(base.wrapping_add(u64::from(offset)));
    let told = offsets().and_then(|offsets| {
        Some((
            field(slot, offsets.slot_base_gfn)?,
            field(slot, offsets.slot_pages)?,
            field(kvm, offsets.kvm_manual_protect)?,
        ))
    });
    let Some((first_page, pages, manual)) = told else {
        lost(Probe::KvmSlot, Lost::Unreadable);
        return 0;
    };
    // SAFETY: `call` is a live value of the map, aligned to eight bytes; it belongs to the running thread, which runs this program alone.
    let call = unsafe { &mut *call };
    call.start_page = call.start_page.wrapping_add(first_page);
    if call.asks(Asked::Bitmap) {
        call.pages = pages;
    }
    call.flags |= if manual == 0 { SLOT_KNOWN } else { SLOT_KNOWN | MANUAL };
    0
}

/// An ioctl ends.
#[kretprobe]
fn kvm_return(ctx: RetProbeContext) -> u32 {
    let Some(call) = ends(Probe::KvmReturn) else {
        return 0;
    };
    let ended_ns = now_ns();
    let result = ctx.ret::<i32>();
    if call.asks(Asked::Clear) {
        // One that is refused has cleared nothing.
        if result == 0 {
            cleared(&call);
        }
        return 0;
    }
    let (outcome, pages) = if call.asks(Asked::Reset) {
        match u64::try_from(result) {
            Ok(0) => (Outcome::None, 0),
            Ok(pages) => (Outcome::Bitmap, pages),
            Err(_) => (Outcome::Error, 0),
        }
    } else if result != 0 || call.flags & SLOT_KNOWN == 0 {
        // Refused; or how long the bitmap is was not seen, and so not what was told.
        (Outcome::Error, 0)
    } else {
        match call.count() {
            UNCOUNTED => (Outcome::Error, 0),
            pages => (if pages == 0 { Outcome::None } else { Outcome::Bitmap }, news(&call, pages)),
        }
    };
    answered(Probe::KvmReturn, Tracker::Kvm, &call, ended_ns, outcome, pages);
    0
}

/// How many of `pages` that were told were not told before and are not cleared.
#[inline(always)]
fn news(call: &TrackerCall, pages: u64) -> u64 {
    if call.flags & MANUAL == 0 {
        return pages;
    }
    let slot = KvmSlot { kvm: call.object, slot: call.slot };
    // SAFETY: the number is copied at once.
    let told_before = unsafe { KVM_TOLD.get(slot) }.copied().unwrap_or(0);
    // It makes room for itself.
    let _ = KVM_TOLD.insert(slot, pages, u64::from(BPF_ANY));
    pages.saturating_sub(told_before)
}

/// Pages were cleared, which were told before.
#[inline(always)]
fn cleared(call: &TrackerCall) {
    let slot = KvmSlot { kvm: call.object, slot: call.slot };
    // SAFETY: the number is copied at once.
    let Some(told) = unsafe { KVM_TOLD.get(slot) }.copied() else {
        return;
    };
    // Of what could not be counted nothing is left: pages may count twice, and none is hidden.
    let left = told.saturating_sub(call.bits_before);
    let _ = KVM_TOLD.insert(slot, left, u64::from(BPF_ANY));
}

#[inline(always)]
fn offsets() -> Option<&'static TrackingOffsets> {
    tracking_offsets().filter(|offsets| offsets.kvm_known == 1)
}
