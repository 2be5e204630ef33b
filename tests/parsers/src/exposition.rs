// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What Prometheus refuses in an exposition: the same series twice, a line that is none, samples without their family.

use std::collections::BTreeSet;

/// The names and values of the samples of a sound exposition, in either format.
///
/// # Panics
///
/// When Prometheus would refuse it.
pub fn hold(text: &[u8]) -> Vec<(&str, f64)> {
    let text = std::str::from_utf8(text).expect("an exposition is UTF-8");
    let mut families = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut samples = Vec::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            if let Some(family) = comment.strip_prefix("TYPE ") {
                let (name, _) = family.split_once(' ').expect("a family has a type");
                assert!(families.insert(name), "the family {name} comes twice");
            }
            continue;
        }
        let (series, rest) = series(line);
        let value = rest.split(' ').next().unwrap_or_default();
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no value: {line:?}"));
        assert!(!value.is_nan(), "no number: {line:?}");
        assert!(seen.insert(series), "a series comes twice: {line:?}");
        let name = series.split('{').next().unwrap_or_default();
        let stem = ["_total", "_bucket", "_sum", "_count", "_created", "_info"]
            .into_iter()
            .find_map(|end| name.strip_suffix(end));
        let known = |name| families.contains(name);
        assert!(known(name) || stem.is_some_and(known), "a sample of no family: {line:?}");
        samples.push((series, value));
    }
    samples
}

/// The series of a line with its labels, and what follows it.
fn series(line: &str) -> (&str, &str) {
    let mut quoted = false;
    let mut escaped = false;
    let end = line.char_indices().find(|(_, letter)| {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ' ' if !quoted => return true,
            _ => {}
        }
        false
    });
    let (at, _) = end.unwrap_or_else(|| panic!("a line that is no sample: {line:?}"));
    let (series, rest) = line.split_at(at);
    (series, rest.trim_start_matches(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prometheus_refuses_is_refused() {
        let good =
            b"# HELP a_total x\n# TYPE a_total counter\na_total{d=\"x \\\" y\"} 1\na_total 2\n";
        assert_eq!(hold(good), [("a_total{d=\"x \\\" y\"}", 1.0), ("a_total", 2.0)]);
        for bad in [
            &b"# TYPE a gauge\na 1\na 2\n"[..],
            b"a 1\n",
            b"# TYPE a gauge\na{b=\"c\n\"} 1\n",
            b"# TYPE a gauge\n# TYPE a gauge\n",
            b"# TYPE a gauge\na NaN\n",
            b"# TYPE a gauge\na x\n",
        ] {
            assert!(std::panic::catch_unwind(|| hold(bad)).is_err());
        }
    }
}
