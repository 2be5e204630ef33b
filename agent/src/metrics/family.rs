// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A metric family whose series come and go: each is set, counted up, or dropped by its labels.
//!
//! The vectors of the crate `prometheus` keep what they were once given, and a gauge without a value reads as zero. Here what is
//! not known has no series. And no family grows without bound: a series that is one more than its
//! [description](super::description) allows is refused, and the refusal counted.

use super::{
    catalog::{Catalog, Kept},
    description::{Description, Kind, LABEL_BYTES, Label, Values},
    exemplar::{ByBucket, Exemplar, Exemplars},
};
use crate::latency::{Bounds, Latency};
use prometheus::{
    core::{Collector, Desc},
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

type Rows<V, const N: usize> = BTreeMap<[String; N], V>;

/// What is told of a family where it is registered.
pub(super) struct About<const N: usize> {
    /// Its name.
    pub(super) name: &'static str,
    /// What it tells.
    pub(super) help: &'static str,
    /// Its labels.
    pub(super) labels: [Label; N],
    /// When a series of it is absent: what completes "absent …".
    pub(super) absent: &'static str,
}

impl<const N: usize> About<N> {
    pub(super) fn described(self, area: &'static str, kind: Kind) -> Description {
        let Self { name, help, labels, absent } = self;
        Description { area, name, kind, labels: labels.into(), help, absent }
    }
}

/// A family with `N` labels, all of whose series have values of type `V`.
#[derive(Debug)]
pub(super) struct Family<V, const N: usize> {
    inner: Arc<Inner<V, N>>,
}

#[derive(Debug)]
struct Inner<V, const N: usize> {
    desc: Desc,
    description: Description,
    /// Where refusals are counted; `None` for the family that counts them.
    refused: Option<Numbers<1>>,
    rows: Mutex<Rows<V, N>>,
}

/// A distribution and, for some of its buckets, where it came from.
#[derive(Debug, Default)]
pub(super) struct Observed {
    latency: Latency,
    exemplars: ByBucket,
}

/// The labels of a series as they are kept: bounded, whoever chose them.
fn key<const N: usize>(labels: [&str; N]) -> [String; N] {
    labels.map(|value| value.split_at(value.floor_char_boundary(LABEL_BYTES)).0.to_owned())
}

impl<V, const N: usize> Clone for Family<V, N> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

/// A family of counters or gauges.
pub(super) type Numbers<const N: usize> = Family<f64, N>;
/// A family of histograms.
pub(super) type Latencies<const N: usize> = Family<Observed, N>;

impl<V, const N: usize> Family<V, N> {
    /// A family that no registry has.
    pub(super) fn unregistered(description: Description, refused: Option<Numbers<1>>) -> Self {
        let names = description.labels.iter().map(|label| label.name.to_owned()).collect();
        let desc =
            Desc::new(description.name.into(), description.help.into(), names, HashMap::new())
                .expect("names and labels are constants of this crate");
        let rows = Mutex::default();
        Self { inner: Arc::new(Inner { desc, description, refused, rows }) }
    }

    fn register(catalog: &mut Catalog, kind: Kind, about: About<N>) -> Self
    where
        Self: Kept + Collector + 'static,
    {
        let (area, refused) = catalog.place();
        let family = Self::unregistered(about.described(area, kind), Some(refused));
        catalog.keep(family.clone());
        family
    }

    fn rows(&self) -> MutexGuard<'_, Rows<V, N>> {
        // Rows are numbers: a thread that died in between left nothing half done.
        self.inner.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a series, which starts with the default, unless it would be one more than the family may have.
    fn change(&self, labels: [&str; N], change: impl FnOnce(&mut V))
    where
        V: Default,
    {
        let description = &self.inner.description;
        let known = description.labels.iter().zip(labels).all(|(label, value)| label.takes(value));
        debug_assert!(known, "{}: no set of values has {labels:?}", description.name);
        let mut rows = self.rows();
        let full = rows.len() >= description.most_series();
        let labels = key(labels);
        if !known || (full && !rows.contains_key(&labels)) {
            drop(rows);
            if let Some(refused) = &self.inner.refused {
                refused.add([description.name], 1.0);
            }
            return;
        }
        change(rows.entry(labels).or_default());
    }

    /// Drops the series whose labels are chosen. For what is not known any more; see [`Kept::evict`] for what is gone.
    pub(super) fn forget(&self, chosen: impl Fn(&[String; N]) -> bool) {
        self.rows().retain(|labels, _| !chosen(labels));
    }

    fn evict_device(&self, device: &str) -> usize {
        let labels = &self.inner.description.labels;
        let Some(place) = labels.iter().position(|label| label.values == Values::Devices) else {
            return 0;
        };
        let mut rows = self.rows();
        let before = rows.len();
        rows.retain(|labels, _| labels.get(place).is_none_or(|known| known != device));
        before - rows.len()
    }

    /// The family as the crate `prometheus` encodes it; `value` gives a series its value.
    fn export(&self, kind: MetricType, value: impl Fn(&V, &mut Metric)) -> Vec<MetricFamily> {
        let Inner { desc, description, .. } = &*self.inner;
        let mut family = MetricFamily::default();
        family.set_name(desc.fq_name.clone());
        family.set_help(desc.help.clone());
        family.set_field_type(kind);
        let rows = self.rows();
        let series = rows.iter().map(|(labels, row)| {
            let pairs = description.labels.iter().zip(labels).map(|(label, value)| {
                let mut pair = LabelPair::default();
                pair.set_name(label.name.into());
                pair.set_value(value.clone());
                pair
            });
            let mut metric = Metric::from_label(pairs.collect());
            value(row, &mut metric);
            metric
        });
        family.set_metric(series.collect());
        vec![family]
    }
}

impl<const N: usize> Numbers<N> {
    /// A family of counters. Its name ends in `_total`.
    pub(super) fn counters(catalog: &mut Catalog, about: About<N>) -> Self {
        Self::register(catalog, Kind::Counter, about)
    }

    /// A family of gauges.
    pub(super) fn gauges(catalog: &mut Catalog, about: About<N>) -> Self {
        Self::register(catalog, Kind::Gauge, about)
    }

    /// A family whose labels say something and whose value is 1. Its name ends in `_info`.
    pub(super) fn infos(catalog: &mut Catalog, about: About<N>) -> Self {
        Self::register(catalog, Kind::Info, about)
    }

    /// Sets a series. For a counter: to all that was ever counted.
    pub(super) fn set(&self, labels: [&str; N], value: f64) {
        self.change(labels, |row| *row = value);
    }

    /// Adds to a series, which starts at zero.
    pub(super) fn add(&self, labels: [&str; N], amount: f64) {
        self.change(labels, |row| *row += amount);
    }

    /// Sets a series, or drops it if its value is not known. An estimate that came to no number is not known either.
    pub(super) fn set_known(&self, labels: [&str; N], value: Option<f64>) {
        match value.filter(|value| value.is_finite()) {
            Some(value) => self.set(labels, value),
            None => {
                self.rows().remove(&key(labels));
            }
        }
    }
}

impl<const N: usize> Latencies<N> {
    /// A family of histograms of durations. Its name ends in `_seconds`.
    pub(super) fn histograms(catalog: &mut Catalog, bounds: Bounds, about: About<N>) -> Self {
        Self::register(catalog, Kind::Histogram(bounds), about)
    }

    /// Changes a series, which starts empty.
    pub(super) fn update(&self, labels: [&str; N], change: impl FnOnce(&mut Latency)) {
        self.change(labels, |row| change(&mut row.latency));
    }

    /// Adds one duration, with the session that it is of: the last one in each bucket is that bucket's exemplar.
    pub(super) fn observe(&self, labels: [&str; N], exemplar: Exemplar) {
        let bounds = self.bounds();
        let ns = u64::try_from(exemplar.value.as_nanos()).unwrap_or(u64::MAX);
        self.change(labels, |row| {
            row.latency.record(ns);
            row.exemplars.insert(bounds.place(ns), exemplar);
        });
    }

    fn bounds(&self) -> Bounds {
        match self.inner.description.kind {
            Kind::Histogram(bounds) => bounds,
            Kind::Counter | Kind::Gauge | Kind::Info => unreachable!("made by `histograms` alone"),
        }
    }
}

impl<const N: usize> Kept for Numbers<N> {
    fn description(&self) -> &Description {
        &self.inner.description
    }

    fn series(&self) -> usize {
        self.rows().len()
    }

    fn evict(&self, device: &str) -> usize {
        self.evict_device(device)
    }
}

impl<const N: usize> Kept for Latencies<N> {
    fn description(&self) -> &Description {
        &self.inner.description
    }

    fn series(&self) -> usize {
        self.rows().len()
    }

    fn evict(&self, device: &str) -> usize {
        self.evict_device(device)
    }

    fn exemplars(&self, into: &mut Exemplars) {
        for (labels, row) in &*self.rows() {
            if !row.exemplars.is_empty() {
                let family = into.entry(self.inner.description.name).or_default();
                family.insert(labels.to_vec(), row.exemplars.clone());
            }
        }
    }

    fn latencies(&self) -> Vec<(Vec<String>, Latency)> {
        let rows = self.rows();
        rows.iter().map(|(labels, row)| (labels.to_vec(), row.latency.clone())).collect()
    }
}

impl<const N: usize> Collector for Numbers<N> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.inner.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if self.inner.description.kind == Kind::Counter {
            self.export(MetricType::COUNTER, |value, metric| {
                let mut counter = Counter::default();
                counter.set_value(*value);
                metric.set_counter(counter);
            })
        } else {
            self.export(MetricType::GAUGE, |value, metric| {
                let mut gauge = Gauge::default();
                gauge.set_value(*value);
                metric.set_gauge(gauge);
            })
        }
    }
}

impl<const N: usize> Collector for Latencies<N> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.inner.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let bounds = self.bounds();
        self.export(MetricType::HISTOGRAM, |row, metric| {
            let shown = row.latency.cumulative(bounds);
            let buckets = shown.buckets.iter().map(|(bound, count)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(bound.as_secs_f64());
                bucket.set_cumulative_count(*count);
                bucket
            });
            let mut histogram = Histogram::default();
            histogram.set_bucket(buckets.collect());
            histogram.set_sample_count(shown.count);
            histogram.set_sample_sum(shown.sum.as_secs_f64());
            metric.set_histogram(histogram);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::DEVICES;
    use super::*;
    use prometheus::Registry;

    fn devices(catalog: &mut Catalog) -> Numbers<1> {
        let about =
            About { name: "x_bytes", help: "H.", labels: [Label::device()], absent: "never" };
        Numbers::gauges(catalog, about)
    }

    fn refused(catalog: &Catalog) -> f64 {
        let refused = catalog.place().1;
        let rows = refused.rows();
        rows.get(&["x_bytes".to_owned()]).copied().unwrap_or_default()
    }

    #[test]
    fn one_series_more_than_the_bound_is_refused_and_counted() {
        let mut catalog = Catalog::new(Registry::new());
        let family = devices(&mut catalog);
        for device in 0..=DEVICES {
            family.set([&device.to_string()], 1.0);
        }
        assert_eq!((family.series(), refused(&catalog)), (DEVICES, 1.0));
        family.set(["0"], 2.0);
        assert_eq!(refused(&catalog), 1.0, "a series that is there can be changed");
        assert_eq!(catalog.evict("0"), 1);
        family.set([&DEVICES.to_string()], 1.0);
        assert_eq!((family.series(), refused(&catalog)), (DEVICES, 1.0), "there is room again");
    }

    #[test]
    fn a_label_from_outside_is_cut_between_characters() {
        let mut catalog = Catalog::new(Registry::new());
        let family = devices(&mut catalog);
        let long = format!("{}\u{20ac}{}", "a".repeat(255), "b".repeat(1 << 20));
        family.set([&long], 1.0);
        assert_eq!(family.rows().keys().next(), Some(&["a".repeat(255)]));
    }

    #[test]
    fn an_estimate_that_came_to_no_number_has_no_series() {
        let mut catalog = Catalog::new(Registry::new());
        let family = devices(&mut catalog);
        for unknown in [None, Some(f64::NAN), Some(f64::INFINITY)] {
            family.set_known(["a"], Some(0.0));
            assert_eq!(family.series(), 1);
            family.set_known(["a"], unknown);
            assert_eq!(family.series(), 0, "{unknown:?}");
        }
    }
}
