// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the agent tells of broken rules.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cases::demo::agent::Agent;
use cases::guest;
use migscope_abi::watch::conduct::Conduct;
use serde_json::Value;

const ADDRESS: &str = "127.0.0.1:10477";
/// The agent reads its maps four times a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts the agent, with all its probes. They hold the driver's module, which cannot be loaded anew until the agent ends.
pub(crate) fn start() -> Agent {
    let agent = Agent::start(ADDRESS.parse().expect("an address")).expect("the agent starts");
    let missing = agent.scrape().expect("the agent answers").detached_probes();
    assert!(missing.is_empty(), "probes are missing: {missing:?}");
    agent
}

/// How often each rule of conduct was broken on either device; those that never were are left out.
pub(crate) fn told(agent: &Agent) -> BTreeMap<&'static str, u64> {
    let scrape = agent.scrape().expect("the agent answers");
    let mut told = BTreeMap::new();
    for rule in Conduct::ALL {
        let labels = [("rule", rule.name())];
        if let Some(count) = scrape.sum("vfio_migration_protocol_violations_total", &labels) {
            // Counts that are compared are small.
            told.insert(rule.name(), format!("{count:.0}").parse().expect("a count"));
        }
    }
    told
}

/// Waits until the agent tells what is expected.
pub(crate) fn settles_at(agent: &Agent, expected: &BTreeMap<&'static str, u64>, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    while told(agent) != *expected && Instant::now() < deadline {
        sleep(Duration::from_millis(50));
    }
    assert_eq!(told(agent), *expected, "{what}");
}

/// The sessions of the first device that have ended.
pub(crate) fn ended(agent: &Agent) -> Vec<Value> {
    let device = guest::devices()[0].to_string();
    sessions(agent)
        .into_iter()
        .filter(|session| session["device"] == device.as_str() && !session["result"].is_null())
        .collect()
}

/// All sessions.
pub(crate) fn sessions(agent: &Agent) -> Vec<Value> {
    let text = agent.get("/api/v1/sessions").expect("the agent answers");
    let mut told: Value = serde_json::from_str(&text).expect("JSON");
    let Value::Array(sessions) = told["sessions"].take() else { panic!("no list: {text}") };
    sessions
}

/// Waits for `sessions` sessions, and asserts that they have ended and nothing was broken in them or between them.
pub(crate) fn assert_nothing_broken(agent: &Agent, expected: usize) {
    let over = |sessions: &[Value]| {
        sessions.len() >= expected && sessions.iter().all(|session| !session["result"].is_null())
    };
    let deadline = Instant::now() + PATIENCE;
    while !over(&sessions(agent)) && Instant::now() < deadline {
        sleep(Duration::from_millis(50));
    }
    let sessions = sessions(agent);
    assert_eq!(sessions.len(), expected);
    for session in sessions {
        assert!(!session["result"].is_null(), "{session:#}");
        assert_eq!(session["exact"], true, "{session:#}");
        for rules in ["conduct_by_rule", "refusals_by_rule"] {
            assert_eq!(session[rules], serde_json::json!({}), "{session:#}");
        }
    }
    // The maps are read after the ring.
    sleep(Duration::from_secs(1));
    assert_eq!(told(agent), BTreeMap::new());
    assert_eq!(lost(agent), 0.0);
}

/// What the agent says that it lost.
pub(crate) fn lost(agent: &Agent) -> f64 {
    let scrape = agent.scrape().expect("the agent answers");
    scrape.sum("migscope_events_lost_total", &[]).expect("it tells what it lost")
}
