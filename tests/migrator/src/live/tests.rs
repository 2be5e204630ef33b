// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Both ends against devices that keep the contract, and against ones that break it: what breaks must be found.

use std::time::Duration;

use migscope_abi::state::State;

use super::fake::{Fake, Fault};
use super::*;
use crate::phase::Phase;

fn options(transport: Transport) -> Options {
    Options {
        pre_copy: PreCopy {
            min_passes: 4,
            min_time: Duration::from_millis(120),
            interval: Duration::from_millis(30),
        },
        transport,
        ..Options::default()
    }
}

fn migrate_with(from: Fault, to: Fault) -> (Fake, Fake, Result<Outcome, LiveError>) {
    let (from, to) = (Fake::new("A", from), Fake::new("B", to));
    let outcome = migrate(&from, &to, &options(Transport::Unix));
    (from, to, outcome)
}

#[test]
fn a_migration_is_verified_and_both_ends_count_the_same() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let (from, to) = (Fake::new("A", Fault::Nothing), Fake::new("B", Fault::Nothing));
        let Outcome { source, destination, verified } =
            migrate(&from, &to, &options(transport)).unwrap();
        assert!(verified, "{source:?} {destination:?}");
        assert_eq!((from.state(), to.state()), (State::Stopped, State::Running));
        let names = |account: &Account| {
            let changes = account.region.transitions.iter();
            changes.map(|change| change.to.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&source), ["pre_copy", "stop_and_copy", "stopped"]);
        assert_eq!(names(&destination), ["resuming", "running"]);
        assert_eq!(source.region.data_bytes, destination.region.data_bytes);
        assert_eq!(source.region.iterations, destination.region.iterations);
        assert_eq!(source.memory, destination.memory);
        let passes = &source.memory.pages_by_pass;
        assert!(passes.len() >= 6 && passes[0] == 64, "{passes:?}");
        assert_eq!(passes[1..].iter().sum::<u64>(), source.region.dirty.pages);
        assert!(source.region.dirty.pages > 0);
        assert_eq!(source.verification.memory, Some(true));
        assert_eq!(destination.verification.registers, Some(true));
        assert_eq!(destination.verification.buffer, Some(true));
        let downtime = source.downtime.unwrap();
        let parts = downtime.stop_ns
            + downtime.final_data_ns
            + downtime.final_dirty_ns
            + downtime.transfer_ns.unwrap()
            + downtime.load_ns
            + downtime.start_ns;
        assert!(parts <= downtime.total_ns, "{downtime:?}");
    }
}

#[test]
fn a_page_that_the_driver_forgets_is_found() {
    let (_, _, outcome) = migrate_with(Fault::ForgetsPages, Fault::Nothing);
    let outcome = outcome.unwrap();
    assert!(!outcome.verified);
    assert!(!outcome.source.verification.written_but_not_reported.is_empty());
    assert_eq!(outcome.destination.verification.memory, Some(false));
    assert!(!outcome.destination.verification.wrong_pages.is_empty());
}

#[test]
fn a_device_that_still_transfers_when_it_should_stand_is_found() {
    let (from, to, outcome) = migrate_with(Fault::KeepsRunning, Fault::Nothing);
    let Err(LiveError::Source(error)) = outcome else { panic!("{outcome:?}") };
    assert!(matches!(error.source, PhaseError::NotQuiescent), "{error:?}");
    // It was not handed over yet, so it runs on, and the other one starts anew.
    assert_eq!((from.state(), to.state()), (State::Running, State::Running));
}

#[test]
fn a_buffer_and_a_register_that_changed_are_found() {
    let outcome = migrate_with(Fault::Nothing, Fault::DamagesBuffer).2.unwrap();
    assert_eq!(outcome.destination.verification.buffer, Some(false));
    assert!(!outcome.verified);
    let outcome = migrate_with(Fault::Nothing, Fault::ForgetsRegister).2.unwrap();
    assert_eq!(outcome.destination.verification.registers, Some(false));
    assert!(!outcome.verified);
}

#[test]
fn a_refused_image_is_heard_by_the_source_which_runs_on_unless_it_handed_over() {
    let (from, to, outcome) = migrate_with(Fault::Nothing, Fault::RefusesImage);
    let Err(LiveError::Source(error)) = outcome else { panic!("{outcome:?}") };
    let cause = format!("{:?}", error.source);
    assert!(cause.contains("refused to write `data_size`"), "{cause}");
    assert_eq!(to.state(), State::Running, "reset");
    // Whether `End` was out when the refusal was heard decides what may be undone.
    let handed_over = error.phase == Phase::HandOver;
    assert_eq!(from.state(), if handed_over { State::StopAndCopy } else { State::Running });
}
