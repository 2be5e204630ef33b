// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which alerts this run must raise, and which it must not.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;

use super::dashboard::{list, text_of};
use super::server::{SCRAPE_INTERVAL, Server};

/// What becomes of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Raised {
    /// Its condition never held.
    Never,
    /// It held, and not for long enough in this run.
    Pending,
    /// It was raised.
    Firing,
}

const NEVER: Option<Raised> = Some(Raised::Never);
const FIRING: Option<Raised> = Some(Raised::Firing);

/// Every alert by [`id`], and why it is raised or not; nothing for one that may be either.
const EXPECTED: &[(&str, Option<Raised>, &str)] = &[
    ("MigscopeAgentAbsent (warning)", NEVER, "there is an agent"),
    ("MigscopeAgentDown (warning)", NEVER, "it answers"),
    ("MigscopeAgentRestarting (warning)", NEVER, "it was started once"),
    ("MigscopeBlindDuringMigration (warning)", NEVER, "it answers while devices migrate"),
    ("MigscopeEventsLost (warning)", NEVER, "nothing was lost"),
    ("MigscopeMapNearlyFull (warning)", NEVER, "there are four devices"),
    ("MigscopeNotReady (warning)", NEVER, "the agent was ready before it was scraped"),
    ("MigscopeProbeMissing (warning)", NEVER, "all probes are attached"),
    ("MigscopeScrapesFailing (warning)", NEVER, "all scrapes are answered"),
    ("MigscopeSeriesRefused (warning)", NEVER, "there are four devices"),
    ("VfioMigrationBlocked (agent_blind)", NEVER, "all was seen"),
    ("VfioMigrationBlocked (destination_slow)", NEVER, "the link is slower than it"),
    (
        "VfioMigrationBlocked (dirty_rate_above_throughput)",
        FIRING,
        "one migration does not converge",
    ),
    ("VfioMigrationBlocked (initial_bytes_not_drained)", NEVER, "a region has none"),
    (
        "VfioMigrationBlocked (no_dirty_tracking)",
        FIRING,
        "the client that dies asks a container that cannot tell pages apart",
    ),
    (
        "VfioMigrationBlocked (no_progress)",
        None,
        "the dirty rate is the reason, but for moments in which it swings below the throughput",
    ),
    ("VfioMigrationBlocked (size_query_failed)", NEVER, "a region has no such query"),
    ("VfioMigrationBlocked (stop_copy_above_budget)", NEVER, "no stop part is so large"),
    ("VfioMigrationCancelledRepeatedly (warning)", FIRING, "three were cancelled"),
    ("VfioMigrationDeviceInError (critical)", NEVER, "no device was in error"),
    (
        "VfioMigrationDowntimeAboveBudget (both_ends)",
        None,
        "the one downtime is about as long as what is allowed",
    ),
    (
        "VfioMigrationDowntimeAboveBudget (source)",
        None,
        "the one downtime is about as long as what is allowed",
    ),
    (
        "VfioMigrationDowntimeForecastAboveBudget (info)",
        NEVER,
        "what converges is foretold to stand for less",
    ),
    ("VfioMigrationFailed (warning)", FIRING, "migrations failed at both ends"),
    (
        "VfioMigrationNotConverging (info)",
        NEVER,
        "it looks at pending_bytes four times a minute, and the agent gives its reason sooner",
    ),
    ("VfioMigrationProtocolViolation (critical)", NEVER, "no rule of those was broken"),
    ("VfioMigrationProtocolViolation (info)", NEVER, "no rule of those was broken"),
    (
        "VfioMigrationProtocolViolation (warning)",
        FIRING,
        "an image with a wrong checksum was refused",
    ),
];

/// One alert, as it was.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) raised: Raised,
    /// What is wrong with that.
    pub(crate) wrong: Option<String>,
}

/// All alerts of the rules, as they were during the run.
pub(crate) fn check(server: &Server, span: (f64, f64)) -> Result<Vec<Alert>> {
    let rules = server.rules()?;
    let rules = list(&rules["groups"]).flat_map(|group| list(&group["rules"]));
    let alerting: Vec<&Value> = rules.filter(|rule| rule["type"] == "alerting").collect();
    let mut raised: BTreeMap<String, Raised> = BTreeMap::new();
    for rule in &alerting {
        raised.insert(id(rule)?, Raised::Never);
    }
    for series in server.over("ALERTS", span, SCRAPE_INTERVAL)? {
        let state = match series.labels.get("alertstate").map(String::as_str) {
            Some("firing") => Raised::Firing,
            _ => Raised::Pending,
        };
        for rule in alerting.iter().filter(|rule| is_of(&series.labels, rule)) {
            let before = raised.entry(id(rule)?).or_insert(state);
            *before = state.max(*before);
        }
    }
    Ok(judge(&raised))
}

/// The name of a rule, and that of its labels which tells it from others of the name.
pub(super) fn id(rule: &Value) -> Result<String> {
    let name = text_of(rule, "name").context("a rule has no name")?;
    let apart = ["reason", "seen", "severity", "role", "part"];
    let label = apart.into_iter().find_map(|label| text_of(&rule["labels"], label));
    Ok(label.map_or_else(|| name.clone(), |label| format!("{name} ({label})")))
}

/// Whether an alert is of this rule, by its name and the labels that the rule gives it.
fn is_of(labels: &BTreeMap<String, String>, rule: &Value) -> bool {
    let given = rule["labels"].as_object().into_iter().flatten();
    labels.get("alertname").is_some_and(|name| rule["name"] == name.as_str())
        && given
            .into_iter()
            .all(|(name, value)| labels.get(name).is_some_and(|own| value == own.as_str()))
}

fn judge(raised: &BTreeMap<String, Raised>) -> Vec<Alert> {
    let names: BTreeSet<&str> = raised
        .keys()
        .map(String::as_str)
        .chain(EXPECTED.iter().map(|(name, _, _)| *name))
        .collect();
    let judge_one = |name: &str| {
        let was = raised.get(name).copied();
        let expected = EXPECTED.iter().find(|(expected, _, _)| *expected == name);
        let wrong = match (was, expected) {
            (None, _) => Some("no rule has this name".to_owned()),
            (Some(_), None) => Some("it is not in the list of what must be raised".to_owned()),
            (Some(_), Some((_, None, _))) => None,
            (Some(was), Some((_, Some(must), _))) if was == *must => None,
            (Some(was), Some((_, Some(must), why))) => {
                Some(format!("it was {was:?} and must be {must:?}, for {why}"))
            }
        };
        Alert { name: name.to_owned(), raised: was.unwrap_or(Raised::Never), wrong }
    };
    names.into_iter().map(judge_one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(change: impl FnOnce(&mut BTreeMap<String, Raised>)) -> Vec<String> {
        let mut raised = EXPECTED
            .iter()
            .map(|(name, raised, _)| ((*name).to_owned(), raised.unwrap_or(Raised::Never)))
            .collect();
        change(&mut raised);
        let alerts = judge(&raised);
        alerts.into_iter().filter(|alert| alert.wrong.is_some()).map(|alert| alert.name).collect()
    }

    #[test]
    fn an_alert_is_as_it_must_be() {
        assert!(wrong(|_| {}).is_empty());
        let failed = "VfioMigrationFailed (warning)".to_owned();
        let never = |all: &mut BTreeMap<_, _>| {
            all.insert(failed.clone(), Raised::Never);
        };
        assert_eq!(wrong(never), [failed.as_str()]);
        let lost = "MigscopeEventsLost (warning)".to_owned();
        let pending = |all: &mut BTreeMap<_, _>| {
            all.insert(lost.clone(), Raised::Pending);
        };
        assert_eq!(wrong(pending), [lost.as_str()]);
    }

    #[test]
    fn an_alert_that_is_new_or_gone_is_wrong() {
        let new = |all: &mut BTreeMap<_, _>| {
            all.insert("New".to_owned(), Raised::Never);
        };
        assert_eq!(wrong(new), ["New"]);
        let gone = "VfioMigrationFailed (warning)";
        let remove = |all: &mut BTreeMap<_, _>| {
            all.remove(gone);
        };
        assert_eq!(wrong(remove), [gone]);
    }
}
