// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Dirty pages: what the device wrote is reported once, whole, and in the page size that was asked for.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use cases::guest;
use cases::session::{PAGES, PATIENCE, Session};
use migrator::PAGE_BYTES;
use migrator::dirty::{Answer, PageSet};
use migscope_abi::dirty::Query;
use migscope_abi::region::Field;
use migscope_abi::rule::Rule;
use migscope_abi::state::State;

fn main() -> ExitCode {
    guest::run(&[
        ("nothing_written_is_answered_with_none", none),
        ("a_range_that_was_written_whole_is_answered_with_all", all),
        ("pages_in_between_are_answered_with_a_bitmap", bitmap),
        ("a_transfer_over_a_page_border_dirties_both_pages", over_a_border),
        ("what_was_reported_is_clean_until_it_is_written_again", reported_once),
        ("reading_memory_dirties_nothing", reading),
        ("a_query_of_a_part_leaves_the_rest_dirty", part),
        ("a_query_that_is_cut_off_before_its_bitmap_loses_nothing", cut_off),
        ("a_bitmap_that_is_read_in_part_loses_nothing", cut_off_in_the_bitmap),
        ("a_page_written_between_answer_and_bitmap_is_in_the_next_report", written_meanwhile),
        ("a_page_can_be_asked_for_in_larger_pages", larger_pages),
        ("a_huge_range_is_answered_quickly", huge),
        ("the_registers_of_a_query_keep_their_values", sticky),
        ("what_was_written_before_saving_is_not_logged", before_saving),
        ("a_transfer_under_way_when_saving_begins_is_logged", under_way_at_the_start),
        ("a_transfer_under_way_when_the_device_stops_is_in_the_last_report", under_way_at_the_stop),
        ("what_was_written_in_pre_copy_can_be_asked_for_after_the_stop", across_the_stop),
        ("the_log_ends_with_saving", ends_with_saving),
        ("a_page_size_is_a_power_of_two_from_4096_on", page_size),
        ("an_empty_range_is_refused", empty),
        ("a_range_past_the_last_address_is_refused", past_the_end),
        ("a_query_without_all_three_registers_is_refused", incomplete),
        ("a_refused_query_loses_nothing", refused_loses_nothing),
    ])
}

fn saving() -> Session {
    Session::first_in(State::PreCopy)
}

fn none() {
    let mut session = saving();
    let answer = session.region.ask_dirty(session.pfn(0), PAGE_BYTES, PAGES).expect("an answer");
    assert_eq!(answer, Answer::None);
}

fn all() {
    let mut session = saving();
    session.store(5, 1);
    let pfn = session.pfn(5);
    assert_eq!(session.region.ask_dirty(pfn, PAGE_BYTES, 1).expect("an answer"), Answer::All);
    assert_eq!(session.region.ask_dirty(pfn, PAGE_BYTES, 1).expect("an answer"), Answer::None);
}

fn bitmap() {
    let mut session = saving();
    for page in [3, 9, 63] {
        session.store(page, 16);
    }
    let answer = session.region.ask_dirty(session.pfn(0), PAGE_BYTES, PAGES).expect("an answer");
    assert_eq!(answer, Answer::Bitmap(PAGES));
    let mut set = PageSet::default();
    let first = session.pfn(0);
    session.region.read_bitmap(&mut set, first, PAGE_BYTES, PAGES).expect("the bitmap");
    assert_eq!(set.iter().map(|pfn| pfn - first).collect::<Vec<_>>(), [3, 9, 63]);
}

fn over_a_border() {
    let mut session = saving();
    let mut transfer = session.store_to(10, 4);
    transfer.memory += PAGE_BYTES - 2;
    session.device.edu().transfer(transfer, PATIENCE).expect("the device writes");
    assert_eq!(session.dirty(), [10, 11]);
}

fn reported_once() {
    let mut session = saving();
    session.store(4, 16);
    session.store(6, 16);
    assert_eq!(session.dirty(), [4, 6]);
    assert!(session.dirty().is_empty());
    session.store(4, 16);
    assert_eq!(session.dirty(), [4]);
}

fn reading() {
    let mut session = saving();
    let mut transfer = session.store_to(4, 64);
    transfer.to_memory = false;
    session.device.edu().transfer(transfer, PATIENCE).expect("the device reads");
    assert!(session.dirty().is_empty());
}

fn part() {
    let mut session = saving();
    for page in [2, 20] {
        session.store(page, 16);
    }
    let query = Query::new(session.pfn(0), PAGE_BYTES, 10).expect("a query");
    let set = session.region.dirty_pages(query).expect("an answer");
    assert_eq!(set, PageSet::from_iter([session.pfn(2)]));
    assert_eq!(session.dirty(), [20]);
}

fn cut_off() {
    let mut session = saving();
    for page in [1, 8] {
        session.store(page, 16);
    }
    for _ in 0..3 {
        let first = session.pfn(0);
        let answer = session.region.ask_dirty(first, PAGE_BYTES, PAGES).expect("an answer");
        assert_eq!(answer, Answer::Bitmap(PAGES));
    }
    // Not even when data_offset was read, or the device goes on to another state.
    session.get(Field::DataOffset).expect("data_offset");
    session.region.set_state(State::StopAndCopy).expect("the device stops");
    assert_eq!(session.dirty(), [1, 8]);
    assert!(session.dirty().is_empty());
}

fn cut_off_in_the_bitmap() {
    let mut session = saving();
    for page in [1, 60] {
        session.store(page, 16);
    }
    session.region.ask_dirty(session.pfn(0), PAGE_BYTES, PAGES).expect("an answer");
    let offset = session.get(Field::DataOffset).expect("data_offset");
    session.read(offset, 4).expect("half of the bitmap");
    assert_eq!(session.dirty(), [1, 60]);
}

fn written_meanwhile() {
    let mut session = saving();
    session.store(1, 16);
    session.store(30, 16);
    let first = session.pfn(0);
    session.region.ask_dirty(first, PAGE_BYTES, PAGES).expect("an answer");
    // One page that is in the bitmap, one that is not.
    session.store(30, 16);
    session.store(31, 16);
    let mut set = PageSet::default();
    session.region.read_bitmap(&mut set, first, PAGE_BYTES, PAGES).expect("the bitmap");
    assert!(set.contains(session.pfn(1)) && set.contains(session.pfn(30)));
    assert_eq!(session.dirty(), [30, 31]);
}

fn larger_pages() {
    for page_bytes in [8 << 10, 64 << 10] {
        let mut session = saving();
        let per_page = page_bytes / PAGE_BYTES;
        for page in [1, 17, 18] {
            session.store(page, 16);
        }
        let start = session.pfn(0) / per_page;
        let query = Query::new(start, page_bytes, PAGES / per_page).expect("a query");
        let set = session.region.dirty_pages(query).expect("an answer");
        let expected: PageSet =
            [1, 17, 18].map(|page| session.pfn(page) / per_page).into_iter().collect();
        assert_eq!(set, expected, "pages of {page_bytes}");
        assert!(session.dirty().is_empty(), "a report in large pages clears the small ones");
    }
}

fn huge() {
    const QUICK: Duration = Duration::from_secs(2);
    let mut session = saving();
    session.store(12, 16);
    let everything = Query::new(0, PAGE_BYTES, 1 << 52).expect("all addresses");
    let began = Instant::now();
    let set = session.region.dirty_pages(everything).expect("an answer");
    assert_eq!(set, PageSet::from_iter([session.pfn(12)]));
    assert!(began.elapsed() < QUICK, "{:?}", began.elapsed());
    // The last page that has an address.
    let last = Query::new((1 << 52) - 1, PAGE_BYTES, 1).expect("the last page");
    assert!(session.region.dirty_pages(last).expect("an answer").is_empty());
    // The largest page: all of memory in two.
    session.store(12, 16);
    let largest = Query::new(0, 1 << 63, 2).expect("two pages");
    let set = session.region.dirty_pages(largest).expect("an answer");
    assert_eq!(set, PageSet::from_iter([0]));
}

fn sticky() {
    let mut session = saving();
    session.store(7, 16);
    assert_eq!(session.dirty(), [7]);
    session.store(8, 16);
    // No register is written again.
    assert_eq!(session.get(Field::CopiedPfns).expect("an answer"), PAGES);
}

fn before_saving() {
    let mut session = Session::first();
    session.store(3, 16);
    session.bring_to(State::PreCopy);
    assert!(session.dirty().is_empty());
}

fn under_way_at_the_start() {
    let mut session = Session::first();
    let edu = session.device.edu();
    edu.start(session.store_to(9, 16)).expect("a transfer starts");
    session.bring_to(State::PreCopy);
    edu.wait_for_transfer(PATIENCE).expect("it ends");
    assert_eq!(session.dirty(), [9]);
}

fn under_way_at_the_stop() {
    let mut session = saving();
    let edu = session.device.edu();
    // The stamp in memory shows that the transfer was done, and not only dropped.
    let iova = session.pfn(9) * PAGE_BYTES;
    session.device.memory().write(iova, &[0xee; 16]).expect("memory");
    edu.start(session.store_to(9, 16)).expect("a transfer starts");
    session.region.set_state(State::StopAndCopy).expect("the device stops");
    assert!(!edu.is_transferring().expect("a register is read"));
    assert_eq!(session.dirty(), [9]);
    let mut written = [0xee; 16];
    session.device.memory().read(iova, &mut written).expect("memory");
    assert_eq!(written, [0; 16], "the buffer of a new device is zero");
}

fn across_the_stop() {
    let mut session = saving();
    session.store(2, 16);
    session.region.set_state(State::StopAndCopy).expect("the device stops");
    assert_eq!(session.dirty(), [2]);
}

fn ends_with_saving() {
    let mut session = saving();
    session.store(2, 16);
    session.region.set_state(State::Running).expect("a cancel");
    session.bring_to(State::PreCopy);
    assert!(session.dirty().is_empty());
}

fn ask(session: &Session, start: u64, page_bytes: u64, pages: u64) -> std::io::Result<u64> {
    session.put(Field::StartPfn, start)?;
    session.put(Field::PageSize, page_bytes)?;
    session.put(Field::TotalPfns, pages)?;
    session.get(Field::CopiedPfns)
}

fn page_size() {
    let session = saving();
    for page_bytes in [0, 1, 2048, 4095, 4097, 3 << 12, u64::MAX] {
        session.refuses(Rule::PageSize, &format!("{page_bytes}"), |session| {
            ask(session, 0, page_bytes, 1)
        });
    }
    assert_eq!(ask(&session, 0, 4096, 1).expect("the smallest"), 0);
    assert_eq!(ask(&session, 0, 1 << 63, 1).expect("the largest"), 0);
}

fn empty() {
    let session = saving();
    session.refuses(Rule::EmptyRange, "no pages", |session| ask(session, 0, 4096, 0));
}

fn past_the_end() {
    let session = saving();
    for (start, page_bytes, pages) in [
        (1 << 52, 4096, 1),
        ((1 << 52) - 1, 4096, 2),
        (0, 4096, (1 << 52) + 1),
        (u64::MAX, 4096, 1),
        (u64::MAX, 4096, u64::MAX),
        (1, 1 << 63, 2),
    ] {
        session.refuses(Rule::RangeOverflow, &format!("{start:#x} + {pages:#x}"), |session| {
            ask(session, start, page_bytes, pages)
        });
    }
}

fn incomplete() {
    let registers = [(Field::StartPfn, 0), (Field::PageSize, 4096), (Field::TotalPfns, 1)];
    for left_out in 0..registers.len() {
        let session = saving();
        for (at, (field, value)) in registers.into_iter().enumerate() {
            if at != left_out {
                session.put(field, value).expect("a register is written");
            }
        }
        session.refuses(Rule::QueryIncomplete, "copied_pfns", |session| {
            session.get(Field::CopiedPfns)
        });
        let (field, value) = registers[left_out];
        session.put(field, value).expect("a register is written");
        assert_eq!(session.get(Field::CopiedPfns).expect("now it is complete"), 0);
    }
}

fn refused_loses_nothing() {
    let mut session = saving();
    session.store(11, 16);
    session.refuses(Rule::PageSize, "a bad page size", |session| ask(session, 0, 1000, PAGES));
    assert_eq!(session.dirty(), [11]);
}
