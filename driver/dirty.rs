// SPDX-License-Identifier: GPL-2.0
//! The dirty log: which pages of I/O address space the device has written since the log was armed or last reported.
//!
//! ```text
//!             mark()            report()             forget()
//!   clean ───────────▶ dirty ───────────▶ reported ───────────▶ clean
//!                        ▲                   │
//!                        └───────────────────┘ take_back()
//! ```
//!
//! Reporting does not clear. A page that was put into a bitmap stays in the log as *reported* until the bitmap could be
//! read to its end, and goes back to *dirty* if that does not happen; so a query that is cut off at any point loses
//! nothing. A page that is written again meanwhile is both reported and dirty, and stays dirty.
//!
//! # Memory
//!
//! ```text
//!   leaves: tree by number ──▶ leaf n: pages n * 32768 and on (128 MiB of address space)
//!                                dirty:    512 words │ summary: one bit for 8 words │ count
//!                                reported: 512 words │ summary                      │ count
//! ```
//!
//! A leaf costs two pages of 4 KiB and a node of the tree. It comes when the device writes to one of its pages, and
//! goes when a query meets it with nothing dirty and nothing reported: not at once when it becomes so, as what was
//! written in one pass is mostly written in the next one, too. So the log never takes more than 2 bits for each page of
//! the address space that the device writes to, and the nodes: 64 MiB and 1 MiB for 1 TiB; and never more than 8 KiB
//! and a node for each page that was written since the last query. Going from dirty to reported and back changes bits
//! in place, so only [`Log::mark`] ever allocates. If that fails, what is dirty is not known any more; the log says so
//! ([`Log::is_lost`]) instead of forgetting a page, and every query is answered with ALL.
//!
//! # Time
//!
//! A query costs what is dirty in its range, not what it asks for: stretches without a dirty page are skipped by the
//! leaf, and in a leaf by the summary; a leaf that lies in the range whole is counted by its count, and goes from dirty
//! to reported by a swap of its two bitmaps. What is left is one look at each group of 8 words with a dirty page in it;
//! and if the query counts in pages of the log from a multiple of 64 on, all groups without a gap between them are one
//! copy into the answer ([`answer`]). A tree of single pages or extents would be smaller where little is dirty, and
//! lose by orders of magnitude where every second page is.
//!
//! Page numbers are in units of [`PAGE_BYTES`]; ranges include both ends.

use core::ops::ControlFlow;

use kernel::{
    prelude::*,
    rbtree::RBTree, //
};

use crate::abi::dirty::{
    Query,
    MIN_PAGE_BYTES, //
};

#[path = "dirty/answer.rs"]
mod answer;
#[path = "dirty/leaf.rs"]
mod leaf;

use answer::{
    Answer,
    Run,
    View, //
};
use leaf::{
    Leaf,
    LEAF_PAGES, //
};

/// The unit of the log, in bytes.
pub(crate) const PAGE_BYTES: u64 = MIN_PAGE_BYTES;
const PAGE_SHIFT: u32 = PAGE_BYTES.trailing_zeros();
/// Pages whose bits are in one word.
const WORD_PAGES: u64 = 64;

/// A range of pages, both ends included.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    first: u64,
    last: u64,
}

impl Range {
    /// The pages that `bytes` bytes at `address` touch; `None` if there are none or they wrap around.
    pub(crate) fn touched(address: u64, bytes: u64) -> Option<Self> {
        let end = address.checked_add(bytes.checked_sub(1)?)?;
        Some(Self { first: address >> PAGE_SHIFT, last: end >> PAGE_SHIFT })
    }

    /// The first `pages` pages of a query, in pages of the log.
    fn of(query: &Query, pages: u64) -> Self {
        let fold = query.page_shift - PAGE_SHIFT;
        // `Query::new()` has seen that the last byte has an address, so neither shift loses a bit.
        let end = query.start_pfn + (pages - 1);
        Self { first: query.start_pfn << fold, last: (end << fold) + ((1 << fold) - 1) }
    }

    /// What of this range lies in the `pages` pages from `base` on, counted from `base`.
    fn within(self, base: u64, pages: u64) -> Option<Self> {
        let last = self.last.checked_sub(base)?.min(pages - 1);
        let first = self.first.saturating_sub(base);
        (first <= last).then_some(Self { first, last })
    }

    /// The bits of the word whose first page is `base` that lie in this range.
    fn mask(self, base: u64) -> u64 {
        self.within(base, WORD_PAGES)
            .map_or(0, |bits| (u64::MAX >> (WORD_PAGES - 1 - bits.last)) & (u64::MAX << bits.first))
    }
}

/// How much of what a query asks for is dirty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// No page.
    Nothing,
    /// At least one page is dirty, and at least one is not.
    Part,
    /// Every page.
    Everything,
}

/// The log of one device.
pub(crate) struct Log {
    /// By number: leaf *n* holds the pages from `n * LEAF_PAGES`.
    leaves: RBTree<u64, Leaf>,
    /// Over all leaves. Bounds from above what any range can have.
    dirty_pages: u64,
    /// The range that was reported and neither forgotten nor taken back. No page outside of it is reported.
    outstanding: Option<Range>,
    lost: bool,
}

impl Log {
    /// An armed log in which nothing is dirty.
    pub(crate) fn new() -> Self {
        Self { leaves: RBTree::new(), dirty_pages: 0, outstanding: None, lost: false }
    }

    /// Whether memory ran out and it is not known any more what is dirty.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Makes a range dirty and gives the number of pages that were not dirty before.
    pub(crate) fn mark(&mut self, range: Range) -> u64 {
        let mut added = 0;
        for number in range.first / LEAF_PAGES..=range.last / LEAF_PAGES {
            let Some(part) = range.within(number * LEAF_PAGES, LEAF_PAGES) else { continue };
            if self.leaves.get(&number).is_none() {
                let inserted = Leaf::new().and_then(|leaf| {
                    self.leaves.try_create_and_insert(number, leaf, GFP_KERNEL_ACCOUNT)
                });
                if inserted.is_err() {
                    self.lost = true;
                    break;
                }
            }
            let Some(leaf) = self.leaves.get_mut(&number) else { continue };
            added += leaf.dirty.set(part);
        }
        self.dirty_pages += added;
        added
    }

    /// How much of what the query asks for is dirty. Ends where it is known: what is left after a gap is not looked at.
    pub(crate) fn extent(&mut self, query: &Query) -> Extent {
        // Each page of the query needs a page of the log for itself.
        let enough = self.dirty_pages >= query.pages;
        let (mut any, mut run) = (false, Run::new(View::of(query)));
        let gap = self.each_leaf(Range::of(query, query.pages), |base, leaf, part| {
            if leaf.dirty.is_clean(part) {
                return ControlFlow::Continue(());
            }
            any = true;
            if enough && run.goes_on(base, &leaf.dirty, part) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        if !any {
            Extent::Nothing
        } else if gap.is_continue() && run.covers(query.pages) {
            Extent::Everything
        } else {
            Extent::Part
        }
    }

    /// Answers the first `pages` pages of the query with a bitmap, which makes them reported, and gives the number of
    /// bits set. What an earlier report has outstanding is taken back first.
    ///
    /// The bitmap comes through `put(at, bytes)`: whole words of 8 bytes, little-endian, in the order of their offsets
    /// `at`, none of them twice. Stretches of zeros are left out, and whoever calls has to zero them. Nothing is ever
    /// read back, so the bitmap may lie in memory that somebody else writes to.
    pub(crate) fn report(
        &mut self,
        query: &Query,
        pages: u64,
        put: impl FnMut(usize, &[u8]),
    ) -> u64 {
        self.take_back();
        let range = Range::of(query, pages);
        let mut answer = Answer::new(View::of(query), pages, put);
        self.change(range, |base, leaf, part| {
            leaf.report(part);
            answer.take(base, &leaf.reported);
        });
        self.outstanding = Some(range);
        answer.end()
    }

    /// What was reported has arrived: it is clean, unless it was written again.
    pub(crate) fn forget(&mut self) {
        if let Some(range) = self.outstanding.take() {
            self.change(range, |_, leaf, _| leaf.forget());
        }
    }

    /// What was reported has not arrived: it is dirty again.
    pub(crate) fn take_back(&mut self) {
        if let Some(range) = self.outstanding.take() {
            self.change(range, |_, leaf, _| leaf.take_back());
        }
    }

    /// Everything in the query's range is clean.
    pub(crate) fn clear(&mut self, query: &Query) {
        self.change(Range::of(query, query.pages), |_, leaf, part| leaf.dirty.remove(part));
    }

    /// Changes every leaf that `range` touches, given its first page and the part of it in the range.
    fn change(&mut self, range: Range, mut change: impl FnMut(u64, &mut Leaf, Range)) {
        let _to_the_end = self.each_leaf(range, |base, leaf, part| {
            change(base, leaf, part);
            ControlFlow::Continue(())
        });
    }

    /// Visits the leaves that `range` touches until `visit` breaks off. A leaf that is met empty is dropped instead.
    fn each_leaf(
        &mut self,
        range: Range,
        mut visit: impl FnMut(u64, &mut Leaf, Range) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut next = range.first / LEAF_PAGES;
        while let Some(mut cursor) = self.leaves.cursor_lower_bound_mut(&next) {
            let (number, leaf) = cursor.current_mut();
            let base = number * LEAF_PAGES;
            let Some(part) = range.within(base, LEAF_PAGES) else { break };
            next = number + 1;
            if leaf.is_empty() {
                cursor.remove_current();
                continue;
            }
            let before = leaf.dirty.pages();
            let flow = visit(base, leaf, part);
            self.dirty_pages = self.dirty_pages - before + leaf.dirty.pages();
            flow?;
        }
        ControlFlow::Continue(())
    }
}

#[kunit_tests(vfio_mediate_dirty)]
mod tests {
    use super::*;

    /// A log in which these ranges are dirty: first page and length.
    fn log(ranges: &[(u64, u64)]) -> Log {
        let mut log = Log::new();
        for (page, pages) in ranges {
            if let Some(range) = Range::touched(page * PAGE_BYTES, pages * PAGE_BYTES) {
                log.mark(range);
            }
        }
        log
    }

    /// Pages of 2^`fold` pages of the log.
    fn query(start_pfn: u64, pages: u64, fold: u32) -> Query {
        Query { start_pfn, page_shift: PAGE_SHIFT + fold, pages }
    }

    /// Reports, and gives the number of bits, and the first and the last of them.
    fn bits(log: &mut Log, query: &Query, pages: u64) -> (u64, u64, u64) {
        let (mut first, mut last) = (u64::MAX, 0);
        let set = log.report(query, pages, |at, bytes| {
            for (at, byte) in (at as u64..).zip(bytes).filter(|(_, byte)| **byte != 0) {
                first = first.min(at * 8 + u64::from(byte.trailing_zeros()));
                last = at * 8 + 7 - u64::from(byte.leading_zeros());
            }
        });
        (set, first, last)
    }

    #[test]
    fn a_page_is_told_until_its_bitmap_has_arrived() {
        let (mut log, asked) = (log(&[(70, 3)]), query(0, 1 << 28, 0));
        assert_eq!(bits(&mut log, &asked, 4096), (3, 70, 72));
        // Cut off: the next report takes it back.
        assert_eq!(bits(&mut log, &asked, 4096), (3, 70, 72));
        log.forget();
        assert!(log.extent(&asked) == Extent::Nothing);
    }

    #[test]
    fn a_page_that_is_written_again_meanwhile_stays_dirty() {
        let (mut log, asked) = (log(&[(70, 3)]), query(0, 4096, 0));
        assert_eq!(bits(&mut log, &asked, 4096), (3, 70, 72));
        assert_eq!(Range::touched(72 * PAGE_BYTES, 1).map(|range| log.mark(range)), Some(1));
        log.forget();
        assert_eq!(bits(&mut log, &asked, 4096), (1, 72, 72));
    }

    #[test]
    fn leaves_words_and_pages_of_the_query_have_no_seams() {
        let border = 3 * LEAF_PAGES;
        let mut log = log(&[(border - 70, 140)]);
        for start in [0, 64, 77, border - 70, border - 1, border, border + 13] {
            let asked = query(start, border + 69 - start, 0);
            let first = (border - 70).max(start);
            let expected = (border + 69 - first, first - start, border + 68 - start);
            assert_eq!(bits(&mut log, &asked, asked.pages), expected);
            log.take_back();
        }
        for fold in [1, 3, 6, 9, 15, 16, 51] {
            let (first, last) = ((border - 70) >> fold, (border + 69) >> fold);
            let asked = query(0, last + 1, fold);
            assert_eq!(bits(&mut log, &asked, asked.pages), (last + 1 - first, first, last));
            log.take_back();
        }
    }

    #[test]
    fn everything_and_nothing_need_no_bitmap() {
        let mut log = log(&[(5, 2 * LEAF_PAGES)]);
        assert!(log.extent(&query(5, 2 * LEAF_PAGES, 0)) == Extent::Everything);
        assert!(log.extent(&query(5, 2 * LEAF_PAGES + 1, 0)) == Extent::Part);
        assert!(log.extent(&query(4, 2 * LEAF_PAGES, 0)) == Extent::Part);
        assert!(log.extent(&query(0, 5, 0)) == Extent::Nothing);
        assert!(log.extent(&query(2 * LEAF_PAGES + 5, 1 << 50, 0)) == Extent::Nothing);
        assert!(log.extent(&query(0, 1, 51)) == Extent::Everything);
        log.clear(&query(6, 1, 0));
        assert!(log.extent(&query(5, 2, 0)) == Extent::Part);
        log.clear(&query(0, 1 << 52, 0));
        assert!(log.extent(&query(0, 1 << 52, 0)) == Extent::Nothing);
    }
}
