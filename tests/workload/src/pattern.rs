// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which words of a device's memory a workload writes, in which order and how fast.

use std::ops::Range;
use std::time::Duration;

use crate::content::{WORDS, Write};

/// The choice of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Any page is as likely as any other.
    Uniform,
    /// The first so many pages of the range, and no other.
    HotSet {
        /// How many.
        pages: u64,
    },
    /// Each page after the one before it, round and round.
    Sequential,
    /// So many pages that follow each other, from any page on; then a pause.
    Bursts {
        /// How many.
        pages: u64,
        /// How long.
        pause: Duration,
    },
}

/// What a workload does to a device's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Which pages.
    pub pattern: Pattern,
    /// Out of which.
    pub range: Range<u64>,
    /// Words that are written in a second, at most, each to a page of its own choice; 0 for as many as can be.
    pub per_second: u32,
    /// Of the choice of pages, and of what is written.
    pub seed: u64,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A word is written.
    Write(Write),
    /// Nothing is, for so long.
    Pause(Duration),
}

/// The steps of a load, without end; the same load gives the same steps.
#[derive(Clone, Debug)]
pub struct Strokes {
    load: Load,
    random: fastrand::Rng,
    /// The next page of a sequence or a burst.
    next: u64,
    /// What is left of a burst.
    left: u64,
    count: u64,
}

impl Strokes {
    /// The steps of this load.
    ///
    /// # Panics
    ///
    /// When the range is empty, or a set or burst of no pages is asked for.
    pub fn new(load: Load) -> Self {
        assert!(!load.range.is_empty(), "no pages to write");
        let pages = match load.pattern {
            Pattern::HotSet { pages } | Pattern::Bursts { pages, .. } => pages,
            Pattern::Uniform | Pattern::Sequential => 1,
        };
        assert!(pages > 0, "no pages to write");
        let random = fastrand::Rng::with_seed(load.seed);
        let next = load.range.start;
        Self { load, random, next, left: pages, count: 0 }
    }

    /// What they were made from.
    pub fn load(&self) -> &Load {
        &self.load
    }

    fn following(&mut self) -> u64 {
        let page = self.next;
        self.next = if page + 1 < self.load.range.end { page + 1 } else { self.load.range.start };
        page
    }

    /// The next step.
    pub fn step(&mut self) -> Step {
        let Range { start, end } = self.load.range.clone();
        let page = match self.load.pattern {
            Pattern::Uniform => self.random.u64(start..end),
            Pattern::HotSet { pages } => self.random.u64(start..end.min(start + pages)),
            Pattern::Sequential => self.following(),
            Pattern::Bursts { pages, pause } => {
                if self.left == 0 {
                    self.left = pages;
                    self.next = self.random.u64(start..end);
                    return Step::Pause(pause);
                }
                self.left -= 1;
                self.following()
            }
        };
        self.count += 1;
        let slot = self.random.u64(..WORDS as u64);
        // Never the same twice, and never zero.
        let word = self.load.seed << 40 | self.count;
        Step::Write(Write { page, slot, word })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const RANGE: Range<u64> = 100..164;

    fn writes(pattern: Pattern, count: usize) -> Vec<Write> {
        let load = Load { pattern, range: RANGE, per_second: 0, seed: 1 };
        let mut strokes = Strokes::new(load);
        let steps = std::iter::repeat_with(move || strokes.step());
        let writes = steps.filter_map(|step| match step {
            Step::Write(write) => Some(write),
            Step::Pause(_) => None,
        });
        writes.take(count).collect()
    }

    fn pages(pattern: Pattern, count: usize) -> BTreeSet<u64> {
        writes(pattern, count).into_iter().map(|write| write.page).collect()
    }

    #[test]
    fn each_pattern_writes_the_pages_that_it_names() {
        assert_eq!(pages(Pattern::Uniform, 2000), RANGE.collect());
        assert_eq!(pages(Pattern::HotSet { pages: 3 }, 100), (100..103).collect());
        assert_eq!(pages(Pattern::HotSet { pages: 300 }, 2000), RANGE.collect());
        assert_eq!(pages(Pattern::Sequential, 10), (100..110).collect());
        assert_eq!(pages(Pattern::Sequential, 65), RANGE.collect());
        let bursts = writes(Pattern::Bursts { pages: 8, pause: Duration::ZERO }, 800);
        for burst in bursts.chunks(8) {
            let follows = |pair: &[Write]| {
                pair[1].page == pair[0].page + 1 || (pair[0].page, pair[1].page) == (163, 100)
            };
            assert!(burst.windows(2).all(follows), "{burst:?}");
        }
    }

    #[test]
    fn the_same_load_writes_the_same_and_nothing_twice() {
        let some = writes(Pattern::Uniform, 500);
        assert_eq!(some, writes(Pattern::Uniform, 500));
        assert_eq!(some.iter().map(|write| write.word).collect::<BTreeSet<_>>().len(), 500);
    }
}
