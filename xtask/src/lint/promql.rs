// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a PromQL expression names: metrics with what is asked of their labels, and labels to group and join by.

use std::collections::BTreeSet;
use std::convert::Infallible;

use anyhow::{Result, anyhow};
use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{self, AggregateExpr, Call, Expr, LabelModifier, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};

/// A selector: a metric, and what its labels must be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Selector {
    pub(crate) metric: String,
    pub(crate) matchers: Vec<Matcher>,
}

/// Everything that an expression names.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) selectors: Vec<Selector>,
    /// Labels that it groups or joins by.
    pub(crate) used: BTreeSet<String>,
    /// Labels that it makes (`label_replace`, `label_join`).
    pub(crate) made: BTreeSet<String>,
}

/// The metrics that `expr` selects, in their order.
pub(crate) fn metrics_of(expr: &str) -> Result<Vec<Selector>> {
    Ok(names_of(expr)?.selectors)
}

/// All that `expr` names.
pub(crate) fn names_of(expr: &str) -> Result<Names> {
    let parsed = parser::parse(expr).map_err(|why| anyhow!("no PromQL: {why}\n    {expr}"))?;
    let mut names = Names::default();
    match walk_expr(&mut names, &parsed) {
        Ok(_) => Ok(names),
    }
}

/// Values that a matcher asks for by name: one, or the alternatives of a plain regular expression; `None` for another expression.
pub(crate) fn alternatives(matcher: &Matcher) -> Option<Vec<&str>> {
    let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "_|".contains(c));
    match matcher.op {
        MatchOp::Equal | MatchOp::NotEqual => Some(vec![&matcher.value]),
        MatchOp::Re(_) | MatchOp::NotRe(_) => {
            is_plain(&matcher.value).then(|| matcher.value.split('|').collect())
        }
    }
}

impl Names {
    fn selector(&mut self, selector: &VectorSelector) {
        let named = selector.name.clone();
        let by_label = || {
            let is_name = |matcher: &&Matcher| matcher.name == "__name__";
            selector.matchers.matchers.iter().find(is_name).map(|matcher| matcher.value.clone())
        };
        let matchers = &selector.matchers;
        let all = matchers.matchers.iter().chain(matchers.or_matchers.iter().flatten());
        self.selectors.push(Selector {
            metric: named.or_else(by_label).unwrap_or_default(),
            matchers: all.filter(|matcher| matcher.name != "__name__").cloned().collect(),
        });
    }

    fn modifier(&mut self, modifier: Option<&LabelModifier>) {
        self.used.extend(modifier.into_iter().flat_map(|it| it.labels().labels.iter().cloned()));
    }

    fn call(&mut self, call: &Call) {
        if !["label_replace", "label_join"].contains(&call.func.name) {
            return;
        }
        if let Some(Expr::StringLiteral(made)) = call.args.args.get(1).map(|made| &**made) {
            self.made.insert(made.val.clone());
        }
        // label_replace(v, made, replacement, source, expression) · label_join(v, made, separator, source, source, …)
        let sources = if call.func.name == "label_replace" { 1 } else { usize::MAX };
        for argument in call.args.args.iter().skip(3).take(sources) {
            if let Expr::StringLiteral(source) = &**argument {
                self.used.insert(source.val.clone());
            }
        }
    }
}

impl ExprVisitor for Names {
    type Error = Infallible;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Infallible> {
        match expr {
            Expr::VectorSelector(selector) => self.selector(selector),
            Expr::MatrixSelector(matrix) => self.selector(&matrix.vs),
            Expr::Aggregate(AggregateExpr { modifier, param, .. }) => {
                self.modifier(modifier.as_ref());
                // The visitor goes into what is aggregated, and not into this.
                if let Some(param) = param {
                    walk_expr(self, param)?;
                }
            }
            Expr::Binary(binary) => {
                if let Some(modifier) = &binary.modifier {
                    self.modifier(modifier.matching.as_ref());
                    let grouped = modifier.card.labels();
                    self.used.extend(grouped.into_iter().flat_map(|it| it.labels.iter().cloned()));
                }
            }
            Expr::Call(call) => self.call(call),
            Expr::Unary(_)
            | Expr::Paren(_)
            | Expr::Subquery(_)
            | Expr::NumberLiteral(_)
            | Expr::StringLiteral(_)
            | Expr::Extension(_) => {}
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(expr: &str) -> Vec<String> {
        let selectors = metrics_of(expr).expect("PromQL");
        selectors.into_iter().map(|selector| selector.metric).collect()
    }

    fn set(labels: &[&str]) -> BTreeSet<String> {
        labels.iter().map(|&label| label.to_owned()).collect()
    }

    #[test]
    fn metrics_are_found_wherever_they_stand() {
        assert_eq!(
            metrics("sum by (a) (rate(x_total[5m])) / ignoring (b) y > 0"),
            ["x_total", "y"]
        );
        assert_eq!(metrics("resets((-x)[10m:15s]) and z offset 1h"), ["x", "z"]);
        assert_eq!(metrics("quantile(scalar(q), x)"), ["q", "x"]);
        assert_eq!(metrics("{__name__=\"x\"} or absent(a:b:c{d=\"e\"})"), ["x", "a:b:c"]);
        assert_eq!(metrics("vector(0.3) * time()"), [""; 0]);
        assert!(metrics_of("sum(").is_err());
    }

    #[test]
    fn labels_are_told_apart_by_what_they_are_for() {
        let text = "label_replace(sum without (a) (x) * on (b) group_left (c) y, \"d\", \"$1\", \"e\", \"(f)\")";
        let names = names_of(text).expect("PromQL");
        assert_eq!(names.used, set(&["a", "b", "c", "e"]));
        assert_eq!(names.made, set(&["d"]));
        let names = names_of("label_join(x, \"d\", \"-\", \"e\", \"f\")").expect("PromQL");
        assert_eq!((names.used, names.made), (set(&["e", "f"]), set(&["d"])));
    }

    #[test]
    fn a_matcher_asks_for_one_or_for_several() {
        let of = |expr: &str| metrics_of(expr).expect("PromQL")[0].matchers[0].clone();
        assert_eq!(alternatives(&of("x{a=\"b.c\"}")), Some(vec!["b.c"]));
        assert_eq!(alternatives(&of("x{a!~\"b|c_d\"}")), Some(vec!["b", "c_d"]));
        assert_eq!(alternatives(&of("x{a=~\"b.*\"}")), None);
        // As Prometheus does it, the whole value must match.
        assert!(!of("x{a=~\"b|c\"}").is_match("bc") && of("x{a=~\"b|c\"}").is_match("c"));
    }
}
