// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What every dashboard has to keep to, as tests over the files that are written.
//!
//! [`contract`](crate::contract) is what agent/METRICS.md promises, [`promql`] holds expressions against it, and [`shown`] what is shown of their
//! results; [`linter`] has the rules of
//! grafana/dashboard-linter; [`layout`] is what makes a dashboard pleasant: nothing overlaps, and links lead somewhere.
//! Each has mutants: a dashboard with one mistake, which must be found.

mod layout;
mod linter;
mod promql;
mod shown;

use std::path::Path;

use serde_json::Value;

use crate::contract::Contract;

/// A rule: what is wrong with a dashboard.
type Rule = fn(&Value, &Contract) -> Vec<String>;

/// The root of the checkout.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the checkout")
}

/// The dashboards as they would be written.
fn dashboards() -> Vec<Value> {
    super::files(root()).unwrap().into_iter().map(|(_, json)| json).collect()
}

/// One of them, by its uid.
fn dashboard(uid: &str) -> Value {
    dashboards().into_iter().find(|it| it["uid"] == uid).unwrap()
}

/// All panels but rows: those of closed rows are inside of them.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let top = dashboard["panels"].as_array().unwrap();
    top.iter()
        .flat_map(|panel| match panel["type"].as_str() {
            Some("row") => panel["panels"].as_array().unwrap().iter().collect(),
            _ => vec![panel],
        })
        .collect()
}

/// The first panel of a kind, to make a mistake in. No dashboard used here has one of its kind in a closed row before.
fn panel_of<'a>(dashboard: &'a mut Value, kind: &str) -> &'a mut Value {
    let panels = dashboard["panels"].as_array_mut().unwrap();
    panels.iter_mut().find(|panel| panel["type"] == kind).unwrap()
}

fn targets(panel: &Value) -> &[Value] {
    panel["targets"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// All expressions, each with where it is.
fn expressions(dashboard: &Value) -> Vec<(String, &str)> {
    let of_panels = panels(dashboard).into_iter().flat_map(|panel| {
        targets(panel).iter().map(move |target| {
            let place = format!("panel {:?} {}", text(panel, "title"), text(target, "refId"));
            (place, text(target, "expr"))
        })
    });
    let marks =
        dashboard["annotations"]["list"].as_array().unwrap().iter().map(|mark| {
            (format!("annotation {}", text(mark, "name")), text(&mark["target"], "expr"))
        });
    of_panels.chain(marks).collect()
}

fn variables(dashboard: &Value) -> &[Value] {
    dashboard["templating"]["list"].as_array().unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Says each complaint of each dashboard.
fn assert_kept(rule: Rule) {
    let contract = Contract::read(root()).unwrap();
    for dashboard in dashboards() {
        let complaints = rule(&dashboard, &contract);
        assert!(complaints.is_empty(), "{}:\n  {}", dashboard["uid"], complaints.join("\n  "));
    }
}

/// Makes a mistake in a dashboard, and wants it found by these words.
fn assert_found(rule: Rule, uid: &str, mistake: impl FnOnce(&mut Value), words: &str) {
    let mut dashboard = dashboard(uid);
    mistake(&mut dashboard);
    let complaints = rule(&dashboard, &Contract::read(root()).unwrap());
    assert!(
        complaints.iter().any(|complaint| complaint.contains(words)),
        "not found: {words:?} in {complaints:?}"
    );
}

#[test]
fn the_lists_here_are_those_of_the_page() {
    use super::{reason::REASONS, state::STATES};
    use std::collections::BTreeSet;
    let contract = Contract::read(root()).unwrap();
    let set = |metric: &str, label: &str| contract.values(metric, label).unwrap().clone();
    let reasons: BTreeSet<String> = REASONS.map(str::to_owned).into();
    assert_eq!(reasons, set("vfio_migration_blocked", "reason"));
    let states: BTreeSet<String> = STATES.map(|(state, _)| state.to_owned()).into();
    assert_eq!(states, set("vfio_migration_device_state", "state"));
}
