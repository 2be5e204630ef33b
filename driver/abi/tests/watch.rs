// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The protocol watch: for each rule a trace that breaks it and one near it that does not; a client that obeys, in any order
//! that the protocol allows, with one breach or none; and anything at all.

use migscope_abi::region::Field::{CopiedPfns, Data, DataOffset, DataSize};
use migscope_abi::region::{Field, Op};
use migscope_abi::rule::Rule;
use migscope_abi::state::{Cause, State};
use migscope_abi::trace;
use migscope_abi::watch::conduct::{Conduct, Party};
use migscope_abi::watch::Watch;
use proptest::prelude::*;

#[path = "watch/client.rs"]
mod client;
#[path = "watch/examples.rs"]
mod examples;
#[path = "watch/scene.rs"]
mod scene;
use scene::{Scene, DATA};

fn played(play: fn(&mut Scene)) -> Vec<Conduct> {
    let mut scene = Scene::opened();
    play(&mut scene);
    scene.broken
}

#[test]
fn each_rule_has_a_trace_that_breaks_it_and_one_near_it_that_does_not() {
    for (at, (rule, breach, near)) in examples::all().enumerate() {
        assert_eq!(played(*breach), [*rule], "example {at}");
        assert_eq!(played(*near), [], "example {at}, near {rule:?}");
    }
    for rule in Conduct::ALL {
        assert!(examples::all().any(|(shown, ..)| *shown == rule), "{rule:?} has no example");
    }
}

#[test]
fn rules_are_numbered_in_their_order_and_share_no_name_with_those_of_the_driver() {
    for (number, conduct) in (1..).zip(Conduct::ALL) {
        assert_eq!(Conduct::try_from(number), Ok(conduct));
        assert_eq!(conduct.index() + 1, number);
    }
    assert_eq!(Conduct::try_from(0), Err(0));
    assert_eq!(Conduct::try_from(35), Err(35));
    let conduct = Conduct::ALL.iter().map(|rule| rule.name());
    let mut names: Vec<&str> = conduct.chain(Rule::ALL.iter().map(|rule| rule.name())).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Conduct::COUNT + Rule::COUNT);
    let drivers = Conduct::ALL.iter().filter(|rule| rule.party() == Party::Driver).count();
    assert_eq!(drivers, 11);
}

#[test]
fn who_comes_in_the_middle_of_a_session_says_nothing_about_what_it_did_not_see() {
    for state in [State::PreCopy, State::StopAndCopy] {
        let mut scene = Scene::unseen();
        scene.state = state as u32;
        scene.get(DataSize, 9);
        scene.data(0, 9);
        scene.get(DataOffset, DATA);
        scene.bitmap(0, 8);
        scene.get(CopiedPfns, 64);
        scene.stage(9, 9);
        assert_eq!(scene.broken, [], "{state:?}");
        // What is seen whole is judged.
        scene.refused(Data, Op::Read, DATA, 10);
        assert_eq!(scene.broken, [Conduct::DataPastSize]);
    }
    let mut scene = Scene::unseen();
    scene.state = State::StopAndCopy as u32;
    scene.go(State::Stopped);
    assert_eq!(scene.broken, []);
}

#[test]
fn without_the_records_of_accesses_nobody_is_blamed_for_what_was_not_seen() {
    let mut scene = Scene::opened();
    for state in [State::PreCopy, State::StopAndCopy, State::Stopped, State::Running] {
        scene.change(state as u32, Cause::Write, 0);
    }
    assert_eq!(scene.broken, []);
}

#[test]
fn a_lost_record_of_a_state_makes_it_unknown_again() {
    let mut scene = Scene::saving(State::PreCopy);
    // To running and back: the second record is there.
    scene.state = State::Running as u32;
    scene.change(State::StopAndCopy as u32, Cause::Write, 0);
    scene.get(DataSize, 9);
    scene.data(0, 9);
    assert_eq!(scene.broken, []);
}

#[test]
fn sessions_and_opens_begin_a_count_and_nothing_else_does() {
    let mut watch = Watch::START;
    let mut begins = |from: u32, now: u32, cause: Cause, result: i32| {
        let (cause, reserved, requested) = (cause as u32, 0, now);
        let now = if result < 0 { from } else { now };
        let (device, duration_ns) = (7, 1);
        let record =
            trace::State { device, duration_ns, from, requested, now, cause, result, reserved };
        watch.state_changed(&record).begins
    };
    assert!(begins(1, 1, Cause::Open, 0));
    assert!(!begins(1, 3, Cause::Write, -22));
    assert!(begins(1, 3, Cause::Write, 0));
    assert!(!begins(3, 2, Cause::Write, 0));
    assert!(!begins(2, 2, Cause::Write, 0));
    assert!(!begins(2, 0, Cause::Write, 0));
    assert!(begins(0, 4, Cause::Write, 0));
    assert!(!begins(4, 4, Cause::Write, 0));
    assert!(!begins(4, 1, Cause::Reset, 0));
    assert!(!begins(1, 1, Cause::Close, 0));
}

#[test]
fn a_device_that_runs_and_has_none_of_what_is_pending_to_give_withholds_it() {
    let mut scene = Scene::saving(State::PreCopy);
    scene.stage(500, 100);
    assert_eq!(scene.withheld(), None, "it gives");
    scene.data(0, 100);
    scene.stage(400, 0);
    assert_eq!(scene.withheld(), Some(400));
    scene.get(DataSize, 0);
    assert_eq!(scene.withheld(), None, "the same answer, read again, is no other");
    scene.get(DataOffset, DATA);
    scene.get(DataSize, 0);
    assert_eq!(scene.withheld(), Some(400), "asked anew");
    scene.stage(0, 0);
    assert_eq!(scene.withheld(), None, "nothing is pending");
    scene.go(State::StopAndCopy);
    scene.stage(400, 0);
    assert_eq!(scene.withheld(), None, "it stands: that is a breach");
    // The size of a bitmap is none of data.
    let mut scene = Scene::saving(State::PreCopy);
    scene.get(Field::PendingBytes, 400);
    scene.ask(64);
    scene.get(CopiedPfns, 64);
    scene.get(DataOffset, scene::BITMAP);
    scene.get(DataSize, 0);
    assert_eq!(scene.withheld(), None);
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..10u64, 0x1000..0x1020u64, Just(u64::MAX), any::<u64>()]
}

/// How long a random trace is at most. Under Miri each step takes tens of milliseconds.
const SHORT: usize = if cfg!(miri) { 40 } else { 400 };

/// A record of either kind, with anything in it.
fn anything() -> impl Strategy<Value = Result<trace::RegionAccess, trace::State>> {
    let access = (number(), number(), number(), -30..10i64, 0..14u32, 0..3u32, 0..8u32).prop_map(
        |(offset, bytes, value, result, field, op, state)| trace::RegionAccess {
            device: 7,
            offset,
            bytes,
            value,
            duration_ns: 0,
            result,
            field,
            op,
            state,
            reserved: 0,
        },
    );
    let state = (0..8u32, 0..9u32, 0..8u32, 0..7u32, -1..1i32).prop_map(
        |(from, requested, now, cause, result)| trace::State {
            device: 7,
            duration_ns: 0,
            from,
            requested,
            now,
            cause,
            result,
            reserved: 0,
        },
    );
    prop_oneof![4 => access.prop_map(Ok), 1 => state.prop_map(Err)]
}

proptest! {
    // A file with failures would be written beside this one.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_records_at_all_are_taken(records in prop::collection::vec(anything(), 0..SHORT / 2)) {
        let mut watch = Watch::START;
        for record in &records {
            match record {
                Ok(access) => drop(watch.access(access)),
                Err(change) => drop(watch.state_changed(change)),
            }
        }
    }

    #[test]
    fn a_client_that_obeys_breaks_nothing(choices in prop::collection::vec(any::<u16>(), 0..SHORT)) {
        prop_assert_eq!(client::play(&choices, None), (Vec::new(), false));
    }

    #[test]
    fn one_breach_is_told_once_and_by_its_name(
        choices in prop::collection::vec(any::<u16>(), SHORT / 4..SHORT),
        rule in prop::sample::select(client::BREACHES),
        skip in 0..3u32,
    ) {
        let (broken, done) = client::play(&choices, Some((rule, skip)));
        let expected = if done { vec![rule] } else { Vec::new() };
        prop_assert_eq!(broken, expected);
    }

    #[test]
    fn one_who_comes_at_any_moment_blames_nobody(
        choices in prop::collection::vec(any::<u16>(), 0..SHORT),
        missed in 0..300usize,
    ) {
        prop_assert_eq!(client::play_from(&choices, missed), Vec::new());
    }
}

#[test]
#[cfg_attr(
    miri,
    ignore = "it asks of thousands of random traces whether they try enough, and calls nothing that the others do not"
)]
fn every_breach_of_the_client_happens_in_some_trace() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = prop::collection::vec(any::<u16>(), 100..400);
    for rule in client::BREACHES {
        let found = (0..400).any(|_| {
            let choices = strategy.new_tree(&mut runner).expect("a sequence").current();
            client::play(&choices, Some((*rule, 0))).1
        });
        assert!(found, "{rule:?} was never tried");
    }
}

#[test]
fn fields_have_the_numbers_that_the_watch_goes_by() {
    // The scene's records and the watch's both come from these; a field that moved would go unseen in both.
    assert_eq!(Field::ALL.map(|field| field as u32), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
}
