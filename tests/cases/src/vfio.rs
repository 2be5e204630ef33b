// SPDX-License-Identifier: Apache-2.0 OR MIT
//! VFIO as the kernel has it: each call gives what the kernel gave, the errno of a failed open included, and nothing is
//! presumed about the device.
//!
//! `migrator::device` opens a device that can migrate; this opens any, to see what a provider makes of it.
#![expect(unsafe_code, reason = "ioctl and mmap")]

use std::ffi::{CString, c_ulong, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::ptr;

use migscope_abi::device::DeviceKey;

/// A position in the device's file is `index << OFFSET_BITS | offset` (`VFIO_PCI_OFFSET_SHIFT`).
pub const OFFSET_BITS: u32 = 40;
/// The region of configuration space.
pub const CONFIG_REGION: u32 = 7;
/// Regions of PCI; the driver's own come after them.
pub const PCI_REGIONS: u32 = 9;

/// `VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE`
pub const READ_WRITE: u32 = 0b011;
/// `VFIO_REGION_INFO_FLAG_MMAP`
pub const MMAP: u32 = 0b100;
/// `VFIO_REGION_INFO_FLAG_CAPS`
pub const CAPS: u32 = 0b1000;

// `_IO(';', 100 + n)`, include/uapi/linux/vfio.h.
const SET_IOMMU: c_ulong = 0x3b66;
const GROUP_SET_CONTAINER: c_ulong = 0x3b68;
const GROUP_GET_DEVICE_FD: c_ulong = 0x3b6a;
const DEVICE_GET_INFO: c_ulong = 0x3b6b;
const DEVICE_GET_REGION_INFO: c_ulong = 0x3b6c;
const DEVICE_RESET: c_ulong = 0x3b6f;
const DEVICE_FEATURE: c_ulong = 0x3b75;
const MIG_GET_PRECOPY_INFO: c_ulong = 0x3b79;
/// `VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION`
const GET_MIGRATION: u32 = 1 << 16 | 1;
/// `VFIO_TYPE1v2_IOMMU`
const TYPE1: usize = 3;

/// `VFIO_REGION_INFO_CAP_SPARSE_MMAP`
const CAP_SPARSE_MMAP: u16 = 1;
/// `VFIO_REGION_INFO_CAP_TYPE`
const CAP_TYPE: u16 = 2;

/// An open device.
#[derive(Debug)]
pub struct Vfio {
    device: File,
    address: CString,
    // Closed after the device.
    group: File,
    container: File,
}

/// A region, as `VFIO_DEVICE_GET_REGION_INFO` describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionInfo {
    /// Length that the whole answer needs.
    pub argsz: u32,
    /// `VFIO_REGION_INFO_FLAG_*`
    pub flags: u32,
    /// Which region.
    pub index: u32,
    /// Its length, in bytes.
    pub bytes: u64,
    /// Its position in the device's file.
    pub position: u64,
    /// Type and subtype, of a region that is none of PCI's.
    pub kind: Option<(u32, u32)>,
    /// The parts that can be mapped, by offset and length.
    pub areas: Vec<(u64, u64)>,
}

impl Vfio {
    /// Opens a device through its group, in a container of its own.
    ///
    /// # Errors
    ///
    /// What the driver's open failed with.
    ///
    /// # Panics
    ///
    /// When something before that fails.
    pub fn open(device: DeviceKey) -> io::Result<Self> {
        Self::open_at(Path::new("/sys/bus/pci/devices"), &device.to_string())
    }

    /// Opens a mediated device by its UUID, as [`open`](Self::open) does one of PCI.
    ///
    /// # Errors
    ///
    /// What the driver's open failed with.
    ///
    /// # Panics
    ///
    /// When something before that fails.
    pub fn open_mdev(uuid: &str) -> io::Result<Self> {
        Self::open_at(Path::new("/sys/bus/mdev/devices"), uuid)
    }

    fn open_at(bus: &Path, address: &str) -> io::Result<Self> {
        let link = bus.join(address).join("iommu_group");
        let group = link.read_link().expect("the device has an IOMMU group");
        let group = group.file_name().expect("a link to a group").to_owned();
        let open = |path: &Path| {
            let file = File::options().read(true).write(true).open(path);
            file.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let container = open(Path::new("/dev/vfio/vfio"));
        let group = open(&Path::new("/dev/vfio").join(group));
        let raw = container.as_raw_fd();
        ioctl(&group, GROUP_SET_CONTAINER, ptr::from_ref(&raw).cast_mut().cast())
            .expect("the group takes the container");
        ioctl(&container, SET_IOMMU, ptr::without_provenance_mut(TYPE1))
            .expect("the container takes the IOMMU");
        Self::of(CString::new(address).expect("an address is text"), group, container)
    }

    /// Opens the same device through the same group: another descriptor.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn again(&self) -> io::Result<Self> {
        Self::of(self.address.clone(), self.group.try_clone()?, self.container.try_clone()?)
    }

    fn of(address: CString, group: File, container: File) -> io::Result<Self> {
        let device = ioctl(&group, GROUP_GET_DEVICE_FD, address.as_ptr().cast_mut().cast())?;
        // SAFETY: The ioctl gave a new descriptor, which is nobody else's.
        let device = unsafe { OwnedFd::from_raw_fd(device) }.into();
        Ok(Self { device, address, group, container })
    }

    /// The container that the device's group is in.
    pub fn container(&self) -> &File {
        &self.container
    }

    /// Whether `VFIO_DEVICE_RESET` is offered.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn offers_reset(&self) -> io::Result<bool> {
        let mut info = [0_u32; 6];
        info[0] = u32::try_from(size_of_val(&info)).expect("a small length");
        ioctl(&self.device, DEVICE_GET_INFO, info.as_mut_ptr().cast())?;
        Ok(info[1] & 1 != 0)
    }

    /// What the device can do of the v2 migration protocol: `VFIO_MIGRATION_*` flags.
    ///
    /// # Errors
    ///
    /// What the kernel refused with: `ENOTTY` of a device that cannot migrate by this protocol.
    pub fn migration(&self) -> io::Result<u64> {
        // `struct vfio_device_feature`, and its data: `struct vfio_device_feature_migration`.
        let mut argument = [0_u32; 4];
        argument[0] = u32::try_from(size_of_val(&argument)).expect("a small length");
        argument[1] = GET_MIGRATION;
        ioctl(&self.device, DEVICE_FEATURE, argument.as_mut_ptr().cast())?;
        Ok(u64::from(argument[3]) << 32 | u64::from(argument[2]))
    }

    /// `VFIO_DEVICE_FEATURE` with `flags`, and `words` for data in both directions.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn feature<const N: usize>(&self, flags: u32, words: &mut [u32; N]) -> io::Result<()> {
        let mut argument = vec![0_u32; N + 2];
        argument[0] = u32::try_from(size_of_val(argument.as_slice())).expect("a small length");
        argument[1] = flags;
        argument[2..].copy_from_slice(words);
        let done = ioctl(&self.device, DEVICE_FEATURE, argument.as_mut_ptr().cast());
        words.copy_from_slice(&argument[2..]);
        done.map(drop)
    }

    /// The file that the kernel just gave as `descriptor`, in an answer to [`feature`](Self::feature).
    #[must_use]
    pub fn given(&self, descriptor: i32) -> File {
        // SAFETY: The kernel made the descriptor for this answer, and whoever asks takes it once.
        unsafe { OwnedFd::from_raw_fd(descriptor) }.into()
    }

    /// Resets the device.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn reset(&self) -> io::Result<()> {
        ioctl(&self.device, DEVICE_RESET, ptr::null_mut()).map(drop)
    }

    /// Describes a region.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    ///
    /// # Panics
    ///
    /// When the capabilities are not laid out as they must be.
    pub fn region(&self, index: u32) -> io::Result<RegionInfo> {
        let mut words = [0_u64; 512];
        let argsz = u32::try_from(size_of_val(&words)).expect("a small length");
        words[0] = u64::from(argsz);
        words[1] = u64::from(index);
        ioctl(&self.device, DEVICE_GET_REGION_INFO, words.as_mut_ptr().cast())?;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let half = |at: usize| u16::from_ne_bytes(bytes[at..at + 2].try_into().expect("two bytes"));
        let word =
            |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let quad =
            |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let mut info = RegionInfo {
            argsz: word(0),
            flags: word(4),
            index: word(8),
            bytes: quad(16),
            position: quad(24),
            ..RegionInfo::default()
        };
        let mut at = if info.flags & CAPS != 0 { word(12) as usize } else { 0 };
        while at != 0 {
            match half(at) {
                CAP_TYPE => info.kind = Some((word(at + 8), word(at + 12))),
                CAP_SPARSE_MMAP => {
                    for area in 0..word(at + 8) as usize {
                        info.areas.push((quad(at + 16 + 16 * area), quad(at + 24 + 16 * area)));
                    }
                }
                id => panic!("an unknown capability {id}"),
            }
            at = word(at + 4) as usize;
        }
        Ok(info)
    }

    /// One read at a position of the device's file.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn read(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::pread(&self.device, into, position)?)
    }

    /// One write at a position of the device's file.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    pub fn write(&self, position: u64, from: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::pwrite(&self.device, from, position)?)
    }

    /// Maps a part of the device's file, for reading and writing.
    ///
    /// # Errors
    ///
    /// What the kernel refused with.
    ///
    /// # Panics
    ///
    /// When the position is none that a system call takes.
    pub fn map(&self, position: u64, bytes: usize, shared: bool) -> io::Result<Mapping> {
        let flags = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        let at = libc::off_t::try_from(position).expect("a position");
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let descriptor = self.device.as_raw_fd();
        // SAFETY: A mapping at an address of the kernel's choice touches no memory that is in use; the descriptor is open.
        let base = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, descriptor, at) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { base: base.cast(), bytes })
    }
}

/// `struct vfio_precopy_info`: what a device says is left in pre-copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrecopyInfo {
    /// What has to be moved before the device may stop, in bytes.
    pub initial_bytes: u64,
    /// What became stale of what was moved, in bytes.
    pub dirty_bytes: u64,
}

impl PrecopyInfo {
    /// Asks the file for data.
    ///
    /// # Errors
    ///
    /// What the driver refused with.
    pub fn ask(data: &File) -> io::Result<Self> {
        let mut words = [0_u64; 3];
        words[0] = u64::try_from(size_of_val(&words)).expect("a small length");
        ioctl(data, MIG_GET_PRECOPY_INFO, words.as_mut_ptr().cast())?;
        let [_, initial_bytes, dirty_bytes] = words;
        Ok(Self { initial_bytes, dirty_bytes })
    }
}

/// A mapped part of a device's file.
#[derive(Debug)]
pub struct Mapping {
    base: *mut u32,
    bytes: usize,
}

impl Mapping {
    /// Reads a word; `at` counts words.
    ///
    /// # Panics
    ///
    /// When it lies outside.
    pub fn get(&self, at: usize) -> u32 {
        assert!(at < self.bytes / size_of::<u32>());
        // SAFETY: The word lies in the mapping, which is aligned to a page; what is behind it may change at any time, and so
        // the access is volatile.
        unsafe { self.base.add(at).read_volatile() }
    }

    /// Writes a word; `at` counts words.
    ///
    /// # Panics
    ///
    /// When it lies outside.
    pub fn set(&self, at: usize, value: u32) {
        assert!(at < self.bytes / size_of::<u32>());
        // SAFETY: As for `get`.
        unsafe { self.base.add(at).write_volatile(value) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's own, of this length, and nothing points into it any more.
        unsafe { libc::munmap(self.base.cast(), self.bytes) };
    }
}

/// An ioctl of this module on a file of this module.
fn ioctl(file: &File, request: c_ulong, argument: *mut c_void) -> io::Result<i32> {
    // SAFETY: Each caller passes what its request asks for, for the time of the call: a pointer to a descriptor, to a string, to
    // a buffer that says how long it is, or a plain number.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
