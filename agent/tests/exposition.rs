// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The whole exposition for a scripted migration, compared with `exposition.txt`, and what the observer says of losses.
//!
//! The names and labels in that file are a contract with dashboards and alerts. `MIGSCOPE_BLESS=1 cargo test -p migscope` writes
//! it anew; the difference is then to be read and meant.

use migscope::{
    event::{BadRecord, DirtyQuery, Event, StateChange, Violation},
    host::Paths,
    metrics::Metrics,
    observer::Observer,
    probes::{Standing, all_missing, attach::Missing},
    sample::{Access, Losses, Sample},
    state::{Protocol, State},
};
use migscope_abi::{
    device::DeviceKey,
    dirty::Outcome,
    latency::{BUCKETS, bucket},
    region::{Field, Op},
    ring::{AccessKey, DeviceSums},
    rule::Rule,
    state::Cause,
    trace,
};
use prometheus::Registry;
use std::{collections::BTreeSet, fs, path::PathBuf, sync::Arc, time::Duration};

const SOURCE: DeviceKey = DeviceKey::pci(0, 0, 0x10 << 3);
const DESTINATION: DeviceKey = DeviceKey::pci(0, 0, 0x11 << 3);
const MS: u64 = 1_000_000;

fn attached() -> Standing {
    trace::Event::ALL.into_iter().map(|event| (event, Ok(()))).collect()
}

fn observer() -> Observer {
    let nowhere = PathBuf::from("/nonexistent");
    let paths = Paths { sysfs: nowhere.clone(), procfs: nowhere };
    Observer::new(paths, Arc::new(Metrics::new(Registry::new())))
}

fn losses(ring_full: u64) -> Losses {
    Losses { told: [ring_full, 0, 0], skipped: Some(0) }
}

fn exposition(observer: &Observer) -> String {
    let text = observer.metrics().encode().expect("every family can be shown");
    let version = concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"");
    String::from_utf8(text).expect("text").replace(version, "version=\"VERSION\"")
}

fn change(device: DeviceKey, from: State, now: State, at_ns: u64, sums: DeviceSums) -> Event {
    let sums = Some(DeviceSums { state: now as u64, last_seen_ns: at_ns, ..sums });
    Event::State(StateChange {
        device,
        at_ns,
        tgid: 0,
        from,
        protocol: Protocol::Region,
        requested: Some(now),
        now,
        cause: Cause::Write,
        duration_ns: 20_000,
        result: 0,
        sums,
    })
}

/// A source that saves 4096 + 100 bytes in two buffers and reports three pages, and a destination that takes them in.
fn migrate(observer: &mut Observer) {
    let start = DeviceSums::default();
    let before_stop = DeviceSums {
        data_bytes: [4096, 0],
        iterations: [1, 0],
        dirty_queries: [0, 0, 1, 0],
        dirty_pages: 2,
        dirty_bytes: 8192,
        dma_transfers: [2, 1],
        dma_bytes: [8000, 64],
        pending_bytes: 100,
        pending_reads: 2,
        ..start
    };
    let saved = DeviceSums {
        data_bytes: [4196, 0],
        iterations: [2, 0],
        dirty_queries: [1, 0, 2, 0],
        dirty_pages: 3,
        dirty_bytes: 12_288,
        pending_bytes: 0,
        pending_reads: 3,
        ..before_stop
    };
    let resumed = DeviceSums { data_bytes: [0, 4196], iterations: [0, 2], ..start };
    observer.probes(attached());
    observer.losses(losses(0), MS);
    let refused = StateChange {
        device: SOURCE,
        at_ns: 12 * MS,
        tgid: 0,
        from: State::PreCopy,
        protocol: Protocol::Region,
        requested: None,
        now: State::PreCopy,
        cause: Cause::Write,
        duration_ns: 500,
        result: -22,
        sums: Some(DeviceSums { state: 3, ..before_stop }),
    };
    let query = |at_ns, outcome, duration_ns| {
        Event::DirtyQuery(DirtyQuery {
            device: SOURCE,
            at_ns,
            start_bytes: 0,
            range_bytes: 1 << 30,
            dirty_bytes: 4096,
            outcome,
            duration_ns,
        })
    };
    observer.events(&[
        change(SOURCE, State::Running, State::PreCopy, 10 * MS, start),
        query(11 * MS, Outcome::Bitmap, 3_000),
        Event::Violation(Violation {
            device: SOURCE,
            at_ns: 12 * MS,
            rule: Rule::ReservedBits,
            state: State::PreCopy,
        }),
        Event::State(refused),
        change(SOURCE, State::PreCopy, State::StopAndCopy, 20 * MS, before_stop),
        query(21 * MS, Outcome::Bitmap, 2_000),
        query(22 * MS, Outcome::None, 1_000),
        change(DESTINATION, State::Running, State::Resuming, 23 * MS, start),
        change(SOURCE, State::StopAndCopy, State::Stopped, 25 * MS, saved),
        change(DESTINATION, State::Resuming, State::Running, 30 * MS, resumed),
    ]);
    let mut sample = Sample { seen: [5, 40, 4, 3, 3, 1], ..Sample::default() };
    sample.devices.insert(SOURCE, DeviceSums { state: 0, ..saved });
    sample.devices.insert(DESTINATION, DeviceSums { state: 1, ..resumed });
    for (device, field, op_and_refused, count) in [
        (SOURCE, Field::DeviceState, 1, 3),
        (SOURCE, Field::DeviceState, 3, 1),
        (SOURCE, Field::PendingBytes, 0, 3),
        (DESTINATION, Field::DataSize, 1, 2),
    ] {
        let key = AccessKey { device: device.0, field: field as u32, op_and_refused };
        sample.accesses.push(Access { key, count });
    }
    let mut buckets = vec![0; BUCKETS];
    for ns in [700_u64, 1_000, 30_000] {
        buckets[usize::try_from(bucket(ns)).expect("small")] += 1;
    }
    let series = (Field::PendingBytes as u32, Op::Read as u32);
    sample.latencies.insert(series, (buckets, 31_700));
    observer.settled(40 * MS);
    observer.sampled(&sample);
}

#[test]
fn a_migration_is_shown_as_it_was() {
    let mut observer = observer();
    migrate(&mut observer);
    let shown = exposition(&observer);
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/exposition.txt");
    if std::env::var_os("MIGSCOPE_BLESS").is_some() {
        fs::write(&golden, &shown).expect("written");
    }
    let expected = fs::read_to_string(&golden).expect("MIGSCOPE_BLESS=1 writes it");
    for (shown, expected) in shown.lines().zip(expected.lines()) {
        assert_eq!(shown, expected);
    }
    assert_eq!(shown.lines().count(), expected.lines().count());
}

#[test]
fn every_family_has_a_help_a_type_and_a_sound_name() {
    let mut observer = observer();
    migrate(&mut observer);
    let text = exposition(&observer);
    let mut helped = BTreeSet::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect("a help");
            assert!(help.ends_with('.'), "{help}");
            assert!(helped.insert(name.to_owned()), "{name} twice");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a type");
            assert!(helped.contains(name), "{name}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} {kind}");
            assert!(kind != "histogram" || name.ends_with("_seconds"), "{name}");
            assert!(name.starts_with("vfio_migration_") || name.starts_with("migscope_"));
        }
    }
    assert!(helped.len() > 20, "{helped:?}");
}

#[test]
fn the_two_ends_of_a_migration_are_exact_and_find_each_other() {
    let mut observer = observer();
    migrate(&mut observer);
    let [source, destination] = &observer.session_reports(40 * MS)[..] else {
        panic!("two sessions");
    };
    assert!(source.exact && destination.exact);
    assert_eq!((&*source.role, source.result.as_deref()), ("source", Some("completed")));
    assert_eq!(source.figures.data_bytes, Some(4196));
    assert_eq!(source.figures.iterations, Some(2));
    assert_eq!(source.figures.dirty.map(|dirty| dirty.pages), Some(3));
    assert_eq!(source.violations, Some(1));
    assert_eq!(source.downtime.stop_ns, Some(20_000));
    assert_eq!(source.downtime.source_ns, Some(5 * MS + 20_000));
    assert_eq!(source.downtime.total_ns, Some(10 * MS + 20_000));
    assert_eq!(destination.downtime.destination_ns, Some(7 * MS));
    assert_eq!(destination.downtime.total_ns, source.downtime.total_ns);
    assert_eq!((source.peer, destination.peer), (Some(2), Some(1)));
}

#[test]
fn nothing_is_shown_of_what_no_probe_watches() {
    let mut observer = observer();
    let missing = Missing { why: "not loaded".into(), remedy: "load it".into() };
    observer.probes(all_missing(&missing));
    observer.sampled(&Sample::default());
    let text = exposition(&observer);
    assert!(text.contains("migscope_probe_attached{probe=\"state\"} 0"), "{text}");
    for absent in ["vfio_migration_", "migscope_events_total"] {
        assert!(!text.contains(absent), "{absent}: {text}");
    }
}

#[test]
fn a_sum_that_no_probe_feeds_is_absent_and_not_zero() {
    let mut observer = observer();
    let mut standing = attached();
    let missing = Missing { why: "not loaded".into(), remedy: "load it".into() };
    standing.insert(trace::Event::Data, Err(missing));
    observer.probes(standing);
    let mut sample = Sample::default();
    sample.devices.insert(SOURCE, DeviceSums { state: 1, ..DeviceSums::default() });
    observer.sampled(&sample);
    let text = exposition(&observer);
    assert!(!text.contains("vfio_migration_data_bytes_total"), "{text}");
    assert!(text.contains("vfio_migration_dirty_pages_total"), "{text}");
}

#[test]
fn a_loss_makes_states_unknown_and_sessions_inexact_until_told_again() {
    let mut observer = observer();
    observer.probes(attached());
    observer.losses(losses(0), MS);
    let start = DeviceSums::default();
    observer.events(&[change(SOURCE, State::Running, State::PreCopy, 2 * MS, start)]);
    observer.settled(3 * MS);
    assert!(exposition(&observer).contains("device_state{device=\"0000:00:10.0\""));

    observer.losses(losses(1), 4 * MS);
    observer.settled(5 * MS);
    assert!(!exposition(&observer).contains("device_state{device=\"0000:00:10.0\""));
    assert_eq!(observer.device_reports(5 * MS)[0].state, None);
    assert!(!observer.session_reports(5 * MS)[0].exact);

    let mut sample = Sample::default();
    let sums = DeviceSums { state: 3, last_seen_ns: 6 * MS, ..start };
    sample.devices.insert(SOURCE, sums);
    observer.sampled(&sample);
    observer.settled(7 * MS);
    assert_eq!(observer.device_reports(7 * MS)[0].state.as_deref(), Some("pre_copy"));
    // What is known: 2 to 3 ms, when it was last settled, and 6 to 7 ms.
    let shown = exposition(&observer);
    assert!(
        shown.contains("state_seconds_total{device=\"0000:00:10.0\",state=\"pre_copy\"} 0.002"),
        "{shown}"
    );
}

#[test]
fn a_run_that_the_kernel_left_out_is_a_loss() {
    let mut observer = observer();
    observer.probes(attached());
    observer.losses(losses(0), MS);
    let start = DeviceSums::default();
    observer.events(&[change(SOURCE, State::Running, State::PreCopy, 2 * MS, start)]);
    observer.losses(Losses { skipped: Some(1), ..losses(0) }, 4 * MS);
    assert!(!observer.session_reports(5 * MS)[0].exact);
    assert!(exposition(&observer).contains("events_lost_total{reason=\"skipped\"} 1"));
}

#[test]
fn a_session_whose_records_come_after_the_loss_was_seen_is_not_exact_either() {
    let mut observer = observer();
    observer.probes(attached());
    observer.losses(losses(0), MS);
    observer.losses(losses(1), 10 * MS);
    let start = DeviceSums::default();
    observer.events(&[
        change(SOURCE, State::Running, State::PreCopy, 5 * MS, start),
        change(SOURCE, State::PreCopy, State::Running, 11 * MS, start),
        change(SOURCE, State::Running, State::PreCopy, 12 * MS, start),
    ]);
    let reports = observer.session_reports(20 * MS);
    let exact: Vec<_> = reports.iter().map(|session| session.exact).collect();
    assert_eq!(exact, [false, true]);
}

#[test]
fn records_that_make_no_sense_are_counted_and_believed_to_be_losses() {
    let mut observer = observer();
    observer.probes(attached());
    observer.losses(losses(0), MS);
    let start = DeviceSums::default();
    observer.events(&[change(SOURCE, State::Running, State::PreCopy, 2 * MS, start)]);
    observer.bad_records(&[BadRecord::Kind(9), BadRecord::Short(3)], 3 * MS);
    observer.losses(losses(0), 3 * MS);
    assert!(exposition(&observer).contains("events_lost_total{reason=\"malformed\"} 2"));
    assert!(!observer.session_reports(4 * MS)[0].exact);
}

#[test]
fn the_series_of_a_closed_device_end_after_a_while() {
    let mut observer = observer();
    migrate(&mut observer);
    let Event::State(mut close) =
        change(SOURCE, State::Stopped, State::Stopped, 50 * MS, DeviceSums::default())
    else {
        panic!("a change of state");
    };
    close.cause = Cause::Close;
    observer.events(&[Event::State(close)]);
    let keep = Duration::from_millis(10);
    assert_eq!(observer.retire(keep, 59 * MS), []);
    assert!(exposition(&observer).contains("0000:00:10.0"));
    assert_eq!(observer.retire(keep, 60 * MS), [SOURCE]);
    let text = exposition(&observer);
    assert!(!text.contains("0000:00:10.0"), "{text}");
    assert!(text.contains("0000:00:11.0"), "{text}");
    assert_eq!(observer.session_reports(60 * MS).len(), 2, "what happened stays told");
}

#[test]
fn a_migration_under_way_is_found_by_the_sums_and_has_no_more_than_was_seen() {
    let mut observer = observer();
    observer.probes(attached());
    observer.losses(losses(0), MS);
    let sums = |at_ns, bytes| {
        let data_bytes = [bytes, 0];
        let sums =
            DeviceSums { state: 3, data_bytes, last_seen_ns: at_ns, ..DeviceSums::default() };
        Sample { at_ns, devices: [(SOURCE, sums)].into(), ..Sample::default() }
    };
    observer.sampled(&sums(2 * MS, 100));
    assert!(observer.session_reports(2 * MS).is_empty(), "its first record may still come");
    observer.settled(3 * MS);
    observer.sampled(&sums(4 * MS, 150));
    observer.sampled(&sums(5 * MS, 400));
    let report = &observer.session_reports(6 * MS)[0];
    assert_eq!((&*report.role, report.exact, report.seen_from_start), ("source", false, false));
    assert_eq!((report.pid, report.figures.data_bytes), (None, Some(250)));
    assert!(observer.migrations().is_empty(), "whose it is, nobody told");

    let end = DeviceSums { data_bytes: [500, 0], ..DeviceSums::default() };
    observer.events(&[
        change(SOURCE, State::PreCopy, State::StopAndCopy, 8 * MS, end),
        change(SOURCE, State::StopAndCopy, State::Stopped, 9 * MS, end),
    ]);
    let report = &observer.session_reports(9 * MS)[0];
    assert_eq!(report.result.as_deref(), Some("completed"));
    assert_eq!((report.exact, report.pid), (false, Some(0)));
    assert_eq!(report.downtime.stop_ns, Some(20_000), "the stop was seen");
    assert_eq!(observer.migrations().len(), 1);
    assert!(!observer.migrations()[0].exact);
}
