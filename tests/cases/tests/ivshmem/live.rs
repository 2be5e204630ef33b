// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Live migrations: under each kind of workload, to an end or not, and with somebody who writes while the state changes.

use std::ops::Range;
use std::time::{Duration, Instant};

use cases::child::{Child, End, Rounds};
use cases::guest::{Case, measured};
use cases::ivshmem::{Ivshmem, Saved};
use cases::session::PATIENCE;
use migscope_abi::state::State;
use workload::Writer;
use workload::content::{Content, Ground, PAGE, Write};
use workload::mapping::Mapping;
use workload::pattern::{Load, Pattern, Strokes};

use crate::{LARGE, SMALL};

pub(crate) const CASES: &[Case] = &[
    ("a_device_migrates_under_uniform_writes", || under(SMALL, Pattern::Uniform, Way::Mapping)),
    ("a_device_migrates_under_a_hot_set", || under(SMALL, HOT, Way::Mapping)),
    ("a_device_migrates_under_sequential_writes", || {
        under(SMALL, Pattern::Sequential, Way::Mapping);
    }),
    ("a_device_migrates_under_bursts", || under(SMALL, BURSTS, Way::Mapping)),
    ("a_device_migrates_under_system_calls", || under(SMALL, Pattern::Uniform, Way::Calls)),
    ("a_device_of_64_mib_migrates_under_a_hot_set", || under(LARGE, HOT, Way::Mapping)),
    ("a_device_migrates_under_two_writers", two_writers),
    ("a_slow_writer_converges", slow),
    ("a_fast_writer_does_not_converge_until_it_is_stopped", fast),
    ("no_write_is_lost_when_pre_copy_begins", pre_copy_begins),
    ("no_write_is_lost_when_pre_copy_ends", || stops(State::PreCopy)),
    ("no_write_is_lost_when_a_running_device_stops", || stops(State::Running)),
];

const HOT: Pattern = Pattern::HotSet { pages: 100 };
const BURSTS: Pattern = Pattern::Bursts { pages: 64, pause: Duration::from_millis(20) };

/// How the workload reaches the memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Mapping,
    Calls,
}

fn start(device: &Ivshmem, load: Load, way: Way, content: Content) -> Writer {
    let strokes = Strokes::new(load);
    match way {
        Way::Mapping => Writer::spawn(device.map(), strokes, content),
        Way::Calls => Writer::spawn(device.calls(), strokes, content),
    }
}

/// Stops the writers, as a VMM stops the processors first, and gives what the memory holds then.
fn pause(writers: Vec<Writer>) -> Content {
    let mut contents = writers.into_iter().map(|writer| {
        let rest = writer.pause().expect("a device that runs takes writes");
        assert!(rest.writes > 0, "nothing was written, so nothing is proved");
        rest.content
    });
    let mut content = contents.next().expect("a writer");
    contents.for_each(|other| content.absorb(other));
    content
}

/// Rounds of pre-copy in a migration.
const ROUNDS: usize = 4;
/// Between two of them; longer than any workload here pauses.
const INTERVAL: Duration = Duration::from_millis(60);

/// Migrates a device while these loads are on it.
fn migrate(bytes: u64, loads: &[Load], way: Way) {
    let (mut from, mut to) = (Ivshmem::open(bytes, 0), Ivshmem::open(bytes, 1));
    let content = from.fill(Ground::Noise { seed: 17 });
    let writers: Vec<Writer> =
        loads.iter().map(|load| start(&from, load.clone(), way, content.clone())).collect();
    from.session.bring_to(State::PreCopy);
    to.resume();
    let first = from.round();
    assert!(first.bytes() >= bytes, "the first pass is all of the memory");
    to.take(&first);
    for _ in 1..ROUNDS {
        std::thread::sleep(INTERVAL);
        let saved = from.round();
        assert!(!saved.pages().is_empty(), "the workload writes, and nothing was seen");
        to.take(&saved);
    }
    let content = pause(writers);
    let began = Instant::now();
    let last = from.stop_and_drain();
    to.take(&last);
    to.commit();
    measured("ivshmem_downtime", began.elapsed().as_millis(), "ms");
    from.assert_holds("the source", &content);
    to.assert_holds("the destination", &content);
}

fn load(pattern: Pattern, range: Range<u64>, per_second: u32, seed: u64) -> Load {
    Load { pattern, range, per_second, seed }
}

fn under(bytes: u64, pattern: Pattern, way: Way) {
    migrate(bytes, &[load(pattern, 0..bytes / PAGE as u64, 5000, 1)], way);
}

fn two_writers() {
    let pages = SMALL / PAGE as u64;
    let loads = [
        load(Pattern::Uniform, 0..pages / 2, 0, 1),
        load(Pattern::Sequential, pages / 2..pages, 2000, 2),
    ];
    migrate(SMALL, &loads, Way::Mapping);
}

/// Rounds of pre-copy within which a slow writer must have converged.
const PASSES: usize = 8;
/// What is pending then, in pages.
const FEW_PAGES: u64 = 64;
/// How long what a pass brings takes on its way to the other host. Without it, whether a writer is fast would be a matter of how
/// fast this machine is.
const LINK: Duration = Duration::from_millis(50);

/// What is pending when each round of pre-copy has reached the other host, in pages at their full price.
fn pending_by_round(device: &mut Ivshmem, load: Load) -> (Vec<u64>, Content) {
    let content = Content::new(Ground::Fill(0), device.pages());
    let writer = start(device, load, Way::Mapping, content);
    device.session.bring_to(State::PreCopy);
    let round = |_| {
        device.round();
        std::thread::sleep(LINK);
        device.session.region.pending_bytes().expect("it can be asked") / PAGE as u64
    };
    let pending = (0..PASSES).map(round).collect();
    (pending, pause(vec![writer]))
}

fn slow() {
    let mut from = Ivshmem::open(SMALL, 0);
    let pages = from.pages();
    let (pending, content) = pending_by_round(&mut from, load(Pattern::Uniform, 0..pages, 20, 5));
    assert!(pending.iter().any(|pages| *pages < FEW_PAGES), "it did not converge: {pending:?}");
    let last = from.stop_and_drain();
    assert!(last.bytes() < FEW_PAGES * PAGE as u64, "{} bytes while stopped", last.bytes());
    from.assert_holds("the source", &content);
}

fn fast() {
    let mut from = Ivshmem::open(SMALL, 0);
    let pages = from.pages();
    let (pending, content) = pending_by_round(&mut from, load(Pattern::Uniform, 0..pages, 0, 5));
    let least = pending.iter().min().expect("rounds");
    assert!(*least > 4 * FEW_PAGES, "it seems to converge: {pending:?}");
    // A stopped processor writes nothing, so the rest comes to an end.
    let quiet = from.drain();
    assert!(!quiet.pages().is_empty());
    let last = from.stop_and_drain();
    last.assert_pages("all was sent before", []);
    from.assert_holds("the source", &content);
}

/// The writer goes round and round over a few pages, which are the first to be sent, as fast as it can, and is paused at some
/// moment after the state change: whatever it wrote after that must be sent, though its pages were mapped for writing.
fn pre_copy_begins() {
    for round in 0..20 {
        let (mut from, mut to) = (Ivshmem::open(SMALL, 0), Ivshmem::open(SMALL, 1));
        let content = Content::new(Ground::Fill(0), from.pages());
        to.resume();
        let spread = load(Pattern::Sequential, 0..[8, 512][round % 2], 0, 6);
        let writer = start(&from, spread, Way::Mapping, content);
        wait_for("the writer", || writer.writes() > 10_000);
        from.session.bring_to(State::PreCopy);
        for _ in 0..round {
            let buffer = from.step();
            if !buffer.bytes.is_empty() {
                to.session.region.load_buffer(&buffer.bytes).expect("a good buffer");
            }
        }
        let content = pause(vec![writer]);
        let rest = from.drain();
        to.take(&rest);
        let last = from.stop_and_drain();
        last.assert_pages("nobody writes any more", []);
        to.take(&last);
        to.commit();
        from.assert_holds(&format!("the source in round {round}"), &content);
        to.assert_holds(&format!("the destination in round {round}"), &content);
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "still waiting for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A processor that nobody pauses writes until the device stops, and dies of it. Every write that it has made is in the memory
/// from the moment on that the state write is back, and travels.
fn stops(state: State) {
    for round in 0..6 {
        let (mut from, mut to) = (Ivshmem::open(SMALL, 0), Ivshmem::open(SMALL, 1));
        let writes: Vec<Write> = (0..[3, 300][round % 2])
            .map(|page| Write { page, slot: page % 512, word: 1 })
            .collect();
        let progress = Mapping::anonymous(PAGE).expect("memory");
        let mapping = from.map();
        to.resume();
        from.session.bring_to(state);
        if state == State::PreCopy {
            let first = from.drain();
            first.assert_pages("the first pass", 0..from.pages());
            to.take(&first);
        }
        let child =
            Child::writing(&mapping, &writes, Rounds::Endless, &progress).expect("a child starts");
        wait_for("the child", || progress.load(0) > 2000);
        from.session.region.set_state(State::StopAndCopy).expect("the device stops");
        let memory = || -> Vec<u64> {
            writes
                .iter()
                .map(|write| mapping.load(usize::try_from(write.at()).expect("fits")))
                .collect()
        };
        let at_once = memory();
        assert_eq!(child.wait().expect("the child ends"), End::BusError);
        assert_eq!(memory(), at_once, "round {round}: it wrote on after the state write was back");
        let made = usize::try_from(progress.load(0)).expect("fits");
        let expected: Vec<u64> = (0..writes.len())
            .map(|at| {
                // Words are 1 and the number of the round: the writes before `at` in the last round have come once more.
                let rounds = made / writes.len() + usize::from(at < made % writes.len());
                u64::try_from(rounds).expect("fits")
            })
            .collect();
        assert_eq!(at_once, expected, "round {round}: what the child wrote is in the memory");
        let last = from.drain();
        to.take(&last);
        to.commit();
        let there = to.map();
        for (write, expected) in writes.iter().zip(expected) {
            let at = usize::try_from(write.at()).expect("fits");
            assert_eq!(there.load(at), expected, "round {round}: page {}", write.page);
        }
        check_rest(&last, &from);
    }
}

/// What is pending in stop-and-copy is what comes.
fn check_rest(last: &Saved, from: &Ivshmem) {
    last.assert_pending(0, from.pages());
}
