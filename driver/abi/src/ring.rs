// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What the probes give to the agent: records in a ring buffer for what is rare and exact, sums in maps for what is frequent.
//!
//! A device's sums live in one shared entry, not one per CPU: the driver emits all records of a device under that device's
//! lock, so there is one writer at a time, and the sums can be copied whole into the record of a state change. That copy is what
//! makes a session exact, however long after it the agent comes to read.

use super::watch::{conduct::Conduct, Watch};
use super::{dirty, trace};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a record of the ring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Kind {
    /// [`StateRecord`].
    State = 1,
    /// [`DirtyQueryRecord`].
    DirtyQuery = 2,
    /// [`ErrorRecord`].
    Error = 3,
    /// [`ConductRecord`].
    Conduct = 4,
    /// [`ConductCounts`].
    ConductCounts = 5,
}

impl Kind {
    /// How many kinds there are.
    pub const COUNT: usize = 5;
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] =
        [Self::State, Self::DirtyQuery, Self::Error, Self::Conduct, Self::ConductCounts];

    /// The value of the label `kind`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::DirtyQuery => "dirty_query",
            Self::Error => "error",
            Self::Conduct => "conduct",
            Self::ConductCounts => "conduct_counts",
        }
    }
}

impl TryFrom<u32> for Kind {
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number).ok_or(number)
    }
}

/// The head of every record.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// `CLOCK_MONOTONIC` when the probe ran, in nanoseconds.
    pub monotonic_ns: u64,
    /// [`Kind`].
    pub kind: u32,
    /// Process (thread group) that was running.
    pub tgid: u32,
}

/// [`DeviceSums::state`] while no record has told the state, or in a record whose device has no sums because the map is full.
pub const STATE_UNKNOWN: u64 = u64::MAX;
/// [`DeviceSums::state`] after the record of a close: nobody has the device open.
pub const STATE_CLOSED: u64 = u64::MAX - 1;

/// All that was ever counted of a device since the probes were attached.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
#[repr(C)]
pub struct DeviceSums {
    /// Device data moved, in bytes, by [`DataDirection`](trace::DataDirection).
    pub data_bytes: [u64; trace::DataDirection::COUNT],
    /// Buffers moved, by [`DataDirection`](trace::DataDirection).
    pub iterations: [u64; trace::DataDirection::COUNT],
    /// Dirty queries, by [`Outcome`](dirty::Outcome).
    pub dirty_queries: [u64; dirty::Outcome::COUNT],
    /// Pages reported dirty, in pages of the queries.
    pub dirty_pages: u64,
    /// The same in bytes.
    pub dirty_bytes: u64,
    /// DMA transfers seen to their end, by [`DmaDirection`](trace::DmaDirection).
    pub dma_transfers: [u64; trace::DmaDirection::COUNT],
    /// Their bytes.
    pub dma_bytes: [u64; trace::DmaDirection::COUNT],
    /// What `pending_bytes` last read as; it means nothing while `pending_reads` is 0.
    pub pending_bytes: u64,
    /// How often `pending_bytes` was read.
    pub pending_reads: u64,
    /// [`State`](super::state::State) as of the last record that told it, [`STATE_CLOSED`] or
    /// [`STATE_UNKNOWN`].
    pub state: u64,
    /// `CLOCK_MONOTONIC` of the last record, in nanoseconds.
    pub last_seen_ns: u64,
    /// Time that the driver spent staging or taking in buffers, in nanoseconds, by
    /// [`DataDirection`](trace::DataDirection).
    pub data_busy_ns: [u64; trace::DataDirection::COUNT],
    /// Time that the driver spent answering dirty queries, in nanoseconds.
    pub query_busy_ns: u64,
    /// What happened since the device entered its present state.
    pub stay: Stay,
}

/// What happened, and when, since a device entered the state that it is in. A state record carries the stay that it ends; the next
/// one starts empty. Writing the state that holds already goes on with the same stay. This is what tells the parts of a downtime apart.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
#[repr(C)]
pub struct Stay {
    /// When the first access began that moves device data (a read of `data_offset` that tells the data window), `CLOCK_MONOTONIC` in nanoseconds;
    /// 0 while there was none.
    pub data_began_ns: u64,
    /// When the last buffer was done; 0 while there was none.
    pub data_ended_ns: u64,
    /// When the first dirty query began; 0 while there was none.
    pub query_began_ns: u64,
    /// When the last dirty query was answered; 0 while there was none.
    pub query_ended_ns: u64,
}

impl Stay {
    /// Nothing has happened yet.
    pub const NONE: Self =
        Self { data_began_ns: 0, data_ended_ns: 0, query_began_ns: 0, query_ended_ns: 0 };
}

/// Ring record of the tracepoint `state`, with the device's sums as they were then.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct StateRecord {
    /// The head.
    pub header: Header,
    /// The tracepoint's record.
    pub event: trace::State,
    /// The sums.
    pub sums: DeviceSums,
}

/// Ring record of the tracepoint `dirty_query`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct DirtyQueryRecord {
    /// The head.
    pub header: Header,
    /// The tracepoint's record.
    pub event: trace::DirtyQuery,
}

/// Ring record of the tracepoint `error`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct ErrorRecord {
    /// The head.
    pub header: Header,
    /// The tracepoint's record.
    pub event: trace::Error,
}

/// Ring record of a broken rule of conduct. A client can break one in a loop, so there is a record for the 1st, 2nd, 4th, 8th and
/// so on time that a rule is broken in a session; the others are in [`ConductCounts`].
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct ConductRecord {
    /// The head.
    pub header: Header,
    /// [`DeviceKey`](super::device::DeviceKey).
    pub device: u64,
    /// Offset of the access in the region, in bytes.
    pub offset: u64,
    /// The register's value, read or written, or the state that was asked for; 0 for a window and for a refused access.
    pub value: u64,
    /// How often the rule was broken in this session, this time included.
    pub count: u64,
    /// [`Conduct`].
    pub rule: u32,
    /// [`State`](super::state::State) after it.
    pub state: u32,
    /// [`Field`](super::region::Field).
    pub field: u32,
    /// [`Op`](super::region::Op).
    pub op: u32,
}

/// Ring record that comes before the state record by which a session may end, if rules of conduct were broken in it of which
/// no [`ConductRecord`] told.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct ConductCounts {
    /// The head.
    pub header: Header,
    /// [`DeviceKey`](super::device::DeviceKey).
    pub device: u64,
    /// How often each rule was broken in the session, by [`Conduct::index`].
    pub counts: [u64; Conduct::COUNT],
}

/// What the probes keep of a device to watch its conduct.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Conducted {
    /// The watch.
    pub watch: Watch,
    /// How often each rule was broken since the probes were attached, by [`Conduct::index`].
    pub total: [u64; Conduct::COUNT],
    /// The same since the present session began, or the last one, or the device was opened.
    pub session: [u64; Conduct::COUNT],
    /// Of those in `session`: how often since a record last told all of it.
    pub untold: u64,
}

/// Key of the map of access counts, which is per CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct AccessKey {
    /// [`DeviceKey`](super::device::DeviceKey).
    pub device: u64,
    /// [`Field`](super::region::Field).
    pub field: u32,
    /// [`Op`](super::region::Op) in bit 0; bit 1 is set when the access was refused.
    pub op_and_refused: u32,
}

/// Index into the per-CPU latency arrays: one histogram for each field and direction.
pub const fn latency_series(field: u32, op: u32) -> u32 {
    field * 2 + op
}

/// Why something did not reach the agent. Counted for each tracepoint in a slot of its own, [`lost_slot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Lost {
    /// The ring was full.
    RingFull = 0,
    /// A map was full: a device's or a field's sums are missing.
    MapFull = 1,
    /// The tracepoint's record could not be read.
    Unreadable = 2,
}

impl Lost {
    /// How many reasons there are.
    pub const COUNT: usize = 3;
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::RingFull, Self::MapFull, Self::Unreadable];

    /// The value of the label `reason`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::MapFull => "map_full",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Index into the per-CPU array of losses. Each tracepoint's program has its own row, so that no two programs write one value.
pub const fn lost_slot(event: trace::Event, reason: Lost) -> u32 {
    // 3 is `Lost::COUNT`, asserted below.
    event as u32 * 3 + reason as u32
}

const _: () = {
    assert!(Lost::COUNT == 3);
    assert!(size_of::<Header>() == 16);
    assert!(size_of::<DeviceSums>() == 200);
    assert!(size_of::<StateRecord>() == 256);
    assert!(size_of::<DirtyQueryRecord>() == 80);
    assert!(size_of::<ErrorRecord>() == 72);
    assert!(size_of::<AccessKey>() == 16);
    assert!(size_of::<ConductRecord>() == 64);
    assert!(size_of::<ConductCounts>() == 24 + 8 * Conduct::COUNT);
    assert!(size_of::<Conducted>() == 80 + 16 * Conduct::COUNT);
};
