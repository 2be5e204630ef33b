// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The migration region: where its fields are and which access each one takes.
//!
//! Source: RFC "vfio/pci: register a default migration region" (Yan Zhao, 2019-12-05), `struct vfio_device_migration_info`.
//! The first 32 bytes are those of `include/uapi/linux/vfio.h` from 5.8 to 5.17, so a VMM of that time drives this region.
//!
//! ```text
//!  0x00 device_state  rw 4 | 0x04 reserved        4 |  0x08 pending_bytes ro 8
//!  0x10 data_offset   ro 8 | 0x18 data_size    rw 8 |  0x20 start_pfn     wo 8
//!  0x28 page_size     wo 8 | 0x30 total_pfns   wo 8 |  0x38 copied_pfns   ro 8
//!  0x40 .. 0x1000     nothing
//!  0x1000             device-data window, Layout::data_bytes long
//!  0x1000+data_bytes  bitmap window, Layout::bitmap_bytes long
//! ```

use super::rule::Rule;

/// `VFIO_REGION_TYPE_MIGRATION` of the RFC, `VFIO_REGION_TYPE_MIGRATION_DEPRECATED` of today's headers.
pub const REGION_TYPE: u32 = 3;
/// `VFIO_REGION_SUBTYPE_MIGRATION`.
pub const REGION_SUBTYPE: u32 = 1;
/// Length of the struct, in bytes.
pub const STRUCT_BYTES: u64 = 64;
/// Length of the trapped page that holds the struct, in bytes; the data window starts here.
pub const HEADER_BYTES: u64 = 0x1000;
/// `copied_pfns`: no page is dirty in the rest of the range.
pub const PFNS_NONE: u64 = 0;
/// `copied_pfns`: every page of the rest of the range is to be taken as dirty.
pub const PFNS_ALL: u64 = u64::MAX;

/// The direction of an access, seen from user space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Op {
    /// User space reads.
    Read = 0,
    /// User space writes.
    Write = 1,
}

impl Op {
    /// How many directions there are.
    pub const COUNT: usize = 2;
    /// Both, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::Read, Self::Write];

    /// The value of the label `op`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl TryFrom<u32> for Op {
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        Self::ALL.into_iter().find(|op| *op as u32 == number).ok_or(number)
    }
}

/// A part of the region that has a meaning of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Field {
    /// Bits RUNNING, SAVING, RESUMING; see [`State`](super::state::State).
    DeviceState = 0,
    /// Reads as zero, writes are ignored.
    Reserved = 1,
    /// Bytes yet to be migrated; reading it also ends the previous buffer.
    PendingBytes = 2,
    /// Offset of the current window in the region; reading it makes the driver stage data.
    DataOffset = 3,
    /// Bytes in the data window: told by the driver when saving, by the user when resuming.
    DataSize = 4,
    /// First page of a dirty query, counted in `page_size`.
    StartPfn = 5,
    /// Page size of a dirty query, in bytes.
    PageSize = 6,
    /// Length of a dirty query, in pages.
    TotalPfns = 7,
    /// The answer: [`PFNS_NONE`], [`PFNS_ALL`] or the pages that the bitmap covers.
    CopiedPfns = 8,
    /// The device-data window.
    Data = 9,
    /// The bitmap window.
    Bitmap = 10,
    /// No field: the access begins where there is none.
    Nothing = 11,
}

/// Which directions a field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Read and write.
    ReadWrite,
    /// Read only.
    ReadOnly,
    /// Write only.
    WriteOnly,
}

impl Field {
    /// How many fields there are.
    pub const COUNT: usize = 12;
    /// All fields, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::DeviceState,
        Self::Reserved,
        Self::PendingBytes,
        Self::DataOffset,
        Self::DataSize,
        Self::StartPfn,
        Self::PageSize,
        Self::TotalPfns,
        Self::CopiedPfns,
        Self::Data,
        Self::Bitmap,
        Self::Nothing,
    ];

    /// The value of the label `field`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeviceState => "device_state",
            Self::Reserved => "reserved",
            Self::PendingBytes => "pending_bytes",
            Self::DataOffset => "data_offset",
            Self::DataSize => "data_size",
            Self::StartPfn => "start_pfn",
            Self::PageSize => "page_size",
            Self::TotalPfns => "total_pfns",
            Self::CopiedPfns => "copied_pfns",
            Self::Data => "data",
            Self::Bitmap => "bitmap",
            Self::Nothing => "none",
        }
    }

    /// Offset and width in the struct, in bytes; `None` for the windows.
    pub const fn register(self) -> Option<(u64, u64)> {
        Some(match self {
            Self::DeviceState => (0x00, 4),
            Self::Reserved => (0x04, 4),
            Self::PendingBytes => (0x08, 8),
            Self::DataOffset => (0x10, 8),
            Self::DataSize => (0x18, 8),
            Self::StartPfn => (0x20, 8),
            Self::PageSize => (0x28, 8),
            Self::TotalPfns => (0x30, 8),
            Self::CopiedPfns => (0x38, 8),
            Self::Data | Self::Bitmap | Self::Nothing => return None,
        })
    }

    /// The directions that the RFC gives the field. The bitmap is the driver's word, so it is read only.
    pub const fn direction(self) -> Direction {
        match self {
            Self::DeviceState | Self::Reserved | Self::DataSize | Self::Data => {
                Direction::ReadWrite
            }
            Self::PendingBytes | Self::DataOffset | Self::CopiedPfns | Self::Bitmap => {
                Direction::ReadOnly
            }
            Self::StartPfn | Self::PageSize | Self::TotalPfns => Direction::WriteOnly,
            Self::Nothing => Direction::ReadWrite,
        }
    }
}

impl TryFrom<u32> for Field {
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        Self::ALL.into_iter().find(|field| *field as u32 == number).ok_or(number)
    }
}

/// The lengths of the two windows, in bytes, each a whole number of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Length of the device-data window.
    pub data_bytes: u32,
    /// Length of the bitmap window.
    pub bitmap_bytes: u32,
}

/// What an access hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The field.
    pub field: Field,
    /// Offset inside the field's window, in bytes; 0 for a register.
    pub at: u64,
}

impl Layout {
    /// Offset of the device-data window in the region.
    pub const fn data_offset(self) -> u64 {
        HEADER_BYTES
    }

    /// Offset of the bitmap window in the region.
    pub const fn bitmap_offset(self) -> u64 {
        HEADER_BYTES + self.data_bytes as u64
    }

    /// Length of the region.
    pub const fn region_bytes(self) -> u64 {
        self.bitmap_offset() + self.bitmap_bytes as u64
    }

    /// The field that the byte at `offset` belongs to; [`Field::Nothing`] between the fields and past the end.
    pub fn field_at(self, offset: u64) -> Field {
        let inside = |start: u64, bytes: u64| offset >= start && offset - start < bytes;
        if inside(self.data_offset(), u64::from(self.data_bytes)) {
            return Field::Data;
        }
        if inside(self.bitmap_offset(), u64::from(self.bitmap_bytes)) {
            return Field::Bitmap;
        }
        let register =
            |field: &Field| field.register().is_some_and(|(at, width)| inside(at, width));
        Field::ALL.into_iter().find(register).unwrap_or(Field::Nothing)
    }

    /// Finds what an access of `bytes` at `offset` hits, and whether the field takes it.
    ///
    /// Registers take their native width and alignment only ("otherwise the result is undefined and vendor drivers should
    /// return an error"); the windows take any width and alignment inside their bounds.
    ///
    /// # Errors
    ///
    /// The first rule that the access breaks: bounds, then width and alignment, then direction.
    pub fn locate(self, offset: u64, bytes: u64, op: Op) -> Result<Place, Rule> {
        let end = offset.checked_add(bytes).ok_or(Rule::OutOfBounds)?;
        if bytes == 0 || end > self.region_bytes() {
            return Err(Rule::OutOfBounds);
        }
        let place = if offset >= self.bitmap_offset() {
            Place { field: Field::Bitmap, at: offset - self.bitmap_offset() }
        } else if offset >= self.data_offset() {
            if end > self.bitmap_offset() {
                return Err(Rule::OutOfBounds);
            }
            Place { field: Field::Data, at: offset - self.data_offset() }
        } else if offset >= STRUCT_BYTES || end > STRUCT_BYTES {
            return Err(Rule::OutOfBounds);
        } else {
            Place { field: register_at(offset, bytes)?, at: 0 }
        };
        match (place.field.direction(), op) {
            (Direction::ReadOnly, Op::Write) => Err(Rule::ReadOnly),
            (Direction::WriteOnly, Op::Read) => Err(Rule::WriteOnly),
            _ => Ok(place),
        }
    }
}

/// The register that starts at `offset` and is `bytes` wide.
fn register_at(offset: u64, bytes: u64) -> Result<Field, Rule> {
    let registers = || Field::ALL.into_iter().filter_map(|field| Some((field, field.register()?)));
    let Some((field, (_, width))) = registers().find(|(_, (start, _))| *start == offset) else {
        return Err(Rule::Misaligned);
    };
    if width == bytes {
        Ok(field)
    } else {
        Err(Rule::FieldWidth)
    }
}
