// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Looks for an order of a round's calls that the model accepts.
//!
//! An order fits if no call stands before one that had ended when it began. The calls of one thread are in their order anyway,
//! so a partial order is how far each thread has got: one number a thread, and there are few of them. For each the model's
//! states are kept once, however many orders lead there.

use std::collections::{BTreeMap, HashSet};

use crate::call::Event;
use crate::model::{Model, Setup};

/// The driver did what the model does not allow.
#[derive(Debug)]
pub struct Failure {
    /// The most calls that could be put in order.
    pub explained: usize,
    /// For each call that could come next there, why it could not.
    pub reasons: Vec<(Event, String)>,
}

/// The states that the device may be in after `events`, if it was in one of `before`.
///
/// # Errors
///
/// [`Failure`] if no order of the events fits.
pub fn linearise(
    setup: &Setup,
    before: &HashSet<Model>,
    events: &[Event],
) -> Result<HashSet<Model>, Failure> {
    let threads = threads(events);
    let ends: Vec<usize> = threads.iter().map(Vec::len).collect();
    // In order of progress, so that a place is worked on when all that lead there have been.
    let mut places: BTreeMap<(usize, Vec<usize>), HashSet<Model>> = BTreeMap::new();
    places.insert((0, vec![0; threads.len()]), before.clone());
    let mut failure = Failure { explained: 0, reasons: Vec::new() };
    while let Some(((explained, place), states)) = places.pop_first() {
        if place == ends {
            return Ok(states);
        }
        if explained > failure.explained {
            failure = Failure { explained, reasons: Vec::new() };
        }
        for (thread, event) in candidates(&threads, &place) {
            let mut next = HashSet::new();
            for state in &states {
                match state.step(setup, &event.call, &event.outcome) {
                    Ok(states) => next.extend(states),
                    Err(why) => failure.note(explained, event, why),
                }
            }
            if !next.is_empty() {
                let mut place = place.clone();
                place[thread] += 1;
                places.entry((explained + 1, place)).or_default().extend(next);
            }
        }
    }
    Err(failure)
}

impl Failure {
    fn note(&mut self, explained: usize, event: &Event, why: String) {
        let reason = (event.clone(), why);
        if explained == self.explained && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }
}

/// The events by thread, each thread's in their order.
fn threads(events: &[Event]) -> Vec<Vec<&Event>> {
    let mut threads: BTreeMap<usize, Vec<&Event>> = BTreeMap::new();
    for event in events {
        threads.entry(event.thread).or_default().push(event);
    }
    let mut threads: Vec<_> = threads.into_values().collect();
    for thread in &mut threads {
        thread.sort_by_key(|event| event.start);
    }
    threads
}

/// The calls that can come next: those that began before any other that is left had ended.
fn candidates<'a>(
    threads: &'a [Vec<&'a Event>],
    place: &'a [usize],
) -> impl Iterator<Item = (usize, &'a Event)> {
    let heads = || {
        let heads = threads.iter().zip(place).enumerate();
        heads.filter_map(|(number, (thread, at))| Some((number, *thread.get(*at)?)))
    };
    let first_end = heads().map(|(_, event)| event.end).min().unwrap_or(u64::MAX);
    heads().filter(move |(_, event)| event.start <= first_end)
}

#[cfg(test)]
mod tests;
