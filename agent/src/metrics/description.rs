// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a metric family is, known before it has a series: `METRICS.md` is written from this, and families hold to it.
//!
//! ```text
//!   label of       times            gives the bound of
//!   device         at most 256  ┐
//!   a closed set   its size     ├─▶ a family's series: one more is refused and counted
//!   what follows   1            ┘
//! ```

use crate::latency::Bounds;

/// Devices that have series at a time: as many as the maps of the probes tell apart (`ebpf/src/maps.rs`).
pub const DEVICES: usize = 1024;

/// Families at most, for the bound of the one family that has a label of their names.
pub(super) const FAMILIES: usize = 128;

/// Longest value of a label, in bytes; what is longer (a name that somebody gave to a virtual machine) is cut.
pub const LABEL_BYTES: usize = 256;

/// What values a label may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    /// Names of devices, [`DEVICES`] of them at most.
    Devices,
    /// One of these.
    OneOf(Vec<&'static str>),
    /// One value for each combination of the other labels.
    Follow,
    /// Names of metric families, [`FAMILIES`] of them at most.
    Families,
}

/// A label of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// What values it may have.
    pub values: Values,
}

impl Label {
    /// The label `device`.
    pub(super) fn device() -> Self {
        Self { name: "device", values: Values::Devices }
    }

    /// A label with a closed set of values.
    pub(super) fn one_of(
        name: &'static str,
        values: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        Self { name, values: Values::OneOf(values.into_iter().collect()) }
    }

    /// A label whose value is settled by the other labels.
    pub(super) fn follows(name: &'static str) -> Self {
        Self { name, values: Values::Follow }
    }

    /// How many values it may have.
    pub fn most(&self) -> usize {
        match &self.values {
            Values::Devices => DEVICES,
            Values::OneOf(values) => values.len(),
            Values::Follow => 1,
            Values::Families => FAMILIES,
        }
    }

    /// Whether it may have this value.
    pub(super) fn takes(&self, value: &str) -> bool {
        match &self.values {
            Values::OneOf(values) => values.contains(&value),
            Values::Devices | Values::Follow | Values::Families => true,
        }
    }
}

/// What the series of a family are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, and its name ends in `_total`.
    Counter,
    /// It is what it is.
    Gauge,
    /// Its labels say something, its value is always 1, and its name ends in `_info`. A gauge where the format has no such type.
    Info,
    /// A distribution of durations in buckets with these bounds. Its name ends in `_seconds`.
    Histogram(Bounds),
}

impl Kind {
    /// The type, as the text format 0.0.4 calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge | Self::Info => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// A family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// What it is about; families of an area stand together in the documentation.
    pub area: &'static str,
    /// Its name in the text format 0.0.4.
    pub name: &'static str,
    /// What its series are.
    pub kind: Kind,
    /// Its labels, in their order.
    pub labels: Vec<Label>,
    /// What it tells.
    pub help: &'static str,
    /// When a series of it is absent.
    pub absent: &'static str,
}

impl Description {
    /// Series that it can have at most; a histogram is one.
    pub fn most_series(&self) -> usize {
        self.labels.iter().map(Label::most).fold(1, usize::saturating_mul)
    }

    /// The unit of its values, where they have one.
    pub fn unit(&self) -> Option<&'static str> {
        unit(self.name.strip_suffix("_total").unwrap_or(self.name))
    }
}

/// The unit that the name of a family ends in, without `_total`. OpenMetrics wants `# UNIT` to be the end of the name.
pub(super) fn unit(family: &str) -> Option<&'static str> {
    // The longer first.
    let units = ["bytes_per_second", "seconds", "bytes", "ratio"];
    units
        .into_iter()
        .find(|unit| family.strip_suffix(unit).is_some_and(|quantity| quantity.ends_with('_')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_the_end_of_a_name() {
        for (name, wanted) in [
            ("x_seconds", Some("seconds")),
            ("x_bytes", Some("bytes")),
            ("x_bytes_per_second", Some("bytes_per_second")),
            ("convergence_ratio", Some("ratio")),
            ("x_iterations", None),
            ("seconds", None),
            ("kilobytes", None),
        ] {
            assert_eq!(unit(name), wanted, "{name}");
        }
    }

    #[test]
    fn the_bound_is_the_product_of_the_labels() {
        let mut family = Description {
            area: "A",
            name: "x_total",
            kind: Kind::Counter,
            labels: Vec::new(),
            help: "H.",
            absent: "never",
        };
        assert_eq!(family.most_series(), 1);
        family.labels =
            vec![Label::device(), Label::follows("vm"), Label::one_of("op", ["read", "write"])];
        assert_eq!(family.most_series(), 2 * DEVICES);
    }
}
