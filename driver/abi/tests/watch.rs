// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The protocol watch: for each rule a trace that breaks it and one near it that does not; a client that obeys, in any order
//! that the protocol allows, with one breach or none; and anything at all.

use migscope_abi::region::Field::{
    Bitmap, CopiedPfns, Data, DataOffset, DataSize, DeviceState, PageSize, PendingBytes, Reserved,
    StartPfn, TotalPfns,
};
use migscope_abi::region::{Field, Op, PFNS_ALL, PFNS_NONE};
use migscope_abi::rule::Rule;
use migscope_abi::state::{Cause, State};
use migscope_abi::trace;
use migscope_abi::watch::conduct::{Conduct, Party};
use migscope_abi::watch::Watch;
use proptest::prelude::*;

#[path = "watch/client.rs"]
mod client;
#[path = "watch/scene.rs"]
mod scene;
use scene::{Scene, BITMAP, DATA};

/// A rule, a trace that breaks it once and no other, and one near it that breaks none.
type Example = (Conduct, fn(&mut Scene), fn(&mut Scene));

/// Each begins with a device that was just opened.
const EXAMPLES: &[Example] = &[
    (
        Conduct::ArcAsked,
        |s| {
            s.go(State::PreCopy);
            s.denied(4);
        },
        |s| {
            s.tell(6, 6, Cause::Failure, -5);
            s.denied(1); // how else to know that it takes none
        },
    ),
    (Conduct::StateAsked, |s| s.denied(1 | 1 << 7), |s| s.denied(4)),
    (
        Conduct::ArcAccepted,
        |s| {
            s.go(State::Stopped);
            s.go(State::PreCopy);
        },
        |s| {
            s.go(State::Stopped);
            s.go(State::StopAndCopy); // a machine that is paused is migrated
        },
    ),
    (Conduct::StateAccepted, |s| s.go_to(5), |s| s.go_to(4)),
    (
        Conduct::StateMisplaced,
        |s| s.tell(3, 1, Cause::Write, 0),
        |s| s.tell(3, 6, Cause::Write, 0), // it failed on the way
    ),
    (
        Conduct::StateMisplaced,
        |s| s.tell(3, 0, Cause::Write, -5),
        |s| s.tell(3, 6, Cause::Write, -5),
    ),
    (Conduct::StateMisread, |s| s.get(DeviceState, 3), |s| s.get(DeviceState, 1)),
    (
        Conduct::LeftWithPending,
        |s| {
            s.go(State::StopAndCopy);
            s.stage(100, 100);
            s.data(0, 100);
            s.go(State::Stopped);
        },
        |s| {
            s.go(State::StopAndCopy);
            s.stage(100, 100);
            s.data(0, 100);
            s.go(State::Running); // cancelled
        },
    ),
    (
        Conduct::LeftWithPending,
        |s| {
            s.go(State::PreCopy);
            s.get(PendingBytes, 0); // of a device that ran
            s.go(State::StopAndCopy);
            s.go(State::Stopped);
        },
        |s| {
            s.go(State::StopAndCopy);
            s.get(PendingBytes, 0);
            s.go(State::StopAndCopy); // as QEMU does
            s.go(State::Stopped);
        },
    ),
    (Conduct::PendingOutsideSaving, |s| s.get(PendingBytes, 1), |s| s.get(PendingBytes, 0)),
    (
        Conduct::PendingGrew,
        |s| {
            s.go(State::StopAndCopy);
            s.get(PendingBytes, 5);
            s.get(PendingBytes, 6);
        },
        |s| {
            s.go(State::PreCopy);
            s.get(PendingBytes, 5);
            s.get(PendingBytes, 6); // it runs
            s.go(State::StopAndCopy);
            s.stage(7, 1);
            s.get(PendingBytes, 8); // what it staged was larger than what it had counted
        },
    ),
    (
        Conduct::PendingWithoutData,
        |s| {
            s.go(State::StopAndCopy);
            s.stage(5, 0);
            s.go(State::Stopped); // as QEMU does, which is not to blame
        },
        |s| {
            s.go(State::PreCopy);
            s.stage(5, 0);
        },
    ),
    (
        Conduct::OffsetBeforePending,
        |s| {
            s.go(State::PreCopy);
            s.get(DataOffset, DATA);
        },
        |s| {
            s.go(State::PreCopy);
            s.get(PendingBytes, 1);
            s.go(State::StopAndCopy);
            s.get(DataOffset, DATA);
        },
    ),
    (
        Conduct::OffsetWithoutPending,
        |s| {
            s.go(State::PreCopy);
            s.get(PendingBytes, 0);
            s.get(DataOffset, DATA);
        },
        |s| {
            s.get(DataOffset, DATA); // where the window is can be asked at any time
            s.go(State::Resuming);
            s.get(DataOffset, DATA);
        },
    ),
    (
        Conduct::OffsetInStruct,
        |s| {
            s.go(State::Resuming);
            s.get(DataOffset, 63);
        },
        |s| {
            s.go(State::Resuming);
            s.get(DataOffset, 64);
        },
    ),
    (
        Conduct::SizeBeforeOffset,
        |s| {
            s.go(State::PreCopy);
            s.get(PendingBytes, 9);
            s.get(DataSize, 9);
            s.data(0, 9);
        },
        |s| {
            s.go(State::PreCopy);
            s.stage(9, 9);
            s.get(DataSize, 9);
            s.ask(64);
            s.get(CopiedPfns, 64);
            s.get(DataSize, 8); // of the bitmap
        },
    ),
    (
        Conduct::BufferChanged,
        |s| {
            s.go(State::PreCopy);
            s.stage(9, 9);
            s.get(DataSize, 8);
        },
        |s| {
            s.go(State::PreCopy);
            s.stage(9, 0);
            s.get(DataOffset, DATA + 64);
            s.get(DataSize, 8); // now there is something
            s.get(DataOffset, DATA + 64);
        },
    ),
    (
        Conduct::BufferChanged,
        |s| {
            s.go(State::PreCopy);
            s.stage(9, 9);
            s.get(DataOffset, DATA + 64);
        },
        |s| {
            s.go(State::PreCopy);
            s.stage(9, 9);
            s.stage(9, 9);
            s.get(DataOffset, DATA);
        },
    ),
    (
        Conduct::DataOutsideSaving,
        |s| s.refused(Data, Op::Read, DATA, 8),
        |s| {
            s.go(State::PreCopy);
            s.stage(8, 8);
            s.go(State::Running); // a cancel overtakes the thread that reads
            s.refused(Data, Op::Read, DATA, 8);
        },
    ),
    (
        Conduct::DataOutsideSaving,
        |s| {
            s.go(State::PreCopy);
            s.stage(8, 8);
            s.go(State::Running);
            s.get(PendingBytes, 0); // by now it has found out
            s.refused(Data, Op::Read, DATA, 8);
        },
        |s| {
            s.tell(6, 6, Cause::Failure, -5);
            s.refused(Data, Op::Read, DATA, 8);
        },
    ),
    (
        Conduct::DataBeforeOffset,
        |s| {
            s.go(State::PreCopy);
            s.get(PendingBytes, 9);
            s.refused(Data, Op::Read, DATA, 8);
            s.refused(Data, Op::Read, DATA + 8, 8);
        },
        |s| {
            s.go(State::PreCopy);
            s.stage(9, 9);
            s.data(0, 4);
            s.data(0, 9);
        },
    ),
    (
        Conduct::DataBeforeSize,
        |s| {
            s.go(State::PreCopy);
            s.get(PendingBytes, 9);
            s.get(DataOffset, DATA);
            s.data(0, 8);
        },
        |s| {
            s.go(State::PreCopy);
            s.stage(9, 9);
            s.get(DataOffset, DATA);
            s.data(0, 8);
            s.data(8, 1);
        },
    ),
    (
        Conduct::DataPastSize,
        |s| {
            s.go(State::PreCopy);
            s.stage(9, 9);
            s.refused(Data, Op::Read, DATA + 8, 2);
        },
        |s| {
            s.go(State::PreCopy);
            s.stage(9, 9);
            s.data(8, 1);
        },
    ),
    (
        Conduct::DataUnread,
        |s| {
            s.go(State::PreCopy);
            s.stage(5000, 5000);
            s.data(0, 4999);
            s.get(PendingBytes, 0);
        },
        |s| {
            s.go(State::PreCopy);
            s.stage(5000, 5000);
            s.data(0, 4096); // the rest may be in a mapping
            s.stage(5000, 5000);
            s.get(PendingBytes, 5000); // all of it may be in a mapping
            s.stage(9, 9);
            s.data(0, 4);
            s.refused(Data, Op::Read, DATA + 4, 5); // it has tried
            s.get(PendingBytes, 0);
        },
    ),
    (
        Conduct::LoadOutsideResuming,
        |s| s.refused(DataSize, Op::Write, 0x18, 8),
        |s| {
            s.go(State::Resuming);
            s.tell(6, 6, Cause::Failure, -5);
            s.refused(DataSize, Op::Write, 0x18, 8);
        },
    ),
    (
        Conduct::LoadOutsideResuming,
        |s| {
            s.go(State::StopAndCopy);
            s.refused(Data, Op::Write, DATA, 8);
        },
        |s| {
            s.go(State::Resuming);
            s.get(DataOffset, DATA);
            s.load(0, 8);
        },
    ),
    (
        Conduct::LoadBeforeOffset,
        |s| {
            s.go(State::Resuming);
            s.load(0, 8);
            s.put(DataSize, 8);
        },
        |s| {
            s.go(State::Resuming);
            s.get(DataOffset, DATA);
            s.load(0, 8);
            s.go(State::Resuming);
            s.put(DataSize, 8);
        },
    ),
    (
        Conduct::CommitBeforeOffset,
        |s| {
            s.go(State::Resuming);
            s.get(DataOffset, DATA);
            s.put(DataSize, 8);
            s.put(DataSize, 8);
        },
        |s| {
            s.go(State::Resuming);
            s.get(DataOffset, DATA);
            s.refused(DataSize, Op::Write, 0x18, 8);
            s.put(DataSize, 8); // tried again
        },
    ),
    (
        Conduct::DataUnwritten,
        |s| {
            s.go(State::Resuming);
            s.get(DataOffset, DATA);
            s.load(0, 8);
            s.put(DataSize, 9);
        },
        |s| {
            s.go(State::Resuming);
            s.get(DataOffset, DATA);
            s.put(DataSize, 9); // from a mapping
            s.get(DataOffset, DATA);
            s.load(0, 4096);
            s.put(DataSize, 8192); // the second part from a mapping
            s.get(DataOffset, DATA);
            s.load(8, 8);
            s.put(DataSize, 24); // the first part too
            s.get(DataOffset, DATA);
            s.load(0, 8);
            s.load(0, 24);
            s.put(DataSize, 9);
        },
    ),
    (
        Conduct::QueryOutsideSaving,
        |s| s.refused(TotalPfns, Op::Write, 0x30, 8),
        |s| s.refused(TotalPfns, Op::Read, 0x30, 8), // a direction that it has not
    ),
    (
        Conduct::QueryOrder,
        |s| {
            s.go(State::PreCopy);
            s.put(TotalPfns, 9);
            s.put(StartPfn, 9);
            s.put(PageSize, 4096);
            s.get(CopiedPfns, PFNS_NONE);
        },
        |s| {
            s.go(State::PreCopy);
            s.ask(9);
            s.refused(CopiedPfns, Op::Read, 0x38, 8);
            s.put(PageSize, 4096);
            s.put(StartPfn, 9);
            s.put(TotalPfns, 9);
            s.get(CopiedPfns, PFNS_NONE);
            s.put(StartPfn, 18); // the others keep their values
            s.get(CopiedPfns, PFNS_ALL);
        },
    ),
    (
        Conduct::QueryUnasked,
        |s| {
            s.go(State::PreCopy);
            s.ask(9);
            s.go(State::Running);
            s.go(State::PreCopy);
            s.refused(CopiedPfns, Op::Read, 0x38, 8);
        },
        |s| {
            s.go(State::PreCopy);
            s.ask(9);
            s.go(State::StopAndCopy);
            s.get(CopiedPfns, PFNS_NONE);
        },
    ),
    (
        Conduct::CopiedTooMany,
        |s| {
            s.go(State::PreCopy);
            s.ask(9);
            s.get(CopiedPfns, 10);
        },
        |s| {
            s.go(State::PreCopy);
            s.ask(9);
            s.get(CopiedPfns, 9);
            s.get(CopiedPfns, PFNS_ALL);
        },
    ),
    (
        Conduct::BitmapUnasked,
        |s| {
            s.go(State::PreCopy);
            s.ask(64);
            s.get(CopiedPfns, PFNS_NONE);
            s.refused(Bitmap, Op::Read, BITMAP, 8);
        },
        |s| {
            s.go(State::PreCopy);
            s.ask(64);
            s.get(CopiedPfns, 64);
            s.get(DataOffset, BITMAP);
            s.go(State::StopAndCopy);
            s.bitmap(0, 8);
        },
    ),
    (
        Conduct::BitmapBeforeOffset,
        |s| {
            s.go(State::PreCopy);
            s.ask(128);
            s.get(CopiedPfns, 128);
            s.bitmap(0, 8);
            s.bitmap(8, 8);
        },
        |s| {
            s.go(State::PreCopy);
            s.ask(128);
            s.get(CopiedPfns, 128);
            s.get(DataOffset, BITMAP);
            s.bitmap(8, 8);
        },
    ),
    (
        Conduct::BitmapPastAnswer,
        |s| {
            s.go(State::PreCopy);
            s.ask(65);
            s.get(CopiedPfns, 64);
            s.get(DataOffset, BITMAP);
            s.refused(Bitmap, Op::Read, BITMAP + 8, 8);
        },
        |s| {
            s.go(State::PreCopy);
            s.ask(65);
            s.get(CopiedPfns, 65);
            s.get(DataOffset, BITMAP);
            s.bitmap(8, 8); // whole words
        },
    ),
    (
        Conduct::BitmapUnread,
        |s| {
            s.go(State::PreCopy);
            s.ask(128);
            s.get(CopiedPfns, 128);
            s.get(DataOffset, BITMAP);
            s.bitmap(0, 8);
            s.ask(128);
            s.get(CopiedPfns, 128);
        },
        |s| {
            s.go(State::PreCopy);
            for _ in 0..2 {
                s.ask(128);
                s.get(CopiedPfns, 128);
                s.get(DataOffset, BITMAP); // it may be in a mapping
            }
            s.bitmap(0, 8);
            s.refused(Bitmap, Op::Read, BITMAP + 8, 8); // it has tried
            s.get(CopiedPfns, PFNS_NONE);
        },
    ),
    (Conduct::ReservedWritten, |s| s.put(Reserved, 1), |s| s.put(Reserved, 0)),
    (Conduct::ReservedNotZero, |s| s.get(Reserved, 1), |s| s.get(Reserved, 0)),
];

fn played(play: fn(&mut Scene)) -> Vec<Conduct> {
    let mut scene = Scene::opened();
    play(&mut scene);
    scene.broken
}

#[test]
fn each_rule_has_a_trace_that_breaks_it_and_one_near_it_that_does_not() {
    for (at, (rule, breach, near)) in EXAMPLES.iter().enumerate() {
        assert_eq!(played(*breach), [*rule], "example {at}");
        assert_eq!(played(*near), [], "example {at}, near {rule:?}");
    }
    for rule in Conduct::ALL {
        assert!(EXAMPLES.iter().any(|(shown, ..)| *shown == rule), "{rule:?} has no example");
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

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..10u64, 0x1000..0x1020u64, Just(u64::MAX), any::<u64>()]
}

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
    fn any_records_at_all_are_taken(records in prop::collection::vec(anything(), 0..200)) {
        let mut watch = Watch::START;
        for record in &records {
            match record {
                Ok(access) => drop(watch.access(access)),
                Err(change) => drop(watch.state_changed(change)),
            }
        }
    }

    #[test]
    fn a_client_that_obeys_breaks_nothing(choices in prop::collection::vec(any::<u16>(), 0..400)) {
        prop_assert_eq!(client::play(&choices, None), (Vec::new(), false));
    }

    #[test]
    fn one_breach_is_told_once_and_by_its_name(
        choices in prop::collection::vec(any::<u16>(), 100..400),
        rule in prop::sample::select(client::BREACHES),
        skip in 0..3u32,
    ) {
        let (broken, done) = client::play(&choices, Some((rule, skip)));
        let expected = if done { vec![rule] } else { Vec::new() };
        prop_assert_eq!(broken, expected);
    }

    #[test]
    fn one_who_comes_at_any_moment_blames_nobody(
        choices in prop::collection::vec(any::<u16>(), 0..400),
        missed in 0..300usize,
    ) {
        prop_assert_eq!(client::play_from(&choices, missed), Vec::new());
    }
}

#[test]
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
