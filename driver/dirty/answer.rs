// SPDX-License-Identifier: GPL-2.0
//! From pages of the log to pages of a query: what is dirty, as the query counts.
//!
//! ```text
//!   log     ┆ word: 64 pages of 4096 bytes ┆ word                         ┆
//!             fold: 2^n pages of the log are one page of the query
//!             shift: the query starts where it likes
//!   answer     ┆ word: 64 pages of the query ┆
//! ```
//!
//! Neither is needed for a query in pages of 4096 bytes that starts at a multiple of 64: then words of the log are
//! words of the answer, and go over as they are.

use kernel::{
    num::casts::{
        arch::u64_as_usize,
        usize_as_u64, //
    },
    prelude::*, //
};

use super::{
    leaf::{
        words_of,
        Bitmap,
        Group,
        GROUP_PAGES,
        LEAF_SHIFT, //
    },
    Query,
    Range,
    PAGE_SHIFT,
    WORD_PAGES, //
};

const WORD_SHIFT: u32 = WORD_PAGES.trailing_zeros();

/// How a query sees the log.
#[derive(Clone, Copy)]
pub(super) struct View {
    /// Its first page, in its own pages.
    start: u64,
    /// How many pages of the log make one of its own, as a power of two.
    fold: u32,
}

impl View {
    pub(super) fn of(query: &Query) -> Self {
        Self { start: query.start_pfn, fold: query.page_shift - PAGE_SHIFT }
    }

    /// The page of the query that is bit 0 of a word of the log, and the word's bits, one for a page of the query.
    fn fold(self, page: u64, word: u64) -> (u64, u64) {
        let bits = match self.fold {
            0 => word,
            1 => halve(word),
            2 => halve(halve(word)),
            3..WORD_SHIFT => {
                let (width, folded) = (1 << self.fold, u64::MAX >> (WORD_PAGES - (1 << self.fold)));
                (0..WORD_PAGES / width)
                    .map(|bit| u64::from(word >> (bit * width) & folded != 0) << bit)
                    .sum()
            }
            WORD_SHIFT.. => u64::from(word != 0),
        };
        (page >> self.fold, bits)
    }
}

/// Makes one bit of each two neighbours, set if either is.
fn halve(bits: u64) -> u64 {
    let pairs = (bits | bits >> 1) & 0x5555_5555_5555_5555;
    let pairs = (pairs | pairs >> 1) & 0x3333_3333_3333_3333;
    let pairs = (pairs | pairs >> 2) & 0x0f0f_0f0f_0f0f_0f0f;
    let pairs = (pairs | pairs >> 4) & 0x00ff_00ff_00ff_00ff;
    let pairs = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
    (pairs | pairs >> 16) & 0x0000_0000_ffff_ffff
}

/// The pages of a query from its start on that are dirty without a gap.
pub(super) struct Run {
    view: View,
    /// The first page, in pages of the query, that has not been seen dirty.
    next: u64,
}

impl Run {
    pub(super) fn new(view: View) -> Self {
        Self { view, next: view.start }
    }

    /// Whether the first `pages` pages of the query belong to it.
    pub(super) fn covers(&self, pages: u64) -> bool {
        self.next - self.view.start >= pages
    }

    /// Lets the run go on with what is dirty in `part` of the leaf whose first page is `base`, and says whether it has
    /// met no gap.
    pub(super) fn goes_on(&mut self, base: u64, dirty: &Bitmap, part: Range) -> bool {
        if dirty.is_full() {
            let (first, _) = self.view.fold(base + part.first, 0);
            let (last, _) = self.view.fold(base + part.last, 0);
            let joins = first <= self.next;
            self.next = self.next.max(last + 1);
            return joins;
        }
        for (page, word) in dirty.words() {
            let (first, bits) = self.view.fold(base + page, word & part.mask(page));
            if bits == 0 {
                continue;
            }
            let Some(known) = self.next.checked_sub(first) else { return false };
            let rest = u32::try_from(known).ok().and_then(|known| bits.checked_shr(known));
            self.next += u64::from(rest.unwrap_or(0).trailing_ones());
        }
        true
    }
}

/// Words of the answer that are put together before they are put out.
const BUFFER_WORDS: usize = 64;

/// A bitmap that is being made.
pub(super) struct Answer<P> {
    view: View,
    pages: u64,
    put: P,
    /// Words that do not go over as they are.
    buffer: [u64; BUFFER_WORDS],
    /// How many words of the buffer are in use, and the number of the first.
    buffered: usize,
    first: u64,
    set: u64,
}

impl<P: FnMut(usize, &[u8])> Answer<P> {
    /// An answer for the first `pages` pages of a query.
    pub(super) fn new(view: View, pages: u64, put: P) -> Self {
        Self { view, pages, put, buffer: [0; BUFFER_WORDS], buffered: 0, first: 0, set: 0 }
    }

    /// Takes in the leaf whose first page is `base`; leaves come in order, and hold nothing that was not asked for.
    pub(super) fn take(&mut self, base: u64, leaf: &Bitmap) {
        if leaf.pages() == 0 {
            return;
        }
        if self.view.fold == 0 {
            // Counted already: counting the bits of a word is no single instruction in the kernel.
            self.set += leaf.pages();
        }
        if self.view.fold >= LEAF_SHIFT {
            return self.add(base, 1);
        }
        for (page, run) in leaf.runs() {
            match self.moved(base + page, run) {
                Some(number) => {
                    self.flush();
                    (self.put)(u64_as_usize(number) * size_of::<u64>(), run.as_bytes());
                }
                None => words_of(base + page, run).for_each(|(page, word)| self.add(page, word)),
            }
        }
    }

    /// Puts out what is left, and gives the number of bits set.
    pub(super) fn end(mut self) -> u64 {
        self.flush();
        self.set
    }

    /// The number of the answer's word that is the first of the run at `page`, if the run goes over as it is.
    fn moved(&self, page: u64, run: &[Group]) -> Option<u64> {
        let at = page.checked_sub(self.view.start)?;
        let end = at + usize_as_u64(run.len()) * GROUP_PAGES;
        (self.view.fold == 0 && at % WORD_PAGES == 0 && end <= self.pages)
            .then_some(at / WORD_PAGES)
    }

    /// Adds a word of the log whose first page is `page`.
    fn add(&mut self, page: u64, word: u64) {
        let (first, bits) = self.view.fold(page, word);
        match first.checked_sub(self.view.start) {
            Some(at) => {
                let (number, shift) = (at / WORD_PAGES, at % WORD_PAGES);
                self.or(number, bits << shift);
                // In two steps, as a shift by 64 is none.
                self.or(number + 1, bits >> 1 >> (WORD_PAGES - 1 - shift));
            }
            // The word begins before the query; its bits there are zero.
            None => self.or(0, bits >> (self.view.start - first)),
        }
    }

    fn or(&mut self, number: u64, bits: u64) {
        if bits == 0 {
            return;
        }
        if self.buffered == 0 {
            self.first = number;
        }
        let mut at = u64_as_usize(number - self.first);
        if at >= BUFFER_WORDS {
            self.flush();
            (self.first, at) = (number, 0);
        }
        if let Some(word) = self.buffer.get_mut(at) {
            *word |= bits;
            self.buffered = at + 1;
        }
    }

    fn flush(&mut self) {
        let Some(words) = self.buffer.get_mut(..self.buffered) else { return };
        if self.view.fold != 0 {
            self.set += words.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
        }
        if !words.is_empty() {
            (self.put)(u64_as_usize(self.first) * size_of::<u64>(), words.as_bytes());
        }
        words.fill(0);
        self.buffered = 0;
    }
}
