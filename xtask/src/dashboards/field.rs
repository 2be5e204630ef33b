// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a value is shown: its unit, its colour, the words that stand for it, and where a click on it leads.

use serde::Serialize;
use serde_json::{Value, json};

/// Units that the panels use, by Grafana's names for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Unit {
    /// A number of things, or words.
    #[serde(rename = "none")]
    None,
    #[serde(rename = "short")]
    Count,
    #[serde(rename = "cps")]
    CountPerSecond,
    #[serde(rename = "bytes")]
    Bytes,
    #[serde(rename = "binBps")]
    BytesPerSecond,
    #[serde(rename = "s")]
    Seconds,
    /// 1 is the whole.
    #[serde(rename = "percentunit")]
    Ratio,
    /// Of milliseconds since the Unix epoch.
    #[serde(rename = "dateTimeAsIso")]
    Time,
}

/// Colours, by Grafana's names for them: they follow the theme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Colour {
    Blue,
    Green,
    LightBlue,
    LightGreen,
    Orange,
    Purple,
    Red,
    /// What says nothing of good or bad.
    Text,
    Yellow,
}

/// From which value on a colour holds. `None` is the lowest of all, and comes first.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Step {
    value: Option<f64>,
    color: Colour,
}

/// Steps of colour: the lowest, then those that begin at a value.
pub(super) fn steps(lowest: Colour, others: &[(f64, Colour)]) -> Vec<Step> {
    let others = others.iter().map(|&(value, color)| Step { value: Some(value), color });
    std::iter::once(Step { value: None, color: lowest }).chain(others).collect()
}

/// Words that stand for values, each with its colour.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    by_value: Vec<(String, String, Colour)>,
    not_a_number: Option<String>,
}

impl Words {
    pub(super) fn of<V: ToString, T: ToString>(
        words: impl IntoIterator<Item = (V, T, Colour)>,
    ) -> Self {
        let by_value = words
            .into_iter()
            .map(|(value, text, colour)| (value.to_string(), text.to_string(), colour))
            .collect();
        Self { by_value, not_a_number: None }
    }

    /// For a mean or a quantile of nothing.
    pub(super) fn for_nothing(text: &str) -> Self {
        Self { by_value: Vec::new(), not_a_number: Some(text.to_owned()) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_value.is_empty() && self.not_a_number.is_none()
    }

    pub(super) fn json(&self) -> Vec<Value> {
        let mut found = Vec::new();
        if !self.by_value.is_empty() {
            let options: serde_json::Map<String, Value> = (0..)
                .zip(&self.by_value)
                .map(|(index, (value, text, color))| {
                    (value.clone(), json!({ "text": text, "color": color, "index": index }))
                })
                .collect();
            found.push(json!({ "type": "value", "options": options }));
        }
        if let Some(text) = &self.not_a_number {
            let result = json!({ "text": text, "color": Colour::Text, "index": found.len() });
            found.push(
                json!({ "type": "special", "options": { "match": "null+nan", "result": result } }),
            );
        }
        found
    }
}

/// Where a click on a value leads.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Link {
    title: String,
    url: String,
    #[serde(rename = "targetBlank")]
    in_new_tab: bool,
}

/// What every link to another dashboard takes along: the time, and from where the data comes.
const KEPT: &str = "${__url_time_range}&${datasource:queryparam}&${job:queryparam}";

impl Link {
    fn new(title: &str, url: String) -> Self {
        Self { title: title.to_owned(), url, in_new_tab: false }
    }

    /// Both ends of the migration of a row's machine, which its UUID joins.
    pub(super) fn migration_of_row() -> Self {
        let url = format!("/d/migscope-migration?{KEPT}&var-vm_uuid=${{__data.fields.vm_uuid}}");
        Self::new("This machine's migration, both ends", url)
    }

    /// The same for a machine of which no UUID is known: one device on one host.
    pub(super) fn migration_of_device_of_row() -> Self {
        let url = format!(
            "/d/migscope-migration?{KEPT}&var-instance=${{__data.fields.instance}}&var-device=${{__data.fields.device}}"
        );
        Self::new("The migration of this device alone (for machines without a UUID)", url)
    }

    /// A row's device.
    pub(super) fn device_of_row() -> Self {
        let url = format!(
            "/d/migscope-device?{KEPT}&var-instance=${{__data.fields.instance}}&var-device=${{__data.fields.device}}"
        );
        Self::new("This device", url)
    }

    /// A series' device.
    pub(super) fn device_of_series() -> Self {
        let url = format!(
            "/d/migscope-device?{KEPT}&var-instance=${{__field.labels.instance}}&var-device=${{__field.labels.device}}"
        );
        Self::new("This device", url)
    }

    /// A row's host, as its agent is.
    pub(super) fn agent_of_row() -> Self {
        let url = format!("/d/migscope-agent?{KEPT}&var-instance=${{__data.fields.instance}}");
        Self::new("The agent on this host", url)
    }

    /// A series' host.
    pub(super) fn agent_of_series() -> Self {
        let url = format!("/d/migscope-agent?{KEPT}&var-instance=${{__field.labels.instance}}");
        Self::new("The agent on this host", url)
    }

    /// One page of the runbooks, by the panel that shows it.
    pub(super) fn runbook(name: &str, panel: u32) -> Self {
        Self::new(&format!("Runbook: {name}"), Self::page(panel))
    }

    /// Where that page is.
    pub(super) fn page(panel: u32) -> String {
        format!("/d/migscope-runbooks?viewPanel={panel}")
    }

    /// All the runbooks.
    pub(super) fn runbooks() -> Self {
        Self::new("Runbooks", "/d/migscope-runbooks?${__url_time_range}".to_owned())
    }
}

/// What is different for some of a panel's series or columns.
#[derive(Clone, Debug)]
pub(super) struct Override {
    matcher: Value,
    properties: Vec<Value>,
}

impl Override {
    fn new(id: &str, options: &str) -> Self {
        Self { matcher: json!({ "id": id, "options": options }), properties: Vec::new() }
    }

    /// Of a column or a series with this name, as it is shown.
    pub(super) fn named(name: &str) -> Self {
        Self::new("byName", name)
    }

    /// Of series whose names begin with these words.
    pub(super) fn beginning_with(name: &str) -> Self {
        Self::new("byRegexp", &format!("/^{name}\\b/"))
    }

    /// Of all that one query gives.
    pub(super) fn of_query(reference: &str) -> Self {
        Self::new("byFrameRefID", reference)
    }

    fn with(mut self, id: &str, value: impl Serialize) -> Self {
        self.properties.push(json!({ "id": id, "value": value }));
        self
    }

    pub(super) fn unit(self, unit: Unit) -> Self {
        self.with("unit", unit)
    }

    pub(super) fn colour(self, colour: Colour) -> Self {
        self.with("color", json!({ "mode": "fixed", "fixedColor": colour }))
    }

    pub(super) fn words(self, words: &Words) -> Self {
        self.with("mappings", words.json())
    }

    pub(super) fn steps(self, steps: Vec<Step>) -> Self {
        self.with("thresholds", json!({ "mode": "absolute", "steps": steps }))
    }

    pub(super) fn links(self, links: &[Link]) -> Self {
        self.with("links", links)
    }

    pub(super) fn decimals(self, decimals: u8) -> Self {
        self.with("decimals", decimals)
    }

    /// A table's column in pixels.
    pub(super) fn width(self, pixels: u16) -> Self {
        self.with("custom.width", pixels)
    }

    /// The cell's background has the colour of its value.
    pub(super) fn coloured_cell(self) -> Self {
        self.with("custom.cellOptions", json!({ "type": "color-background", "mode": "basic" }))
    }

    /// A line of dashes, for what is said beforehand.
    pub(super) fn dashed(self) -> Self {
        self.with("custom.lineStyle", json!({ "fill": "dash", "dash": [10, 10] }))
            .with("custom.fillOpacity", 0)
    }

    pub(super) fn json(&self) -> Value {
        json!({ "matcher": self.matcher, "properties": self.properties })
    }
}
