// SPDX-License-Identifier: Apache-2.0 OR MIT
//! However many devices come and whatever they do, the series stay within the bounds that are documented.

use migscope::device_key::DeviceKey;
use migscope::{
    convergence::Reason,
    event::{DirtyQuery, Event, StateChange, Violation},
    host::Paths,
    metrics::{Convergence, DEVICES, Metrics, REASONS, Remaining, Values, describe},
    observer::Observer,
    sample::{Access, Losses, Sample},
    session::Downtime,
    state::{Protocol, State},
};
use migscope_abi::{
    dirty::Outcome,
    latency::BUCKETS,
    probe::Probe,
    region::{Field, Op},
    ring::{AccessKey, DeviceSums},
    rule::Rule,
    state::Cause,
    trace::DataDirection,
};
use prometheus::Registry;
use proptest::{prelude::*, sample::select};
use std::{path::PathBuf, sync::Arc, time::Duration};

fn observer() -> Observer {
    let nowhere = PathBuf::from("/nonexistent");
    let paths = Paths { sysfs: nowhere.clone(), procfs: nowhere };
    Observer::new(paths, Arc::new(Metrics::new(Registry::new())))
}

fn state() -> impl Strategy<Value = State> {
    select(State::ALL.to_vec())
}

/// More devices than there is room for.
fn device() -> impl Strategy<Value = DeviceKey> {
    (0_u8..2, 0_u8..=255).prop_map(|(bus, function)| DeviceKey::pci(0, bus, function))
}

fn event() -> impl Strategy<Value = Event> {
    let change = (device(), 0_u64..1 << 40, state(), 0_usize..9, state(), any::<bool>());
    let change = (change, select(Cause::ALL.to_vec()), 0_u64..1 << 40).prop_map(
        |((device, at_ns, from, requested, now, refused), cause, duration_ns)| {
            Event::State(StateChange {
                device,
                at_ns,
                tgid: 0,
                protocol: Protocol::Region,
                from,
                requested: State::ALL.get(requested).copied(),
                now,
                cause,
                duration_ns,
                result: if refused { -22 } else { 0 },
                sums: Some(DeviceSums {
                    state: now as u64,
                    last_seen_ns: at_ns,
                    ..DeviceSums::default()
                }),
            })
        },
    );
    let query = (device(), select(Outcome::ALL.to_vec()), any::<u64>()).prop_map(
        |(device, outcome, duration_ns)| {
            Event::DirtyQuery(DirtyQuery {
                device,
                source: migscope::dirty::Source::Region,
                at_ns: 0,
                start_bytes: 0,
                range_bytes: 4096,
                dirty_bytes: duration_ns,
                outcome,
                duration_ns,
            })
        },
    );
    let violation =
        (device(), select(Rule::ALL.to_vec()), state()).prop_map(|(device, rule, state)| {
            Event::Violation(Violation { device, at_ns: 0, rule, state, field: None, value: 0 })
        });
    prop_oneof![6 => change, 1 => query, 1 => violation]
}

fn sample() -> impl Strategy<Value = Sample> {
    let access = (device(), 0_u32..20, 0_u32..4);
    let devices = proptest::collection::vec(device(), 0..400);
    (devices, proptest::collection::vec(access, 0..200)).prop_map(|(devices, accesses)| {
        let mut sample = Sample::default();
        sample.devices.extend(devices.into_iter().map(|key| (key, DeviceSums::default())));
        sample.accesses.extend(accesses.into_iter().map(|(device, field, op_and_refused)| {
            Access { key: AccessKey { device: device.0, field, op_and_refused }, count: 1 }
        }));
        for (field, op) in (0..20).flat_map(|field| (0..3).map(move |op| (field, op))) {
            sample.latencies.insert((field, op), (vec![1; BUCKETS], 1));
        }
        sample
    })
}

fn within_bounds(metrics: &Metrics) -> Result<(), TestCaseError> {
    for (family, series) in metrics.series() {
        prop_assert!(series <= family.most_series(), "{}: {}", family.name, series);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn no_family_grows_past_its_bound(
        events in proptest::collection::vec(event(), 0..2000),
        sample in sample(),
    ) {
        let mut observer = observer();
        observer.probes(Probe::ALL.into_iter().map(|event| (event, Ok(()))).collect());
        observer.losses(Losses { skipped: Some(0), ..Losses::default() }, 0);
        observer.events(&events);
        observer.settled(1 << 41);
        observer.sampled(&sample);
        within_bounds(observer.metrics())?;
    }
}

/// One of many devices.
fn key(number: usize) -> DeviceKey {
    let [function, bus, ..] = number.to_le_bytes();
    DeviceKey::pci(0, bus, function)
}

#[test]
fn a_family_that_is_full_says_what_it_refused_until_devices_age_out() {
    let observer = observer();
    let metrics = observer.metrics();
    let keys: Vec<_> = (0..DEVICES).map(key).collect();
    let one_more = key(DEVICES);
    let show = |key: DeviceKey| {
        let device = key.to_string();
        let outlook = Convergence {
            throughput: &[(DataDirection::Save, 1.0), (DataDirection::Resume, 1.0)],
            converging: Some(false),
            blocked: Some(&Reason::ALL),
            remaining: Some(Duration::from_secs(1)),
            ..Convergence::default()
        };
        metrics.convergence.show(&device, &outlook);
        let bytes = Some(1);
        let remaining = Remaining { precopy_initial_bytes: bytes, ..Remaining::default() };
        metrics.device.show_remaining(&device, &remaining);
    };
    keys.iter().copied().for_each(show);
    let shown = || String::from_utf8(metrics.encode().expect("encodes")).expect("text");
    assert!(!shown().contains("refused_total{"), "as many devices have room");
    show(one_more);
    within_bounds(metrics).expect("bounded");
    let text = shown();
    for (family, refused) in [
        ("vfio_migration_converging", 1),
        ("vfio_migration_blocked", REASONS.len()),
        ("vfio_migration_precopy_initial_bytes", 1),
    ] {
        let line = format!("migscope_series_refused_total{{family=\"{family}\"}} {refused}\n");
        assert!(text.contains(&line), "{line}: {text}");
    }
    assert!(!text.contains(&one_more.to_string()));
    metrics.forget(keys[0]);
    show(one_more);
    let text = shown();
    assert!(text.contains(&one_more.to_string()) && !text.contains(&keys[0].to_string()));
    // Two directions, converging, the reasons, remaining, and one of the bytes.
    let evicted = format!("migscope_series_evicted_total {}\n", 2 + 1 + REASONS.len() + 1 + 1);
    assert!(text.contains(&evicted), "{evicted}: {text}");
}

#[test]
fn a_device_that_was_refused_is_shown_once_another_ages_out_though_nothing_of_it_changes() {
    let mut observer = observer();
    observer.probes(Probe::ALL.into_iter().map(|event| (event, Ok(()))).collect());
    let keys: Vec<_> = (0..DEVICES).map(key).collect();
    let one_more = key(DEVICES);
    let change = |device, cause, at_ns| {
        let running = State::Running;
        Event::State(StateChange {
            device,
            at_ns,
            tgid: 1,
            protocol: Protocol::Region,
            from: running,
            requested: Some(running),
            now: running,
            cause,
            duration_ns: 1,
            result: 0,
            sums: None,
        })
    };
    let sums = DeviceSums { state: 1, iterations: [7, 0], ..DeviceSums::default() };
    let access = |device: DeviceKey| Access {
        key: AccessKey { device: device.0, field: Field::PendingBytes as u32, op_and_refused: 0 },
        count: 3,
    };
    let all: Vec<_> = keys.iter().copied().chain([one_more]).collect();
    let sample = Sample {
        devices: all.iter().map(|device| (*device, sums)).collect(),
        accesses: all.iter().copied().map(access).collect(),
        ..Sample::default()
    };
    let opened: Vec<_> = all.iter().map(|device| change(*device, Cause::Open, 1)).collect();
    observer.events(&opened);
    // What is shown once stays, however often the same is told.
    for at_ns in [2, 3, 4] {
        observer.settled(at_ns);
        observer.sampled(&Sample { at_ns, ..sample.clone() });
    }
    let lines = |observer: &Observer, device: DeviceKey| {
        let text = observer.metrics().encode().expect("encodes");
        let name = format!("device=\"{device}\"");
        let text = String::from_utf8(text).expect("text");
        text.lines().filter(|line| line.contains(&name)).map(str::to_owned).collect::<Vec<_>>()
    };
    // Families whose label sets are not all there have room for it yet.
    let iterations = format!("vfio_migration_iterations_total{{device=\"{one_more}\"}} 7");
    assert!(!lines(&observer, one_more).contains(&iterations));
    let of_another = lines(&observer, keys[1]).len();
    assert!(of_another > 10, "{of_another}");
    observer.events(&[change(keys[0], Cause::Close, 5)]);
    assert_eq!(observer.retire(Duration::ZERO, 6), [keys[0]]);
    let mut rest = sample.clone();
    rest.devices.remove(&keys[0]);
    rest.accesses.remove(0);
    observer.settled(7);
    observer.sampled(&Sample { at_ns: 7, ..rest });
    assert_eq!(lines(&observer, keys[0]), [""; 0]);
    let shown = lines(&observer, one_more);
    // All but what it is, which is told once, when it is first seen.
    assert!(shown.len() >= of_another - 1, "{shown:#?}");
    assert!(shown.contains(&iterations), "{shown:#?}");
}

#[test]
fn every_part_of_a_downtime_has_its_series() {
    let metrics = Metrics::new(Registry::new());
    for (part, _) in Downtime::default().parts() {
        metrics.session.downtime_part(part, 5_000_000, 1);
    }
    let text = String::from_utf8(metrics.encode().expect("encodes")).expect("text");
    let parts = "stop final_data final_dirty transfer_gap load start source destination total";
    for part in parts.split(' ') {
        let line = format!("vfio_migration_downtime_seconds_count{{part=\"{part}\"}} 1\n");
        assert!(text.contains(&line), "{part}: {text}");
    }
}

#[test]
fn every_family_is_described_before_it_has_a_series() {
    let families = describe();
    assert!(families.len() > 40 && families.len() <= 128, "{}", families.len());
    for family in &families {
        assert!(family.help.ends_with('.') && !family.absent.is_empty(), "{family:?}");
        assert!(!family.absent.ends_with('.'), "it completes a sentence: {family:?}");
        for label in &family.labels {
            assert!(label.most() > 0, "{family:?}");
            assert_eq!(label.name == "device", label.values == Values::Devices, "{family:?}");
        }
    }
    let blocked = families.iter().find(|family| family.name == "vfio_migration_blocked");
    let blocked = blocked.expect("there is one");
    assert_eq!(blocked.most_series(), DEVICES * REASONS.len());
    let accesses = families.iter().find(|f| f.name == "vfio_migration_region_accesses_total");
    let most = accesses.expect("there is one").most_series();
    assert_eq!(most, DEVICES * Field::COUNT * Op::COUNT * 2);
}
