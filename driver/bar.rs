// SPDX-License-Identifier: GPL-2.0
//! The trapped BAR: accesses of the user to the device itself, and the DMA that they bring about.
//!
//! Every access goes through the device's model, under the device lock. A device that does not run takes no writes. DMA is
//! logged when it is seen to be over, not when it is started: a page that is reported before the data has landed would be
//! copied too early and then be clean. One looks at each access to the BAR, at each dirty query and at each change of state, so
//! what a user can know to be over is in the log.
//!
//! # Why the container's own log is not told
//!
//! A VMM of the RFC's time (QEMU 5.2 to 7.2) does not ask the region for dirty pages but the container
//! (`VFIO_IOMMU_DIRTY_PAGES`), where type 1 calls all memory dirty that a physical device can reach. There is a way to change
//! that: `vfio_pin_pages()` marks what it pins, and the first pin takes the device's group out of "everything". So a driver that
//! sees each DMA could pin and unpin one page when saving begins and, from then on, what each transfer wrote. This driver does
//! not, because type 1 (`drivers/vfio/vfio_iommu_type1.c`, Linux 7.3) keeps that way for emulated devices, and with a physical
//! one its user can turn it against the host:
//!
//! - A user may take the addresses of the mappings back for a while (`VFIO_DMA_UNMAP_FLAG_VADDR`). With an emulated device in the
//!   container that is refused; with a physical one it is not, and the next pin runs into a `WARN_ONCE()`
//!   (`vfio_iommu_type1_pin_pages()`), which ends a host that panics on warnings. A driver cannot see it coming.
//! - A user may unmap a page in the moment in which it is pinned. `vfio_dma_do_unmap()` then calls the driver's `dma_unmap()` and
//!   looks again, and after ten rounds in which the page is still pinned it is a `BUG_ON()`. So `dma_unmap()` would have to wait
//!   until the page is unpinned. But it is called with `device_list_lock` held, which another unmap waits for while it holds the
//!   `lock` that unpinning takes: three threads of one user, and none of them goes on.
//! - The first pin cannot be undone. From then on what is not pinned is clean, and a pin that fails (no memory; the addresses
//!   taken back, as above) hides a page, in a log that has no other way to be told that it is wrong.
//!
//! `vfio_dma_rw()` marks pages, too, but only by writing them, which the guest's CPU does at the same time. So the container goes
//! on to call everything dirty: costly, and never wrong. A user of QEMU 7.2 who needs pre-copy to converge has
//! `x-pre-copy-dirty-page-tracking=off`, with which QEMU asks the container only after the device has stopped, and takes all
//! of the memory once more then.

use kernel::{
    num::casts::usize_as_u64,
    prelude::*, //
};

use crate::{
    abi::{
        region::{
            Field,
            Op, //
        },
        rule::Rule,
        trace::{
            self as record,
            DmaDirection, //
        },
    },
    device::Transfer,
    dirty::Range,
    region::{
        Migration,
        Refused,
        Session, //
    },
    trace,
    vfio::{
        Access,
        Device, //
    },
};

impl Migration {
    /// One read or write of the trapped BAR, cut into pieces as vfio-pci-core cuts it (`vfio_pci_core_do_io_rw()`): each is
    /// as wide as its alignment and the rest allow. So a long write cannot reach a register behind the trap.
    ///
    /// # Errors
    ///
    /// The errno of the rule that a piece breaks; the pieces before it are done.
    pub(crate) fn bar_access(&mut self, device: &Device, access: &Access) -> Result<usize> {
        let bar_bytes = device.bar_bytes(self.model.trapped_bar());
        let rest = bar_bytes.saturating_sub(access.offset);
        let bytes = usize::try_from(rest).map_or(access.bytes, |rest| rest.min(access.bytes));
        if bytes == 0 {
            let refused = Refused { field: Field::Nothing, value: 0, rule: Rule::OutOfBounds };
            return Err(self.refuse(access.offset, access.bytes, access.op, &refused));
        }
        let mut done = 0;
        while done < bytes {
            let offset = access.offset + usize_as_u64(done);
            let width = [8, 4, 2, 1]
                .into_iter()
                .find(|width| *width <= bytes - done && offset % usize_as_u64(*width) == 0)
                .unwrap_or(1);
            let mut value = 0;
            self.poll(device);
            self.bar_piece(device, access, done, offset, width, &mut value).map_err(|rule| {
                let refused = Refused { field: Field::Nothing, value, rule };
                self.refuse(offset, width, access.op, &refused)
            })?;
            done += width;
        }
        Ok(bytes)
    }

    fn bar_piece(
        &mut self,
        device: &Device,
        access: &Access,
        at: usize,
        offset: u64,
        width: usize,
        value: &mut u64,
    ) -> Result<(), Rule> {
        let mut bytes = [0; 8];
        if access.op == Op::Read {
            let read = self.model.bar_read(device, offset, width)?;
            bytes.copy_from_slice(&read.to_le_bytes());
            return access.give(at, bytes.get(..width).unwrap_or_default());
        }
        access.take(at, bytes.get_mut(..width).unwrap_or_default())?;
        *value = u64::from_le_bytes(bytes);
        if !self.state.is_running() {
            return Err(Rule::DeviceStopped);
        }
        self.model.bar_write(device, offset, width, *value).map_err(|refusal| {
            if let Some(transfer) = refusal.transfer {
                self.trace_dma(&transfer, 0, -refusal.rule.errno());
            }
            refusal.rule
        })
    }

    /// Logs the DMA that has ended since anybody looked.
    pub(crate) fn poll(&mut self, device: &Device) {
        let Some(transfer) = self.model.finished(device) else { return };
        let logged_pages = match (&mut self.session, transfer.direction) {
            (Session::Saving(saving), DmaDirection::ToMemory) => {
                Range::touched(transfer.iova, transfer.bytes)
                    .map_or(0, |range| saving.log.mark(range))
            }
            _ => 0,
        };
        self.trace_dma(&transfer, logged_pages, 0);
    }

    fn trace_dma(&self, transfer: &Transfer, logged_pages: u64, result: i32) {
        trace::dma(|| record::Dma {
            device: self.key.0,
            iova: transfer.iova,
            bytes: transfer.bytes,
            logged_pages,
            direction: transfer.direction as u32,
            state: self.state as u32,
            result,
            reserved: 0,
        });
    }
}
