// SPDX-License-Identifier: GPL-2.0
//! The dirty log against two sets of pages: what is dirty, and what was reported and not yet read.

use std::collections::BTreeSet;

use kernel::allocator::fail_after;
use proptest::prelude::*;

use crate::abi::dirty::Query;
use crate::dirty::{Log, Range};

const PAGE: u64 = 4096;
/// Where the pages of a test start: at the bottom, at the edge of a chunk, in the middle, near the last address.
const BASES: [u64; 4] = [0, 511, 1 << 30, (1 << 52) - SPAN];
/// Over how many pages a test's accesses go, at most: some chunks of the log.
const SPAN: u64 = 3000;

#[derive(Clone, Debug)]
enum Step {
    /// The device writes `bytes` bytes at `offset` in a page.
    Mark { page: u64, offset: u64, bytes: u64 },
    /// A query, answered with a bitmap of at most `window` pages, `fold` pages to a bit.
    Report { page: u64, pages: u64, fold: u32, window: u64 },
    /// The bitmap was read.
    Forget,
    /// A query, answered with ALL.
    Clear { page: u64, pages: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..SPAN, 0..PAGE, 1..10 * PAGE)
            .prop_map(|(page, offset, bytes)| Step::Mark { page, offset, bytes }),
        3 => (0..SPAN, 1..SPAN, prop_oneof![Just(0), Just(1), Just(4), Just(9)], 1..2000u64)
            .prop_map(|(page, pages, fold, window)| Step::Report { page, pages, fold, window }),
        2 => Just(Step::Forget),
        1 => (0..SPAN, 1..SPAN).prop_map(|(page, pages)| Step::Clear { page, pages }),
    ]
}

/// What a log should hold.
#[derive(Default)]
struct Model {
    dirty: BTreeSet<u64>,
    reported: BTreeSet<u64>,
}

impl Model {
    fn mark(&mut self, first: u64, last: u64) -> u64 {
        (first..=last).map(|page| u64::from(self.dirty.insert(page))).sum()
    }

    fn take_back(&mut self) {
        self.dirty.append(&mut self.reported);
    }

    /// Pages of the query, counted from its start in its own pages.
    fn asked(&self, query: &Query) -> BTreeSet<u64> {
        let fold = query.page_shift - 12;
        let pages = self.dirty.iter().map(|page| page >> fold);
        pages
            .filter_map(|page| page.checked_sub(query.start_pfn))
            .filter(|n| *n < query.pages)
            .collect()
    }
}

/// The query for pages of the log from `page` on, cut at the end of the address space.
fn query(page: u64, pages: u64, fold: u32) -> Query {
    let start = page >> fold;
    let most = ((1 << 52) >> fold) - start;
    Query::new(start, PAGE << fold, pages.min(most)).expect("ends inside of the address space")
}

/// Does a step to both and compares what they say. Gives false when the log is lost.
fn apply(step: &Step, base: u64, log: &mut Log, model: &mut Model) -> Result<bool, TestCaseError> {
    match *step {
        Step::Mark { page, offset, bytes } => {
            let start = (base + page) * PAGE + offset;
            let Some(end) = start.checked_add(bytes - 1) else { return Ok(true) };
            let Some(range) = Range::touched(start, bytes) else {
                // The end itself may lie at 2^64, which no transfer reaches.
                prop_assert_eq!(end, u64::MAX);
                return Ok(true);
            };
            let added = log.mark(range);
            let expected = model.mark(start / PAGE, end / PAGE);
            if log.is_lost() {
                return Ok(false);
            }
            prop_assert_eq!(added, expected);
        }
        Step::Report { page, pages, fold, window } => {
            log.take_back();
            model.take_back();
            let query = query(base + page, pages, fold);
            let asked = model.asked(&query);
            prop_assert_eq!(log.count(&query), u64::try_from(asked.len()).expect("small"));
            let covered = query.pages.min(window);
            let mut bitmap = vec![0; usize::try_from(covered.div_ceil(8)).expect("small")];
            let set = log.report(&query, covered, &mut bitmap);
            let expected: BTreeSet<u64> = asked.into_iter().filter(|n| *n < covered).collect();
            prop_assert_eq!(set, u64::try_from(expected.len()).expect("small"));
            let bits = (0..).zip(&bitmap).flat_map(|(at, byte)| {
                (0..8u64).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| at * 8 + bit)
            });
            prop_assert_eq!(bits.collect::<BTreeSet<u64>>(), expected);
            let first = query.start_pfn << fold;
            let last = ((query.start_pfn + covered - 1) << fold) + ((1 << fold) - 1);
            model.reported = model.dirty.range(first..=last).copied().collect();
            model.dirty.retain(|page| !(first..=last).contains(page));
        }
        Step::Forget => {
            log.forget();
            model.reported.clear();
        }
        Step::Clear { page, pages } => {
            log.take_back();
            model.take_back();
            let query = query(base + page, pages, 0);
            log.clear(&query);
            let range = query.start_pfn..=query.start_pfn + (query.pages - 1);
            model.dirty.retain(|page| !range.contains(page));
        }
    }
    Ok(true)
}

proptest! {
    #[test]
    fn the_log_says_what_a_set_of_pages_says(
        base in prop::sample::select(BASES.to_vec()),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let (mut log, mut model) = (Log::new(), Model::default());
        for step in &steps {
            prop_assert!(apply(step, base, &mut log, &mut model)?, "no allocation fails here");
        }
    }

    #[test]
    fn a_log_without_memory_is_lost_and_never_too_clean(
        steps in prop::collection::vec(step(), 1..40),
        allocations in 0..6u32,
    ) {
        let (mut log, mut model) = (Log::new(), Model::default());
        let _failing = fail_after(allocations);
        for step in &steps {
            if !apply(step, 0, &mut log, &mut model)? {
                break;
            }
        }
        // Lost exactly when a page is missing; and once lost it stays so, whatever is asked of it.
        let whole = query(0, 1 << 52, 0);
        log.take_back();
        model.take_back();
        let held = usize::try_from(log.count(&whole)).expect("small");
        if log.is_lost() {
            prop_assert!(held < model.dirty.len());
            log.clear(&whole);
            log.forget();
            prop_assert!(log.is_lost());
        } else {
            prop_assert_eq!(held, model.dirty.len());
        }
    }
}

#[test]
fn the_whole_address_space_is_asked_for_by_what_is_dirty() {
    let mut log = Log::new();
    for page in [0, 1 << 20, (1 << 52) - 1] {
        log.mark(Range::touched(page * PAGE, 1).expect("one byte"));
    }
    // Walking the pages of this range would not end.
    assert_eq!(log.count(&query(0, 1 << 52, 0)), 3);
    assert_eq!(log.count(&query(2, 1 << 19, 0)), 0);
}

#[test]
fn a_transfer_of_nothing_or_past_the_end_touches_no_page() {
    assert!(Range::touched(0x1000, 0).is_none());
    assert!(Range::touched(u64::MAX, 2).is_none());
}
