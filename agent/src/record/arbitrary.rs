// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Inputs of every kind, with any values in them, for the tests.

use super::{
    header::Header,
    sample::{ACCESSES, BUCKETS, SERIES},
};
use crate::device_key::DeviceKey;
use crate::{
    dirty::{Source, Told},
    event::{Conduct, ConductCounts, DirtyQuery, Event, Machine, StateChange, Violation},
    feed::Input,
    metrics::Info,
    probes::{Standing, attach::Missing},
    sample::{Access, Losses, Sample},
    state::{Protocol, State},
};
use migscope_abi::{
    dirty::Outcome,
    machine::{MachineSums, Tracker},
    probe::Probe,
    region::Field,
    ring::{AccessKey, DeviceSums, Lost},
    rule::Rule,
    state::Cause,
    watch::conduct::Conduct as ConductRule,
};
use proptest::{collection::btree_map, collection::vec, prelude::*, sample::select};
use std::collections::BTreeMap;
use zerocopy::FromBytes as _;

/// A header for tests.
pub(super) fn header() -> Header {
    Header { created_monotonic_ns: 1_000, host: "test".into(), ..Header::default() }
}

/// Numbers as they come: zero, small, near to each other, any.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        0_u64..300,
        (1_u64 << 44)..(1 << 44) + 1_000_000,
        any::<u64>(),
        Just(u64::MAX)
    ]
}

fn device() -> impl Strategy<Value = DeviceKey> {
    prop_oneof![(0_u64..4).prop_map(|key| DeviceKey(key << 3)), any::<u64>().prop_map(DeviceKey)]
}

fn sums() -> impl Strategy<Value = DeviceSums> {
    vec(number(), size_of::<DeviceSums>() / 8).prop_map(|numbers| {
        let bytes: Vec<u8> = numbers.into_iter().flat_map(u64::to_ne_bytes).collect();
        DeviceSums::read_from_bytes(&bytes).expect("as many bytes as it has")
    })
}

fn state() -> impl Strategy<Value = State> {
    select(&State::ALL[..])
}

fn state_change() -> impl Strategy<Value = StateChange> {
    let who = (device(), any::<u32>(), select(vec![Protocol::Region, Protocol::V2]));
    let what = (state(), proptest::option::of(state()), state(), select(&Cause::ALL[..]));
    let how = (number(), number(), any::<i32>(), proptest::option::of(sums()));
    (who, what, how).prop_map(|(who, what, how)| StateChange {
        device: who.0,
        tgid: who.1,
        protocol: who.2,
        from: what.0,
        requested: what.1,
        now: what.2,
        cause: what.3,
        at_ns: how.0,
        duration_ns: how.1,
        result: how.2,
        sums: how.3,
    })
}

fn dirty_query() -> impl Strategy<Value = DirtyQuery> {
    let who = (device(), select(&Source::ALL[..]));
    (who, number(), number(), number(), number(), select(&Outcome::ALL[..]), number()).prop_map(
        |((device, source), at_ns, start_bytes, range_bytes, dirty_bytes, outcome, duration_ns)| {
            DirtyQuery {
                device,
                source,
                at_ns,
                start_bytes,
                range_bytes,
                dirty_bytes,
                outcome,
                duration_ns,
            }
        },
    )
}

fn violation() -> impl Strategy<Value = Violation> {
    let field = proptest::option::of(select(&Field::ALL[..]));
    (device(), number(), select(&Rule::ALL[..]), state(), field, number()).prop_map(
        |(device, at_ns, rule, state, field, value)| Violation {
            device,
            at_ns,
            rule,
            state,
            field,
            value,
        },
    )
}

fn conduct() -> impl Strategy<Value = Conduct> {
    let field = proptest::option::of(select(&Field::ALL[..]));
    let state = proptest::option::of(state());
    let rule = select(&ConductRule::ALL[..]);
    (device(), number(), rule, number(), state, field, number()).prop_map(
        |(device, at_ns, rule, count, state, field, value)| Conduct {
            device,
            at_ns,
            rule,
            count,
            state,
            field,
            value,
        },
    )
}

/// How often each of `N` rules was broken: most never.
fn counts<const N: usize>() -> impl Strategy<Value = [u64; N]> {
    let count = prop_oneof![9 => Just(0), 1 => number()];
    vec(count, N).prop_map(|counts| counts.try_into().expect("as many"))
}

fn standing() -> impl Strategy<Value = Standing> {
    let missing = (any::<String>(), any::<String>());
    let attached =
        prop_oneof![Just(Ok(())), missing.prop_map(|(why, remedy)| Err(Missing::new(why, remedy)))];
    btree_map(select(&Probe::ALL[..]), attached, 0..=Probe::COUNT)
}

fn losses() -> impl Strategy<Value = Losses> {
    (any::<[u64; Lost::COUNT]>(), proptest::option::of(number()))
        .prop_map(|(told, skipped)| Losses { told, skipped })
}

fn devices() -> impl Strategy<Value = BTreeMap<DeviceKey, DeviceSums>> {
    btree_map(device(), sums(), 0..5)
}

fn access() -> impl Strategy<Value = Access> {
    (device(), 0_u32..20, 0_u32..4, number()).prop_map(|(device, field, op_and_refused, count)| {
        Access { key: AccessKey { device: device.0, field, op_and_refused }, count }
    })
}

/// What trackers told: of most processes one did.
fn told() -> impl Strategy<Value = Told> {
    vec(number(), size_of::<MachineSums>() / 8).prop_flat_map(|numbers| {
        let bytes: Vec<u8> = numbers.into_iter().flat_map(u64::to_ne_bytes).collect();
        let sums = MachineSums::read_from_bytes(&bytes).expect("as many bytes as it has");
        (0..Tracker::COUNT).prop_map(move |place| {
            let mut told = Told::default();
            told[place] = sums;
            told
        })
    })
}

fn sample() -> impl Strategy<Value = Sample> {
    let buckets = || (vec(prop_oneof![3 => Just(0), 1 => number()], 0..40), number());
    let latencies = btree_map((0_u32..6, 0_u32..2), buckets(), 0..6);
    let machines = (btree_map(0_u32..4, told(), 0..4), btree_map(0_u32..4, buckets(), 0..4));
    let seen = vec(number(), Probe::COUNT);
    let conduct = btree_map(device(), counts(), 0..4);
    let refusals = btree_map(device(), counts(), 0..4);
    (number(), devices(), vec(access(), 0..12), latencies, seen, conduct, refusals, machines)
        .prop_map(|(at_ns, devices, accesses, latencies, seen, conduct, refusals, machines)| {
            Sample {
                at_ns,
                devices,
                accesses,
                latencies,
                seen: seen.try_into().expect("as many as there are"),
                conduct,
                refusals,
                machines: machines.0,
                query_latencies: machines.1,
                ..Sample::default()
            }
        })
}

/// Any input. The match is there for the compiler: a new kind has to come here too.
pub(super) fn input() -> impl Strategy<Value = Input> {
    let all = prop_oneof![
        standing().prop_map(Input::Probes),
        (losses(), number()).prop_map(|(losses, at_ns)| Input::Losses(losses, at_ns)),
        number().prop_map(Input::Lost),
        state_change().prop_map(|change| Input::Event(Event::State(change))),
        dirty_query().prop_map(|query| Input::Event(Event::DirtyQuery(query))),
        violation().prop_map(|violation| Input::Event(Event::Violation(violation))),
        conduct().prop_map(|conduct| Input::Event(Event::Conduct(conduct))),
        (device(), counts()).prop_map(|(device, counts)| {
            Input::Event(Event::ConductCounts(ConductCounts { device, counts }))
        }),
        (device(), number(), any::<u32>(), told()).prop_map(|(device, at_ns, tgid, told)| {
            Input::Event(Event::Machine(Machine { device, at_ns, tgid, told }))
        }),
        number().prop_map(Input::Settled),
        sample().prop_map(Input::Sample),
        (number(), devices()).prop_map(|(at_ns, devices)| Input::Sums(at_ns, devices)),
        any::<String>().prop_map(Input::Named),
        (device(), any::<[String; 4]>()).prop_map(
            |(device, [driver, iommu_group, vm, vm_uuid])| {
                Input::Info(device, Info { driver, iommu_group, vm, vm_uuid })
            }
        ),
    ];
    all.prop_map(|input| {
        match &input {
            Input::Probes(_)
            | Input::Losses(..)
            | Input::Lost(_)
            | Input::Event(
                Event::State(_)
                | Event::DirtyQuery(_)
                | Event::Violation(_)
                | Event::Conduct(_)
                | Event::ConductCounts(_)
                | Event::Machine(_),
            )
            | Input::Settled(_)
            | Input::Sample(_)
            | Input::Sums(..)
            | Input::Named(_)
            | Input::Info(..) => {}
        }
        input
    })
}

/// Inputs that are too long for a recording, and one that is as long as may be.
pub(super) fn longest() -> (Vec<Input>, Input) {
    let sums = DeviceSums { state: 3, dirty_pages: u64::MAX, ..DeviceSums::default() };
    let many = |count: usize| (0..count as u64).map(|key| (DeviceKey(key << 40), sums)).collect();
    let access = Access {
        key: AccessKey { device: u64::MAX, field: u32::MAX, op_and_refused: u32::MAX },
        count: u64::MAX,
    };
    let series =
        |count: u32| (0..count).map(|field| ((field, 1), (vec![u64::MAX / 3; BUCKETS], 7)));
    let most = Sample {
        devices: many(super::sums::DEVICES),
        accesses: vec![access; ACCESSES],
        latencies: series(u32::try_from(SERIES).expect("few")).collect(),
        ..Sample::default()
    };
    let text = "x".repeat(super::bytes::TEXT_BYTES + 1);
    let too_long = vec![
        Input::Sums(5, many(super::sums::DEVICES + 1)),
        Input::Sample(Sample { accesses: vec![access; ACCESSES + 1], ..Sample::default() }),
        Input::Sample(Sample {
            latencies: series(u32::try_from(SERIES).expect("few") + 1).collect(),
            ..Sample::default()
        }),
        Input::Sample(Sample {
            latencies: BTreeMap::from([((0, 0), (vec![1; BUCKETS + 1], 1))]),
            ..Sample::default()
        }),
        Input::Info(DeviceKey(1), Info { vm: text, ..Info::default() }),
    ];
    (too_long, Input::Sample(most))
}
