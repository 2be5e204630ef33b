// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sessions by the RFC's sequences, by what users do instead, and by anything at all.

use super::{pairing::Pairing, report::Report, *};
use proptest::prelude::*;

const ALL: Coverage =
    Coverage { data: true, dirty: true, dma: true, access: true, errors: true, state: true };

/// A device that is driven by hand. Each step takes 1000 ns, of which a write takes 100.
struct Script {
    tracker: Tracker,
    next_id: u64,
    device: DeviceKey,
    protocol: Protocol,
    state: State,
    at_ns: u64,
    sums: DeviceSums,
}

impl Script {
    fn new(device: u64) -> Self {
        Self {
            tracker: Tracker::default(),
            next_id: device * 100 + 1,
            device: DeviceKey(device),
            protocol: Protocol::Region,
            state: State::Running,
            at_ns: 1_000,
            sums: DeviceSums::default(),
        }
    }

    fn step(&mut self, now: State, cause: Cause, result: i32) -> Vec<Session> {
        let change = StateChange {
            device: self.device,
            at_ns: self.at_ns,
            tgid: 1,
            from: self.state,
            protocol: self.protocol,
            requested: Some(now),
            now: if result < 0 { self.state } else { now },
            cause,
            duration_ns: 100,
            result,
            sums: Some(self.sums),
        };
        self.at_ns += 1_000;
        self.state = change.now;
        self.tracker.advance(&change, &mut self.next_id, ALL)
    }

    fn write(&mut self, now: State) -> Vec<Session> {
        self.step(now, Cause::Write, 0)
    }

    fn buffer(&mut self, direction: usize, bytes: u64) {
        self.sums.data_bytes[direction] += bytes;
        self.sums.iterations[direction] += 1;
    }
}

fn one(mut sessions: Vec<Session>) -> Session {
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    sessions.remove(0)
}

fn end_of(session: &Session) -> Option<End> {
    session.end.map(|(end, _)| end)
}

#[test]
fn a_source_counts_what_came_between_pre_copy_and_the_end() {
    let mut script = Script::new(1);
    script.buffer(0, 999); // an earlier migration's
    assert!(script.write(State::PreCopy).is_empty());
    script.buffer(0, 4096);
    script.sums.dirty_pages += 3;
    assert!(script.write(State::StopAndCopy).is_empty());
    script.buffer(0, 100);
    script.sums.dirty_queries[2] += 1;
    let session = one(script.write(State::Stopped));
    script.buffer(0, 5); // after the end
    assert_eq!((session.role, end_of(&session)), (Role::Source, Some(End::Completed)));
    let figures = session.figures();
    assert_eq!((figures.data_bytes, figures.iterations), (Some(4196), Some(2)));
    let dirty = figures.dirty.expect("covered");
    assert_eq!((dirty.pages, dirty.queries.bitmap), (3, 1));
    assert!(session.exact);
    // Stop: the write of 100 ns that ended at 2000; the session ended at 3000.
    assert_eq!(session.downtime.stop_ns, Some(100));
    assert_eq!(session.downtime.source_ns, Some(1_100));
    assert_eq!(session.downtime.total_ns, None);
    let report = Report::new(&session, 99_999);
    assert_eq!(report.duration_ns, 2_100);
    assert_eq!(report.states_ns.get("pre_copy"), Some(&1_000));
    assert_eq!(report.states_ns.get("stop_and_copy"), Some(&1_000));
    assert_eq!(report.states_ns.len(), 2, "{report:?}");
}

#[test]
fn a_machine_that_is_paused_is_migrated_without_pre_copy_and_was_down_from_its_pause() {
    let mut script = Script::new(1);
    assert!(script.write(State::Stopped).is_empty());
    assert!(script.tracker.current().is_none(), "a pause is no session");
    assert!(script.write(State::StopAndCopy).is_empty());
    let session = one(script.write(State::Stopped));
    assert_eq!(end_of(&session), Some(End::Completed));
    assert_eq!(session.downtime.source_ns, Some(2_100));
}

#[test]
fn a_destination_runs_when_it_is_completed() {
    let mut script = Script::new(1);
    script.write(State::Resuming);
    script.buffer(1, 64);
    let session = one(script.write(State::Running));
    assert_eq!((session.role, end_of(&session)), (Role::Destination, Some(End::Completed)));
    assert_eq!(session.figures().data_bytes, Some(64));
    assert_eq!(session.downtime.destination_ns, Some(1_000));
    assert_eq!(session.downtime.source_ns, None);
}

#[test]
fn going_back_to_running_is_a_cancel() {
    for through in [&[State::PreCopy][..], &[State::PreCopy, State::StopAndCopy]] {
        let mut script = Script::new(1);
        for state in through {
            script.write(*state);
        }
        let session = one(script.write(State::Running));
        assert_eq!(end_of(&session), Some(End::Cancelled));
        assert_eq!(session.downtime.source_ns.is_some(), through.len() == 2);
    }
}

#[test]
fn a_failure_a_reset_and_a_close_fail_the_session_and_say_no_downtime() {
    for cause in [Cause::Failure, Cause::Reset, Cause::Close] {
        let mut script = Script::new(1);
        script.write(State::StopAndCopy);
        let now = if cause == Cause::Failure { State::Error } else { State::Running };
        let session = one(script.step(now, cause, 0));
        assert_eq!(end_of(&session), Some(End::Failed), "{cause:?}");
        assert_eq!(session.downtime.source_ns, None, "{cause:?}");
    }
}

#[test]
fn a_refused_change_is_in_the_account_and_ends_nothing() {
    let mut script = Script::new(1);
    script.write(State::PreCopy);
    assert!(script.step(State::Resuming, Cause::Write, -22).is_empty());
    let session = one(script.write(State::Running));
    assert_eq!(session.transitions.len(), 3);
    assert!(session.exact);
}

#[test]
fn qemu_writes_the_state_that_already_holds() {
    let mut script = Script::new(1);
    script.write(State::PreCopy);
    script.write(State::StopAndCopy);
    assert!(script.write(State::StopAndCopy).is_empty());
    let session = one(script.write(State::Stopped));
    assert_eq!(end_of(&session), Some(End::Completed));
    assert_eq!(session.downtime.stop_ns, Some(100), "the first write stopped it");
}

#[test]
fn a_session_whose_end_was_lost_is_unknown_and_the_next_one_begins() {
    let mut script = Script::new(1);
    script.write(State::PreCopy);
    script.state = State::Stopped; // two records that never came
    let session = one(script.write(State::StopAndCopy));
    assert_eq!(end_of(&session), Some(End::Unknown));
    assert!(!session.exact);
    let next = one(script.write(State::Stopped));
    assert_eq!(end_of(&next), Some(End::Completed));
    assert!(next.exact);
}

#[test]
fn a_migration_that_lost_a_record_in_its_middle_is_one_session() {
    let mut script = Script::new(1);
    script.write(State::PreCopy);
    script.state = State::StopAndCopy; // one record that never came
    let session = one(script.write(State::Stopped));
    assert_eq!(end_of(&session), Some(End::Unknown));
    assert!(script.tracker.current().is_none());
}

#[test]
fn a_migration_of_which_only_the_end_was_seen_is_a_session() {
    let mut script = Script::new(1);
    script.state = State::StopAndCopy;
    let session = one(script.write(State::Stopped));
    assert_eq!(end_of(&session), Some(End::Completed));
    assert!(!session.exact && !session.seen_from_start);
}

#[test]
fn a_session_that_was_under_way_before_the_agent_is_not_exact() {
    let mut script = Script::new(1);
    script.state = State::PreCopy;
    script.write(State::StopAndCopy);
    assert!(!one(script.write(State::Stopped)).exact);
}

#[test]
fn sums_that_nobody_fed_are_unknown() {
    let mut script = Script::new(1);
    script.write(State::PreCopy);
    let session = script.tracker.current_mut().expect("under way");
    session.coverage = Coverage { data: false, dirty: false, ..ALL };
    let figures = session.figures();
    assert_eq!((figures.data_bytes, figures.iterations, figures.dirty), (None, None, None));
    assert_eq!(figures.dma_to_memory_bytes, Some(0));
}

#[test]
fn a_loss_touches_the_sessions_that_it_overlaps_and_no_others() {
    let mut script = Script::new(1);
    script.write(State::PreCopy); // from 900
    let mut session = one(script.write(State::Running)); // to 2000
    session.lost(&(2_001..=3_000));
    assert!(session.exact);
    session.lost(&(100..=899));
    assert!(session.exact);
    session.lost(&(1_500..=3_000));
    assert!(!session.exact);
}

#[test]
fn a_process_that_writes_states_for_ever_fills_no_memory() {
    let mut script = Script::new(1);
    script.write(State::PreCopy);
    for _ in 0..1_000 {
        script.step(State::Resuming, Cause::Write, -22);
    }
    let session = script.tracker.current().expect("under way");
    assert_eq!(session.transitions.len(), TRANSITIONS);
    assert_eq!(session.transitions_left_out, 1_001 - 256);
}

/// A source that saves `bytes`: it begins to stop at 1900, and ends at 3000.
fn source(device: u64, bytes: u64) -> Script {
    let mut script = Script::new(device);
    script.write(State::PreCopy);
    script.write(State::StopAndCopy);
    script.buffer(0, bytes);
    script
}

/// A destination that takes in `bytes` from `at_ns` on.
fn destination(device: u64, bytes: u64, at_ns: u64) -> Script {
    let mut script = Script::new(device);
    script.at_ns = at_ns;
    script.write(State::Resuming);
    script.buffer(1, bytes);
    script
}

/// Ends scripts one after another, in a pairing of their own, with those to come under way.
fn paired(scripts: &mut [(Script, State)]) -> Vec<(u64, u64, u64)> {
    let mut pairing = Pairing::default();
    let mut pairs = Vec::new();
    for index in 0..scripts.len() {
        let (script, last) = &mut scripts[index];
        let session = one(script.write(*last));
        let under_way = scripts.iter().filter_map(|(script, _)| script.tracker.current());
        pairs.extend(pairing.ended(&session, under_way));
    }
    pairs.iter().map(|pair| (pair.source, pair.destination, pair.total_ns)).collect()
}

#[test]
fn the_ends_find_each_other_whichever_ends_first() {
    let ends = || {
        let mut destination = destination(2, 100, 500);
        destination.at_ns = 2_500;
        [(source(1, 100), State::Stopped), (destination, State::Running)]
    };
    let expected = [(101, 201, 2_500 - 1_900)];
    assert_eq!(paired(&mut ends()), expected);
    let [source, destination] = ends();
    assert_eq!(paired(&mut [destination, source]), expected);
}

#[test]
fn two_migrations_at_a_time_are_told_apart_by_their_bytes() {
    let mut ends = [
        (source(1, 100), State::Stopped),
        (destination(2, 100, 2_000), State::Running),
        (source(3, 200), State::Stopped),
        (destination(4, 200, 2_000), State::Running),
    ];
    let found: Vec<_> = paired(&mut ends).into_iter().map(|(s, d, _)| (s, d)).collect();
    assert_eq!(found, [(101, 201), (301, 401)]);
}

#[test]
fn two_migrations_of_equal_devices_at_a_time_give_no_downtime() {
    let mut ends = [
        (source(1, 100), State::Stopped),
        (destination(2, 100, 2_000), State::Running),
        (source(3, 100), State::Stopped),
        (destination(4, 100, 2_000), State::Running),
    ];
    assert_eq!(paired(&mut ends), []);
}

#[test]
fn what_does_not_belong_together_is_not_paired() {
    for (what, second) in [
        ("other bytes", destination(2, 99, 2_000)),
        ("loaded from a file later", destination(2, 100, 5_000)),
        ("the same device", destination(1, 100, 2_000)),
        ("nothing moved", destination(2, 0, 2_000)),
    ] {
        let bytes = if what == "nothing moved" { 0 } else { 100 };
        let mut ends = [(source(1, bytes), State::Stopped), (second, State::Running)];
        assert_eq!(paired(&mut ends), [], "{what}");
    }
}

#[test]
fn a_source_that_runs_again_was_not_migrated() {
    let mut source = source(1, 100);
    let mut destination = destination(2, 100, 2_000);
    let mut pairing = Pairing::default();
    let saved = one(source.write(State::Stopped));
    assert_eq!(pairing.ended(&saved, destination.tracker.current().into_iter()), []);
    pairing.runs(DeviceKey(1));
    let resumed = one(destination.write(State::Running));
    assert_eq!(pairing.ended(&resumed, std::iter::empty()), []);
}

/// QEMU asks once before it begins to save, for the size of its buffer; that is no look at whether it may stop.
#[test]
fn questions_for_the_size_count_from_the_beginning_of_a_source() {
    let mut script = Script { protocol: Protocol::V2, ..Script::new(1) };
    script.sums.left.stop_copy_tellings = 1;
    script.write(State::PreCopy);
    script.sums.left.stop_copy_tellings += 2;
    script.sums.left.stop_copy_refusals += 1;
    script.write(State::StopAndCopy);
    let session = one(script.write(State::Stopped));
    assert_eq!(session.figures().size_queries, Some(3));

    let mut destination = Script { protocol: Protocol::V2, ..Script::new(2) };
    destination.write(State::Resuming);
    let session = one(destination.write(State::Running));
    assert_eq!(session.figures().size_queries, None, "nobody asks it");

    let mut region = Script::new(3);
    region.write(State::StopAndCopy);
    let session = one(region.write(State::Stopped));
    assert_eq!(session.figures().size_queries, None, "there is no such question");
}

fn any_state() -> impl Strategy<Value = State> {
    proptest::sample::select(State::ALL.to_vec())
}

fn any_cause() -> impl Strategy<Value = Cause> {
    proptest::sample::select(Cause::ALL.to_vec())
}

proptest! {
    /// Records in any order, with any state before and after: no panic, no session that ends before it begins, never two at once.
    #[test]
    fn any_sequence_of_records_gives_sound_sessions(
        steps in proptest::collection::vec(
            (any_state(), any_state(), any_cause(), any::<bool>(), any::<bool>(), 0_u64..2_000), 0..60),
    ) {
        let mut script = Script::new(1);
        let mut ended = Vec::new();
        for (from, now, cause, refused, jump, bytes) in steps {
            if jump {
                script.state = from;
            }
            script.buffer(0, bytes);
            ended.extend(script.step(now, cause, if refused { -22 } else { 0 }));
        }
        let under_way = script.tracker.current().map(|session| session.id);
        let mut ids: Vec<_> = ended.iter().map(|session| session.id).chain(under_way).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len(), count);
        for session in &ended {
            let (_, at_ns) = session.end.expect("ended");
            prop_assert!(at_ns >= session.began_ns);
            let report = Report::new(session, 0);
            let in_states: u64 = report.states_ns.values().sum();
            prop_assert!(in_states <= report.duration_ns);
        }
    }

    /// However the buffers fall between the steps of one migration, each byte is counted once.
    #[test]
    fn no_byte_is_counted_twice_or_left_out(
        before in proptest::collection::vec(0_u64..5_000, 0..5),
        pre_copy in proptest::collection::vec(0_u64..5_000, 0..5),
        stopped in proptest::collection::vec(0_u64..5_000, 0..5),
    ) {
        let mut script = Script::new(1);
        before.iter().for_each(|bytes| script.buffer(0, *bytes));
        script.write(State::PreCopy);
        pre_copy.iter().for_each(|bytes| script.buffer(0, *bytes));
        script.write(State::StopAndCopy);
        stopped.iter().for_each(|bytes| script.buffer(0, *bytes));
        let session = one(script.write(State::Stopped));
        let figures = session.figures();
        prop_assert_eq!(figures.data_bytes, Some(pre_copy.iter().chain(&stopped).sum()));
        prop_assert_eq!(
            figures.iterations,
            u64::try_from(pre_copy.len() + stopped.len()).ok()
        );
    }
}
