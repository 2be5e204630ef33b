// SPDX-License-Identifier: GPL-2.0
//! The dirty log against flags for each page: what is dirty, and what was reported and not yet read.
//!
//! The driver does everything with a log under one lock, so whatever threads there are, a log sees a sequence of steps.

mod memory;
mod model;
mod walk;

use crate::abi::dirty::Query;
use crate::dirty::{Extent, Log, Range};

const PAGE: u64 = 4096;
/// Pages of a leaf of the log.
const LEAF: u64 = 32768;
/// Miri is slower by a factor of thousands: whoever takes its time has smaller numbers for it.
const MIRI: bool = cfg!(miri);
/// Pages of the address space.
const ALL: u64 = 1 << 52;

fn small<T: TryFrom<u64, Error: std::fmt::Debug>>(number: u64) -> T {
    T::try_from(number).expect("small")
}

/// `pages` pages from page `page` on.
fn pages(page: u64, pages: u64) -> Range {
    Range::touched(page * PAGE, pages * PAGE).expect("inside of the address space")
}

/// The query for pages of the log from `page` on in pages of 2^`fold` of them, cut at the end of the address space.
fn query(page: u64, pages: u64, fold: u32) -> Query {
    let start = page >> fold;
    let most = (ALL >> fold) - start;
    Query::new(start, PAGE << fold, pages.min(most)).expect("ends inside of the address space")
}

/// Reports, and gives the bits that are set; checks what is promised about the pieces of the bitmap.
fn report(log: &mut Log, query: &Query, covered: u64) -> Vec<u64> {
    let (mut bits, mut done) = (Vec::new(), 0);
    let set = log.report(query, covered, |at, bytes| {
        assert!(at >= done, "in order, nothing twice");
        assert!(at % 8 == 0 && bytes.len() % 8 == 0 && !bytes.is_empty(), "whole words");
        done = at + bytes.len();
        for (word, at) in bytes.as_chunks().0.iter().zip(at as u64 / 8..) {
            let mut word = u64::from_le_bytes(*word);
            while word != 0 {
                bits.push(at * 64 + u64::from(word.trailing_zeros()));
                word &= word - 1;
            }
        }
    });
    assert!(done as u64 <= covered.div_ceil(64) * 8, "no word past the end");
    assert_eq!(set, bits.len() as u64);
    bits
}

#[test]
fn the_whole_address_space_is_asked_for_by_what_is_dirty() {
    let mut log = Log::new();
    for page in [0, 1 << 20, ALL - 1] {
        log.mark(pages(page, 1));
    }
    // Walking the pages of this range would not end.
    let whole = query(0, ALL, 0);
    assert_eq!(log.extent(&whole), Extent::Part);
    assert_eq!(log.extent(&query(2, 1 << 19, 0)), Extent::Nothing);
    assert_eq!(report(&mut log, &whole, ALL), [0, 1 << 20, ALL - 1]);
    // In two pages of 2^63 bytes; and each half by itself.
    log.take_back();
    let halves = query(0, 2, 51);
    assert_eq!(log.extent(&halves), Extent::Everything);
    assert_eq!(report(&mut log, &halves, 2), [0, 1]);
    log.take_back();
    log.clear(&query(0, 1, 51));
    assert_eq!(log.extent(&halves), Extent::Part);
    assert_eq!(log.extent(&query(0, 1, 51)), Extent::Nothing);
    assert_eq!(report(&mut log, &halves, 2), [1]);
    log.forget();
    assert_eq!(log.extent(&whole), Extent::Nothing);
}

#[test]
fn a_transfer_of_nothing_or_past_the_end_touches_no_page() {
    assert!(Range::touched(0x1000, 0).is_none());
    assert!(Range::touched(u64::MAX, 2).is_none());
}

#[test]
fn what_goes_over_by_the_word_touches_nothing_that_went_over_as_it_was() {
    let mut log = Log::new();
    for page in [0, 2048] {
        log.mark(pages(page, 1));
    }
    // The first group lies in the answer whole, the last only by its first page.
    assert_eq!(report(&mut log, &query(0, 4096, 0), 2049), [0, 2048]);
}

#[test]
fn a_range_with_a_gap_is_never_everything() {
    let mut log = Log::new();
    // As many pages as the ranges have, but some of them elsewhere.
    for leaf in [1, 2, 3, 7] {
        log.mark(pages(leaf * LEAF, LEAF));
    }
    for fold in [0, 3, 15, 16] {
        for (first, leaves, extent) in [
            (0, 4, if fold == 16 { Extent::Everything } else { Extent::Part }),
            (2, 4, Extent::Part),
            (2, 2, Extent::Everything),
            (4, 2, Extent::Nothing),
        ] {
            let query = query(first * LEAF, (leaves * LEAF) >> fold, fold);
            assert_eq!(log.extent(&query), extent, "{leaves} leaves from {first}, fold {fold}");
        }
    }
    let whole = query(LEAF, 3 * LEAF, 0);
    assert_eq!(log.report(&whole, 2 * LEAF + 9, |_, _| ()), 2 * LEAF + 9);
    assert_eq!(log.extent(&whole), Extent::Part);
    log.take_back();
    assert_eq!(log.extent(&whole), Extent::Everything);
    log.clear(&query(2 * LEAF + 70, 1, 0));
    assert_eq!(log.extent(&whole), Extent::Part);
}
