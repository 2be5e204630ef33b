// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A migration by hand: 2.4 s from one device to another of the same host, with every number chosen.
//!
//! ```text
//!   ms from its beginning   0        10                    2010   2045      2290 2294      2400
//!   source                  running   ├─────pre_copy───────┤ stop ├─stop_and_copy──┤ stopped
//!   destination             ├──5── resuming ───────────────────────────────────────┤ start ├ running
//! ```

use migscope::device_key::DeviceKey;
use migscope::{
    event::{DirtyQuery, Event, StateChange, Violation},
    feed::Input,
    metrics::Info,
    probes::Standing,
    report::{Clock, Document, Player, Recording},
    sample::{Losses, Sample},
    state::{Protocol, State},
};
use migscope_abi::{
    dirty::Outcome,
    latency::{BUCKETS, bucket},
    probe::Probe,
    region::{Field, Op},
    ring::{DeviceSums, Stay},
    rule::Rule,
    state::Cause,
};
use std::collections::BTreeMap;

pub(crate) const SOURCE: DeviceKey = DeviceKey::pci(0, 0, 0x10 << 3);
pub(crate) const DESTINATION: DeviceKey = DeviceKey::pci(0, 0, 0x11 << 3);
pub(crate) const MS: u64 = 1_000_000;
/// When the migration begins, `CLOCK_MONOTONIC`.
pub(crate) const ZERO_NS: u64 = 100_000 * MS;
const SOURCE_PID: u32 = 4711;
const DESTINATION_PID: u32 = 4712;

/// `2026-11-22T22:00:00Z` is when the migration begins.
pub(crate) fn recording(file: &str) -> Recording {
    Recording {
        file: file.into(),
        host: Some("demo".into()),
        kernel: Some("7.3.0-migscope".into()),
        version: Some("0.1.0".into()),
        clock: Some(Clock { unix_ns: 1_795_384_800_000_000_000, monotonic_ns: ZERO_NS }),
        ..Recording::default()
    }
}

/// The document of a feed.
pub(crate) fn told(feed: Vec<Input>) -> Document {
    let mut player = Player::default();
    for input in feed {
        player.play(input);
    }
    player.tell(recording("scripted.migscope"))
}

/// What differs between two migrations.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// The machine's name.
    pub(crate) vm: String,
    /// How long the source's device takes to stop, of the 35 ms that there are for it.
    pub(crate) stop_ns: u64,
    /// How much of memory is reported dirty by each query.
    pub(crate) dirty_bytes: u64,
    /// Duration of most reads of `pending_bytes`.
    pub(crate) read_ns: u64,
}

impl Default for Script {
    fn default() -> Self {
        Self { vm: "web".into(), stop_ns: 34_400_000, dirty_bytes: 8192, read_ns: 1_900 }
    }
}

pub(crate) fn attached() -> Input {
    Input::Probes(Probe::ALL.into_iter().map(|event| (event, Ok(()))).collect::<Standing>())
}

pub(crate) fn losses(ring_full: u64, at_ms: u64) -> Input {
    let losses = Losses { told: [ring_full, 0, 0, 0], skipped: Some(0) };
    Input::Losses(losses, ZERO_NS + at_ms * MS)
}

/// A change of state that was over `at_ns` after the beginning.
pub(crate) fn change(
    device: DeviceKey,
    (from, now): (State, State),
    (at_ns, duration_ns): (u64, u64),
    sums: DeviceSums,
) -> StateChange {
    let at_ns = ZERO_NS + at_ns;
    StateChange {
        device,
        at_ns,
        tgid: if device == SOURCE { SOURCE_PID } else { DESTINATION_PID },
        protocol: Protocol::Region,
        from,
        requested: Some(now),
        now,
        cause: Cause::Write,
        duration_ns,
        result: 0,
        sums: Some(DeviceSums { last_seen_ns: at_ns, ..sums }),
    }
}

fn info(device: DeviceKey, vm: &str) -> Input {
    let info = Info {
        driver: "vfio_mediate".into(),
        iommu_group: "4".into(),
        vm: vm.into(),
        vm_uuid: "6f1c1a52-1f0e-4c35-9df2-8e0a3b1f9c11".into(),
    };
    Input::Info(device, info)
}

fn query(at_ns: u64, duration_ns: u64, outcome: Outcome, dirty_bytes: u64) -> Input {
    Input::Event(Event::DirtyQuery(DirtyQuery {
        device: SOURCE,
        source: migscope::dirty::Source::Region,
        at_ns: ZERO_NS + at_ns,
        start_bytes: 0,
        range_bytes: 1 << 30,
        dirty_bytes,
        outcome,
        duration_ns,
    }))
}

/// Reads of `pending_bytes`: one in a hundred takes 40 times as long.
fn sample(at_ms: u64, reads: u64, read_ns: u64) -> Input {
    let mut buckets = vec![0; BUCKETS];
    let slow = reads / 100;
    let mut add = |ns, count| {
        buckets[usize::try_from(bucket(ns)).expect("small")] += count;
    };
    add(read_ns, reads - slow);
    add(read_ns * 40, slow);
    let sum_ns = (reads - slow) * read_ns + slow * read_ns * 40;
    let mut sample = Sample { at_ns: ZERO_NS + at_ms * MS, ..Sample::default() };
    sample
        .latencies
        .insert((Field::PendingBytes as u32, Op::Read as u32), (buckets.clone(), sum_ns));
    sample.latencies.insert((Field::DataOffset as u32, Op::Read as u32), (buckets, sum_ns));
    Input::Sample(sample)
}

/// The migration.
pub(crate) fn migration(script: &Script) -> Vec<Input> {
    use State::{PreCopy, Resuming, Running, StopAndCopy, Stopped};
    let Script { vm, stop_ns, dirty_bytes, read_ns } = script;
    let event = |change| Input::Event(Event::State(change));
    let mut source = DeviceSums::default();
    let mut destination = DeviceSums::default();
    let mut feed = vec![attached(), losses(0, 0), sample(1, 1_000, 900)];
    feed.push(event(change(DESTINATION, (Running, Resuming), (5 * MS, 200_000), destination)));
    feed.push(info(DESTINATION, vm));
    feed.push(event(change(SOURCE, (Running, PreCopy), (10 * MS, 500_000), source)));
    feed.push(info(SOURCE, vm));
    // A buffer of 1 MiB each 50 ms of 40 MiB; each fifth reading finds 2 MiB that came anew.
    let mut pending = 40_u64 << 20;
    for step in 1..=40_u64 {
        let at_ms = 10 + step * 50;
        pending -= 1 << 20;
        if step % 5 == 0 {
            pending += 1 << 21;
            feed.push(query(
                at_ms * MS - 100_000,
                180_000 + step * 1_000,
                Outcome::Bitmap,
                *dirty_bytes,
            ));
            source.dirty_queries[2] += 1;
            source.dirty_bytes += dirty_bytes;
            source.dirty_pages += dirty_bytes / 4096;
        }
        source.data_bytes[0] += 1 << 20;
        source.iterations[0] += 1;
        source.pending_bytes = pending;
        source.pending_reads += 1;
        source.last_seen_ns = ZERO_NS + at_ms * MS;
        destination.data_bytes[1] = source.data_bytes[0];
        destination.iterations[1] = source.iterations[0];
        destination.data_busy_ns[1] += 2 * MS;
        destination.last_seen_ns = source.last_seen_ns;
        let sums = BTreeMap::from([(SOURCE, source), (DESTINATION, destination)]);
        if at_ms < 2_010 {
            feed.push(Input::Sums(source.last_seen_ns, sums));
        }
        if step == 14 {
            feed.push(Input::Event(Event::Violation(Violation {
                device: SOURCE,
                at_ns: ZERO_NS + at_ms * MS + MS,
                rule: Rule::ReservedBits,
                state: PreCopy,
                field: None,
                value: 0,
            })));
            let refused = change(SOURCE, (PreCopy, PreCopy), ((at_ms + 1) * MS, 4_000), source);
            feed.push(event(StateChange { requested: None, result: -22, ..refused }));
        }
    }
    // The write that stops the device began at 2045 ms - stop_ns.
    feed.push(event(change(SOURCE, (PreCopy, StopAndCopy), (2_045 * MS, *stop_ns), source)));
    feed.push(query(2_070 * MS, 10 * MS, Outcome::Bitmap, *dirty_bytes));
    source.dirty_queries[2] += 1;
    source.dirty_bytes += dirty_bytes;
    source.dirty_pages += dirty_bytes / 4096;
    source.data_bytes[0] += pending;
    source.iterations[0] += 40;
    source.pending_bytes = 0;
    source.pending_reads += 40;
    source.data_busy_ns[0] = 150 * MS;
    let at = |ms: u64| ZERO_NS + ms * MS;
    source.stay = Stay {
        query_began_ns: at(2_060),
        query_ended_ns: at(2_070),
        data_began_ns: at(2_080),
        data_ended_ns: at(2_290),
    };
    feed.push(event(change(SOURCE, (StopAndCopy, Stopped), (2_294 * MS, 100_000), source)));
    destination.data_bytes[1] = source.data_bytes[0];
    destination.iterations[1] = source.iterations[0];
    destination.data_busy_ns[1] += 40 * MS;
    destination.stay = Stay { data_began_ns: at(60), data_ended_ns: at(2_292), ..Stay::NONE };
    feed.push(event(change(DESTINATION, (Resuming, Running), (2_400 * MS, 106 * MS), destination)));
    feed.push(Input::Settled(at(2_410)));
    feed.push(sample(2_450, 11_000, *read_ns));
    feed.push(losses(0, 2_450));
    // The first thousand reads took 900 ns, in buckets that later counts must not fall below.
    mend_first_sample(feed, *read_ns)
}

/// Counts never go back: what was read before the migration is in the later sample, too.
fn mend_first_sample(mut feed: Vec<Input>, read_ns: u64) -> Vec<Input> {
    let first = feed.iter().find_map(|input| match input {
        Input::Sample(sample) => Some(sample.latencies.clone()),
        _ => None,
    });
    if let (Some(first), Some(Input::Sample(last))) =
        (first, feed.iter_mut().rev().find(|input| matches!(input, Input::Sample(_))))
    {
        let Input::Sample(fresh) = sample(0, 10_000, read_ns) else { return feed };
        last.latencies = fresh.latencies;
        for (series, (buckets, sum_ns)) in &mut last.latencies {
            let Some((before, before_ns)) = first.get(series) else { continue };
            for (count, before) in buckets.iter_mut().zip(before) {
                *count += before;
            }
            *sum_ns += before_ns;
        }
    }
    feed
}
