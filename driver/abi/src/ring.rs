// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What the probes give to the agent: records in a ring buffer for what is rare and exact, sums in maps for what is frequent.
//!
//! A device's sums live in one shared entry, not one per CPU: the driver emits all records of a device under that device's
//! lock, so there is one writer at a time, and the sums can be copied whole into the record of a state change. That copy is what
//! makes a session exact, however long after it the agent comes to read.

use super::probe::Probe;
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
    /// [`MigStateRecord`].
    MigState = 6,
    /// [`DirtyQueryRecord`], of a `VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT`.
    DmaLoggingReport = 7,
    /// [`MachineRecord`](super::machine::MachineRecord).
    Machine = 8,
}

impl Kind {
    /// How many kinds there are.
    pub const COUNT: usize = 8;
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::State,
        Self::DirtyQuery,
        Self::Error,
        Self::Conduct,
        Self::ConductCounts,
        Self::MigState,
        Self::DmaLoggingReport,
        Self::Machine,
    ];

    /// The value of the label `kind`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::DirtyQuery => "dirty_query",
            Self::Error => "error",
            Self::Conduct => "conduct",
            Self::ConductCounts => "conduct_counts",
            Self::MigState => "mig_state",
            Self::DmaLoggingReport => "dma_logging_report",
            Self::Machine => "machine",
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
/// The same of a device of the v2 protocol: what was counted of it stays what was counted by that.
pub const STATE_CLOSED_V2: u64 = u64::MAX - 2;
/// [`DeviceSums::state`] of a device of the v2 protocol is this and its [`MigState`](super::v2::MigState).
pub const STATE_V2: u64 = 1 << 32;

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
    /// [`State`](super::state::State) as of the last record that told it, [`STATE_V2`] and a
    /// [`MigState`](super::v2::MigState) or [`NO_STATE`](super::v2::NO_STATE), [`STATE_CLOSED`], [`STATE_CLOSED_V2`] or
    /// [`STATE_UNKNOWN`]; or a
    /// [`StateWord`](super::outside::StateWord).
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
    /// What a device of the v2 protocol last told of what is left.
    pub left: Left,
    /// What it did not give while it ran.
    pub withheld: Withheld,
}

/// What a device that ran told to be left and gave none of when it was asked: a region that answers `data_size` with 0 though
/// `pending_bytes` is not, or a read of the v2 protocol's file that ends with ENOMSG before all that was told has been read. As long as it does not
/// change its mind, that can move only once the device stands.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
#[repr(C)]
pub struct Withheld {
    /// How much it was the last time, in bytes; it means nothing while `answers` is 0.
    pub bytes: u64,
    /// How often it answered so.
    pub answers: u64,
}

impl Withheld {
    /// It never answered so.
    pub const NEVER: Self = Self { bytes: 0, answers: 0 };
}

/// What a device of the v2 protocol last told of what is left to move. All 0 of one of the region protocol, which has `pending_bytes` alone.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
#[repr(C)]
pub struct Left {
    /// `vfio_precopy_info.initial_bytes`; it means nothing while `precopy_tellings` is 0.
    pub initial_bytes: u64,
    /// `vfio_precopy_info.dirty_bytes`; it means nothing while `precopy_tellings` is 0.
    pub dirty_bytes: u64,
    /// How often `VFIO_MIG_GET_PRECOPY_INFO` was answered.
    pub precopy_tellings: u64,
    /// How often it said that the initial data begins anew.
    pub reinits: u64,
    /// `VFIO_DEVICE_FEATURE_MIG_DATA_SIZE`; it means nothing while `stop_copy_tellings` is 0.
    pub stop_copy_bytes: u64,
    /// How often that was answered.
    pub stop_copy_tellings: u64,
    /// How often it was refused: then QEMU takes 100 GiB for it (`hw/vfio/migration.c`, `VFIO_MIG_STOP_COPY_SIZE`).
    pub stop_copy_refusals: u64,
}

impl Left {
    /// Nothing was told.
    pub const NONE: Self = Self {
        initial_bytes: 0,
        dirty_bytes: 0,
        precopy_tellings: 0,
        reinits: 0,
        stop_copy_bytes: 0,
        stop_copy_tellings: 0,
        stop_copy_refusals: 0,
    };
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

/// Ring record of a change of state by the v2 protocol, or of an attempt at one, or of a device that tells another state than was
/// known.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct MigStateRecord {
    /// The head.
    pub header: Header,
    /// [`DeviceKey`](super::device::DeviceKey).
    pub device: u64,
    /// How long the ioctl took, in nanoseconds.
    pub duration_ns: u64,
    /// [`MigState`](super::v2::MigState) before, or [`NO_STATE`](super::v2::NO_STATE).
    pub from: u32,
    /// What was asked for, any number; [`NO_STATE`](super::v2::NO_STATE) where nobody asked for a state.
    pub requested: u32,
    /// [`MigState`](super::v2::MigState) after, or [`NO_STATE`](super::v2::NO_STATE): a device may fail in any state.
    pub now: u32,
    /// [`Cause`](super::state::Cause).
    pub cause: u32,
    /// 0, or a negative errno.
    pub result: i32,
    /// How many arcs the driver took on the way.
    pub steps: u32,
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

/// Why something did not reach the agent. Counted in [`Losses`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Lost {
    /// The ring was full.
    RingFull = 0,
    /// A map with an entry for each device was full: nothing is added up of one that has none, or of one of its fields. What is known of
    /// the others is all the same.
    MapFull = 1,
    /// What was to be looked at could not be read.
    Unreadable = 2,
    /// A call was seen to begin and not to end, or a file with device data is not followed: there are only so many places for these, in
    /// the kernel and in our maps.
    Unfinished = 3,
}

impl Lost {
    /// How many reasons there are.
    pub const COUNT: usize = 4;
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] =
        [Self::RingFull, Self::MapFull, Self::Unreadable, Self::Unfinished];

    /// The value of the label `reason`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::MapFull => "map_full",
            Self::Unreadable => "unreadable",
            Self::Unfinished => "unfinished",
        }
    }
}

/// What did not reach the agent, by [`Probe`] and [`Lost`]. Each program has its own row, so that no two programs write one value.
pub type Losses = [[u64; Lost::COUNT]; Probe::COUNT];

const _: () = {
    assert!(size_of::<Header>() == 16);
    assert!(size_of::<DeviceSums>() == 272);
    assert!(size_of::<StateRecord>() == 328);
    assert!(size_of::<MigStateRecord>() == 328);
    assert!(size_of::<DirtyQueryRecord>() == 80);
    assert!(size_of::<ErrorRecord>() == 72);
    assert!(size_of::<AccessKey>() == 16);
    assert!(size_of::<ConductRecord>() == 64);
    assert!(size_of::<ConductCounts>() == 24 + 8 * Conduct::COUNT);
    assert!(size_of::<Conducted>() == 80 + 16 * Conduct::COUNT);
};
