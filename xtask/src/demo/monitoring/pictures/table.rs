// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tables: series with the same labels are one line with a value of each target, and columns are as the panel orders and names them.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde_json::Value;

use super::super::dashboard::{Panel, list};
use super::super::expressions::Answered;
use super::paint::Paint;
use super::panel::{LINES, is_shared, reduce};

/// What stands in a line.
#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Word(String),
    Number(f64),
}

/// A line, by the names that Grafana gives the columns.
type Line = BTreeMap<String, Cell>;

/// The table; times are shown from `start` on.
pub(super) fn of(
    panel: &Panel,
    answers: &[&Answered<'_>],
    paint: &Paint<'_>,
    start: f64,
) -> Markup {
    let lines = merged(answers);
    let columns = columns(&panel.model, &lines);
    let show = |column: &str, name: &str, cell: &Cell| {
        let letter = column.rsplit('#').next().unwrap_or_default();
        match cell {
            Cell::Word(word) => (word.clone(), None),
            // Milliseconds since the Unix epoch.
            Cell::Number(value) if paint.unit((name, letter)).starts_with("dateTime") => {
                (format!("at {:.1} s", value / 1e3 - start), None)
            }
            Cell::Number(value) => {
                (paint.show((name, letter), *value), paint.mapped_colour((name, letter), *value))
            }
        }
    };
    let left = lines.len().saturating_sub(LINES);
    html! {
        table {
            tr { @for (_, name) in &columns { th { (name) } } }
            @for line in lines.iter().take(LINES) {
                tr {
                    @for (column, name) in &columns {
                        @let (text, colour) = line.get(column).map_or_else(
                            || ("–".to_owned(), None),
                            |cell| show(column, name, cell),
                        );
                        td style=[colour.map(|colour| format!("color:{colour};font-weight:600"))] { (text) }
                    }
                }
            }
        }
        @if left > 0 { ul.legend { li { "and " (left) " more" } } }
    }
}

fn merged(answers: &[&Answered<'_>]) -> Vec<Line> {
    // Of a single target Grafana leaves the letter out.
    let only_one = answers.windows(2).all(|pair| pair[0].target.letter == pair[1].target.letter);
    let mut lines: BTreeMap<Vec<(&str, &str)>, Line> = BTreeMap::new();
    for answered in answers {
        for series in &answered.series {
            let labels = series.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let labels: Vec<_> = labels.filter(|(name, _)| *name != "__name__").collect();
            let line = lines.entry(labels.clone()).or_default();
            line.extend(
                labels
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), Cell::Word((*value).to_owned()))),
            );
            let value = Cell::Number(reduce(series, "lastNotNull"));
            let letter = &answered.target.letter;
            let column = if only_one { "Value".to_owned() } else { format!("Value #{letter}") };
            line.insert(column, value);
        }
    }
    lines.into_values().collect()
}

/// The columns that are shown, in their order, each with the name that the panel gives it.
fn columns(model: &Value, lines: &[Line]) -> Vec<(String, String)> {
    let of_kind = |kind: &str| {
        let found = list(&model["transformations"]).find(|it| it["id"] == kind);
        found.map_or(&Value::Null, |it| &it["options"])
    };
    let (organize, filter) =
        (of_kind("organize"), &of_kind("filterFieldsByName")["include"]["names"]);
    let mut columns: Vec<&String> = lines.iter().flat_map(BTreeMap::keys).collect();
    columns.sort_unstable();
    columns.dedup();
    columns.retain(|column| match filter.is_array() {
        true => list(filter).any(|name| name == column.as_str()),
        false => !is_shared(column),
    });
    columns.retain(|column| organize["excludeByName"][column.as_str()] != true);
    columns.sort_by_key(|column| organize["indexByName"][column.as_str()].as_u64());
    let named = columns.into_iter().map(|column| {
        let name = organize["renameByName"][column.as_str()].as_str().unwrap_or(column);
        (column.clone(), name.to_owned())
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_as_the_panel_wants_them() {
        let line = |names: &[&str]| -> Line {
            names.iter().map(|&name| (name.to_owned(), Cell::Number(1.0))).collect()
        };
        let lines = [line(&["job", "device", "Value #A", "vm"])];
        let names = |model: &Value| -> Vec<String> {
            columns(model, &lines).into_iter().map(|(_, name)| name).collect()
        };
        assert_eq!(names(&json!({})), ["Value #A", "device", "vm"]);
        let model = json!({"transformations": [
            {"id": "filterFieldsByName", "options": {"include": {"names": ["job", "device", "Value #A"]}}},
            {"id": "organize", "options": {"excludeByName": {"job": true}, "indexByName": {"device": 0, "Value #A": 1},
                "renameByName": {"Value #A": "Duration"}}}]});
        assert_eq!(names(&model), ["device", "Duration"]);
    }
}
