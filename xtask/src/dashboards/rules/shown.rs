// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a panel shows of its results: legends, columns and links name labels, and a label that the result has not leaves them empty.

use std::collections::BTreeSet;

use serde_json::Value;

use super::promql::result_labels;
use super::{Rule, assert_found, assert_kept, panel_of, panels, targets, text};
use crate::contract::Contract;

type Labels = BTreeSet<String>;

/// Names between braces in a text, such as `${__field.labels.NAME}`.
fn named<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |rest| rest.split(close).next())
}

/// Labels in legends, columns and links are in the result of the query.
fn labels_that_are_shown_are_there(dashboard: &Value, contract: &Contract) -> Vec<String> {
    let mut complaints = Vec::new();
    for panel in panels(dashboard) {
        let mut complain =
            |what: String| complaints.push(format!("{:?}: {what}", text(panel, "title")));
        let results: Vec<Labels> = targets(panel)
            .iter()
            .filter_map(|target| result_labels(text(target, "expr"), contract).ok())
            .collect();
        for (target, labels) in targets(panel).iter().zip(&results) {
            let heat = target["format"] == "heatmap";
            if heat != (*labels == Labels::from(["le".to_owned()])) {
                complain(format!("{labels:?} as {}", target["format"]));
            }
            for label in named(text(target, "legendFormat"), "{{", "}}") {
                if !labels.contains(label) {
                    complain(format!("the legend has {label}, the result has not"));
                }
            }
        }
        let config = panel["fieldConfig"].to_string();
        for label in named(&config, "${__field.labels.", "}") {
            if !results.iter().all(|labels| labels.contains(label)) {
                complain(format!("a link has the label {label}, a result has not"));
            }
        }
        if panel["type"] == "table" {
            complaints.extend(columns(panel, &results));
        }
    }
    complaints
}

fn columns(panel: &Value, results: &[Labels]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut complain =
        |what: String| complaints.push(format!("{:?}: {what}", text(panel, "title")));
    if results.windows(2).any(|pair| pair[0] != pair[1]) {
        complain("its queries have different labels, so their rows stay apart".to_owned());
    }
    let columns = &panel["transformations"][2]["options"]["renameByName"];
    let columns = columns.as_object().unwrap();
    let references: Vec<String> = targets(panel)
        .iter()
        .map(|target| match targets(panel).len() {
            1 => "Value".to_owned(),
            _ => format!("Value #{}", text(target, "refId")),
        })
        .collect();
    for column in columns.keys() {
        if !results.iter().all(|labels| labels.contains(column)) && !references.contains(column) {
            complain(format!("the column {column} is in no result"));
        }
    }
    for field in named(&panel["fieldConfig"].to_string(), "${__data.fields.", "}") {
        if !columns.contains_key(field) {
            complain(format!("a link has the column {field}, which is not shown"));
        }
    }
    let shown: Vec<&str> = columns.values().filter_map(Value::as_str).collect();
    for different in panel["fieldConfig"]["overrides"].as_array().unwrap() {
        let matcher = &different["matcher"];
        if matcher["id"] == "byName" && !shown.contains(&text(matcher, "options")) {
            complain(format!("{} is the name of no column", matcher["options"]));
        }
    }
    for sorted in panel["options"]["sortBy"].as_array().unwrap() {
        if !shown.contains(&text(sorted, "displayName")) {
            complain(format!("sorted by {}, which is no column", sorted["displayName"]));
        }
    }
    complaints
}

fn set_expr(dashboard: &mut Value, kind: &str, expr: &str) {
    panel_of(dashboard, kind)["targets"][0]["expr"] = expr.into();
}

#[test]
fn labels_in_legends_columns_and_links_are_in_the_results() {
    assert_kept(labels_that_are_shown_are_there);
}

#[test]
fn a_label_that_is_not_in_the_result_is_found() {
    let rule: Rule = labels_that_are_shown_are_there;
    let legend = |dashboard: &mut Value| {
        panel_of(dashboard, "state-timeline")["targets"][0]["legendFormat"] = "{{vm}}".into();
    };
    assert_found(rule, "migscope-fleet", legend, "the legend has vm");
    let query = |dashboard: &mut Value| set_expr(dashboard, "table", "max by (job) (up)");
    assert_found(rule, "migscope-fleet", query, "different labels");
    assert_found(rule, "migscope-fleet", query, "the column vm is in no result");
    let heatmap = |dashboard: &mut Value| set_expr(dashboard, "heatmap", "sum(up)");
    assert_found(rule, "migscope-fleet", heatmap, "as \"heatmap\"");
    let hidden = |dashboard: &mut Value| {
        let rename = &mut panel_of(dashboard, "table")["transformations"][2]["options"];
        rename["renameByName"].as_object_mut().unwrap().remove("vm_uuid");
    };
    assert_found(rule, "migscope-fleet", hidden, "a link has the column vm_uuid");
    assert_found(rule, "migscope-fleet", hidden, "\"Machine UUID\" is the name of no column");
    let sorted = |dashboard: &mut Value| {
        panel_of(dashboard, "table")["options"]["sortBy"][0]["displayName"] = "Size".into();
    };
    assert_found(rule, "migscope-fleet", sorted, "sorted by \"Size\"");
    let link = |dashboard: &mut Value| {
        panel_of(dashboard, "state-timeline")["targets"][0]["expr"] = "max by (job) (up)".into();
    };
    assert_found(rule, "migscope-migration", link, "a link has the label instance");
}
