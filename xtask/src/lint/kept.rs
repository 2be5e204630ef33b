// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether PromQL keeps to the contract: metrics that there are, labels that they have, values that these take.

use std::collections::BTreeSet;

use anyhow::Result;
use promql_parser::label::{MatchOp, Matcher};

use super::promql::{self, Selector};
use crate::contract::{Contract, Metric};

/// The labels that the result of `expr` may have: those of all metrics in it, and those that it makes. `Err` where it is no PromQL.
pub(crate) fn result(contract: &Contract, expr: &str) -> Result<Metric> {
    let names = promql::names_of(expr)?;
    let mut result = Metric::gauge();
    for metric in names.selectors.iter().filter_map(|it| contract.metric(&it.metric)) {
        result.join(metric);
    }
    names.made.iter().for_each(|label| result.label(label, None));
    Ok(result)
}

/// What in `expr` is against the contract.
pub(crate) fn complaints(contract: &Contract, expr: &str) -> Vec<String> {
    let (names, known) = match (promql::names_of(expr), result(contract, expr)) {
        (Ok(names), Ok(known)) => (names, known),
        (Err(error), _) | (_, Err(error)) => return vec![format!("{error:#}")],
    };
    let of_selectors = names.selectors.iter().flat_map(|it| of_selector(contract, it));
    let strange = names.used.iter().filter(|label| !known.labels.contains(*label));
    let strange = strange
        .map(|label| format!("no metric in it has the label {label}, by which it groups or joins"));
    of_selectors.chain(strange).collect()
}

fn of_selector(contract: &Contract, selector: &Selector) -> Vec<String> {
    let name = &selector.metric;
    let Some(metric) = contract.metric(name) else {
        return vec![format!("there is no metric {name:?}, and no rule records it")];
    };
    let complaint = |matcher: &Matcher| {
        let label = &matcher.name;
        if !metric.labels.contains(label) {
            return Some(format!("{name} has no label {label}"));
        }
        let value = strange_value(matcher, metric.closed.get(label)?)?;
        Some(format!("{label} of {name} is never {value:?}"))
    };
    selector.matchers.iter().filter_map(complaint).collect()
}

/// The first value that is asked for and not in the closed set. A label that is not there is empty.
fn strange_value(matcher: &Matcher, values: &BTreeSet<String>) -> Option<String> {
    match promql::alternatives(matcher) {
        Some(asked) => asked
            .into_iter()
            .find(|asked| !asked.is_empty() && !values.contains(*asked))
            .map(str::to_owned),
        None => {
            let (MatchOp::Re(expression) | MatchOp::NotRe(expression)) = &matcher.op else {
                return None;
            };
            let any = values.iter().any(|value| expression.is_match(value));
            (!any).then(|| matcher.value.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "## A\n\
        | Metric | Type |\n| --- | --- |\n\
        | `x_total{device,kind}` | counter | | What. | 1 |\n\
        | `y_seconds{kind}` | histogram | seconds | What. | 2 |\n\n\
        - `kind` of `x_total`: `one`, `two`\n- `kind` of `y_seconds`: `three`\n\
        \n## B\n| `z{kind}` | gauge | | What. | 3 |\n\n- `kind`: `four`\n";

    fn found(expr: &str) -> Vec<String> {
        let mut contract = Contract::parse(TEXT).expect("a page");
        let rule = "label_replace(x_total, \"host\", \"$1\", \"instance\", \"(.+)\")";
        contract.add("level:x:rate", result(&contract, rule).expect("PromQL"));
        complaints(&contract, expr)
    }

    #[test]
    fn what_the_page_has_is_known() {
        for expr in [
            "x_total{device=\"a\", kind=~\"one|two\", job=\"j\", instance!=\"i\"}",
            "sum without (device) (rate(x_total{kind=\"\"}[5m]))",
            "histogram_quantile(0.5, sum by (kind, le) (y_seconds_bucket{kind=\"three\"}))",
            "y_seconds_sum / y_seconds_count and ignoring (kind) z{kind=~\"f.*\"}",
            "max without (job, host) (level:x:rate{host=\"h\", kind=\"two\"})",
        ] {
            assert_eq!(found(expr), [""; 0], "{expr}");
        }
    }

    #[test]
    fn what_it_does_not_have_is_named() {
        for (expr, part) in [
            ("a", "no metric \"a\""),
            ("y_seconds", "no metric \"y_seconds\""),
            ("x_total{le=\"1\"}", "x_total has no label le"),
            ("x_total{kind=~\"one|four\"}", "kind of x_total is never \"four\""),
            ("z{kind!=\"one\"}", "kind of z is never \"one\""),
            ("z{kind=~\"o.*\"}", "kind of z is never \"o.*\""),
            ("sum by (device) (z)", "the label device"),
            ("z * on (kind, device) group_left (vm) z", "the label vm"),
            ("level:x:rate{kind=\"four\"}", "kind of level:x:rate is never \"four\""),
            ("sum(", "no PromQL"),
        ] {
            let found = found(expr);
            assert!(found.iter().any(|it| it.contains(part)), "{expr}: {found:?}");
        }
    }
}
