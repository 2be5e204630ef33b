// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Dirty queries of the type 1 container: `VFIO_IOMMU_DIRTY_PAGES` with `GET_BITMAP`.
//!
//! A container whose only device is a mediated one (mtty) maps without pinning, so a mapping of 1 TiB costs nothing and its
//! query is the real one. What it costs does not depend on how much is dirty: `update_user_bitmap()` in
//! `drivers/vfio/vfio_iommu_type1.c` copies one bit for each page of the range to the user and clears its own, whatever they
//! are. So there is one figure for all densities.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::mtty::Mtty;
use crate::result::Runs;
use crate::sys::{self, DirtyPages};

const PAGE_BYTES: u64 = 4096;

/// The time of a query over `bytes` bytes of I/O address space.
pub(super) fn query(bytes: u64, runs: u32) -> Result<Runs> {
    let mtty = Mtty::create()?;
    let reserved = sys::reserve(usize::try_from(bytes)?).context("no address space")?;
    let container = &*mtty.container;
    sys::map(container, &reserved, bytes).context("VFIO_IOMMU_MAP_DMA")?;
    sys::dirty_pages(container, DirtyPages::Start).context("start")?;
    let mut bitmap = vec![0_u64; usize::try_from(bytes / PAGE_BYTES / 64)?];
    let mut results = Runs::default();
    // The first faults the bitmap in.
    for run in 0..=runs {
        let began = Instant::now();
        sys::dirty_pages(container, DirtyPages::GetBitmap { bytes, bitmap: &mut bitmap })
            .context("get")?;
        let took = began.elapsed();
        if run > 0 {
            results.add_times(1, took);
        }
    }
    ensure!(bitmap.iter().all(|word| *word == 0), "nothing was written, and pages are dirty");
    sys::dirty_pages(container, DirtyPages::Stop).context("stop")?;
    sys::unmap(container, bytes).context("VFIO_IOMMU_UNMAP_DMA")?;
    Ok(results)
}
