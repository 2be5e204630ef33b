// SPDX-License-Identifier: GPL-2.0
//! Random steps over a few leaves, each compared with flags for each page.

use kernel::allocator::fail_after;
use proptest::prelude::*;

use super::*;

/// Over how many pages the steps of a test go: more than three leaves.
const SPAN: u64 = if MIRI { 700 } else { 3 * LEAF + 3000 };
/// How many steps a test takes, at most.
const STEPS: usize = if MIRI { 8 } else { 30 };
/// Where they start: at the bottom, before the border of a leaf, in the middle, so that they end at the last address.
const BASES: [u64; 5] = [0, LEAF - 300, (1 << 30) + 17, (1 << 40) - 2 * LEAF, ALL - SPAN];
/// Pages of a query: of 4 KiB, 8 KiB, 64 KiB, 128 KiB, 256 KiB, 512 KiB, 2 MiB, 64 MiB, 128 MiB, 256 MiB, 2^63 bytes.
const FOLDS: [u32; 11] = [0, 1, 4, 5, 6, 7, 9, 14, 15, 16, 51];

#[derive(Clone, Debug)]
enum Step {
    /// The device writes `bytes` bytes at `offset` in a page.
    Mark { page: u64, offset: u64, bytes: u64 },
    /// A query, answered with a bitmap of at most `window` pages. What was reported before did not arrive.
    Report { page: u64, pages: u64, fold: u32, window: u64 },
    /// The bitmap was read.
    Forget,
    /// The bitmap was dropped, as at a change of state.
    TakeBack,
    /// A query, answered with ALL.
    Clear { page: u64, pages: u64 },
}

/// A page, often one at the border of a leaf or of a word.
fn page() -> impl Strategy<Value = u64> {
    let border = (1..4 * LEAF / 64, 0..3u64).prop_map(|(word, off)| word * 64 + off - 1);
    let leaf = (1..4u64, 0..3u64).prop_map(|(leaf, off)| leaf * LEAF + off - 1);
    prop_oneof![0..SPAN, border, leaf].prop_map(|page| page.min(SPAN - 1))
}

/// How many pages: a few, some groups, some leaves.
fn length() -> impl Strategy<Value = u64> {
    prop_oneof![1..70u64, 1..3000u64, 1..SPAN]
}

fn step() -> impl Strategy<Value = Step> {
    let fold = prop_oneof![2 => Just(0), 3 => prop::sample::select(FOLDS.to_vec())];
    prop_oneof![
        6 => (page(), 0..PAGE, 1..10 * PAGE)
            .prop_map(|(page, offset, bytes)| Step::Mark { page, offset, bytes }),
        1 => (page(), length())
            .prop_map(|(page, pages)| Step::Mark { page, offset: 0, bytes: pages * PAGE }),
        5 => (page(), length(), fold, length())
            .prop_map(|(page, pages, fold, window)| Step::Report { page, pages, fold, window }),
        3 => Just(Step::Forget),
        1 => Just(Step::TakeBack),
        1 => (page(), length()).prop_map(|(page, pages)| Step::Clear { page, pages }),
    ]
}

/// What a log should hold of the pages from `base` on.
struct Model {
    base: u64,
    dirty: Vec<bool>,
    reported: Vec<bool>,
}

impl Model {
    fn new(base: u64) -> Self {
        let flags = vec![false; small(SPAN)];
        Self { base, dirty: flags.clone(), reported: flags }
    }

    /// Which flags these pages have.
    fn flags(&self, first: u64, last: u64) -> std::ops::Range<usize> {
        let at = |page: u64| small::<usize>(page.saturating_sub(self.base).min(SPAN));
        at(first)..if last < self.base { 0 } else { at(last + 1) }
    }

    fn mark(&mut self, first: u64, last: u64) -> u64 {
        let flags = self.flags(first, last);
        let added = self.dirty[flags.clone()].iter().filter(|dirty| !**dirty).count();
        self.dirty[flags].fill(true);
        added as u64
    }

    fn take_back(&mut self) {
        for (dirty, reported) in self.dirty.iter_mut().zip(&mut self.reported) {
            *dirty |= std::mem::take(reported);
        }
    }

    /// The dirty pages of the query, counted from its start in its own pages.
    fn asked(&self, query: &Query) -> Vec<u64> {
        let fold = query.page_shift - 12;
        let dirty = (self.base..).zip(&self.dirty).filter(|(_, dirty)| **dirty);
        let pages = dirty.filter_map(|(page, _)| (page >> fold).checked_sub(query.start_pfn));
        let mut asked: Vec<_> = pages.filter(|n| *n < query.pages).collect();
        asked.dedup();
        asked
    }
}

/// The last page of a query's first `pages` pages, in pages of the log.
fn last_page(query: &Query, pages: u64) -> u64 {
    let fold = query.page_shift - 12;
    ((query.start_pfn + (pages - 1)) << fold) + ((1 << fold) - 1)
}

/// Does a step to both and compares what they say. Gives false when the log is lost.
fn apply(step: &Step, log: &mut Log, model: &mut Model) -> Result<bool, TestCaseError> {
    match *step {
        Step::Mark { page, offset, bytes } => {
            let start = (model.base + page) * PAGE + offset;
            let bytes = bytes.min(SPAN * PAGE - page * PAGE - offset);
            let last = (start + (bytes - 1)) / PAGE;
            let Some(range) = Range::touched(start, bytes) else {
                return Err(TestCaseError::fail("the end has an address"));
            };
            let added = log.mark(range);
            let expected = model.mark(start / PAGE, last);
            if log.is_lost() {
                return Ok(false);
            }
            prop_assert_eq!(added, expected);
        }
        Step::Report { page, pages, fold, window } => {
            log.take_back();
            model.take_back();
            let query = query(model.base + page, pages, fold);
            let asked = model.asked(&query);
            let expected = match asked.len() as u64 {
                0 => Extent::Nothing,
                dirty if dirty == query.pages => Extent::Everything,
                _ => Extent::Part,
            };
            prop_assert_eq!(log.extent(&query), expected);
            let covered = query.pages.min(window);
            let expected: Vec<_> = asked.into_iter().filter(|n| *n < covered).collect();
            prop_assert_eq!(report(log, &query, covered), expected);
            let flags = model.flags(query.start_pfn << fold, last_page(&query, covered));
            model.reported[flags.clone()].copy_from_slice(&model.dirty[flags.clone()]);
            model.dirty[flags].fill(false);
        }
        Step::Forget => {
            log.forget();
            model.reported.fill(false);
        }
        Step::TakeBack => {
            log.take_back();
            model.take_back();
        }
        Step::Clear { page, pages } => {
            log.take_back();
            model.take_back();
            let query = query(model.base + page, pages, 0);
            log.clear(&query);
            let flags = model.flags(query.start_pfn, last_page(&query, query.pages));
            model.dirty[flags].fill(false);
        }
    }
    Ok(true)
}

/// Every page that is in the log, dirty or reported.
fn held(log: &mut Log) -> Vec<u64> {
    report(log, &query(0, ALL, 0), ALL)
}

proptest! {
    #[test]
    fn the_log_says_what_flags_say(
        base in prop::sample::select(BASES.to_vec()),
        steps in prop::collection::vec(step(), 1..STEPS),
    ) {
        let (mut log, mut model) = (Log::new(), Model::new(base));
        for step in &steps {
            prop_assert!(apply(step, &mut log, &mut model)?, "no allocation fails here");
        }
        // Whatever was cut off: all of it is still there.
        model.take_back();
        prop_assert_eq!(held(&mut log), model.asked(&query(0, ALL, 0)));
    }

    #[test]
    fn a_log_without_memory_is_lost_and_never_too_clean(
        steps in prop::collection::vec(step(), 1..STEPS),
        allocations in 0..14u32,
    ) {
        let (mut log, mut model) = (Log::new(), Model::new(0));
        let _failing = fail_after(allocations);
        for step in &steps {
            if !apply(step, &mut log, &mut model)? {
                break;
            }
        }
        // Lost exactly when a page is missing; and once lost it stays so, whatever is asked of it.
        model.take_back();
        let (held, expected) = (held(&mut log), model.asked(&query(0, ALL, 0)));
        if log.is_lost() {
            prop_assert!(held.len() < expected.len());
            log.clear(&query(0, ALL, 0));
            log.forget();
            prop_assert!(log.is_lost());
        } else {
            prop_assert_eq!(held, expected);
        }
    }
}
