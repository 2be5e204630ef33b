// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A session as `/api/v1/sessions` gives it. Times are nanoseconds of `CLOCK_MONOTONIC` or lengths in nanoseconds; what is
//! unknown is `null`.

use super::{
    Downtime, Figures, Session,
    conduct::Moment,
    outlook::OutlookReport,
    trackers::{Bounds, BySource},
};
use crate::event::StateChange;
use crate::state::State;
use migscope_abi::state::Cause;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap};

/// One session, running or ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Number of the session in this agent.
    pub id: u64,
    /// The device, as sysfs writes it.
    pub device: String,
    /// `source` or `destination`.
    pub role: Cow<'static, str>,
    /// The protocol by which it migrates.
    pub protocol: Cow<'static, str>,
    /// How it ended; `null` while it runs.
    pub result: Option<Cow<'static, str>>,
    /// Whether every record of it was seen.
    pub exact: bool,
    /// Process that began it; `null` while unknown.
    pub pid: Option<u32>,
    /// Whether its beginning was seen; if not, its figures count from when the agent saw it first.
    pub seen_from_start: bool,
    /// When it began, or was first seen.
    pub began_monotonic_ns: u64,
    /// When it ended; `null` while it runs.
    pub ended_monotonic_ns: Option<u64>,
    /// How long it took, or has taken so far.
    pub duration_ns: u64,
    /// What was moved and reported.
    #[serde(flatten)]
    pub figures: Figures,
    /// How often the driver refused, by rule; `null` when nobody watched for that.
    pub refusals_by_rule: Option<BTreeMap<Cow<'static, str>, u64>>,
    /// How often each rule of conduct was broken; `null` when nobody watched for that.
    pub conduct_by_rule: Option<BTreeMap<Cow<'static, str>, u64>>,
    /// The first moments at which a rule was broken.
    pub violations: Vec<Moment>,
    /// Moments past the number that is kept, as far as they were told.
    pub violations_left_out: u64,
    /// How long the device was in each state while the session lasted.
    pub states_ns: BTreeMap<Cow<'static, str>, u64>,
    /// Changes of state, refused ones too.
    pub transitions: Vec<TransitionReport>,
    /// Changes past the number that is kept.
    pub transitions_left_out: u64,
    /// The parts of the downtime.
    pub downtime: Downtime,
    /// The session at the other end.
    pub peer: Option<u64>,
    /// How fast the device made memory dirty, in bytes per second, as the last whole round of queries told.
    pub memory_dirty_bytes_per_second: Option<f64>,
    /// Over what time.
    pub memory_dirty_window_ns: Option<u64>,
    /// What was told of dirty pages of the whole machine while it ran, by `type1`, `iommufd` and `kvm`; a source that no probe follows is not
    /// in it, and it is `null` where the beginning was not seen.
    #[serde(default)]
    pub machine_dirty: Option<BySource>,
    /// How much memory that was, if a page counts once that several of them told: not exactly, but within these bounds.
    #[serde(default)]
    pub machine_dirty_union: Option<Bounds>,
    /// What is to come of a source, or was thought last; `null` before its first reading and for destinations.
    pub outlook: Option<OutlookReport>,
}

/// One change of state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TransitionReport {
    /// When it was over.
    pub at_monotonic_ns: u64,
    /// How long it took.
    pub duration_ns: u64,
    /// The state before.
    pub from: Cow<'static, str>,
    /// The state that was asked for, or `invalid`.
    pub to: Cow<'static, str>,
    /// The state after.
    pub now: Cow<'static, str>,
    /// `write`, `open`, `close`, `reset` or `failure`.
    pub cause: Cow<'static, str>,
    /// `ok` or `refused`.
    pub result: Cow<'static, str>,
}

impl Report {
    /// How often a rule was broken, as far as anybody watched; `None` where nobody did.
    pub fn broken_rules(&self) -> Option<u64> {
        let sum = |counts: &Option<BTreeMap<Cow<'static, str>, u64>>| -> Option<u64> {
            let counts = counts.as_ref()?.values();
            Some(counts.fold(0_u64, |sum, count| sum.saturating_add(*count)))
        };
        match (sum(&self.refusals_by_rule), sum(&self.conduct_by_rule)) {
            (Some(refused), Some(observed)) => Some(refused.saturating_add(observed)),
            (refused, observed) => refused.or(observed),
        }
    }

    /// The session as it stands at `now_ns`.
    pub fn new(session: &Session, now_ns: u64) -> Self {
        let ended_ns = session.end.map(|(_, at_ns)| at_ns);
        let until_ns = ended_ns.unwrap_or(now_ns);
        let memory_dirty = session.outlook.memory_dirty();
        let Session { coverage, violations, .. } = session;
        let machine_dirty = session.trackers.by_source(coverage.trackers);
        Self {
            id: session.id,
            device: session.device.to_string(),
            role: session.role.name().into(),
            protocol: session.protocol.name().into(),
            result: session.end.map(|(end, _)| end.name().into()),
            exact: session.exact,
            pid: session.tgid,
            seen_from_start: session.seen_from_start,
            began_monotonic_ns: session.began_ns,
            ended_monotonic_ns: ended_ns,
            duration_ns: until_ns.saturating_sub(session.began_ns),
            figures: session.figures(),
            refusals_by_rule: coverage.errors.then(|| named(&violations.refusals)),
            conduct_by_rule: (coverage.access && coverage.state)
                .then(|| named(&violations.conduct)),
            violations: violations.moments.clone(),
            violations_left_out: violations.left_out,
            states_ns: states_ns(&session.transitions, until_ns),
            transitions: session.transitions.iter().map(TransitionReport::from).collect(),
            transitions_left_out: session.transitions_left_out,
            downtime: session.downtime,
            peer: session.peer,
            memory_dirty_bytes_per_second: memory_dirty.map(|rate| rate.bytes_per_second),
            memory_dirty_window_ns: memory_dirty.map(|rate| rate.window_ns),
            machine_dirty_union: machine_dirty.as_ref().map(Bounds::of),
            machine_dirty,
            outlook: session.outlook.assessment().map(OutlookReport::from),
        }
    }
}

/// Counts by the name of a rule, as they are written and read again.
fn named(counts: &BTreeMap<&'static str, u64>) -> BTreeMap<Cow<'static, str>, u64> {
    counts.iter().map(|(rule, count)| (Cow::Borrowed(*rule), *count)).collect()
}

/// The name by which a change of state is counted: what was asked for, and for changes that nobody asked for, what came of it.
pub fn target(change: &StateChange) -> &'static str {
    match change.cause {
        Cause::Write => change.requested_name(),
        Cause::Open | Cause::Close | Cause::Reset | Cause::Failure => change.now.name(),
    }
}

/// The value of the label `result` of a change of state.
pub fn result(change: &StateChange) -> &'static str {
    if change.refused() { "refused" } else { "ok" }
}

impl From<&StateChange> for TransitionReport {
    fn from(change: &StateChange) -> Self {
        Self {
            at_monotonic_ns: change.at_ns,
            duration_ns: change.duration_ns,
            from: change.from.name().into(),
            to: target(change).into(),
            now: change.now.name().into(),
            cause: change.cause.name().into(),
            result: result(change).into(),
        }
    }
}

fn states_ns(transitions: &[StateChange], until_ns: u64) -> BTreeMap<Cow<'static, str>, u64> {
    let mut stays: BTreeMap<Cow<'static, str>, u64> = BTreeMap::new();
    let mut stay = |state: State, since_ns: u64, until_ns: u64| {
        let total = stays.entry(state.name().into()).or_default();
        *total = total.saturating_add(until_ns.saturating_sub(since_ns));
    };
    for pair in transitions.windows(2) {
        if let [entered, left] = pair {
            stay(entered.now, entered.at_ns, left.at_ns);
        }
    }
    if let Some(last) = transitions.last()
        && last.at_ns < until_ns
    {
        stay(last.now, last.at_ns, until_ns);
    }
    stays
}
