// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The view as lines, for logs, pipes and terminals that take no commands.
//!
//! A line a device, when something about it has changed, and one for each at first:
//!
//! ```text
//! time=2026-11-22T23:02:48Z device=0000:00:10.0 vm=web state=pre_copy state_seconds=1.250 session=3 role=source protocol=region
//! result=? data_bytes=4279 pending_bytes=0 progress=1.000 data_bytes_per_second=? dirty_bytes_per_second=? … (one line)
//! ```
//!
//! Every line has every key, in this order, so that `grep`, `cut` and `awk` all find their way. `?` is unknown or does not apply.
//! Amounts are bytes and seconds. A value with other characters than letters, digits and `._:/+-` is quoted, with escapes as in Rust.

use super::row::{Phase, Row};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, SystemTime},
};

/// Longest text from outside, in characters.
const TEXT: usize = 256;

/// The lines, and what was last said of each device.
#[derive(Debug, Default)]
pub struct Plain {
    said: BTreeMap<String, String>,
}

impl Plain {
    /// A line for each device of which something else is to be said than the last time. That time goes by is nothing else.
    pub fn lines(&mut self, rows: &[Row], at: SystemTime) -> Vec<String> {
        let mut lines = Vec::new();
        let mut before = std::mem::take(&mut self.said);
        for row in rows {
            let (device, facts) = (&row.device.device, facts(row));
            let now = format!("{} {} {facts}", value(row.vm()), value(row.device.state.as_deref()));
            if before.remove(device).as_ref() != Some(&now) {
                lines.push(line(row, &facts, at));
            }
            self.said.insert(device.clone(), now);
        }
        lines
    }
}

fn line(row: &Row, facts: &str, at: SystemTime) -> String {
    format!(
        "time={} device={} vm={} state={} state_seconds={} {facts}",
        humantime::format_rfc3339_seconds(at),
        value(Some(&row.device.device)),
        value(row.vm()),
        value(row.device.state.as_deref()),
        seconds(row.in_state_ns),
    )
}

/// What there is to say of the session.
fn facts(row: &Row) -> String {
    let session = row.session.as_ref();
    let figures = session.map(|session| &session.figures);
    let migrates = row.phase() == Phase::Migrating;
    let rate =
        |bytes: Option<f64>| number(bytes.filter(|_| migrates).map(|rate| format!("{rate:.0}")));
    let count = |count: Option<u64>| number(count.map(|count| count.to_string()));
    let mut facts = String::new();
    let mut say = |key: &str, value: String| {
        let space = if facts.is_empty() { "" } else { " " };
        // Writing to a string cannot fail.
        let _ = write!(facts, "{space}{key}={value}");
    };
    say("session", count(session.map(|session| session.id)));
    say("role", value(row.role()));
    say("protocol", value(row.protocol()));
    say("result", value(session.and_then(|session| session.result.as_deref())));
    say("data_bytes", count(figures.and_then(|figures| figures.data_bytes)));
    say("pending_bytes", count(row.pending_bytes()));
    say("progress", number(row.progress().map(|share| format!("{share:.3}"))));
    say("data_bytes_per_second", rate(row.throughput.map(|rate| rate.bytes_per_second)));
    say("dirty_bytes_per_second", rate(row.dirty.map(|rate| rate.bytes_per_second)));
    say("dirty_bytes", count(figures.and_then(|figures| figures.dirty).map(|dirty| dirty.bytes)));
    say("downtime_seconds", seconds(row.downtime_ns()));
    say("verdict", value(row.outlook.verdict.as_deref()));
    say("reason", value(row.outlook.reason.as_deref()));
    facts
}

fn number(text: Option<String>) -> String {
    text.unwrap_or_else(|| "?".into())
}

fn seconds(ns: Option<u64>) -> String {
    number(ns.map(|ns| format!("{:.3}", Duration::from_nanos(ns).as_secs_f64())))
}

fn value(text: Option<&str>) -> String {
    let Some(text) = text else {
        return "?".into();
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/+-".contains(&byte);
    if !text.is_empty() && text.len() <= TEXT && text.bytes().all(plain) {
        text.to_owned()
    } else {
        let text: String = text.chars().take(TEXT).collect();
        format!("{text:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::{
        canned,
        model::{Model, Update},
    };

    fn rows() -> Vec<Row> {
        let mut model = Model::new("a test");
        model.updated(Update { snapshot: canned::snapshot(), timeline: None });
        model.rows().to_vec()
    }

    #[test]
    fn every_device_has_one_line_and_another_when_something_is_new() {
        let (mut plain, mut rows) = (Plain::default(), rows());
        assert_eq!(plain.lines(&rows, SystemTime::UNIX_EPOCH).len(), 8);
        for row in &mut rows {
            row.in_state_ns = row.in_state_ns.map(|ns| ns + 1_000_000_000);
        }
        assert_eq!(
            plain.lines(&rows, SystemTime::UNIX_EPOCH),
            [""; 0],
            "time alone is nothing new"
        );
        rows[1].device.state = Some("running".into());
        let lines = plain.lines(&rows, SystemTime::UNIX_EPOCH);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains(" state=running "), "{lines:?}");
        let gone = rows.remove(0);
        assert!(plain.lines(&rows, SystemTime::UNIX_EPOCH).is_empty());
        rows.push(gone);
        assert_eq!(plain.lines(&rows, SystemTime::UNIX_EPOCH).len(), 1, "it is new again");
    }

    #[test]
    fn a_line_has_every_key_and_unknown_is_no_number() {
        let lines = Plain::default().lines(&rows(), SystemTime::UNIX_EPOCH);
        assert_eq!(
            lines[0],
            "time=1970-01-01T00:00:00Z device=0000:00:10.0 vm=web state=pre_copy state_seconds=12.339 session=3 \
             role=source protocol=region result=? data_bytes=3435973836 pending_bytes=1288490188 \
             progress=0.727 data_bytes_per_second=? dirty_bytes_per_second=? dirty_bytes=805306368 \
             downtime_seconds=? verdict=? reason=?"
        );
        let keys = |line: &String| line.matches('=').count();
        assert_eq!(keys(&lines[5]), keys(&lines[0]), "{}", lines[5]);
        assert!(lines[5].contains(" vm=? state=? state_seconds=? session=? "), "{}", lines[5]);
    }

    #[test]
    fn no_text_from_outside_ends_a_line_or_a_value() {
        let mut rows = rows();
        rows[0].device.info.vm = "a b\n\"c\" state=error\u{1b}[2J\u{202e}".into();
        let lines = Plain::default().lines(&rows, SystemTime::UNIX_EPOCH);
        let vm = r#" vm="a b\n\"c\" state=error\u{1b}[2J\u{202e}" state=pre_copy "#;
        assert!(lines[0].contains(vm), "{}", lines[0]);
    }
}
