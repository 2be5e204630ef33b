// SPDX-License-Identifier: Apache-2.0 OR MIT
//! System calls and what became of them: the words in which generator, executor and model speak.

use std::fmt;

use migscope_abi::region::Op;

/// How many descriptors of the device there are at most.
pub const SLOTS: usize = 2;
/// How many pages of I/O address space the threads map and unmap.
pub const PAGES: usize = 4;

/// A region of the device's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Region {
    /// The migration region.
    Migration,
    /// BAR 0.
    Bar0,
    /// Configuration space.
    Config,
    /// No region: the index is past the last one.
    Beyond,
}

impl Region {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Migration, Self::Bar0, Self::Config, Self::Beyond];
}

/// Where a call's buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pointer {
    /// In memory.
    Good,
    /// At address 0.
    Null,
    /// In the kernel's half of the address space.
    Kernel,
    /// The first half of it in memory, the rest on a page that may not be touched.
    Half,
}

/// One system call, or what is one to the driver.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `pread` of `bytes` bytes.
    Read {
        /// The descriptor.
        slot: usize,
        /// The region.
        region: Region,
        /// Offset in it, in bytes.
        offset: u64,
        /// Length, in bytes.
        bytes: usize,
        /// Where to.
        pointer: Pointer,
    },
    /// `pwrite`.
    Write {
        /// The descriptor.
        slot: usize,
        /// The region.
        region: Region,
        /// Offset in it, in bytes.
        offset: u64,
        /// What is written.
        data: Vec<u8>,
        /// Where from.
        pointer: Pointer,
    },
    /// `VFIO_DEVICE_RESET`.
    Reset {
        /// The descriptor.
        slot: usize,
    },
    /// `VFIO_DEVICE_GET_INFO`; gives the number of regions.
    DeviceInfo {
        /// The descriptor.
        slot: usize,
        /// Where the struct lies.
        pointer: Pointer,
    },
    /// `VFIO_DEVICE_GET_REGION_INFO`; gives the region's length.
    RegionInfo {
        /// The descriptor.
        slot: usize,
        /// The region.
        region: Region,
        /// Whether the struct is said to be too short.
        short: bool,
    },
    /// `VFIO_DEVICE_FEATURE`, probing the v2 protocol, which these devices do not have.
    Feature {
        /// The descriptor.
        slot: usize,
    },
    /// An ioctl that there is none of.
    NoIoctl {
        /// The descriptor.
        slot: usize,
    },
    /// `mmap`, a look at each page, `munmap`.
    Map {
        /// The descriptor.
        slot: usize,
        /// The region.
        region: Region,
        /// Offset in it, in bytes.
        offset: u64,
        /// Length, in bytes.
        bytes: usize,
    },
    /// Another descriptor from the group.
    Open {
        /// Which is to be open.
        slot: usize,
    },
    /// `close`.
    Close {
        /// The descriptor.
        slot: usize,
    },
    /// `VFIO_IOMMU_MAP_DMA` of one page.
    DmaMap {
        /// Which of [`PAGES`].
        page: usize,
    },
    /// `VFIO_IOMMU_UNMAP_DMA` of one page; gives the bytes unmapped.
    DmaUnmap {
        /// Which of [`PAGES`].
        page: usize,
    },
}

impl Call {
    /// The descriptor that the call needs open.
    pub fn needs(&self) -> Option<usize> {
        match *self {
            Self::Read { slot, .. }
            | Self::Write { slot, .. }
            | Self::Reset { slot }
            | Self::DeviceInfo { slot, .. }
            | Self::RegionInfo { slot, .. }
            | Self::Feature { slot }
            | Self::NoIoctl { slot }
            | Self::Map { slot, .. } => Some(slot),
            Self::Open { .. }
            | Self::Close { .. }
            | Self::DmaMap { .. }
            | Self::DmaUnmap { .. } => None,
        }
    }
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was done.
    Done {
        /// What it returned.
        value: u64,
        /// What it gave, for a read.
        bytes: Vec<u8>,
    },
    /// It failed with this errno.
    Failed(i32),
    /// It was not made: the descriptor was not open, or, for an open, was.
    NotMade,
}

impl Outcome {
    /// Done, with a value and no bytes.
    pub fn done(value: u64) -> Self {
        Self::Done { value, bytes: Vec::new() }
    }
}

/// A call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The thread that made it.
    pub thread: usize,
    /// When it began, in ns.
    pub start: u64,
    /// When it had ended, in ns.
    pub end: u64,
    /// The call.
    pub call: Call,
    /// What became of it.
    pub outcome: Outcome,
}

/// Up to 16 bytes, in hex.
struct Short<'a>(&'a [u8]);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.iter().take(16) {
            write!(f, "{byte:02x}")?;
        }
        if self.0.len() > 16 {
            write!(f, "… ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |region: &Region, offset: u64| match (region, field(*region, offset)) {
            (_, Some(field)) => format!("{field} ({offset:#x})"),
            (region, None) => format!("{region:?} {offset:#x}").to_lowercase(),
        };
        match self {
            Self::Read { slot, region, offset, bytes, pointer } => {
                write!(f, "[{slot}] read {} {bytes} bytes", place(region, *offset))?;
                bad(*pointer, f)
            }
            Self::Write { slot, region, offset, data, pointer } => {
                write!(f, "[{slot}] write {} {}", place(region, *offset), Short(data))?;
                bad(*pointer, f)
            }
            other => write!(f, "{other:?}"),
        }
    }
}

fn bad(pointer: Pointer, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match pointer {
        Pointer::Good => Ok(()),
        bad => write!(f, ", pointer {bad:?}"),
    }
}

/// The name of the register that starts here.
fn field(region: Region, offset: u64) -> Option<&'static str> {
    use migscope_abi::region::Field;
    let starts = |field: &&Field| field.register().is_some_and(|(at, _)| at == offset);
    (region == Region::Migration).then_some(())?;
    Field::ALL.iter().find(starts).map(|field| field.name())
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { value, bytes } if bytes.is_empty() => write!(f, "{value:#x}"),
            Self::Done { bytes, .. } => write!(f, "{}", Short(bytes)),
            Self::Failed(errno) => {
                write!(f, "errno {errno} ({})", std::io::Error::from_raw_os_error(*errno))
            }
            Self::NotMade => write!(f, "not made"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { thread, start, end, call, outcome } = self;
        write!(f, "thread {thread}  {:>9}..{:<9} µs  {call} = {outcome}", start / 1000, end / 1000)
    }
}

/// A little-endian register of 4 or 8 bytes.
pub fn register(bytes: &[u8]) -> Option<u64> {
    match bytes.len() {
        4 => Some(u64::from(u32::from_le_bytes(bytes.try_into().ok()?))),
        8 => Some(u64::from_le_bytes(bytes.try_into().ok()?)),
        _ => None,
    }
}

/// A read of the migration region, with a good pointer.
pub fn read(slot: usize, offset: u64, bytes: usize) -> Call {
    Call::Read { slot, region: Region::Migration, offset, bytes, pointer: Pointer::Good }
}

/// A write of the migration region, with a good pointer.
pub fn write(slot: usize, offset: u64, data: Vec<u8>) -> Call {
    Call::Write { slot, region: Region::Migration, offset, data, pointer: Pointer::Good }
}

/// The direction of an access.
pub fn direction(call: &Call) -> Option<Op> {
    match call {
        Call::Read { .. } => Some(Op::Read),
        Call::Write { .. } => Some(Op::Write),
        _ => None,
    }
}
