// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The arc table, written out a second time by hand: the driver, the probes and the tests in the guest all lean on it.

use migscope_abi::rule::Rule;
use migscope_abi::state::{Cause, State};

/// Rows: from 0, 1, 2, 3, 4, 6. Columns: to 0, 1, 2, 3, 4. `x` is a forbidden arc.
const ARCS: [(State, &str); 6] = [
    (State::Stopped, "...x."),
    (State::Running, "....."),
    (State::StopAndCopy, "...xx"),
    (State::PreCopy, "....x"),
    (State::Resuming, "..xx."),
    (State::Error, "xxxxx"),
];

#[test]
fn every_arc_is_as_the_table_says() {
    for (from, row) in ARCS {
        for (to, mark) in (0u32..).zip(row.chars()) {
            let next = from.next(to);
            match (from, mark) {
                (_, '.') => assert_eq!(next.map(|state| state as u32), Ok(to), "{from:?} to {to}"),
                (State::Error, _) => assert_eq!(next, Err(Rule::DeviceInError)),
                _ => assert_eq!(next, Err(Rule::ForbiddenArc), "{from:?} to {to}"),
            }
        }
    }
}

#[test]
fn states_that_nobody_may_ask_for_are_refused() {
    for from in State::ALL {
        for to in [5, 6, 7] {
            assert_eq!(from.next(to), Err(Rule::InvalidState), "{from:?} to {to}");
        }
        for bit in 3..32 {
            assert_eq!(from.next(1 | 1 << bit), Err(Rule::ReservedBits), "{from:?}, bit {bit}");
        }
    }
}

#[test]
fn the_state_that_holds_may_be_written_again() {
    for state in State::ALL.into_iter().filter(|state| *state != State::Error) {
        assert_eq!(state.next(state as u32), Ok(state));
    }
}

#[test]
fn numbers_that_are_no_state_come_back_as_they_are() {
    for number in (0..=64).chain([u32::MAX]) {
        match State::try_from(number) {
            Ok(state) => assert_eq!(state as u32, number),
            Err(unknown) => assert!(unknown == number && (number == 5 || number > 6)),
        }
    }
    assert_eq!(Cause::try_from(5), Err(5));
}

#[test]
fn rules_have_distinct_names_and_an_errno() {
    let mut names: Vec<&str> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Rule::COUNT);
    for (number, rule) in (1..).zip(Rule::ALL) {
        assert_eq!(Rule::try_from(number), Ok(rule), "ALL is in the order of the numbers");
        assert!(rule.errno() > 0);
    }
}
