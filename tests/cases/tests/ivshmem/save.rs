// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whole memories, saved and loaded.

use std::time::Instant;

use cases::guest::{Case, measured};
use cases::ivshmem::{Ivshmem, Saved};
use cases::records::Run;
use migscope_abi::state::State;
use workload::content::{Content, Ground, PAGE, Write};
use workload::edu::Registers as _;
use workload::ivshmem::{DOORBELL, MASK, POSITION, STATUS};

use crate::{HUGE, LARGE, SMALL};

pub(crate) const CASES: &[Case] = &[
    ("a_memory_of_16_mib_travels_whole", || whole(SMALL)),
    ("a_memory_of_64_mib_travels_whole", || whole(LARGE)),
    ("a_memory_of_1_gib_travels_with_what_is_in_it", gibibyte),
    ("the_registers_travel_and_saving_leaves_them_as_they_were", registers),
    ("a_memory_that_nobody_used_is_a_few_hundred_bytes", untouched),
    ("a_run_of_equal_words_is_sent_short", runs),
    ("pages_between_runs_are_sent_as_they_are", mixed),
];

/// More than an image needs that has no page in it.
const SHORT: u64 = 512;

fn whole(bytes: u64) {
    let (mut from, mut to) = (Ivshmem::open(bytes, 0), Ivshmem::open(bytes, 1));
    let content = from.fill(Ground::Noise { seed: bytes });
    let began = Instant::now();
    let saved = from.stop_and_drain();
    let took = began.elapsed();
    saved.assert_pages("all of it", 0..from.pages());
    assert!(saved.bytes() >= bytes, "noise cannot be sent short");
    to.resume();
    to.take(&saved);
    to.commit();
    to.assert_holds("the destination", &content);
    from.cancel();
    from.assert_holds("the source", &content);
    measured(&format!("ivshmem_save_{}_mib", bytes >> 20), took.as_millis(), "ms");
}

/// In a memory of a gibibyte that is mostly one word and zeros, as memories are.
fn gibibyte() {
    let (mut from, mut to) = (Ivshmem::open(HUGE, 0), Ivshmem::open(HUGE, 1));
    let mut content = Content::new(Ground::Fill(0), from.pages());
    let mapping = from.map();
    let write = |content: &mut Content, page, word| {
        let write = Write { page, slot: page % 512, word };
        mapping.store(usize::try_from(write.at()).expect("fits"), word);
        content.apply(write);
    };
    for page in (0..from.pages()).step_by(97).chain([from.pages() - 1]) {
        write(&mut content, page, page + 1);
    }
    let began = Instant::now();
    from.session.bring_to(State::PreCopy);
    to.resume();
    let first = from.drain();
    first.assert_pages("all of it", 0..from.pages());
    assert!(first.bytes() < HUGE / 32, "{} bytes for one page in 97", first.bytes());
    to.take(&first);
    for page in 1000..1100 {
        write(&mut content, page, page << 32);
    }
    let last = from.stop_and_drain();
    last.assert_pages("what was written since", 1000..1100);
    to.take(&last);
    to.commit();
    measured("ivshmem_migrate_1_gib", began.elapsed().as_millis(), "ms");
    to.assert_holds("the destination", &content);
}

fn registers() {
    let (mut from, mut to) = (Ivshmem::open(SMALL, 0), Ivshmem::open(SMALL, 1));
    let put = |device: &Ivshmem, at, value: u32| {
        device.registers().write(at, &value.to_le_bytes()).expect("a register");
    };
    put(&from, MASK, 0x8000_0001);
    put(&from, STATUS, 0x1234_5678);
    put(&from, DOORBELL, 3);
    put(&to, MASK, 7);
    let saved = from.stop_and_drain();
    to.resume();
    to.take(&saved);
    to.commit();
    from.cancel();
    for (what, device) in [("source", &from), ("destination", &to)] {
        assert_eq!(device.register(MASK), 0x8000_0001, "{what}");
        assert_eq!(device.register(STATUS), 0x1234_5678, "{what}");
        assert_eq!(device.register(STATUS), 0, "{what}: reading the status clears it");
        assert_eq!(device.register(POSITION), 0, "{what}");
    }
}

/// Saves a device, checks what was sent, and loads it into another.
fn sent_as(from: &mut Ivshmem, content: &Content, expected: &[Run]) -> Saved {
    let saved = from.stop_and_drain();
    saved.assert_pages("all of it", 0..from.pages());
    let runs: Vec<Run> = saved.buffers.iter().flat_map(|buffer| buffer.runs()).collect();
    assert_eq!(runs, expected);
    let mut to = Ivshmem::open(from.bytes(), 1);
    to.resume();
    to.take(&saved);
    to.commit();
    to.assert_holds("the destination", content);
    saved
}

fn untouched() {
    for bytes in [SMALL, LARGE, HUGE] {
        let mut from = Ivshmem::open(bytes, 0);
        let content = Content::new(Ground::Fill(0), from.pages());
        let all = Run { first: 0, pages: from.pages(), fill: Some(0) };
        let saved = sent_as(&mut from, &content, &[all]);
        assert!(saved.bytes() < SHORT, "{} bytes for nothing", saved.bytes());
    }
}

fn runs() {
    let mut from = Ivshmem::open(SMALL, 0);
    let word = 0x5a5a_a5a5_0000_ffff;
    let content = from.fill(Ground::Fill(word));
    let all = Run { first: 0, pages: from.pages(), fill: Some(word) };
    let saved = sent_as(&mut from, &content, &[all]);
    assert!(saved.bytes() < SHORT, "{} bytes for one word", saved.bytes());
}

fn mixed() {
    let mut from = Ivshmem::open(SMALL, 0);
    let mut content = from.fill(Ground::Fill(1));
    let last = from.pages() - 1;
    let mapping = from.map();
    // The last word of one page, the first of the next two, and pages of another word each at both ends.
    let single = [(100, 511), (101, 0), (102, 0)];
    let filled = [(0, 5), (last, 6)];
    let single = single.map(|(page, slot)| Write { page, slot, word: 9 });
    let filled = filled.map(|(page, word)| (0..512).map(move |slot| Write { page, slot, word }));
    for write in single.into_iter().chain(filled.into_iter().flatten()) {
        mapping.store(usize::try_from(write.at()).expect("fits"), write.word);
        content.apply(write);
    }
    let run = |first, pages, fill| Run { first, pages, fill };
    let expected = [
        run(0, 1, Some(5)),
        run(1, 99, Some(1)),
        run(100, 3, None),
        run(103, last - 103, Some(1)),
        run(last, 1, Some(6)),
    ];
    let saved = sent_as(&mut from, &content, &expected);
    let pages = 3 * u64::try_from(PAGE).expect("fits");
    assert!(saved.bytes() < pages + SHORT, "{} bytes for three pages", saved.bytes());
}
