// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which pages the device wrote: the steps of the RFC's dirty query, and what their answers mean.
//!
//! ```text
//!   a start_pfn, page_size, total_pfns ─▶ b copied_pfns ┬ 0 (NONE): nothing in the rest
//!   ▲                                                   ├ ~0 (ALL): everything in the rest
//!   │                                                   └ n: c data_offset ─▶ d bitmap of n bits
//!   └──────────────── e while fewer than total ──────────────────────────────┘
//! ```
//!
//! A query that fails in the middle leaves the answer unknown, so it gives an error and no set; the driver clears its log only
//! for what was read, so asking again tells what the failed query would have told.
//!
//! Bit *n* of the bitmap is page `start_pfn + n`, bit 0 of a byte first. Bits of the last byte that no page belongs to must be 0.

use std::ops::Range;

use migscope_abi::dirty::{Outcome, Query};
use migscope_abi::region::{Field, PFNS_ALL, PFNS_NONE};

use crate::region::{Region, RegionError, RegionIo};

/// Pages as ascending ranges that neither touch nor overlap: a set of 2^52 pages takes as little room as one of a single page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageSet(Vec<Range<u64>>);

impl PageSet {
    /// How many pages.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|run| run.end - run.start).fold(0, u64::saturating_add)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges.
    pub fn runs(&self) -> &[Range<u64>] {
        &self.0
    }

    /// The pages, one by one.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(Clone::clone)
    }

    /// Whether `page` is in it.
    pub fn contains(&self, page: u64) -> bool {
        let at = self.0.partition_point(|run| run.end <= page);
        self.0.get(at).is_some_and(|run| run.contains(&page))
    }

    /// Appends a range that starts no earlier than the last one ends.
    fn append(&mut self, run: Range<u64>) {
        if run.is_empty() {
            return;
        }
        match self.0.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => self.0.push(run),
        }
    }
}

impl FromIterator<u64> for PageSet {
    /// Collects pages in any order, each as often as it likes.
    fn from_iter<I: IntoIterator<Item = u64>>(pages: I) -> Self {
        let mut set = Self::default();
        for page in std::collections::BTreeSet::from_iter(pages) {
            set.append(page..page.saturating_add(1));
        }
        set
    }
}

/// How many bytes a bitmap of `pages` pages has.
fn bitmap_bytes(pages: u64) -> u64 {
    pages.div_ceil(8)
}

/// Whether bits past the first `pages` are set in the bitmap's last byte.
fn has_stray_bits(bitmap: &[u8], pages: u64) -> bool {
    match (bitmap.last(), pages % 8) {
        (Some(last), rest @ 1..) => last >> rest != 0,
        _ => false,
    }
}

/// Adds the pages of a bitmap whose first bit is `first`; bits past the first `pages` are not looked at.
fn add_bitmap(set: &mut PageSet, first: u64, bitmap: &[u8], pages: u64) {
    let is_set = |byte: u8, bit: u64| byte >> bit & 1 == 1;
    let base = (0..pages).step_by(8);
    for (byte, base) in bitmap.iter().copied().zip(base) {
        if byte == 0 {
            continue;
        }
        for bit in (0..8).filter(|bit| base + bit < pages && is_set(byte, *bit)) {
            let page = first + base + bit;
            set.append(page..page + 1);
        }
    }
}

/// One answer to a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing is dirty in the rest of the range.
    None,
    /// Everything is to be taken as dirty in the rest of the range.
    All,
    /// The bitmap covers so many pages from the range's start.
    Bitmap(u64),
}

impl<Io: RegionIo> Region<Io> {
    /// Steps a and b: asks for the pages from `start_pfn` on, without any check of its own, and gives the driver's answer.
    ///
    /// # Errors
    ///
    /// [`RegionError::Access`], or [`RegionError::TooManyPages`].
    pub fn ask_dirty(
        &mut self,
        start_pfn: u64,
        page_bytes: u64,
        pages: u64,
    ) -> Result<Answer, RegionError> {
        self.write_u64(Field::StartPfn, start_pfn)?;
        self.write_u64(Field::PageSize, page_bytes)?;
        self.write_u64(Field::TotalPfns, pages)?;
        let copied = self.read_u64(Field::CopiedPfns);
        let tally = self.tally();
        match copied {
            Err(error) => {
                tally.query(Outcome::Error);
                Err(error)
            }
            Ok(PFNS_NONE) => {
                tally.query(Outcome::None);
                Ok(Answer::None)
            }
            Ok(PFNS_ALL) => {
                tally.query(Outcome::All);
                tally.reported(pages, page_bytes);
                Ok(Answer::All)
            }
            Ok(copied) if copied > pages => {
                tally.query(Outcome::Error);
                Err(RegionError::TooManyPages { copied, asked: pages })
            }
            Ok(copied) => {
                tally.query(Outcome::Bitmap);
                Ok(Answer::Bitmap(copied))
            }
        }
    }

    /// Steps c and d: the bitmap of `pages` pages that the driver just announced, added to `set`.
    ///
    /// # Errors
    ///
    /// [`RegionError::Access`], [`RegionError::Window`] or [`RegionError::StrayBits`].
    pub fn read_bitmap(
        &mut self,
        set: &mut PageSet,
        start_pfn: u64,
        page_bytes: u64,
        pages: u64,
    ) -> Result<(), RegionError> {
        let offset = self.read_u64(Field::DataOffset)?;
        let mut bitmap = vec![0; self.window(offset, bitmap_bytes(pages))?];
        self.read_window(Field::Bitmap, offset, &mut bitmap)?;
        if has_stray_bits(&bitmap, pages) {
            return Err(RegionError::StrayBits { copied: pages });
        }
        let before = set.len();
        add_bitmap(set, start_pfn, &bitmap, pages);
        let reported = set.len() - before;
        self.tally().reported(reported, page_bytes);
        Ok(())
    }

    /// All five steps: the pages of the query that were written since they were last reported.
    ///
    /// # Errors
    ///
    /// Those of the steps; the answer is then unknown.
    pub fn dirty_pages(&mut self, query: Query) -> Result<PageSet, RegionError> {
        let page_bytes = 1 << query.page_shift;
        let (mut start_pfn, mut rest) = (query.start_pfn, query.pages);
        let mut set = PageSet::default();
        while rest > 0 {
            match self.ask_dirty(start_pfn, page_bytes, rest)? {
                Answer::None => break,
                Answer::All => {
                    // The range's end can lie past 2^64 - 1 only in pages of one byte, which `Query` refuses.
                    set.append(start_pfn..start_pfn.saturating_add(rest));
                    break;
                }
                Answer::Bitmap(pages) => {
                    self.read_bitmap(&mut set, start_pfn, page_bytes, pages)?;
                    start_pfn += pages;
                    rest -= pages;
                }
            }
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_bitmap_walk_finds_the_set_bits_and_no_others(
            bitmap in prop::collection::vec(prop_oneof![Just(0), Just(0xff), any::<u8>()], 0..64),
            spare in 0u64..8,
            first in 0u64..1 << 40,
        ) {
            let pages = (bitmap.len() as u64 * 8).saturating_sub(spare);
            let mut set = PageSet::default();
            add_bitmap(&mut set, first, &bitmap, pages);
            let expected: Vec<u64> = (0..pages)
                .filter(|page| bitmap[(page / 8) as usize] & 1 << (page % 8) != 0)
                .map(|page| first + page)
                .collect();
            prop_assert_eq!(set.len(), expected.len() as u64);
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), expected);
            prop_assert!(set.runs().windows(2).all(|pair| pair[0].end < pair[1].start));
        }

        #[test]
        fn stray_bits_are_those_that_no_page_owns(bytes in prop::collection::vec(any::<u8>(), 1..8), spare in 0u64..8) {
            let pages = bytes.len() as u64 * 8 - spare;
            let stray = (pages..bytes.len() as u64 * 8).any(|bit| bytes[(bit / 8) as usize] & 1 << (bit % 8) != 0);
            prop_assert_eq!(has_stray_bits(&bytes, pages), stray);
        }

        #[test]
        fn a_set_contains_what_was_collected(pages in prop::collection::vec(0u64..200, 0..100)) {
            let set: PageSet = pages.iter().copied().collect();
            for page in 0..210 {
                prop_assert_eq!(set.contains(page), pages.contains(&page));
            }
        }
    }
}
