// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Marks in all panels of a dashboard: when migrations ran, and how they ended.
//!
//! A migration that runs is a band, as wide as the scrapes saw it. Its end is a line at the time that the agent tells, which is
//! exact however seldom it is scraped: the value of the series is the time of the mark.

use serde_json::{Value, json};

use super::field::Colour;
use super::query::{MIGRATING, datasource, of};

/// A query whose result are marks.
#[derive(Clone, Debug)]
pub(super) struct Annotation(Value);

impl Annotation {
    /// Marks of the migrations of devices that `device` selects, of machines that `machine` selects.
    pub(super) fn of_migrations(device: &str, machine: &str) -> Vec<Self> {
        let comma = if device.is_empty() { "" } else { ", " };
        let state = of("vfio_migration_device_state", &format!("{MIGRATING}{comma}{device}"));
        // Of these machines: who has the device, and who had it in its last migration.
        let these = |info| match machine {
            "" => String::new(),
            _ => format!(" and on (job, instance, device) {}", of(info, machine)),
        };
        let runs = format!(
            "max by (job, instance, device) ({state}) == 1{}",
            these("vfio_migration_device_info")
        );
        let ended = |result: &str| {
            let time = of("vfio_migration_last_session_end_time_seconds", device);
            let matchers = format!(r#"result=~"{result}"{comma}{device}"#);
            let result = of("vfio_migration_last_session_result", &matchers);
            let these = these("vfio_migration_last_session_info");
            // The series stay long after the end; a mark before the time that is shown says nothing.
            format!(
                "1000 * ({time} * on (job, instance, device) group_left (role, result) ({result} == 1)) >= $__from{these}"
            )
        };
        let ends = "{{role}} {{result}}: {{device}}";
        vec![
            Self::new("Migrating", Colour::Blue, &runs, "migrating: {{device}}", false),
            Self::new("Completed", Colour::Green, &ended("completed"), ends, true),
            Self::new("Cancelled", Colour::Yellow, &ended("cancelled"), ends, true),
            Self::new("Failed or unknown", Colour::Red, &ended("failed|unknown"), ends, true),
        ]
    }

    fn new(name: &str, colour: Colour, expr: &str, title: &str, value_is_time: bool) -> Self {
        Self(json!({
            "name": name,
            "datasource": datasource(),
            "enable": true,
            "hide": false,
            "iconColor": colour,
            "titleFormat": title,
            "textFormat": "{{instance}}",
            "tagKeys": "instance,device",
            "useValueForTime": value_is_time,
            "target": {
                "refId": "Anno",
                "expr": expr,
                "interval": "",
            },
        }))
    }

    pub(super) fn json(&self) -> &Value {
        &self.0
    }
}
