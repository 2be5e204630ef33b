// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a panel says of its values: unit, words in their place, colours.

use serde_json::Value;

use super::super::dashboard::{list, text_of};
use super::unit;

/// For what has no colour of its own.
pub(super) const PALETTE: [&str; 10] = [
    "#2563c9", "#c2600c", "#1f8552", "#8a4bbf", "#b83280", "#0f8391", "#8a6d00", "#5f6b76",
    "#b3261e", "#4f46c8",
];

/// Grafana's colours by their names, as they are here.
const NAMED: [(&str, &str); 9] = [
    ("green", "#1f8552"),
    ("yellow", "#a87b00"),
    ("red", "#b3261e"),
    ("blue", "#2563c9"),
    ("orange", "#c2600c"),
    ("purple", "#8a4bbf"),
    ("gray", "#7b8794"),
    ("text", "#3a444e"),
    ("grey", "#7b8794"),
];

/// A panel's settings, of a series by its name where there are such.
pub(super) struct Paint<'a> {
    model: &'a Value,
}

impl<'a> Paint<'a> {
    pub(super) fn of(model: &'a Value) -> Self {
        Self { model }
    }

    /// A property of the series with this name, or of all.
    fn property(&self, series: (&str, &str), key: &str) -> &'a Value {
        let (name, letter) = series;
        let mut found = path(&self.model["fieldConfig"]["defaults"], key);
        for entry in list(&self.model["fieldConfig"]["overrides"]) {
            let wanted = entry["matcher"]["options"].as_str().unwrap_or_default();
            let fits = match entry["matcher"]["id"].as_str() {
                Some("byName") => wanted == name,
                Some("byFrameRefID") => wanted == letter,
                _ => false,
            };
            for property in list(&entry["properties"]).filter(|_| fits) {
                if property["id"] == key {
                    found = &property["value"];
                }
            }
        }
        found
    }

    pub(super) fn unit(&self, series: (&str, &str)) -> &'a str {
        self.property(series, "unit").as_str().unwrap_or_default()
    }

    /// The name that a series is given, if any.
    pub(super) fn name(&self, series: (&str, &str)) -> Option<&'a str> {
        self.property(series, "displayName").as_str()
    }

    /// A value in words.
    pub(super) fn show(&self, series: (&str, &str), value: f64) -> String {
        let mapped = self.mapped(series, value).and_then(|found| text_of(found, "text"));
        mapped.unwrap_or_else(|| unit::show(self.unit(series), value))
    }

    /// The colour of a value, by what it is mapped to or by the thresholds.
    pub(super) fn colour(&self, series: (&str, &str), value: f64) -> Option<String> {
        self.mapped_colour(series, value).or_else(|| self.threshold(series, value))
    }

    /// The colour of what a value is mapped to.
    pub(super) fn mapped_colour(&self, series: (&str, &str), value: f64) -> Option<String> {
        text_of(self.mapped(series, value)?, "color").map(|name| colour(&name))
    }

    /// The colour that the series has by itself.
    pub(super) fn fixed(&self, series: (&str, &str)) -> Option<String> {
        text_of(self.property(series, "color"), "fixedColor").map(|name| colour(&name))
    }

    fn threshold(&self, series: (&str, &str), value: f64) -> Option<String> {
        if self.property(series, "color")["mode"] != "thresholds" {
            return None;
        }
        let steps = list(&self.property(series, "thresholds")["steps"]);
        let reached = steps.filter(|step| step["value"].as_f64().is_none_or(|from| value >= from));
        text_of(reached.last()?, "color").map(|name| colour(&name))
    }

    /// What a value is mapped to.
    fn mapped(&self, series: (&str, &str), value: f64) -> Option<&'a Value> {
        list(self.property(series, "mappings")).find_map(|mapping| {
            let options = &mapping["options"];
            match mapping["type"].as_str()? {
                "value" => options.get(value.to_string()),
                "range" => {
                    let from = options["from"].as_f64().unwrap_or(f64::NEG_INFINITY);
                    let to = options["to"].as_f64().unwrap_or(f64::INFINITY);
                    (from..=to).contains(&value).then(|| &options["result"])
                }
                "special" => {
                    let fits = match options["match"].as_str()? {
                        "nan" | "null+nan" => value.is_nan(),
                        _ => false,
                    };
                    fits.then(|| &options["result"])
                }
                _ => None,
            }
        })
    }
}

/// A value at `a.b`; as overrides name it, for what is nested.
fn path<'a>(value: &'a Value, key: &str) -> &'a Value {
    key.split('.').fold(value, |value, part| &value[part])
}

/// As CSS has it. Grafana's `semi-dark-red` and its like are shades, which are one here.
pub(super) fn colour(name: &str) -> String {
    if name.starts_with('#') || name.starts_with("rgb") {
        return name.to_owned();
    }
    let base = name.rsplit('-').next().unwrap_or(name);
    let found = NAMED.iter().find(|(named, _)| *named == base);
    found.map_or(PALETTE[7], |(_, colour)| colour).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn model() -> Value {
        json!({"fieldConfig": {
            "defaults": {"unit": "bytes", "color": {"mode": "thresholds"},
                "thresholds": {"steps": [{"color": "green", "value": null}, {"color": "red", "value": 1}]},
                "mappings": [{"type": "value", "options": {"2": {"text": "pre_copy", "color": "blue"}}}]},
            "overrides": [{"matcher": {"id": "byName", "options": "time"},
                "properties": [{"id": "unit", "value": "s"}]}]}})
    }

    #[test]
    fn a_series_has_what_is_said_of_it_and_else_what_is_said_of_all() {
        let model = model();
        let paint = Paint::of(&model);
        assert_eq!(paint.show(("a", "A"), 1024.0), "1 KiB");
        assert_eq!(paint.show(("time", "A"), 0.5), "500 ms");
    }

    #[test]
    fn a_mapped_value_is_a_word_with_its_colour_and_others_have_that_of_their_threshold() {
        let model = model();
        let paint = Paint::of(&model);
        assert_eq!(paint.show(("a", "A"), 2.0), "pre_copy");
        assert_eq!(paint.colour(("a", "A"), 2.0), Some(colour("blue")));
        assert_eq!(paint.colour(("a", "A"), 0.0), Some(colour("semi-dark-green")));
        assert_eq!(paint.colour(("a", "A"), 1.0), Some(colour("red")));
    }
}
