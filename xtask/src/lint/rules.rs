// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Prometheus' rules and their tests, as far as they can be checked without evaluating them: that each rule is tested, keeps to
//! the contract of names, and that each alert says what it has to say.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::label::MatchOp;
use serde::Deserialize;

use super::{kept, promql};
use crate::contract::Contract;

/// What severities there are; `alerts.yml` says what they mean.
const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];

/// A file of rules.
#[derive(Debug, Deserialize)]
pub(crate) struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

/// A rule: `record` or `alert` says which kind.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Rule {
    pub(crate) record: String,
    pub(crate) alert: String,
    pub(crate) expr: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// A file of tests, as promtool reads it.
#[derive(Debug, Deserialize)]
pub(crate) struct TestFile {
    tests: Vec<Test>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Test {
    input_series: Vec<Series>,
    alert_rule_test: Vec<AlertTest>,
    promql_expr_test: Vec<ExprTest>,
}

#[derive(Debug, Deserialize)]
struct Series {
    series: String,
}

#[derive(Debug, Deserialize)]
struct AlertTest {
    alertname: String,
    #[serde(default)]
    exp_alerts: Vec<ExpectedAlert>,
}

#[derive(Debug, Deserialize)]
struct ExpectedAlert {
    exp_labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct ExprTest {
    expr: String,
}

/// All rules of some files, in their order.
pub(crate) fn all(files: Vec<RuleFile>) -> Vec<Rule> {
    files.into_iter().flat_map(|file| file.groups).flat_map(|group| group.rules).collect()
}

impl Rule {
    /// Its name, for complaints.
    fn name(&self) -> String {
        let labels = self.labels.iter().filter(|(label, _)| *label != "severity");
        let labels: Vec<_> = labels.map(|(label, value)| format!("{label}={value}")).collect();
        let name = if self.alert.is_empty() { &self.record } else { &self.alert };
        if labels.is_empty() { name.clone() } else { format!("{name} ({})", labels.join(", ")) }
    }
}

/// Adds what the rules record to the contract. Rules build on each other, so it takes as many rounds as they are deep.
pub(crate) fn record(contract: &mut Contract, rules: &[Rule]) {
    let recorded: Vec<_> = rules.iter().filter(|rule| !rule.record.is_empty()).collect();
    for _ in &recorded {
        let before = contract.clone();
        for rule in &recorded {
            // What is no PromQL is told elsewhere.
            let Ok(mut result) = kept::result(&before, &rule.expr) else { continue };
            for (label, value) in &rule.labels {
                // The rule's label takes the place of the one that the result had.
                result.labels.remove(label);
                result.closed.remove(label);
                result.label(label, Some(value));
            }
            contract.add(&rule.record, result);
        }
        if *contract == before {
            break;
        }
    }
}

/// What is wrong with the rules themselves.
pub(crate) fn complaints(rules: &[Rule], contract: &Contract) -> Vec<String> {
    let mut complaints = Vec::new();
    for rule in rules {
        let mut found = kept::complaints(contract, &rule.expr);
        if rule.alert.is_empty() {
            if rule.record.split(':').count() != 3 || rule.record.contains("::") {
                found.push("its name is not level:metric:operations".to_owned());
            }
        } else {
            found.extend(alert(rule));
            let queries = rule.annotations.values().flat_map(|text| queries(text));
            found.extend(queries.flat_map(|query| kept::complaints(contract, &query)));
        }
        complaints.extend(found.into_iter().map(|what| format!("{}: {what}", rule.name())));
    }
    complaints
}

fn alert(rule: &Rule) -> Vec<String> {
    let mut complaints = Vec::new();
    match rule.labels.get("severity") {
        None => complaints.push("it has no severity".to_owned()),
        Some(severity) if !SEVERITIES.contains(&severity.as_str()) => {
            complaints.push(format!("its severity is {severity}, and none of {SEVERITIES:?}"));
        }
        Some(_) => {}
    }
    for annotation in ["summary", "description", "runbook_url"] {
        if rule.annotations.get(annotation).is_none_or(|text| text.trim().is_empty()) {
            complaints.push(format!("it has no {annotation}"));
        }
    }
    complaints
}

/// The PromQL that a template asks: `query "…"`, and `printf "…" … | query` with something for each `%q`.
fn queries(template: &str) -> Vec<String> {
    let mut found = Vec::new();
    for action in template.split("{{").skip(1) {
        let action = action.split("}}").next().unwrap_or_default();
        let asks = action.contains("| query") || action.contains("query \"");
        let Some((_, rest)) = action.split_once('"').filter(|_| asks) else {
            continue;
        };
        let mut text = String::new();
        let mut chars = rest.chars();
        while let Some(char) = chars.next() {
            match char {
                '"' => break,
                '\\' => text.extend(chars.next()),
                _ => text.push(char),
            }
        }
        // An empty value is in every closed set.
        found.push(text.replace("%q", "\"\""));
    }
    found
}

/// Which rules no test has, and what in the tests is against the contract: a series with a wrong name fires nothing, and a test that
/// expects nothing is content.
pub(crate) fn untested(rules: &[Rule], files: &[TestFile], contract: &Contract) -> Vec<String> {
    let tests = || files.iter().flat_map(|file| &file.tests);
    let series = tests().flat_map(|test| &test.input_series);
    let mut complaints: Vec<_> = series
        .flat_map(|input| {
            let found = kept::complaints(contract, &input.series);
            found.into_iter().map(move |what| format!("test series {}: {what}", input.series))
        })
        .collect();
    let asked: BTreeSet<_> = tests()
        .flat_map(|test| &test.promql_expr_test)
        .flat_map(|test| promql::metrics_of(&test.expr).unwrap_or_default())
        .map(|selector| selector.metric)
        .collect();
    let cases: Vec<_> = tests().flat_map(|test| &test.alert_rule_test).collect();
    for rule in rules {
        let of_it = || cases.iter().filter(|case| case.alertname == rule.alert);
        let fires = of_it().flat_map(|case| &case.exp_alerts).any(|expected| {
            rule.labels.iter().all(|(label, value)| expected.exp_labels.get(label) == Some(value))
        });
        if rule.alert.is_empty() {
            if !asked.contains(&rule.record) {
                complaints.push(format!("{}: no test asks for it", rule.name()));
            }
        } else if !fires {
            complaints.push(format!("{}: in no test it fires", rule.name()));
        } else if !of_it().any(|case| case.exp_alerts.is_empty()) {
            complaints.push(format!("{}: in no test it is silent", rule.name()));
        }
    }
    let known: BTreeSet<_> = rules.iter().map(|rule| &rule.alert).collect();
    let strange = cases.iter().filter(|case| !known.contains(&case.alertname));
    complaints
        .extend(strange.map(|case| format!("{}: it is tested and is no alert", case.alertname)));
    complaints
}

/// Values of a closed set that not exactly one of the rules of `alert` selects, by the label `label` of `metric`.
pub(crate) fn unshared(
    rules: &[Rule],
    alert: &str,
    metric: &str,
    label: &str,
    values: &BTreeSet<String>,
) -> Vec<String> {
    let selects = |rule: &&Rule, value: &str| {
        let selectors = promql::metrics_of(&rule.expr).unwrap_or_default();
        selectors.iter().filter(|selector| selector.metric == metric).any(|selector| {
            let mut of_label = selector.matchers.iter().filter(|it| it.name == label);
            of_label.all(|matcher| matcher.is_match(value))
        })
    };
    let of_alert = || rules.iter().filter(|rule| rule.alert == alert);
    let by = |value: &String| of_alert().filter(|rule| selects(rule, value)).count();
    let shared = values.iter().map(|value| (value, by(value))).filter(|(_, rules)| *rules != 1);
    shared
        .map(|(value, rules)| {
            format!("{alert}: {rules} of its rules are for {label} {value}, not one")
        })
        .collect()
}

/// Values of a closed set that no alert selects by name.
pub(crate) fn unalerted(
    rules: &[Rule],
    metric: &str,
    label: &str,
    values: &BTreeSet<String>,
) -> Vec<String> {
    let alerts = rules.iter().filter(|rule| !rule.alert.is_empty());
    let named: BTreeSet<_> = alerts
        .flat_map(|rule| promql::metrics_of(&rule.expr).unwrap_or_default())
        .filter(|selector| selector.metric == metric)
        .flat_map(|selector| selector.matchers)
        .filter(|matcher| matcher.name == label && matcher.op == MatchOp::Equal)
        .map(|matcher| matcher.value)
        .collect();
    values
        .difference(&named)
        .map(|value| format!("no alert is for {metric}{{{label}=\"{value}\"}}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"
groups:
  - name: g
    rules:
      - record: instance:x:rate5m
        expr: sum without (device) (rate(x_total[5m]))
      - record: instance:x:max
        labels: { part: total }
        expr: max without (job) (instance:x:rate5m)
      - alert: High
        expr: instance:x:rate5m{kind="one"} > 1
        labels: { severity: warning, reason: r }
        annotations:
          summary: s
          description: "{{ with printf \"x_total{device=%q}\" $labels.device | query }}{{ . }}{{ end }}"
          runbook_url: u
"#;
    const TESTS: &str = r#"
tests:
  - input_series:
      - { series: 'x_total{device="a", kind="one", job="j"}', values: "1" }
    alert_rule_test:
      - { alertname: High, eval_time: 1m, exp_alerts: [] }
      - alertname: High
        eval_time: 2m
        exp_alerts: [{ exp_labels: { severity: warning, reason: r, kind: one } }]
    promql_expr_test:
      - { expr: "sum(instance:x:rate5m) + instance:x:max", eval_time: 1m }
"#;

    /// All complaints about the rules and tests when `from` is `to` in them.
    fn complaints(from: &str, to: &str) -> Vec<String> {
        assert!(RULES.contains(from) || TESTS.contains(from), "{from}");
        let rules = all(vec![serde_saphyr::from_str(&RULES.replace(from, to)).expect("rules")]);
        let tests = [serde_saphyr::from_str(&TESTS.replace(from, to)).expect("tests")];
        let page = "| `x_total{device,kind}` | counter | | |

- `kind`: `one`, `two`
";
        let mut contract = Contract::parse(page).expect("a page");
        record(&mut contract, &rules);
        let mut found = super::complaints(&rules, &contract);
        found.extend(untested(&rules, &tests, &contract));
        found
    }

    #[test]
    fn what_is_wrong_is_named_and_nothing_else() {
        assert_eq!(complaints("1m", "1m"), [""; 0]);
        for (from, to, complaint) in [
            ("severity: warning, ", "", "it has no severity"),
            ("severity: warning, reason", "severity: page, reason", "its severity is page"),
            ("summary: s", "summary: ' '", "it has no summary"),
            ("description:", "descr:", "it has no description"),
            ("runbook_url: u", "x: u", "it has no runbook_url"),
            ("record: instance:x:max", "record: instance_x_max", "not level:metric:operations"),
            ("rate(x_total[5m])", "rate(y_total[5m])", "no metric \"y_total\""),
            ("without (device)", "without (part)", "the label part"),
            (
                "{kind=\"one\"} > 1",
                "{kind=\"three\"} > 1",
                "kind of instance:x:rate5m is never \"three\"",
            ),
            ("{kind=\"one\"} > 1", "{le=\"one\"} > 1", "instance:x:rate5m has no label le"),
            ("x_total{device=%q}", "x_total{vm=%q}", "x_total has no label vm"),
            ("+ instance:x:max", "", "instance:x:max (part=total): no test asks for it"),
            ("reason: r, kind: one", "kind: one", "High (reason=r): in no test it fires"),
            (
                "exp_alerts: [] }",
                "exp_alerts: [{ exp_labels: {} }] }",
                "High (reason=r): in no test it is silent",
            ),
            ("- { alertname: High,", "- { alertname: Low,", "Low: it is tested and is no alert"),
            (
                "x_total{device=\"a\", kind=\"one\"",
                "x_total{device=\"a\", kind=\"ten\"",
                "kind of x_total is never \"ten\"",
            ),
        ] {
            let found = complaints(from, to);
            assert!(found.iter().any(|it| it.contains(complaint)), "{complaint}: {found:?}");
        }
    }

    #[test]
    fn each_value_is_for_one_rule_and_each_reason_has_one() {
        let rule = |expr: &str| Rule { alert: "A".into(), expr: expr.into(), ..Rule::default() };
        let values = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        let rules = [rule("x{kind=~\"a|c\"} > 0"), rule("x{kind!~\"a|c\"} > 0")];
        assert_eq!(unshared(&rules, "A", "x", "kind", &values), [""; 0]);
        assert_eq!(
            unshared(&rules[..1], "A", "x", "kind", &values),
            ["A: 0 of its rules are for kind b, not one"]
        );
        let rules = [rule("x{kind=~\"a|b\"} > 0"), rule("x{kind!~\"a|c\"} > 0")];
        assert_eq!(
            unshared(&rules, "A", "x", "kind", &values),
            ["A: 2 of its rules are for kind b, not one"]
        );
        let rules = [rule("x{kind=\"a\"} == 1 unless x{other=\"b\"} == 1")];
        assert_eq!(unalerted(&rules, "x", "kind", &values), ["no alert is for x{kind=\"b\"}"]);
    }

    #[test]
    fn what_a_template_asks_is_found() {
        let template = "{{ with printf \"x{a=%q,b=\\\"c\\\"}\" $labels.a | query -}} {{ . | first }} {{ end }}{{ with query \"y\" }}{{ $value | printf \"%.0f\" }}";
        assert_eq!(queries(template), ["x{a=\"\",b=\"c\"}", "y"]);
    }
}
