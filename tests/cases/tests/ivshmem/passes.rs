// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What each pass sends, to the page.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use cases::child::{Child, End, Rounds};
use cases::guest::Case;
use cases::ivshmem::{Ivshmem, minor_faults};
use cases::records::{HEAD_BYTES, RUN_BYTES};
use cases::session::PATIENCE;
use migscope_abi::state::State;
use workload::content::{Content, Ground, PAGE, Write};
use workload::ivshmem::Words;
use workload::mapping::Mapping;
use workload::pattern::{Load, Pattern, Step, Strokes};

use crate::SMALL;

pub(crate) const CASES: &[Case] = &[
    ("a_pass_sends_what_was_written_through_a_mapping", through_a_mapping),
    ("a_pass_sends_what_was_written_by_system_calls", by_calls),
    ("a_system_call_that_touches_several_pages_is_seen_on_each", long_calls),
    ("reading_is_not_writing", reading),
    ("a_write_during_a_pass_is_sent_after_it", during_a_pass),
    ("pending_bytes_is_honest_at_every_step", honest),
    ("a_mapping_is_seen_whenever_it_was_made", made_at_any_time),
    ("a_mapping_is_seen_wherever_it_is_moved", moved),
    ("a_part_of_a_mapping_can_go", partly_unmapped),
    ("a_process_that_was_forked_is_seen", forked),
    ("the_second_write_to_a_page_costs_nothing_until_the_next_pass", full_speed),
    ("no_old_mapping_is_left_when_the_state_write_is_back", armed_at_once),
    ("a_cancel_in_pre_copy_leaves_the_memory_and_no_tracking", || cancelled(State::PreCopy)),
    ("a_cancel_in_stop_and_copy_leaves_the_memory_and_no_tracking", || {
        cancelled(State::StopAndCopy)
    }),
];

/// A device with noise in it, in pre-copy, and a destination that has taken in the first pass.
struct Pair {
    from: Ivshmem,
    to: Ivshmem,
    content: Content,
}

impl Pair {
    fn new() -> Self {
        let (from, mut to) = (Ivshmem::open(SMALL, 0), Ivshmem::open(SMALL, 1));
        let content = from.fill(Ground::Noise { seed: 11 });
        to.resume();
        Self { from, to, content }
    }

    fn in_pre_copy() -> Self {
        let mut pair = Self::new();
        pair.from.session.bring_to(State::PreCopy);
        pair.pass("the first pass", 0..pair.from.pages());
        pair
    }

    /// Asserts that the next pass sends these pages, and hands them over.
    fn pass(&mut self, what: &str, expected: impl IntoIterator<Item = u64>) {
        let saved = self.from.drain();
        saved.assert_pages(what, expected);
        self.to.take(&saved);
    }

    /// Writes a word to each of these pages.
    fn write(&mut self, memory: &impl Words, pages: impl IntoIterator<Item = u64>, word: u64) {
        for page in pages {
            let write = Write { page, slot: (page + word) % 512, word };
            memory.write(write).expect("a device that runs takes writes");
            self.content.apply(write);
        }
    }

    /// Stops the device, and asserts that these pages were still to be sent and that both ends hold what was written.
    fn finish(mut self, expected: impl IntoIterator<Item = u64>) {
        let saved = self.from.stop_and_drain();
        saved.assert_pages("the last pass", expected);
        self.to.take(&saved);
        self.to.commit();
        self.from.assert_holds("the source", &self.content);
        self.to.assert_holds("the destination", &self.content);
    }
}

/// Three passes of random writes, each of other pages.
fn random_passes(memory: impl FnOnce(&Ivshmem) -> Box<dyn Words>) {
    let mut pair = Pair::in_pre_copy();
    let memory = memory(&pair.from);
    let range = 0..pair.from.pages();
    let mut strokes =
        Strokes::new(Load { pattern: Pattern::Uniform, range, per_second: 0, seed: 21 });
    let mut write_some = |pair: &mut Pair, count| {
        let mut pages = BTreeSet::new();
        for _ in 0..count {
            let Step::Write(write) = strokes.step() else { panic!("no pauses were asked for") };
            memory.write(write).expect("a device that runs takes writes");
            pair.content.apply(write);
            pages.insert(write.page);
        }
        pages
    };
    for count in [1, 300, 2000] {
        let pages = write_some(&mut pair, count);
        pair.pass(&format!("a pass after {count} writes"), pages);
        pair.pass("a pass after none", []);
    }
    let pages = write_some(&mut pair, 100);
    pair.finish(pages);
}

fn through_a_mapping() {
    random_passes(|device| Box::new(device.map()));
}

fn by_calls() {
    random_passes(|device| Box::new(device.calls()));
}

fn long_calls() {
    let mut pair = Pair::in_pre_copy();
    let page = PAGE as u64;
    let cases: [(u64, usize, Range<u64>); 5] = [
        (5 * page - 1, 1, 4..5),
        (7 * page - 1, 2, 6..8),
        (10 * page, 3 * PAGE, 10..13),
        (20 * page + 8, 2 * PAGE, 20..23),
        (pair.from.bytes() - 4, 4, pair.from.pages() - 1..pair.from.pages()),
    ];
    for (at, bytes, pages) in cases {
        pair.from.write(at, &vec![0x77; bytes]).expect("a device that runs takes writes");
        pair.pass(&format!("{bytes} bytes at {at}"), pages);
    }
    let saved = pair.from.stop_and_drain();
    saved.assert_pages("nothing is left", []);
    pair.to.take(&saved);
    pair.to.commit();
    let (one, other) = (pair.from.map(), pair.to.map());
    let (mut here, mut there) = (vec![0; 32 * PAGE], vec![0; 32 * PAGE]);
    one.read(0, &mut here);
    other.read(0, &mut there);
    assert!(here == there, "the ends differ");
    assert!(here[20 * PAGE + 8..22 * PAGE + 8].iter().all(|byte| *byte == 0x77));
}

fn reading() {
    let mut pair = Pair::in_pre_copy();
    let mapping = pair.from.map();
    let mut sum = 0_u64;
    for at in (0..mapping.bytes()).step_by(PAGE) {
        sum = sum.wrapping_add(mapping.load(at));
    }
    assert_ne!(sum, 0, "it was read");
    let mut bytes = [0; 64];
    for at in (0..pair.from.bytes()).step_by(1 << 20) {
        pair.from.read(at, &mut bytes).expect("a read");
    }
    pair.pass("after reads", []);
    // A page that is mapped for reading is written.
    pair.write(&mapping, [40, 41], 1);
    pair.pass("after two writes", [40, 41]);
    pair.finish([]);
}

fn during_a_pass() {
    let mut pair = Pair::new();
    let mapping = pair.from.map();
    let all = pair.from.pages();
    pair.from.session.bring_to(State::PreCopy);
    let mut sent = Vec::new();
    while sent.len() < 64 {
        let buffer = pair.from.step();
        sent.extend(buffer.runs().into_iter().flat_map(|run| run.first..run.first + run.pages));
        pair.to.session.region.load_buffer(&buffer.bytes).expect("a good buffer");
    }
    // The last buffer was read, but it ends only when what is pending is asked for.
    let (early, staged, late) = (sent[0], sent[sent.len() - 1], all - 1);
    pair.write(&mapping, [early, staged, late], 3);
    let rest = pair.from.drain();
    let pages = rest.pages();
    let left: Vec<u64> = (0..all).filter(|page| !sent.contains(page)).collect();
    assert_eq!(pages[..left.len()], left, "the rest of the first pass");
    assert_eq!(pages[left.len()..], [early, staged, late], "the second pass");
    pair.to.take(&rest);
    pair.finish([]);
}

/// Two properties of `pending_bytes`: it is 0 only when nothing is left to be sent in stop-and-copy, and it is never less
/// than what will still be sent if nothing more is written.
fn honest() {
    let mut device = Ivshmem::open(SMALL, 0);
    let pages = device.pages();
    let running = device.session.region.pending_bytes().expect("it can be asked");
    assert_eq!(running, 0, "nothing is saved, so nothing is pending");
    device.fill(Ground::Noise { seed: 4 });
    // All at once.
    let last = device.stop_and_drain();
    assert!(last.buffers[0].pending >= SMALL);
    device.cancel();
    // In passes.
    device.session.bring_to(State::PreCopy);
    let first = device.drain();
    let mapping = device.map();
    let touch = |range: Range<u64>| {
        for page in range {
            mapping.store(usize::try_from(page).expect("fits") * PAGE, page << 8);
        }
    };
    touch(10..60);
    let second = device.drain();
    second.assert_pages("fifty pages", 10..60);
    assert!(second.buffers[0].pending >= 50 * PAGE as u64);
    let quiet = device.drain();
    assert!(quiet.buffers.is_empty() && quiet.pending > 0, "the end is still to come");
    assert!(quiet.pending < 4096, "{} bytes for registers and an end", quiet.pending);
    touch(100..110);
    let before_stop = device.session.region.pending_bytes().expect("it can be asked");
    let last = device.stop_and_drain();
    last.assert_pages("ten pages", 100..110);
    assert!(before_stop >= last.bytes(), "{before_stop} bytes pending, {} came", last.bytes());
    // Had nothing been written after each, then of what came last all but the ten pages would have come.
    let ten_pages = HEAD_BYTES + RUN_BYTES + 10 * PAGE;
    let end = last.bytes() - u64::try_from(ten_pages).expect("fits");
    first.assert_pending(end, pages);
    second.assert_pending(end, pages);
    quiet.assert_pending(end, pages);
}

fn made_at_any_time() {
    let mut pair = Pair::new();
    let before = pair.from.map();
    // Its pages are mapped for writing when the state changes.
    pair.write(&before, 0..8, 1);
    pair.from.session.bring_to(State::PreCopy);
    let after = pair.from.map();
    pair.pass("the first pass", 0..pair.from.pages());
    let between = pair.from.map();
    pair.write(&before, [1], 2);
    pair.write(&after, [2], 2);
    pair.write(&between, [3], 2);
    // Each of them has a page that another one wrote.
    pair.pass("one page each", 1..4);
    pair.write(&before, [2], 3);
    pair.write(&after, [3], 3);
    pair.write(&between, [1], 3);
    pair.pass("the same pages through others", 1..4);
    drop(after);
    pair.write(&before, [2], 4);
    pair.finish([2]);
}

/// The mapping alone, which can be moved.
fn own(mapping: Arc<Mapping>) -> Mapping {
    Arc::try_unwrap(mapping).expect("nobody else has it")
}

fn moved() {
    let mut pair = Pair::new();
    let mapping = pair.from.map();
    pair.write(&mapping, 0..16, 1);
    let mapping = Arc::new(own(mapping).moved().expect("it is moved"));
    pair.write(&mapping, 0..8, 2);
    pair.from.session.bring_to(State::PreCopy);
    pair.pass("the first pass", 0..pair.from.pages());
    pair.write(&mapping, 4..12, 3);
    // Moved with pages that are mapped for writing and pages that are not.
    let mapping = Arc::new(own(mapping).moved().expect("it is moved"));
    pair.pass("what was written before the move", 4..12);
    pair.write(&mapping, 6..20, 4);
    pair.pass("what was written after it", 6..20);
    pair.finish([]);
}

fn partly_unmapped() {
    let mut pair = Pair::in_pre_copy();
    let mapping = pair.from.map();
    pair.write(&mapping, [3, 1000, 4000], 1);
    let mapping = Arc::new(own(mapping).truncated(512 * PAGE).expect("its end is unmapped"));
    pair.pass("what was written is not forgotten", [3, 1000, 4000]);
    pair.write(&mapping, [3, 511], 2);
    drop(mapping);
    pair.pass("nor when the whole mapping goes", [3, 511]);
    let mapping = pair.from.map();
    pair.write(&mapping, [511, 512], 3);
    pair.finish([511, 512]);
}

fn forked() {
    let mut pair = Pair::new();
    let mapping = pair.from.map();
    let pages = [0, 1, 63, 64, 2000, pair.from.pages() - 1];
    let writes = pages.map(|page| Write { page, slot: 8, word: 1 << 32 });
    let progress = Mapping::anonymous(PAGE).expect("memory");
    let child =
        Child::writing(&mapping, &writes, Rounds::Endless, &progress).expect("a child starts");
    let two_rounds = || {
        let target = progress.load(0) + 2 * u64::try_from(writes.len()).expect("fits");
        let deadline = Instant::now() + PATIENCE;
        while progress.load(0) < target {
            assert!(Instant::now() < deadline, "the child does not write");
            std::thread::yield_now();
        }
    };
    two_rounds();
    // The child has pages mapped for writing that the parent never touched.
    pair.from.session.bring_to(State::PreCopy);
    let first = pair.from.round();
    pair.to.take(&first);
    for _ in 0..3 {
        two_rounds();
        let saved = pair.from.round();
        let sent: BTreeSet<u64> = saved.pages().into_iter().collect();
        assert_eq!(sent, pages.into(), "what the child writes");
        pair.to.take(&saved);
    }
    assert_eq!(child.kill().expect("the child ends"), End::Killed);
    for write in writes {
        let at = usize::try_from(write.at()).expect("fits");
        pair.content.apply(Write { word: mapping.load(at), ..write });
    }
    let saved = pair.from.drain();
    assert!(saved.pages().iter().all(|page| pages.contains(page)), "{:?}", saved.pages());
    pair.to.take(&saved);
    pair.finish([]);
}

/// Pages that the tests of speed write.
const SOME: u64 = 1000;
/// Faults that have nothing to do with them.
const STRAY: u64 = 20;

/// The faults of writing some pages.
fn faults_of_writing(mapping: &Mapping, word: u64) -> u64 {
    let before = minor_faults();
    for page in 0..SOME {
        mapping.store(usize::try_from(page).expect("fits") * PAGE, word);
    }
    minor_faults() - before
}

fn full_speed() {
    let mut pair = Pair::in_pre_copy();
    let mapping = pair.from.map();
    for pass in 0..2 {
        let first = faults_of_writing(&mapping, 1);
        assert!((SOME..SOME + STRAY).contains(&first), "pass {pass}: {first} faults");
        let again = faults_of_writing(&mapping, 2);
        assert!(again < STRAY, "pass {pass}: {again} faults for pages that are dirty already");
        pair.pass("the pages", 0..SOME);
    }
}

/// Nothing is saved yet: the state write alone has taken the mappings away.
fn armed_at_once() {
    let mut pair = Pair::new();
    let mapping = pair.from.map();
    let _mapped = faults_of_writing(&mapping, 1);
    let running = faults_of_writing(&mapping, 2);
    assert!(running < STRAY, "{running} faults in a device that is not saved");
    pair.from.session.bring_to(State::PreCopy);
    let first = faults_of_writing(&mapping, 3);
    assert!((SOME..SOME + STRAY).contains(&first), "{first} faults of {SOME} pages");
    for page in 0..SOME {
        pair.content.apply(Write { page, slot: 0, word: 3 });
    }
    pair.pass("the first pass", 0..pair.from.pages());
    pair.finish([]);
}

fn cancelled(state: State) {
    let mut pair = Pair::in_pre_copy();
    let mapping = pair.from.map();
    pair.write(&mapping, 0..SOME, 1);
    pair.from.step();
    pair.from.session.bring_to(state);
    pair.from.step();
    pair.from.cancel();
    pair.from.assert_holds("after the cancel", &pair.content);
    let _mapped_again = faults_of_writing(&mapping, 2);
    let again = faults_of_writing(&mapping, 3);
    assert!(again < STRAY, "{again} faults in a device that is not saved");
    for page in 0..SOME {
        pair.content.apply(Write { page, slot: 0, word: 3 });
    }
    // What is read first can be written without another fault: nothing watches.
    let fresh = pair.from.map();
    for page in 0..SOME {
        fresh.load(usize::try_from(page).expect("fits") * PAGE);
    }
    let written = faults_of_writing(&fresh, 3);
    assert!(written < STRAY, "{written} faults for pages that were read");
    // It can be migrated later, from the start.
    pair.to.session.region.set_state(State::Stopped).expect("the image is dropped");
    pair.to.resume();
    pair.from.session.bring_to(State::PreCopy);
    pair.pass("a first pass again", 0..pair.from.pages());
    pair.write(&mapping, [77], 4);
    pair.finish([77]);
}
