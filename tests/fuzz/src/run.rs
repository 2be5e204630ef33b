// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rounds: all threads begin at once, and the checker looks at what they did when all have ended.

use std::collections::HashSet;
use std::fmt;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use migscope_abi::region::{Field, Op};

use crate::call::{Call, Event, Outcome, Region, direction};
use crate::check::{self, Failure};
use crate::execute::{Context, PATIENCE};
use crate::generate::{self, Operation};
use crate::model::{Model, Setup, edu};
use crate::target::Target;

/// From so many states on the next thing done is a reset, after which there is one.
const STATES: usize = 256;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Decides on every operation.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
    /// Operations of each thread in a round.
    pub operations: usize,
    /// When to stop, by time.
    pub time: Option<Duration>,
    /// When to stop, by rounds.
    pub rounds: Option<u64>,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rounds.
    pub rounds: u64,
    /// System calls.
    pub calls: u64,
    /// Of these, refused ones.
    pub refused: u64,
    /// Changes of state that were made.
    pub arcs: u64,
    /// Buffers of device data that were read.
    pub saved: u64,
    /// Buffers that were taken in.
    pub loaded: u64,
    /// Pieces of bitmaps that were read.
    pub bitmaps: u64,
    /// Commands of DMA that were taken.
    pub commands: u64,
    /// The most states that were possible after a round.
    pub states: usize,
}

/// The driver did what the model does not allow.
pub struct Violation {
    plan: Plan,
    round: u64,
    before: HashSet<Model>,
    operations: Vec<Vec<Operation>>,
    events: Vec<Event>,
    failure: Failure,
}

/// Runs until the plan's end or the first violation.
///
/// # Errors
///
/// The fuzzer itself failed: no memory, no threads.
pub fn run(
    target: &Target,
    setup: &Setup,
    plan: Plan,
) -> Result<std::result::Result<Counts, Box<Violation>>> {
    let start = Instant::now();
    let mut counts = Counts::default();
    let mut states = HashSet::from([Model::opened()]);
    for round in 0.. {
        let late = plan.time.is_some_and(|time| start.elapsed() >= time);
        if late || plan.rounds.is_some_and(|rounds| round >= rounds) {
            break;
        }
        let operations: Vec<Vec<Operation>> = (0..plan.threads)
            .map(|thread| {
                let thread = u64::try_from(thread).expect("few threads");
                generate::round(setup, plan.seed, round, thread, plan.operations)
            })
            .collect();
        let mut events = perform(target, &operations)?;
        if let Err(violation) = judge(setup, plan, round, &mut states, operations, &mut events) {
            return Ok(Err(violation));
        }
        counts.add(setup, &events, states.len());
        if states.len() > STATES {
            let both = [Call::Open { slot: 0 }, Call::Reset { slot: 0 }].map(Operation::Call);
            let operations = vec![both.to_vec()];
            let mut events = perform(target, &operations)?;
            if let Err(violation) = judge(setup, plan, round, &mut states, operations, &mut events)
            {
                return Ok(Err(violation));
            }
            states = states.iter().map(Model::forgetful).collect();
        }
    }
    Ok(Ok(counts))
}

fn judge(
    setup: &Setup,
    plan: Plan,
    round: u64,
    states: &mut HashSet<Model>,
    operations: Vec<Vec<Operation>>,
    events: &mut Vec<Event>,
) -> std::result::Result<(), Box<Violation>> {
    let slow = events
        .iter()
        .find(|event| Duration::from_nanos(event.end.saturating_sub(event.start)) > PATIENCE);
    let checked = match slow {
        Some(event) => {
            let reason = format!("it took longer than {} s", PATIENCE.as_secs());
            Err(Failure { explained: 0, reasons: vec![(event.clone(), reason)] })
        }
        None => check::linearise(setup, states, events),
    };
    match checked {
        Ok(after) => {
            *states = after;
            Ok(())
        }
        Err(failure) => {
            let (before, events) = (std::mem::take(states), std::mem::take(events));
            Err(Box::new(Violation { plan, round, before, operations, events, failure }))
        }
    }
}

/// All threads' operations, begun at once.
fn perform(target: &Target, operations: &[Vec<Operation>]) -> Result<Vec<Event>> {
    let barrier = Barrier::new(operations.len());
    std::thread::scope(|scope| {
        let threads: Vec<_> = operations
            .iter()
            .enumerate()
            .map(|(thread, operations)| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let context = Context::new(target, thread);
                    barrier.wait();
                    let context = context.context("no memory for a thread")?;
                    let mut events = Vec::new();
                    for operation in operations {
                        context.perform(operation, &mut events);
                    }
                    Ok(events)
                })
            })
            .collect();
        let mut events = Vec::new();
        for thread in threads {
            let done: Result<Vec<Event>> = thread.join().expect("a thread does not panic");
            events.extend(done?);
        }
        events.sort_by_key(|event| event.start);
        Ok(events)
    })
}

impl Counts {
    fn add(&mut self, setup: &Setup, events: &[Event], states: usize) {
        self.rounds += 1;
        self.states = self.states.max(states);
        for Event { call, outcome, .. } in events {
            self.calls += 1;
            match outcome {
                Outcome::Failed(_) => self.refused += 1,
                Outcome::Done { .. } => {
                    if let Some(count) = self.kind(setup, call) {
                        *count += 1;
                    }
                }
                Outcome::NotMade => {}
            }
        }
    }

    /// What a call that was done is counted as.
    fn kind(&mut self, setup: &Setup, call: &Call) -> Option<&mut u64> {
        let (Call::Read { region, offset, .. } | Call::Write { region, offset, .. }) = call else {
            return None;
        };
        let field = setup.layout.field_at(*offset);
        match (region, direction(call)?, field) {
            (Region::Migration, Op::Write, Field::DeviceState) => Some(&mut self.arcs),
            (Region::Migration, Op::Read, Field::Data) => Some(&mut self.saved),
            (Region::Migration, Op::Write, Field::DataSize) => Some(&mut self.loaded),
            (Region::Migration, Op::Read, Field::Bitmap) => Some(&mut self.bitmaps),
            (Region::Bar0, Op::Write, _) if *offset == edu::DMA_COMMAND => Some(&mut self.commands),
            _ => None,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, calls, refused, arcs, saved, loaded, bitmaps, commands, states } = self;
        write!(f, "{rounds} rounds, {calls} calls, {refused} of them refused; {arcs} changes of ")?;
        write!(f, "state, {saved} buffers saved, {loaded} loaded, {bitmaps} bitmaps read, ")?;
        write!(f, "{commands} DMA commands; at most {states} possible states after a round")
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, round, before, operations, events, failure } = self;
        let Plan { seed, threads, operations: each, .. } = plan;
        writeln!(f, "round {round}: the protocol does not explain what the driver did")?;
        writeln!(f, "before it, one of {} states:", before.len())?;
        for state in before.iter().take(3) {
            writeln!(f, "  {state}")?;
        }
        let first = events.first().map_or(0, |event| event.start);
        writeln!(f, "the round's calls, by their begin:")?;
        for event in events {
            let moved = |at: u64| at.saturating_sub(first);
            let (start, end) = (moved(event.start), moved(event.end));
            writeln!(f, "  {}", Event { start, end, ..event.clone() })?;
        }
        writeln!(f, "{} of {} calls can be put in order; then", failure.explained, events.len())?;
        for (event, why) in &failure.reasons {
            writeln!(f, "  thread {}: {}: {why}", event.thread, event.call)?;
        }
        let count = operations.iter().map(Vec::len).sum::<usize>();
        writeln!(f, "replay ({count} operations in the last round, the same in each thread):")?;
        let rounds = round + 1;
        write!(f, "  --seed {seed} --threads {threads} --operations {each} --rounds {rounds}")
    }
}
