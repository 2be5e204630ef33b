// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The device under test: its group, a container with memory for DMA, and what it says of its regions.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, RwLock};

use anyhow::{Context as _, Result, bail, ensure};
use migscope_abi::device::DeviceKey;
use migscope_abi::region::{Field, HEADER_BYTES, Layout, REGION_SUBTYPE, REGION_TYPE};
use rustix::io::pread;

use crate::call::{self, Call, Outcome, PAGES, Pointer, Region, SLOTS, register};
use crate::execute::{Context, offset_of, query_registers, read, state};
use crate::model::{Kind, Setup, edu};
use crate::sys::{self, PAGE, Pages};

/// Memory for DMA: where it starts for the device, and how long it is.
const MEMORY: u64 = 0x10_0000;
const MEMORY_BYTES: usize = 0x4_0000;
/// Where the pages lie that come and go. The first is where the driver looks first for a place of its own.
pub(crate) const COMING: [u64; PAGES] = [0xa_0000, 0x20_0000, 0x20_1000, 0x40_0000];
/// Index of the configuration space's region, and bits of a file offset that are the offset in a region.
const CONFIG_REGION: u32 = 7;
const OFFSET_BITS: u32 = 40;
/// `struct vfio_iommu_type1_dma_map`: read and write.
const MAP_READ_WRITE: u32 = 3;
/// `VFIO_TYPE1v2_IOMMU`.
const TYPE1_V2: u64 = 3;
/// `VFIO_REGION_INFO_FLAG_MMAP`, `VFIO_REGION_INFO_CAP_SPARSE_MMAP`, `VFIO_REGION_INFO_CAP_TYPE`.
const FLAG_MMAP: u32 = 4;
const CAP_SPARSE: u32 = 1;
const CAP_TYPE: u32 = 2;
/// QEMU's `edu`.
const EDU: u32 = 0x11e8_1234;

/// A device with its container.
#[derive(Debug)]
pub struct Target {
    pub(crate) name: CString,
    pub(crate) slots: [RwLock<Option<OwnedFd>>; SLOTS],
    /// The index of the migration region.
    migration: u32,
    pub(crate) group: File,
    container: File,
    pub(crate) coming: Pages,
    pub(crate) sink: OwnedFd,
    /// Buffers of the save that goes on.
    pub(crate) saving: Mutex<Vec<Vec<u8>>>,
    /// The image that was saved last, and how much of it has been loaded.
    pub(crate) loading: Mutex<(Vec<u8>, usize)>,
    // Behind the container, which has it pinned.
    _memory: Pages,
}

/// What `VFIO_DEVICE_GET_REGION_INFO` says.
struct Info {
    flags: u32,
    bytes: u64,
    kind: Option<(u32, u32)>,
    areas: Vec<(u64, u64)>,
}

pub(crate) fn two(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

fn region_info(device: BorrowedFd<'_>, index: u32) -> io::Result<Info> {
    let mut words = [0_u32; 1024];
    let words_of = |bytes: u32| usize::try_from(bytes / 4).unwrap_or(usize::MAX);
    (words[0], words[2]) = (4096, index);
    sys::ioctl_on(device, sys::DEVICE_GET_REGION_INFO, &mut words)?;
    let at = |offset: usize| words.get(offset).copied().unwrap_or(0);
    let mut info =
        Info { flags: words[1], bytes: two(words[4], words[5]), kind: None, areas: Vec::new() };
    // A chain of capabilities, each with its number, version and the offset of the next.
    let mut capability = words_of(words[3]);
    while capability != 0 {
        match at(capability) & 0xffff {
            CAP_TYPE => info.kind = Some((at(capability + 2), at(capability + 3))),
            CAP_SPARSE => {
                for area in 0..words_of(at(capability + 2) * 4) {
                    let start = capability + 4 + area * 4;
                    let offset = two(at(start), at(start + 1));
                    info.areas.push((offset, two(at(start + 2), at(start + 3))));
                }
            }
            _ => {}
        }
        capability = words_of(at(capability + 1));
    }
    Ok(info)
}

impl Target {
    /// Opens a device in slot 0, with memory mapped for its DMA, and finds out what it is.
    ///
    /// # Errors
    ///
    /// What could not be opened, or found.
    pub fn open(key: DeviceKey) -> Result<(Self, Setup)> {
        let sysfs = Path::new("/sys/bus/pci/devices").join(key.to_string());
        let group = sysfs.join("iommu_group").read_link().context("no IOMMU group")?;
        let group = Path::new("/dev/vfio").join(group.file_name().context("no IOMMU group")?);
        let open = |path: &Path| {
            let file = File::options().read(true).write(true).open(path);
            file.with_context(|| format!("failed to open {}", path.display()))
        };
        let container = open(Path::new("/dev/vfio/vfio"))?;
        let group = open(&group)?;
        let mut descriptor =
            [u32::try_from(std::os::fd::AsRawFd::as_raw_fd(&container))
                .context("no descriptor")?];
        sys::ioctl_on(&group, sys::GROUP_SET_CONTAINER, &mut descriptor)
            .context("failed to put the group into a container")?;
        sys::ioctl(&container, sys::SET_IOMMU, TYPE1_V2).context("failed to set the IOMMU up")?;
        let memory = Pages::new(MEMORY_BYTES).context("no memory")?;
        let name = CString::new(key.to_string()).context("a device's name has no NUL")?;
        let device = sys::device(&group, &name).context("failed to open the device")?;

        let mut found = None;
        let mut info = [0_u32; 6];
        info[0] = 24;
        sys::ioctl_on(&device, sys::DEVICE_GET_INFO, &mut info).context("no device info")?;
        let regions = info[2];
        for index in 0..regions {
            // Not every index has a region behind it.
            let Ok(info) = region_info(device.as_fd(), index) else { continue };
            if info.kind == Some((REGION_TYPE, REGION_SUBTYPE)) {
                found = Some((index, info));
            }
        }
        let (migration, info) = found.context("the device has no migration region")?;
        let bar = region_info(device.as_fd(), 0).context("BAR 0 has no info")?;
        let mut ids = [0; 4];
        pread(&device, &mut ids, u64::from(CONFIG_REGION) << OFFSET_BITS)
            .context("failed to read configuration space")?;
        let kind = if u32::from_le_bytes(ids) == EDU { Kind::Edu } else { Kind::Opaque };

        let target = Self {
            name,
            slots: [RwLock::new(Some(device)), RwLock::new(None)],
            migration,
            group,
            container,
            coming: Pages::new(PAGE * PAGES).context("no memory")?,
            sink: sys::memory_file().context("no file in memory")?,
            saving: Mutex::default(),
            loading: Mutex::default(),
            _memory: memory,
        };
        target.map_dma(MEMORY, target._memory.address(), MEMORY_BYTES).context("no DMA memory")?;
        let areas = if info.flags & FLAG_MMAP == 0 {
            Vec::new()
        } else if info.areas.is_empty() {
            vec![(0, info.bytes)]
        } else {
            info.areas
        };
        let bitmap = target.find_bitmap(kind)?;
        let bytes = |length: u64| u32::try_from(length).context("a window of more than 4 GiB");
        let setup = Setup {
            kind,
            layout: Layout {
                data_bytes: bytes(bitmap - HEADER_BYTES)?,
                bitmap_bytes: bytes(info.bytes - bitmap)?,
            },
            areas,
            bar_bytes: bar.bytes,
            bar_mappable: bar.flags & FLAG_MMAP != 0,
            regions: regions.into(),
            memory: (MEMORY, MEMORY + 0x4_0000 - 1),
        };
        Ok((target, setup))
    }

    /// Where the bitmap window begins: the driver says so when there is a bitmap, so let there be one.
    fn find_bitmap(&self, kind: Kind) -> Result<u64> {
        ensure!(kind == Kind::Edu, "only an edu can be made to dirty a page on demand");
        let mut scratch = Vec::new();
        let context = Context::new(self, 0)?;
        let mut make = |call: Call| match context.call(call, &mut scratch) {
            Outcome::Done { bytes, .. } => Ok(register(&bytes).unwrap_or(0)),
            other => bail!("the device does not do what it takes to find its windows: {other}"),
        };
        let config = |offset, data| Call::Write {
            slot: 0,
            region: Region::Config,
            offset,
            data,
            pointer: Pointer::Good,
        };
        make(config(crate::model::COMMAND, vec![crate::model::COMMAND_MEMORY | 4, 0]))?;
        make(state(0, 3))?;
        let bar = |offset, value: u64| Call::Write {
            slot: 0,
            region: Region::Bar0,
            offset,
            data: value.to_le_bytes().to_vec(),
            pointer: Pointer::Good,
        };
        let registers = edu::DMA.into_iter().zip([edu::BUFFER, MEMORY, 1]);
        for (offset, value) in registers.chain([(edu::DMA_COMMAND, 1 | edu::TO_MEMORY)]) {
            make(bar(offset, value))?;
        }
        make(state(0, 2))?;
        for (field, value) in query_registers().into_iter().zip([MEMORY >> 12, 4096, 2]) {
            make(call::write(0, offset_of(field), value.to_le_bytes().to_vec()))?;
        }
        make(read(0, Field::CopiedPfns))?;
        let bitmap = make(read(0, Field::DataOffset))?;
        make(Call::Reset { slot: 0 })?;
        ensure!(bitmap > HEADER_BYTES, "the bitmap is not in a window of its own");
        Ok(bitmap)
    }

    pub(crate) fn map_dma(&self, iova: u64, address: u64, bytes: usize) -> io::Result<u64> {
        let [address, iova, bytes] =
            [address, iova, u64::try_from(bytes).expect("a length fits")].map(halves);
        let mut words = [[32, MAP_READ_WRITE], address, iova, bytes].concat();
        sys::ioctl_on(&self.container, sys::IOMMU_MAP_DMA, &mut words)
    }

    pub(crate) fn unmap_dma(&self, iova: u64, bytes: usize) -> io::Result<u64> {
        let [iova, bytes] = [iova, u64::try_from(bytes).expect("a length fits")].map(halves);
        let mut words = [[24, 0], iova, bytes].concat();
        sys::ioctl_on(&self.container, sys::IOMMU_UNMAP_DMA, &mut words)?;
        Ok(two(words[4], words[5]))
    }

    /// The offset of a region in the device's file.
    pub(crate) fn place(&self, region: Region, offset: u64) -> u64 {
        let index = match region {
            Region::Migration => self.migration,
            Region::Bar0 => 0,
            Region::Config => CONFIG_REGION,
            Region::Beyond => self.migration + 20,
        };
        (u64::from(index) << OFFSET_BITS) + offset
    }

    pub(crate) fn index(&self, region: Region) -> u32 {
        u32::try_from(self.place(region, 0) >> OFFSET_BITS).expect("an index fits")
    }
}
