// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The states: every arc of the table and no other, and what ends a session.

use std::io;
use std::process::ExitCode;

use cases::guest;
use cases::session::{Session, memory};
use migrator::device::{Device, DeviceError};
use migrator::region::RegionIo as _;
use migscope_abi::region::{Field, HEADER_BYTES};
use migscope_abi::rule::Rule;
use migscope_abi::state::{RUNNING, State};

fn main() -> ExitCode {
    guest::run(&[
        ("a_device_runs_when_it_is_opened", runs_when_opened),
        ("every_arc_is_taken_or_refused_as_the_table_says", every_arc),
        ("reserved_bits_are_refused_in_every_state", reserved_bits),
        ("any_walk_over_the_arcs_ends_where_the_table_says", any_walk),
        ("resuming_is_not_left_for_running_without_an_image", resuming_without_an_image),
        ("a_reset_leads_from_every_state_to_running", reset_from_every_state),
        ("a_session_that_is_closed_in_the_middle_leaves_nothing", close_in_the_middle),
        ("a_cancelled_migration_leaves_a_device_that_works", cancelled),
        ("a_paused_device_can_be_saved_and_loaded_into", paused),
        ("two_descriptors_of_a_device_share_its_state_until_the_last_is_closed", two_descriptors),
        ("a_second_container_cannot_open_a_device_in_use", second_container),
        ("accesses_from_many_threads_leave_a_state_of_the_table", many_threads),
    ])
}

/// The states that can be reached by writing `device_state`.
const STATES: [State; 5] =
    [State::Stopped, State::Running, State::StopAndCopy, State::PreCopy, State::Resuming];

fn runs_when_opened() {
    assert_eq!(Session::first().state(), State::Running);
}

fn write_state(session: &Session, requested: u32) -> io::Result<usize> {
    session.write(0, &requested.to_ne_bytes())
}

/// What the table says, and the one condition that it does not know: an image must be complete before it is committed.
fn expected(from: State, requested: u32, has_image: bool) -> Result<State, Rule> {
    let to = from.next(requested)?;
    if (from, to) == (State::Resuming, State::Running) && !has_image {
        return Err(Rule::ImageIncomplete);
    }
    Ok(to)
}

fn try_arc(session: &Session, from: State, requested: u32) -> State {
    let what = format!("{} to {requested:#x}", from.name());
    match expected(from, requested, false) {
        Ok(to) => {
            write_state(session, requested).expect(&what);
            assert_eq!(session.state(), to, "{what}");
            to
        }
        Err(rule) => {
            session.refuses(rule, &what, |session| write_state(session, requested));
            from
        }
    }
}

fn every_arc() {
    for from in STATES {
        for requested in 0..16 {
            try_arc(&Session::first_in(from), from, requested);
        }
    }
}

fn reserved_bits() {
    for from in STATES {
        let session = Session::first_in(from);
        for bit in 3..32 {
            let what = format!("bit {bit}");
            session.refuses(Rule::ReservedBits, &what, |session| {
                write_state(session, from as u32 | 1 << bit)
            });
        }
    }
}

fn any_walk() {
    let session = Session::first();
    let mut random = fastrand::Rng::with_seed(42);
    let mut state = State::Running;
    for _ in 0..1000 {
        state = try_arc(&session, state, random.u32(..8));
    }
}

fn resuming_without_an_image() {
    let session = Session::first_in(State::Resuming);
    session.refuses(Rule::ImageIncomplete, "commit", |session| write_state(session, RUNNING));
    write_state(&session, State::Stopped as u32).expect("what came so far can be dropped");
}

fn reset_from_every_state() {
    for from in STATES {
        let session = Session::first_in(from);
        let edu = session.device.edu();
        session.region.io().reset().expect("a reset works in every state");
        assert_eq!(session.state(), State::Running, "from {}", from.name());
        nothing_is_under_way(&session);
        // It runs: registers can be written.
        edu.write_u32(workload::edu::LIVENESS, 0x1234).expect("a register is written");
        assert_eq!(edu.read_u32(workload::edu::LIVENESS).expect("and read"), !0x1234);
    }
    let mut session = Session::first_in(State::PreCopy);
    session.store(3, 16);
    session.region.io().reset().expect("a reset works");
    session.bring_to(State::PreCopy);
    assert!(session.dirty().is_empty(), "the log outlived the reset");
}

/// Neither a saving nor a resuming session is left.
fn nothing_is_under_way(session: &Session) {
    assert_eq!(session.get(Field::PendingBytes).expect("pending_bytes"), 0);
    assert_eq!(session.get(Field::DataSize).expect("data_size"), 0);
    session.refuses(Rule::NotSaving, "data", |session| session.read(HEADER_BYTES, 1));
    session.refuses(Rule::NotSaving, "a query", |session| session.get(Field::CopiedPfns));
    session.refuses(Rule::NotResuming, "data", |session| session.write(HEADER_BYTES, &[0]));
}

fn close_in_the_middle() {
    for from in STATES {
        let session = Session::first_in(from);
        if from.is_running() {
            session.device.edu().write_u32(workload::edu::LIVENESS, 5).expect("a write");
            session.store(1, 16);
        }
        if from == State::StopAndCopy {
            session.get(Field::DataOffset).expect("a buffer is staged");
        }
        if from == State::Resuming {
            session.write(0x1000, b"half an image").expect("data is taken");
        }
        drop(session);
        let mut session = Session::first();
        assert_eq!(session.state(), State::Running, "after {}", from.name());
        assert_eq!(session.device.edu().read_u32(workload::edu::LIVENESS).expect("a read"), 0);
        session.bring_to(State::PreCopy);
        assert!(session.dirty().is_empty(), "the log outlived the session");
    }
}

fn cancelled() {
    for saving in [State::PreCopy, State::StopAndCopy] {
        let mut session = Session::first_in(saving);
        session.get(Field::PendingBytes).expect("pending_bytes");
        session.get(Field::DataOffset).expect("a buffer is staged, and never read");
        session.region.set_state(State::Running).expect("a migration can be cancelled");
        nothing_is_under_way(&session);
        session.store(2, 100);
        // And it can be migrated later.
        session.bring_to(State::PreCopy);
        session.store(7, 100);
        assert_eq!(session.dirty(), [7]);
    }
}

fn paused() {
    let mut session = Session::first_in(State::Stopped);
    session.region.set_state(State::StopAndCopy).expect("a paused machine is migrated");
    assert!(session.region.next_buffer(State::StopAndCopy).expect("data").is_some());
    session.region.set_state(State::Stopped).expect("and stays paused");
    nothing_is_under_way(&session);
    session.region.set_state(State::Resuming).expect("a paused machine is loaded into");
    session.region.set_state(State::Stopped).expect("what came is dropped");
    nothing_is_under_way(&session);
    session.region.set_state(State::Running).expect("it goes on");
    session.store(1, 16);
}

fn two_descriptors() {
    let mut one = Session::first();
    let other = one.device.open_again(memory()).expect("a second descriptor");
    let mut other = (other.region(), other);
    one.bring_to(State::PreCopy);
    assert_eq!(other.0.state().expect("a state"), State::PreCopy);
    other.0.set_state(State::StopAndCopy).expect("the other one may change it");
    assert_eq!(one.state(), State::StopAndCopy);
    drop(other);
    assert_eq!(one.state(), State::StopAndCopy, "one descriptor is still open");
}

fn second_container() {
    let session = Session::first();
    let error = Device::open(session.device.key(), memory()).expect_err("it is in use");
    assert!(matches!(error, DeviceError::Open { .. }), "{error:?}");
    assert_eq!(session.state(), State::Running);
}

/// A migration thread and the one that cancels it race in a VMM too.
fn many_threads() {
    let session = Session::first();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let io = session.region.io();
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                for _ in 0..300 {
                    // Which of them is refused depends on the order; that each is served or refused is the point.
                    let _any = match random.u8(..6) {
                        0..3 => io.write_at(0, &random.u32(..8).to_ne_bytes()),
                        3 => io.read_at(8, &mut [0; 8]),
                        4 => io.read_at(16, &mut [0; 8]),
                        _ => io.read_at(0x1000, &mut [0; 64]),
                    };
                }
            });
        }
    });
    let state = session.state();
    assert_ne!(state, State::Error);
    session.region.io().reset().expect("and it can still be reset");
}
