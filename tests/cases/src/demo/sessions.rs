// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What `/api/v1/sessions` says, as far as the demo wants to know it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use migrator::live::Outcome;
use serde::Deserialize;

use super::agent::Agent;
use super::report::Forecast;

/// All sessions; of the source's, how it went.
#[derive(Debug, Default)]
pub struct Sessions {
    sessions: Vec<Session>,
    /// The source's points, in the order of time.
    timeline: Vec<Point>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    sessions: Vec<Session>,
}

#[derive(Debug, Deserialize)]
struct Session {
    id: u64,
    device: String,
    refusals_by_rule: Option<BTreeMap<String, u64>>,
    conduct_by_rule: Option<BTreeMap<String, u64>>,
}

/// One session by itself.
#[derive(Debug, Deserialize)]
struct Whole {
    timeline: Vec<Point>,
}

#[derive(Clone, Debug, Deserialize)]
struct Point {
    at_monotonic_ns: u64,
    state: String,
    edge: bool,
    estimated_remaining_ns: Option<u64>,
    estimated_downtime_ns: Option<u64>,
}

impl Sessions {
    /// Asks for them; `source` is the device whose timeline is wanted.
    ///
    /// # Errors
    ///
    /// When the agent does not answer or not in this form.
    pub fn ask(agent: &Agent, source: &str) -> Result<Self> {
        let text = agent.get("/api/v1/sessions")?;
        let Listed { sessions } = serde_json::from_str(&text)
            .with_context(|| format!("failed to understand the agent's sessions: {text}"))?;
        let timeline = match sessions.iter().find(|session| session.device == source) {
            Some(session) => {
                let text = agent.get(&format!("/api/v1/sessions/{}", session.id))?;
                let Whole { timeline } = serde_json::from_str(&text)
                    .with_context(|| format!("failed to understand a session: {text}"))?;
                timeline
            }
            None => Vec::new(),
        };
        Ok(Self { sessions, timeline })
    }

    /// How often accesses to a device were refused, and how often a rule of conduct was broken on it; nothing where nobody watched.
    pub fn broken(&self, device: &str) -> (Option<u64>, Option<u64>) {
        let of_device = || self.sessions.iter().filter(|session| session.device == device);
        let sum = |rules: &dyn Fn(&Session) -> Option<u64>| {
            of_device().map(rules).reduce(|sum, count| Some(sum? + count?)).flatten()
        };
        let all = |rules: &Option<BTreeMap<String, u64>>| Some(rules.as_ref()?.values().sum());
        (
            sum(&|session| all(&session.refusals_by_rule)),
            sum(&|session| all(&session.conduct_by_rule)),
        )
    }

    /// What the agent foretold when it last looked during pre-copy, beside what came.
    pub fn forecast(&self, accounts: &Outcome) -> Vec<Forecast> {
        let is_look = |point: &&Point| point.state == "pre_copy" && !point.edge;
        let Some(last) = self.timeline.iter().rfind(is_look) else { return Vec::new() };
        let seconds = |ns| Duration::from_nanos(ns).as_secs_f64();
        let transitions = accounts.source.region.transitions.iter();
        let ended_ns = transitions.map(|each| each.at_monotonic_ns + each.duration_ns).max();
        let left_ns = ended_ns.and_then(|ended_ns| ended_ns.checked_sub(last.at_monotonic_ns));
        let stood_ns = accounts.source.downtime.as_ref().map(|downtime| downtime.total_ns);
        [
            ("remaining time", left_ns, last.estimated_remaining_ns),
            ("downtime", stood_ns, last.estimated_downtime_ns),
        ]
        .into_iter()
        .filter_map(|(what, came_ns, foretold_ns)| {
            Some(Forecast {
                what: what.to_owned(),
                came_seconds: seconds(came_ns?),
                foretold_seconds: foretold_ns.map(seconds),
            })
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(text: &str) -> Sessions {
        let Listed { sessions } = serde_json::from_str(text).unwrap();
        Sessions { sessions, ..Sessions::default() }
    }

    #[test]
    fn rules_that_nobody_watched_are_not_kept() {
        let told = sessions(
            r#"{"sessions":[{"id":1,"device":"a","refusals_by_rule":{"x":2,"y":3},"conduct_by_rule":null},
            {"id":2,"device":"b","refusals_by_rule":{},"conduct_by_rule":{}}]}"#,
        );
        assert_eq!(told.broken("a"), (Some(5), None));
        assert_eq!(told.broken("b"), (Some(0), Some(0)));
        assert_eq!(told.broken("c"), (None, None), "a device that is not told of is not known");
    }
}
