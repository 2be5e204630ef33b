// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Dirty queries: the sequence *dirty*.

use super::super::region::{Field, Op, PFNS_ALL, PFNS_NONE};
use super::super::trace;
use super::conduct::Conduct;
use super::{is_saving, is_short, moved, Watch};
use super::{
    ASKED_LAST, ASKED_PAGE, ASKED_START, ASKED_TOTAL, BITMAP, BITMAP_LOCATED, BITMAP_NEXT,
    BITMAP_SCATTERED, KNOWN,
};

/// Clients read bitmaps in whole words of 64 bits.
const WORD_BITS: u64 = 64;
const WORD_BYTES: u64 = 8;

impl Watch {
    /// An access to a register of a query, to the bitmap window, or to no field at all.
    #[inline]
    pub(super) fn query_access(
        &mut self,
        access: &trace::RegionAccess,
        served: bool,
    ) -> Option<Conduct> {
        let field = access.field;
        let is = |one: Field| field == one as u32;
        let read = access.op == Op::Read as u32;
        let asks = !read && (is(Field::StartPfn) || is(Field::PageSize) || is(Field::TotalPfns));
        let hears = read && (is(Field::CopiedPfns) || is(Field::Bitmap));
        if !asks && !hears {
            return None; // a direction that the field has not: the driver's refusal says it all
        }
        if !is_saving(self.state) {
            return self.out_of_state(Conduct::QueryOutsideSaving);
        }
        if is(Field::Bitmap) {
            self.bitmap_read(access, served)
        } else if is(Field::CopiedPfns) {
            self.answer_read(access.value, served)
        } else if is(Field::TotalPfns) {
            if served {
                self.total_pfns = access.value;
                self.set(ASKED_TOTAL | ASKED_LAST);
            }
            None
        } else {
            let late = self.has(ASKED_LAST);
            if served {
                self.set(if is(Field::StartPfn) { ASKED_START } else { ASKED_PAGE });
            }
            // One breach for a query.
            self.clear(ASKED_LAST);
            late.then_some(Conduct::QueryOrder)
        }
    }

    /// `copied_pfns` is read; as `value`, if that was served.
    #[inline]
    fn answer_read(&mut self, value: u64, served: bool) -> Option<Conduct> {
        const ASKED: u32 = ASKED_START | ASKED_PAGE | ASKED_TOTAL;
        let unasked = self.has(KNOWN) && self.facts & ASKED != ASKED;
        let unread = self.has(BITMAP_LOCATED)
            && !self.has(BITMAP_SCATTERED)
            && is_short(self.bitmap_offset, self.bitmap_read_to, self.bitmap_pages.div_ceil(8));
        // Whatever came of it, the next write begins another query.
        self.clear(ASKED_LAST);
        if served {
            self.clear(BITMAP | BITMAP_NEXT | BITMAP_LOCATED | BITMAP_SCATTERED);
            if value != PFNS_NONE && value != PFNS_ALL {
                self.set(BITMAP | BITMAP_NEXT);
                self.bitmap_pages = value;
                self.bitmap_offset = 0;
                self.bitmap_read_to = 0;
            }
        } else {
            // What the driver did with the last bitmap is not known.
            self.set(BITMAP_SCATTERED);
        }
        let too_many =
            served && self.has(ASKED_TOTAL) && value != PFNS_ALL && value > self.total_pfns;
        match (unasked, unread, too_many) {
            (true, _, _) => Some(Conduct::QueryUnasked),
            (_, true, _) => Some(Conduct::BitmapUnread),
            (_, _, true) => Some(Conduct::CopiedTooMany),
            _ => None,
        }
    }

    /// The bitmap window is read.
    #[inline]
    fn bitmap_read(&mut self, access: &trace::RegionAccess, served: bool) -> Option<Conduct> {
        if !self.has(BITMAP) {
            return self.has(KNOWN).then_some(Conduct::BitmapUnasked);
        }
        if !self.has(BITMAP_LOCATED) {
            // It found the place in another way, so nothing more is said of this bitmap.
            let first = !self.has(BITMAP_SCATTERED);
            self.set(BITMAP_SCATTERED);
            return first.then_some(Conduct::BitmapBeforeOffset);
        }
        let at = access.offset.wrapping_sub(self.bitmap_offset);
        let bytes = self.bitmap_pages.div_ceil(WORD_BITS).saturating_mul(WORD_BYTES);
        let end = at.checked_add(access.bytes);
        if access.offset < self.bitmap_offset || !matches!(end, Some(end) if end <= bytes) {
            self.set(BITMAP_SCATTERED);
            return Some(Conduct::BitmapPastAnswer);
        }
        match moved(self.bitmap_read_to, at, access.bytes) {
            Some(read_to) if served => self.bitmap_read_to = read_to,
            _ => self.set(BITMAP_SCATTERED),
        }
        None
    }
}
