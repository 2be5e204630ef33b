// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a benchmark found.

use std::time::Duration;

use serde::Serialize;

/// All results of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    results: Vec<Measured>,
}

/// One result: the median of its runs, and how far they lie apart.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    name: String,
    value: f64,
    unit: &'static str,
    min: f64,
    max: f64,
    runs: usize,
    vs: Option<Versus>,
}

/// What it is held against.
#[derive(Clone, Debug, Serialize)]
struct Versus {
    name: String,
    value: f64,
    /// How many times as good: above 1, the measured thing is better.
    ratio: f64,
}

/// Which of two numbers is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes a second: more is better.
    BytesPerSecond,
    /// Nanoseconds: less is better.
    Nanoseconds,
    /// Bytes: less is better.
    Bytes,
    /// CPU time as a part of the time that has passed, in percent of one CPU: less is better.
    CpuPercent,
    /// Series of an exposition: neither is better.
    Series,
    /// One time over another: less is better.
    Ratio,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::BytesPerSecond => "B/s",
            Self::Nanoseconds => "ns",
            Self::Bytes => "B",
            Self::CpuPercent => "%",
            Self::Series => "series",
            Self::Ratio => "ratio",
        }
    }
}

/// The runs of one thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs(Vec<f64>);

impl Runs {
    /// Adds a run that moved so many bytes.
    pub(crate) fn add_bytes(&mut self, bytes: usize, took: Duration) {
        let bytes = f64::from(u32::try_from(bytes).expect("a benchmark moves less than 4 GiB"));
        self.0.push(bytes / took.as_secs_f64());
    }

    /// Adds a run that did a thing so often.
    pub(crate) fn add_times(&mut self, times: u32, took: Duration) {
        self.0.push(took.as_secs_f64() * 1e9 / f64::from(times));
    }

    /// Adds a run in which something came to `sum`, over so many.
    pub(crate) fn add_each(&mut self, sum: u64, over: u64) {
        self.0.push(sum as f64 / over as f64);
    }

    /// Adds a run that used so much CPU time.
    pub(crate) fn add_cpu(&mut self, used: Duration, of: Duration) {
        self.0.push(100.0 * used.as_secs_f64() / of.as_secs_f64());
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    fn median(&self) -> f64 {
        let sorted = self.sorted();
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

impl Report {
    /// Adds a result, beside what it is held against.
    pub(crate) fn add(&mut self, name: &str, unit: Unit, runs: &Runs, vs: Option<(&str, &Runs)>) {
        let sorted = runs.sorted();
        let value = runs.median();
        let vs = vs.map(|(name, other)| {
            let other = other.median();
            let ratio = match unit {
                Unit::BytesPerSecond => value / other,
                Unit::Nanoseconds | Unit::Bytes | Unit::CpuPercent | Unit::Series | Unit::Ratio => {
                    other / value
                }
            };
            Versus { name: name.to_owned(), value: other, ratio }
        });
        let measured = Measured {
            name: name.to_owned(),
            value,
            unit: unit.name(),
            min: sorted.first().copied().unwrap_or(f64::NAN),
            max: sorted.last().copied().unwrap_or(f64::NAN),
            runs: sorted.len(),
            vs,
        };
        eprintln!("{measured:?}");
        self.results.push(measured);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_one_is_better() {
        let (mut fast, mut slow) = (Runs::default(), Runs::default());
        for seconds in [3, 1, 2] {
            fast.add_bytes(1000, Duration::from_secs(seconds));
            slow.add_bytes(1000, Duration::from_secs(2 * seconds));
        }
        let mut report = Report::default();
        report.add("save", Unit::BytesPerSecond, &fast, Some(("memcpy", &slow)));
        let (mut short, mut long) = (Runs::default(), Runs::default());
        short.add_times(10, Duration::from_nanos(100));
        long.add_times(10, Duration::from_nanos(400));
        report.add("query", Unit::Nanoseconds, &short, Some(("type1", &long)));
        let ratio = |at: usize| report.results[at].vs.as_ref().unwrap().ratio;
        assert!((ratio(0) - 2.0).abs() < 1e-9);
        assert!((ratio(1) - 4.0).abs() < 1e-9);
        let save = &report.results[0];
        assert_eq!((save.value, save.runs), (500.0, 3));
        assert!(save.min < save.value && save.value < save.max);
    }
}
