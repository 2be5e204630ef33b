// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What `/metrics` says, as numbers that can be asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use prometheus_parse::{Sample, Scrape, Value};

use super::report::{Glance, Seen};

/// One scrape.
#[derive(Debug)]
pub struct Exposition(Vec<Sample>);

impl Exposition {
    /// Reads the text format.
    ///
    /// # Errors
    ///
    /// What the parser finds wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(|line| Ok(line.to_owned()));
        let scrape = Scrape::parse(lines).context("failed to parse what /metrics answered")?;
        Ok(Self(scrape.samples))
    }

    /// How many samples there are.
    pub fn samples(&self) -> usize {
        self.0.len()
    }

    /// The sum of the samples of `metric` that have all of `labels`; nothing when there is none.
    pub fn sum(&self, metric: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.matching(metric, labels).map(|(_, value)| value).reduce(|sum, value| sum + value)
    }

    /// The probes that the agent tells of as not attached.
    pub fn detached_probes(&self) -> Vec<String> {
        self.matching("migscope_probe_attached", &[])
            .filter(|(_, attached)| *attached != 1.0)
            .filter_map(|(sample, _)| sample.labels.get("probe").map(str::to_owned))
            .collect()
    }

    /// What a person would look at while a migration runs.
    pub fn glance(&self, at: Duration) -> Seen {
        let mut devices: BTreeMap<String, Glance> = BTreeMap::new();
        for (sample, value) in self.matching("vfio_migration_device_state", &[]) {
            let (Some(device), Some(state)) =
                (sample.labels.get("device"), sample.labels.get("state"))
            else {
                continue;
            };
            let glance = devices.entry(device.to_owned()).or_default();
            if value == 1.0 {
                glance.state = Some(state.to_owned());
            }
        }
        for (device, glance) in &mut devices {
            let of = [("device", device.as_str())];
            glance.pending_bytes = self.sum("vfio_migration_pending_bytes", &of);
            glance.data_bytes = self.sum("vfio_migration_data_bytes_total", &of);
            glance.dirty_pages = self.sum("vfio_migration_dirty_pages_total", &of);
        }
        Seen { at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX), devices }
    }

    fn matching<'a>(
        &'a self,
        metric: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = (&'a Sample, f64)> {
        let fits = |sample: &Sample| {
            labels.iter().all(|(name, value)| sample.labels.get(name) == Some(*value))
        };
        self.0.iter().filter(move |sample| sample.metric == metric && fits(sample)).filter_map(
            |sample| match sample.value {
                Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => {
                    Some((sample, value))
                }
                Value::Histogram(_) | Value::Summary(_) => None,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# TYPE vfio_migration_device_state gauge
vfio_migration_device_state{device=\"0000:00:10.0\",state=\"running\"} 0
vfio_migration_device_state{device=\"0000:00:10.0\",state=\"pre_copy\"} 1
# TYPE vfio_migration_data_bytes_total counter
vfio_migration_data_bytes_total{device=\"0000:00:10.0\",direction=\"save\"} 3
vfio_migration_data_bytes_total{device=\"0000:00:10.0\",direction=\"resume\"} 4
# TYPE d histogram
d_bucket{le=\"+Inf\"} 2
d_sum 0.5
d_count 2
# TYPE migscope_probe_attached gauge
migscope_probe_attached{probe=\"state\"} 1
migscope_probe_attached{probe=\"dma\"} 0
";

    #[test]
    fn what_was_not_told_is_nothing_and_not_zero() {
        let exposition = Exposition::parse(TEXT).unwrap();
        let device = [("device", "0000:00:10.0")];
        assert_eq!(exposition.sum("vfio_migration_data_bytes_total", &device), Some(7.0));
        assert_eq!(exposition.sum("vfio_migration_pending_bytes", &device), None);
        assert_eq!(exposition.sum("d_sum", &[]), Some(0.5));
        let glance = &exposition.glance(Duration::from_millis(5)).devices["0000:00:10.0"];
        assert_eq!(glance.state.as_deref(), Some("pre_copy"));
        assert_eq!((glance.data_bytes, glance.pending_bytes), (Some(7.0), None));
    }

    #[test]
    fn a_missing_probe_is_named() {
        assert_eq!(Exposition::parse(TEXT).unwrap().detached_probes(), ["dma"]);
    }
}
