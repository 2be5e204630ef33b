// SPDX-License-Identifier: GPL-2.0
//! Device models: what the driver must know of a device to migrate it, and the provider that offers the known ones.
//!
//! A model answers four questions: which of its BARs is trapped and what an access there does; which DMA it has done; how it
//! is brought to rest and set going; and what its state is, as parts of an [`image`](crate::image). The protocol is not its
//! business: [`region`](crate::region) asks, under the device lock, in an order that the states allow.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

use crate::{
    abi::{
        region::{
            Op,
            REGION_SUBTYPE,
            REGION_TYPE, //
        },
        rule::Rule,
        trace::DmaDirection, //
    },
    image::{
        Identity,
        Kind,
        Part,
        Record, //
    },
    mediate::{
        Answer,
        Capabilities,
        Handle,
        Leftover,
        Opened,
        Provider, //
    },
    memory::MIN_WINDOW_BYTES,
    region::Migration,
    vendor::ModuleReference,
    vfio::{
        Access,
        BarMemory,
        Device,
        Mapping,
        Region,
        RegionInfo, //
    },
    windows::Windows,
};

mod edu;
mod ivshmem;

/// A DMA transfer between the device and memory.
#[derive(Clone, Copy)]
pub(crate) struct Transfer {
    /// Which way.
    pub(crate) direction: DmaDirection,
    /// First address in memory.
    pub(crate) iova: u64,
    /// Length, in bytes.
    pub(crate) bytes: u64,
}

/// Why a write to the trapped BAR was refused.
pub(crate) struct Refusal {
    /// The rule it broke.
    pub(crate) rule: Rule,
    /// The transfer that it asked for, if that was it.
    pub(crate) transfer: Option<Transfer>,
}

impl From<Rule> for Refusal {
    fn from(rule: Rule) -> Self {
        Self { rule, transfer: None }
    }
}

/// A kind of device that can migrate.
///
/// All calls come under the device lock, with the device awake. Those that take a [`Device`] may sleep.
///
/// [`Rule::DeviceFailed`] from [`save`](Self::save), [`restore`](Self::restore), [`start`](Self::start),
/// [`stop`](Self::stop) or [`reset`](Self::reset) means that the state is lost; after any other error the device is as it was.
pub(crate) trait DeviceModel: Send {
    /// The device's name in images.
    fn identity(&self) -> Identity;

    /// The parts of its state, in the order in which they are saved.
    fn parts(&self) -> &'static [Part];

    /// The BAR that is trapped.
    fn trapped_bar(&self) -> u32;

    /// The device's memory, which is saved page by page, while the device runs as well.
    fn memory(&self) -> Option<&Arc<BarMemory>> {
        None
    }

    /// The user reads `width` bytes of the trapped BAR, aligned to their width.
    fn bar_read(&mut self, device: &Device, offset: u64, width: usize) -> Result<u64, Rule>;

    /// The user writes `width` bytes of the trapped BAR, aligned to their width. The device runs.
    fn bar_write(
        &mut self,
        device: &Device,
        offset: u64,
        width: usize,
        value: u64,
    ) -> Result<(), Refusal>;

    /// A transfer that the user started and that is over now; each is given once.
    fn finished(&mut self, device: &Device) -> Option<Transfer>;

    /// Brings the device to rest: afterwards it does no DMA, and its state does not change by itself. Transfers that were
    /// under way end first; [`finished`](Self::finished) gives them.
    fn stop(&mut self, device: &Device) -> Result<(), Rule>;

    /// Sets a device going that [`stop`](Self::stop) brought to rest.
    fn start(&mut self, device: &Device) -> Result<(), Rule>;

    /// Appends the payload of a part. The device is at rest.
    fn save(&mut self, device: &Device, kind: Kind, payload: &mut KVVec<u8>) -> Result<(), Rule>;

    /// Whether this can be the payload of a part: [`Rule::ImageRecord`] if not.
    fn check(&self, kind: Kind, payload: &[u8]) -> Result<(), Rule>;

    /// Brings the device to the state of the parts, all of which were checked, and sets it going.
    fn restore(&mut self, device: &Device, parts: &[Record]) -> Result<(), Rule>;

    /// Brings the device to its power-on state, running.
    fn reset(&mut self, device: &Device) -> Result<(), Rule>;

    /// As [`reset`](Self::reset), and nothing that the user put there may stay anywhere in the device.
    fn scrub(&mut self, device: &Device) -> Result<(), Rule>;
}

/// The provider of the devices that have a model here.
pub(crate) struct Models;

impl Provider for Models {
    fn name(&self) -> &CStr {
        c"models"
    }

    fn module_reference(&self) -> Option<ModuleReference> {
        Some(ModuleReference::of_this_driver())
    }

    fn open(&self, device: &Device, left: Leftover) -> Result<Opened> {
        let model: KBox<dyn DeviceModel> = match device.ids() {
            edu::IDS => KBox::new(edu::Edu::new(left), GFP_KERNEL)?,
            ivshmem::IDS => KBox::new(ivshmem::Ivshmem::new(device, left)?, GFP_KERNEL)?,
            _ => return Err(ENODEV),
        };
        let trapped_bar = model.trapped_bar();
        let memory = model.memory().cloned();
        let windows = Arc::new(Windows::new()?, GFP_KERNEL)?;
        if memory.is_some() && windows.data.bytes() < MIN_WINDOW_BYTES {
            pr_err!("a device with memory needs a data_window of two pages or more\n");
            return Err(EINVAL);
        }
        let migration = Migration::open(device, model, windows.clone(), left)?;
        let handle = Arc::pin_init(
            try_pin_init!(Migratable {
                trapped_bar,
                memory,
                windows,
                migration <- new_mutex!(migration),
            }),
            GFP_KERNEL,
        )?;
        Ok(Opened { capabilities: Capabilities::MIGRATION, offers_reset: true, handle })
    }
}

/// An open device with a model and a migration region. The mutex is the device lock.
#[pin_data]
struct Migratable {
    trapped_bar: u32,
    // Both outside of the mutex, for [`Handle::mmap`].
    memory: Option<Arc<BarMemory>>,
    windows: Arc<Windows>,
    #[pin]
    migration: Mutex<Migration>,
}

impl Migratable {
    fn is_migration_region(region: Region) -> bool {
        region == Region::Added(REGION_TYPE, REGION_SUBTYPE)
    }

    fn is_memory(&self, region: Region) -> bool {
        self.memory.as_ref().is_some_and(|memory| region == Region::Bar(memory.bar()))
    }
}

impl Handle for Migratable {
    fn release(&self, device: Option<&Device>) -> Leftover {
        device.map_or(Leftover::Unknown, |device| self.migration.lock().close(device))
    }

    fn region_info(&self, info: &mut RegionInfo<'_>) -> Result {
        if Self::is_migration_region(info.region) {
            self.windows.describe(info)?;
        } else if info.region == Region::Bar(self.trapped_bar) {
            info.forbid_mmap();
        }
        Ok(())
    }

    fn rw(&self, device: &Device, access: &Access) -> Answer<Result<usize>> {
        if Self::is_migration_region(access.region) {
            Answer::Handled(self.migration.lock().access(device, access))
        } else if access.region == Region::Bar(self.trapped_bar) {
            Answer::Handled(self.migration.lock().bar_access(device, access))
        } else if access.op == Op::Write && self.is_memory(access.region) {
            Answer::Handled(self.migration.lock().memory_write(device, access))
        } else {
            Answer::PassThrough
        }
    }

    fn mmap(&self, mapping: &Mapping) -> Answer<Result> {
        if Self::is_migration_region(mapping.region) {
            Answer::Handled(self.windows.map(mapping))
        } else if mapping.region == Region::Bar(self.trapped_bar) {
            Answer::Handled(Err(EINVAL))
        } else {
            match &self.memory {
                Some(memory) if self.is_memory(mapping.region) => {
                    Answer::Handled(memory.map(mapping))
                }
                _ => Answer::PassThrough,
            }
        }
    }

    fn reset(&self, device: &Device) -> Answer<Result> {
        Answer::Handled(self.migration.lock().reset(device))
    }

    fn address_space_changes(&self, change: &mut dyn FnMut()) {
        let _held = self.migration.lock();
        change();
    }
}
