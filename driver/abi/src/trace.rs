// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The records behind the driver's tracepoints, system `vfio_mediate`.
//!
//! The events are named `vfio_mediate_state`, `vfio_mediate_region_access` and so on: a raw tracepoint is found by its name alone,
//! and a bare `error` or `data` would collide. [`STATE`] and its neighbours are those names.
//!
//! Each tracepoint takes one argument, a pointer to its record; so a probe reads one block of memory, and tracefs shows the same
//! fields by name. `driver/trace.h` declares them in C and asserts that size and offsets are these. A device's records come in the
//! order in which things happened: the driver emits them under the device's lock.

use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Name of the tracepoint of [`State`].
pub const STATE: &str = "vfio_mediate_state";
/// Name of the tracepoint of [`RegionAccess`].
pub const REGION_ACCESS: &str = "vfio_mediate_region_access";
/// Name of the tracepoint of [`Data`].
pub const DATA: &str = "vfio_mediate_data";
/// Name of the tracepoint of [`DirtyQuery`].
pub const DIRTY_QUERY: &str = "vfio_mediate_dirty_query";
/// Name of the tracepoint of [`Dma`].
pub const DMA: &str = "vfio_mediate_dma";
/// Name of the tracepoint of [`Error`].
pub const ERROR: &str = "vfio_mediate_error";

/// Tracepoint `state`: a device changed state, was asked to and refused, was opened, closed or reset.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct State {
    /// [`DeviceKey`](super::device::DeviceKey).
    pub device: u64,
    /// How long the change took, in nanoseconds.
    pub duration_ns: u64,
    /// [`State`](super::state::State) before.
    pub from: u32,
    /// What was asked for, as written: it may be no state at all.
    pub requested: u32,
    /// [`State`](super::state::State) after; equal to `from` when refused.
    pub now: u32,
    /// [`Cause`](super::state::Cause).
    pub cause: u32,
    /// 0, or a negative errno.
    pub result: i32,
    /// Zero.
    pub reserved: u32,
}

/// Tracepoint `region_access`: one read or write of the migration region, served or refused.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct RegionAccess {
    /// [`DeviceKey`](super::device::DeviceKey).
    pub device: u64,
    /// Offset in the region, in bytes.
    pub offset: u64,
    /// Length asked for, in bytes.
    pub bytes: u64,
    /// The register's value, read or written; 0 for a window and for a refused access.
    pub value: u64,
    /// How long it took, in nanoseconds.
    pub duration_ns: u64,
    /// Bytes moved, or a negative errno.
    pub result: i64,
    /// [`Field`](super::region::Field).
    pub field: u32,
    /// [`Op`](super::region::Op).
    pub op: u32,
    /// [`State`](super::state::State) after the access.
    pub state: u32,
    /// Zero.
    pub reserved: u32,
}

/// Which way device data went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum DataDirection {
    /// Out of the source device.
    Save = 0,
    /// Into the destination device.
    Resume = 1,
}

impl DataDirection {
    /// How many directions there are.
    pub const COUNT: usize = 2;
    /// Both, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::Save, Self::Resume];

    /// The value of the label `direction`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Save => "save",
            Self::Resume => "resume",
        }
    }
}

impl TryFrom<u32> for DataDirection {
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        Self::ALL.into_iter().find(|direction| *direction as u32 == number).ok_or(number)
    }
}

/// Tracepoint `data`: one iteration is over. Saving, the user has read `pending_bytes` after a buffer of at least one byte, which
/// ends that buffer; resuming, a buffer was taken in by a write of `data_size`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Data {
    /// [`DeviceKey`](super::device::DeviceKey).
    pub device: u64,
    /// Length of the buffer, in bytes.
    pub bytes: u64,
    /// Which iteration of this session it was, from 1.
    pub iteration: u64,
    /// Saving: what is still pending after it, in bytes. Resuming: 0.
    pub pending_bytes: u64,
    /// How long the driver took to stage or to take in the buffer, in nanoseconds.
    pub duration_ns: u64,
    /// [`DataDirection`].
    pub direction: u32,
    /// [`State`](super::state::State).
    pub state: u32,
}

/// Tracepoint `dirty_query`: `copied_pfns` was read.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct DirtyQuery {
    /// [`DeviceKey`](super::device::DeviceKey).
    pub device: u64,
    /// First page asked for, counted in `page_bytes`.
    pub start_pfn: u64,
    /// Page size of the query, in bytes.
    pub page_bytes: u64,
    /// Pages asked for.
    pub total_pfns: u64,
    /// The answer, as read; 0 when refused.
    pub copied_pfns: u64,
    /// Pages reported dirty, in pages of the query; `total_pfns` when the answer is ALL.
    pub dirty_pages: u64,
    /// How long the driver took, in nanoseconds.
    pub duration_ns: u64,
    /// [`Outcome`](super::dirty::Outcome).
    pub outcome: u32,
    /// 0, or a negative errno.
    pub result: i32,
}

/// Which way DMA went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum DmaDirection {
    /// The device wrote memory: this is what dirties pages.
    ToMemory = 0,
    /// The device read memory.
    FromMemory = 1,
}

impl DmaDirection {
    /// How many directions there are.
    pub const COUNT: usize = 2;
    /// Both, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::ToMemory, Self::FromMemory];

    /// The value of the label `direction`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToMemory => "to_memory",
            Self::FromMemory => "from_memory",
        }
    }
}

impl TryFrom<u32> for DmaDirection {
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        Self::ALL.into_iter().find(|direction| *direction as u32 == number).ok_or(number)
    }
}

/// Tracepoint `dma`: a transfer that the user's side started was seen to be over, or its command was refused.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Dma {
    /// [`DeviceKey`](super::device::DeviceKey).
    pub device: u64,
    /// First address in memory.
    pub iova: u64,
    /// Length, in bytes.
    pub bytes: u64,
    /// Pages of 4096 bytes that were added to the dirty log by it; 0 when nothing is logged.
    pub logged_pages: u64,
    /// [`DmaDirection`].
    pub direction: u32,
    /// [`State`](super::state::State) when it was seen.
    pub state: u32,
    /// 0, or a negative errno: the command never reached the device.
    pub result: i32,
    /// Zero.
    pub reserved: u32,
}

/// Tracepoint `error`: the driver refused something, and which rule it broke.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Error {
    /// [`DeviceKey`](super::device::DeviceKey).
    pub device: u64,
    /// Offset in the region (or in BAR 0 for a device command), in bytes.
    pub offset: u64,
    /// Length of the access, in bytes.
    pub bytes: u64,
    /// The value that was written; 0 for a read.
    pub value: u64,
    /// [`Rule`](super::rule::Rule).
    pub rule: u32,
    /// The errno given, negative.
    pub errno: i32,
    /// [`Field`](super::region::Field).
    pub field: u32,
    /// [`Op`](super::region::Op).
    pub op: u32,
    /// [`State`](super::state::State), which did not change.
    pub state: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<State>() == 40);
    assert!(size_of::<RegionAccess>() == 64);
    assert!(size_of::<Data>() == 48);
    assert!(size_of::<DirtyQuery>() == 64);
    assert!(size_of::<Dma>() == 48);
    assert!(size_of::<Error>() == 56);
};
