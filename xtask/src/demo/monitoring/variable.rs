// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Variables of a dashboard, and expressions with their values in them, as Grafana puts them there.
//!
//! Sources: Grafana's documentation, "Variable syntax", "Global variables", and "Template variables" of its Prometheus data source.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::dashboard::text_of;
use super::server::Server;

/// Points that Grafana asks for at most, in a panel of a usual width.
const MOST_POINTS: f64 = 1000.0;

/// One variable.
#[derive(Debug)]
pub(crate) struct Variable {
    pub(crate) name: String,
    kind: Kind,
    /// Whether it may have several values: then they are in expressions as a regular expression.
    several: bool,
    /// Whether everything may be chosen.
    include_all: bool,
    /// What stands for everything.
    all_value: Option<String>,
}

#[derive(Debug)]
enum Kind {
    /// Which server is asked.
    DataSource,
    /// What a query finds.
    Query(String),
    /// One of these.
    Fixed(Vec<String>),
}

/// The values that were chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    values: Vec<String>,
    /// In place of all the values.
    verbatim: Option<String>,
    several: bool,
}

/// What is in expressions beside the dashboard's own variables.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Times {
    /// Between two points.
    pub(crate) interval: Duration,
    rate_interval: Duration,
    range: Duration,
    from: f64,
    to: f64,
}

impl Variable {
    pub(super) fn read(model: &Value) -> Result<Self> {
        let name = text_of(model, "name").context("a variable has no name")?;
        let query = text_of(model, "query").or_else(|| text_of(&model["query"], "query"));
        let kind = match model["type"].as_str() {
            Some("datasource") => Kind::DataSource,
            Some("query") => {
                let regex = text_of(model, "regex");
                if let Some(regex) = regex {
                    bail!("the variable {name} picks by {regex:?}, which is not done here");
                }
                Kind::Query(query.with_context(|| format!("the variable {name} has no query"))?)
            }
            Some("custom" | "constant" | "textbox" | "interval") => {
                let words = query.unwrap_or_default();
                // `name : value` where a value has a name of its own.
                let value = |word: &str| {
                    word.rsplit_once(" : ").map_or(word, |(_, value)| value).trim().to_owned()
                };
                Kind::Fixed(words.split(',').map(value).collect())
            }
            kind => bail!("the variable {name} is of the kind {kind:?}, which is not known here"),
        };
        let include_all = model["includeAll"] == true;
        Ok(Self {
            kind,
            several: model["multi"] == true || include_all,
            include_all,
            all_value: text_of(model, "allValue"),
            name,
        })
    }

    /// Its query, if Prometheus is asked for its values.
    pub(crate) fn query(&self) -> Option<&str> {
        match &self.kind {
            Kind::Query(query) => Some(query),
            Kind::DataSource | Kind::Fixed(_) => None,
        }
    }

    /// All values that it can have, in Grafana's order, from a query that has no variables left.
    pub(crate) fn values(
        &self,
        server: &Server,
        query: &str,
        span: (f64, f64),
    ) -> Result<Vec<String>> {
        match &self.kind {
            Kind::DataSource => Ok(vec!["prometheus".to_owned()]),
            Kind::Fixed(values) => Ok(values.clone()),
            Kind::Query(_) => label_values(server, query, span),
        }
    }

    /// What is chosen of these values: all that may be chosen at once.
    pub(crate) fn choose(&self, values: Vec<String>) -> Chosen {
        let verbatim = self.all_value.clone().filter(|_| self.include_all);
        let values = if self.several { values } else { values.into_iter().take(1).collect() };
        Chosen { values, verbatim, several: self.several }
    }
}

/// `label_values(selector, label)`, of series of that time; `label_values(label)` asks all series.
fn label_values(server: &Server, query: &str, span: (f64, f64)) -> Result<Vec<String>> {
    let inside = query.trim().strip_prefix("label_values(").and_then(|it| it.strip_suffix(')'));
    let inside = inside.with_context(|| format!("{query:?} is no query that is known here"))?;
    let (selector, label) = match inside.rsplit_once(',') {
        // A comma in braces is one of a selector alone, which is no query.
        Some((selector, label)) => (selector.trim().to_owned(), label.trim()),
        None => (format!("{{{}!=\"\"}}", inside.trim()), inside.trim()),
    };
    let found = server.found(&selector, span)?;
    let values = found.into_iter().filter_map(|mut labels| labels.remove(label));
    Ok(values.filter(|value| !value.is_empty()).collect::<BTreeSet<_>>().into_iter().collect())
}

impl Chosen {
    /// As it stands in a title.
    pub(crate) fn title(&self) -> String {
        if self.verbatim.is_some() { "All".to_owned() } else { self.values.join(" + ") }
    }

    /// As it stands in an expression, in a format or in the data source's own.
    fn show(&self, format: Option<&str>) -> Result<String> {
        if let Some(verbatim) = &self.verbatim {
            return Ok(verbatim.clone());
        }
        let joined = |escape: fn(&str) -> String| {
            let escaped: Vec<String> = self.values.iter().map(|value| escape(value)).collect();
            match escaped.as_slice() {
                [one] => one.clone(),
                several => format!("({})", several.join("|")),
            }
        };
        Ok(match format {
            // In quotes, where a backslash is written as two.
            None if self.several => joined(|value| escape(value, "\\\\")),
            None => self.values.join(",").replace('\\', "\\\\"),
            Some("regex") => joined(|value| escape(value, "\\")),
            Some("pipe") => self.values.join("|"),
            Some("raw" | "csv") => self.values.join(","),
            Some(other) => bail!("the format {other} of a variable is not known here"),
        })
    }
}

fn escape(value: &str, with: &str) -> String {
    let mut escaped = String::new();
    for letter in value.chars() {
        if "\\^$*+?.()|[]{}/'".contains(letter) {
            escaped.push_str(with);
        }
        escaped.push(letter);
    }
    escaped
}

impl Times {
    /// Of a panel that shows `from` to `to`, with the least step that it asks for, of a server that scrapes every `scrape`.
    pub(crate) fn of((from, to): (f64, f64), least: Option<Duration>, scrape: Duration) -> Self {
        let least = least.unwrap_or(scrape);
        let range = Duration::from_secs_f64((to - from).max(1.0));
        let interval = least.max(range.div_f64(MOST_POINTS));
        // "The value of max($__interval + Scrape interval, 4 * Scrape interval)", where the scrape interval is the least step.
        let rate_interval = (interval + least).max(4 * least);
        Self { interval, rate_interval, range, from, to }
    }

    fn value(&self, name: &str) -> Option<String> {
        let milliseconds = |duration: Duration| duration.as_millis().to_string();
        let moment = |time: f64| format!("{:.0}", time * 1e3);
        Some(match name {
            "__interval" => show(self.interval),
            "__interval_ms" => milliseconds(self.interval),
            "__rate_interval" => show(self.rate_interval),
            "__rate_interval_ms" => milliseconds(self.rate_interval),
            "__range" => format!("{:.0}s", self.range.as_secs_f64()),
            "__range_s" => format!("{:.0}", self.range.as_secs_f64()),
            "__range_ms" => milliseconds(self.range),
            "__from" => moment(self.from),
            "__to" => moment(self.to),
            _ => return None,
        })
    }
}

/// As Prometheus reads it.
fn show(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

/// A duration as Grafana's panels have it: `500ms`, `30s`, `1m`, `2h`, `1d`.
pub(crate) fn duration(text: &str) -> Result<Duration> {
    let at = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => bail!("{text:?} is no duration that is known here"),
    };
    let number: u64 = number.parse().with_context(|| format!("{text:?} is no duration"))?;
    Ok(Duration::from_millis(number * milliseconds))
}

/// `text` with the values in the place of `$name`, `${name}`, `${name:format}` and `[[name]]`. What `$1` and its kind are is for
/// `label_replace`; any other name must be known, though Grafana would leave it.
pub(crate) fn fill(
    text: &str,
    chosen: &BTreeMap<String, Chosen>,
    times: Option<&Times>,
) -> Result<String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['$', '[']) {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        let Some((name, after)) = named(rest) else {
            filled.push_str(&rest[..1]);
            rest = &rest[1..];
            continue;
        };
        let (name, format) = match name.split_once(':') {
            Some((name, format)) => (name, Some(format)),
            None => (name, None),
        };
        let value = match (chosen.get(name), times.and_then(|times| times.value(name))) {
            (Some(chosen), _) => chosen.show(format)?,
            (None, Some(value)) => value,
            (None, None) => bail!("no variable is called {name}: {text}"),
        };
        filled.push_str(&value);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// The name, with its format, that `text` begins with, and what comes after it.
fn named(text: &str) -> Option<(&str, &str)> {
    for (open, close) in [("${", "}"), ("[[", "]]")] {
        if let Some(inside) = text.strip_prefix(open) {
            return inside.split_once(close);
        }
    }
    let name = text.strip_prefix('$')?;
    let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let end = name.find(|letter| !is_of_name(letter)).unwrap_or(name.len());
    let (name, after) = name.split_at(end);
    name.starts_with(|letter: char| !letter.is_ascii_digit()).then_some((name, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chosen(model: Value, values: &[&str]) -> BTreeMap<String, Chosen> {
        let variable = Variable::read(&model).unwrap();
        let values = values.iter().map(|&value| value.to_owned()).collect();
        BTreeMap::from([(variable.name.clone(), variable.choose(values))])
    }

    fn multi() -> Value {
        json!({"name": "device", "type": "query", "query": {"query": "label_values(x, device)"},
               "multi": true, "includeAll": true})
    }

    #[test]
    fn several_values_are_a_regular_expression_in_quotes() {
        let both = chosen(multi(), &["0000:00:10.0", "a"]);
        let text = "x{device=~\"$device\"} + y{device=~\"${device:pipe}\"}";
        let filled = fill(text, &both, None).unwrap();
        assert_eq!(filled, "x{device=~\"(0000:00:10\\\\.0|a)\"} + y{device=~\"0000:00:10.0|a\"}");
        let one = chosen(multi(), &["0000:00:10.0"]);
        assert_eq!(fill("[[device]]", &one, None).unwrap(), "0000:00:10\\\\.0");
    }

    #[test]
    fn everything_has_a_value_of_its_own_if_it_is_given() {
        let mut model = multi();
        model["allValue"] = ".*".into();
        assert_eq!(fill("$device", &chosen(model, &["a", "b"]), None).unwrap(), ".*");
    }

    #[test]
    fn of_values_that_exclude_each_other_the_first_is_chosen() {
        let model = json!({"name": "vm", "type": "custom", "query": "one : a,b"});
        let variable = Variable::read(&model).unwrap();
        let Kind::Fixed(values) = &variable.kind else { panic!("{variable:?}") };
        let chosen = BTreeMap::from([("vm".to_owned(), variable.choose(values.clone()))]);
        assert_eq!(fill("x{vm=\"$vm\"}", &chosen, None).unwrap(), "x{vm=\"a\"}");
    }

    #[test]
    fn times_are_grafanas() {
        let second = Duration::from_secs(1);
        let times = |least| Times::of((100.0, 160.0), least, second / 2);
        let fill = |text: &str, times: &Times| fill(text, &BTreeMap::new(), Some(times)).unwrap();
        assert_eq!(fill("[$__rate_interval] [${__range}]", &times(None)), "[2000ms] [60s]");
        assert_eq!(fill("$__interval", &times(None)), "500ms");
        assert_eq!(fill("$__rate_interval", &times(Some(10 * second))), "40000ms");
        let day = Times::of((0.0, 86_400.0), None, second);
        assert_eq!(fill("$__interval $__rate_interval", &day), "86400ms 87400ms");
    }

    #[test]
    fn a_name_that_nobody_knows_is_an_error_and_a_group_of_a_regular_expression_is_not() {
        let fill = |text: &str| fill(text, &BTreeMap::new(), None);
        assert!(fill("x{y=\"$who\"}").unwrap_err().to_string().contains("who"));
        assert_eq!(fill("\"$1\" =~ \".*$\" [5m]").unwrap(), "\"$1\" =~ \".*$\" [5m]");
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("2h").unwrap(), Duration::from_secs(7200));
        assert!(duration("5").is_err());
    }
}
