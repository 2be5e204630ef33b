// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What Prometheus has, held against what the clients of the migrations counted.
//!
//! Counters are compared by what they grew from before a migration until its figures were scraped: from raw samples, since
//! `increase()` extrapolates. They must be equal. Times have a bound, and so have rates, which are what the agent takes them for.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::NOT_CONVERGING;
use super::course::{Course, End, Migration, Transition};
use super::server::Server;

/// By how much the agent's times may differ from the client's, for each change of state: the way into and out of the system call, and
/// a few time slices of a machine with few CPUs. As in the demo.
const TIME_BOUND: f64 = 0.05;
/// By how much a rate may differ, as a share of the mean over the whole migration: the agent's follows the last seconds.
const RATE_BOUND: f64 = 0.5;
/// What the migration that does not converge has written and moved from a scrape to its end, at most, in bytes.
const PENDING_BOUND: f64 = 1_048_576.0;
/// The reason for that.
const REASON: &str = "dirty_rate_above_throughput";

/// One number of both.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// Of which migration; of all if of none.
    pub(crate) migration: Option<String>,
    pub(crate) device: Option<String>,
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) migrator: f64,
    pub(crate) prometheus: Option<f64>,
    /// By how much they may differ; not at all if there is none.
    pub(crate) bound: Option<f64>,
    pub(crate) agrees: bool,
}

impl Row {
    fn new(
        (migration, device): (Option<&str>, Option<&str>),
        (what, unit): (String, &'static str),
        migrator: f64,
        prometheus: Option<f64>,
        bound: Option<f64>,
    ) -> Self {
        let agrees = prometheus.is_some_and(|value| match bound {
            Some(bound) => (value - migrator).abs() <= bound,
            None => value == migrator,
        });
        Self {
            migration: migration.map(str::to_owned),
            device: device.map(str::to_owned),
            what,
            unit,
            migrator,
            prometheus,
            bound,
            agrees,
        }
    }
}

/// Everything that both sides know.
pub(crate) fn compare(server: &Server, course: &Course) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for migration in &course.migrations {
        for end in &migration.ends {
            let compared = Compared { server, migration, end };
            compared.counted(&mut rows)?;
            compared.states(&mut rows)?;
            compared.last_session(&mut rows)?;
            compared.pending(&mut rows)?;
        }
    }
    outlook(server, course, &mut rows)?;
    totals(server, course, &mut rows)?;
    Ok(rows)
}

/// One end of a migration, in both accounts.
struct Compared<'a> {
    server: &'a Server,
    migration: &'a Migration,
    end: &'a End,
}

impl Compared<'_> {
    /// By how much the series of a device grew. What was never counted has no sample.
    fn grew(&self, metric: &str, labels: &[(&str, &str)]) -> Result<Option<f64>> {
        let sum = format!("sum({})", selector(metric, &self.end.device, labels));
        let before = value(self.server, &sum, self.migration.began)?;
        let after = value(self.server, &sum, self.migration.settled)?;
        Ok(after.map(|after| after - before.unwrap_or(0.0)))
    }

    fn row(
        &self,
        what: impl Into<String>,
        unit: &'static str,
        migrator: f64,
        prometheus: Option<f64>,
        bound: Option<f64>,
    ) -> Row {
        let of = (Some(self.migration.name.as_str()), Some(self.end.device.as_str()));
        Row::new(of, (what.into(), unit), migrator, prometheus, bound)
    }

    fn exact(
        &self,
        (what, unit): (impl Into<String>, &'static str),
        migrator: u64,
        (metric, labels): (&str, &[(&str, &str)]),
        rows: &mut Vec<Row>,
    ) -> Result<()> {
        let grew = self.grew(metric, labels)?;
        // A counter that never counted has no sample: zero is told by silence.
        let grew = if migrator == 0 { Some(grew.unwrap_or(0.0)) } else { grew };
        rows.push(self.row(what, unit, count(migrator), grew, None));
        Ok(())
    }

    fn counted(&self, rows: &mut Vec<Row>) -> Result<()> {
        let End { transitions, data_bytes, iterations, dirty, accesses, .. } = self.end;
        let mut arcs: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
        for transition in transitions.iter().filter(|transition| transition.cause == "write") {
            // Of one that was refused the client has kept where the device then was, which is where it had been.
            if transition.result == 0 {
                *arcs.entry((&transition.from, &transition.to, "ok")).or_default() += 1;
            } else {
                *arcs.entry((&transition.from, "", "refused")).or_default() += 1;
            }
        }
        for ((from, to, result), times) in arcs {
            let mut labels = vec![("from", from), ("result", result)];
            labels.extend((!to.is_empty()).then_some(("to", to)));
            let what = (format!("{from} to {to}, {result}"), "1");
            let metric = "vfio_migration_state_transitions_total";
            self.exact(what, times, (metric, &labels), rows)?;
        }
        let direction = if self.end.role == "source" { "save" } else { "resume" };
        let region = [("source", "region")];
        for (what, unit, migrator, metric, labels) in [
            (
                "device data",
                "bytes",
                *data_bytes,
                "vfio_migration_data_bytes_total",
                &[("direction", direction)][..],
            ),
            ("iterations", "1", *iterations, "vfio_migration_iterations_total", &[]),
            ("dirty pages", "1", dirty.pages, "vfio_migration_dirty_pages_total", &region),
            ("dirty memory", "bytes", dirty.bytes, "vfio_migration_dirty_bytes_total", &region),
        ] {
            self.exact((what, unit), migrator, (metric, labels), rows)?;
        }
        for (outcome, times) in &dirty.queries {
            let labels = [("source", "region"), ("outcome", outcome.as_str())];
            let what = (format!("dirty queries, {outcome}"), "1");
            self.exact(what, *times, ("vfio_migration_dirty_queries_total", &labels), rows)?;
        }
        if let Some(pages) = self.end.container_pages {
            let labels = [("source", "type1")];
            let metric = ("vfio_migration_dirty_pages_total", &labels[..]);
            self.exact(("dirty pages, by the container", "1"), pages, metric, rows)?;
        }
        let mut refused = 0;
        for access in accesses {
            let result = if access.result == "ok" { "ok" } else { "refused" };
            refused += if access.result == "ok" { 0 } else { access.count };
            let labels = [("field", access.field.as_str()), ("op", &access.op), ("result", result)];
            let what = (format!("{} {}, {result}", access.op, access.field), "1");
            let metric = "vfio_migration_region_accesses_total";
            self.exact(what, access.count, (metric, &labels), rows)?;
        }
        let metric = "vfio_migration_protocol_violations_total";
        self.exact(("refusals", "1"), refused, (metric, &[]), rows)
    }

    /// Time in each state that the client brought the device into and out of.
    fn states(&self, rows: &mut Vec<Row>) -> Result<()> {
        let done: Vec<&Transition> =
            self.end.transitions.iter().filter(|transition| transition.result == 0).collect();
        let mut states: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        for pair in done.windows(2) {
            let [entered, left] = pair else { continue };
            // The time before the first write and after the last is not the client's to tell.
            if entered.to != "running" {
                let (seconds, bound) = states.entry(&entered.to).or_default();
                *seconds += seconds_of(ended_ns(left).saturating_sub(ended_ns(entered)));
                *bound += TIME_BOUND;
            }
        }
        let stays = done.last().map(|transition| transition.to.as_str());
        for (state, (seconds, bound)) in states {
            if stays != Some(state) {
                let labels = [("state", state)];
                let grew = self.grew("vfio_migration_state_seconds_total", &labels)?;
                rows.push(self.row(
                    format!("time in {state}"),
                    "seconds",
                    seconds,
                    grew,
                    Some(bound),
                ));
            }
        }
        Ok(())
    }

    /// What stays of a session after its end.
    fn last_session(&self, rows: &mut Vec<Row>) -> Result<()> {
        let End { device, role, ending, data_bytes, iterations, dirty, .. } = self.end;
        let at = self.migration.settled;
        let told = |metric: &str, labels: &[(&str, &str)]| {
            value(self.server, &selector(metric, device, labels), at)
        };
        let labels = [("role", role.as_str()), ("result", ending.as_str())];
        let result = told("vfio_migration_last_session_result", &labels)?;
        rows.push(self.row(format!("last session, {ending}"), "1", 1.0, result, None));
        rows.push(self.row(
            "last session, exact",
            "1",
            1.0,
            told("vfio_migration_last_session_exact", &[])?,
            None,
        ));
        for (what, unit, migrator, metric) in [
            ("data", "bytes", *data_bytes, "vfio_migration_last_session_data_bytes"),
            ("iterations", "1", *iterations, "vfio_migration_last_session_iterations"),
            ("dirty memory", "bytes", dirty.bytes, "vfio_migration_last_session_dirty_bytes"),
        ] {
            let what = format!("last session, {what}");
            rows.push(self.row(what, unit, count(migrator), told(metric, &[])?, None));
        }
        Ok(())
    }

    /// What was pending when a source was last seen in pre-copy. Of one that stopped, the last number is gone too soon to be scraped.
    fn pending(&self, rows: &mut Vec<Row>) -> Result<()> {
        let End { device, role, transitions, pending_bytes, .. } = self.end;
        let stopped = transitions.iter().any(|transition| transition.to == "stop_and_copy");
        let (Some(pending), "source", false) = (pending_bytes, role.as_str(), stopped) else {
            return Ok(());
        };
        let Migration { name, began, ended, .. } = self.migration;
        let series = selector("vfio_migration_pending_bytes", device, &[]);
        let last = format!("last_over_time({series}{})", window(*began, *ended));
        let told = value(self.server, &last, *ended)?;
        let bound = (name == NOT_CONVERGING).then_some(PENDING_BOUND);
        rows.push(self.row("pending bytes, last", "bytes", count(*pending), told, bound));
        Ok(())
    }
}

/// What was told of the migration that does not converge, while it ran.
fn outlook(server: &Server, course: &Course, rows: &mut Vec<Row>) -> Result<()> {
    let endless = course.migrations.iter().find(|migration| migration.name == NOT_CONVERGING);
    let Some(migration) = endless else { return Ok(()) };
    let Some(end) = migration.ends.iter().find(|end| end.role == "source") else { return Ok(()) };
    let window = window(migration.began, migration.ended);
    let told = |function: &str, metric: &str, labels: &[(&str, &str)]| {
        let series = selector(metric, &end.device, labels);
        value(server, &format!("{function}({series}{window})"), migration.ended)
    };
    let of = (Some(migration.name.as_str()), Some(end.device.as_str()));
    let blocked = told("max_over_time", "vfio_migration_blocked", &[("reason", REASON)])?;
    rows.push(Row::new(of, (format!("blocked, {REASON}"), "1"), 1.0, blocked, None));
    let converging = told("min_over_time", "vfio_migration_converging", &[])?;
    rows.push(Row::new(of, ("converging, in the end".to_owned(), "1"), 0.0, converging, None));
    // From the first byte to the last, the client's mean.
    let times = end.transitions.first().zip(end.transitions.last());
    let seconds = times.map_or(0.0, |(first, last)| {
        seconds_of(last.at_monotonic_ns.saturating_sub(first.at_monotonic_ns))
    });
    let mean = count(end.data_bytes) / seconds;
    let labels = [("direction", "save")];
    let rate = told("avg_over_time", "vfio_migration_throughput_bytes_per_second", &labels)?;
    let what = ("throughput, mean".to_owned(), "bytes per second");
    rows.push(Row::new(of, what, mean, rate, Some(RATE_BOUND * mean)));
    Ok(())
}

/// What is of no single device.
fn totals(server: &Server, course: &Course, rows: &mut Vec<Row>) -> Result<()> {
    let (_, over) = course.span()?;
    let ends = || course.migrations.iter().flat_map(|migration| &migration.ends);
    for role in ["source", "destination"] {
        for result in ["completed", "cancelled", "failed", "unknown"] {
            let ended = ends().filter(|end| end.role == role && end.ending == result).count();
            let metric = "vfio_migration_sessions_total";
            let told =
                value(server, &format!("{metric}{{role=\"{role}\",result=\"{result}\"}}"), over)?;
            let what = (format!("sessions, {role}, {result}"), "1");
            let ended = u64::try_from(ended).unwrap_or(u64::MAX);
            rows.push(Row::new((None, None), what, count(ended), told, None));
        }
    }
    let downtimes: Vec<u64> =
        ends().filter_map(|end| Some(end.downtime.as_ref()?.total_ns)).collect();
    let total = "{part=\"total\"}";
    let metric = "vfio_migration_downtime_seconds";
    let times = value(server, &format!("{metric}_count{total}"), over)?;
    let known = u64::try_from(downtimes.len()).unwrap_or(u64::MAX);
    rows.push(Row::new((None, None), ("downtimes".to_owned(), "1"), count(known), times, None));
    let seconds = value(server, &format!("{metric}_sum{total}"), over)?;
    let what = ("downtime, total".to_owned(), "seconds");
    let sum = downtimes.into_iter().map(seconds_of).sum();
    rows.push(Row::new((None, None), what, sum, seconds, Some(TIME_BOUND * count(known))));
    let lost = value(server, "sum(migscope_events_lost_total)", over)?;
    rows.push(Row::new((None, None), ("records lost".to_owned(), "1"), 0.0, lost, None));
    Ok(())
}

/// The one value of an expression at a moment.
fn value(server: &Server, expression: &str, time: f64) -> Result<Option<f64>> {
    let found = server.at(expression, time)?;
    let values = found.iter().flat_map(|series| &series.points).map(|(_, value)| *value);
    Ok(values.reduce(|sum, value| sum + value))
}

fn window(from: f64, to: f64) -> String {
    format!("[{:.0}ms]", (to - from) * 1e3)
}

fn selector(metric: &str, device: &str, labels: &[(&str, &str)]) -> String {
    let labels = labels.iter().map(|(name, value)| format!(",{name}=\"{value}\""));
    format!("{metric}{{device=\"{device}\"{}}}", labels.collect::<String>())
}

fn ended_ns(transition: &Transition) -> u64 {
    transition.at_monotonic_ns.saturating_add(transition.duration_ns)
}

fn seconds_of(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}

/// Counts of a minute are far below 2^53.
#[expect(
    clippy::cast_precision_loss,
    reason = "exact below 2^53, and larger is no count of a demo"
)]
fn count(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prometheus_does_not_have_agrees_with_nothing() {
        let row = |told, bound| Row::new((None, None), ("x".to_owned(), "1"), 0.0, told, bound);
        assert!(!row(None, None).agrees);
        assert!(!row(None, Some(1.0)).agrees);
        assert!(!row(Some(1.0), None).agrees);
        assert!(row(Some(0.0), None).agrees);
    }

    #[test]
    fn a_bound_is_one_to_both_sides() {
        let row =
            |told| Row::new((None, None), ("x".to_owned(), "1"), 2.0, Some(told), Some(0.5)).agrees;
        assert!(row(1.5) && row(2.5));
        assert!(!row(1.4) && !row(2.6));
    }

    #[test]
    fn a_selector_names_the_device_first() {
        assert_eq!(selector("x", "d", &[("a", "b")]), "x{device=\"d\",a=\"b\"}");
    }
}
