// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Counting what passed and what failed, over everything that `test` runs.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

/// Numbers of tests, or of checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// Each one's reason is printed by libtest beside its name.
    pub(crate) ignored: u64,
}

impl Counts {
    pub(crate) const ONE_PASSED: Self = Self { passed: 1, failed: 0, ignored: 0 };

    /// Adds another program's numbers.
    pub(crate) fn add(&mut self, other: Self) {
        let Self { passed, failed, ignored } = other;
        self.passed += passed;
        self.failed += failed;
        self.ignored += ignored;
    }

    /// Adds up the `test result:` lines of a libtest program as they come.
    pub(crate) fn hear(&mut self, line: &str) {
        let Some((_, numbers)) = line.split_once("test result: ") else { return };
        // `ok. 3 passed; 0 failed; 1 ignored; …`
        for part in numbers.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (words.next(), words.next()) else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// A program that failed without counting a failure (it crashed, or did not compile) is one.
    pub(crate) fn or_failed(mut self, succeeded: bool) -> Self {
        if !succeeded && self.failed == 0 {
            self.failed = 1;
        }
        self
    }
}

/// What a test binary said that is for the summary.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) counts: Counts,
    /// Name and value of its lines `measured: NAME VALUE UNIT`.
    pub(crate) measured: Vec<(String, String)>,
}

impl Heard {
    pub(crate) fn hear(&mut self, line: &str) {
        self.counts.hear(line);
        let measured = line.strip_prefix("measured: ").and_then(|rest| rest.split_once(' '));
        self.measured.extend(measured.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}

struct Row {
    name: String,
    counts: Counts,
    duration: Duration,
}

/// The whole run.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    records: Vec<(String, String)>,
    /// Parts of the names of the steps to run; all of them run if there is none.
    only: Vec<String>,
}

impl Report {
    /// Of the steps whose names contain one of these; of all, if there is none.
    pub(crate) fn of_only(only: &[String]) -> Self {
        Self { only: only.to_vec(), ..Self::default() }
    }

    /// Whether a step of this name is to run.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }

    /// Whether all steps are to run.
    pub(crate) fn is_whole(&self) -> bool {
        self.only.is_empty()
    }

    /// The names of the steps that ran.
    pub(crate) fn names(&self) -> Vec<String> {
        self.rows.iter().map(|row| row.name.clone()).collect()
    }

    /// Runs one step, if it is to run. An error is one failure, and the next step runs all the same.
    pub(crate) fn step(&mut self, name: impl Into<String>, step: impl FnOnce() -> Result<Counts>) {
        let name = name.into();
        if self.wants(&name) {
            self.needed(name, step);
        }
    }

    /// Runs a step that others need, whatever is to run.
    pub(crate) fn needed(
        &mut self,
        name: impl Into<String>,
        step: impl FnOnce() -> Result<Counts>,
    ) {
        let name = name.into();
        eprintln!("\n== {name}");
        let start = Instant::now();
        let counts = step().unwrap_or_else(|error| {
            eprintln!("error: {name}: {error:#}");
            Counts::default().or_failed(false)
        });
        self.rows.push(Row { name, counts, duration: start.elapsed() });
    }

    /// Keeps a measured value for the summary. Recorded, not judged.
    pub(crate) fn record(&mut self, what: impl Into<String>, value: impl Into<String>) {
        self.records.push((what.into(), value.into()));
    }

    pub(crate) fn total(&self) -> Counts {
        self.rows.iter().fold(Counts::default(), |mut sum, row| {
            sum.add(row.counts);
            sum
        })
    }
}

/// The summary; its last line is the total.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, records, only: _ } = self;
        for Row { name, counts: Counts { passed, failed, ignored }, duration } in rows {
            let verdict = if *failed == 0 { "ok  " } else { "FAIL" };
            write!(f, "{verdict} {name}: {passed} passed, {failed} failed")?;
            if *ignored > 0 {
                write!(f, ", {ignored} ignored")?;
            }
            writeln!(f, " ({:.1} s)", duration.as_secs_f64())?;
        }
        for (what, value) in records {
            writeln!(f, "     {what}: {value}")?;
        }
        let Counts { passed, failed, .. } = self.total();
        write!(f, "{passed} passed, {failed} failed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_is_not_asked_for_does_not_run_but_one_that_others_need_does() {
        let mut report = Report::of_only(&["v2".to_owned(), "lint".to_owned()]);
        for name in ["lint: rustfmt", "guest: v2", "guest: qemu_v2", "guest: region"] {
            report.step(name, || Ok(Counts::ONE_PASSED));
        }
        report.needed("build", || Ok(Counts::ONE_PASSED));
        assert_eq!(report.total().passed, 4);
        assert!(Report::of_only(&[]).wants("guest: region"));
    }

    #[test]
    fn results_of_all_binaries_add_up() {
        let mut counts = Counts::default();
        for line in [
            "running 4 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out",
        ] {
            counts.hear(line);
        }
        assert_eq!(counts, Counts { passed: 4, failed: 2, ignored: 1 });
    }

    #[test]
    fn a_crash_without_a_result_is_a_failure() {
        assert_eq!(Counts::default().or_failed(false).failed, 1);
        let told = Counts { failed: 2, ..Counts::default() };
        assert_eq!(told.or_failed(false), told);
        assert_eq!(Counts::ONE_PASSED.or_failed(true), Counts::ONE_PASSED);
    }

    #[test]
    fn the_last_line_is_the_total_and_an_error_counts() {
        let mut report = Report::default();
        report.step("good", || Ok(Counts::ONE_PASSED));
        report.step("bad", || anyhow::bail!("no"));
        report.record("guest boot", "1 s");
        assert_eq!(report.to_string().lines().last(), Some("1 passed, 1 failed"));
    }
}
