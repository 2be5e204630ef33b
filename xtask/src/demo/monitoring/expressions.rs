// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every expression of every dashboard and rule, asked of the Prometheus that watched the migrations.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::alerts;
use super::dashboard::{Dashboard, Panel, Target, list, text_of};
use super::server::{SCRAPE_INTERVAL, Series, Server};
use super::silent;
use super::variable::{self, Chosen, Times};

/// Where alerts are told of, whose expressions may be without data.
const ALERTS: &str = "alerts";

/// What became of one expression.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Asked {
    /// The dashboard's title, or `rules`.
    pub(crate) of: String,
    /// The panel with the letter of its target, the variable, or the rule.
    pub(crate) what: String,
    pub(crate) expression: String,
    pub(crate) series: usize,
    /// What is wrong with it.
    pub(crate) wrong: Option<String>,
}

/// An expression that was answered, for who draws it.
pub(crate) struct Answered<'a> {
    pub(crate) panel: &'a Panel,
    pub(crate) target: &'a Target,
    /// Between two points, in seconds.
    pub(crate) step: f64,
    pub(crate) series: Vec<Series>,
}

/// What is asked, and when.
pub(crate) struct Asking<'a> {
    pub(crate) server: &'a Server,
    /// What dashboards show.
    pub(crate) span: (f64, f64),
    /// What is asked for at one moment is asked for at these, until there is an answer: most panels of that kind tell what is now, and at
    /// the end nothing is.
    pub(crate) moments: [f64; 3],
}

impl Asking<'_> {
    /// Asks for all of a dashboard; what is answered to its panels goes to `draw`. Gives the values of the variables.
    pub(crate) fn dashboard<'d>(
        &self,
        dashboard: &'d Dashboard,
        asked: &mut Vec<Asked>,
        mut draw: impl FnMut(Answered<'d>),
    ) -> Result<BTreeMap<String, Chosen>> {
        let chosen = self.choose(dashboard, asked);
        for panel in &dashboard.panels {
            for target in &panel.targets {
                let what = format!("{} ({})", panel.title, target.letter);
                let times = self.times(panel, target)?;
                let answer = self.ask(&target.expression, target.instant, &chosen, &times);
                let of = &dashboard.title;
                if let Some(series) = note((of, &what), &target.expression, answer, asked) {
                    let step = times.interval.as_secs_f64();
                    draw(Answered { panel, target, step, series });
                }
            }
        }
        for (name, expression) in &dashboard.annotations {
            let times = Times::of(self.span, None, SCRAPE_INTERVAL);
            let answer = self.ask(expression, false, &chosen, &times);
            note((&dashboard.title, &format!("annotation {name}")), expression, answer, asked);
        }
        Ok(chosen)
    }

    /// The values of its variables, each found with those before it.
    fn choose(&self, dashboard: &Dashboard, asked: &mut Vec<Asked>) -> BTreeMap<String, Chosen> {
        let mut chosen = BTreeMap::new();
        for variable in &dashboard.variables {
            let query = variable.query().unwrap_or_default();
            let values = variable::fill(query, &chosen, None)
                .and_then(|query| variable.values(self.server, &query, self.span));
            let found = values.as_ref().map_or(0, Vec::len);
            let picked = variable.choose(values.as_deref().unwrap_or_default().to_vec());
            let what = format!("variable {}", variable.name);
            if variable.query().is_some() {
                let wrong = match &values {
                    Err(error) => Some(format!("{error:#}")),
                    Ok(_) => silent::judge(&dashboard.title, &what, found > 0),
                };
                asked.push(Asked {
                    of: dashboard.title.clone(),
                    what,
                    expression: query.to_owned(),
                    series: found,
                    wrong,
                });
            }
            chosen.insert(variable.name.clone(), picked);
        }
        chosen
    }

    fn times(&self, panel: &Panel, target: &Target) -> Result<Times> {
        let least = target.interval.as_ref().or(panel.interval.as_ref());
        let least = least.map(|text| variable::duration(text)).transpose().with_context(|| {
            format!("the least interval of the panel {:?} cannot be read", panel.title)
        })?;
        Ok(Times::of(self.span, least, SCRAPE_INTERVAL))
    }

    fn ask(
        &self,
        expression: &str,
        instant: bool,
        chosen: &BTreeMap<String, Chosen>,
        times: &Times,
    ) -> Result<Vec<Series>> {
        let filled = variable::fill(expression, chosen, Some(times))?;
        if instant {
            let mut answer = Vec::new();
            for moment in self.moments {
                answer = self.server.at(&filled, moment)?;
                if answer.iter().any(has_value) {
                    break;
                }
            }
            return Ok(answer);
        }
        // A step that is longer than all of it: the one before the end is the one that has something to tell.
        let from = self.span.0.min(self.span.1 - times.interval.as_secs_f64());
        self.server.over(&filled, (from, self.span.1), times.interval)
    }

    /// Every rule that was loaded. What was recorded must be there; of an alert, its expression must be answered, and with what is for
    /// `alerts` to judge.
    pub(crate) fn rules(&self, asked: &mut Vec<Asked>) -> Result<()> {
        let rules = self.server.rules()?;
        let step = Times::of(self.span, None, SCRAPE_INTERVAL).interval;
        for rule in list(&rules["groups"]).flat_map(|group| list(&group["rules"])) {
            let (id, name) = (alerts::id(rule)?, text_of(rule, "name").unwrap_or_default());
            let expression = text_of(rule, "query").context("a rule has no expression")?;
            let ask =
                |what: &str| health(rule).and_then(|()| self.server.over(what, self.span, step));
            if rule["type"] == "recording" {
                let labels = rule["labels"].as_object().into_iter().flatten();
                let labels = labels.map(|(name, value)| format!("{name}={value}"));
                let recorded = format!("{name}{{{}}}", labels.collect::<Vec<_>>().join(","));
                note((silent::RULES, &id), &expression, ask(&recorded), asked);
            } else {
                let answer = ask(&expression);
                asked.push(Asked {
                    of: ALERTS.to_owned(),
                    what: id,
                    expression,
                    series: answer.as_ref().map_or(0, Vec::len),
                    wrong: answer.err().map(|error| format!("{error:#}")),
                });
            }
        }
        Ok(())
    }
}

fn has_value(series: &Series) -> bool {
    series.points.iter().any(|(_, value)| !value.is_nan())
}

/// What Prometheus says of a rule that it evaluates.
fn health(rule: &Value) -> Result<()> {
    let (health, why) = (&rule["health"], &rule["lastError"]);
    ensure!(*health == "ok", "its health is {health}: {why}");
    Ok(())
}

/// Keeps what became of an expression, and gives on what was answered.
fn note(
    (of, what): (&str, &str),
    expression: &str,
    answer: Result<Vec<Series>>,
    asked: &mut Vec<Asked>,
) -> Option<Vec<Series>> {
    let series = answer.as_ref().map_or(0, |all| all.iter().filter(|it| has_value(it)).count());
    let wrong = match &answer {
        Err(error) => Some(format!("{error:#}")),
        Ok(_) => silent::judge(of, what, series > 0),
    };
    asked.push(Asked {
        of: of.to_owned(),
        what: what.to_owned(),
        expression: expression.to_owned(),
        series,
        wrong,
    });
    answer.ok()
}
