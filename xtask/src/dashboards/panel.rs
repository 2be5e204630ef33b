// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One panel: what it asks, and how it shows the answer.

use serde::Serialize;
use serde_json::{Value, json};

use super::field::{Colour, Link, Override, Step, Unit, Words, steps};
use super::query::{Query, datasource, reference};

/// The kinds of panels that are used, by the names of Grafana's plugins. All come with Grafana.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    #[serde(rename = "timeseries")]
    TimeSeries,
    Stat,
    #[serde(rename = "bargauge")]
    BarGauge,
    StateTimeline,
    Heatmap,
    Table,
    Text,
}

/// What a panel shows of series whose values are colours or heights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Straight,
    /// A value holds until the next one is told.
    Stairs,
    Bars,
}

/// A panel, and how much of the grid it takes.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    kind: Kind,
    title: String,
    description: String,
    queries: Vec<Query>,
    unit: Unit,
    words: Words,
    steps: Option<Vec<Step>>,
    colour: Option<Colour>,
    decimals: Option<u8>,
    max: Option<f64>,
    nothing: String,
    line: Line,
    stacked: bool,
    threshold_line: bool,
    links: Vec<Link>,
    overrides: Vec<Override>,
    /// Columns of a table: what the query calls them, and what the reader sees.
    columns: Vec<(String, String)>,
    sorted_by: Option<(String, bool)>,
    markdown: String,
    min_interval: Option<&'static str>,
    pub(super) width: u8,
    pub(super) height: u8,
}

impl Panel {
    fn new(kind: Kind, title: &str, description: &str, width: u8, height: u8) -> Self {
        Self {
            kind,
            title: title.to_owned(),
            description: description.to_owned(),
            queries: Vec::new(),
            unit: Unit::None,
            words: Words::default(),
            steps: None,
            colour: None,
            decimals: None,
            max: None,
            nothing: "unknown".to_owned(),
            line: Line::Straight,
            stacked: false,
            threshold_line: false,
            links: Vec::new(),
            overrides: Vec::new(),
            columns: Vec::new(),
            sorted_by: None,
            markdown: String::new(),
            min_interval: None,
            width,
            height,
        }
    }

    /// Values over time.
    pub(super) fn time_series(title: &str, description: &str) -> Self {
        Self::new(Kind::TimeSeries, title, description, 12, 8)
    }

    /// A number, large.
    pub(super) fn stat(title: &str, description: &str) -> Self {
        Self::new(Kind::Stat, title, description, 4, 4)
    }

    /// Numbers side by side.
    pub(super) fn bars(title: &str, description: &str) -> Self {
        Self::new(Kind::BarGauge, title, description, 12, 8)
    }

    /// Names of states over time.
    pub(super) fn timeline(title: &str, description: &str) -> Self {
        Self::new(Kind::StateTimeline, title, description, 24, 7)
    }

    /// How a histogram's values are spread, over time.
    pub(super) fn heatmap(title: &str, description: &str, unit: Unit, expr: &str) -> Self {
        Self::new(Kind::Heatmap, title, description, 12, 9).unit(unit).query(Query::heatmap(expr))
    }

    pub(super) fn table(title: &str, description: &str) -> Self {
        Self::new(Kind::Table, title, description, 24, 8)
    }

    /// Text in Markdown.
    pub(super) fn text(title: &str, description: &str, markdown: &str) -> Self {
        let panel = Self::new(Kind::Text, title, description, 24, 8);
        Self { markdown: markdown.to_owned(), ..panel }
    }

    pub(super) fn query(mut self, query: Query) -> Self {
        self.queries.push(query);
        self
    }

    pub(super) fn unit(self, unit: Unit) -> Self {
        Self { unit, ..self }
    }

    pub(super) fn words(self, words: Words) -> Self {
        Self { words, ..self }
    }

    pub(super) fn steps(self, lowest: Colour, others: &[(f64, Colour)]) -> Self {
        Self { steps: Some(steps(lowest, others)), ..self }
    }

    /// The same, drawn as lines across a time series.
    pub(super) fn limits(self, lowest: Colour, others: &[(f64, Colour)]) -> Self {
        Self { threshold_line: true, ..self.steps(lowest, others) }
    }

    pub(super) fn colour(self, colour: Colour) -> Self {
        Self { colour: Some(colour), ..self }
    }

    pub(super) fn decimals(self, decimals: u8) -> Self {
        Self { decimals: Some(decimals), ..self }
    }

    pub(super) fn max(self, max: f64) -> Self {
        Self { max: Some(max), ..self }
    }

    /// What is shown where there is no answer, instead of "unknown".
    pub(super) fn nothing(self, text: &str) -> Self {
        Self { nothing: text.to_owned(), ..self }
    }

    pub(super) fn stairs(self) -> Self {
        Self { line: Line::Stairs, ..self }
    }

    /// Bars upon each other, one for each five minutes or more.
    pub(super) fn stacked_bars(self) -> Self {
        Self { line: Line::Bars, stacked: true, min_interval: Some("5m"), ..self }
    }

    pub(super) fn links(self, links: &[Link]) -> Self {
        Self { links: links.to_vec(), ..self }
    }

    pub(super) fn with(mut self, different: Override) -> Self {
        self.overrides.push(different);
        self
    }

    /// A table's columns, from left to right; what is not named is not shown.
    pub(super) fn columns(mut self, columns: &[(&str, &str)]) -> Self {
        self.columns =
            columns.iter().map(|&(name, shown)| (name.to_owned(), shown.to_owned())).collect();
        self
    }

    pub(super) fn largest_first(self, column: &str) -> Self {
        Self { sorted_by: Some((column.to_owned(), true)), ..self }
    }

    pub(super) fn smallest_first(self, column: &str) -> Self {
        Self { sorted_by: Some((column.to_owned(), false)), ..self }
    }

    /// In columns, of which the grid has 24, and rows of 38 pixels.
    pub(super) fn size(self, width: u8, height: u8) -> Self {
        Self { width, height, ..self }
    }

    /// As Grafana has it.
    pub(super) fn json(&self, id: u32, x: u8, y: u32) -> Value {
        let mut panel = json!({
            "id": id,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "gridPos": { "x": x, "y": y, "w": self.width, "h": self.height },
            "options": self.options(),
        });
        if self.kind != Kind::Text {
            let targets = self.queries.iter().enumerate();
            let targets: Vec<Value> =
                targets.map(|(index, query)| query.json(&reference(index))).collect();
            panel["datasource"] = datasource();
            panel["targets"] = targets.into();
            panel["fieldConfig"] = self.field_config();
        }
        if !self.columns.is_empty() {
            panel["transformations"] = self.transformations().into();
        }
        if let Some(interval) = self.min_interval {
            panel["interval"] = interval.into();
        }
        if self.kind == Kind::Heatmap {
            // Cells that can be told from each other.
            panel["maxDataPoints"] = 120.into();
        }
        panel
    }

    fn field_config(&self) -> Value {
        let mut defaults = json!({
            "unit": self.unit,
            "noValue": self.nothing,
            "custom": self.custom(),
            "color": self.colour_mode(),
        });
        let mut set = |key: &str, value: Value| {
            defaults[key] = value;
        };
        if !self.words.is_empty() {
            set("mappings", self.words.json().into());
        }
        if let Some(steps) = &self.steps {
            set("thresholds", json!({ "mode": "absolute", "steps": steps }));
        }
        if let Some(decimals) = self.decimals {
            set("decimals", decimals.into());
        }
        if !self.links.is_empty() {
            set("links", json!(self.links));
        }
        if matches!(self.kind, Kind::TimeSeries | Kind::BarGauge) {
            set("min", 0.into());
        }
        if let Some(max) = self.max {
            set("max", max.into());
        }
        let overrides: Vec<Value> = self.overrides.iter().map(Override::json).collect();
        json!({ "defaults": defaults, "overrides": overrides })
    }

    fn colour_mode(&self) -> Value {
        match (self.kind, self.colour) {
            (_, Some(colour)) => json!({ "mode": "fixed", "fixedColor": colour }),
            // By name: a series keeps its colour when others come and go.
            (Kind::TimeSeries, None) => json!({ "mode": "palette-classic-by-name" }),
            _ => json!({ "mode": "thresholds" }),
        }
    }

    /// What belongs to the kind of panel, of each field.
    fn custom(&self) -> Value {
        match self.kind {
            Kind::TimeSeries => {
                let (style, interpolation, fill) = match self.line {
                    Line::Straight => ("line", "linear", 10),
                    Line::Stairs => ("line", "stepAfter", 10),
                    Line::Bars => ("bars", "linear", 80),
                };
                json!({
                    "drawStyle": style,
                    "lineInterpolation": interpolation,
                    "lineWidth": 1,
                    "fillOpacity": fill,
                    "showPoints": "auto",
                    "pointSize": 5,
                    // A gap is what nobody knows.
                    "spanNulls": false,
                    "stacking": { "mode": if self.stacked { "normal" } else { "none" }, "group": "A" },
                    "thresholdsStyle": { "mode": if self.threshold_line { "dashed" } else { "off" } },
                })
            }
            Kind::StateTimeline => json!({ "lineWidth": 0, "fillOpacity": 80 }),
            Kind::Table => {
                json!({ "align": "auto", "cellOptions": { "type": "auto" }, "inspect": false })
            }
            Kind::Heatmap => {
                json!({ "hideFrom": { "legend": false, "tooltip": false, "viz": false } })
            }
            Kind::Stat | Kind::BarGauge | Kind::Text => json!({}),
        }
    }

    /// What belongs to the kind of panel as a whole.
    fn options(&self) -> Value {
        let last = json!({ "calcs": ["lastNotNull"], "fields": "", "values": false });
        let legend = json!({ "displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": [] });
        match self.kind {
            Kind::TimeSeries => {
                json!({ "legend": legend, "tooltip": { "mode": "multi", "sort": "desc" } })
            }
            Kind::Stat => json!({
                "reduceOptions": last,
                "orientation": "auto",
                "colorMode": "value",
                "graphMode": "none",
                "justifyMode": "auto",
                "textMode": "auto",
                "wideLayout": true,
                "showPercentChange": false,
                "percentChangeColorMode": "standard",
            }),
            Kind::BarGauge => json!({
                "reduceOptions": last,
                "orientation": "horizontal",
                "displayMode": "basic",
                "valueMode": "color",
                "namePlacement": "left",
                "showUnfilled": true,
                "sizing": "auto",
                "minVizWidth": 8,
                "minVizHeight": 16,
                "maxVizHeight": 40,
                "legend": { "displayMode": "list", "placement": "bottom", "showLegend": false, "calcs": [] },
            }),
            Kind::StateTimeline => json!({
                "alignValue": "left",
                "mergeValues": true,
                "rowHeight": 0.8,
                "showValue": "auto",
                "perPage": 20,
                "legend": legend,
                "tooltip": { "mode": "single", "sort": "none" },
            }),
            Kind::Heatmap => json!({
                "calculate": false,
                "cellGap": 1,
                "cellValues": { "unit": Unit::Count },
                "color": {
                    "mode": "scheme", "scheme": "Oranges", "fill": Colour::Orange, "scale": "exponential",
                    "exponent": 0.5, "steps": 64, "reverse": false,
                },
                "exemplars": { "color": Colour::Purple },
                // A cell in which nothing fell is empty, not the palest colour.
                "filterValues": { "le": 1e-9 },
                "legend": { "show": true },
                "rowsFrame": { "layout": "auto" },
                "showValue": "never",
                "tooltip": { "mode": "single", "yHistogram": true, "showColorScale": true },
                "yAxis": { "axisPlacement": "left", "reverse": false, "unit": self.unit },
            }),
            Kind::Table => {
                let sorted = self.sorted_by.iter();
                let sorted: Vec<Value> = sorted
                    .map(
                        |(column, descending)| json!({ "displayName": column, "desc": descending }),
                    )
                    .collect();
                json!({ "frameIndex": 0, "showHeader": true, "cellHeight": "sm", "sortBy": sorted })
            }
            Kind::Text => json!({ "mode": "markdown", "content": self.markdown }),
        }
    }

    /// Rows of several queries that have the same labels become one; then the columns in their order.
    fn transformations(&self) -> Vec<Value> {
        let names = self.columns.iter().map(|(name, _)| name.as_str());
        let wanted: Vec<&str> = names.collect();
        let order: serde_json::Map<String, Value> =
            (0..).zip(&wanted).map(|(index, name)| ((*name).to_owned(), index.into())).collect();
        let shown: serde_json::Map<String, Value> = self
            .columns
            .iter()
            .map(|(name, shown)| (name.clone(), shown.as_str().into()))
            .collect();
        vec![
            json!({ "id": "merge", "options": {} }),
            json!({ "id": "filterFieldsByName", "options": { "include": { "names": wanted } } }),
            json!({
                "id": "organize",
                "options": { "excludeByName": {}, "indexByName": order, "renameByName": shown },
            }),
        ]
    }
}
