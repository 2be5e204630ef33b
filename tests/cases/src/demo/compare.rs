// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The two accounts, row by row.

use std::collections::BTreeMap;
use std::time::Duration;

use migrator::account::{Account, Cause, Role, Transition};
use migrator::live::Outcome;

use super::exposition::Exposition;
use super::report::Row;
use super::sessions::Sessions;

/// By how much a time that the agent tells may be shorter than what the client measured around it: the way into and out of the
/// system call, and a few time slices of a machine with few CPUs (0.1 to 7 ms were seen). It is half of what the device takes for its
/// shortest transfer, so that no step of a migration can hide in it.
pub const TIME_BOUND: Duration = Duration::from_millis(50);
/// A client's clock is read just outside of what the agent times, so its time is the longer one; this is for the rounding of
/// nanoseconds to a float of seconds.
const ROUNDING_SECONDS: f64 = 1e-6;

/// Compares everything that both sides count.
pub fn compare(accounts: &Outcome, exposition: &Exposition, sessions: &Sessions) -> Vec<Row> {
    let mut rows = Vec::new();
    for account in [&accounts.source, &accounts.destination] {
        let told = Told { account, exposition, sessions };
        told.transitions(&mut rows);
        told.data(&mut rows);
        told.dirty(&mut rows);
        told.accesses(&mut rows);
        told.broken(&mut rows);
        told.states(&mut rows);
    }
    migration(accounts, exposition, &mut rows);
    rows
}

/// What the agent told of each device, by the names of the rows.
pub fn told_of(rows: &[Row]) -> BTreeMap<String, BTreeMap<String, f64>> {
    let mut devices: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    for Row { device, what, agent, .. } in rows {
        let device = device.clone().unwrap_or_else(|| "migration".to_owned());
        if let Some(value) = agent {
            devices.entry(device).or_default().insert(what.clone(), *value);
        }
    }
    devices
}

/// One end, as both sides tell of it.
struct Told<'a> {
    account: &'a Account,
    exposition: &'a Exposition,
    sessions: &'a Sessions,
}

impl Told<'_> {
    fn sum(&self, metric: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let device = [("device", self.account.device.as_str())];
        self.exposition.sum(metric, &[&device, labels].concat())
    }

    /// A row of numbers that must be equal. Zero is told by silence: a counter that never counted has no sample.
    fn exact(&self, what: String, unit: &str, migrator: u64, agent: Option<f64>) -> Row {
        let migrator = count(migrator);
        let agent = if migrator == 0.0 { Some(agent.unwrap_or(0.0)) } else { agent };
        Row {
            device: Some(self.account.device.clone()),
            what,
            unit: unit.to_owned(),
            migrator,
            agent,
            bound: None,
            agrees: agent == Some(migrator),
        }
    }

    fn transitions(&self, rows: &mut Vec<Row>) {
        let metric = "vfio_migration_state_transitions_total";
        let mut by_arc: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
        let written = self.written();
        for transition in &written {
            *by_arc.entry(arc(transition)).or_default() += 1;
        }
        let all = u64::try_from(written.len()).unwrap_or(u64::MAX);
        rows.push(self.exact("transitions".to_owned(), "1", all, self.sum(metric, &[])));
        for ((from, to, result), times) in by_arc {
            let agent = self.sum(metric, &[("from", from), ("to", to), ("result", result)]);
            rows.push(self.exact(format!("{from} to {to}, {result}"), "1", times, agent));
        }
    }

    fn written(&self) -> Vec<&Transition> {
        let transitions = &self.account.region.transitions;
        transitions.iter().filter(|transition| transition.cause == Cause::Write).collect()
    }

    fn data(&self, rows: &mut Vec<Row>) {
        let region = &self.account.region;
        let bytes = self.sum("vfio_migration_data_bytes_total", &[]);
        rows.push(self.exact("device data".to_owned(), "bytes", region.data_bytes, bytes));
        let iterations = self.sum("vfio_migration_iterations_total", &[]);
        rows.push(self.exact("iterations".to_owned(), "1", region.iterations, iterations));
        if let Some(pending) = region.pending_bytes {
            let agent = self.sum("vfio_migration_pending_bytes", &[]);
            rows.push(self.exact("pending bytes, last".to_owned(), "bytes", pending, agent));
        }
    }

    fn dirty(&self, rows: &mut Vec<Row>) {
        let dirty = &self.account.region.dirty;
        let pages = self.sum("vfio_migration_dirty_pages_total", &[("source", "region")]);
        rows.push(self.exact("dirty pages".to_owned(), "pages", dirty.pages, pages));
        let bytes = self.sum("vfio_migration_dirty_bytes_total", &[("source", "region")]);
        rows.push(self.exact("dirty bytes".to_owned(), "bytes", dirty.bytes, bytes));
        for (outcome, times) in &dirty.queries {
            let agent = self.sum("vfio_migration_dirty_queries_total", &[("outcome", outcome)]);
            rows.push(self.exact(format!("dirty queries, {outcome}"), "1", *times, agent));
        }
    }

    fn accesses(&self, rows: &mut Vec<Row>) {
        let metric = "vfio_migration_region_accesses_total";
        let all = self.account.region.accesses.iter().map(|each| each.count).sum();
        rows.push(self.exact("region accesses".to_owned(), "1", all, self.sum(metric, &[])));
        for each in &self.account.region.accesses {
            let result = if each.result == "ok" { "ok" } else { "refused" };
            let labels =
                [("field", each.field.as_str()), ("op", each.op.as_str()), ("result", result)];
            let what = format!("{} {}, {result}", each.op, each.field);
            rows.push(self.exact(what, "1", each.count, self.sum(metric, &labels)));
        }
    }

    /// What was done against the protocol. A client knows what it was refused. That it broke no other rule it cannot count: it is its
    /// claim, and the driver's, that neither did. Here silence is no zero: the agent must say that it watched.
    fn broken(&self, rows: &mut Vec<Row>) {
        let refused = self.account.region.accesses.iter().filter(|each| each.result != "ok");
        let refused = refused.map(|each| each.count).sum();
        let (refusals, breaches) = self.sessions.broken(&self.account.device);
        for (what, migrator, agent) in
            [("refusals", refused, refusals), ("breaches of conduct", 0, breaches)]
        {
            rows.push(Row {
                device: Some(self.account.device.clone()),
                what: what.to_owned(),
                unit: "1".to_owned(),
                migrator: count(migrator),
                agent: agent.map(count),
                bound: None,
                agrees: agent == Some(migrator),
            });
        }
    }

    /// Time in each state that the device was both brought into and out of by the client: from the end of the one write to the
    /// end of the next.
    fn states(&self, rows: &mut Vec<Row>) {
        let mut seconds: BTreeMap<&str, f64> = BTreeMap::new();
        for pair in self.written().windows(2) {
            let [entered, left] = pair else { continue };
            let ends = |transition: &Transition| {
                transition.at_monotonic_ns.saturating_add(transition.duration_ns)
            };
            let state = entered.to.as_str();
            // The time before the first write counts as running for the agent, and is not the client's to tell.
            if state != "running" {
                let ns = ends(left).saturating_sub(ends(entered));
                *seconds.entry(state).or_default() += Duration::from_nanos(ns).as_secs_f64();
            }
        }
        for (state, migrator) in seconds {
            let agent = self.sum("vfio_migration_state_seconds_total", &[("state", state)]);
            let last = self.written().last().map(|transition| transition.to.as_str());
            if last != Some(state) {
                let either_way = agent.is_some_and(|agent| within(migrator, agent));
                rows.push(Row {
                    device: Some(self.account.device.clone()),
                    what: format!("time in {state}"),
                    unit: "seconds".to_owned(),
                    migrator,
                    agent,
                    bound: Some(TIME_BOUND.as_secs_f64()),
                    agrees: either_way,
                });
            }
        }
    }
}

/// What belongs to both ends.
fn migration(accounts: &Outcome, exposition: &Exposition, rows: &mut Vec<Row>) {
    let ends = [&accounts.source, &accounts.destination];
    let mut seconds: BTreeMap<(&str, &str), (f64, f64)> = BTreeMap::new();
    for transition in ends.iter().flat_map(|account| &account.region.transitions) {
        let (from, to, result) = arc(transition);
        if transition.cause == Cause::Write && result == "ok" {
            let entry = seconds.entry((from, to)).or_default();
            entry.0 += Duration::from_nanos(transition.duration_ns).as_secs_f64();
            entry.1 += TIME_BOUND.as_secs_f64();
        }
    }
    for ((from, to), (migrator, bound)) in seconds {
        let metric = "vfio_migration_state_transition_duration_seconds_sum";
        let agent = exposition.sum(metric, &[("from", from), ("to", to)]);
        rows.push(inside(format!("{from} to {to}, time"), migrator, agent, bound));
    }
    downtime(accounts, exposition, rows);
    for account in ends {
        let role = match account.role {
            Role::Source => "source",
            Role::Destination => "destination",
            Role::Observer => continue,
        };
        let labels = [("role", role), ("result", "completed")];
        let agent = exposition.sum("vfio_migration_sessions_total", &labels);
        rows.push(Row {
            device: None,
            what: format!("completed sessions, {role}"),
            unit: "1".to_owned(),
            migrator: 1.0,
            agent,
            bound: None,
            agrees: agent == Some(1.0),
        });
    }
    let lost = exposition.sum("migscope_events_lost_total", &[]);
    rows.push(Row {
        device: None,
        what: "records lost".to_owned(),
        unit: "1".to_owned(),
        migrator: 0.0,
        agent: lost,
        bound: None,
        agrees: lost == Some(0.0),
    });
}

/// The downtime and its parts. The agent's part lies inside of what the client measured around it, but for the gap, which begins before
/// the client knows that the last buffer is out, and ends after it set about to start the device.
fn downtime(accounts: &Outcome, exposition: &Exposition, rows: &mut Vec<Row>) {
    let Some(downtime) = &accounts.source.downtime else { return };
    let destination = &accounts.destination.region;
    let told = |part| exposition.sum("vfio_migration_downtime_seconds_sum", &[("part", part)]);
    let bound = TIME_BOUND.as_secs_f64();
    let mut part = |part: &'static str, ns, bound| {
        let what = format!("downtime, {}", part.replace('_', " "));
        rows.push(inside(what, seconds(ns), told(part), bound));
    };
    part("stop", downtime.stop_ns, bound);
    part("final_dirty", downtime.final_query_ns, bound);
    part("final_data", downtime.final_data_ns, bound);
    // Each buffer is measured for itself.
    part("load", destination.load_ns, bound * count(destination.iterations));
    part("start", downtime.start_ns, bound);
    let gap = transfer_gap_ns(accounts).map(seconds);
    let agent = told("transfer_gap");
    rows.push(Row {
        device: None,
        what: "downtime, transfer gap".to_owned(),
        unit: "seconds".to_owned(),
        migrator: gap.unwrap_or_default(),
        agent,
        bound: Some(bound),
        agrees: gap.zip(agent).is_some_and(|(migrator, agent)| {
            agent + ROUNDING_SECONDS >= migrator && agent - migrator <= bound
        }),
    });
    rows.push(inside(
        "downtime, total".to_owned(),
        seconds(downtime.total_ns),
        told("total"),
        bound,
    ));
}

/// Nanoseconds, as the rows have times.
fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}

/// From the source's last buffer, as far as the client can tell, until the write that started the destination.
fn transfer_gap_ns(accounts: &Outcome) -> Option<u64> {
    let out = accounts.source.phases.iter().find(|phase| phase.name == "final_data")?;
    let transitions = &accounts.destination.region.transitions;
    let start = transitions.iter().rfind(|transition| transition.to == "running")?;
    start.at_monotonic_ns.checked_sub(out.at_monotonic_ns.saturating_add(out.duration_ns))
}

/// A time that the agent measured inside of what the client measured.
fn inside(what: String, migrator: f64, agent: Option<f64>, bound: f64) -> Row {
    let agrees = agent
        .is_some_and(|agent| agent <= migrator + ROUNDING_SECONDS && migrator - agent <= bound);
    Row {
        device: None,
        what,
        unit: "seconds".to_owned(),
        migrator,
        agent,
        bound: Some(bound),
        agrees,
    }
}

/// A time between two events that each side saw at its own end of the system call: it may differ either way.
fn within(migrator: f64, agent: f64) -> bool {
    (migrator - agent).abs() <= TIME_BOUND.as_secs_f64()
}

/// From, to and result, as the agent labels them.
fn arc(transition: &Transition) -> (&str, &str, &str) {
    let result = if transition.result == 0 { "ok" } else { "refused" };
    let requested = migscope_abi::state::State::try_from(transition.requested);
    let to = requested.map_or("invalid", migscope_abi::state::State::name);
    (&transition.from, to, result)
}

/// Counts of one migration are far below 2^53.
#[expect(
    clippy::cast_precision_loss,
    reason = "exact below 2^53, and larger is no count of a demo"
)]
fn count(number: u64) -> f64 {
    number as f64
}
