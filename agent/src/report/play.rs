// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Plays a recording to an observer, and keeps what an observer forgets.
//!
//! ```text
//!               ┌──▶ observer: sessions, migrations of machines, what was lost
//!   inputs ─────┤
//!               └──▶ what it only counts: queries and refusals with their moments, latencies before and after a session
//! ```
//!
//! The latencies in a recording count from the loading of the probes and know no device. What belongs to a session is the difference
//! between the last reading before it and the first one after it; so each session keeps those two.

use crate::device_key::DeviceKey;
use crate::{
    convergence::Assessment,
    event::{DirtyQuery, Event},
    feed::{Input, Nobody},
    metrics::{Info, Metrics},
    observer::Observer,
    sample::{LatencySeries, Losses, Sample},
    session::Session,
};
use prometheus::Registry;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Queries and refusals that are kept, each: the newest ones. A query a millisecond over a minute is this many.
pub(super) const KEPT: usize = 1 << 16;

/// Durations of accesses at one moment: counts by bucket, and their sum in nanoseconds.
pub(super) type Durations = BTreeMap<LatencySeries, (Vec<u64>, u64)>;

/// A reading of [`Durations`], and when.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    pub(super) at_ns: u64,
    pub(super) durations: Arc<Durations>,
}

/// What is kept beside a session.
#[derive(Clone, Debug, Default)]
pub(super) struct Beside {
    /// The last reading before it.
    pub(super) before: Option<Reading>,
    /// The first reading after it, or the last one of all.
    pub(super) after: Option<Reading>,
    /// What its device was then, and whose.
    pub(super) info: Info,
    /// What was foretold of it, in the order of time.
    pub(super) foretold: Foretold,
}

/// Assessments of one session: at most so many, from its beginning to its end.
#[derive(Clone, Debug)]
pub(super) struct Foretold {
    assessments: Vec<Assessment>,
    spacing_ns: u64,
}

impl Foretold {
    /// A plot has no more room than that.
    const LIMIT: usize = 1024;

    pub(super) fn iter(&self) -> impl Iterator<Item = &Assessment> {
        self.assessments.iter()
    }

    fn push(&mut self, assessment: &Assessment) {
        let next_ns =
            self.assessments.last().map(|last| last.at_ns.saturating_add(self.spacing_ns));
        if next_ns.is_some_and(|next_ns| assessment.at_ns < next_ns) {
            return;
        }
        if self.assessments.len() >= Self::LIMIT {
            self.spacing_ns = self.spacing_ns.saturating_mul(2);
            let mut keep = false;
            self.assessments.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.assessments.push(assessment.clone());
    }
}

impl Default for Foretold {
    fn default() -> Self {
        Self { assessments: Vec::new(), spacing_ns: 1 }
    }
}

/// Things that happened, the newest ones.
#[derive(Debug)]
pub(super) struct Newest<T> {
    items: VecDeque<T>,
    left_out: u64,
}

impl<T> Default for Newest<T> {
    fn default() -> Self {
        Self { items: VecDeque::new(), left_out: 0 }
    }
}

impl<T> Newest<T> {
    fn push(&mut self, item: T) {
        if self.items.len() >= KEPT {
            self.items.pop_front();
            self.left_out = self.left_out.saturating_add(1);
        }
        self.items.push_back(item);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter()
    }

    /// How many older ones were not kept.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }
}

/// What was lost while it was recorded.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lost {
    pub(super) first: Option<Losses>,
    pub(super) last: Option<Losses>,
    /// How often something was lost of which nobody kept count.
    pub(super) uncounted: u64,
}

/// A recording while it is played.
pub struct Player {
    pub(super) observer: Observer,
    pub(super) queries: Newest<DirtyQuery>,
    pub(super) beside: BTreeMap<u64, Beside>,
    infos: BTreeMap<DeviceKey, Info>,
    pub(super) lost: Lost,
    /// The first and the last moment that the recording tells of, `CLOCK_MONOTONIC` in nanoseconds.
    pub(super) moments_ns: Option<(u64, u64)>,
    /// Number of the newest session.
    pub(super) newest: u64,
    reading: Option<Reading>,
}

impl Default for Player {
    fn default() -> Self {
        Self {
            observer: Observer::new(Nobody, Arc::new(Metrics::new(Registry::new()))),
            queries: Newest::default(),
            beside: BTreeMap::new(),
            infos: BTreeMap::new(),
            lost: Lost::default(),
            moments_ns: None,
            newest: 0,
            reading: None,
        }
    }
}

impl Player {
    /// Plays what comes next.
    pub fn play(&mut self, input: Input) {
        self.passed(&input);
        match &input {
            Input::Losses(losses, _) => {
                self.lost.first.get_or_insert(*losses);
                self.lost.last = Some(*losses);
            }
            Input::Lost(_) => self.lost.uncounted = self.lost.uncounted.saturating_add(1),
            Input::Event(Event::DirtyQuery(query)) => self.queries.push(*query),
            Input::Info(device, info) => self.described(*device, info),
            Input::Sample(sample) => self.sampled(sample),
            Input::Probes(_)
            | Input::Named(_)
            | Input::Event(
                Event::State(_)
                | Event::Violation(_)
                | Event::Conduct(_)
                | Event::ConductCounts(_)
                | Event::Machine(_),
            )
            | Input::Settled(_)
            | Input::Sums(..) => {}
        }
        let begins_sessions =
            matches!(input, Input::Event(Event::State(_)) | Input::Sample(_) | Input::Sums(..));
        let foretells = matches!(input, Input::Sample(_) | Input::Sums(..));
        // What the agent had to say of this it said when it happened.
        let silent = tracing::subscriber::NoSubscriber::default();
        tracing::subscriber::with_default(silent, || input.play(&mut self.observer));
        if begins_sessions {
            self.note_new_sessions();
        }
        if foretells {
            self.note_what_was_foretold();
        }
    }

    fn passed(&mut self, input: &Input) {
        let at_ns = match input {
            Input::Losses(_, at_ns) | Input::Lost(at_ns) | Input::Settled(at_ns) => *at_ns,
            Input::Event(Event::State(change)) => change.at_ns,
            Input::Event(Event::DirtyQuery(query)) => query.at_ns,
            Input::Event(Event::Violation(violation)) => violation.at_ns,
            Input::Event(Event::Conduct(conduct)) => conduct.at_ns,
            Input::Event(Event::Machine(machine)) => machine.at_ns,
            Input::Event(Event::ConductCounts(_)) => return,
            Input::Sample(sample) => sample.at_ns,
            Input::Sums(at_ns, _) => *at_ns,
            Input::Probes(_) | Input::Named(_) | Input::Info(..) => return,
        };
        // An agent that has read nothing yet says so with a zero.
        if at_ns > 0 {
            let (first, last) = self.moments_ns.unwrap_or((at_ns, at_ns));
            self.moments_ns = Some((first.min(at_ns), last.max(at_ns)));
        }
    }

    /// Who has a device open is looked up after the change of state that tells of a new process: so it is told to sessions under way.
    fn described(&mut self, device: DeviceKey, info: &Info) {
        self.infos.insert(device, info.clone());
        let running = |session: &&Session| session.device == device && session.end.is_none();
        for session in self.observer.sessions().filter(running) {
            if let Some(beside) = self.beside.get_mut(&session.id) {
                beside.info = info.clone();
            }
        }
    }

    fn sampled(&mut self, sample: &Sample) {
        let durations = Arc::new(sample.latencies.clone());
        let reading = Reading { at_ns: sample.at_ns, durations };
        for session in self.observer.sessions() {
            let Some(beside) = self.beside.get_mut(&session.id) else { continue };
            let ended_ns = session.end.map(|(_, at_ns)| at_ns);
            let is_complete = |after: &Reading| ended_ns.is_some_and(|end| after.at_ns >= end);
            if !beside.after.as_ref().is_some_and(is_complete) {
                beside.after = Some(reading.clone());
            }
        }
        self.reading = Some(reading);
    }

    fn note_what_was_foretold(&mut self) {
        for session in self.observer.sessions().filter(|session| session.end.is_none()) {
            let Some(assessment) = session.outlook.assessment() else { continue };
            if let Some(beside) = self.beside.get_mut(&session.id) {
                beside.foretold.push(assessment);
            }
        }
    }

    fn note_new_sessions(&mut self) {
        let newest = self.newest;
        let mut kept: Vec<&Session> = self.observer.sessions().collect();
        kept.sort_by_key(|session| session.id);
        for session in kept.iter().filter(|session| session.id > newest) {
            let began_ns = session.began_ns;
            let before = self.reading.clone().filter(|reading| reading.at_ns <= began_ns);
            let info = self.infos.get(&session.device).cloned().unwrap_or_default();
            let foretold = Foretold::default();
            self.beside.insert(session.id, Beside { before, after: None, info, foretold });
            self.newest = session.id;
        }
        // The observer has forgotten the oldest.
        if let Some(oldest) = kept.first().map(|session| session.id) {
            self.beside.retain(|id, _| *id >= oldest);
        }
    }
}
