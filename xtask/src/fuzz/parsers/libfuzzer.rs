// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What libFuzzer says while it runs (<https://llvm.org/docs/LibFuzzer.html#output>), and what of it people want to know.
//!
//! ```text
//!   #24 INITED cov: 2215 ft: 2731 corp: 9/12Kb exec/s: 0 rss: 80Mb
//!   #4096 pulse  cov: 2301 ft: 3117 corp: 85/90Kb lim: 4096 exec/s: 2048 rss: 95Mb
//!   stat::number_of_executed_units: 71642
//! ```

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Often enough to see life in a CI log, rarely enough to be able to read it.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What it has said so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// Inputs that were fed.
    pub(super) inputs: u64,
    per_second: u64,
    /// Edges of the program that the seeds, or what was kept, came to.
    edges_first: Option<u64>,
    edges: Option<u64>,
    /// Inputs that are kept, because they came somewhere new.
    kept: u64,
    /// The longest that an input took.
    slowest_seconds: u64,
    rss_mb: u64,
    /// The file with what the target failed on.
    pub(super) finding: Option<PathBuf>,
    /// How it failed: the place of the panic and its message, or what libFuzzer or a sanitizer says.
    pub(super) how: Vec<String>,
    /// The next line is the message of a panic.
    panicked: bool,
}

impl Heard {
    /// Takes in a line.
    pub(super) fn hear(&mut self, line: &str) {
        // "deadly signal" is what comes of every panic.
        let told = line.contains("ERROR: ") && !line.ends_with("deadly signal");
        if std::mem::take(&mut self.panicked) || told {
            self.how.push(line.trim().into());
        } else if line.contains(" panicked at ") {
            self.how.push(line.trim().into());
            self.panicked = true;
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.finding = Some(path.trim().into());
        } else if let Some(stat) = line.strip_prefix("stat::") {
            let Some((name, value)) = stat.split_once(':') else { return };
            let Ok(value) = value.trim().parse() else { return };
            match name {
                "number_of_executed_units" => self.inputs = value,
                "average_exec_per_sec" => self.per_second = value,
                "slowest_unit_time_sec" => self.slowest_seconds = value,
                "peak_rss_mb" => self.rss_mb = value,
                _ => {}
            }
        } else if let Some(status) = line.strip_prefix('#') {
            self.status(status);
        }
    }

    fn status(&mut self, status: &str) {
        let mut words = status.split_whitespace();
        let Some(inputs) = words.next().and_then(|word| word.parse().ok()) else { return };
        self.inputs = inputs;
        let mut name = "";
        for word in words {
            let first = word.split('/').next().unwrap_or_default();
            match (name, first.parse()) {
                ("cov:", Ok(edges)) => self.edges = Some(edges),
                ("corp:", Ok(kept)) => self.kept = kept,
                ("exec/s:", Ok(per_second)) => self.per_second = per_second,
                _ => {}
            }
            name = word;
        }
        if status.contains("INITED") {
            self.edges_first = self.edges;
        }
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inputs, per_second, edges_first, edges, kept, slowest_seconds, rss_mb, .. } =
            self;
        let edges = match (edges, edges_first) {
            (Some(edges), Some(first)) => {
                format!("{edges}, +{} from {first}", edges.saturating_sub(*first))
            }
            _ => "?".into(),
        };
        write!(
            f,
            "{inputs:>8} {per_second:>9}   {edges:22} {kept:>6} {slowest_seconds:>6} s {rss_mb} MB"
        )
    }
}

/// Says now and then that it goes on.
pub(super) struct Pulse {
    target: String,
    whole: Duration,
    start: Instant,
    last: Option<Instant>,
}

impl Pulse {
    pub(super) fn new(target: &str, whole: Duration) -> Self {
        Self { target: target.into(), whole, start: Instant::now(), last: None }
    }

    pub(super) fn beat(&mut self, heard: &Heard) {
        if self.last.is_some_and(|last| last.elapsed() < LINE_EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        let Self { target, whole, start, .. } = self;
        let Heard { inputs, kept, edges, .. } = heard;
        let edges = edges.map_or_else(|| "?".into(), |edges| edges.to_string());
        eprintln!(
            "{target}: {} of {} s, {inputs} inputs, {edges} edges, {kept} kept",
            start.elapsed().as_secs(),
            whole.as_secs()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says_is_understood() {
        let mut heard = Heard::default();
        for line in [
            "INFO: Seed: 3918206239",
            "#24\tINITED cov: 2215 ft: 2731 corp: 9/12Kb exec/s: 0 rss: 80Mb",
            "#25\tNEW    cov: 2216 ft: 2740 corp: 10/12Kb lim: 4096 exec/s: 0 rss: 80Mb L: 3/9 MS: 1 ChangeByte-",
            "#4096\tpulse  cov: 2301 ft: 3117 corp: 85/90Kb lim: 4096 exec/s: 2048 rss: 95Mb",
            "Done 71642 runs in 11 second(s)",
            "stat::number_of_executed_units: 71642",
            "stat::average_exec_per_sec:     6512",
            "stat::slowest_unit_time_sec:    0",
            "stat::peak_rss_mb:              97",
        ] {
            heard.hear(line);
        }
        let wanted = Heard {
            inputs: 71_642,
            per_second: 6_512,
            edges_first: Some(2_215),
            edges: Some(2_301),
            kept: 85,
            slowest_seconds: 0,
            rss_mb: 97,
            ..Heard::default()
        };
        assert_eq!(heard, wanted);
        for line in [
            "thread '<unnamed>' (7) panicked at tests/parsers/src/target/abi.rs:81:15:",
            "attempt to multiply with overflow",
            "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace",
            "==7== ERROR: libFuzzer: deadly signal",
            "artifact_prefix='./'; Test unit written to ./crash-da39a3ee",
        ] {
            heard.hear(line);
        }
        assert_eq!(heard.finding, Some("./crash-da39a3ee".into()));
        assert_eq!((heard.how.len(), &*heard.how[1]), (2, "attempt to multiply with overflow"));
        heard.hear("==8== ERROR: AddressSanitizer: heap-buffer-overflow on address 0x50");
        assert_eq!(heard.how.len(), 3);
    }
}
