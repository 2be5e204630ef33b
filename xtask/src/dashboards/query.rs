// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is asked of Prometheus: the queries of panels, and what expressions have in common.

use serde::Serialize;
use serde_json::{Value, json};

/// The data source that the reader of a dashboard chose.
pub(super) fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// The form in which a query's result is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    TimeSeries,
    Table,
    Heatmap,
}

/// A query of a panel.
#[derive(Clone, Debug)]
pub(super) struct Query {
    expr: String,
    legend: String,
    format: Format,
    instant: bool,
    exemplar: bool,
}

impl Query {
    /// As it went over the time that the dashboard shows.
    pub(super) fn over_time(expr: impl Into<String>) -> Self {
        Self {
            expr: expr.into(),
            legend: String::new(),
            format: Format::TimeSeries,
            instant: false,
            exemplar: false,
        }
    }

    /// As it stands at the end of that time. What is unknown then is absent, however well it was known before.
    pub(super) fn at_the_end(expr: impl Into<String>) -> Self {
        Self { instant: true, ..Self::over_time(expr) }
    }

    /// The same as rows of a table.
    pub(super) fn table(expr: impl Into<String>) -> Self {
        Self { format: Format::Table, ..Self::at_the_end(expr) }
    }

    /// Buckets by `le` as a heat map, with exemplars where Prometheus keeps them.
    pub(super) fn heatmap(expr: impl Into<String>) -> Self {
        Self { format: Format::Heatmap, exemplar: true, ..Self::over_time(expr) }.legend("{{le}}")
    }

    /// What a series is called; `{{label}}` is replaced.
    pub(super) fn legend(mut self, legend: &str) -> Self {
        legend.clone_into(&mut self.legend);
        self
    }

    pub(super) fn json(&self, reference: &str) -> Value {
        let Self { expr, legend, format, instant, exemplar } = self;
        json!({
            "refId": reference,
            "datasource": datasource(),
            "editorMode": "code",
            "expr": expr,
            "legendFormat": legend,
            "format": format,
            "instant": instant,
            "range": !instant,
            "exemplar": exemplar,
        })
    }
}

/// The name of a panel's query by its place: A, B, C …
pub(super) fn reference(index: usize) -> String {
    const NAMES: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    char::from(NAMES[index]).to_string()
}

/// A metric of the agents that the reader chose, and of those series the ones that `more` selects.
pub(super) fn of(metric: &str, more: &str) -> String {
    let comma = if more.is_empty() { "" } else { ", " };
    format!(r#"{metric}{{job=~"$job", instance=~"$instance"{comma}{more}}}"#)
}

/// How often a counter went up in a second.
pub(super) fn rate(metric: &str, more: &str) -> String {
    format!("rate({}[$__rate_interval])", of(metric, more))
}

/// By how much a counter went up from point to point.
pub(super) fn step_increase(metric: &str, more: &str) -> String {
    format!("increase({}[$__rate_interval])", of(metric, more))
}

/// By how much a counter went up in the time that the dashboard shows.
pub(super) fn increase(metric: &str, more: &str) -> String {
    format!("increase({}[$__range])", of(metric, more))
}

/// How often something happened in `range`, where a series begins with the first time that it does.
///
/// Such a series comes with the value 1, and `increase` of it is 0: one breach of the protocol would never be seen. So of a series
/// that was not there when the time began, all that it counted counts.
pub(super) fn happened(metric: &str, more: &str, range: &str) -> String {
    let series = of(metric, more);
    format!(
        "((last_over_time({series}[{range}]) unless {series} offset {range}) or increase({series}[{range}]))"
    )
}

/// The range from point to point, and all the time that the dashboard shows.
pub(super) const STEP: &str = "$__rate_interval";
pub(super) const ALL: &str = "$__range";

/// The expression with the labels of the machine that has the device open, or had it last. `machine` selects among the machines.
pub(super) fn with_machine(expr: &str, machine: &str) -> String {
    let info = of("vfio_migration_device_info", machine);
    format!("{expr} * on (job, instance, device) group_left (vm, vm_uuid) {info}")
}

/// The same of a device's last migration: which machine's it was, whoever has the device now.
pub(super) fn with_machine_then(expr: &str, machine: &str) -> String {
    let info = of("vfio_migration_last_session_info", machine);
    format!("{expr} * on (job, instance, device) group_left (vm, vm_uuid) {info}")
}

/// States in which a device is the source of a migration.
pub(super) const SOURCE: &str = r#"state=~"pre_copy|pre_copy_p2p|stop_and_copy""#;
/// The state in which it is the destination.
pub(super) const DESTINATION: &str = r#"state="resuming""#;
/// States in which it is either.
pub(super) const MIGRATING: &str = r#"state=~"pre_copy|pre_copy_p2p|stop_and_copy|resuming""#;

/// The expression, for devices that are in these states.
pub(super) fn while_in(states: &str, expr: &str) -> String {
    let state = of("vfio_migration_device_state", states);
    format!("{expr} and on (job, instance, device) (max by (job, instance, device) ({state}) == 1)")
}

/// The mean of a histogram's values in the time that the dashboard shows, by these labels. Histograms, too, begin with their first value.
pub(super) fn mean(histogram: &str, by: &str, more: &str) -> String {
    let sum = happened(&format!("{histogram}_sum"), more, ALL);
    let count = happened(&format!("{histogram}_count"), more, ALL);
    format!("sum by ({by}) ({sum}) / sum by ({by}) ({count})")
}

/// A quantile of a histogram's values in the time that the dashboard shows.
pub(super) fn quantile(quantile: &str, histogram: &str, more: &str) -> String {
    let buckets = happened(&format!("{histogram}_bucket"), more, ALL);
    format!("histogram_quantile({quantile}, sum by (le) ({buckets}))")
}

/// A histogram's values from point to point, by bucket.
pub(super) fn buckets(histogram: &str, more: &str) -> String {
    format!("sum by (le) ({})", happened(&format!("{histogram}_bucket"), more, STEP))
}
