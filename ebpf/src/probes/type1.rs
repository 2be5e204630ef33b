// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The dirty log of a container (`VFIO_IOMMU_DIRTY_PAGES`, and unmapping with a bitmap): the IOMMU of type 1.
//!
//! Where a group's devices pin nothing, all that is mapped is dirty, each time that somebody asks (`update_user_bitmap()`). A bitmap in which
//! every page is set is taken for that.
//!
//! The kernel writes over what was in the bitmap, but for stretches of the range where nothing is mapped: what stands there afterwards is
//! what the process takes for dirty, so that is what is counted.

use crate::{
    emit::{lost, now_ns, seen},
    kernel::from_user,
    maps::TrackerCall,
    tracker::{Asked, UNCOUNTED, answered, ends, switched},
};
use aya_ebpf::{
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use migscope_abi::{
    dirty::Outcome,
    machine::Tracker,
    probe::Probe,
    ring::Lost,
    tracking::{
        DIRTY_PAGES_GET_BITMAP, DIRTY_PAGES_START, DIRTY_PAGES_STOP, Type1Bitmap, UNMAP_GET_BITMAP,
        VFIO_IOMMU_DIRTY_PAGES, VFIO_IOMMU_UNMAP_DMA,
    },
};

/// An ioctl begins.
#[kprobe]
fn type1(ctx: ProbeContext) -> u32 {
    let (Some(command), Some(arg)) = (ctx.arg::<u32>(1), ctx.arg::<u64>(2)) else {
        return 0;
    };
    if command != VFIO_IOMMU_DIRTY_PAGES && command != VFIO_IOMMU_UNMAP_DMA {
        return 0;
    }
    // `flags` stands behind `argsz` in both.
    let Some(flags) = from_user::<u32>(arg.wrapping_add(4)) else {
        lost(Probe::Type1, Lost::Unreadable);
        return 0;
    };
    let asked = match (command, flags) {
        (VFIO_IOMMU_UNMAP_DMA, flags) if flags & UNMAP_GET_BITMAP != 0 => Asked::LastBitmap,
        (VFIO_IOMMU_DIRTY_PAGES, DIRTY_PAGES_START) => Asked::Start,
        (VFIO_IOMMU_DIRTY_PAGES, DIRTY_PAGES_STOP) => Asked::Stop,
        (VFIO_IOMMU_DIRTY_PAGES, DIRTY_PAGES_GET_BITMAP) => Asked::Bitmap,
        // An unmapping that asks nothing, or what the kernel refuses.
        _ => return 0,
    };
    seen(Probe::Type1);
    let mut call = TrackerCall::new(asked);
    if matches!(asked, Asked::Bitmap | Asked::LastBitmap) {
        let Some(range) = from_user::<Type1Bitmap>(arg) else {
            lost(Probe::Type1, Lost::Unreadable);
            return 0;
        };
        call.bitmap = range.bitmap;
        call.page_bytes = range.page_size;
        call.start_page = range.iova.checked_div(range.page_size).unwrap_or(0);
        call.pages = range.size.checked_div(range.page_size).unwrap_or(0);
    }
    call.begins(Probe::Type1);
    0
}

/// It ends.
#[kretprobe]
fn type1_return(ctx: RetProbeContext) -> u32 {
    let Some(call) = ends(Probe::Type1Return) else {
        return 0;
    };
    let ended_ns = now_ns();
    let result = ctx.ret::<i32>();
    if call.asks(Asked::Start) || call.asks(Asked::Stop) {
        if result == 0 {
            switched(Probe::Type1Return, Tracker::Type1, call.asks(Asked::Start));
        }
        return 0;
    }
    let (outcome, pages) = match (result, call.count()) {
        (0, UNCOUNTED) => (Outcome::Error, 0),
        (0, 0) => (Outcome::None, 0),
        (0, pages) if pages == call.pages => (Outcome::All, pages),
        (0, pages) => (Outcome::Bitmap, pages),
        _ => (Outcome::Error, 0),
    };
    let probe = Probe::Type1Return;
    let machine = answered(probe, Tracker::Type1, &call, ended_ns, outcome, pages);
    if let Some(machine) = machine
        && call.asks(Asked::Bitmap)
        && result == 0
    {
        let start = call.start_page.wrapping_mul(call.page_bytes);
        machine.goes_round(start, call.bytes(), outcome == Outcome::All);
    }
    0
}
