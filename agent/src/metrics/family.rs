// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A metric family whose series come and go: each is set, counted up, or dropped by its labels.
//!
//! The vectors of the crate `prometheus` keep what they were once given, and a gauge without a value reads as zero. Here what is
//! not known has no series.

use crate::latency::{Bounds, Latency};
use prometheus::{
    Registry,
    core::{Collector, Desc},
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

type Rows<V, const N: usize> = BTreeMap<[String; N], V>;

/// A family with `N` labels, all of whose series have values of type `V` and are shown by the rule `S`.
#[derive(Debug)]
pub(super) struct Family<V, S, const N: usize> {
    inner: Arc<Inner<V, S, N>>,
}

#[derive(Debug)]
struct Inner<V, S, const N: usize> {
    desc: Desc,
    shown_by: S,
    labels: [&'static str; N],
    rows: Mutex<Rows<V, N>>,
}

/// How a number is shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum NumberKind {
    /// It only grows, and its name ends in `_total`.
    Counter,
    /// It is what it is.
    Gauge,
}

impl<V, S, const N: usize> Clone for Family<V, S, N> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

/// A family of counters or gauges.
pub(super) type Numbers<const N: usize> = Family<f64, NumberKind, N>;
/// A family of histograms.
pub(super) type Latencies<const N: usize> = Family<Latency, Bounds, N>;

impl<V, S, const N: usize> Family<V, S, N>
where
    Self: Collector + 'static,
{
    fn register(
        registry: &Registry,
        shown_by: S,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
    ) -> Self {
        let names = labels.iter().map(ToString::to_string).collect();
        let desc = Desc::new(name.into(), help.into(), names, HashMap::new())
            .expect("names and labels are constants of this crate");
        let inner = Arc::new(Inner { desc, shown_by, labels, rows: Mutex::default() });
        let family = Self { inner };
        registry
            .register(Box::new(family.clone()))
            .expect("each family of this crate has a name of its own");
        family
    }

    fn rows(&self) -> MutexGuard<'_, Rows<V, N>> {
        // Rows are numbers: a thread that died in between left nothing half done.
        self.inner.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the series whose labels are chosen.
    pub(super) fn forget(&self, chosen: impl Fn(&[String; N]) -> bool) {
        self.rows().retain(|labels, _| !chosen(labels));
    }

    /// The family as the crate `prometheus` encodes it; `value` gives a series its value.
    fn export(&self, kind: MetricType, value: impl Fn(&V, &mut Metric)) -> Vec<MetricFamily> {
        let Inner { desc, labels: names, .. } = &*self.inner;
        let mut family = MetricFamily::default();
        family.set_name(desc.fq_name.clone());
        family.set_help(desc.help.clone());
        family.set_field_type(kind);
        let rows = self.rows();
        let series = rows.iter().map(|(labels, row)| {
            let pairs = names.iter().zip(labels).map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*name).into());
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
    /// A family of counters. `name` ends in `_total`.
    pub(super) fn counters(
        registry: &Registry,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
    ) -> Self {
        Self::register(registry, NumberKind::Counter, name, help, labels)
    }

    /// A family of gauges.
    pub(super) fn gauges(
        registry: &Registry,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
    ) -> Self {
        Self::register(registry, NumberKind::Gauge, name, help, labels)
    }

    /// Sets a series. For a counter: to all that was ever counted.
    pub(super) fn set(&self, labels: [&str; N], value: f64) {
        self.rows().insert(labels.map(str::to_owned), value);
    }

    /// Adds to a series, which starts at zero.
    pub(super) fn add(&self, labels: [&str; N], amount: f64) {
        *self.rows().entry(labels.map(str::to_owned)).or_default() += amount;
    }
}

impl<const N: usize> Latencies<N> {
    /// A family of histograms of durations. `name` ends in `_seconds`.
    pub(super) fn histograms(
        registry: &Registry,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; N],
        bounds: Bounds,
    ) -> Self {
        Self::register(registry, bounds, name, help, labels)
    }

    /// Changes a series, which starts empty.
    pub(super) fn update(&self, labels: [&str; N], change: impl FnOnce(&mut Latency)) {
        change(self.rows().entry(labels.map(str::to_owned)).or_default());
    }
}

impl<const N: usize> Collector for Numbers<N> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.inner.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        match self.inner.shown_by {
            NumberKind::Gauge => self.export(MetricType::GAUGE, |value, metric| {
                let mut gauge = Gauge::default();
                gauge.set_value(*value);
                metric.set_gauge(gauge);
            }),
            NumberKind::Counter => self.export(MetricType::COUNTER, |value, metric| {
                let mut counter = Counter::default();
                counter.set_value(*value);
                metric.set_counter(counter);
            }),
        }
    }
}

impl<const N: usize> Collector for Latencies<N> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.inner.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let bounds = self.inner.shown_by;
        self.export(MetricType::HISTOGRAM, |latency, metric| {
            let shown = latency.cumulative(bounds);
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
