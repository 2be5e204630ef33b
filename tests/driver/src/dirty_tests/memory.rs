// SPDX-License-Identifier: GPL-2.0
//! How much memory a log takes, and what becomes of it when there is none.

use kernel::allocator::fail_after;

use super::*;

/// How many pages a report of these is told.
fn count(log: &mut Log, query: &Query, covered: u64) -> u64 {
    log.report(query, covered, |_, _| ())
}

/// Two bitmaps and a node of the tree.
const ALLOCATIONS_OF_A_LEAF: u32 = 3;

#[test]
fn only_the_first_page_of_a_leaf_takes_memory() {
    let mut log = Log::new();
    let _failing = fail_after(2 * ALLOCATIONS_OF_A_LEAF);
    log.mark(pages(LEAF - 1, 2));
    assert!(!log.is_lost(), "a mark over a border needs two leaves");
    assert_eq!(log.mark(pages(0, 2 * LEAF)), 2 * LEAF - 2);
    let whole = query(0, 2 * LEAF, 0);
    assert_eq!(count(&mut log, &whole, 2 * LEAF), 2 * LEAF);
    log.mark(pages(77, 1));
    log.take_back();
    assert_eq!(count(&mut log, &whole, LEAF + 5), LEAF + 5);
    log.mark(pages(LEAF, LEAF));
    log.forget();
    assert!(!log.is_lost(), "neither reports nor pages of a leaf that is there need any");
    log.mark(pages(LEAF - 1, 1));
    assert!(!log.is_lost(), "the first leaf is still there");
    assert_eq!(count(&mut log, &whole, 2 * LEAF), LEAF + 1);
    log.forget();
    assert_eq!(log.extent(&whole), Extent::Nothing);
    log.mark(pages(LEAF - 1, 1));
    assert!(log.is_lost(), "both leaves went when a query met them clean");
}

#[test]
fn each_allocation_that_fails_is_noticed_and_loses_nothing_else() {
    for allocations in 0..=2 * ALLOCATIONS_OF_A_LEAF {
        let mut log = Log::new();
        log.mark(pages(3 * LEAF, 10));
        let failing = fail_after(allocations);
        let added = log.mark(pages(LEAF - 20, 40));
        let whole_leaves = u64::from(allocations / ALLOCATIONS_OF_A_LEAF);
        assert_eq!(added, whole_leaves * 20);
        assert_eq!(log.is_lost(), added != 40);
        drop(failing);
        assert_eq!(count(&mut log, &query(0, ALL, 0), ALL), added + 10);
    }
}
