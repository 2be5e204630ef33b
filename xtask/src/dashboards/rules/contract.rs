// SPDX-License-Identifier: Apache-2.0 OR MIT
//! agent/METRICS.md, read: which metrics there are, of which type, with which labels, and the values of a label where they are a closed set.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone, Debug)]
pub(super) struct Metric {
    pub(super) kind: Type,
    pub(super) labels: BTreeSet<String>,
    /// Values of labels that have no others.
    pub(super) closed: BTreeMap<String, BTreeSet<String>>,
}

/// The metrics by their names in expressions: a histogram is its `_bucket`, `_sum` and `_count`.
#[derive(Debug)]
pub(super) struct Contract(BTreeMap<String, Metric>);

impl Contract {
    pub(super) fn read(root: &Path) -> Self {
        Self::parse(&fs::read_to_string(root.join("agent/METRICS.md")).unwrap())
    }

    /// By name, with the labels that Prometheus adds.
    pub(super) fn metric(&self, name: &str) -> Option<&Metric> {
        self.0.get(name)
    }

    fn parse(page: &str) -> Self {
        let mut found = BTreeMap::new();
        for section in page.split("\n## ") {
            found.extend(metrics(section));
        }
        // Prometheus' own, of each target.
        let own = Metric { kind: Type::Gauge, labels: of_target(), closed: BTreeMap::new() };
        found.insert("up".to_owned(), own);
        Self(found)
    }
}

fn of_target() -> BTreeSet<String> {
    ["job", "instance"].map(str::to_owned).into()
}

fn metrics(section: &str) -> Vec<(String, Metric)> {
    let mut found = Vec::new();
    for row in section.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (head, rest) = row.split_once('`').unwrap();
        let (name, labels) = head.split_once('{').unwrap_or((head, "}"));
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
        let labels: BTreeSet<String> = labels.map(str::to_owned).chain(of_target()).collect();
        let kind = rest.trim_start_matches([' ', '|']);
        let kind = match kind.split([' ', ';']).next().unwrap() {
            "counter" => Type::Counter,
            "gauge" => Type::Gauge,
            "histogram" => Type::Histogram,
            other => panic!("{name} is of the type {other}"),
        };
        let closed: BTreeMap<_, _> = labels
            .iter()
            .filter_map(|label| Some((label.clone(), values(section, label, name)?)))
            .collect();
        let metric = Metric { kind, labels, closed };
        if kind == Type::Histogram {
            let mut buckets = metric.clone();
            buckets.labels.insert("le".to_owned());
            found.push((format!("{name}_bucket"), buckets));
            found.push((format!("{name}_sum"), metric.clone()));
            found.push((format!("{name}_count"), metric));
        } else {
            found.push((name.to_owned(), metric));
        }
    }
    found
}

/// The values that the section lists for a label, of this metric where it says so.
fn values(section: &str, label: &str, metric: &str) -> Option<BTreeSet<String>> {
    let heads = [format!("- `{label}` of `{metric}`: "), format!("- `{label}`: ")];
    let list = heads
        .iter()
        .find_map(|head| section.lines().find_map(|line| line.strip_prefix(head.as_str())))?;
    Some(list.split(", ").map(|value| value.trim_matches('`').to_owned()).collect())
}

#[test]
fn the_page_of_metrics_is_read() {
    let contract = Contract::read(super::root());
    let blocked = contract.metric("vfio_migration_blocked").unwrap();
    assert_eq!(blocked.kind, Type::Gauge);
    assert!(blocked.labels.contains("device") && blocked.labels.contains("instance"));
    assert!(blocked.closed["reason"].contains("no_progress"));
    let buckets = contract.metric("vfio_migration_downtime_seconds_bucket").unwrap();
    assert_eq!(buckets.kind, Type::Histogram);
    assert!(buckets.labels.contains("le"));
    assert!(contract.metric("vfio_migration_downtime_seconds").is_none());
    let records = contract.metric("migscope_records_total").unwrap();
    assert!(records.closed["kind"].contains("conduct"));
    let events = contract.metric("migscope_events_total").unwrap();
    assert!(!events.closed["kind"].contains("conduct"));
    assert_eq!(contract.metric("process_cpu_seconds_total").unwrap().kind, Type::Counter);
    let info = contract.metric("vfio_migration_device_info").unwrap();
    assert_eq!(info.kind, Type::Gauge);
    assert!(info.closed.is_empty());
}

#[test]
fn the_lists_here_are_those_of_the_page() {
    use super::super::{reason::REASONS, state::STATES};
    let contract = Contract::read(super::root());
    let set = |metric: &str, label: &str| contract.metric(metric).unwrap().closed[label].clone();
    let reasons: BTreeSet<String> = REASONS.map(str::to_owned).into();
    assert_eq!(reasons, set("vfio_migration_blocked", "reason"));
    let states: BTreeSet<String> = STATES.map(|(state, _)| state.to_owned()).into();
    assert_eq!(states, set("vfio_migration_device_state", "state"));
}
