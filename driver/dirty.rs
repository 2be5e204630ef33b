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
//! Reporting does not clear. A page that was put into a bitmap stays in the log as *reported* until the bitmap could be read
//! to its end, and goes back to *dirty* if that does not happen; so a query that is cut off at any point loses nothing. A
//! page that is written again meanwhile is both reported and dirty, and stays dirty.
//!
//! The log is as large as what is dirty: a tree of chunks, each two bitmaps for [`CHUNK_PAGES`] pages. Going from dirty to
//! reported and back changes bits in place, so only [`Log::mark`] ever allocates. If that fails, what is dirty is not known
//! any more; the log says so ([`Log::is_lost`]) instead of forgetting a page, and every query is answered with ALL.
//!
//! Page numbers are in units of [`PAGE_BYTES`]; ranges include both ends.

use kernel::{
    num::casts::usize_as_u64,
    prelude::*,
    rbtree::RBTree, //
};

use crate::abi::dirty::{
    Query,
    MIN_PAGE_BYTES, //
};

/// The unit of the log, in bytes.
pub(crate) const PAGE_BYTES: u64 = MIN_PAGE_BYTES;
const PAGE_SHIFT: u32 = PAGE_BYTES.trailing_zeros();

const WORD_PAGES: u64 = 64;
const CHUNK_WORDS: usize = 8;
/// Pages in a chunk: 2 MiB of address space.
const CHUNK_PAGES: u64 = WORD_PAGES * usize_as_u64(CHUNK_WORDS);

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
        let fold = fold(query);
        // `Query::new()` has seen that the last byte has an address, so neither shift loses a bit.
        let end = query.start_pfn + (pages - 1);
        Self { first: query.start_pfn << fold, last: (end << fold) + ((1 << fold) - 1) }
    }
}

/// How many pages of the log make a page of the query, as a power of two.
fn fold(query: &Query) -> u32 {
    query.page_shift - PAGE_SHIFT
}

/// One bit a page.
type Bits = [u64; CHUNK_WORDS];

#[derive(Default)]
struct Chunk {
    dirty: Bits,
    reported: Bits,
}

impl Chunk {
    fn is_empty(&self) -> bool {
        [&self.dirty, &self.reported].into_iter().flatten().all(|word| *word == 0)
    }
}

/// The bits of word `word` of chunk `chunk` that lie in `range`.
fn mask(chunk: u64, word: usize, range: Range) -> u64 {
    let base = chunk * CHUNK_PAGES + usize_as_u64(word) * WORD_PAGES;
    if range.last < base || range.first >= base + WORD_PAGES {
        return 0;
    }
    let from = range.first.saturating_sub(base);
    let to = (range.last - base).min(WORD_PAGES - 1);
    (u64::MAX >> (WORD_PAGES - 1 - to)) & (u64::MAX << from)
}

/// The first set bit of a chunk at `from` or after it.
fn next_set(bits: &Bits, from: u64) -> Option<u64> {
    let start = usize::try_from(from / WORD_PAGES).ok()?;
    let words = bits.get(start..)?.iter().zip(usize_as_u64(start)..);
    for (word, at) in words {
        let word =
            if at * WORD_PAGES < from { word & (u64::MAX << (from % WORD_PAGES)) } else { *word };
        if word != 0 {
            return Some(at * WORD_PAGES + u64::from(word.trailing_zeros()));
        }
    }
    None
}

/// The log of one device.
pub(crate) struct Log {
    /// By number: chunk *n* holds the pages from `n * CHUNK_PAGES`. No chunk is empty.
    chunks: RBTree<u64, Chunk>,
    /// The range that was reported and neither forgotten nor taken back.
    outstanding: Option<Range>,
    lost: bool,
}

impl Log {
    /// An armed log in which nothing is dirty.
    pub(crate) fn new() -> Self {
        Self { chunks: RBTree::new(), outstanding: None, lost: false }
    }

    /// Whether memory ran out and it is not known any more what is dirty.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Makes a range dirty and gives the number of pages that were not dirty before.
    pub(crate) fn mark(&mut self, range: Range) -> u64 {
        let mut added = 0;
        for number in range.first / CHUNK_PAGES..=range.last / CHUNK_PAGES {
            if self.chunks.get(&number).is_none()
                && self
                    .chunks
                    .try_create_and_insert(number, Chunk::default(), GFP_KERNEL_ACCOUNT)
                    .is_err()
            {
                self.lost = true;
                return added;
            }
            let Some(chunk) = self.chunks.get_mut(&number) else { continue };
            for (at, word) in chunk.dirty.iter_mut().enumerate() {
                let new = mask(number, at, range) & !*word;
                *word |= new;
                added += u64::from(new.count_ones());
            }
        }
        added
    }

    /// How many pages of the query, counted in its own pages, are dirty.
    pub(crate) fn count(&self, query: &Query) -> u64 {
        let mut count = 0;
        self.each_dirty(query, query.pages, |_| count += 1);
        count
    }

    /// Writes the bitmap for the first `pages` pages of the query, which makes them reported, and gives the number of bits
    /// set. `bitmap` is zero and has a bit for each page.
    pub(crate) fn report(&mut self, query: &Query, pages: u64, bitmap: &mut [u8]) -> u64 {
        let mut set = 0;
        self.each_dirty(query, pages, |page| {
            let byte = usize::try_from(page / 8).ok().and_then(|at| bitmap.get_mut(at));
            if let Some(byte) = byte {
                *byte |= 1 << (page % 8);
                set += 1;
            }
        });
        let range = Range::of(query, pages);
        self.change(range, |chunk, at, mask| {
            if let (Some(dirty), Some(reported)) =
                (chunk.dirty.get_mut(at), chunk.reported.get_mut(at))
            {
                *reported |= *dirty & mask;
                *dirty &= !mask;
            }
        });
        self.outstanding = Some(range);
        set
    }

    /// What was reported has arrived: it is clean, unless it was written again.
    pub(crate) fn forget(&mut self) {
        if let Some(range) = self.outstanding.take() {
            self.change(range, |chunk, at, mask| {
                if let Some(reported) = chunk.reported.get_mut(at) {
                    *reported &= !mask;
                }
            });
        }
    }

    /// What was reported has not arrived: it is dirty again.
    pub(crate) fn take_back(&mut self) {
        if let Some(range) = self.outstanding.take() {
            self.change(range, |chunk, at, mask| {
                if let (Some(dirty), Some(reported)) =
                    (chunk.dirty.get_mut(at), chunk.reported.get_mut(at))
                {
                    *dirty |= *reported & mask;
                    *reported &= !mask;
                }
            });
        }
    }

    /// Everything in the query's range is clean.
    pub(crate) fn clear(&mut self, query: &Query) {
        self.change(Range::of(query, query.pages), |chunk, at, mask| {
            if let Some(dirty) = chunk.dirty.get_mut(at) {
                *dirty &= !mask;
            }
        });
    }

    /// Calls `visit` with each dirty page among the first `pages` of the query, counted from the query's start in its pages.
    /// Goes by the chunks that exist, not by the pages that are asked for.
    fn each_dirty(&self, query: &Query, pages: u64, mut visit: impl FnMut(u64)) {
        let range = Range::of(query, pages);
        let fold = fold(query);
        let mut from = range.first;
        while let Some(cursor) = self.chunks.cursor_lower_bound(&(from / CHUNK_PAGES)) {
            let (number, chunk) = cursor.current();
            let base = number * CHUNK_PAGES;
            from = from.max(base);
            while let Some(at) = next_set(&chunk.dirty, from - base) {
                let page = base + at;
                if page > range.last {
                    return;
                }
                let asked = page >> fold;
                visit(asked - query.start_pfn);
                // The rest of a page of the query says nothing more.
                from = (asked + 1) << fold;
                if from - base >= CHUNK_PAGES {
                    break;
                }
            }
            from = from.max(base + CHUNK_PAGES);
            if from > range.last {
                return;
            }
        }
    }

    /// Changes every word of every chunk that `range` touches, and drops the chunks that are empty then.
    fn change(&mut self, range: Range, mut change: impl FnMut(&mut Chunk, usize, u64)) {
        let mut next = range.first / CHUNK_PAGES;
        while let Some(mut cursor) = self.chunks.cursor_lower_bound_mut(&next) {
            let (number, chunk) = cursor.current_mut();
            let number = *number;
            if number > range.last / CHUNK_PAGES {
                return;
            }
            for at in 0..CHUNK_WORDS {
                change(chunk, at, mask(number, at, range));
            }
            if chunk.is_empty() {
                cursor.remove_current();
            }
            next = number + 1;
        }
    }
}
