// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Expressions, parsed and held against the contract.
//!
//! Of each expression it works out which labels its result has. So it finds not only a metric or a matcher that does not exist, but also
//! a grouping by a label that is gone, and a join that never matches.

use std::collections::BTreeSet;

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{
    self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality,
    VectorSelector,
};
use serde_json::Value;

use super::{Rule, assert_found, assert_kept, expressions, panel_of, text, variables};
use crate::contract::{Contract, Metric, Type};

type Labels = BTreeSet<String>;

/// What stands for Grafana's variables while an expression is parsed; no expression has these as literals.
const RATE_INTERVAL: &str = "7919s";
const RANGE: &str = "104729s";

/// Who reports dirty pages of the whole machine: each of its devices shows the same account.
const OF_MACHINE: [&str; 3] = ["type1", "iommufd", "kvm"];

/// The labels of an expression's result; a number has none.
pub(super) fn result_labels(expr: &str, contract: &Contract) -> Result<Labels, String> {
    let plain = expr
        .replace("$__rate_interval", RATE_INTERVAL)
        .replace("$__range", RANGE)
        .replace("$__from", "0");
    let parsed = parser::parse(&plain).map_err(|error| format!("{error} in {expr}"))?;
    let mut reader = Reader { contract, aggregations: Vec::new() };
    reader
        .labels(&parsed)
        .map(Option::unwrap_or_default)
        .map_err(|error| format!("{error} in {expr}"))
}

struct Reader<'a> {
    contract: &'a Contract,
    /// Those around what is read now, the outermost first: the operator, and the labels that it keeps.
    aggregations: Vec<(String, Labels)>,
}

impl Reader<'_> {
    fn labels(&mut self, expr: &Expr) -> Result<Option<Labels>, String> {
        match expr {
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(None),
            Expr::Paren(inner) => self.labels(&inner.expr),
            Expr::Unary(inner) => self.labels(&inner.expr),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate).map(Some),
            Expr::Binary(binary) => self.binary(binary),
            Expr::Call(call) => self.call(call).map(Some),
            Expr::VectorSelector(selector) => {
                let (metric, labels) = self.selector(selector)?;
                if metric.kind != Type::Gauge {
                    return Err(format!("the counter {} without rate or increase", name(selector)));
                }
                Ok(Some(labels))
            }
            Expr::MatrixSelector(_) => Err("a range outside of a function".to_owned()),
            Expr::Subquery(_) | Expr::Extension(_) => Err("a subquery".to_owned()),
        }
    }

    fn selector(&mut self, selector: &VectorSelector) -> Result<(Metric, Labels), String> {
        let name = name(selector);
        let metric = self
            .contract
            .metric(name)
            .ok_or_else(|| format!("no metric is called {name}"))?
            .clone();
        for Matcher { op, name: label, value } in &selector.matchers.matchers {
            if !metric.labels.contains(label) {
                return Err(format!("{name} has no label {label}"));
            }
            let Some(closed) = metric.closed.get(label) else { continue };
            let values = value.split('|').filter(|value| !value.starts_with('$'));
            if let Some(unknown) = values.into_iter().find(|value| !closed.contains(*value)) {
                return Err(format!("{name} has no {label} {unknown:?} ({op})"));
            }
        }
        self.not_added_up(selector, &metric)?;
        let labels = metric.labels.clone();
        Ok((metric, labels))
    }

    /// What tells of the whole machine must not be added up over its devices, nor over who reports.
    fn not_added_up(&self, selector: &VectorSelector, metric: &Metric) -> Result<(), String> {
        let name = name(selector);
        let Some(sources) =
            metric.closed.get("source").filter(|_| metric.labels.contains("device"))
        else {
            return Ok(());
        };
        let chosen = selector.matchers.matchers.iter().find(|matcher| matcher.name == "source");
        let chosen: Vec<&str> = match chosen {
            Some(Matcher { op: MatchOp::Equal | MatchOp::Re(_), value, .. }) => {
                value.split('|').collect()
            }
            _ => sources.iter().map(String::as_str).collect(),
        };
        if !chosen.iter().any(|source| OF_MACHINE.contains(source)) {
            return Ok(());
        }
        for (operator, kept) in &self.aggregations {
            let each = kept.contains("device") && kept.contains("source");
            if !each && !matches!(operator.as_str(), "max" | "min") {
                return Err(format!(
                    "{operator} over devices of {name}, which tells of the machine"
                ));
            }
        }
        Ok(())
    }

    fn aggregate(&mut self, aggregate: &AggregateExpr) -> Result<Labels, String> {
        let operator = aggregate.op.to_string();
        let selects = matches!(operator.as_str(), "topk" | "bottomk");
        let kept = match &aggregate.modifier {
            Some(LabelModifier::Include(labels)) => labels.labels.iter().cloned().collect(),
            Some(LabelModifier::Exclude(_)) => {
                return Err("without() keeps what nobody named".into());
            }
            None => Labels::new(),
        };
        if !selects {
            self.aggregations.push((operator, kept.clone()));
        }
        let inner = self.labels(&aggregate.expr);
        if !selects {
            self.aggregations.pop();
        }
        let inner = inner?.ok_or("an aggregation of a number")?;
        if let Some(gone) = kept.iter().find(|label| !inner.contains(*label)) {
            return Err(format!("grouped by {gone}, which is not there"));
        }
        Ok(if selects { inner } else { kept })
    }

    fn call(&mut self, call: &Call) -> Result<Labels, String> {
        let function = call.func.name;
        match function {
            "vector" | "absent" | "absent_over_time" => {
                Err(format!("{function}(): what is unknown would read as a number"))
            }
            "histogram_quantile" => {
                let labels = self.labels(&call.args.args[1])?.ok_or("a quantile of a number")?;
                let without_le: Labels =
                    labels.iter().filter(|label| *label != "le").cloned().collect();
                if without_le.len() == labels.len() {
                    return Err("a quantile of what has no le".to_owned());
                }
                Ok(without_le)
            }
            "label_replace" => {
                let mut labels = self.labels(&call.args.args[0])?.ok_or("a label of a number")?;
                let word = |index: usize| match call.args.args[index].as_ref() {
                    Expr::StringLiteral(word) => Ok(word.val.clone()),
                    _ => Err("label_replace with no literal"),
                };
                if !labels.contains(&word(3)?) {
                    return Err(format!("label_replace from {}, which is not there", word(3)?));
                }
                labels.insert(word(1)?);
                Ok(labels)
            }
            "rate" | "increase" | "last_over_time" | "max_over_time" | "changes" => {
                let Expr::MatrixSelector(range) = call.args.args[0].as_ref() else {
                    return Err(format!("{function} of what is no range"));
                };
                let (metric, labels) = self.selector(&range.vs)?;
                let counts = metric.kind != Type::Gauge;
                if counts != matches!(function, "rate" | "increase") {
                    return Err(format!("{function} of a {:?}", metric.kind));
                }
                let seconds = format!("{}s", range.range.as_secs());
                let fits = match function {
                    "rate" => seconds == RATE_INTERVAL,
                    _ => seconds == RATE_INTERVAL || seconds == RANGE,
                };
                if !fits {
                    return Err(format!("{function} over a range of its own"));
                }
                Ok(labels)
            }
            _ => Err(format!("the function {function}, of which this test knows nothing")),
        }
    }

    fn binary(&mut self, binary: &BinaryExpr) -> Result<Option<Labels>, String> {
        if let Some(labels) = self.began_with_its_first(binary)? {
            return Ok(Some(labels));
        }
        let operator = binary.op.to_string();
        let set = matches!(operator.as_str(), "and" | "or" | "unless");
        let left = self.labels(&binary.lhs)?;
        // Of a set operation with `on` the right side only selects.
        let right = self.labels(&binary.rhs)?;
        let (Some(left), Some(right)) = (left.clone(), right.clone()) else {
            return Ok(left.or(right));
        };
        let modifier = binary.modifier.as_ref();
        let on = match modifier.and_then(|modifier| modifier.matching.as_ref()) {
            Some(LabelModifier::Include(labels)) => labels.labels.iter().cloned().collect(),
            Some(LabelModifier::Exclude(_)) => {
                return Err("ignoring() matches what nobody named".into());
            }
            None if left == right => left.clone(),
            None => return Err(format!("{left:?} {operator} {right:?} never match")),
        };
        for side in [&left, &right] {
            if let Some(gone) = on.difference(side).next() {
                return Err(format!("{operator} on {gone}, which is not on both sides"));
            }
        }
        if set {
            return Ok(Some(left));
        }
        match modifier.map(|modifier| &modifier.card) {
            Some(VectorMatchCardinality::ManyToOne(more)) => {
                let more: Labels = more.labels.iter().cloned().collect();
                if let Some(gone) = more.difference(&right).next() {
                    return Err(format!("group_left ({gone}), which the right side has not"));
                }
                Ok(Some(left.union(&more).cloned().collect()))
            }
            Some(VectorMatchCardinality::OneToMany(_)) => Err("group_right; turn it round".into()),
            _ => Ok(Some(on)),
        }
    }

    /// `last_over_time(x[r]) unless x offset r`, of a counter: the value of a series that was not there when the range began.
    fn began_with_its_first(&mut self, binary: &BinaryExpr) -> Result<Option<Labels>, String> {
        if binary.op.to_string() != "unless" {
            return Ok(None);
        }
        let (Expr::Call(call), Expr::VectorSelector(before)) =
            (binary.lhs.as_ref(), binary.rhs.as_ref())
        else {
            return Ok(None);
        };
        let Some(Expr::MatrixSelector(range)) = call.args.args.first().map(AsRef::as_ref) else {
            return Ok(None);
        };
        let offset = Some(parser::Offset::Pos(range.range));
        let same = range.vs.name == before.name && range.vs.matchers == before.matchers;
        if call.func.name != "last_over_time" || !same || before.offset != offset {
            return Ok(None);
        }
        self.selector(before).map(|(_, labels)| Some(labels))
    }
}

fn name(selector: &VectorSelector) -> &str {
    selector.name.as_deref().unwrap_or_default()
}

/// Every expression, and what is said of its result.
fn expressions_keep_the_contract(dashboard: &Value, contract: &Contract) -> Vec<String> {
    let mut complaints = Vec::new();
    for (place, expr) in expressions(dashboard) {
        complaints
            .extend(result_labels(expr, contract).err().map(|error| format!("{place}: {error}")));
    }
    for variable in variables(dashboard).iter().filter(|it| it["type"] == "query") {
        let query = text(variable, "query");
        let wrong = match query.strip_prefix("label_values(").and_then(|it| it.strip_suffix(')')) {
            None => Some("is no label_values()".to_owned()),
            Some(inner) => {
                let (selector, label) = inner.rsplit_once(", ").unwrap_or((inner, ""));
                // Any metric has labels; a counter needs no rate for it.
                match result_labels(&format!("max_over_time({selector}[$__range])"), contract)
                    .or_else(|_| {
                        result_labels(&format!("rate({selector}[$__rate_interval])"), contract)
                    }) {
                    Err(error) => Some(error),
                    Ok(labels) if !labels.contains(label) => Some(format!("has no label {label}")),
                    Ok(_) => None,
                }
            }
        };
        complaints.extend(wrong.map(|wrong| format!("variable {}: {wrong}", variable["name"])));
    }
    complaints
}

/// A variable that somebody can choose from a list has the values of the label that it stands for.
fn choices_are_values_of_their_label(dashboard: &Value, contract: &Contract) -> Vec<String> {
    let mut complaints = Vec::new();
    for variable in variables(dashboard).iter().filter(|it| it["type"] == "custom") {
        let name = text(variable, "name");
        for value in text(variable, "query").split(',') {
            for (place, expr) in expressions(dashboard) {
                let chosen = expr.replace(&format!("${name}\""), &format!("{value}\""));
                complaints.extend(
                    result_labels(&chosen, contract).err().map(|error| format!("{place}: {error}")),
                );
            }
        }
    }
    complaints
}

fn set_expr(dashboard: &mut Value, kind: &str, expr: &str) {
    panel_of(dashboard, kind)["targets"][0]["expr"] = expr.into();
}

#[test]
fn every_expression_keeps_the_contract() {
    assert_kept(expressions_keep_the_contract);
}

#[test]
fn lists_to_choose_from_are_those_of_the_contract() {
    assert_kept(choices_are_values_of_their_label);
}

#[test]
fn a_wrong_expression_is_found() {
    let wrong = [
        ("sum(vfio_migration_nonsense)", "no metric is called vfio_migration_nonsense"),
        ("sum(vfio_migration_downtime_seconds)", "no metric is called"),
        (r#"sum(up{device="x"})"#, "up has no label device"),
        (r#"sum(vfio_migration_blocked{reason="bored"})"#, "no reason \"bored\""),
        (r#"sum(vfio_migration_device_state{state=~"running|walking"})"#, "no state \"walking\""),
        ("sum by (reason) (vfio_migration_device_state)", "grouped by reason"),
        ("sum(migscope_scrapes_total)", "without rate or increase"),
        ("sum(rate(migscope_series[$__rate_interval]))", "rate of a Gauge"),
        ("sum(rate(migscope_scrapes_total[5m]))", "a range of its own"),
        ("sum(rate(migscope_scrapes_total[$__range]))", "a range of its own"),
        ("sum(up) or vector(0)", "would read as a number"),
        ("sum(up", "in sum(up"),
        ("max by (vm) (up * on (job, instance) vfio_migration_device_info)", "grouped by vm"),
        ("up * on (job, device) group_left (vm) vfio_migration_device_info", "on device"),
        ("up * on (job) group_left (reason) vfio_migration_device_info", "group_left (reason)"),
        ("up / vfio_migration_converging", "never match"),
        (
            "histogram_quantile(0.5, sum(rate(vfio_migration_downtime_seconds_bucket[$__rate_interval])))",
            "no le",
        ),
        ("sum(vfio_migration_dirty_rate_bytes_per_second)", "tells of the machine"),
        (
            r#"sum by (source) (rate(vfio_migration_dirty_pages_total{source="kvm"}[$__rate_interval]))"#,
            "tells of the machine",
        ),
        (
            "sum(max by (device) (rate(vfio_migration_dirty_bytes_total[$__rate_interval])))",
            "tells of the machine",
        ),
        ("last_over_time(migscope_scrapes_total[$__range])", "last_over_time of a Counter"),
        (
            "last_over_time(migscope_scrapes_total[$__range]) unless migscope_scrapes_total",
            "last_over_time of a Counter",
        ),
    ];
    for (expr, words) in wrong {
        let mistake = |dashboard: &mut Value| set_expr(dashboard, "stat", expr);
        assert_found(expressions_keep_the_contract, "migscope-fleet", mistake, words);
    }
    let rule: Rule = expressions_keep_the_contract;
    let in_annotation = |dashboard: &mut Value| {
        dashboard["annotations"]["list"][0]["target"]["expr"] = "nonsense".into();
    };
    assert_found(rule, "migscope-fleet", in_annotation, "annotation Migrating");
    let in_variable = |dashboard: &mut Value| {
        dashboard["templating"]["list"][2]["query"] = "label_values(up, device)".into();
    };
    assert_found(rule, "migscope-fleet", in_variable, "has no label device");
    let in_closed_row = |dashboard: &mut Value| {
        let rows = dashboard["panels"].as_array_mut().unwrap();
        let row = rows.iter_mut().find(|panel| panel["collapsed"] == true).unwrap();
        row["panels"][0]["targets"][0]["expr"] = "nonsense".into();
    };
    assert_found(rule, "migscope-device", in_closed_row, "no metric is called nonsense");
}

#[test]
fn what_may_be_asked_is_taken() {
    let contract = Contract::read(super::root()).unwrap();
    let fine = [
        r#"sum by (device) (rate(vfio_migration_dirty_pages_total{source=~"region|dma_logging"}[$__rate_interval]))"#,
        "max by (source) (vfio_migration_dirty_rate_bytes_per_second)",
        "sum by (device, source) (vfio_migration_dirty_rate_bytes_per_second)",
        "topk(3, vfio_migration_dirty_rate_bytes_per_second)",
        "(last_over_time(migscope_scrapes_total[$__range]) unless migscope_scrapes_total offset $__range) or increase(migscope_scrapes_total[$__range])",
    ];
    for expr in fine {
        assert_eq!(result_labels(expr, &contract).err(), None);
    }
}

#[test]
fn a_choice_that_no_label_has_is_found() {
    let mistake = |dashboard: &mut Value| {
        dashboard["templating"]["list"][3]["query"] = "source,lunch".into();
    };
    let rule: Rule = choices_are_values_of_their_label;
    assert_found(rule, "migscope-fleet", mistake, "no part \"lunch\"");
}
