// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The whole exposition for a scripted migration, compared with `exposition.txt` and, as OpenMetrics, `exposition.openmetrics.txt`;
//! and what the observer says of losses.
//!
//! The names and labels in these files are a contract with dashboards and alerts. `MIGSCOPE_BLESS=1 cargo test -p migscope` writes
//! them anew; the difference is then to be read and meant.

#[path = "scripted/migration.rs"]
mod migration;
#[path = "exposition/reader.rs"]
mod reader;

use migration::{DESTINATION, MS, PID, SOURCE, before_stop, change, changes, resumed, saved};
use migscope::{
    device_key::DeviceKey,
    event::{BadRecord, Conduct, ConductCounts, DirtyQuery, Event, StateChange, Violation},
    feed::Describe,
    host::Paths,
    metrics::{Format, Info, Metrics},
    observer::Observer,
    probes::{Standing, all_missing, attach::Missing},
    sample::{Access, Losses, Sample},
    state::{Protocol, State},
};
use migscope_abi::{
    dirty::Outcome,
    latency::{BUCKETS, bucket},
    probe::Probe,
    region::{Field, Op},
    ring::{AccessKey, DeviceSums},
    rule::Rule,
    state::Cause,
    watch::conduct::Conduct as ConductRule,
};
use prometheus::Registry;
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

fn attached() -> Standing {
    Probe::ALL.into_iter().map(|event| (event, Ok(()))).collect()
}

fn observer() -> Observer {
    let nowhere = PathBuf::from("/nonexistent");
    let paths = Paths { sysfs: nowhere.clone(), procfs: nowhere };
    let metrics = Metrics::with_clock(Registry::new(), || Duration::from_secs(1_700_000_000));
    Observer::new(paths, Arc::new(metrics))
}

fn losses(ring_full: u64) -> Losses {
    Losses { told: [ring_full, 0, 0, 0], skipped: Some(0) }
}

fn exposition(observer: &Observer) -> String {
    expose(observer, Format::Text)
}

fn expose(observer: &Observer, format: Format) -> String {
    let text = observer.metrics().expose(format).expect("every family can be shown");
    let version = concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"");
    String::from_utf8(text).expect("text").replace(version, "version=\"VERSION\"")
}

/// The migration, and more that is seen of it.
fn migrate(observer: &mut Observer) {
    observer.probes(attached());
    observer.losses(losses(0), MS);
    let refused = StateChange {
        requested: None,
        duration_ns: 500,
        result: -22,
        ..change(SOURCE, State::PreCopy, State::PreCopy, 12 * MS, before_stop())
    };
    let query = |at_ns, outcome, duration_ns| {
        Event::DirtyQuery(DirtyQuery {
            device: SOURCE,
            source: migscope::dirty::Source::Region,
            at_ns,
            start_bytes: 0,
            range_bytes: 1 << 30,
            dirty_bytes: 4096,
            outcome,
            duration_ns,
        })
    };
    let counts = ConductRule::ALL.map(|rule| match rule {
        ConductRule::SizeBeforeOffset => 3,
        _ => 0,
    });
    let [begin, stop, load, end, resume] = changes(0);
    observer.events(&[
        begin,
        query(11 * MS, Outcome::Bitmap, 3_000),
        Event::Violation(Violation {
            device: SOURCE,
            at_ns: 12 * MS,
            rule: Rule::ReservedBits,
            state: State::PreCopy,
            field: Some(Field::DeviceState),
            value: 0xff,
        }),
        Event::Conduct(Conduct {
            device: SOURCE,
            at_ns: 13 * MS,
            rule: ConductRule::SizeBeforeOffset,
            count: 1,
            state: Some(State::PreCopy),
            field: Some(Field::DataSize),
            value: 0,
        }),
        Event::State(refused),
        stop,
        query(21 * MS, Outcome::Bitmap, 2_000),
        query(22 * MS, Outcome::None, 1_000),
        load,
        Event::ConductCounts(ConductCounts { device: SOURCE, counts }),
        end,
        resume,
    ]);
    let capacities = [("DEVICE_SUMS", 256), ("ACCESSES", 8192)].into();
    let mut sample = Sample { capacities, ..Sample::default() };
    sample.seen[..6].copy_from_slice(&[5, 40, 4, 3, 3, 1]);
    sample.conduct.insert(SOURCE, counts);
    let mut refusals = [0; Rule::COUNT];
    refusals[Rule::ReservedBits.index() as usize] = 1;
    sample.refusals.insert(SOURCE, refusals);
    sample.devices.insert(SOURCE, DeviceSums { state: 0, ..saved() });
    sample.devices.insert(DESTINATION, DeviceSums { state: 1, ..resumed() });
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
    for (format, golden) in
        [(Format::Text, "exposition.txt"), (Format::OpenMetrics, "exposition.openmetrics.txt")]
    {
        is_golden(&expose(&observer, format), golden);
    }
}

fn is_golden(shown: &str, golden: &str) {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(golden);
    if std::env::var_os("MIGSCOPE_BLESS").is_some() {
        fs::write(&golden, shown).expect("written");
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

/// Every sample by its name and labels; its value bit by bit.
fn samples(text: &str, format: Format) -> BTreeMap<(String, reader::Labels), u64> {
    let families = reader::read(text, format).unwrap_or_else(|why| panic!("{why}\n{text}"));
    let samples = families.into_iter().flat_map(|family| family.samples);
    samples.map(|sample| ((sample.name, sample.labels), sample.value.to_bits())).collect()
}

#[test]
fn both_formats_are_sound_and_hold_the_same_samples() {
    let mut observer = observer();
    migrate(&mut observer);
    let [text, open] = [Format::Text, Format::OpenMetrics]
        .map(|format| samples(&expose(&observer, format), format));
    assert!(text.len() > 300, "{}", text.len());
    assert_eq!(text, open);
}

#[test]
fn a_session_is_the_exemplar_of_what_was_observed_of_it() {
    let mut observer = observer();
    migrate(&mut observer);
    let text = expose(&observer, Format::OpenMetrics);
    let families = reader::read(&text, Format::OpenMetrics).expect("sound");
    let mut found = BTreeMap::new();
    for sample in families.into_iter().flat_map(|family| family.samples) {
        if let Some((labels, value)) = sample.exemplar {
            let of = sample.labels.get("part").or(sample.labels.get("role"));
            found.insert((sample.name, of.cloned()), (labels["session"].clone(), value));
        }
    }
    let told = |family: &str, of: &str| {
        let bucket = format!("vfio_migration_{family}_seconds_bucket");
        found.get(&(bucket, Some(of.into()))).map(|(session, value)| (session.as_str(), *value))
    };
    assert_eq!(found.len(), 10, "{found:?}");
    assert_eq!(told("session_duration", "source"), Some(("1", 0.015_02)));
    assert_eq!(told("session_duration", "destination"), Some(("2", 0.007_02)));
    assert_eq!(told("downtime", "stop"), Some(("1", 0.000_02)));
    assert_eq!(told("downtime", "source"), Some(("1", 0.005_02)));
    assert_eq!(told("downtime", "destination"), Some(("2", 0.007)));
    assert_eq!(told("downtime", "total"), Some(("1", 0.010_02)));
    assert!(!expose(&observer, Format::Text).contains(" # {"));
}

proptest! {
    #[test]
    fn whatever_a_label_holds_can_be_read_back(
        told in proptest::collection::vec(("(?s).{0,40}", "[\"\\\\\n{}=, #\u{20ac}]{0,12}"), 1..5),
    ) {
        let observer = observer();
        let metrics = observer.metrics();
        for (number, (vm, driver)) in told.iter().enumerate() {
            let info = Info { vm: vm.clone(), driver: driver.clone(), ..Info::default() };
            metrics.device.describe(&format!("device {number}"), Protocol::Region, &info);
        }
        let [text, open] = [Format::Text, Format::OpenMetrics]
            .map(|format| samples(&expose(&observer, format), format));
        prop_assert_eq!(&text, &open);
        for (vm, driver) in &told {
            let shown = open.keys().filter(|(name, _)| name == "vfio_migration_device_info");
            let shown = shown.filter(|(_, labels)| labels["vm"] == *vm && labels["driver"] == *driver);
            prop_assert!(shown.count() > 0, "{:?} {:?}", vm, driver);
        }
    }
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
    assert_eq!(source.refusals_by_rule, Some([("reserved_bits".into(), 1)].into()));
    assert_eq!(source.conduct_by_rule, Some([("size_before_offset".into(), 3)].into()));
    let moments: Vec<_> = source.violations.iter().map(|m| (&*m.rule, m.who.as_deref())).collect();
    assert_eq!(
        moments,
        [("reserved_bits", Some("client")), ("size_before_offset", Some("client"))]
    );
    assert_eq!(destination.conduct_by_rule, Some(BTreeMap::new()));
    assert!(destination.violations.is_empty());
    assert_eq!(source.downtime.stop_ns, Some(20_000));
    assert_eq!(source.downtime.source_ns, Some(5 * MS + 20_000));
    assert_eq!(source.downtime.total_ns, Some(10 * MS + 20_000));
    assert_eq!(destination.downtime.destination_ns, Some(7 * MS));
    assert_eq!(destination.downtime.total_ns, source.downtime.total_ns);
    assert_eq!((source.peer, destination.peer), (Some(2), Some(1)));
}

#[test]
fn the_last_session_of_a_device_takes_the_place_of_the_one_before() {
    let mut observer = observer();
    migrate(&mut observer);
    let nothing = DeviceSums::default();
    observer.events(&[
        Event::State(change(SOURCE, State::Stopped, State::Resuming, 50 * MS, nothing)),
        Event::State(change(SOURCE, State::Resuming, State::Stopped, 52 * MS, nothing)),
    ]);
    let text = exposition(&observer);
    let of_device: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("vfio_migration_last_session_"))
        .filter(|line| line.contains("0000:00:10.0"))
        .map(|line| line.replace("device=\"0000:00:10.0\"", ""))
        .collect();
    assert_eq!(
        of_device,
        [
            "data_bytes{} 0",
            "dirty_bytes{} 0",
            "duration_seconds{} 0.00202",
            "end_time_seconds{} 1700000000.052",
            "exact{} 1",
            "info{,vm=\"\",vm_uuid=\"\"} 1",
            "iterations{} 0",
            "result{,role=\"destination\",result=\"cancelled\"} 1",
            "result{,role=\"destination\",result=\"completed\"} 0",
            "result{,role=\"destination\",result=\"failed\"} 0",
            "result{,role=\"destination\",result=\"unknown\"} 0",
        ],
        "it was put aside: it had no downtime of its own"
    );
}

/// Each process is a machine that is named after its number.
struct Machines;

impl Describe for Machines {
    fn describe(&self, _device: DeviceKey, tgid: Option<u32>) -> Option<Info> {
        let pid = tgid.map(|pid| pid.to_string()).unwrap_or_default();
        Some(Info { vm: format!("vm-{pid}"), vm_uuid: pid, ..Info::default() })
    }

    fn is_present(&self, _device: DeviceKey) -> bool {
        true
    }
}

/// The machine that the source device has now, and the one that its last session was of, by their UUIDs.
fn machines_of_source(observer: &Observer) -> [Option<String>; 2] {
    let text = exposition(observer);
    ["vfio_migration_device_info{", "vfio_migration_last_session_info{"].map(|family| {
        let of_source = |line: &&str| line.starts_with(family) && line.contains("0000:00:10.0");
        let line = text.lines().find(of_source)?;
        Some(line.split_once("vm_uuid=\"")?.1.split_once('"')?.0.to_owned())
    })
}

#[test]
fn the_last_session_is_of_its_own_machine_also_when_another_has_the_device() {
    let metrics = Metrics::with_clock(Registry::new(), || Duration::from_secs(1_700_000_000));
    let mut observer = Observer::new(Machines, Arc::new(metrics));
    let is = |uuid: &str| Some(uuid.to_owned());
    migrate(&mut observer);
    assert_eq!(machines_of_source(&observer), [is("4711"), is("4711")]);
    let of_next = |from, now, cause, at_ms| {
        let change = change(SOURCE, from, now, at_ms * MS, DeviceSums::default());
        Event::State(StateChange { tgid: 9, cause, ..change })
    };
    observer.events(&[of_next(State::Stopped, State::Running, Cause::Open, 50)]);
    assert_eq!(machines_of_source(&observer), [is("9"), is("4711")]);
    // Its migration ends without a record, before the first that is seen of the machine after it.
    observer.events(&[of_next(State::Running, State::PreCopy, Cause::Write, 60)]);
    let change = change(SOURCE, State::Running, State::PreCopy, 70 * MS, DeviceSums::default());
    observer.events(&[Event::State(change)]);
    assert_eq!(machines_of_source(&observer), [is("4711"), is("9")]);
}

#[test]
fn nothing_is_shown_of_what_no_probe_watches() {
    let mut observer = observer();
    let missing = Missing::new("not loaded", "load it");
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
    let missing = Missing::new("not loaded", "load it");
    standing.insert(Probe::Data, Err(missing));
    observer.probes(standing);
    let mut sample = Sample::default();
    sample.devices.insert(SOURCE, DeviceSums { state: 1, ..DeviceSums::default() });
    observer.sampled(&sample);
    let text = exposition(&observer);
    assert!(!text.contains("vfio_migration_data_bytes_total"), "{text}");
    assert!(text.contains("vfio_migration_dirty_pages_total"), "{text}");
}

#[test]
fn a_refusal_is_counted_though_its_record_was_lost() {
    let mut observer = observer();
    observer.probes(attached());
    observer.losses(losses(0), MS);
    let start = DeviceSums::default();
    observer.events(&[Event::State(change(SOURCE, State::Running, State::PreCopy, 2 * MS, start))]);
    observer.losses(losses(4), 4 * MS);
    observer.events(&[Event::Violation(Violation {
        device: SOURCE,
        at_ns: 3 * MS,
        rule: Rule::Misaligned,
        state: State::PreCopy,
        field: None,
        value: 0,
    })]);
    let mut sample = Sample::default();
    let mut refusals = [0; Rule::COUNT];
    refusals[Rule::Misaligned.index() as usize] = 5;
    sample.refusals.insert(SOURCE, refusals);
    observer.sampled(&sample);

    let text = exposition(&observer);
    let labels = "device=\"0000:00:10.0\",rule=\"misaligned\"";
    assert!(text.contains(&format!("protocol_violations_total{{{labels}}} 5\n")), "{text}");
    assert!(text.contains("migscope_records_total{kind=\"error\"} 1\n"), "{text}");
    // The session has heard of one, and says that this is not all.
    let session = &observer.session_reports(5 * MS)[0];
    assert_eq!(session.refusals_by_rule, Some([("misaligned".into(), 1)].into()));
    assert!(!session.exact);
}

#[test]
fn a_loss_makes_states_unknown_and_sessions_inexact_until_told_again() {
    let mut observer = observer();
    observer.probes(attached());
    observer.losses(losses(0), MS);
    let start = DeviceSums::default();
    observer.events(&[Event::State(change(SOURCE, State::Running, State::PreCopy, 2 * MS, start))]);
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
    observer.sampled(&sample);
    // What is known: 2 to 3 ms, when it was last settled, and 6 to 7 ms.
    let shown = exposition(&observer);
    assert!(
        shown.contains("state_seconds_total{device=\"0000:00:10.0\",state=\"pre_copy\"} 0.002"),
        "{shown}"
    );
}

#[test]
fn a_device_for_which_there_is_no_room_is_lost_alone() {
    let mut observer = observer();
    observer.probes(attached());
    observer.losses(losses(0), MS);
    let start = DeviceSums::default();
    let without_room = StateChange {
        sums: None,
        ..change(DESTINATION, State::Running, State::PreCopy, 3 * MS, start)
    };
    observer.events(&[
        Event::State(change(SOURCE, State::Running, State::PreCopy, 2 * MS, start)),
        Event::State(without_room),
    ]);
    observer.losses(Losses { told: [0, 7, 0, 0], ..losses(0) }, 4 * MS);
    let states: Vec<_> = observer.device_reports(5 * MS).into_iter().map(|it| it.state).collect();
    assert_eq!(states, [Some("pre_copy".into()), Some("pre_copy".into())]);
    let reports = observer.session_reports(5 * MS);
    let known: Vec<_> = reports.iter().map(|it| (it.exact, it.figures.data_bytes)).collect();
    assert_eq!(known, [(true, Some(0)), (false, None)]);
    assert!(exposition(&observer).contains("events_lost_total{reason=\"map_full\"} 7"));
    // A call whose end was not seen may have been of anybody.
    observer.losses(Losses { told: [0, 7, 0, 1], ..losses(0) }, 6 * MS);
    assert!(observer.device_reports(7 * MS).iter().all(|device| device.state.is_none()));
    assert!(observer.session_reports(7 * MS).iter().all(|session| !session.exact));
}

#[test]
fn a_run_that_the_kernel_left_out_is_a_loss() {
    let mut observer = observer();
    observer.probes(attached());
    observer.losses(losses(0), MS);
    let start = DeviceSums::default();
    observer.events(&[Event::State(change(SOURCE, State::Running, State::PreCopy, 2 * MS, start))]);
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
        Event::State(change(SOURCE, State::Running, State::PreCopy, 5 * MS, start)),
        Event::State(change(SOURCE, State::PreCopy, State::Running, 11 * MS, start)),
        Event::State(change(SOURCE, State::Running, State::PreCopy, 12 * MS, start)),
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
    observer.events(&[Event::State(change(SOURCE, State::Running, State::PreCopy, 2 * MS, start))]);
    observer.bad_records(&[BadRecord::Kind(9), BadRecord::Short(3)], 3 * MS);
    observer.losses(losses(0), 3 * MS);
    assert!(exposition(&observer).contains("events_lost_total{reason=\"malformed\"} 2"));
    assert!(!observer.session_reports(4 * MS)[0].exact);
}

#[test]
fn the_series_of_a_closed_device_end_after_a_while() {
    let mut observer = observer();
    migrate(&mut observer);
    let close = StateChange {
        cause: Cause::Close,
        ..change(SOURCE, State::Stopped, State::Stopped, 50 * MS, DeviceSums::default())
    };
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
        Event::State(change(SOURCE, State::PreCopy, State::StopAndCopy, 8 * MS, end)),
        Event::State(change(SOURCE, State::StopAndCopy, State::Stopped, 9 * MS, end)),
    ]);
    let report = &observer.session_reports(9 * MS)[0];
    assert_eq!(report.result.as_deref(), Some("completed"));
    assert_eq!((report.exact, report.pid), (false, Some(PID)));
    assert_eq!(report.downtime.stop_ns, Some(20_000), "the stop was seen");
    assert_eq!(observer.migrations().len(), 1);
    assert!(!observer.migrations()[0].exact);
}
