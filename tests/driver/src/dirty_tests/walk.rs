// SPDX-License-Identifier: GPL-2.0
//! A client that walks a big range by windows, as clients of the protocol do.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// 1 TiB.
const TEBIBYTE: u64 = 1 << 28;
/// How many pages a test makes dirty, at most.
const PAGES: usize = if MIRI { 4 } else { 60 };

/// The smallest window for a walk over all of it, in pages.
const SMALLEST: u64 = if MIRI { 1 << 25 } else { 1 << 15 };

/// Asks for `range` pages from `start` on until the answer is NONE, and gives the pages it was told. The n-th bitmap is
/// cut off if `cut(n)`, and then asked for again; after each bitmap `meanwhile(n, log)` writes.
fn walk(
    log: &mut Log,
    start: u64,
    range: u64,
    window: u64,
    cut: impl Fn(u64) -> bool,
    mut meanwhile: impl FnMut(u64, &mut Log),
) -> Vec<u64> {
    let (mut told, mut at) = (Vec::new(), start);
    for queries in 0.. {
        log.take_back();
        if at >= start + range {
            break;
        }
        let query = query(at, start + range - at, 0);
        match log.extent(&query) {
            Extent::Nothing => break,
            Extent::Everything => {
                log.clear(&query);
                told.extend(at..start + range);
                break;
            }
            Extent::Part => {
                let covered = query.pages.min(window);
                let bits = report(log, &query, covered);
                meanwhile(queries, log);
                if !cut(queries) {
                    log.forget();
                    told.extend(bits.into_iter().map(|bit| at + bit));
                    at += covered;
                }
            }
        }
    }
    told
}

proptest! {
    #[test]
    fn every_page_of_a_tebibyte_is_told_once(
        dirty in prop::collection::btree_set(0..TEBIBYTE, 0..PAGES),
        clumps in prop::collection::vec((0..TEBIBYTE, 1..30 * PAGES as u64), 0..4),
        start in prop_oneof![Just(0u64), 0..3 * LEAF],
        window in prop_oneof![Just(SMALLEST << 4), SMALLEST..SMALLEST << 7, Just(TEBIBYTE)],
        cuts in any::<u64>(),
    ) {
        let mut log = Log::new();
        let mut expected = dirty;
        for (page, length) in clumps {
            expected.extend(page..(page + length).min(TEBIBYTE));
        }
        for page in &expected {
            prop_assert_eq!(log.mark(pages(start + page, 1)), 1);
        }
        let cut = |query| query < 64 && cuts >> query & 1 == 1;
        let told = walk(&mut log, start, TEBIBYTE, window, cut, |_, _| ());
        let expected: Vec<_> = expected.into_iter().map(|page| start + page).collect();
        prop_assert_eq!(told, expected);
        prop_assert_eq!(log.extent(&query(0, ALL, 0)), Extent::Nothing);
    }

    #[test]
    fn what_is_written_while_a_bitmap_is_on_its_way_is_told_later(
        dirty in prop::collection::btree_set(0..4 * LEAF, 1..PAGES),
        again in prop::collection::vec(0..4 * LEAF, 1..PAGES),
        window in prop_oneof![Just(LEAF), 1000 * if MIRI { 20 } else { 1 }..2 * LEAF],
        cuts in any::<u64>(),
    ) {
        let mut log = Log::new();
        for page in &dirty {
            log.mark(pages(*page, 1));
        }
        let mut writes = again.iter().copied();
        let mut written = BTreeSet::new();
        let cut = |query| query < 64 && cuts >> query & 1 == 1;
        let first = walk(&mut log, 0, 4 * LEAF, window, cut, |_, log| {
            if let Some(page) = writes.next() {
                log.mark(pages(page, 1));
                written.insert(page);
            }
        });
        let second = walk(&mut log, 0, 4 * LEAF, window, |_| false, |_, _| ());
        let first: BTreeSet<_> = first.into_iter().collect();
        let second: BTreeSet<_> = second.into_iter().collect();
        // Each that was dirty at first is told in the first walk, each that was written is told at some time, and
        // nothing else.
        prop_assert!(first.is_superset(&dirty));
        let all: BTreeSet<_> = first.union(&second).copied().collect();
        prop_assert_eq!(&all, &dirty.union(&written).copied().collect::<BTreeSet<_>>());
        prop_assert!(second.is_subset(&written));
    }
}

#[test]
fn a_page_that_is_written_while_it_is_reported_stays_dirty() {
    for (offset, whole) in [(0, true), (5, false)] {
        let mut log = Log::new();
        log.mark(pages(offset + 100, 2));
        let covered = if whole { 2 * LEAF } else { LEAF / 2 };
        let query = query(offset, covered, 0);
        assert_eq!(report(&mut log, &query, covered), [100, 101]);
        assert_eq!(log.mark(pages(offset + 101, 2)), 2, "neither is dirty while it is reported");
        log.forget();
        assert_eq!(report(&mut log, &query, covered), [101, 102]);
        log.mark(pages(offset + 102, 1));
        log.take_back();
        assert_eq!(log.mark(pages(offset + 101, 2)), 0, "both are dirty");
        assert_eq!(report(&mut log, &query, covered), [101, 102]);
        log.forget();
        assert_eq!(log.extent(&query), Extent::Nothing);
    }
}
