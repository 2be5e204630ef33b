// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a reader meets: panels that do not lie on each other, links that lead somewhere, and words for what is unknown.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::dashboard::{COLUMNS, TAG};
use super::{
    Rule, assert_found, assert_kept, dashboards, expressions, panel_of, panels, text, variables,
};
use crate::contract::Contract;

/// Rows and panels, those of closed rows, too.
fn everything(dashboard: &Value) -> Vec<&Value> {
    let top = dashboard["panels"].as_array().unwrap();
    top.iter()
        .flat_map(|panel| {
            let inner = panel["panels"].as_array().map(Vec::as_slice).unwrap_or_default();
            std::iter::once(panel).chain(inner)
        })
        .collect()
}

fn grid(dashboard: &Value, _contract: &Contract) -> Vec<String> {
    let mut found = Vec::new();
    let mut ids = BTreeSet::new();
    for panel in everything(dashboard) {
        if !ids.insert(panel["id"].as_u64()) {
            found.push(format!("the id {} is there twice", panel["id"]));
        }
    }
    // Panels of a closed row lie where the rows below it begin, and move those when it is opened.
    let top: Vec<&Value> = dashboard["panels"].as_array().unwrap().iter().collect();
    let closed = top.iter().filter(|panel| panel["collapsed"] == true);
    let inner = closed.map(|row| row["panels"].as_array().unwrap().iter().collect());
    for level in std::iter::once(top.clone()).chain(inner) {
        found.extend(overlaps(&level));
    }
    for row in top.iter().filter(|panel| panel["type"] == "row") {
        let inside = row["panels"].as_array().unwrap().len();
        if (row["collapsed"] == true) != (inside > 0) {
            found.push(format!("row {}: {inside} panels in it", row["title"]));
        }
    }
    found
}

fn overlaps(panels: &[&Value]) -> Vec<String> {
    let mut found = Vec::new();
    let mut taken = BTreeMap::new();
    for panel in panels {
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        if side("x") + side("w") > u64::from(COLUMNS) || side("w") == 0 || side("h") == 0 {
            found.push(format!("{} is not in the grid", panel["title"]));
        }
        for x in side("x")..side("x") + side("w") {
            for y in side("y")..side("y") + side("h") {
                if let Some(other) = taken.insert((x, y), &panel["title"]) {
                    found.push(format!("{} lies on {other}", panel["title"]));
                }
            }
        }
    }
    found
}

fn links(dashboard: &Value, _contract: &Contract) -> Vec<String> {
    let mut found = Vec::new();
    let to_others = dashboard["links"].as_array().unwrap().iter().any(|link| {
        link["type"] == "dashboards"
            && link["tags"] == serde_json::json!([TAG])
            && link["keepTime"] == true
    });
    if !to_others || dashboard["tags"] != serde_json::json!([TAG]) {
        found.push("no links to the other dashboards and the runbooks".to_owned());
    }
    let all = dashboards();
    for panel in panels(dashboard) {
        let config = panel["fieldConfig"].to_string();
        let of_fields = between(&config, r#""url":""#, '"');
        let of_text = between(text(&panel["options"], "content"), "](", ')');
        for url in of_fields.chain(of_text).filter(|url| !url.starts_with("https://")) {
            found.extend(
                follow(url, &all).map(|wrong| format!("{}: {url} {wrong}", panel["title"])),
            );
        }
    }
    found
}

fn between<'a>(text: &'a str, open: &'a str, close: char) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |rest| rest.split(close).next())
}

/// What is wrong with a link to a dashboard.
fn follow(url: &str, all: &[Value]) -> Option<String> {
    let uid = url.strip_prefix("/d/").and_then(|rest| rest.split('?').next());
    let Some(target) = all.iter().find(|other| Some(text(other, "uid")) == uid) else {
        return Some("leads nowhere".to_owned());
    };
    let mut given = url.split("&var-").skip(1).filter_map(|rest| rest.split('=').next());
    let taken = |name: &&str| variables(target).iter().any(|it| text(it, "name") == *name);
    if let Some(name) = given.find(|name| !taken(name)) {
        return Some(format!("gives {name}, which nobody takes"));
    }
    let panel: u64 = url.split("viewPanel=").nth(1)?.parse().unwrap();
    let known = panels(target).iter().any(|it| it["id"] == panel);
    (!known).then(|| "shows no panel".to_owned())
}

/// What is unknown has words, and no line is drawn across it.
fn the_unknown(dashboard: &Value, _contract: &Contract) -> Vec<String> {
    let mut found = Vec::new();
    for panel in panels(dashboard).into_iter().filter(|panel| panel["type"] != "text") {
        let defaults = &panel["fieldConfig"]["defaults"];
        if matches!(text(defaults, "noValue"), "" | "0") {
            found.push(format!("{}: no words for what is unknown", panel["title"]));
        }
        if panel["type"] == "timeseries" && defaults["custom"]["spanNulls"] != false {
            found.push(format!("{}: a line across what is unknown", panel["title"]));
        }
        // The last value that was known is not the present one.
        let range = |target: &Value| target["instant"] != true;
        let one_number = matches!(text(panel, "type"), "stat" | "bargauge" | "table");
        if one_number && super::targets(panel).iter().any(range) {
            found
                .push(format!("{}: shows the last known value as the present one", panel["title"]));
        }
    }
    found
}

fn every_variable(dashboard: &Value, _contract: &Contract) -> Vec<String> {
    const GRAFANAS: [&str; 3] = ["__rate_interval", "__range", "__from"];
    let names: Vec<&str> = variables(dashboard).iter().map(|it| text(it, "name")).collect();
    let mut found = Vec::new();
    let mut used = BTreeSet::from(["datasource".to_owned()]);
    let of_variables = variables(dashboard)
        .iter()
        .map(|it| (format!("variable {}", text(it, "name")), text(it, "query")));
    for (place, text) in expressions(dashboard).into_iter().chain(of_variables) {
        for rest in text.split('$').skip(1) {
            let end = rest.find(|it: char| it != '_' && !it.is_ascii_alphanumeric());
            let name = &rest[..end.unwrap_or(rest.len())];
            if name == "1" {
                continue; // of label_replace
            }
            if !names.contains(&name) && !GRAFANAS.contains(&name) {
                found.push(format!("{place}: ${name} is no variable"));
            }
            used.insert(name.to_owned());
        }
    }
    let has_expressions = !expressions(dashboard).is_empty();
    found.extend(
        names
            .iter()
            .filter(|name| has_expressions && !used.contains(**name))
            .map(|name| format!("the variable {name} changes nothing")),
    );
    found
}

#[test]
fn nothing_lies_on_anything_else() {
    assert_kept(grid);
}

#[test]
fn every_link_leads_somewhere() {
    assert_kept(links);
}

#[test]
fn what_is_unknown_is_said_to_be() {
    assert_kept(the_unknown);
}

#[test]
fn variables_are_known_and_used() {
    assert_kept(every_variable);
}

#[test]
fn the_dashboards_know_each_other_by_uids_that_are_unique() {
    let all = dashboards();
    let uids: BTreeSet<&str> = all.iter().map(|it| text(it, "uid")).collect();
    assert_eq!(uids.len(), all.len());
}

#[test]
fn a_mistake_in_the_layout_is_found() {
    let fleet = "migscope-fleet";
    let grid: Rule = grid;
    let double = |it: &mut Value| panel_of(it, "table")["id"] = panel_of(it, "stat")["id"].clone();
    assert_found(grid, fleet, double, "is there twice");
    let wide = |it: &mut Value| panel_of(it, "heatmap")["gridPos"]["w"] = 30.into();
    assert_found(grid, fleet, wide, "is not in the grid");
    let high = |it: &mut Value| panel_of(it, "stat")["gridPos"]["h"] = 9.into();
    assert_found(grid, fleet, high, "lies on");
    let open = |it: &mut Value| {
        let rows = it["panels"].as_array_mut().unwrap();
        rows.iter_mut().find(|row| row["collapsed"] == true).unwrap()["collapsed"] = false.into();
    };
    assert_found(grid, "migscope-device", open, "panels in it");

    let links: Rule = links;
    assert_found(links, fleet, |it| it["links"] = Vec::<Value>::new().into(), "no links");
    assert_found(links, fleet, |it| it["tags"] = Vec::<Value>::new().into(), "no links");
    let url = |it: &mut Value, url: &str| {
        panel_of(it, "table")["fieldConfig"]["defaults"]["links"] =
            serde_json::json!([{ "url": url }]);
    };
    assert_found(links, fleet, |it| url(it, "/d/other?x=1"), "leads nowhere");
    assert_found(links, fleet, |it| url(it, "/d/migscope-agent?a&var-device=x"), "nobody takes");
    assert_found(links, fleet, |it| url(it, "/d/migscope-runbooks?viewPanel=999"), "no panel");
    let page = |it: &mut Value| {
        panel_of(it, "text")["options"]["content"] = "see [this](Other.md)".into();
    };
    assert_found(links, "migscope-runbooks", page, "leads nowhere");

    let unknown: Rule = the_unknown;
    let defaults = |it: &mut Value, kind: &str, key: &str, value: Value| {
        panel_of(it, kind)["fieldConfig"]["defaults"][key] = value;
    };
    assert_found(unknown, fleet, |it| defaults(it, "stat", "noValue", "0".into()), "no words");
    let span = |it: &mut Value| {
        defaults(it, "timeseries", "custom", serde_json::json!({ "spanNulls": true }));
    };
    assert_found(unknown, fleet, span, "a line across");
    let range = |it: &mut Value| panel_of(it, "stat")["targets"][0]["instant"] = false.into();
    assert_found(unknown, fleet, range, "the last known value");

    let variables: Rule = every_variable;
    let stranger = |it: &mut Value| {
        panel_of(it, "stat")["targets"][0]["expr"] = r#"up{job=~"$cluster"}"#.into();
    };
    assert_found(variables, fleet, stranger, "$cluster is no variable");
    let idle = |it: &mut Value| it["templating"]["list"][3]["name"] = "piece".into();
    assert_found(variables, fleet, idle, "changes nothing");
}
