// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Records of the ring and readings of the maps, taken in as the sampler does it, to what is shown. The input is a
//! [script](crate::script).
//!
//! Held against it:
//!
//! - each record that was fed was understood, or is counted as one that was not; each change of state is counted once
//! - Prometheus would take both expositions
//! - what is recorded of it and played again tells the same, to the last figure: a recording is the feed

use crate::{
    Seed, exposition,
    script::{Script, Step, Turn, steps},
};
use migscope::device_key::DeviceKey;
use migscope::{
    event::Event,
    feed::{Input, Nobody, Tap},
    metrics::{Format, Metrics},
    observer::Observer,
    probes::ring::Batch,
    record::{Header, Reader, Stream},
    sample::Losses,
    snapshot::Snapshot,
};
use migscope_abi::{
    ring::{DeviceSums, Stay},
    state::{Cause, State},
    trace,
    watch::conduct::Conduct,
};
use prometheus::Registry;
use std::sync::{Arc, Mutex, PoisonError};

/// When seeds begin, `CLOCK_MONOTONIC` in nanoseconds.
const ZERO_NS: u64 = 100_000_000_000;
const MS: u64 = 1_000_000;

/// Feeds an observer with what the probes hand over.
///
/// # Panics
///
/// When something is wrong.
pub fn run(input: &[u8]) {
    let played = Played::of(input);
    for format in Format::ALL {
        let text = played.metrics().expose(format).expect("it can be written");
        let samples = exposition::hold(&text);
        if format == Format::Text {
            played.counts_add_up(&samples);
        }
    }
    played.comes_back();
}

/// A script that was played.
pub(crate) struct Played {
    pub(crate) observer: Observer,
    tape: Tape,
    /// Records since the ring was last read.
    fed: usize,
    bad: usize,
    changes: usize,
    retired: bool,
    /// The latest moment of all.
    pub(crate) latest_ns: u64,
}

impl Played {
    pub(crate) fn of(input: &[u8]) -> Self {
        let metrics = Arc::new(Metrics::new(Registry::new()));
        let mut observer = Observer::new(Nobody, metrics);
        let tape = Tape::new();
        observer.tap(Box::new(tape.clone()));
        let mut played =
            Self { observer, tape, fed: 0, bad: 0, changes: 0, retired: false, latest_ns: 0 };
        let (mut batch, mut told) = (Batch::default(), Losses::default());
        for step in steps(input) {
            played.take(step, &mut batch, &mut told);
        }
        played
    }

    fn take(&mut self, step: Step<'_>, batch: &mut Batch, told: &mut Losses) {
        match step {
            Step::Record(record) => {
                batch.take(record);
                self.fed += 1;
            }
            Step::Turn(turn) => self.turn(turn, std::mem::take(batch), told),
            Step::Sums(at_ns, sums) => {
                self.latest_ns = self.latest_ns.max(at_ns);
                self.observer.sums_read(at_ns, &sums);
            }
            Step::Sample(sample) => {
                self.latest_ns = self.latest_ns.max(sample.at_ns);
                self.observer.sampled(&sample);
            }
            Step::Info(device, info) => self.observer.described(device, info),
            Step::Probes(standing) => self.observer.probes(standing),
            Step::Retire(keep, now_ns) => {
                self.retired |= !self.observer.retire(keep, now_ns).is_empty();
            }
        }
    }

    /// As the sampler does it.
    fn turn(&mut self, turn: Turn, batch: Batch, told: &mut Losses) {
        let Turn { now_ns, lost, emptied } = turn;
        self.latest_ns = self.latest_ns.max(now_ns);
        match lost {
            Some(lost) => {
                for (sum, new) in told.told.iter_mut().zip(lost.told) {
                    *sum += new;
                }
                told.skipped = lost.skipped.map(|new| told.skipped.unwrap_or(0) + new);
                self.observer.losses(*told, now_ns);
            }
            None => self.observer.lose(now_ns, "events may have been lost"),
        }
        self.observer.bad_records(&batch.bad, now_ns);
        self.observer.events(&batch.events);
        if emptied {
            self.observer.settled(now_ns);
        }
        let understood = batch.events.len();
        assert_eq!(understood + batch.bad.len(), std::mem::take(&mut self.fed), "records");
        self.bad += batch.bad.len();
        let counted = |event: &&Event| match event {
            Event::State(change) => !matches!(change.cause, Cause::Open | Cause::Close),
            _ => false,
        };
        self.changes += batch.events.iter().filter(counted).count();
    }

    fn metrics(&self) -> &Metrics {
        self.observer.metrics()
    }

    fn counts_add_up(&self, samples: &[(&str, f64)]) {
        let sum = |begin: &str| -> f64 {
            let of = samples.iter().filter(|(series, _)| series.starts_with(begin));
            of.map(|(_, value)| value).sum()
        };
        let malformed = sum("migscope_events_lost_total{reason=\"malformed\"}");
        assert_eq!(malformed, self.bad as f64, "records that made no sense");
        let changes = sum("vfio_migration_state_transitions_total{");
        // The series of a device that was dropped are gone with it.
        assert!(changes == self.changes as f64 || self.retired, "{changes} of {}", self.changes);
    }

    /// Played from its recording, it tells the same.
    fn comes_back(&self) {
        let Some(recording) = self.tape.finish() else { return };
        let mut again = Observer::new(Nobody, Arc::new(Metrics::new(Registry::new())));
        for input in Reader::new(&*recording).expect("our own header") {
            input.expect("our own recording").play(&mut again);
        }
        if !self.retired {
            assert_eq!(self.told(&again), self.told(&self.observer));
        }
    }

    fn told(&self, observer: &Observer) -> String {
        let snapshot = Snapshot::of(observer, self.latest_ns);
        serde_json::to_string_pretty(&snapshot).expect("a snapshot is JSON")
    }

    /// What is recorded of it.
    pub(crate) fn recording(&self) -> Vec<u8> {
        self.tape.finish().unwrap_or_default()
    }
}

/// A recording in memory.
#[derive(Clone)]
struct Tape(Arc<Mutex<Option<Stream<Vec<u8>>>>>);

impl Tape {
    fn new() -> Self {
        let header = Header {
            created_unix_ns: 1_795_384_800_000_000_000,
            created_monotonic_ns: ZERO_NS,
            host: "host".into(),
            kernel: "7.3.4".into(),
            migscope: "0.1.0".into(),
            ..Header::default()
        };
        let stream = Stream::new(Vec::new(), &header).expect("a vector takes all");
        Self(Arc::new(Mutex::new(Some(stream))))
    }

    /// The recording; `None` when it was finished before, or has not all: a text was too long for it.
    fn finish(&self) -> Option<Vec<u8>> {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let whole = stream.dropped() == 0;
        let recording = stream.finish().expect("a vector takes all");
        whole.then_some(recording)
    }
}

impl Tap for Tape {
    fn take(&mut self, input: &Input) {
        if let Some(stream) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            stream.push(input).expect("a vector takes all");
        }
    }
}

/// A migration from one device to another, one that is refused and called off, and what a newer driver might say.
pub fn seeds() -> Vec<Seed> {
    vec![
        Seed::new("migration", migration()),
        Seed::new("cancelled", cancelled()),
        Seed::new("losses", losses()),
        Seed::new("acting-name", migration_of(ACTING)),
    ]
}

pub(crate) const SOURCE: DeviceKey = DeviceKey::pci(0, 0, 0x10 << 3);
pub(crate) const DESTINATION: DeviceKey = DeviceKey::pci(0, 0, 0x11 << 3);

fn change(device: DeviceKey, from: State, now: State, duration_ns: u64) -> trace::State {
    trace::State {
        device: device.0,
        duration_ns,
        from: from as u32,
        requested: now as u32,
        now: now as u32,
        cause: Cause::Write as u32,
        result: 0,
        reserved: 0,
    }
}

fn query(device: DeviceKey, dirty_pages: u64) -> trace::DirtyQuery {
    trace::DirtyQuery {
        device: device.0,
        start_pfn: 0,
        page_bytes: 4096,
        total_pfns: 1 << 18,
        copied_pfns: 1 << 18,
        dirty_pages,
        duration_ns: 180_000,
        outcome: 2,
        result: 0,
    }
}

/// What a source has moved and has left, in a state.
fn moved(state: State, data_bytes: u64, pending_bytes: u64, at_ns: u64) -> DeviceSums {
    DeviceSums {
        data_bytes: [data_bytes, 0],
        iterations: [data_bytes >> 20, 0],
        dirty_queries: [0, 0, data_bytes >> 20, 0],
        dirty_pages: data_bytes >> 18,
        dirty_bytes: data_bytes >> 6,
        pending_bytes,
        pending_reads: 1 + (data_bytes >> 20),
        state: state as u64,
        last_seen_ns: at_ns,
        ..DeviceSums::default()
    }
}

/// What a machine may be called to be taken for more than a name: it turns the line around, ends it, begins one of its own, and clears the
/// screen.
const ACTING: &str =
    "web\u{202e}bew\u{2028}lost 0\u{2029}\u{85}ok\u{1b}[2J\u{9b}2J\r\n\u{200b}\u{e0041}<b>";

/// Both ends, whole: 1.3 s, in which the source moves 24 MiB.
pub(crate) fn migration() -> Vec<u8> {
    migration_of("web")
}

/// The same of a machine of another name.
fn migration_of(vm: &str) -> Vec<u8> {
    use State::{PreCopy, Resuming, Running, StopAndCopy, Stopped};
    let at = |ms: u64| ZERO_NS + ms * MS;
    let none = |state: State| DeviceSums { state: state as u64, ..DeviceSums::default() };
    let mut script = Script::default();
    script.attached().turn(at(0), 0).sample(at(1), &[]);
    script.state(at(5), change(DESTINATION, Running, Resuming, 200_000), none(Resuming));
    script.state(at(10), change(SOURCE, Running, PreCopy, 500_000), none(PreCopy)).turn(at(11), 0);
    let machine = ["vfio_mediate", "4", vm, "6f1c1a52-1f0e-4c35-9df2-8e0a3b1f9c11"];
    script.info(SOURCE, machine).info(DESTINATION, machine);
    for step in 1..=12_u64 {
        let now_ns = at(10 + step * 100);
        let source = moved(PreCopy, step << 21, (40 - step) << 20, now_ns);
        let destination = DeviceSums {
            data_bytes: [0, step << 21],
            iterations: [0, step * 2],
            data_busy_ns: [0, step * 2 * MS],
            state: Resuming as u64,
            last_seen_ns: now_ns,
            ..DeviceSums::default()
        };
        let both = [(SOURCE, source), (DESTINATION, destination)];
        script.query(now_ns - MS, query(SOURCE, step)).turn(now_ns, 0);
        if step % 3 == 0 {
            script.sample(now_ns, &both)
        } else {
            script.sums(now_ns, &both)
        };
    }
    let stopping = moved(PreCopy, 24 << 20, 28 << 20, at(1_220));
    let stopping = DeviceSums { state: StopAndCopy as u64, ..stopping };
    script.state(at(1_245), change(SOURCE, PreCopy, StopAndCopy, 34 * MS), stopping);
    script.query(at(1_260), query(SOURCE, 7));
    let stay = Stay {
        query_began_ns: at(1_255),
        query_ended_ns: at(1_260),
        data_began_ns: at(1_262),
        data_ended_ns: at(1_290),
    };
    let stopped = DeviceSums { stay, ..moved(Stopped, 52 << 20, 0, at(1_291)) };
    script.state(at(1_291), change(SOURCE, StopAndCopy, Stopped, 100_000), stopped);
    let running = DeviceSums { data_bytes: [0, 52 << 20], iterations: [0, 40], ..none(Running) };
    script.state(at(1_320), change(DESTINATION, Resuming, Running, 20 * MS), running);
    let both = [(SOURCE, stopped), (DESTINATION, running)];
    script.turn(at(1_330), 0).sample(at(1_350), &both);
    let closed =
        trace::State { cause: Cause::Close as u32, ..change(SOURCE, Stopped, Stopped, 1_000) };
    script.state(at(1_400), closed, DeviceSums { state: u64::MAX - 1, ..stopped });
    script.turn(at(1_410), 0);
    script.finish()
}

/// Refused, against the rules of conduct, and called off.
fn cancelled() -> Vec<u8> {
    use State::{PreCopy, Running};
    let at = |ms: u64| ZERO_NS + ms * MS;
    let mut script = Script::default();
    script.attached().turn(at(0), 0);
    let begun = moved(PreCopy, 0, 0, at(10));
    script.state(at(10), change(SOURCE, Running, PreCopy, 500_000), begun).turn(at(11), 0);
    let refused =
        trace::State { requested: 0xdead, result: -22, ..change(SOURCE, PreCopy, PreCopy, 9) };
    script.state(at(20), refused, begun);
    script.error(
        at(20),
        trace::Error {
            device: SOURCE.0,
            offset: 0,
            bytes: 4,
            value: 0xdead,
            rule: 1,
            errno: -22,
            field: 0,
            op: 1,
            state: PreCopy as u32,
            reserved: 0,
        },
    );
    script.conduct(at(25), SOURCE, Conduct::PendingWithoutData).turn(at(30), 0);
    let ended = moved(Running, 3 << 20, 1 << 20, at(40));
    script.state(at(40), change(SOURCE, PreCopy, Running, 700_000), ended).turn(at(50), 0);
    script.retire(at(60), 1);
    script.finish()
}

/// Records that nobody understands, counters that grow, a session that begins in the middle.
fn losses() -> Vec<u8> {
    use State::{PreCopy, StopAndCopy};
    let at = |ms: u64| ZERO_NS + ms * MS;
    let mut script = Script::default();
    script.attached().turn(at(0), 0);
    let found = moved(PreCopy, 5 << 20, 9 << 20, at(9));
    script.sums(at(10), &[(SOURCE, found)]).record(&0xffff_ffff_u32).turn(at(20), 3);
    script.state(
        at(30),
        change(SOURCE, PreCopy, StopAndCopy, 1),
        moved(StopAndCopy, 6 << 20, 1, 1),
    );
    script.turn(at(40), 3).sample(at(50), &[(SOURCE, found)]);
    script.finish()
}
