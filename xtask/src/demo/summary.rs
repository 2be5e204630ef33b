// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The demo's result for people: the two accounts side by side.
//!
//! Only what is shown is read here; the whole object belongs to `cases::demo`.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

/// The result of `migscope-demo`.
#[derive(Debug, Deserialize)]
pub(crate) struct Demo {
    pub(crate) migrator: Accounts,
    comparison: Vec<Row>,
    forecast: Vec<Forecast>,
    pub(crate) cost: Option<Cost>,
    pub(crate) agree: bool,
}

/// What the client of the region counted, at both ends.
#[derive(Debug, Deserialize)]
pub(crate) struct Accounts {
    pub(crate) source: Account,
    pub(crate) destination: Account,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Account {
    device: String,
    pub(crate) total_ns: u64,
    pub(crate) downtime: Option<Downtime>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Downtime {
    pub(crate) total_ns: u64,
}

/// One read of a register.
#[derive(Debug, Deserialize)]
pub(crate) struct Cost {
    pub(crate) access_ns_without_probes: f64,
    pub(crate) access_ns_with_probes: f64,
}

#[derive(Debug, Deserialize)]
struct Row {
    device: Option<String>,
    what: String,
    unit: String,
    migrator: f64,
    agent: Option<f64>,
    agrees: bool,
}

/// What the agent foretold at the end of pre-copy.
#[derive(Debug, Deserialize)]
struct Forecast {
    what: String,
    came_seconds: f64,
    foretold_seconds: Option<f64>,
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, came_seconds, foretold_seconds } = self;
        let shown = |seconds: f64| format!("{:.3} ms", seconds * 1e3);
        write!(f, "  {what:42} {:>18} ", shown(*came_seconds))?;
        match foretold_seconds {
            Some(foretold) => {
                write!(f, "{:>18}  ", shown(*foretold))?;
                match foretold / came_seconds {
                    times if times >= 2.0 => write!(f, "{times:.0} times as long"),
                    times => write!(f, "off by {:+.0} %", (times - 1.0) * 100.0),
                }
            }
            None => write!(f, "{:>18}", "not told"),
        }
    }
}

impl Row {
    /// Accesses field by field are for the JSON, unless they are the news.
    fn is_shown(&self) -> bool {
        let detail = self.what.starts_with("read ") || self.what.starts_with("write ");
        !detail || !self.agrees
    }

    fn show(&self, value: f64) -> String {
        match self.unit.as_str() {
            "seconds" => format!("{:.3} ms", value * 1e3),
            "1" => format!("{value}"),
            unit => format!("{value} {unit}"),
        }
    }
}

impl fmt::Display for Demo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { migrator, comparison, forecast, cost, agree } = self;
        let Accounts { source, destination } = migrator;
        writeln!(
            f,
            "{} migrated to {} in {:.1} ms",
            source.device,
            destination.device,
            milliseconds(source.total_ns)
        )?;
        writeln!(f, "\n{:44} {:>18} {:>18}", "", "migrator", "agent")?;
        let mut device = None;
        for row in comparison.iter().filter(|row| row.is_shown()) {
            if device != Some(&row.device) {
                writeln!(f, "{}", row.device.as_deref().unwrap_or("both ends"))?;
                device = Some(&row.device);
            }
            let agent = row.agent.map_or_else(|| "not told".to_owned(), |value| row.show(value));
            let verdict = if row.agrees { "" } else { "  DISAGREE" };
            let migrator = row.show(row.migrator);
            writeln!(f, "  {:42} {migrator:>18} {agent:>18}{verdict}", row.what)?;
        }
        if !forecast.is_empty() {
            writeln!(
                f,
                "\n{:44} {:>18} {:>18}",
                "foretold at the end of pre-copy", "came", "foretold"
            )?;
        }
        for forecast in forecast {
            writeln!(f, "{forecast}")?;
        }
        writeln!(f)?;
        if let Some(downtime) = &source.downtime {
            writeln!(f, "downtime {:.1} ms", milliseconds(downtime.total_ns))?;
        }
        if let Some(Cost { access_ns_without_probes, access_ns_with_probes }) = cost {
            writeln!(
                f,
                "one access to the region: {access_ns_without_probes:.0} ns without probes, \
                 {access_ns_with_probes:.0} ns with them"
            )?;
        }
        let verdict = if *agree { "agree" } else { "do NOT agree" };
        writeln!(f, "the two accounts {verdict}, {} numbers compared", comparison.len())
    }
}

/// Nanoseconds, for people.
pub(crate) fn milliseconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo(agent: &str, agrees: bool) -> String {
        let account = |device: &str| {
            format!("{{\"device\":\"{device}\",\"total_ns\":1500000,\"downtime\":null}}")
        };
        let text = format!(
            "{{\"migrator\":{{\"source\":{},\"destination\":{}}},\"agent\":{{}},\"cost\":null,\
             \"forecast\":[{{\"what\":\"downtime\",\"came_seconds\":0.2,\"foretold_seconds\":0.15}},\
             {{\"what\":\"remaining time\",\"came_seconds\":0.1,\"foretold_seconds\":30.0}},\
             {{\"what\":\"other\",\"came_seconds\":0.1,\"foretold_seconds\":null}}],\
             \"comparison\":[{{\"device\":\"A\",\"what\":\"device data\",\"unit\":\"bytes\",\
             \"migrator\":4096.0,\"agent\":{agent},\"bound\":null,\"agrees\":{agrees}}},\
             {{\"device\":\"A\",\"what\":\"read data_size, ok\",\"unit\":\"1\",\"migrator\":3.0,\
             \"agent\":3.0,\"bound\":null,\"agrees\":true}}],\"agree\":{agrees}}}",
            account("A"),
            account("B")
        );
        serde_json::from_str::<Demo>(&text).unwrap().to_string()
    }

    #[test]
    fn both_accounts_stand_side_by_side() {
        let text = demo("4096.0", true);
        assert!(text.starts_with("A migrated to B in 1.5 ms\n"), "{text}");
        let row = text.lines().find(|line| line.contains("device data")).unwrap();
        assert_eq!(row.matches("4096 bytes").count(), 2, "{row}");
        assert!(text.contains("the two accounts agree, 2 numbers compared"), "{text}");
        assert!(!text.contains("data_size"), "{text}");
    }

    #[test]
    fn what_was_foretold_stands_beside_what_came_with_its_error() {
        let text = demo("4096.0", true);
        let row = |what: &str| text.lines().find(|line| line.starts_with(what)).unwrap().to_owned();
        let downtime = row("  downtime");
        assert!(downtime.contains("200.000 ms") && downtime.contains("150.000 ms"), "{downtime}");
        assert!(downtime.ends_with("off by -25 %"), "{downtime}");
        assert!(row("  remaining time").ends_with("300 times as long"), "{text}");
        assert!(row("  other").ends_with("not told"), "{text}");
    }

    #[test]
    fn what_the_agent_did_not_tell_is_not_zero() {
        let text = demo("null", false);
        assert!(text.contains("not told  DISAGREE"), "{text}");
        assert!(text.contains("do NOT agree"), "{text}");
    }
}
