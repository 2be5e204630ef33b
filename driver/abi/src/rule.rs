// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The rules of the protocol, one for each way to break it.
//!
//! Every refusal names its rule in the tracepoint `error` and leaves the device's state as it was. The errno of each rule is
//! part of the contract with user space and stands in [`Rule::errno`], nowhere else.

/// A rule that an access, a state change, a query, an image or a device command can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Rule {
    /// The access reaches past the region, out of its window, or into the unused rest of the first page.
    OutOfBounds = 1,
    /// No register starts at this offset.
    Misaligned = 2,
    /// The width is not the register's.
    FieldWidth = 3,
    /// The field is read only.
    ReadOnly = 4,
    /// The field is write only.
    WriteOnly = 5,
    /// `device_state`: bits 3 to 31 must be zero.
    ReservedBits = 6,
    /// `device_state`: 5, 6 and 7 are no states that can be asked for.
    InvalidState = 7,
    /// `device_state`: no arc leads from the present state to this one.
    ForbiddenArc = 8,
    /// The device is in error, which only a reset leaves.
    DeviceInError = 9,
    /// This field has a meaning only while saving.
    NotSaving = 10,
    /// This field has a meaning only while resuming.
    NotResuming = 11,
    /// Data was read before `data_offset` was, or past `data_size`.
    NotStaged = 12,
    /// `data_size` is larger than the data window.
    DataSize = 13,
    /// `page_size` is not a power of two of at least 4096.
    PageSize = 14,
    /// The range of the query is empty.
    EmptyRange = 15,
    /// `start_pfn`, `total_pfns` and `page_size` reach past the last address.
    RangeOverflow = 16,
    /// `copied_pfns` was read before all three registers of the query were written.
    QueryIncomplete = 17,
    /// The image does not start with this driver's mark.
    ImageMagic = 18,
    /// The image has a version that this driver does not read.
    ImageVersion = 19,
    /// The image is of another kind of device.
    ImageDevice = 20,
    /// A record of the image has a length or a place that it cannot have.
    ImageRecord = 21,
    /// A record of the image does not match its checksum.
    ImageChecksum = 22,
    /// The image ended before its last record.
    ImageIncomplete = 23,
    /// A device command would do DMA outside the device's own buffer, of no bytes, or beyond the addresses that it drives.
    DmaRange = 24,
    /// The device is stopped and takes no writes.
    DeviceStopped = 25,
    /// The device did not come to rest in time.
    QuiesceTimeout = 26,
    /// No I/O address is left where the driver could move the device's buffer.
    NoIova = 27,
    /// The device is attached to no address space.
    NotAttached = 28,
    /// The user's buffer could not be read or written.
    BadAddress = 29,
    /// The kernel is out of memory.
    NoMemory = 30,
    /// The device failed to do what it was told.
    DeviceFailed = 31,
}

impl Rule {
    /// How many rules there are.
    pub const COUNT: usize = 31;
    /// All rules, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::OutOfBounds,
        Self::Misaligned,
        Self::FieldWidth,
        Self::ReadOnly,
        Self::WriteOnly,
        Self::ReservedBits,
        Self::InvalidState,
        Self::ForbiddenArc,
        Self::DeviceInError,
        Self::NotSaving,
        Self::NotResuming,
        Self::NotStaged,
        Self::DataSize,
        Self::PageSize,
        Self::EmptyRange,
        Self::RangeOverflow,
        Self::QueryIncomplete,
        Self::ImageMagic,
        Self::ImageVersion,
        Self::ImageDevice,
        Self::ImageRecord,
        Self::ImageChecksum,
        Self::ImageIncomplete,
        Self::DmaRange,
        Self::DeviceStopped,
        Self::QuiesceTimeout,
        Self::NoIova,
        Self::NotAttached,
        Self::BadAddress,
        Self::NoMemory,
        Self::DeviceFailed,
    ];

    /// Where its count stands in a row of [`Self::COUNT`].
    pub const fn index(self) -> u32 {
        self as u32 - 1
    }

    /// The value of the label `rule`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OutOfBounds => "out_of_bounds",
            Self::Misaligned => "misaligned",
            Self::FieldWidth => "field_width",
            Self::ReadOnly => "read_only",
            Self::WriteOnly => "write_only",
            Self::ReservedBits => "reserved_bits",
            Self::InvalidState => "invalid_state",
            Self::ForbiddenArc => "forbidden_arc",
            Self::DeviceInError => "device_in_error",
            Self::NotSaving => "not_saving",
            Self::NotResuming => "not_resuming",
            Self::NotStaged => "not_staged",
            Self::DataSize => "data_size",
            Self::PageSize => "page_size",
            Self::EmptyRange => "empty_range",
            Self::RangeOverflow => "range_overflow",
            Self::QueryIncomplete => "query_incomplete",
            Self::ImageMagic => "image_magic",
            Self::ImageVersion => "image_version",
            Self::ImageDevice => "image_device",
            Self::ImageRecord => "image_record",
            Self::ImageChecksum => "image_checksum",
            Self::ImageIncomplete => "image_incomplete",
            Self::DmaRange => "dma_range",
            Self::DeviceStopped => "device_stopped",
            Self::QuiesceTimeout => "quiesce_timeout",
            Self::NoIova => "no_iova",
            Self::NotAttached => "not_attached",
            Self::BadAddress => "bad_address",
            Self::NoMemory => "no_memory",
            Self::DeviceFailed => "device_failed",
        }
    }

    /// The errno that user space gets, as a positive number (`include/uapi/asm-generic/errno*.h`).
    pub const fn errno(self) -> i32 {
        match self {
            Self::OutOfBounds
            | Self::Misaligned
            | Self::FieldWidth
            | Self::ReservedBits
            | Self::InvalidState
            | Self::ForbiddenArc
            | Self::DeviceInError
            | Self::NotSaving
            | Self::NotResuming
            | Self::DataSize
            | Self::PageSize
            | Self::EmptyRange
            | Self::RangeOverflow
            | Self::QueryIncomplete
            | Self::ImageMagic
            | Self::ImageVersion
            | Self::ImageDevice
            | Self::ImageRecord
            | Self::DmaRange => 22, // EINVAL
            Self::ReadOnly | Self::WriteOnly => 13, // EACCES
            Self::NotStaged | Self::ImageIncomplete => 61, // ENODATA
            Self::ImageChecksum => 74,              // EBADMSG
            Self::DeviceStopped => 16,              // EBUSY
            Self::QuiesceTimeout => 110,            // ETIMEDOUT
            Self::NoIova => 28,                     // ENOSPC
            Self::NotAttached => 19,                // ENODEV
            Self::BadAddress => 14,                 // EFAULT
            Self::NoMemory => 12,                   // ENOMEM
            Self::DeviceFailed => 5,                // EIO
        }
    }
}

impl TryFrom<u32> for Rule {
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        Self::ALL.into_iter().find(|rule| *rule as u32 == number).ok_or(number)
    }
}
