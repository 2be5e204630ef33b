// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a device's memory holds: a ground that is computed, and the pages that were written since.
//!
//! So a memory of a gibibyte costs what was written to it, and can be compared page by page.

use std::collections::BTreeMap;
use std::io;

use crate::PAGE_BYTES;
use crate::mapping::WORD_BYTES;

/// Bytes of a page, as a length of memory.
pub const PAGE: usize = 4096;
/// Words of a page.
pub const WORDS: usize = PAGE / WORD_BYTES;
/// Pages that are compared at a time.
const CHUNK_PAGES: u64 = 64;

const _: () = assert!(PAGE as u64 == PAGE_BYTES);

/// What memory held before anything was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// Each page is this word, again and again.
    Fill(u64),
    /// No two pages are alike, and none is of one word.
    Noise {
        /// Of the noise.
        seed: u64,
    },
}

impl Ground {
    fn word(self, page: u64, slot: u64) -> u64 {
        match self {
            Self::Fill(word) => word,
            Self::Noise { seed } => mix(seed ^ mix(page << 9 | slot)),
        }
    }
}

/// The finaliser of SplitMix64: one to one, so different inputs give different words.
fn mix(input: u64) -> u64 {
    let mut word = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// One word that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// To which page.
    pub page: u64,
    /// Which word of it.
    pub slot: u64,
    /// What is written.
    pub word: u64,
}

impl Write {
    /// Where it goes, in bytes from the start of the memory.
    pub fn at(self) -> u64 {
        self.page * PAGE_BYTES + self.slot * 8
    }
}

/// Memory as it must be.
#[derive(Clone, Debug)]
pub struct Content {
    ground: Ground,
    pages: u64,
    written: BTreeMap<u64, Box<[u64; WORDS]>>,
}

/// Where two memories differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// How many pages.
    pub pages: u64,
    /// The first of them.
    pub first: u64,
    /// The first word that differs in it.
    pub slot: u64,
    /// What must be there.
    pub expected: u64,
    /// What is there.
    pub found: u64,
}

impl Content {
    /// A memory of `pages` pages.
    pub fn new(ground: Ground, pages: u64) -> Self {
        Self { ground, pages, written: BTreeMap::new() }
    }

    /// How many pages it has.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Writes a word.
    ///
    /// # Panics
    ///
    /// When there is no such word.
    pub fn apply(&mut self, write: Write) {
        let Write { page, slot, word } = write;
        assert!(page < self.pages, "no page {page}");
        let ground = self.ground;
        let words = self.written.entry(page).or_insert_with(|| {
            let mut words = Box::new([0; WORDS]);
            (0..).zip(words.iter_mut()).for_each(|(slot, word)| *word = ground.word(page, slot));
            words
        });
        words[usize::try_from(slot).expect("a word of a page")] = word;
    }

    /// The pages that were written.
    pub fn written(&self) -> impl Iterator<Item = u64> + '_ {
        self.written.keys().copied()
    }

    /// Takes over what another writer, of other pages, has written.
    pub fn absorb(&mut self, other: Self) {
        self.written.extend(other.written);
    }

    /// What a page holds.
    ///
    /// # Panics
    ///
    /// When `into` is not a page.
    pub fn page(&self, page: u64, into: &mut [u8]) {
        assert_eq!(into.len(), PAGE);
        let written = self.written.get(&page);
        for (slot, bytes) in (0_usize..).zip(into.as_chunks_mut().0) {
            let word = match written {
                Some(words) => words[slot],
                None => self.ground.word(page, slot as u64),
            };
            *bytes = word.to_le_bytes();
        }
    }

    /// Gives all of it to `write`, page by page: the first byte's place, and the bytes.
    ///
    /// # Errors
    ///
    /// Those of `write`.
    pub fn put(&self, mut write: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut bytes = [0; PAGE];
        for page in 0..self.pages {
            self.page(page, &mut bytes);
            write(page * PAGE_BYTES, &bytes)?;
        }
        Ok(())
    }

    /// Compares all of it with what `read` gives from a place on; `None` when they are equal.
    ///
    /// # Errors
    ///
    /// Those of `read`.
    pub fn difference(
        &self,
        mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<Option<Difference>> {
        let mut chunk = vec![0; usize::try_from(CHUNK_PAGES).unwrap_or(1) * PAGE];
        let mut expected = [0; PAGE];
        let mut difference: Option<Difference> = None;
        for first in (0..self.pages).step_by(usize::try_from(CHUNK_PAGES).unwrap_or(1)) {
            let pages = CHUNK_PAGES.min(self.pages - first);
            let bytes = usize::try_from(pages).unwrap_or(1) * PAGE;
            read(first * PAGE_BYTES, &mut chunk[..bytes])?;
            for (page, found) in (first..).zip(chunk[..bytes].chunks_exact(PAGE)) {
                self.page(page, &mut expected);
                if expected[..] == *found {
                    continue;
                }
                let words = expected.as_chunks().0.iter().zip(found.as_chunks().0);
                let different = (0..).zip(words).find(|(_, (expected, found))| expected != found);
                let (slot, (expected, found)) = different.expect("the pages differ");
                let (expected, found) = (u64::from_le_bytes(*expected), u64::from_le_bytes(*found));
                difference
                    .get_or_insert(Difference { pages: 0, first: page, slot, expected, found })
                    .pages += 1;
            }
        }
        Ok(difference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_equals_itself_and_differs_where_it_was_written() {
        let content = Content::new(Ground::Noise { seed: 3 }, 130);
        let mut memory = Vec::new();
        let put = content.put(|_, bytes| {
            memory.extend_from_slice(bytes);
            Ok(())
        });
        put.unwrap();
        let compare = |content: &Content| {
            let read = |at, into: &mut [u8]| {
                let at = usize::try_from(at).unwrap();
                into.copy_from_slice(&memory[at..at + into.len()]);
                Ok(())
            };
            content.difference(read).unwrap()
        };
        assert_eq!(compare(&content), None);
        let mut other = content.clone();
        other.apply(Write { page: 129, slot: 511, word: 5 });
        other.apply(Write { page: 7, slot: 2, word: 6 });
        let Difference { pages, first, slot, expected, .. } = compare(&other).unwrap();
        assert_eq!((pages, first, slot, expected), (2, 7, 2, 6));
        assert_eq!(other.written().collect::<Vec<_>>(), [7, 129]);
        let mut absorbed = content.clone();
        absorbed.absorb(other);
        assert_eq!(compare(&absorbed).unwrap().pages, 2);
    }

    #[test]
    fn noise_has_no_two_words_alike() {
        let word = |at: u64| Ground::Noise { seed: 9 }.word(at / 512, at % 512);
        let words: std::collections::BTreeSet<u64> = (0..50_000).map(word).collect();
        assert_eq!(words.len(), 50_000);
    }
}
