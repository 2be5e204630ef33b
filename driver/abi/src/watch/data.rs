// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Device data: the sequences *saving* and *resuming*.

use super::super::region::STRUCT_BYTES;
use super::super::state::State;
use super::super::trace;
use super::conduct::Conduct;
use super::{is_saving, is_short, moved, Watch};
use super::{
    AFTERMATH, ASTRAY, BITMAP_LOCATED, BITMAP_NEXT, DRAINED, KNOWN, LOCATED, PENDING,
    PENDING_AT_REST, SCATTERED, SIZED, UNTOUCHED, WITHHELD,
};

impl Watch {
    /// `pending_bytes` reads as `value`: an iteration begins, and the buffer before it is over.
    #[inline]
    pub(super) fn pending_read(&mut self, value: u64) -> Option<Conduct> {
        if !is_saving(self.state) {
            // The iteration that a cancel overtook is over.
            self.clear(AFTERMATH);
            return (value != 0).then_some(Conduct::PendingOutsideSaving);
        }
        let at_rest = self.is_in(State::StopAndCopy);
        let grew = at_rest && self.has(UNTOUCHED) && value > self.pending_bytes;
        let judged = self.has(SIZED) && !self.has(ASTRAY | SCATTERED);
        let unread = judged && is_short(self.buffer_offset, self.moved_to, self.buffer_bytes);
        self.begin_buffer();
        self.clear(BITMAP_NEXT | DRAINED);
        self.set(PENDING);
        self.pending_bytes = value;
        if at_rest {
            self.set(PENDING_AT_REST | UNTOUCHED);
            if value == 0 {
                self.set(DRAINED);
            }
        }
        match (grew, unread) {
            (true, _) => Some(Conduct::PendingGrew),
            (false, true) => Some(Conduct::DataUnread),
            (false, false) => None,
        }
    }

    /// `data_offset` reads as `value`. It can be read in any state, to see where the window is.
    #[inline]
    pub(super) fn offset_read(&mut self, value: u64) -> Option<Conduct> {
        let misplaced = (value < STRUCT_BYTES).then_some(Conduct::OffsetInStruct);
        if self.is_in(State::Resuming) {
            if !self.has(LOCATED) || self.buffer_offset != value {
                self.moved_to = 0;
            }
            self.buffer_offset = value;
            self.set(LOCATED);
            return misplaced;
        }
        if !is_saving(self.state) {
            return misplaced;
        }
        if self.has(BITMAP_NEXT) {
            self.bitmap_offset = value;
            self.set(BITMAP_LOCATED);
            return misplaced;
        }
        self.clear(UNTOUCHED);
        if self.has(LOCATED) && !(self.has(SIZED) && self.buffer_bytes == 0) {
            let changed = self.buffer_offset != value && !self.has(ASTRAY);
            self.buffer_offset = value;
            return misplaced.or(changed.then_some(Conduct::BufferChanged));
        }
        // The first for this buffer; or the last one found nothing to stage.
        self.clear(SIZED);
        self.set(LOCATED);
        self.buffer_offset = value;
        self.moved_to = 0;
        if misplaced.is_some() {
            return misplaced;
        }
        if self.has(ASTRAY) || !self.has(KNOWN) {
            return None;
        }
        if !self.has(PENDING) {
            // That it did not look is one breach, for this iteration.
            self.set(ASTRAY);
            return Some(Conduct::OffsetBeforePending);
        }
        (self.pending_bytes == 0).then(|| self.astray(Conduct::OffsetWithoutPending))
    }

    /// `data_size` is read; as `value`, if that was served.
    #[inline]
    pub(super) fn size_read(&mut self, value: u64, served: bool) -> Option<Conduct> {
        // Which bytes it tells after a query is not said.
        if !is_saving(self.state) || self.has(BITMAP_NEXT) {
            return None;
        }
        if !self.has(LOCATED) {
            return self.out_of_order(Conduct::SizeBeforeOffset);
        }
        if !served {
            return None;
        }
        let changed = self.has(SIZED)
            && !self.has(ASTRAY)
            && self.buffer_bytes != 0
            && self.buffer_bytes != value;
        let first = !self.has(SIZED);
        let withheld = first && self.has(PENDING_AT_REST) && self.pending_bytes > 0 && value == 0;
        self.buffer_bytes = value;
        self.set(SIZED);
        let asked = first && self.has(PENDING) && !self.has(ASTRAY);
        if asked && value == 0 && self.pending_bytes > 0 && self.is_in(State::PreCopy) {
            self.set(WITHHELD);
        }
        if changed {
            return Some(Conduct::BufferChanged);
        }
        if withheld {
            // The client can only give up, and must not be blamed for it.
            self.set(DRAINED);
            return Some(Conduct::PendingWithoutData);
        }
        None
    }

    /// The data window is read.
    #[inline]
    pub(super) fn data_read(
        &mut self,
        access: &trace::RegionAccess,
        served: bool,
    ) -> Option<Conduct> {
        if !is_saving(self.state) {
            return self.out_of_state(Conduct::DataOutsideSaving);
        }
        if !self.has(LOCATED) {
            return self.out_of_order(Conduct::DataBeforeOffset);
        }
        if !self.has(SIZED) {
            return self.out_of_order(Conduct::DataBeforeSize);
        }
        let at = access.offset.wrapping_sub(self.buffer_offset);
        let end = at.checked_add(access.bytes);
        let fits = access.offset >= self.buffer_offset
            && matches!(end, Some(end) if end <= self.buffer_bytes);
        if !fits {
            self.set(SCATTERED);
            return (!self.has(ASTRAY)).then_some(Conduct::DataPastSize);
        }
        self.note_moved(at, access.bytes, served);
        None
    }

    /// The data window is written.
    #[inline]
    pub(super) fn data_written(
        &mut self,
        access: &trace::RegionAccess,
        served: bool,
    ) -> Option<Conduct> {
        if !self.is_in(State::Resuming) {
            return self.out_of_state(Conduct::LoadOutsideResuming);
        }
        if !self.has(LOCATED) {
            return self.out_of_order(Conduct::LoadBeforeOffset);
        }
        if access.offset < self.buffer_offset {
            self.set(SCATTERED);
            return None;
        }
        self.note_moved(access.offset - self.buffer_offset, access.bytes, served);
        None
    }

    /// `data_size` is written; with `value`, if that was served.
    #[inline]
    pub(super) fn size_written(&mut self, value: u64, served: bool) -> Option<Conduct> {
        if !self.is_in(State::Resuming) {
            return self.out_of_state(Conduct::LoadOutsideResuming);
        }
        let located = self.has(LOCATED);
        let astray = self.has(ASTRAY) || !self.has(KNOWN);
        let short =
            located && !self.has(SCATTERED) && is_short(self.buffer_offset, self.moved_to, value);
        if served {
            self.begin_buffer();
        }
        match (astray, located, served && short) {
            (true, _, _) | (false, true, false) => None,
            (false, false, _) => Some(Conduct::CommitBeforeOffset),
            (false, true, true) => Some(Conduct::DataUnwritten),
        }
    }

    fn begin_buffer(&mut self) {
        self.clear(LOCATED | SIZED | SCATTERED | ASTRAY);
        self.buffer_offset = 0;
        self.buffer_bytes = 0;
        self.moved_to = 0;
    }

    fn note_moved(&mut self, at: u64, bytes: u64, served: bool) {
        match moved(self.moved_to, at, bytes) {
            Some(moved_to) if served => self.moved_to = moved_to,
            // A gap, or a failure after which the client may take another way.
            _ => self.set(SCATTERED),
        }
    }

    fn astray(&mut self, conduct: Conduct) -> Conduct {
        self.set(ASTRAY);
        conduct
    }

    /// A step came before the one that it needs.
    fn out_of_order(&mut self, conduct: Conduct) -> Option<Conduct> {
        let judged = self.has(KNOWN) && !self.has(ASTRAY);
        self.set(ASTRAY);
        judged.then_some(conduct)
    }

    /// A step of a session that there is not. In *error* the client has yet to find out.
    pub(super) fn out_of_state(&self, conduct: Conduct) -> Option<Conduct> {
        let judged = self.has(KNOWN) && !self.has(AFTERMATH) && !self.is_in(State::Error);
        judged.then_some(conduct)
    }
}
