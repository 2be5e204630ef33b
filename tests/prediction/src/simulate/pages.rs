// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A set of pages: one bit each, and how many are set.

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;
const BITS: usize = 64;

#[derive(Clone, Debug)]
pub(crate) struct Pages {
    words: Vec<u64>,
    count: u64,
}

impl Pages {
    pub(crate) fn none(pages: usize) -> Self {
        Self { words: vec![0; pages.div_ceil(BITS)], count: 0 }
    }

    /// Every one of `pages`.
    pub(crate) fn all(pages: usize) -> Self {
        let mut set = Self::none(pages);
        (0..pages).for_each(|page| set.insert(page));
        set
    }

    pub(crate) fn insert(&mut self, page: usize) {
        let word = &mut self.words[page / BITS];
        let bit = 1 << (page % BITS);
        self.count += u64::from(*word & bit == 0);
        *word |= bit;
    }

    pub(crate) fn contains(&self, page: usize) -> bool {
        self.words[page / BITS] & (1 << (page % BITS)) != 0
    }

    pub(crate) fn remove(&mut self, page: usize) {
        let word = &mut self.words[page / BITS];
        let bit = 1 << (page % BITS);
        self.count -= u64::from(*word & bit != 0);
        *word &= !bit;
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.count * PAGE
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The first one at or after `from`, or from the beginning again.
    pub(crate) fn next(&self, from: usize) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let start = (from / BITS).min(self.words.len() - 1);
        let first = self.words[start] & (u64::MAX << (from % BITS));
        if first != 0 {
            return Some(start * BITS + first.trailing_zeros() as usize);
        }
        let rest = (start + 1..self.words.len()).chain(0..=start);
        rest.into_iter()
            .find(|at| self.words[*at] != 0)
            .map(|at| at * BITS + self.words[at].trailing_zeros() as usize)
    }

    /// Adds all of `other`'s and empties it.
    pub(crate) fn take(&mut self, other: &mut Self) {
        let mut count = 0;
        for (word, more) in self.words.iter_mut().zip(&mut other.words) {
            *word |= std::mem::take(more);
            count += u64::from(word.count_ones());
        }
        (self.count, other.count) = (count, 0);
    }

    /// Removes all of `other`'s.
    pub(crate) fn subtract(&mut self, other: &Self) {
        for (word, gone) in self.words.iter_mut().zip(&other.words) {
            self.count -= u64::from((*word & gone).count_ones());
            *word &= !gone;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.words.fill(0);
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_count_once_and_are_found_in_order_round_the_end() {
        let mut set = Pages::none(200);
        for page in [3, 64, 199, 3] {
            set.insert(page);
        }
        assert_eq!(set.bytes(), 3 * PAGE);
        assert_eq!([0, 3, 4, 65, 199].map(|from| set.next(from)), [3, 3, 64, 199, 199].map(Some));
        set.remove(199);
        set.remove(199);
        assert_eq!(set.next(65), Some(3));
        assert!(set.contains(64) && !set.contains(199));
    }

    #[test]
    fn a_set_that_is_taken_is_empty_and_what_both_had_counts_once() {
        let (mut left, mut right) = (Pages::none(100), Pages::none(100));
        [1, 2].into_iter().for_each(|page| left.insert(page));
        [2, 99].into_iter().for_each(|page| right.insert(page));
        left.take(&mut right);
        assert_eq!((left.bytes(), right.bytes()), (3 * PAGE, 0));
        assert_eq!(right.next(0), None);
        let mut second = Pages::none(100);
        [2, 50].into_iter().for_each(|page| second.insert(page));
        left.subtract(&second);
        assert_eq!(left.bytes(), 2 * PAGE);
        assert!(!left.contains(2) && left.contains(99));
        left.clear();
        assert_eq!(left.next(0), None);
    }
}
