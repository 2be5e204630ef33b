// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How many records of the probes the agent takes in a second, by what they tell: `cargo xtask bench intake`.
//!
//! ```text
//!   bytes, as the probes write them ──▶ Batch::take ──▶ events ──▶ Observer ──▶ devices, sessions, metrics
//! ```
//!
//! It is what the sampler's thread does for a full ring, but for what the kernel does: the records lie in memory of the ring's length, and
//! nobody waits for them or reads maps. The system calls beside it are a few dozen for each thousand records.

use clap::Parser;
use migscope::device_key::DeviceKey;
use migscope::{
    feed::Nobody,
    metrics::Metrics,
    observer::Observer,
    probes::{
        Standing,
        ring::{BATCH, Batch},
    },
    sample::Losses,
};
use migscope_abi::{
    dirty::Outcome,
    probe::Probe,
    region::{Field, Op},
    ring::{
        ConductRecord, DeviceSums, DirtyQueryRecord, ErrorRecord, Header, Kind, StateRecord, Stay,
    },
    rule::Rule,
    state::{Cause, State},
    trace,
    watch::conduct::Conduct,
};
use prometheus::Registry;
use serde::Serialize;
use std::{sync::Arc, time::Instant};
use zerocopy::IntoBytes;

/// Length of the probes' ring, in bytes.
const RING_BYTES: usize = 256 * 1024;
/// What the ring puts before each record, in bytes.
const HEAD_BYTES: usize = 8;
/// Records that are timed together.
const RECORDS: u32 = 1 << 20;
/// The bar: records a second.
const BAR: f64 = 1e6;
/// Devices in a storm that comes from everywhere.
const MANY: u8 = 64;

/// How many records of the probes the agent takes in a second.
#[derive(Parser)]
struct Arguments {
    /// How often each thing is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
}

#[derive(Serialize)]
struct Report {
    results: Vec<Measured>,
}

#[derive(Serialize)]
struct Measured {
    name: &'static str,
    value: f64,
    unit: &'static str,
    min: f64,
    max: f64,
    runs: usize,
    vs: Versus,
}

#[derive(Serialize)]
struct Versus {
    name: &'static str,
    value: f64,
    ratio: f64,
}

/// What the records tell, and whether others are lost meanwhile.
struct Load {
    name: &'static str,
    /// A round of records; rounds fill the ring.
    round: Vec<Vec<u8>>,
    losing: bool,
}

fn main() -> Result<(), serde_json::Error> {
    let Arguments { runs } = Arguments::parse();
    let results = loads().iter().map(|load| measure(load, runs)).collect();
    println!("{}", serde_json::to_string(&Report { results })?);
    Ok(())
}

fn loads() -> Vec<Load> {
    let devices = || (0..MANY).map(device);
    let first = device(0);
    vec![
        Load { name: "refusals", round: vec![refusal(first)], losing: false },
        Load { name: "refusals, losing", round: vec![refusal(first)], losing: true },
        Load {
            name: "refusals, 64 devices",
            round: devices().map(refusal).collect(),
            losing: false,
        },
        Load { name: "broken conduct", round: vec![breach(first)], losing: false },
        Load { name: "dirty queries", round: vec![query(first)], losing: false },
        Load { name: "refused changes", round: vec![refused_change(first)], losing: false },
        Load { name: "changes of state", round: migration(first), losing: false },
    ]
}

fn measure(load: &Load, runs: u32) -> Measured {
    let ring = ring(&load.round);
    let mut rates: Vec<f64> = (0..runs).map(|_| rate(&ring, load.losing)).collect();
    rates.sort_by(f64::total_cmp);
    let value = rates.get(rates.len() / 2).copied().unwrap_or_default();
    let (min, max) = (rates.first(), rates.last());
    Measured {
        name: load.name,
        value,
        unit: "records/s",
        min: min.copied().unwrap_or_default(),
        max: max.copied().unwrap_or_default(),
        runs: rates.len(),
        vs: Versus { name: "the bar", value: BAR, ratio: value / BAR },
    }
}

/// Records as they lie in the ring, each with its length before it. Whole rounds, as many as there is room for.
fn ring(round: &[Vec<u8>]) -> Vec<u8> {
    let round: Vec<u8> = round
        .iter()
        .flat_map(|record| {
            let length = u64::try_from(record.len()).expect("short");
            length.to_ne_bytes().into_iter().chain(record.iter().copied())
        })
        .collect();
    round.repeat(RING_BYTES / round.len())
}

/// The records in the ring, over and over.
fn records(ring: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = ring;
    std::iter::repeat_with(move || {
        if rest.is_empty() {
            rest = ring;
        }
        let (head, after) = rest.split_first_chunk::<HEAD_BYTES>().expect("a head");
        let length = usize::try_from(u64::from_ne_bytes(*head)).expect("short");
        let (record, after) = after.split_at(length);
        rest = after;
        record
    })
}

/// Records a second that an agent takes in, with sessions under way on all devices.
fn rate(ring: &[u8], losing: bool) -> f64 {
    let mut observer = Observer::new(Nobody, Arc::new(Metrics::new(Registry::new())));
    let attached: Standing = Probe::ALL.into_iter().map(|event| (event, Ok(()))).collect();
    observer.probes(attached);
    let mut begun = Batch::default();
    for number in 0..MANY {
        begun.take(&change(device(number), State::Running, State::PreCopy));
    }
    observer.events(&begun.events);
    let mut records = records(ring);
    let began = Instant::now();
    let mut lost = 0;
    for _ in 0..RECORDS / u32::try_from(BATCH).expect("few") {
        let mut batch = Batch::default();
        for record in records.by_ref().take(BATCH) {
            batch.take(record);
        }
        lost += u64::from(losing);
        observer.losses(Losses { told: [lost, 0, 0, 0], skipped: Some(0) }, lost);
        observer.bad_records(&batch.bad, lost);
        observer.events(&batch.events);
    }
    let rate = f64::from(RECORDS) / began.elapsed().as_secs_f64();
    let taken = observer.metrics().encode().expect("it can be shown");
    let taken = String::from_utf8_lossy(&taken);
    assert!(!taken.contains("reason=\"malformed\"} 1"), "a record was not understood");
    rate
}

fn device(number: u8) -> DeviceKey {
    DeviceKey::pci(0, number, 0)
}

fn header(kind: Kind) -> Header {
    Header { monotonic_ns: 1_000_000, kind: kind as u32, tgid: 7 }
}

fn refusal(device: DeviceKey) -> Vec<u8> {
    let event = trace::Error {
        device: device.0,
        offset: 2,
        bytes: 1,
        value: 0,
        rule: Rule::Misaligned as u32,
        errno: -22,
        field: Field::DeviceState as u32,
        op: Op::Read as u32,
        state: State::PreCopy as u32,
        reserved: 0,
    };
    ErrorRecord { header: header(Kind::Error), event }.as_bytes().to_vec()
}

fn breach(device: DeviceKey) -> Vec<u8> {
    let record = ConductRecord {
        header: header(Kind::Conduct),
        device: device.0,
        offset: 4,
        value: 1,
        count: 1,
        rule: Conduct::ReservedWritten as u32,
        state: State::PreCopy as u32,
        field: Field::Reserved as u32,
        op: Op::Write as u32,
    };
    record.as_bytes().to_vec()
}

fn query(device: DeviceKey) -> Vec<u8> {
    let event = trace::DirtyQuery {
        device: device.0,
        start_pfn: 0x100,
        page_bytes: 4096,
        total_pfns: 256,
        copied_pfns: 256,
        dirty_pages: 16,
        duration_ns: 3_000,
        outcome: Outcome::Bitmap as u32,
        result: 0,
    };
    DirtyQueryRecord { header: header(Kind::DirtyQuery), event }.as_bytes().to_vec()
}

fn change(device: DeviceKey, from: State, now: State) -> Vec<u8> {
    state(device, (from, now as u32, now), 0)
}

/// A write of what is no state, in pre-copy.
fn refused_change(device: DeviceKey) -> Vec<u8> {
    state(device, (State::PreCopy, 5, State::PreCopy), -22)
}

fn state(device: DeviceKey, arc: (State, u32, State), result: i32) -> Vec<u8> {
    let (from, requested, now) = arc;
    let event = trace::State {
        device: device.0,
        duration_ns: 20_000,
        from: from as u32,
        requested,
        now: now as u32,
        cause: Cause::Write as u32,
        result,
        reserved: 0,
    };
    let sums = DeviceSums { state: now as u64, stay: Stay::NONE, ..DeviceSums::default() };
    StateRecord { header: header(Kind::State), event, sums }.as_bytes().to_vec()
}

/// The changes of state of a device that is migrated and comes back.
fn migration(device: DeviceKey) -> Vec<Vec<u8>> {
    let round = [State::PreCopy, State::StopAndCopy, State::Stopped, State::Running];
    // It begins where the session stands that is under way, so the first record is the stop.
    let turn = round.iter().cycle().skip(1).zip(round.iter().cycle());
    turn.take(round.len()).map(|(now, from)| change(device, *from, *now)).collect()
}
