// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A dashboard of Grafana, as far as it asks Prometheus for something.
//!
//! Source: Grafana's "Dashboard JSON model", schema version 36 and later.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::variable::Variable;

/// Where they are.
pub(crate) const FOLDER: &str = "dashboards/grafana";

/// One file.
#[derive(Debug)]
pub(crate) struct Dashboard {
    /// The file's name without its ending.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) variables: Vec<Variable>,
    pub(crate) panels: Vec<Panel>,
    /// Names and expressions.
    pub(crate) annotations: Vec<(String, String)>,
}

/// A panel that asks for something, or the heading of a row.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    /// Grafana's name of what it is: `timeseries`, `stat`, `row` …
    pub(crate) kind: String,
    pub(crate) targets: Vec<Target>,
    /// The least step, as Grafana writes it.
    pub(crate) interval: Option<String>,
    pub(crate) place: Place,
    /// All of it, for what only a picture wants to know.
    pub(crate) model: Value,
}

/// Where it stands, in units of Grafana's grid, which is 24 wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) x: u64,
    pub(crate) y: u64,
    pub(crate) width: u64,
    pub(crate) height: u64,
}

/// One expression of a panel.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Grafana's letter for it.
    pub(crate) letter: String,
    pub(crate) expression: String,
    /// Asked for at one moment, and not over a time.
    pub(crate) instant: bool,
    /// What a series is called, with `{{label}}`.
    pub(crate) legend: Option<String>,
    pub(crate) interval: Option<String>,
}

/// All dashboards of the folder, in the order of their names.
pub(crate) fn read_all(root: &Path) -> Result<Vec<Dashboard>> {
    let folder = root.join(FOLDER);
    let listing =
        fs::read_dir(&folder).with_context(|| format!("failed to list {}", folder.display()))?;
    let mut files: Vec<PathBuf> = Vec::new();
    for item in listing {
        let path = item.context("failed to list the dashboards")?.path();
        files.extend(path.extension().is_some_and(|ending| ending == "json").then_some(path));
    }
    files.sort();
    ensure!(!files.is_empty(), "{} has no dashboard", folder.display());
    files.iter().map(|file| Dashboard::read(file)).collect()
}

impl Dashboard {
    fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file)
            .with_context(|| format!("failed to read {}", file.display()))?;
        let name = file.file_stem().context("a file without a name")?.to_string_lossy();
        Self::parse(&name, &text).with_context(|| format!("{} is no dashboard", file.display()))
    }

    fn parse(name: &str, text: &str) -> Result<Self> {
        let model: Value = serde_json::from_str(text).context("it is no JSON")?;
        let title = text_of(&model, "title").context("it has no title")?;
        let mut panels = Vec::new();
        add_panels(&model["panels"], &mut panels)?;
        let variables = list(&model["templating"]["list"]).map(Variable::read);
        let annotations = list(&model["annotations"]["list"]).filter_map(|annotation| {
            // Of the one that Grafana adds itself there is nothing to ask.
            let expression = text_of(&annotation["target"], "expr");
            let expression = expression.or_else(|| text_of(annotation, "expr"))?;
            Some((text_of(annotation, "name").unwrap_or_default(), expression))
        });
        Ok(Self {
            name: name.to_owned(),
            title,
            variables: variables.collect::<Result<_>>()?,
            panels,
            annotations: annotations.collect(),
        })
    }
}

/// Adds panels in their order; a row that is closed has its own inside of it.
fn add_panels(list_of: &Value, into: &mut Vec<Panel>) -> Result<()> {
    for model in list(list_of) {
        into.push(Panel::read(model)?);
        add_panels(&model["panels"], into)?;
    }
    Ok(())
}

impl Panel {
    fn read(model: &Value) -> Result<Self> {
        let kind = text_of(model, "type").context("a panel has no type")?;
        let title = text_of(model, "title").unwrap_or_default();
        let place = |key: &str| model["gridPos"][key].as_u64();
        let targets = list(&model["targets"]).map(|target| {
            let expression = text_of(target, "expr").with_context(|| {
                format!("the panel {title:?} has a target without an expression")
            })?;
            let instant = target["instant"] == true && target["range"] != true;
            Ok(Target {
                letter: text_of(target, "refId").unwrap_or_default(),
                expression,
                instant,
                legend: text_of(target, "legendFormat").filter(|legend| legend != "__auto"),
                interval: text_of(target, "interval"),
            })
        });
        Ok(Self {
            targets: targets.collect::<Result<_>>()?,
            interval: text_of(model, "interval"),
            place: Place {
                x: place("x").unwrap_or(0),
                y: place("y").unwrap_or(0),
                width: place("w").unwrap_or(24),
                height: place("h").unwrap_or(1),
            },
            model: model.clone(),
            title,
            kind,
        })
    }
}

/// The items of a list; none where there is no list.
pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A text that is not empty.
pub(super) fn text_of(value: &Value, key: &str) -> Option<String> {
    value[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{
        "title": "T",
        "panels": [
            {"type": "row", "title": "R", "panels": [
                {"type": "stat", "title": "S", "targets": [{"refId": "A", "expr": "up", "instant": true}],
                 "gridPos": {"x": 12, "y": 3, "w": 6, "h": 4}}]},
            {"type": "text", "title": "words"},
            {"type": "timeseries", "title": "L", "interval": "1m",
             "targets": [{"refId": "A", "expr": "a", "legendFormat": "{{x}}"},
                         {"refId": "B", "expr": "b", "instant": true, "range": true}]}],
        "annotations": {"list": [{"builtIn": 1, "name": "own"}, {"name": "ends", "target": {"expr": "c"}}]}}"#;

    #[test]
    fn panels_are_found_in_rows_too() {
        let dashboard = Dashboard::parse("t", TEXT).unwrap();
        let found: Vec<_> = dashboard.panels.iter().map(|panel| panel.title.as_str()).collect();
        assert_eq!(found, ["R", "S", "words", "L"]);
        assert!(dashboard.panels[1].targets[0].instant);
        assert_eq!(dashboard.panels[1].place, Place { x: 12, y: 3, width: 6, height: 4 });
        let lines = &dashboard.panels[3];
        assert_eq!(lines.targets.iter().filter(|target| target.instant).count(), 0);
        assert_eq!(lines.targets[0].legend.as_deref(), Some("{{x}}"));
        assert_eq!(dashboard.annotations, [("ends".to_owned(), "c".to_owned())]);
    }

    #[test]
    fn a_target_without_an_expression_is_an_error() {
        let text =
            r#"{"title":"T","panels":[{"type":"stat","title":"S","targets":[{"refId":"A"}]}]}"#;
        let error = Dashboard::parse("t", text).unwrap_err().to_string();
        assert!(error.contains("\"S\""), "{error}");
    }
}
