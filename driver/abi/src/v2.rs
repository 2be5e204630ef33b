// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The v2 migration protocol: what of `include/uapi/linux/vfio.h` is looked at (Linux 5.18 and later).
//!
//! ```text
//!   ioctl(device, VFIO_DEVICE_FEATURE, {argsz, flags = op | feature, data …})
//!        SET MIG_DEVICE_STATE {device_state, data_fd}   ──▶ the state changes; data_fd carries what is saved or taken in
//!        GET MIG_DATA_SIZE {stop_copy_length}           what is left to move once the device stands
//!        SET DMA_LOGGING_START, _STOP; GET DMA_LOGGING_REPORT {iova, length, page_size, bitmap}
//!   ioctl(data_fd, VFIO_MIG_GET_PRECOPY_INFO, {argsz, flags, initial_bytes, dirty_bytes})
//!   read(data_fd), write(data_fd)
//! ```
//!
//! All of it is what a process claims in its own memory: it is looked at, never believed in.

use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `_IO(';', 111)`.
pub const VFIO_DEVICE_RESET: u32 = 0x3b6f;
/// `_IO(';', 117)`. The same number is `VFIO_IOMMU_DIRTY_PAGES` on a container: only the file tells them apart.
pub const VFIO_DEVICE_FEATURE: u32 = 0x3b75;
/// `_IO(';', 121)`, on the data file.
pub const VFIO_MIG_GET_PRECOPY_INFO: u32 = 0x3b79;

/// The feature in `vfio_device_feature.flags`.
pub const FEATURE_MASK: u32 = 0xffff;
/// Asks.
pub const FEATURE_GET: u32 = 1 << 16;
/// Sets.
pub const FEATURE_SET: u32 = 1 << 17;
/// Only asks whether it could be asked or set.
pub const FEATURE_PROBE: u32 = 1 << 18;

/// `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`.
pub const MIG_DEVICE_STATE: u32 = 2;
/// `VFIO_DEVICE_FEATURE_DMA_LOGGING_START`.
pub const DMA_LOGGING_START: u32 = 6;
/// `VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP`.
pub const DMA_LOGGING_STOP: u32 = 7;
/// `VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT`.
pub const DMA_LOGGING_REPORT: u32 = 8;
/// `VFIO_DEVICE_FEATURE_MIG_DATA_SIZE`.
pub const MIG_DATA_SIZE: u32 = 9;
/// `VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2`: only after it was set `vfio_precopy_info.flags` means anything (Linux 7.1).
pub const MIG_PRECOPY_INFO_V2: u32 = 12;

/// `VFIO_PRECOPY_INFO_REINIT`: the device has new initial data; how much is left may have grown (Linux 7.1).
pub const PRECOPY_INFO_REINIT: u32 = 1 << 0;

/// `enum vfio_device_mig_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum MigState {
    /// Only a reset leaves it.
    Error = 0,
    /// Neither runs nor migrates.
    Stop = 1,
    /// Runs; the state after open and after reset.
    Running = 2,
    /// Stands while its state is read.
    StopCopy = 3,
    /// Takes state in.
    Resuming = 4,
    /// Runs, but starts no peer-to-peer DMA.
    RunningP2p = 5,
    /// Runs while its state is read.
    PreCopy = 6,
    /// The same, but it starts no peer-to-peer DMA.
    PreCopyP2p = 7,
}

impl MigState {
    /// How many there are.
    pub const COUNT: usize = 8;
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Error,
        Self::Stop,
        Self::Running,
        Self::StopCopy,
        Self::Resuming,
        Self::RunningP2p,
        Self::PreCopy,
        Self::PreCopyP2p,
    ];
}

impl TryFrom<u32> for MigState {
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        Self::ALL.into_iter().find(|state| *state as u32 == number).ok_or(number)
    }
}

/// What a number of a state is where none is known.
pub const NO_STATE: u32 = u32::MAX;

/// `struct vfio_device_feature` with the `struct vfio_device_feature_mig_state` behind it.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct FeatureMigState {
    /// Length of all of it.
    pub argsz: u32,
    /// What is asked.
    pub flags: u32,
    /// [`MigState`].
    pub device_state: u32,
    /// The file for device data, or -1.
    pub data_fd: i32,
}

/// `struct vfio_device_feature` with the `struct vfio_device_feature_dma_logging_report` behind it.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct FeatureReport {
    /// Length of all of it.
    pub argsz: u32,
    /// What is asked.
    pub flags: u32,
    /// First address asked for.
    pub iova: u64,
    /// Bytes asked for.
    pub length: u64,
    /// Bytes that a bit stands for.
    pub page_size: u64,
    /// Address of the bitmap in the process.
    pub bitmap: u64,
}

/// `struct vfio_precopy_info`.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct PrecopyInfo {
    /// Length of it.
    pub argsz: u32,
    /// [`PRECOPY_INFO_REINIT`].
    pub flags: u32,
    /// What has to be moved before the device may stop, in bytes.
    pub initial_bytes: u64,
    /// What became stale of what was moved, in bytes.
    pub dirty_bytes: u64,
}

/// Where the fields of the kernel's own structures are, in bytes, as the kernel's type information (BTF) says. The agent finds them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
#[repr(C)]
pub struct Offsets {
    /// `struct file`: `private_data`.
    pub file_private_data: u32,
    /// `struct file`: `f_op`.
    pub file_f_op: u32,
    /// `struct file`: `f_pos`.
    pub file_f_pos: u32,
    /// `struct vfio_device_file`: `device`, plus one; 0 where `private_data` is the device itself (before Linux 6.6).
    pub device_file_device_plus_one: u32,
    /// `struct vfio_device`: `dev`.
    pub vfio_device_dev: u32,
    /// `struct device`: the `name` in its `kobj`.
    pub device_name: u32,
    /// `struct task_struct`: `files`.
    pub task_files: u32,
    /// `struct files_struct`: `fdt`.
    pub files_fdt: u32,
    /// `struct fdtable`: `max_fds`.
    pub fdtable_max_fds: u32,
    /// `struct fdtable`: `fd`.
    pub fdtable_fd: u32,
    /// `struct file_operations`: [`FileOp`](super::probe::FileOp)s.
    pub f_op: [u32; super::probe::FileOp::COUNT],
    /// 1 once the others are known.
    pub known: u32,
}

const _: () = {
    assert!(size_of::<FeatureMigState>() == 16);
    assert!(size_of::<FeatureReport>() == 40);
    assert!(size_of::<PrecopyInfo>() == 24);
    assert!(size_of::<Offsets>() == 56);
};
