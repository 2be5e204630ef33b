// SPDX-License-Identifier: GPL-2.0
//! A leaf of the dirty log: two bitmaps for the same pages, each with a summary of where it is not zero.

use core::mem;

use kernel::{
    num::casts::{
        arch::u64_as_usize,
        u32_as_usize, //
    },
    prelude::*, //
};

use super::{
    Range,
    WORD_PAGES, //
};

const GROUP_WORDS: usize = 8;
/// As many as a summary has bits.
const GROUPS: usize = 64;
/// Pages whose bits are in a group: 2 MiB of address space.
pub(super) const GROUP_PAGES: u64 = 512;
/// Pages in a leaf. A bitmap of that many is a page of memory, so nothing of an allocation is wasted.
pub(super) const LEAF_PAGES: u64 = 1 << LEAF_SHIFT;
pub(super) const LEAF_SHIFT: u32 = 15;

/// One bit a page, the first page lowest: on a machine that stores the low byte first, the very bytes of a query's
/// bitmap.
pub(super) type Group = [u64; GROUP_WORDS];

/// One bit for each page of a leaf. Ranges are counted from the leaf's first page.
pub(super) struct Bitmap {
    /// All [`GROUPS`] of them.
    groups: KVec<Group>,
    /// Bit *n* is set exactly if group *n* has a bit set.
    used: u64,
    /// The number of bits that are set.
    pages: u64,
}

impl Bitmap {
    fn new() -> Result<Self> {
        let groups = KVec::from_elem([0; GROUP_WORDS], GROUPS, GFP_KERNEL_ACCOUNT)?;
        Ok(Self { groups, used: 0, pages: 0 })
    }

    /// How many pages are in it.
    pub(super) fn pages(&self) -> u64 {
        self.pages
    }

    /// Whether every page is in it.
    pub(super) fn is_full(&self) -> bool {
        self.pages == LEAF_PAGES
    }

    /// Whether no page of `part` is in it.
    pub(super) fn is_clean(&self, part: Range) -> bool {
        self.pages == 0
            || !is_whole(part) && self.words().all(|(page, word)| word & part.mask(page) == 0)
    }

    /// The groups that are not all zero, in runs without a gap, each with its first page.
    pub(super) fn runs(&self) -> impl Iterator<Item = (u64, &[Group])> {
        let mut left = self.used;
        core::iter::from_fn(move || {
            let first = (left != 0).then(|| left.trailing_zeros())?;
            let length = (left >> first).trailing_ones();
            // The carry runs through the run and leaves it zero.
            left &= left.wrapping_add(1 << first);
            let at = u32_as_usize(first);
            let run = self.groups.get(at..at + u32_as_usize(length))?;
            Some((u64::from(first) * GROUP_PAGES, run))
        })
    }

    /// The words that are not zero, with their first pages.
    pub(super) fn words(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.runs().flat_map(|(page, run)| words_of(page, run))
    }

    /// Adds all pages of `part` and gives the number of those that were not there.
    pub(super) fn set(&mut self, part: Range) -> u64 {
        let before = self.pages;
        self.change(part, |_, word, mask| word | mask);
        self.pages - before
    }

    /// Removes all pages of `part`.
    pub(super) fn remove(&mut self, part: Range) {
        if is_whole(part) {
            self.clear();
        } else {
            self.change(part, |_, word, mask| word & !mask);
        }
    }

    /// Adds the pages of `part` that are in `other`.
    fn add(&mut self, other: &Self, part: Range) {
        self.change(part, |page, word, mask| word | (other.word(page) & mask));
    }

    fn clear(&mut self) {
        while self.used != 0 {
            let number = u64::from(self.used.trailing_zeros());
            if let Some(group) = self.groups.get_mut(u64_as_usize(number)) {
                *group = [0; GROUP_WORDS];
            }
            self.used &= self.used - 1;
        }
        self.pages = 0;
    }

    /// The word whose first page is `page`.
    fn word(&self, page: u64) -> u64 {
        let group = self.groups.get(u64_as_usize(page / GROUP_PAGES));
        let word = group.and_then(|group| group.get(u64_as_usize(page % GROUP_PAGES / WORD_PAGES)));
        word.copied().unwrap_or(0)
    }

    /// Puts `change(first page, word, mask of the part)` in the place of each word that has bits in `part`.
    fn change(&mut self, part: Range, change: impl Fn(u64, u64, u64) -> u64) {
        for number in part.first / GROUP_PAGES..=part.last / GROUP_PAGES {
            let Some(group) = self.groups.get_mut(u64_as_usize(number)) else { return };
            let mut all = 0;
            for (page, word) in
                (number * GROUP_PAGES..).step_by(u64_as_usize(WORD_PAGES)).zip(group)
            {
                let mask = part.mask(page);
                if mask != 0 {
                    self.pages -= u64::from(word.count_ones());
                    *word = change(page, *word, mask);
                    self.pages += u64::from(word.count_ones());
                }
                all |= *word;
            }
            self.used = self.used & !(1 << number) | u64::from(all != 0) << number;
        }
    }
}

/// The words of a run of groups that are not zero, with their first pages.
pub(super) fn words_of(page: u64, run: &[Group]) -> impl Iterator<Item = (u64, u64)> + '_ {
    let pages = (0..).map(move |number| page + number * WORD_PAGES);
    let words = pages.zip(run.as_flattened());
    words.filter(|(_, word)| **word != 0).map(|(page, word)| (page, *word))
}

fn is_whole(part: Range) -> bool {
    part.first == 0 && part.last == LEAF_PAGES - 1
}

const _: () = assert!(cfg!(target_endian = "little"), "words go into bitmaps as they are");

/// [`LEAF_PAGES`] pages.
pub(super) struct Leaf {
    pub(super) dirty: Bitmap,
    pub(super) reported: Bitmap,
}

impl Leaf {
    /// A leaf in which nothing is dirty.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        Ok(Self { dirty: Bitmap::new()?, reported: Bitmap::new()? })
    }

    /// Whether nothing is dirty and nothing reported.
    pub(super) fn is_empty(&self) -> bool {
        self.dirty.pages == 0 && self.reported.pages == 0
    }

    /// What is dirty in `part` becomes reported. Nothing else is.
    pub(super) fn report(&mut self, part: Range) {
        if is_whole(part) {
            mem::swap(&mut self.dirty, &mut self.reported);
        } else {
            self.reported.add(&self.dirty, part);
            self.dirty.remove(part);
        }
    }

    /// What is reported becomes clean.
    pub(super) fn forget(&mut self) {
        self.reported.clear();
    }

    /// What is reported becomes dirty.
    pub(super) fn take_back(&mut self) {
        if self.dirty.pages == 0 {
            mem::swap(&mut self.dirty, &mut self.reported);
        } else if self.reported.pages != 0 {
            self.dirty.add(&self.reported, Range { first: 0, last: LEAF_PAGES - 1 });
            self.reported.clear();
        }
    }
}
