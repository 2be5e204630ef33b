// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The protocol watch: follows one device through what is seen of its region, and says which rule of conduct was broken.
//!
//! ```text
//!   trace::State        ──▶ ┌───────┐
//!                           │ Watch │ ──▶ Option<Conduct>
//!   trace::RegionAccess ──▶ └───────┘
//!
//!   saving     ┌─▶ pending_bytes ─▶ data_offset ─▶ data_size ─▶ data ─┐     PENDING, LOCATED, SIZED, moved_to
//!              └──────────────────────────────────────────────────────┘
//!   dirty        start_pfn, page_size, total_pfns ─▶ copied_pfns ─▶ data_offset ─▶ bitmap     ASKED_*, BITMAP*
//!   resuming   ┌─▶ data_offset ─▶ data ─▶ data_size ─┐                      LOCATED, moved_to
//!              └─────────────────────────────────────┘
//! ```
//!
//! It runs in the probes, so it is small, has no loop and no table, and any record makes it do something sensible: it is total.
//!
//! # What was refused
//!
//! A refused access changed nothing in the device, so nothing advances here. It was the client's mistake all the same, if it was
//! one: so it is judged. Its value is not told; what needs one judges only what was served.
//!
//! # Unknown is no breach
//!
//! *From the middle.* A watch that comes in the middle of a session, or sees a state that no record led to, knows the state and
//! nothing else; it is silent about the order of things until a record of a state begins something whole ([`KNOWN`]). A session is
//! whole only if the write that began it was itself seen as an access: else the probe for accesses is missing.
//!
//! *Mappings.* What a client does in a mapping of a window is not seen. So data that nobody was seen to move may have been moved.
//! But mappings are of whole pages: when the bytes from the start of a buffer on went by system calls, and they end inside of a
//! page, then the rest of that page did not go by a mapping. Only such a buffer is said to be [`DataUnread`](Conduct::DataUnread),
//! [`DataUnwritten`](Conduct::DataUnwritten) or [`BitmapUnread`](Conduct::BitmapUnread); and not one with a gap, or after an
//! access to it that failed.
//!
//! *A cancel from another thread.* QEMU writes `device_state` from its main thread while the migration's thread is in an
//! iteration. What belongs to that iteration is no breach though it comes after saving has ended ([`AFTERMATH`]).
//!
//! *A breach counts once.* After one, the rest of the iteration is not judged by the order that was left ([`ASTRAY`]).

pub mod conduct;
mod data;
mod query;

use super::region::{Field, Op};
use super::state::{Cause, State, MASK};
use super::trace;
use conduct::Conduct;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The present state, and what led to it, were seen from its beginning.
const KNOWN: u32 = 1 << 0;
/// A session has begun; the access that began it is still to come.
const BEGUN: u32 = 1 << 1;
/// Saving has ended while an iteration may have been under way in another thread.
const AFTERMATH: u32 = 1 << 2;
/// A rule of this iteration was broken: the others of it are not judged.
const ASTRAY: u32 = 1 << 3;
/// `pending_bytes` was read in this session.
const PENDING: u32 = 1 << 4;
/// `pending_bytes` was read since the device stands still.
const PENDING_AT_REST: u32 = 1 << 5;
/// The same, and no data was asked for since.
const UNTOUCHED: u32 = 1 << 6;
/// `pending_bytes` was 0 when it was last read since the device stands still.
const DRAINED: u32 = 1 << 7;
/// `data_offset` was read for the present buffer.
const LOCATED: u32 = 1 << 8;
/// `data_size` was read for the present buffer.
const SIZED: u32 = 1 << 9;
/// How much of the present buffer was moved is not known.
const SCATTERED: u32 = 1 << 10;
/// `start_pfn` was written in this session.
const ASKED_START: u32 = 1 << 11;
/// `page_size` was written in this session.
const ASKED_PAGE: u32 = 1 << 12;
/// `total_pfns` was written in this session.
const ASKED_TOTAL: u32 = 1 << 13;
/// `total_pfns` was written in this query.
const ASKED_LAST: u32 = 1 << 14;
/// The last answer is a bitmap.
const BITMAP: u32 = 1 << 15;
/// The next `data_offset` tells where it is.
const BITMAP_NEXT: u32 = 1 << 16;
/// `data_offset` was read for it.
const BITMAP_LOCATED: u32 = 1 << 17;
/// How much of it was read is not known.
const BITMAP_SCATTERED: u32 = 1 << 18;
/// The access that was shown last told of a device that runs, that it has none to give of what is pending.
const WITHHELD: u32 = 1 << 19;

/// [`Watch::state`] while no record has told it, and while nobody has the device open.
const UNKNOWN: u32 = u32::MAX;
/// Mappings begin and end at multiples of it, whatever the machine's page is.
const PAGE_BYTES: u64 = 4096;

/// What is known of one device.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout,
)]
#[repr(C)]
pub struct Watch {
    /// `data_offset` of the present buffer; 0 while it is not known.
    buffer_offset: u64,
    /// `data_size` of the present buffer, when saving.
    buffer_bytes: u64,
    /// Bytes of the present buffer that went by system calls, from its start without a gap.
    moved_to: u64,
    /// `pending_bytes`, as last read.
    pending_bytes: u64,
    /// `total_pfns`, as last written.
    total_pfns: u64,
    /// `copied_pfns` of the last answer that is a bitmap.
    bitmap_pages: u64,
    /// Where it is; 0 while that is not known.
    bitmap_offset: u64,
    /// Bytes of it that were read by system calls, from its start without a gap.
    bitmap_read_to: u64,
    /// [`State`], or [`UNKNOWN`].
    state: u32,
    /// The facts above, as bits.
    facts: u32,
}

const _: () = assert!(size_of::<Watch>() == 72);

/// What a record of a state says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The rule that was broken by it.
    pub broken: Option<Conduct>,
    /// Whether something begins with it that is counted for itself: a session, or a new user's hold on the device.
    pub begins: bool,
}

impl Watch {
    /// One that has seen nothing yet.
    pub const START: Self = Self {
        buffer_offset: 0,
        buffer_bytes: 0,
        moved_to: 0,
        pending_bytes: 0,
        total_pfns: 0,
        bitmap_pages: 0,
        bitmap_offset: 0,
        bitmap_read_to: 0,
        state: UNKNOWN,
        facts: 0,
    };

    /// An access to the region was served or refused. The driver tells a change of state before the access that made it.
    #[inline]
    pub fn access(&mut self, access: &trace::RegionAccess) -> Option<Conduct> {
        if self.state != access.state {
            // Records are missing, or came before us.
            self.restart(access.state, 0);
        }
        self.clear(WITHHELD);
        let (field, served) = (access.field, access.result >= 0);
        let read = access.op == Op::Read as u32;
        if self.has(BEGUN) {
            self.clear(BEGUN);
            if field == Field::DeviceState as u32 && !read && served {
                self.set(KNOWN);
            }
        }
        if field == Field::Data as u32 {
            if read {
                self.data_read(access, served)
            } else {
                self.data_written(access, served)
            }
        } else if field == Field::PendingBytes as u32 {
            if read && served {
                self.pending_read(access.value)
            } else {
                None
            }
        } else if field == Field::DataOffset as u32 {
            if read && served {
                self.offset_read(access.value)
            } else {
                None
            }
        } else if field == Field::DataSize as u32 {
            if read {
                self.size_read(access.value, served)
            } else {
                self.size_written(access.value, served)
            }
        } else if field == Field::DeviceState as u32 {
            let differs = read && served && access.value != u64::from(access.state);
            differs.then_some(Conduct::StateMisread)
        } else if field == Field::Reserved as u32 {
            match (served && access.value != 0, read) {
                (false, _) => None,
                (true, true) => Some(Conduct::ReservedNotZero),
                (true, false) => Some(Conduct::ReservedWritten),
            }
        } else {
            self.query_access(access, served)
        }
    }

    /// What is pending, in bytes, if the access that was shown last said that the device has none of it to give for now: `data_size`
    /// was 0, though `pending_bytes` was not. A device that runs may count what is only to be had once it stands, so that is no breach.
    #[inline]
    pub fn withheld(&self) -> Option<u64> {
        self.has(WITHHELD).then_some(self.pending_bytes)
    }

    /// The device changed state, was asked to and refused, was opened, closed or reset.
    #[inline(always)]
    pub fn state_changed(&mut self, change: &trace::State) -> Change {
        let (from, now) = (change.from, change.now);
        let by_write = change.cause == Cause::Write as u32;
        let refused = change.result < 0 && by_write;
        if self.state != from && change.cause != Cause::Open as u32 {
            self.restart(from, 0);
        }
        let broken = match (by_write, refused) {
            (false, _) => None,
            (true, true) => refused_write(change),
            (true, false) => self.accepted_write(change),
        };
        if change.cause == Cause::Close as u32 {
            self.restart(UNKNOWN, 0);
            return Change { broken, begins: false };
        }
        // A reset that failed changed nothing.
        let opens = change.cause == Cause::Open as u32;
        if from == now && !opens && (by_write || change.result < 0) {
            self.clear(BITMAP_NEXT);
            return Change { broken, begins: false };
        }
        let begins = opens || is_saving(now) && !is_saving(from) || now == State::Resuming as u32;
        if is_saving(from) && is_saving(now) {
            // The buffer that is staged stays, and so do the query and its answer.
            self.state = now;
            self.clear(BITMAP_NEXT | PENDING_AT_REST | UNTOUCHED | DRAINED);
        } else if is_session(now) {
            self.restart(now, if by_write { BEGUN } else { 0 });
        } else {
            // With nothing pending there is no iteration that could be under way.
            let overtaken = is_saving(from) && !self.has(DRAINED);
            self.restart(now, if overtaken { KNOWN | AFTERMATH } else { KNOWN });
        }
        Change { broken, begins }
    }

    /// A write of `device_state` was accepted.
    #[inline]
    fn accepted_write(&self, change: &trace::State) -> Option<Conduct> {
        let from = known_state(change.from)?;
        if !is_askable(change.requested) {
            return Some(Conduct::StateAccepted);
        }
        if from.next(change.requested).is_err() {
            return Some(Conduct::ArcAccepted);
        }
        if change.now != change.requested && change.now != State::Error as u32 {
            return Some(Conduct::StateMisplaced);
        }
        let ends = from == State::StopAndCopy && change.now == State::Stopped as u32;
        (ends && self.has(KNOWN) && !self.has(DRAINED)).then_some(Conduct::LeftWithPending)
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

    fn is_in(&self, state: State) -> bool {
        self.state == state as u32
    }

    /// Forgets all but the state and some facts.
    fn restart(&mut self, state: u32, facts: u32) {
        *self = Self { state, facts, ..Self::START };
    }
}

/// A write of `device_state` was refused.
#[inline]
fn refused_write(change: &trace::State) -> Option<Conduct> {
    if change.now != change.from && change.now != State::Error as u32 {
        return Some(Conduct::StateMisplaced);
    }
    let from = known_state(change.from)?;
    if !is_askable(change.requested) {
        return Some(Conduct::StateAsked);
    }
    // Whether a device in error takes a write is found out by writing.
    let forbidden = from != State::Error && from.next(change.requested).is_err();
    forbidden.then_some(Conduct::ArcAsked)
}

/// Whether user space may ask for it at all.
const fn is_askable(requested: u32) -> bool {
    requested & !MASK == 0 && requested <= State::Resuming as u32
}

/// A state by its number. Without a search through a table, which a probe would pay for at each record.
const fn known_state(number: u32) -> Option<State> {
    match number {
        0 => Some(State::Stopped),
        1 => Some(State::Running),
        2 => Some(State::StopAndCopy),
        3 => Some(State::PreCopy),
        4 => Some(State::Resuming),
        6 => Some(State::Error),
        _ => None,
    }
}

const fn is_saving(state: u32) -> bool {
    state == State::PreCopy as u32 || state == State::StopAndCopy as u32
}

const fn is_session(state: u32) -> bool {
    is_saving(state) || state == State::Resuming as u32
}

/// How far a buffer has been moved without a gap when `bytes` bytes at `at` (from its start) are moved too; `None` past a gap.
fn moved(moved_to: u64, at: u64, bytes: u64) -> Option<u64> {
    (at <= moved_to).then(|| moved_to.max(at.saturating_add(bytes)))
}

/// Whether what went by system calls, `moved_to` bytes from `start` on, is only a part of `bytes`, and the rest cannot have gone
/// by a mapping.
fn is_short(start: u64, moved_to: u64, bytes: u64) -> bool {
    moved_to > 0 && moved_to < bytes && start.wrapping_add(moved_to) & (PAGE_BYTES - 1) != 0
}
