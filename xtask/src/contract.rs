// SPDX-License-Identifier: Apache-2.0 OR MIT
//! agent/METRICS.md, read: which metrics there are, of which type, with which labels, and the values of a label where they are a closed set.
//! The dashboards, the rules and the runbooks are held against it.
//!
//! ```text
//!   | `name{label,label}` | type | …                  a metric; of a histogram, its three
//!   - `label`: `value`, `value`                       a closed set, for the metrics of the section that have the label
//!   - `label` of `name`: `value`, `value`             a closed set, for one of them
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

const PAGE: &str = "agent/METRICS.md";
/// What Prometheus itself tells of a target.
const OF_PROMETHEUS: [&str; 2] = ["up", "scrape_duration_seconds"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Counter,
    Gauge,
    Histogram,
}

/// A metric, or what an expression makes of some.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Metric {
    pub(crate) kind: Type,
    /// Those that Prometheus gives to each target are among them.
    pub(crate) labels: BTreeSet<String>,
    /// Values of labels that have no others.
    pub(crate) closed: BTreeMap<String, BTreeSet<String>>,
}

/// The metrics by their names in expressions: a histogram is its `_bucket`, `_sum` and `_count`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Contract(BTreeMap<String, Metric>);

impl Metric {
    /// A gauge with the labels of a target.
    pub(crate) fn gauge() -> Self {
        let labels = ["job", "instance"].map(str::to_owned).into();
        Self { kind: Type::Gauge, labels, closed: BTreeMap::new() }
    }

    /// Gives it the labels of another one as well. A label has the values of both, and any value as soon as one of them has.
    pub(crate) fn join(&mut self, other: &Self) {
        for label in &other.labels {
            let new = self.labels.insert(label.clone());
            match (self.closed.get_mut(label), other.closed.get(label)) {
                (Some(values), Some(more)) => values.extend(more.iter().cloned()),
                (None, Some(values)) if new => {
                    self.closed.insert(label.clone(), values.clone());
                }
                _ => drop(self.closed.remove(label)),
            }
        }
    }

    /// Gives it a label, with its one value if it has no other.
    pub(crate) fn label(&mut self, label: &str, value: Option<&str>) {
        let values = value.map(|value| (label.to_owned(), BTreeSet::from([value.to_owned()])));
        let labels = BTreeSet::from([label.to_owned()]);
        self.join(&Self { kind: self.kind, labels, closed: values.into_iter().collect() });
    }
}

impl Contract {
    /// Reads the page of a checkout.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let page = fs::read_to_string(root.join(PAGE))
            .with_context(|| format!("failed to read {PAGE}"))?;
        let mut contract =
            Self::parse(&page).with_context(|| format!("{PAGE} is no page of metrics"))?;
        ensure!(!contract.0.is_empty(), "{PAGE} has no table of metrics");
        for name in OF_PROMETHEUS {
            contract.add(name, Metric::gauge());
        }
        Ok(contract)
    }

    /// By name.
    pub(crate) fn metric(&self, name: &str) -> Option<&Metric> {
        self.0.get(name)
    }

    /// The closed set of a label of a metric.
    pub(crate) fn values(&self, metric: &str, label: &str) -> Result<&BTreeSet<String>> {
        let values = self.metric(metric).and_then(|metric| metric.closed.get(label));
        values.with_context(|| format!("{PAGE} has no closed set of {label} of {metric}"))
    }

    /// Adds a metric that is not on the page: what a rule records. Rules may share a name; it has the labels of all of them.
    pub(crate) fn add(&mut self, name: &str, metric: Metric) {
        match self.0.get_mut(name) {
            Some(known) => known.join(&metric),
            None => drop(self.0.insert(name.to_owned(), metric)),
        }
    }

    pub(crate) fn parse(page: &str) -> Result<Self> {
        let mut found = BTreeMap::new();
        for section in page.split("\n## ") {
            found.extend(metrics(section)?);
        }
        Ok(Self(found))
    }
}

fn metrics(section: &str) -> Result<Vec<(String, Metric)>> {
    let mut found = Vec::new();
    for row in section.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (head, rest) = row.split_once('`').with_context(|| format!("no name in {row}"))?;
        let (name, labels) = head.split_once('{').unwrap_or((head, "}"));
        let kind = rest.trim_start_matches([' ', '|']);
        let kind = match kind.split([' ', ';']).next() {
            Some("counter") => Type::Counter,
            Some("gauge") => Type::Gauge,
            Some("histogram") => Type::Histogram,
            other => bail!("{name} is of the type {other:?}"),
        };
        let mut metric = Metric { kind, ..Metric::gauge() };
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
        metric.labels.extend(labels.map(str::to_owned));
        let closed = |label: &String| Some((label.clone(), values(section, label, name)?));
        metric.closed = metric.labels.iter().filter_map(closed).collect();
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
    Ok(found)
}

/// The values that the section lists for a label, of this metric where it says so.
fn values(section: &str, label: &str, metric: &str) -> Option<BTreeSet<String>> {
    let heads = [format!("- `{label}` of `{metric}`: "), format!("- `{label}`: ")];
    let list = heads
        .iter()
        .find_map(|head| section.lines().find_map(|line| line.strip_prefix(head.as_str())))?;
    Some(list.split(", ").map(|value| value.trim_matches('`').to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_metrics_is_read() {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder of the checkout");
        let contract = Contract::read(root).expect("the page");
        let metric = |name: &str| contract.metric(name).expect(name);
        let blocked = metric("vfio_migration_blocked");
        assert_eq!(blocked.kind, Type::Gauge);
        assert!(blocked.labels.contains("device") && blocked.labels.contains("instance"));
        assert!(blocked.closed["reason"].contains("no_progress"));
        let buckets = metric("vfio_migration_downtime_seconds_bucket");
        assert_eq!(buckets.kind, Type::Histogram);
        assert!(buckets.labels.contains("le"));
        assert!(contract.metric("vfio_migration_downtime_seconds").is_none());
        assert!(metric("migscope_records_total").closed["kind"].contains("conduct"));
        assert!(!metric("migscope_events_total").closed["kind"].contains("conduct"));
        assert_eq!(metric("process_cpu_seconds_total").kind, Type::Counter);
        let info = metric("vfio_migration_device_info");
        assert_eq!(info.kind, Type::Gauge);
        assert!(info.closed.is_empty());
        assert!(contract.values("vfio_migration_blocked", "device").is_err());
    }

    #[test]
    fn a_label_of_two_has_the_values_of_both() {
        let of = |part: Option<&str>| {
            let mut metric = Metric::gauge();
            metric.label("part", part);
            metric
        };
        let set = |values: &[&str]| Some(values.iter().map(|&value| value.to_owned()).collect());
        let joined = |metrics: &[Metric]| {
            let mut contract = Contract::default();
            metrics.iter().for_each(|metric| contract.add("x", metric.clone()));
            contract.metric("x").expect("added").closed.get("part").cloned()
        };
        assert_eq!(joined(&[of(Some("a")), of(Some("b"))]), set(&["a", "b"]));
        assert_eq!(joined(&[of(Some("a")), of(None)]), None);
        assert_eq!(joined(&[of(None), of(Some("a"))]), None);
        assert_eq!(joined(&[Metric::gauge(), of(Some("a"))]), set(&["a"]));
    }
}
