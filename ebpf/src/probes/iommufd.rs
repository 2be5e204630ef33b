// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Dirty bits of an IOMMU's page tables (iommufd, Linux 6.7 and later).
//!
//! ```text
//!   iommufd_fops_ioctl ── iommufd_ucmd {ubuffer, cmd ─▶ the structure, copied in} ──▶ iommufd_hwpt_get_dirty_bitmap
//! ```
//!
//! The kernel adds bits to what is in the bitmap (`iova_bitmap_set()`), so what was told is what was added.
#![expect(unsafe_code, reason = "map values are reached through raw pointers")]

use crate::{
    emit::{lost, now_ns, seen},
    kernel::{from_kernel, pointer, process, tracking_offsets},
    maps::{KEPT, Kept, TrackerCall},
    tracker::{Asked, UNCOUNTED, answered, ends, switched},
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
    tracking::{BITMAP_NO_CLEAR, HwptBitmap, HwptTracking, TRACKING_ENABLE},
};

/// A page table is asked.
#[kprobe]
fn hwpt_bitmap(ctx: ProbeContext) -> u32 {
    seen(Probe::HwptBitmap);
    let Some(asked) = command::<HwptBitmap>(&ctx) else {
        lost(Probe::HwptBitmap, Lost::Unreadable);
        return 0;
    };
    let mut call = TrackerCall::new(Asked::Bitmap);
    call.object = u64::from(asked.hwpt_id);
    call.flags = asked.flags;
    call.bitmap = asked.data;
    call.page_bytes = asked.page_size;
    call.start_page = asked.iova.checked_div(asked.page_size).unwrap_or(0);
    call.pages = asked.length.checked_div(asked.page_size).unwrap_or(0);
    call.bits_before = call.count();
    call.began_ns = now_ns();
    call.begins(Probe::HwptBitmap);
    0
}

/// It has answered.
#[kretprobe]
fn hwpt_bitmap_return(ctx: RetProbeContext) -> u32 {
    let Some(call) = ends(Probe::HwptBitmapReturn) else {
        return 0;
    };
    let ended_ns = now_ns();
    let result = ctx.ret::<i32>();
    let mut outcome = Outcome::Error;
    let mut pages = 0;
    if result == 0 && call.bits_before != UNCOUNTED {
        let after = call.count();
        // Fewer than before: another thread of the process cleared bits meanwhile, and nobody knows which.
        if after != UNCOUNTED && after >= call.bits_before {
            pages = after - call.bits_before;
            outcome = if pages == 0 { Outcome::None } else { Outcome::Bitmap };
        }
    }
    if outcome != Outcome::Error {
        pages = not_kept(&call, pages);
    }
    answered(Probe::HwptBitmapReturn, Tracker::Iommufd, &call, ended_ns, outcome, pages);
    0
}

/// How many of `pages` that were told now were not told before as pages that stay dirty.
#[inline(always)]
fn not_kept(call: &TrackerCall, pages: u64) -> u64 {
    let end_page = call.start_page.saturating_add(call.pages);
    let mut told_before = 0;
    if let Some(kept) = KEPT.get_ptr(process()) {
        // SAFETY: a live value of the map; numbers that are looked at at once.
        let kept = unsafe { *kept };
        let within = kept.object == call.object
            && call.start_page <= kept.start_page
            && kept.end_page <= end_page;
        if within {
            told_before = kept.pages;
            let _ = KEPT.remove(process());
        }
    }
    if call.flags & BITMAP_NO_CLEAR != 0 {
        let kept = Kept { object: call.object, start_page: call.start_page, end_page, pages };
        // Without room for it pages may count twice; the map makes room.
        let _ = KEPT.insert(process(), kept, u64::from(BPF_ANY));
    }
    pages.saturating_sub(told_before)
}

/// Addresses are unmapped: what was told of them was the last.
#[kprobe]
fn ioas_unmap(_ctx: ProbeContext) -> u32 {
    if KEPT.remove(process()).is_ok() {
        seen(Probe::IoasUnmap);
    }
    0
}

/// Tracking is to be switched on or off.
#[kprobe]
fn hwpt_tracking(ctx: ProbeContext) -> u32 {
    seen(Probe::HwptTracking);
    let Some(asked) = command::<HwptTracking>(&ctx) else {
        lost(Probe::HwptTracking, Lost::Unreadable);
        return 0;
    };
    let on = asked.flags & TRACKING_ENABLE != 0;
    let call = TrackerCall::new(if on { Asked::Start } else { Asked::Stop });
    call.begins(Probe::HwptTracking);
    0
}

/// It was.
#[kretprobe]
fn hwpt_tracking_return(ctx: RetProbeContext) -> u32 {
    let Some(call) = ends(Probe::HwptTrackingReturn) else {
        return 0;
    };
    if ctx.ret::<i32>() == 0 {
        switched(Probe::HwptTrackingReturn, Tracker::Iommufd, call.asks(Asked::Start));
    }
    0
}

/// What the process asks, as iommufd has copied it.
#[inline(always)]
fn command<T: Copy>(ctx: &ProbeContext) -> Option<T> {
    let ucmd = ctx.arg::<u64>(0)?;
    let offsets = tracking_offsets().filter(|offsets| offsets.iommufd_known == 1)?;
    from_kernel(pointer(ucmd, offsets.ucmd_cmd)?)
}
