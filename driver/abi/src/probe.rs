// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The programs that look: one name for each, in the kernel and outside.
//!
//! ```text
//!   our driver's tracepoints    state  region_access  data  dirty_query  dma  error
//!   any driver's v2 ioctls      device_ioctl(+_return)  state_step  device_release
//!   any driver's data file      data_read(+_return)  data_write(+_return)  data_ioctl(+_return)
//!   any driver's region         region_register(+_return)  region_read  region_write  region_return  region_bitmap
//!   dirty pages of a machine    type1(+_return)  hwpt_bitmap(+_return)  hwpt_tracking(+_return)  ioas_unmap
//!                               kvm(+_return)  kvm_slot
//! ```

use super::outside::REGISTER_REGION;
use super::region::Op;
use super::{trace, tracking};

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A tracepoint of our driver, by name.
    Tracepoint(&'static str),
    /// The beginning of a function of the kernel, by name.
    Entry(&'static str),
    /// The end of a function of the kernel, by name.
    Return(&'static str),
    /// The beginning of an operation of the file through which a driver moves device data.
    DataFileEntry(FileOp),
    /// The end of such an operation.
    DataFileReturn(FileOp),
    /// The beginning of a read or a write of a VFIO device's file, while a device with a migration region is open.
    RegionEntry(Op),
    /// The end of either.
    RegionReturn,
    /// Nothing: the program for the end of an access goes on with it.
    RegionTail,
}

/// An operation of the file that `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE` hands out (`data_fd`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum FileOp {
    /// `file_operations::read`: a source gives its state away.
    Read = 0,
    /// `file_operations::write`: a destination takes it in.
    Write = 1,
    /// `file_operations::unlocked_ioctl`: `VFIO_MIG_GET_PRECOPY_INFO`.
    Ioctl = 2,
}

impl FileOp {
    /// How many there are.
    pub const COUNT: usize = 3;
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::Read, Self::Write, Self::Ioctl];

    /// The field of `struct file_operations`.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Ioctl => "unlocked_ioctl",
        }
    }
}

/// All ioctls on a VFIO device's file, of any driver (`drivers/vfio/vfio_main.c`).
pub const DEVICE_IOCTL: &str = "vfio_device_fops_unl_ioctl";
/// The last close of such a file.
pub const DEVICE_RELEASE: &str = "vfio_device_fops_release";
/// The next arc on the way to a state; every v2 driver asks it for each.
pub const STATE_STEP: &str = "vfio_mig_get_next_state";

/// A program. The number is its row in the per-CPU arrays in which programs count; it is in recordings too, and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Probe {
    /// [`trace::State`].
    State = 0,
    /// [`trace::RegionAccess`].
    RegionAccess = 1,
    /// [`trace::Data`].
    Data = 2,
    /// [`trace::DirtyQuery`].
    DirtyQuery = 3,
    /// [`trace::Dma`].
    Dma = 4,
    /// [`trace::Error`].
    Error = 5,
    /// An ioctl on a device's file begins.
    DeviceIoctl = 6,
    /// It ends.
    DeviceIoctlReturn = 7,
    /// A driver takes one arc.
    StateStep = 8,
    /// A device's file is closed for good.
    DeviceRelease = 9,
    /// A read of device data begins.
    DataRead = 10,
    /// It ends.
    DataReadReturn = 11,
    /// A write of device data begins.
    DataWrite = 12,
    /// It ends.
    DataWriteReturn = 13,
    /// An ioctl on the data file begins.
    DataIoctl = 14,
    /// It ends.
    DataIoctlReturn = 15,
    /// An ioctl on a container begins.
    Type1 = 16,
    /// It ends.
    Type1Return = 17,
    /// A page table of iommufd is asked for dirty pages.
    HwptBitmap = 18,
    /// It has answered.
    HwptBitmapReturn = 19,
    /// Its tracking is to be switched on or off.
    HwptTracking = 20,
    /// It was.
    HwptTrackingReturn = 21,
    /// An ioctl on a virtual machine begins.
    Kvm = 22,
    /// It has found the slot of memory that it is about.
    KvmSlot = 23,
    /// It ends.
    KvmReturn = 24,
    /// Addresses are taken out of an address space of iommufd.
    IoasUnmap = 25,
    /// A driver gives a device a region of its own.
    RegionRegister = 26,
    /// The device has it.
    RegionRegisterReturn = 27,
    /// A read of a device's file begins.
    RegionRead = 28,
    /// A write begins.
    RegionWrite = 29,
    /// A read or a write ends.
    RegionReturn = 30,
    /// It was a bitmap that was read.
    RegionBitmap = 31,
}

/// Whose structures a program must know, and whose functions it is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subsystem {
    /// VFIO itself.
    Vfio,
    /// The IOMMU of a container.
    Type1,
    /// iommufd.
    Iommufd,
    /// KVM.
    Kvm,
}

impl Subsystem {
    /// Its module, where it is not built in.
    pub const fn module(self) -> &'static str {
        match self {
            Self::Vfio => "vfio",
            Self::Type1 => tracking::TYPE1_MODULE,
            Self::Iommufd => tracking::IOMMUFD_MODULE,
            Self::Kvm => tracking::KVM_MODULE,
        }
    }
}

impl Probe {
    /// How many programs there are.
    pub const COUNT: usize = 32;
    /// All programs, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::State,
        Self::RegionAccess,
        Self::Data,
        Self::DirtyQuery,
        Self::Dma,
        Self::Error,
        Self::DeviceIoctl,
        Self::DeviceIoctlReturn,
        Self::StateStep,
        Self::DeviceRelease,
        Self::DataRead,
        Self::DataReadReturn,
        Self::DataWrite,
        Self::DataWriteReturn,
        Self::DataIoctl,
        Self::DataIoctlReturn,
        Self::Type1,
        Self::Type1Return,
        Self::HwptBitmap,
        Self::HwptBitmapReturn,
        Self::HwptTracking,
        Self::HwptTrackingReturn,
        Self::Kvm,
        Self::KvmSlot,
        Self::KvmReturn,
        Self::IoasUnmap,
        Self::RegionRegister,
        Self::RegionRegisterReturn,
        Self::RegionRead,
        Self::RegionWrite,
        Self::RegionReturn,
        Self::RegionBitmap,
    ];

    /// The value of the labels `kind`, `probe` and `program`, and the name of the program.
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::RegionAccess => "region_access",
            Self::Data => "data",
            Self::DirtyQuery => "dirty_query",
            Self::Dma => "dma",
            Self::Error => "error",
            Self::DeviceIoctl => "device_ioctl",
            Self::DeviceIoctlReturn => "device_ioctl_return",
            Self::StateStep => "state_step",
            Self::DeviceRelease => "device_release",
            Self::DataRead => "data_read",
            Self::DataReadReturn => "data_read_return",
            Self::DataWrite => "data_write",
            Self::DataWriteReturn => "data_write_return",
            Self::DataIoctl => "data_ioctl",
            Self::DataIoctlReturn => "data_ioctl_return",
            Self::Type1 => "type1",
            Self::Type1Return => "type1_return",
            Self::HwptBitmap => "hwpt_bitmap",
            Self::HwptBitmapReturn => "hwpt_bitmap_return",
            Self::HwptTracking => "hwpt_tracking",
            Self::HwptTrackingReturn => "hwpt_tracking_return",
            Self::Kvm => "kvm",
            Self::KvmSlot => "kvm_slot",
            Self::KvmReturn => "kvm_return",
            Self::IoasUnmap => "ioas_unmap",
            Self::RegionRegister => "region_register",
            Self::RegionRegisterReturn => "region_register_return",
            Self::RegionRead => "region_read",
            Self::RegionWrite => "region_write",
            Self::RegionReturn => "region_return",
            Self::RegionBitmap => "region_bitmap",
        }
    }

    /// Where it is attached.
    pub const fn target(self) -> Target {
        match self {
            Self::State => Target::Tracepoint(trace::STATE),
            Self::RegionAccess => Target::Tracepoint(trace::REGION_ACCESS),
            Self::Data => Target::Tracepoint(trace::DATA),
            Self::DirtyQuery => Target::Tracepoint(trace::DIRTY_QUERY),
            Self::Dma => Target::Tracepoint(trace::DMA),
            Self::Error => Target::Tracepoint(trace::ERROR),
            Self::DeviceIoctl => Target::Entry(DEVICE_IOCTL),
            Self::DeviceIoctlReturn => Target::Return(DEVICE_IOCTL),
            Self::StateStep => Target::Entry(STATE_STEP),
            Self::DeviceRelease => Target::Entry(DEVICE_RELEASE),
            Self::DataRead => Target::DataFileEntry(FileOp::Read),
            Self::DataReadReturn => Target::DataFileReturn(FileOp::Read),
            Self::DataWrite => Target::DataFileEntry(FileOp::Write),
            Self::DataWriteReturn => Target::DataFileReturn(FileOp::Write),
            Self::DataIoctl => Target::DataFileEntry(FileOp::Ioctl),
            Self::DataIoctlReturn => Target::DataFileReturn(FileOp::Ioctl),
            Self::Type1 => Target::Entry(tracking::TYPE1_IOCTL),
            Self::Type1Return => Target::Return(tracking::TYPE1_IOCTL),
            Self::HwptBitmap => Target::Entry(tracking::HWPT_BITMAP),
            Self::HwptBitmapReturn => Target::Return(tracking::HWPT_BITMAP),
            Self::HwptTracking => Target::Entry(tracking::HWPT_TRACKING),
            Self::HwptTrackingReturn => Target::Return(tracking::HWPT_TRACKING),
            Self::Kvm => Target::Entry(tracking::KVM_IOCTL),
            Self::KvmSlot => Target::Entry(tracking::KVM_SLOT),
            Self::KvmReturn => Target::Return(tracking::KVM_IOCTL),
            Self::IoasUnmap => Target::Entry(tracking::IOAS_UNMAP),
            Self::RegionRegister => Target::Entry(REGISTER_REGION),
            Self::RegionRegisterReturn => Target::Return(REGISTER_REGION),
            Self::RegionRead => Target::RegionEntry(Op::Read),
            Self::RegionWrite => Target::RegionEntry(Op::Write),
            Self::RegionReturn => Target::RegionReturn,
            Self::RegionBitmap => Target::RegionTail,
        }
    }

    /// Whose functions it is attached to, where these are not our driver's.
    pub const fn subsystem(self) -> Subsystem {
        match self {
            Self::Type1 | Self::Type1Return => Subsystem::Type1,
            Self::HwptBitmap
            | Self::HwptBitmapReturn
            | Self::HwptTracking
            | Self::HwptTrackingReturn
            | Self::IoasUnmap => Subsystem::Iommufd,
            Self::Kvm | Self::KvmSlot | Self::KvmReturn => Subsystem::Kvm,
            _ => Subsystem::Vfio,
        }
    }

    /// Whether it is attached only while there is a device that needs it.
    pub const fn is_on_demand(self) -> bool {
        matches!(self.target(), Target::RegionEntry(_) | Target::RegionReturn)
    }

    /// Whether it is for devices of our own driver, and not of any.
    pub const fn is_of_our_driver(self) -> bool {
        matches!(self.target(), Target::Tracepoint(_))
    }
}

impl TryFrom<u32> for Probe {
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        Self::ALL.into_iter().find(|probe| *probe as u32 == number).ok_or(number)
    }
}
