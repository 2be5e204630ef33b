// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The rules of conduct: what a client and a driver owe each other, as far as it is seen from outside.
//!
//! [`Rule`](super::super::rule::Rule) is what *our* driver refuses and says so itself. A rule of conduct is judged on the
//! accesses and their values alone, so any driver and any client can break it, and the two sets share no name. An access that
//! was refused may stand in both: one says what the driver did about it, the other what was wrong with it.
//!
//! Sources: *RFC* is "vfio/pci: register a default migration region" (Yan Zhao, 2019-12-05), the comment at `struct
//! vfio_device_migration_info`, with the letters of its three sequences (*saving* a to f, *dirty* a to e, *resuming* a to c);
//! *uapi* is the text that followed it in `include/uapi/linux/vfio.h` (5.8 to 5.17); *QEMU* is `hw/vfio/migration.c` of 5.2 to 7.2,
//! whose needs a driver has to meet. What QEMU does in a migration that goes well, or is cancelled, is no breach of anything.

/// Who broke a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// The client of the region: a VMM.
    Client,
    /// The driver, who answers for its device too.
    Driver,
}

impl Party {
    /// The name that reports use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Driver => "driver",
        }
    }
}

/// A rule of conduct that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Conduct {
    /// Client: asked for a state to which no arc leads from the present one. uapi, the list of state transitions; the arcs are
    /// those of [`State::next`](super::super::state::State::next). In *error* every write may be tried.
    ArcAsked = 1,
    /// Client: asked for 5, 6 or 7, or with a reserved bit. RFC, `device_state`: "Bits 3 - 31 are reserved", "_SAVING and _RESUMING
    /// bits set at the same time is invalid state"; uapi, `VFIO_DEVICE_STATE_VALID`.
    StateAsked = 2,
    /// Driver: went along an arc that does not exist. The same text as for [`Self::ArcAsked`].
    ArcAccepted = 3,
    /// Driver: accepted what is no state. The same text as for [`Self::StateAsked`].
    StateAccepted = 4,
    /// Driver: after a write the device is in a state that was not asked for, or after a refused write in neither its old state
    /// nor *error*. RFC, `device_state`: "If device state transition fails, write on this field return error"; uapi: the user
    /// then reads the previous state or the error state.
    StateMisplaced = 5,
    /// Driver: `device_state` does not read as the state that the device is in. RFC, `device_state`: read/write.
    StateMisread = 6,
    /// Client: went from stop-and-copy to stopped, which ends a migration, and `pending_bytes` had not been read as 0 since the
    /// device stood still: the rest of its state is lost. uapi: the user iterates "until pending_bytes is 0".
    LeftWithPending = 7,
    /// Driver: `pending_bytes` is not 0 though nothing is being saved. QEMU reads it in any state and would go on.
    PendingOutsideSaving = 8,
    /// Driver: in stop-and-copy `pending_bytes` grew from one read to the next, and no data was asked for in between. A device
    /// that stands still makes no state; uapi: a read at the start of an iteration has no side effect.
    PendingGrew = 9,
    /// Driver: in stop-and-copy `pending_bytes` was not 0, but `data_size` is. QEMU stops there, and the rest of the state is lost.
    /// While the device runs this is no breach: it may count what can be had only later.
    PendingWithoutData = 10,
    /// Client: read `data_offset` before it ever read `pending_bytes` in this session. RFC, saving a, b.
    OffsetBeforePending = 11,
    /// Client: read `data_offset` for data though `pending_bytes` was 0. RFC, saving a: "If pending_bytes > 0, go through below
    /// steps".
    OffsetWithoutPending = 12,
    /// Driver: `data_offset` points into the struct. RFC: the data section follows the struct, "so data_offset will always be
    /// non-0".
    OffsetInStruct = 13,
    /// Client: read `data_size` before `data_offset` in an iteration. RFC, saving b, c: it is the read of `data_offset` that
    /// makes the driver stage data.
    SizeBeforeOffset = 14,
    /// Driver: `data_offset` or `data_size` changed within an iteration. uapi: they tell the buffer that is staged.
    BufferChanged = 15,
    /// Client: read the data window in a state in which nothing is saved. RFC, `data_offset`: "during _SAVING state".
    DataOutsideSaving = 16,
    /// Client: read data before `data_offset` in an iteration. RFC, saving b, d.
    DataBeforeOffset = 17,
    /// Client: read data before `data_size` in an iteration. RFC, saving c, d.
    DataBeforeSize = 18,
    /// Client: read outside of the `data_size` bytes from `data_offset` on. RFC, saving d.
    DataPastSize = 19,
    /// Client: ended a buffer, by reading `pending_bytes`, of which it had read only a part: the rest is lost. RFC, saving d;
    /// uapi, f: the read says "that the previous buffer was read".
    DataUnread = 20,
    /// Client: wrote to the data window, or `data_size`, in another state than resuming. RFC, `data_size`: "during _RESUMING state".
    LoadOutsideResuming = 21,
    /// Client: wrote data before it read `data_offset` for this buffer. RFC, resuming a, b.
    LoadBeforeOffset = 22,
    /// Client: wrote `data_size` without having read `data_offset` for this buffer. RFC, resuming a, c.
    CommitBeforeOffset = 23,
    /// Client: wrote a `data_size` larger than what it had written. RFC, resuming b, c.
    DataUnwritten = 24,
    /// Client: used the registers or the bitmap of a dirty query in a state in which nothing is saved. RFC, `start_pfn`: "during
    /// _SAVING state".
    QueryOutsideSaving = 25,
    /// Client: wrote `start_pfn` or `page_size` after `total_pfns` in one query. RFC, dirty a, in that order: the series' own
    /// driver computes the bitmap at `total_pfns`.
    QueryOrder = 26,
    /// Client: read `copied_pfns` before it had written all three registers in this session. RFC, dirty a, b.
    QueryUnasked = 27,
    /// Driver: `copied_pfns` is larger than `total_pfns`, and not ALL. RFC, `copied_pfns`: of the pages of the requested range.
    CopiedTooMany = 28,
    /// Client: read the bitmap window though no answer had put a bitmap there. RFC, dirty b, d.
    BitmapUnasked = 29,
    /// Client: read the bitmap before it read where it is. RFC, dirty c, d.
    BitmapBeforeOffset = 30,
    /// Client: read outside of the bitmap of `copied_pfns` bits from `data_offset` on, in whole words of 64. RFC, dirty d.
    BitmapPastAnswer = 31,
    /// Client: made the next query when it had read only a part of a bitmap: pages that the device wrote are not copied, unless
    /// the driver takes care of it. RFC, dirty d, e.
    BitmapUnread = 32,
    /// Client: wrote something else than 0 to the reserved field. uapi: "writes are ignored", so whatever it means is not done.
    ReservedWritten = 33,
    /// Driver: the reserved field does not read as 0. uapi: "Reads on this field return zero".
    ReservedNotZero = 34,
}

/// [`Conduct::COUNT`], where only a number will do.
const COUNT: usize = 34;

impl Conduct {
    /// How many rules there are.
    pub const COUNT: usize = COUNT;
    /// All rules, in the order of their numbers.
    pub const ALL: [Self; COUNT] = [
        Self::ArcAsked,
        Self::StateAsked,
        Self::ArcAccepted,
        Self::StateAccepted,
        Self::StateMisplaced,
        Self::StateMisread,
        Self::LeftWithPending,
        Self::PendingOutsideSaving,
        Self::PendingGrew,
        Self::PendingWithoutData,
        Self::OffsetBeforePending,
        Self::OffsetWithoutPending,
        Self::OffsetInStruct,
        Self::SizeBeforeOffset,
        Self::BufferChanged,
        Self::DataOutsideSaving,
        Self::DataBeforeOffset,
        Self::DataBeforeSize,
        Self::DataPastSize,
        Self::DataUnread,
        Self::LoadOutsideResuming,
        Self::LoadBeforeOffset,
        Self::CommitBeforeOffset,
        Self::DataUnwritten,
        Self::QueryOutsideSaving,
        Self::QueryOrder,
        Self::QueryUnasked,
        Self::CopiedTooMany,
        Self::BitmapUnasked,
        Self::BitmapBeforeOffset,
        Self::BitmapPastAnswer,
        Self::BitmapUnread,
        Self::ReservedWritten,
        Self::ReservedNotZero,
    ];

    /// The value of the label `rule`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ArcAsked => "arc_asked",
            Self::StateAsked => "state_asked",
            Self::ArcAccepted => "arc_accepted",
            Self::StateAccepted => "state_accepted",
            Self::StateMisplaced => "state_misplaced",
            Self::StateMisread => "state_misread",
            Self::LeftWithPending => "left_with_pending",
            Self::PendingOutsideSaving => "pending_outside_saving",
            Self::PendingGrew => "pending_grew",
            Self::PendingWithoutData => "pending_without_data",
            Self::OffsetBeforePending => "offset_before_pending",
            Self::OffsetWithoutPending => "offset_without_pending",
            Self::OffsetInStruct => "offset_in_struct",
            Self::SizeBeforeOffset => "size_before_offset",
            Self::BufferChanged => "buffer_changed",
            Self::DataOutsideSaving => "data_outside_saving",
            Self::DataBeforeOffset => "data_before_offset",
            Self::DataBeforeSize => "data_before_size",
            Self::DataPastSize => "data_past_size",
            Self::DataUnread => "data_unread",
            Self::LoadOutsideResuming => "load_outside_resuming",
            Self::LoadBeforeOffset => "load_before_offset",
            Self::CommitBeforeOffset => "commit_before_offset",
            Self::DataUnwritten => "data_unwritten",
            Self::QueryOutsideSaving => "query_outside_saving",
            Self::QueryOrder => "query_order",
            Self::QueryUnasked => "query_unasked",
            Self::CopiedTooMany => "copied_too_many",
            Self::BitmapUnasked => "bitmap_unasked",
            Self::BitmapBeforeOffset => "bitmap_before_offset",
            Self::BitmapPastAnswer => "bitmap_past_answer",
            Self::BitmapUnread => "bitmap_unread",
            Self::ReservedWritten => "reserved_written",
            Self::ReservedNotZero => "reserved_not_zero",
        }
    }

    /// Who breaks it.
    pub const fn party(self) -> Party {
        match self {
            Self::ArcAccepted
            | Self::StateAccepted
            | Self::StateMisplaced
            | Self::StateMisread
            | Self::PendingOutsideSaving
            | Self::PendingGrew
            | Self::PendingWithoutData
            | Self::OffsetInStruct
            | Self::BufferChanged
            | Self::CopiedTooMany
            | Self::ReservedNotZero => Party::Driver,
            _ => Party::Client,
        }
    }

    /// Where its count stands in a row of [`Self::COUNT`].
    pub const fn index(self) -> u32 {
        self as u32 - 1
    }
}

impl TryFrom<u32> for Conduct {
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        Self::ALL.into_iter().find(|conduct| *conduct as u32 == number).ok_or(number)
    }
}
