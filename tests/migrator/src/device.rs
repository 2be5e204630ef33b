// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A PCI device behind VFIO: opened through its group and a container, with memory that it can do DMA to.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use migscope_abi::device::DeviceKey;
use migscope_abi::region::{REGION_SUBTYPE, REGION_TYPE};
use vfio_bindings::bindings::vfio::{
    VFIO_IOMMU_DIRTY_PAGES_FLAG_START, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
    VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_NUM_REGIONS,
};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError};
use workload::edu::{Edu, Registers};

use crate::dirty::PageSet;
use crate::mapping::{MappedArea, Mapping};
use crate::memory::{DmaMemory, MemoryError};
use crate::region::{Region, RegionIo};
use crate::region_info::{InfoError, RegionInfo};
use crate::{PAGE_BYTES, sys};

/// Regions of its own that a device may have beside those of PCI; the migration region is one of them.
const OWN_REGIONS: u32 = 16;
/// PCI configuration space: the command register (`include/uapi/linux/pci_regs.h`, `PCI_COMMAND`).
const PCI_COMMAND: u64 = 0x04;
/// `PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER`: answer to memory accesses, be allowed to do DMA.
const PCI_COMMAND_MEMORY_MASTER: u16 = 0x0002 | 0x0004;

/// Why a device could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Not the form of a PCI address.
    #[error("`{0}` is no PCI address; one looks like 0000:00:03.0")]
    Address(String),
    /// No such device, or bound to another driver.
    #[error(
        "{0} is not bound to vfio_mediate: load the module and bind the device to it (driver_override)"
    )]
    NotBound(String),
    /// VFIO refused.
    #[error("could not open {device} through VFIO (is another process using it?)")]
    Open {
        /// Which device.
        device: String,
        /// Why.
        #[source]
        source: VfioError,
    },
    /// The memory could not be mapped.
    #[error("could not map the memory at {iova:#x} for the DMA of {device}")]
    Map {
        /// Which device.
        device: String,
        /// Where.
        iova: u64,
        /// Why.
        #[source]
        source: VfioError,
    },
    /// No memory.
    #[error("no memory for {device}")]
    Memory {
        /// Which device.
        device: String,
        /// Why.
        #[source]
        source: MemoryError,
    },
    /// The driver offers no migration region.
    #[error("{0} has no migration region (type 3, subtype 1)")]
    NoMigrationRegion(String),
    /// What the driver says of a region cannot be.
    #[error("{device} describes a region in a way that cannot be used")]
    RegionInfo {
        /// Which device.
        device: String,
        /// Why.
        #[source]
        source: InfoError,
    },
    /// Configuration space.
    #[error("could not enable memory and DMA in the PCI command register of {device}")]
    Config {
        /// Which device.
        device: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Where a region lies in the device's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Offset in the device's file.
    pub offset: u64,
    /// Length, in bytes.
    pub bytes: u64,
}

/// An open device with its memory.
pub struct Device {
    key: DeviceKey,
    migration: Placed,
    areas: Vec<Placed>,
    config: Placed,
    // Closed before the memory behind it goes away.
    device: VfioDevice,
    memory: DmaMemory,
    container: Arc<VfioContainer>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device")
            .field("key", &self.key)
            .field("migration", &self.migration)
            .finish_non_exhaustive()
    }
}

/// The devices that are bound to `vfio_mediate`, in the order of their addresses.
///
/// # Errors
///
/// What reading the driver's folder in sysfs failed with; [`io::ErrorKind::NotFound`] when the module is not loaded.
pub fn bound_devices() -> io::Result<Vec<DeviceKey>> {
    let mut devices = Vec::new();
    for entry in std::fs::read_dir("/sys/bus/pci/drivers/vfio_mediate")? {
        devices.extend(entry?.file_name().to_str().and_then(DeviceKey::parse));
    }
    devices.sort_unstable();
    Ok(devices)
}

impl Device {
    /// Opens a device in a container of its own, maps `memory` for its DMA and lets it do DMA.
    ///
    /// # Errors
    ///
    /// [`DeviceError`].
    pub fn open(key: DeviceKey, memory: DmaMemory) -> Result<Arc<Self>, DeviceError> {
        let device = key.to_string();
        let sysfs: PathBuf = Path::new("/sys/bus/pci/devices").join(&device);
        let driver = sysfs.join("driver").read_link().ok();
        let driver = driver.as_deref().and_then(Path::file_name);
        if driver.is_none_or(|name| name != "vfio_mediate") {
            return Err(DeviceError::NotBound(device));
        }
        let open = |source| DeviceError::Open { device: device.clone(), source };
        let container = Arc::new(VfioContainer::new(None).map_err(open)?);
        let vfio = VfioDevice::new(&sysfs, Arc::<VfioContainer>::clone(&container), false)
            .map_err(open)?;
        let opened = Self::with(key, vfio, container, memory)?;
        let iova = opened.memory.iova();
        sys::map_for_dma(&opened.container, opened.memory.guest_memory())
            .map_err(|source| DeviceError::Map { device: device.clone(), iova, source })?;
        opened.enable().map_err(|source| DeviceError::Config { device, source })?;
        Ok(Arc::new(opened))
    }

    /// Opens the same device once more, as a second program in the same container would: another descriptor, the same device.
    /// It has `memory` of its own, which is not mapped.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Open`].
    pub fn open_again(&self, memory: DmaMemory) -> Result<Arc<Self>, DeviceError> {
        let device = self.key.to_string();
        let sysfs = Path::new("/sys/bus/pci/devices").join(&device);
        let container = Arc::clone(&self.container);
        let vfio = VfioDevice::new(&sysfs, Arc::<VfioContainer>::clone(&container), false)
            .map_err(|source| DeviceError::Open { device, source })?;
        Self::with(self.key, vfio, container, memory).map(Arc::new)
    }

    fn with(
        key: DeviceKey,
        device: VfioDevice,
        container: Arc<VfioContainer>,
        memory: DmaMemory,
    ) -> Result<Self, DeviceError> {
        let own = VFIO_PCI_NUM_REGIONS..VFIO_PCI_NUM_REGIONS + OWN_REGIONS;
        let name = || key.to_string();
        let describe = |source| DeviceError::RegionInfo { device: name(), source };
        let mut found = None;
        for index in own {
            match RegionInfo::ask(sys::descriptor(&device), index) {
                Ok(info) if info.kind == Some((REGION_TYPE, REGION_SUBTYPE)) => found = Some(info),
                Ok(_) => {}
                // There are no more.
                Err(InfoError::Refused(_)) => break,
                Err(error) => return Err(describe(error)),
            }
        }
        let info = found.ok_or_else(|| DeviceError::NoMigrationRegion(name()))?;
        let (migration, areas) = (info.placed, info.mappable_areas().map_err(describe)?);
        let config = placed(&device, VFIO_PCI_CONFIG_REGION_INDEX);
        Ok(Self { key, migration, areas, config, device, memory, container })
    }

    /// Its PCI address.
    pub fn key(&self) -> DeviceKey {
        self.key
    }

    /// The memory that it does DMA to.
    pub fn memory(&self) -> &DmaMemory {
        &self.memory
    }

    /// The migration region, with an account that starts empty.
    pub fn region(self: &Arc<Self>) -> Region<DeviceRegion> {
        Region::new(DeviceRegion::of(self), self.migration.bytes)
    }

    /// The device's registers in BAR 0.
    pub fn edu(self: &Arc<Self>) -> Edu<DeviceBar> {
        Edu::new(self.bar(VFIO_PCI_BAR0_REGION_INDEX))
    }

    /// A BAR, by its number; of no bytes if the device has none of this number.
    pub fn bar(self: &Arc<Self>, number: u32) -> DeviceBar {
        // The numbers of the BARs are those of their regions.
        DeviceBar { placed: placed(&self.device, number), device: Arc::clone(self) }
    }

    /// Where the migration region lies.
    pub fn migration_region(&self) -> Placed {
        self.migration
    }

    /// The parts of the migration region that may be mapped, by their offsets in it.
    pub fn mappable_areas(&self) -> &[Placed] {
        &self.areas
    }

    /// Starts or stops the container's own dirty log, which knows nothing of the region.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn log_in_container(&self, on: bool) -> io::Result<()> {
        let start = VFIO_IOMMU_DIRTY_PAGES_FLAG_START;
        sys::dirty_log(&self.container, if on { start } else { VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP })
    }

    /// The pages of the memory that the container says are dirty; it forgets them. The memory must be a multiple of 64 pages.
    ///
    /// # Errors
    ///
    /// What the kernel refused with; `EINVAL` while the log is not started.
    pub fn dirty_in_container(&self) -> io::Result<PageSet> {
        let words = usize::try_from(self.memory.pages() / 64).expect("the memory is mapped");
        let mut bitmap = vec![0_u64; words];
        sys::dirty_bitmap(&self.container, self.memory.iova(), PAGE_BYTES, &mut bitmap)?;
        let is_set = |page: &u64| {
            let word = usize::try_from(page / 64).expect("a page of the memory");
            bitmap[word] >> (page % 64) & 1 == 1
        };
        let dirty = (0..self.memory.pages()).filter(is_set);
        Ok(dirty.map(|page| self.memory.first_pfn() + page).collect())
    }

    /// Reads the PCI command register.
    ///
    /// # Errors
    ///
    /// What the access failed with.
    pub fn command(&self) -> io::Result<u16> {
        let mut command = [0; 2];
        exact(self.read_at(self.config, PCI_COMMAND, &mut command)?, 2)?;
        Ok(u16::from_le_bytes(command))
    }

    /// Lets the device answer memory accesses and do DMA. Migrating the configuration space is the client's task, and this is
    /// the part of it that edu needs.
    ///
    /// # Errors
    ///
    /// What the access failed with.
    pub fn enable(&self) -> io::Result<()> {
        let command = self.command()? | PCI_COMMAND_MEMORY_MASTER;
        exact(self.write_at(self.config, PCI_COMMAND, &command.to_le_bytes())?, 2)
    }

    /// Maps a part of the migration region, by its place in the region.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn map(&self, part: Placed) -> io::Result<Mapping> {
        let position = self.migration.offset.checked_add(part.offset);
        let bytes = usize::try_from(part.bytes).ok();
        let (Some(position), Some(bytes)) = (position, bytes) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        Mapping::new(self.as_fd(), position, bytes)
    }

    fn read_at(&self, region: Placed, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let at = region.offset.checked_add(offset).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(rustix::io::pread(sys::descriptor(&self.device), into, at)?)
    }

    fn write_at(&self, region: Placed, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let at = region.offset.checked_add(offset).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(rustix::io::pwrite(sys::descriptor(&self.device), bytes, at)?)
    }
}

impl AsFd for Device {
    /// The device's file, for accesses that no method makes; they are in no account.
    fn as_fd(&self) -> BorrowedFd<'_> {
        sys::descriptor(&self.device)
    }
}

fn placed(device: &VfioDevice, index: u32) -> Placed {
    Placed { offset: device.get_region_offset(index), bytes: device.get_region_size(index) }
}

fn exact(done: usize, wanted: usize) -> io::Result<()> {
    if done == wanted {
        Ok(())
    } else {
        let text = format!("{done} of {wanted} bytes were transferred");
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
    }
}

/// What the ends of a migration need of a device: the seam behind which a test has no kernel.
pub trait Migratable {
    /// The migration region.
    type Io: RegionIo;
    /// The device's registers.
    type Registers: Registers;

    /// What the account calls the device.
    fn name(&self) -> String;

    /// The migration region, with an account that starts empty.
    fn region(&self) -> Region<Self::Io>;

    /// The device's registers.
    fn edu(&self) -> Edu<Self::Registers>;

    /// The memory that the device does DMA to.
    fn memory(&self) -> &DmaMemory;

    /// Restores what configuration space the device needs to run.
    ///
    /// # Errors
    ///
    /// What the access failed with.
    fn enable(&self) -> io::Result<()>;
}

impl Migratable for Arc<Device> {
    type Io = DeviceRegion;
    type Registers = DeviceBar;

    fn name(&self) -> String {
        self.key.to_string()
    }

    fn region(&self) -> Region<DeviceRegion> {
        Device::region(self)
    }

    fn edu(&self) -> Edu<DeviceBar> {
        Device::edu(self)
    }

    fn memory(&self) -> &DmaMemory {
        Device::memory(self)
    }

    fn enable(&self) -> io::Result<()> {
        Device::enable(self)
    }
}

/// The migration region of an open device.
#[derive(Debug)]
pub struct DeviceRegion {
    // Unmapped before the device can be closed: a mapping keeps the kernel's side of it open.
    mapped: Vec<MappedArea>,
    device: Arc<Device>,
}

impl DeviceRegion {
    fn of(device: &Arc<Device>) -> Self {
        Self { mapped: Vec::new(), device: Arc::clone(device) }
    }
}

impl RegionIo for DeviceRegion {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.device.read_at(self.device.migration, offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.device.write_at(self.device.migration, offset, bytes)
    }

    fn reset(&self) -> io::Result<()> {
        sys::reset(&self.device.device)
    }

    fn map(&mut self) -> io::Result<()> {
        if !self.mapped.is_empty() {
            return Ok(());
        }
        let mapped = self.device.areas.iter().map(|area| {
            let mapping = self.device.map(*area)?;
            Ok(MappedArea::new(area.offset, mapping))
        });
        self.mapped = mapped.collect::<io::Result<_>>()?;
        Ok(())
    }

    fn mapped_areas(&self) -> &[MappedArea] {
        &self.mapped
    }
}

/// A BAR of an open device.
#[derive(Clone, Debug)]
pub struct DeviceBar {
    device: Arc<Device>,
    placed: Placed,
}

impl DeviceBar {
    /// Where it lies in the device's file.
    pub fn placed(&self) -> Placed {
        self.placed
    }
}

impl Registers for DeviceBar {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let wanted = bytes.len();
        exact(self.device.read_at(self.placed, offset, bytes)?, wanted)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        exact(self.device.write_at(self.placed, offset, bytes)?, bytes.len())
    }
}
