// SPDX-License-Identifier: GPL-2.0
//! A page that the device can reach and that is nobody's but the driver's.

use core::ptr::NonNull;

use kernel::{
    num::casts::usize_as_u64,
    page::{
        Page,
        PAGE_SIZE, //
    },
    prelude::*,
};

use crate::{
    abi::rule::Rule,
    ffi::bindings, //
};

/// A page of the driver's own that is mapped for the device.
///
/// Part of a device's state may be reachable by nothing but its DMA. To move it, the driver has the device do DMA to a page
/// of the driver's, and for that needs an address in the user's own address space. Two other ways were looked at:
///
/// - A page of the guest's memory as a bounce buffer, saved and put back. The VMM migrates that very page at the same time:
///   it may send the bounced bytes, or send the page before they are put back, and no dirty log of anybody's says so.
/// - `vfio_dma_rw()` and `vfio_pin_pages()`. They copy to and from the user's pages, the same pages again, and for a physical
///   device they work with the type 1 container only, not with iommufd.
///
/// So the driver maps its page for the time of the transfer at an address that nobody uses, and unmaps it. That address is
/// found by asking the page table. The user may map something there in the same moment: then one of the two maps fails with
/// `EADDRINUSE` (`drivers/iommu/generic_pt/iommu_pt.h`) and nothing is overwritten; if it is ours, the search goes on. The
/// user's map can only collide while a transfer is under way, which happens when the device stands still for migration, or at
/// reset, close and first use. Choosing first an address that a PC's memory map leaves to the VGA adapter makes even that
/// unlikely.
pub(crate) struct Scratch {
    domain: NonNull<bindings::iommu_domain>,
    iova: u64,
    page: Page,
}

impl Scratch {
    /// Length of the page, in bytes.
    pub(crate) const BYTES: usize = PAGE_SIZE;

    /// Maps a page at `first_choice`, or else at the highest free address below `limit`.
    ///
    /// # Errors
    ///
    /// [`Rule::NoIova`] or [`Rule::NoMemory`].
    pub(super) fn map(
        domain: NonNull<bindings::iommu_domain>,
        first_choice: u64,
        limit: u64,
    ) -> Result<Self, Rule> {
        let page = Page::alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO).map_err(|_| Rule::NoMemory)?;
        let step = usize_as_u64(Self::BYTES);
        let pages = limit / step;
        for page_number in (1..=pages).rev() {
            // Taken in its turn too, the first choice is only looked at twice.
            let iova = if page_number == pages { first_choice } else { page_number * step };
            // SAFETY: The domain is live while the device lock is held, and translates by page table (`shim.c`).
            if unsafe { bindings::iommu_iova_to_phys(domain.as_ptr(), iova) } != 0 {
                continue;
            }
            let Ok(address) = c_ulong::try_from(iova) else { continue };
            // SAFETY: As above; the page is live and is kept until it is unmapped.
            match unsafe {
                bindings::vfio_mediate_map_page(domain.as_ptr(), address, page.as_ptr())
            } {
                0 => return Ok(Self { domain, iova, page }),
                error if error == ENOMEM.to_errno() => return Err(Rule::NoMemory),
                // Taken in this moment, or outside of what the domain translates.
                _ => continue,
            }
        }
        Err(Rule::NoIova)
    }

    /// Where the device sees the page.
    pub(crate) fn iova(&self) -> u64 {
        self.iova
    }

    /// Copies from the start of the page.
    ///
    /// # Errors
    ///
    /// [`Rule::OutOfBounds`] if `out` is longer than the page.
    pub(crate) fn read(&self, out: &mut [u8]) -> Result<(), Rule> {
        // SAFETY: `out` is valid for writes of its length. The device may write the page meanwhile only if it breaks its
        // promise to be done, and then the bytes are whatever they are: it is memory that is never interpreted.
        unsafe { self.page.read_raw(out.as_mut_ptr(), 0, out.len()) }.map_err(|_| Rule::OutOfBounds)
    }

    /// Copies to the start of the page.
    ///
    /// # Errors
    ///
    /// [`Rule::OutOfBounds`] if `bytes` are more than the page.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), Rule> {
        // SAFETY: `bytes` is valid for reads of its length; the transfer has not been started.
        unsafe { self.page.write_raw(bytes.as_ptr(), 0, bytes.len()) }
            .map_err(|_| Rule::OutOfBounds)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: The page was mapped there by `map()`, and the device lock has been held since, so the domain is the same.
        // When the call is back, the IOMMU's caches are flushed too: a device that is late cannot reach the freed page.
        unsafe { bindings::iommu_unmap(self.domain.as_ptr(), self.iova as c_ulong, Self::BYTES) };
    }
}
