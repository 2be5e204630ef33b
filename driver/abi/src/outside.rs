// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The migration region of any driver, seen from outside: what can be told from the client's reads and writes alone.
//!
//! ```text
//!   read(device, offset), write(device, offset) ──▶ field ──▶ Outside ──▶ state, buffers, queries, bits of bitmaps to count
//!                                                               └──▶ trace::RegionAccess, trace::State ──▶ the watch
//! ```
//!
//! Our driver's tracepoints say what it did; here it is concluded. Where the windows are is what `data_offset` told; a buffer is what
//! `data_size` told, and it was moved when `pending_bytes` is read next; a state is what was written and not refused, or read.
//! What nobody has said is unknown: the state of a device that was open before, the dirty pages of a bitmap that nobody was seen to read.
//!
//! The layout is that of the RFC, whose first 32 bytes are those of Linux 5.8 to 5.17. A driver of that time may keep data from there on:
//! so a window that has been told begins before the last four registers end.

use super::dirty::Outcome;
use super::region::{Field, Op, PFNS_ALL, PFNS_NONE, STRUCT_BYTES};
use super::state::{State, MASK};
use super::trace::{self, DataDirection};
use super::v2::NO_STATE;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The function by which drivers on vfio-pci-core give a device a region of its own.
pub const REGISTER_REGION: &str = "vfio_pci_core_register_dev_region";
/// Its name before Linux 6.1.
pub const REGISTER_REGION_OLD: &str = "vfio_pci_register_dev_region";
/// All reads of a VFIO device's file, of any driver and region.
pub const DEVICE_READ: &str = "vfio_device_fops_read";
/// All writes.
pub const DEVICE_WRITE: &str = "vfio_device_fops_write";

/// `_IO(';', 108)`.
pub const VFIO_DEVICE_GET_REGION_INFO: u32 = 0x3b6c;
/// `VFIO_PCI_NUM_REGIONS`: a driver's own regions come after those of PCI.
pub const PCI_REGIONS: u64 = 9;
/// `VFIO_PCI_OFFSET_SHIFT`: where a region of a PCI device lies in the device's file.
pub const PCI_OFFSET_BITS: u32 = 40;
/// `VFIO_REGION_INFO_FLAG_CAPS`.
pub const REGION_INFO_CAPS: u32 = 1 << 3;
/// `VFIO_REGION_INFO_CAP_TYPE`.
pub const REGION_INFO_CAP_TYPE: u16 = 2;

/// `struct vfio_region_info`.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct RegionInfo {
    /// Length of it with its capabilities.
    pub argsz: u32,
    /// [`REGION_INFO_CAPS`] and others.
    pub flags: u32,
    /// Which region.
    pub index: u32,
    /// Where its first capability is, from its own start; 0 where there is none.
    pub cap_offset: u32,
    /// Length of the region, in bytes.
    pub size: u64,
    /// Where it lies in the device's file.
    pub offset: u64,
}

/// `struct vfio_region_info_cap_type`; its first half is the head of every capability.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct RegionInfoCap {
    /// [`REGION_INFO_CAP_TYPE`] or another.
    pub id: u16,
    /// Of the capability.
    pub version: u16,
    /// Where the next one is, from the start of the [`RegionInfo`]; 0 after the last.
    pub next: u32,
    /// [`REGION_TYPE`](super::region::REGION_TYPE) or another.
    pub kind: u32,
    /// [`REGION_SUBTYPE`](super::region::REGION_SUBTYPE) or another.
    pub subtype: u32,
}

/// Where the fields of the kernel's own structures are that lead to a region, in bytes, as the kernel's type information (BTF) says.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
#[repr(C)]
pub struct RegionOffsets {
    /// `struct device`: `driver`.
    pub device_driver: u32,
    /// `struct device_driver`: `name`.
    pub driver_name: u32,
    /// `struct vfio_device`: `open_count`, plus one; 0 where there is none (before Linux 5.15).
    pub open_count_plus_one: u32,
    /// `struct pci_dev`: `dev`.
    pub pci_dev_dev: u32,
    /// `struct vfio_pci_core_device`: `pdev`.
    pub core_pdev: u32,
    /// `struct vfio_pci_core_device`: `num_regions`.
    pub core_num_regions: u32,
    /// 1 where devices of our own driver are left to its tracepoints.
    pub ours_are_told: u32,
    /// 1 once the first three are known.
    pub known: u32,
}

/// [`DeviceSums::state`](super::ring::DeviceSums::state) of a device that is seen from outside is this, its [`State`] (or [`NO_STATE`], or
/// [`CLOSED`]) in the lower half, and above this how many bitmaps were not seen.
pub const STATE_OUTSIDE: u64 = 1 << 33;
/// Nobody has the device open.
pub const CLOSED: u32 = u32::MAX - 1;
const UNSEEN_SHIFT: u32 = 40;

/// What [`DeviceSums::state`](super::ring::DeviceSums::state) says of a device that is seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateWord {
    /// [`State`], [`NO_STATE`] or [`CLOSED`].
    pub state: u32,
    /// Bitmaps of dirty pages that were asked for and that nobody was seen to read to the end, up to 255: which pages were dirty is
    /// not known.
    pub unseen: u8,
}

impl StateWord {
    /// As a number.
    pub const fn word(self) -> u64 {
        STATE_OUTSIDE | (self.unseen as u64) << UNSEEN_SHIFT | self.state as u64
    }

    /// From such a number; `None` for one of a device that is seen in another way.
    pub const fn of(word: u64) -> Option<Self> {
        const PARTS: u64 = 0xff << UNSEEN_SHIFT | 0xffff_ffff;
        let [.., unseen, _, _] = word.to_le_bytes();
        if word & !PARTS == STATE_OUTSIDE {
            Some(Self { state: low_half(word), unseen })
        } else {
            None
        }
    }
}

/// `data_offset` was read for the present buffer.
const LOCATED: u32 = 1 << 0;
/// The last answer to a query was a bitmap, and no step of another sequence was taken since: `data_offset` tells where it is.
const BITMAP_CURRENT: u32 = 1 << 1;
/// There is a bitmap, which was not read to its end yet.
const BITMAP: u32 = 1 << 2;

/// What is kept of a device whose migration region is seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Outside {
    /// Where the region lies in the device's file.
    pub position: u64,
    /// Its length, in bytes; 0 while nobody has told it.
    pub bytes: u64,
    /// Where the windows of data and bitmap are, as last told; 0 while not told.
    data_at: u64,
    bitmap_at: u64,
    /// Length of the buffer that is to be moved, and how long the driver took for it; 0 while there is none.
    buffer_bytes: u64,
    buffer_ns: u64,
    /// `start_pfn`, `page_size`, `total_pfns`, as last written.
    query: [u64; 3],
    /// Pages of the bitmap, bytes of it that were read without a gap, bits that were set in them, and how long the answer took.
    bitmap_pages: u64,
    bitmap_read_to: u64,
    bitmap_set: u64,
    bitmap_ns: u64,
    /// Since when the accesses are watched without a gap: the number of that watch.
    pub joined: u64,
    /// Calls that are under way.
    pub in_flight: u64,
    /// 1 if two were at the same time since there was none.
    pub overlapping: u64,
    /// [`State`], or [`NO_STATE`].
    pub state: u32,
    facts: u32,
}

/// What an access came to, beside the access itself. Zeros are nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Meaning {
    /// A buffer of so many bytes was moved.
    pub moved_bytes: u64,
    /// How long the driver took for it, in nanoseconds.
    pub moved_ns: u64,
    /// [`DataDirection`].
    pub direction: u32,
    /// A query was answered: its [`Outcome`] and 1.
    pub outcome_plus_one: u32,
    /// Pages that this says are dirty; those of a bitmap come when it is read.
    pub dirty_pages: u64,
    /// A bitmap was read: so many bytes further on there are so many bits that were not counted yet.
    pub bits_at: u64,
    /// How many bits.
    pub bits: u64,
    /// 1 if the next data was asked for.
    pub data_asked: u32,
    /// 1 if a bitmap will never be seen.
    pub unseen: u32,
}

impl Outside {
    /// A region that was just found, of a device in `state`.
    pub const fn new(position: u64, bytes: u64, state: u32, joined: u64) -> Self {
        Self {
            position,
            bytes,
            data_at: 0,
            bitmap_at: 0,
            buffer_bytes: 0,
            buffer_ns: 0,
            query: [0; 3],
            bitmap_pages: 0,
            bitmap_read_to: 0,
            bitmap_set: 0,
            bitmap_ns: 0,
            joined,
            in_flight: 0,
            overlapping: 0,
            state,
            facts: 0,
        }
    }

    /// Accesses were not watched for a while: what was known may hold no more. Where things are stays.
    #[inline]
    pub fn rejoin(&mut self, joined: u64) {
        self.joined = joined;
        self.state = NO_STATE;
        self.facts = 0;
        self.buffer_bytes = 0;
    }

    /// The offset in the region, if it is there that the file is accessed.
    #[inline]
    pub fn offset(&self, position: u64) -> Option<u64> {
        let offset = position.wrapping_sub(self.position);
        let inside = position >= self.position && offset >> PCI_OFFSET_BITS == 0;
        inside.then_some(offset)
    }

    /// What stands at an offset.
    #[inline]
    pub fn field(&self, offset: u64) -> Field {
        if self.bytes != 0 && offset >= self.bytes {
            return Field::Nothing;
        }
        let in_data = self.data_at != 0 && offset >= self.data_at;
        let in_bitmap = self.bitmap_at != 0 && offset >= self.bitmap_at;
        match (in_data, in_bitmap) {
            (true, true) if self.data_at == self.bitmap_at => {
                if self.has(BITMAP) {
                    Field::Bitmap
                } else {
                    Field::Data
                }
            }
            // Each reaches to where the other begins.
            (true, true) if self.data_at > self.bitmap_at => Field::Data,
            (_, true) => Field::Bitmap,
            (true, false) => Field::Data,
            (false, false) if offset < STRUCT_BYTES => register(offset),
            (false, false) if self.data_at == 0 => Field::Data,
            (false, false) => Field::Nothing,
        }
    }

    /// `device_state` was written with `requested`. Gives what came of it; `None` where that cannot be known.
    #[inline]
    pub fn state_written(&mut self, requested: u32, result: i32) -> Option<Change> {
        let from = self.state;
        if result < 0 {
            // Where it was refused, the client looks what became of it.
            return (from != NO_STATE).then_some(Change { from, now: from });
        }
        let now = requested & MASK;
        if known(now) {
            self.enter(now);
            Some(Change { from, now })
        } else {
            self.enter(NO_STATE);
            None
        }
    }

    /// `device_state` was read as `value`. Gives a change that nobody asked for.
    #[inline]
    pub fn state_told(&mut self, value: u64) -> Option<Change> {
        let from = self.state;
        let now = low_half(value) & MASK;
        if now == from || !known(now) {
            return None;
        }
        self.enter(now);
        (from != NO_STATE).then_some(Change { from, now })
    }

    /// The device runs, after a reset.
    #[inline]
    pub fn reset(&mut self) {
        self.enter(State::Running as u32);
    }

    fn enter(&mut self, now: u32) {
        self.clear(BITMAP_CURRENT);
        if !(is_saving(self.state) && is_saving(now)) {
            self.clear(LOCATED);
            self.buffer_bytes = 0;
        }
        self.state = now;
    }

    /// Whether a bitmap was given up that nobody was seen to read to its end. To be asked after each change of state.
    #[inline]
    pub fn gave_up_bitmap(&mut self) -> bool {
        let gave_up = self.has(BITMAP) && !is_saving(self.state);
        if gave_up {
            self.clear(BITMAP);
        }
        gave_up
    }

    /// Takes in an access; one of `device_state` has been taken in already.
    #[inline]
    pub fn access(&mut self, access: &trace::RegionAccess) -> Meaning {
        let mut meaning = Meaning::default();
        let (field, served) = (access.field, access.result >= 0);
        let read = access.op == Op::Read as u32;
        let wide = access.bytes == 8;
        let is = |one: Field| field == one as u32;
        if is(Field::CopiedPfns) && read && wide {
            self.answered(access, served, &mut meaning);
        } else if !served {
        } else if is(Field::Bitmap) && read {
            self.bitmap_read(access, &mut meaning);
        } else if !wide {
        } else if is(Field::PendingBytes) && read {
            if self.buffer_bytes != 0 && self.may_save() {
                meaning.moved_bytes = self.buffer_bytes;
                meaning.moved_ns = self.buffer_ns;
                meaning.direction = DataDirection::Save as u32;
            }
            self.buffer_bytes = 0;
            self.clear(LOCATED | BITMAP_CURRENT);
        } else if is(Field::DataOffset) && read {
            if self.has(BITMAP_CURRENT) {
                self.bitmap_at = access.value;
            } else {
                self.data_at = access.value;
                meaning.data_asked = 1;
                if self.buffer_bytes == 0 {
                    self.set(LOCATED);
                    self.buffer_ns = access.duration_ns;
                }
            }
        } else if is(Field::DataSize) && read {
            if self.has(LOCATED) && !self.has(BITMAP_CURRENT) && self.may_save() {
                self.buffer_bytes = access.value;
            }
        } else if is(Field::DataSize) {
            let resuming = self.state == State::Resuming as u32 || self.state == NO_STATE;
            if resuming && access.value != 0 {
                meaning.moved_bytes = access.value;
                meaning.moved_ns = access.duration_ns;
                meaning.direction = DataDirection::Resume as u32;
            }
        } else if is(Field::StartPfn) && !read {
            let [start, _, _] = &mut self.query;
            *start = access.value;
        } else if is(Field::PageSize) && !read {
            let [_, page, _] = &mut self.query;
            *page = access.value;
        } else if is(Field::TotalPfns) && !read {
            let [_, _, total] = &mut self.query;
            *total = access.value;
        }
        meaning
    }

    /// `copied_pfns` was read.
    #[inline]
    fn answered(&mut self, access: &trace::RegionAccess, served: bool, meaning: &mut Meaning) {
        let [_, _, total] = self.query;
        if !served {
            meaning.outcome_plus_one = Outcome::Error as u32 + 1;
            return;
        }
        if self.has(BITMAP) {
            meaning.unseen = 1;
        }
        self.clear(BITMAP | BITMAP_CURRENT);
        let outcome = if access.value == PFNS_NONE {
            Outcome::None
        } else if access.value == PFNS_ALL {
            meaning.dirty_pages = total;
            Outcome::All
        } else {
            self.set(BITMAP | BITMAP_CURRENT);
            self.bitmap_pages = access.value;
            self.bitmap_read_to = 0;
            self.bitmap_set = 0;
            self.bitmap_ns = access.duration_ns;
            Outcome::Bitmap
        };
        meaning.outcome_plus_one = outcome as u32 + 1;
    }

    /// The bitmap was read, in part or as a whole.
    #[inline]
    fn bitmap_read(&mut self, access: &trace::RegionAccess, meaning: &mut Meaning) {
        if !self.has(BITMAP) {
            return;
        }
        let at = access.offset.wrapping_sub(self.bitmap_at);
        // Part of the bytes may have come.
        let bytes = low_bytes(access.result);
        let known_to = self.bitmap_read_to;
        if at > known_to || at.saturating_add(bytes) <= known_to {
            return;
        }
        meaning.bits_at = known_to - at;
        let fresh = bytes - meaning.bits_at;
        let left = self.bitmap_pages.saturating_sub(known_to.saturating_mul(8));
        meaning.bits = left.min(fresh.saturating_mul(8));
        self.bitmap_read_to = known_to.saturating_add(fresh);
    }

    /// In what was read of the bitmap, `set` bits are set. Once it was read to its end, this gives the whole query.
    #[inline]
    pub fn bits_counted(&mut self, device: u64, set: u64) -> Option<trace::DirtyQuery> {
        self.bitmap_set = self.bitmap_set.saturating_add(set);
        if self.bitmap_read_to < self.bitmap_pages.div_ceil(8) {
            return None;
        }
        self.clear(BITMAP);
        let duration_ns = self.bitmap_ns;
        let (pages, dirty_pages) = (self.bitmap_pages, self.bitmap_set);
        Some(self.query_record(device, Outcome::Bitmap, (pages, dirty_pages), (duration_ns, 0)))
    }

    /// The bits of what was read cannot be counted. Gives whether a bitmap is lost by that.
    #[inline]
    pub fn bits_missed(&mut self) -> bool {
        let lost = self.has(BITMAP);
        self.clear(BITMAP);
        lost
    }

    /// The record of a query: how it was answered, with which `copied_pfns` and how many dirty pages, how long it took and its result.
    #[inline]
    pub fn query_record(
        &self,
        device: u64,
        outcome: Outcome,
        (copied_pfns, dirty_pages): (u64, u64),
        (duration_ns, result): (u64, i32),
    ) -> trace::DirtyQuery {
        let [start_pfn, page_bytes, total_pfns] = self.query;
        trace::DirtyQuery {
            device,
            start_pfn,
            page_bytes,
            total_pfns,
            copied_pfns,
            dirty_pages,
            duration_ns,
            outcome: outcome as u32,
            result,
        }
    }

    /// Bytes of a page, as the queries count.
    pub const fn page_bytes(&self) -> u64 {
        let [_, page, _] = self.query;
        page
    }

    /// Saving, as far as anybody can tell.
    fn may_save(&self) -> bool {
        is_saving(self.state) || self.state == NO_STATE
    }

    const fn has(&self, fact: u32) -> bool {
        self.facts & fact != 0
    }

    fn set(&mut self, facts: u32) {
        self.facts |= facts;
    }

    fn clear(&mut self, facts: u32) {
        self.facts &= !facts;
    }
}

/// A change of state: the [`State`] before, or [`NO_STATE`], and the one after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Before.
    pub from: u32,
    /// After.
    pub now: u32,
}

/// The register that a byte of the struct belongs to. Without a search, which a probe would pay for at each access.
const fn register(offset: u64) -> Field {
    match offset >> 3 {
        0 if offset < 4 => Field::DeviceState,
        0 => Field::Reserved,
        1 => Field::PendingBytes,
        2 => Field::DataOffset,
        3 => Field::DataSize,
        4 => Field::StartPfn,
        5 => Field::PageSize,
        6 => Field::TotalPfns,
        _ => Field::CopiedPfns,
    }
}

const fn is_saving(state: u32) -> bool {
    state == State::PreCopy as u32 || state == State::StopAndCopy as u32
}

/// Whether it is the number of a state.
const fn known(state: u32) -> bool {
    state <= State::Resuming as u32 || state == State::Error as u32
}

/// The lower half of a register.
const fn low_half(value: u64) -> u32 {
    let [b0, b1, b2, b3, ..] = value.to_le_bytes();
    u32::from_le_bytes([b0, b1, b2, b3])
}

/// A result that is a number of bytes.
const fn low_bytes(result: i64) -> u64 {
    if result > 0 {
        result.unsigned_abs()
    } else {
        0
    }
}

const _: () = {
    assert!(size_of::<RegionInfo>() == 32);
    assert!(size_of::<RegionInfoCap>() == 16);
    assert!(size_of::<RegionOffsets>() == 32);
    assert!(size_of::<Outside>() == 136);
};
