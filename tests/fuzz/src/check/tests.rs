// SPDX-License-Identifier: Apache-2.0 OR MIT

use migscope_abi::state::State;
use proptest::prelude::*;

use super::*;
use crate::call::{Outcome, read, write};
use crate::model::tests::setup;

fn event(thread: usize, span: (u64, u64), call: crate::call::Call, outcome: Outcome) -> Event {
    Event { thread, start: span.0, end: span.1, call, outcome }
}

fn says(thread: usize, span: (u64, u64), state: u32) -> Event {
    let outcome = Outcome::Done { value: 4, bytes: state.to_le_bytes().to_vec() };
    event(thread, span, read(0, 0, 4), outcome)
}

fn goes(thread: usize, span: (u64, u64), state: u32) -> Event {
    event(thread, span, write(0, 0, state.to_le_bytes().to_vec()), Outcome::done(4))
}

fn check(events: &[Event]) -> Result<HashSet<Model>, Failure> {
    linearise(&setup(), &HashSet::from([Model::opened()]), events)
}

#[test]
fn calls_that_overlap_may_be_in_either_order() {
    for told in [1, 3] {
        check(&[goes(0, (0, 10), 3), says(1, (5, 15), told)]).unwrap();
    }
    check(&[goes(0, (0, 10), 3), says(1, (5, 15), 4)]).unwrap_err();
}

#[test]
fn calls_one_after_the_other_are_in_that_order() {
    check(&[goes(0, (0, 10), 3), says(1, (11, 15), 3)]).unwrap();
    check(&[goes(0, (0, 10), 3), says(1, (11, 15), 1)]).unwrap_err();
    // One thread's calls are, too, however coarse the clock.
    check(&[goes(0, (0, 10), 3), says(0, (10, 10), 1)]).unwrap_err();
}

#[test]
fn two_reads_agree_on_one_order() {
    let both =
        |first, second| [goes(0, (0, 100), 3), says(1, (1, 10), first), says(1, (20, 30), second)];
    check(&both(1, 3)).unwrap();
    check(&both(3, 1)).unwrap_err();
}

#[test]
fn every_state_that_an_order_leads_to_is_kept() {
    let states = check(&[goes(0, (0, 10), 3), goes(1, (0, 10), 1)]).unwrap();
    assert_eq!(states.len(), 2);
    // A later round has to go on from one of them.
    let rest = |told| linearise(&setup(), &states, &[says(0, (20, 30), told)]);
    assert_eq!(rest(3).unwrap().len(), 1);
    assert_eq!(rest(1).unwrap().len(), 1);
    rest(2).unwrap_err();
}

#[test]
fn a_failure_tells_how_far_it_came_and_why() {
    let failure = check(&[goes(0, (0, 10), 3), says(0, (11, 15), 1)]).unwrap_err();
    assert_eq!(failure.explained, 1);
    assert_eq!(failure.reasons.len(), 1);
    assert!(failure.reasons[0].1.contains("expected 0x3"), "{:?}", failure.reasons);
}

proptest! {
    /// What a device did one call at a time is explained, whatever threads made the calls and however early they began and
    /// late they ended; and if all that happened is known, a wrong answer is not.
    #[test]
    fn a_true_history_is_explained_and_a_false_one_is_not(
        calls in proptest::collection::vec((0..3_usize, 0..8_u32, any::<bool>(), 0..40_u64), 1..14),
        lie in any::<prop::sample::Index>(),
    ) {
        let mut state = State::Running;
        let mut ends = [0; 3];
        let mut wide = Vec::new();
        let mut narrow = Vec::new();
        for ((thread, value, reads, early), at) in calls.into_iter().zip((1..).map(|at| at * 20)) {
            let outcome = |span| if reads {
                says(thread, span, state as u32)
            } else {
                let call = write(0, 0, value.to_le_bytes().to_vec());
                event(thread, span, call, match state.next(value) {
                    // Nothing was taken in.
                    Ok(State::Running) if state == State::Resuming => Outcome::Failed(61),
                    Ok(_) => Outcome::done(4),
                    Err(rule) => Outcome::Failed(rule.errno()),
                })
            };
            let (start, end) = ((at - early.min(at)).max(ends[thread] + 1), at + early % 19);
            ends[thread] = end;
            wide.push(outcome((start.min(at), end)));
            narrow.push(outcome((at, at + 1)));
            let commits = state == State::Resuming && value == 1;
            if !reads && !commits {
                state = state.next(value).unwrap_or(state);
            }
        }
        prop_assert!(check(&wide).is_ok());
        prop_assert!(check(&narrow).is_ok());
        let at = lie.index(narrow.len());
        narrow[at].outcome = match &narrow[at].outcome {
            Outcome::Done { value, bytes } if !bytes.is_empty() => {
                Outcome::Done { value: *value, bytes: vec![bytes[0] ^ 1, 0, 0, 0] }
            }
            Outcome::Done { .. } => Outcome::Failed(22),
            _ => Outcome::done(4),
        };
        prop_assert!(check(&narrow).is_err());
    }
}
