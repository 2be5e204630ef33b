// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The rules of grafana/dashboard-linter, by its names for them.
//!
//! The program is in Go, and in none of the registries that this project takes its tools from; so its rules are written anew from its
//! documentation and source (docs/index.md and lint/rules.go at its commit 4d0844b of June 2026). Stricter than there: what it asks of some kinds of panels is
//! asked of all. Left out: its two rules for LogQL, there is none here. Those that need the labels of expressions
//! (target-promql-rule, target-rate-interval-rule, target-counter-agg-rule, template-label-promql-rule) are in [`super::promql`], stricter, too.

use serde_json::Value;

use super::{
    Rule, assert_found, assert_kept, expressions, panel_of, panels, targets, text, variables,
};
use crate::contract::Contract;

const SOURCE: &str = "${datasource}";

fn lint(dashboard: &Value, _contract: &Contract) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(template_datasource(dashboard));
    found.extend(template_job_and_instance(dashboard));
    found.extend(template_on_time_change_reload(dashboard));
    found.extend(panels(dashboard).into_iter().flat_map(panel));
    found.extend(target_job_and_instance(dashboard));
    if dashboard["editable"] != false {
        found.push("uneditable-dashboard: it is editable".to_owned());
    }
    found
}

fn template_datasource(dashboard: &Value) -> Option<String> {
    let found = variables(dashboard).iter().find(|it| it["type"] == "datasource");
    let good = found.is_some_and(|it| {
        it["name"] == "datasource" && it["label"] == "Data source" && it["query"] == "prometheus"
    });
    (!good).then(|| {
        "template-datasource-rule: no variable for the data source as it wants it".to_owned()
    })
}

fn template_job_and_instance(dashboard: &Value) -> Vec<String> {
    let wanted = [("job", "Job"), ("instance", "Instance")];
    let bad = wanted.iter().filter(|(name, label)| {
        let found = variables(dashboard).iter().find(|it| it["name"] == *name);
        !found.is_some_and(|it| {
            it["type"] == "query"
                && it["label"] == *label
                && it["multi"] == true
                && it["allValue"] == ".+"
                && it["datasource"]["uid"] == SOURCE
        })
    });
    bad.map(|(name, _)| format!("template-{name}-rule: no variable {name} as it wants it"))
        .collect()
}

fn template_on_time_change_reload(dashboard: &Value) -> Vec<String> {
    let queries = variables(dashboard).iter().filter(|it| it["type"] == "query");
    let bad = queries.filter(|it| it["refresh"] != 2);
    bad.map(|it| format!("template-on-time-change-reload-rule: {}", it["name"])).collect()
}

fn panel(panel: &Value) -> Vec<String> {
    let title = text(panel, "title");
    let mut found = Vec::new();
    let mut complain = |rule: &str| found.push(format!("{rule}: panel {title:?}"));
    if title.is_empty() || !text(panel, "description").ends_with('.') {
        complain("panel-title-description-rule");
    }
    if panel["type"] == "text" {
        return found;
    }
    let sources = targets(panel).iter().map(|target| &target["datasource"]);
    if sources.chain([&panel["datasource"]]).any(|source| source["uid"] != SOURCE) {
        complain("panel-datasource-rule");
    }
    if targets(panel).is_empty() {
        complain("panel-no-targets-rule");
    }
    // Which units there are, Grafana's types know; here, that there is one.
    if text(&panel["fieldConfig"]["defaults"], "unit").is_empty() {
        complain("panel-units-rule");
    }
    found
}

fn target_job_and_instance(dashboard: &Value) -> Vec<String> {
    const MATCHERS: &str = r#"job=~"$job", instance=~"$instance""#;
    let mut found = Vec::new();
    for (place, expr) in expressions(dashboard) {
        // Every selector has matchers, and these come first.
        let selectors = expr.matches('{').count();
        let metrics = expr.matches("vfio_migration_").count()
            + expr.matches("migscope_").count()
            + expr.matches("process_").count()
            + expr.matches("up{").count();
        if selectors != metrics || expr.matches(&format!("{{{MATCHERS}")).count() != selectors {
            found.push(format!("target-job-rule, target-instance-rule: {place}"));
        }
    }
    found
}

#[test]
fn the_linters_rules_are_kept() {
    assert_kept(lint);
}

#[test]
fn a_breach_of_a_linters_rule_is_found() {
    type Mistake = fn(&mut Value);
    let mistakes: [(&str, Mistake); 13] = [
        ("template-datasource-rule", |it| it["templating"]["list"][0]["name"] = "source".into()),
        ("template-job-rule", |it| it["templating"]["list"][1]["multi"] = false.into()),
        ("template-instance-rule", |it| it["templating"]["list"][2]["allValue"] = ".*".into()),
        ("template-on-time-change-reload-rule", |it| {
            it["templating"]["list"][2]["refresh"] = 1.into();
        }),
        ("panel-datasource-rule", |it| panel_of(it, "table")["datasource"]["uid"] = "P1".into()),
        ("panel-datasource-rule", |it| {
            panel_of(it, "table")["targets"][0]["datasource"]["uid"] = "P1".into();
        }),
        ("panel-title-description-rule", |it| panel_of(it, "heatmap")["description"] = "".into()),
        ("panel-title-description-rule", |it| panel_of(it, "heatmap")["title"] = "".into()),
        ("panel-units-rule", |it| {
            panel_of(it, "timeseries")["fieldConfig"]["defaults"]["unit"] = Value::Null;
        }),
        ("panel-no-targets-rule", |it| {
            panel_of(it, "stat")["targets"] = Vec::<Value>::new().into()
        }),
        ("target-job-rule", |it| {
            panel_of(it, "stat")["targets"][0]["expr"] = r#"sum(up{job="x"})"#.into();
        }),
        ("target-instance-rule", |it| {
            panel_of(it, "stat")["targets"][0]["expr"] = r#"sum(up{job=~"$job"}) + sum(up)"#.into();
        }),
        ("uneditable-dashboard", |it| it["editable"] = true.into()),
    ];
    let rule: Rule = lint;
    for (words, mistake) in mistakes {
        assert_found(rule, "migscope-fleet", mistake, words);
    }
}
