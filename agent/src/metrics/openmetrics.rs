// SPDX-License-Identifier: Apache-2.0 OR MIT
//! OpenMetrics 1.0.0 text (<https://prometheus.io/docs/specs/om/open_metrics_spec/>); the crate `prometheus` only writes 0.0.4.
//!
//! The samples are those of 0.0.4, name by name. What differs:
//!
//! - The family of a counter is named without `_total`, that of an info without `_info`; their samples keep it.
//! - `# UNIT` where a name ends in its unit, and `# EOF`: a text that was cut off is not taken for a whole one.
//! - Numbers as Go writes them, which the specification asks for: `1.024e-06`, where 0.0.4 has `0.000001024`. So a bucket that is
//!   shorter than 0.1 ms has another `le` here. Prometheus 3 takes both for the same; one of version 2 always asks for the same format.
//! - Exemplars.
//!
//! What it has not:
//!
//! - `_created`. The counters of the probes began when the probes were loaded, so it would say the same of each of them as
//!   `process_start_time_seconds` says once; and Prometheus stores it as a series more for each series, unless told otherwise.
//! - State sets. Theirs wants a label that is named as the family (`vfio_migration_device_state="running"`); ours is `state`, which
//!   is a contract. So `…_device_state` stays a set of gauges.

use super::{
    description::unit,
    exemplar::{ByBucket, Exemplar, Exemplars},
};
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};
use std::fmt::{self, Write};

/// The exposition of the families, with the exemplars that belong to them.
///
/// # Errors
///
/// None: writing to a string does not fail.
pub(super) fn encode(
    families: &[MetricFamily],
    exemplars: &Exemplars,
) -> Result<String, fmt::Error> {
    let mut text = String::new();
    for family in families {
        write_family(&mut text, family, exemplars)?;
    }
    text.push_str("# EOF\n");
    Ok(text)
}

fn write_family(text: &mut String, family: &MetricFamily, exemplars: &Exemplars) -> fmt::Result {
    let whole = family.name();
    let bare = |suffix| whole.strip_suffix(suffix).unwrap_or(whole);
    let (name, kind) = match family.get_field_type() {
        MetricType::COUNTER => (bare("_total"), "counter"),
        MetricType::GAUGE if whole.ends_with("_info") => (bare("_info"), "info"),
        MetricType::GAUGE => (whole, "gauge"),
        MetricType::HISTOGRAM => (whole, "histogram"),
        // Nothing here makes one, and of a type that is not known there is no value to write.
        MetricType::SUMMARY | MetricType::UNTYPED => return Ok(()),
    };
    if family.get_metric().is_empty() {
        return Ok(());
    }
    writeln!(text, "# TYPE {name} {kind}")?;
    if let Some(unit) = unit(name) {
        writeln!(text, "# UNIT {name} {unit}")?;
    }
    writeln!(text, "# HELP {name} {}", Escaped(family.help()))?;
    for metric in family.get_metric() {
        let labels = metric.get_label();
        match kind {
            "counter" => {
                let value = Number(metric.get_counter().get_value());
                writeln!(text, "{name}_total{} {value}", Labels(labels, None))?;
            }
            "histogram" => {
                let values: Vec<_> = labels.iter().map(|pair| pair.value().to_owned()).collect();
                let of_series = exemplars.get(name).and_then(|family| family.get(&values));
                write_histogram(text, name, metric, of_series)?;
            }
            _ => {
                let value = Number(metric.get_gauge().get_value());
                writeln!(text, "{whole}{} {value}", Labels(labels, None))?;
            }
        }
    }
    Ok(())
}

fn write_histogram(
    text: &mut String,
    name: &str,
    metric: &Metric,
    exemplars: Option<&ByBucket>,
) -> fmt::Result {
    let histogram = metric.get_histogram();
    let labels = metric.get_label();
    let count = histogram.get_sample_count();
    let bounds = histogram.get_bucket().iter();
    let bounds = bounds.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
    for (place, (bound, below)) in bounds.chain([(f64::INFINITY, count)]).enumerate() {
        write!(text, "{name}_bucket{} {below}", Labels(labels, Some(bound)))?;
        if let Some(exemplar) = exemplars.and_then(|exemplars| exemplars.get(&place)) {
            let Exemplar { session, value, at } = exemplar;
            write!(text, " # {{session=\"{session}\"}} {}", Number(value.as_secs_f64()))?;
            if let Some(at) = at {
                write!(text, " {}.{:03}", at.as_secs(), at.subsec_millis())?;
            }
        }
        text.push('\n');
    }
    let labels = Labels(labels, None);
    writeln!(text, "{name}_sum{labels} {}", Number(histogram.get_sample_sum()))?;
    writeln!(text, "{name}_count{labels} {count}")
}

/// Labels with their braces, and the bound of a bucket.
struct Labels<'a>(&'a [LabelPair], Option<f64>);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(pairs, bound) = self;
        if pairs.is_empty() && bound.is_none() {
            return Ok(());
        }
        let mut before = '{';
        for pair in *pairs {
            write!(f, "{before}{}=\"{}\"", pair.name(), Escaped(pair.value()))?;
            before = ',';
        }
        if let Some(bound) = bound {
            write!(f, "{before}le=\"{}\"", Number(*bound))?;
        }
        f.write_char('}')
    }
}

/// A label's value or a help, escaped; in the help, too, OpenMetrics wants the quotes escaped.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '"' => f.write_str("\\\"")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A number in the canonical form: the shortest digits that give it back, with an exponent where it is below -4 or above 5, and
/// always with a sign that it is no integer (Go's `strconv` with 'g', and `.0`).
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        if value.is_nan() {
            return f.write_str("NaN");
        }
        if value.is_infinite() {
            return f.write_str(if value > 0.0 { "+Inf" } else { "-Inf" });
        }
        let scientific = format!("{value:e}");
        let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        match exponent.parse::<i32>() {
            Ok(exponent) if !(-4..6).contains(&exponent) => {
                let sign = if exponent < 0 { '-' } else { '+' };
                write!(f, "{digits}e{sign}{:02}", exponent.unsigned_abs())
            }
            _ if value.fract() == 0.0 => write!(f, "{value}.0"),
            _ => write!(f, "{value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_canonical() {
        // The list of the specification, section "Numbers"; and what Go makes of others.
        for (value, wanted) in [
            (0.0, "0.0"),
            (0.001, "0.001"),
            (0.01, "0.01"),
            (1.0, "1.0"),
            (10.0, "10.0"),
            (1e-10, "1e-10"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (100_000.0, "100000.0"),
            (1e6, "1e+06"),
            (1e10, "1e+10"),
            (0.000_001_024, "1.024e-06"),
            (17.179_869_184, "17.179869184"),
            (123_456_789.5, "1.234567895e+08"),
            (-2.5, "-2.5"),
            (1e300, "1e+300"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(Number(value).to_string(), wanted);
        }
    }

    #[test]
    fn an_empty_exposition_is_whole() {
        assert_eq!(encode(&[MetricFamily::default()], &Exemplars::new()).as_deref(), Ok("# EOF\n"));
    }

    proptest! {
        #[test]
        fn a_number_can_be_read_back(value in any::<f64>()) {
            let text = Number(value).to_string();
            let read: f64 = text.parse().expect("a number");
            prop_assert!(read.to_bits() == value.to_bits() || (read.is_nan() && value.is_nan()), "{}", text);
        }
    }
}
