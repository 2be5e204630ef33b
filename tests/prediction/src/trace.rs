// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A migration as a list of readings, with its true end; and the file that holds one.
//!
//! A file is JSON, an object a line: first the header, then one reading each.
//!
//! ```text
//!   {"migscope_trace":1,"name":"nightly-17","facts":{"downtime_budget_ns":300000000},
//!    "outcome":{"converged":true,"total_ns":3024100000,"downtime_ns":261200000}}            (in one line)
//!   {"at_ns":10,"phase":"pre_copy","moved_bytes":0,"remaining_bytes":4096,"stop_copy_bytes":null,…,"iteration":0}
//! ```
//!
//! Times count from the first reading. What is not known is `null` or left out.

use anyhow::{Context as _, Result, ensure};
use migscope::convergence::{Facts, Reading};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// The format's version.
const VERSION: u32 = 1;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Whether it came to an end.
    pub(crate) converged: bool,
    /// From the first reading until the destination ran.
    pub(crate) total_ns: Option<u64>,
    /// From the stop of the source until the destination ran.
    pub(crate) downtime_ns: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) migscope_trace: u32,
    pub(crate) name: String,
    /// What was known beside the numbers, all the time.
    #[serde(default)]
    pub(crate) facts: Facts,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Debug)]
pub(crate) struct Trace {
    pub(crate) header: Header,
    pub(crate) readings: Vec<Reading>,
}

impl Trace {
    pub(crate) fn new(
        name: String,
        facts: Facts,
        outcome: Outcome,
        readings: Vec<Reading>,
    ) -> Self {
        Self { header: Header { migscope_trace: VERSION, name, facts, outcome }, readings }
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let file = File::open(path).with_context(|| format!("failed to open {shown}"))?;
        Self::parse(BufReader::new(file)).with_context(|| format!("failed to read {shown}"))
    }

    fn parse(text: impl BufRead) -> Result<Self> {
        let mut lines = (1_u64..).zip(text.lines());
        let (_, first) = lines.next().context("it is empty")?;
        let header: Header = serde_json::from_str(&first?).context("line 1 is no header")?;
        let version = header.migscope_trace;
        ensure!(version == VERSION, "it is of version {version}, and not {VERSION}");
        let Outcome { converged, total_ns, downtime_ns } = header.outcome;
        ensure!(
            converged == total_ns.is_some() && converged == downtime_ns.is_some(),
            "a migration that converged has both times, and no other has any"
        );
        let mut readings = Vec::new();
        for (number, line) in lines {
            let reading = serde_json::from_str(&line?);
            readings.push(reading.with_context(|| format!("line {number} is no reading"))?);
        }
        ensure!(!readings.is_empty(), "it has no readings");
        Ok(Self { header, readings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migscope::convergence::{DEFAULT_DOWNTIME_BUDGET_NS, Phase};

    const HEADER: &str = r#"{"migscope_trace":1,"name":"a","outcome":{"converged":true,"total_ns":9,"downtime_ns":1}}"#;

    #[test]
    fn a_file_is_read_and_what_it_leaves_out_is_unknown() {
        let text = format!(
            "{HEADER}\n{{\"at_ns\":5,\"phase\":\"pre_copy\",\"moved_bytes\":7,\"iteration\":2}}\n"
        );
        let trace = Trace::parse(text.as_bytes()).unwrap();
        assert_eq!(trace.header.facts.downtime_budget_ns, DEFAULT_DOWNTIME_BUDGET_NS);
        let [reading] = trace.readings.as_slice() else { panic!("{:?}", trace.readings) };
        let expected =
            Reading { moved_bytes: Some(7), iteration: 2, ..Reading::unknown(5, Phase::PreCopy) };
        assert_eq!(*reading, expected);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let told = |text: &str| format!("{:#}", Trace::parse(text.as_bytes()).unwrap_err());
        assert_eq!(told(""), "it is empty");
        assert!(told("{}").starts_with("line 1 is no header"));
        assert!(told(&format!("{HEADER}\n1\n")).starts_with("line 2 is no reading"));
        assert_eq!(told(HEADER), "it has no readings");
        assert!(told(&HEADER.replace(":1,\"name", ":2,\"name")).contains("version 2"));
        assert!(told(&HEADER.replace("true", "false")).contains("has both times"));
    }
}
