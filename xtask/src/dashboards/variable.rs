// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the reader of a dashboard chooses at its top.
//!
//! The first three are those that grafana/dashboard-linter wants, spelt as it wants them.

use serde_json::{Value, json};

use super::query::{datasource, of};

/// A variable, as Grafana has it.
#[derive(Clone, Debug)]
pub(super) struct Variable(Value);

/// What an `All` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum All {
    /// Every value that is not empty.
    Something,
    /// The empty one, too: a machine need not have a UUID.
    Anything,
}

impl Variable {
    /// Where the data comes from.
    pub(super) fn datasource() -> Self {
        Self(json!({
            "type": "datasource",
            "name": "datasource",
            "label": "Data source",
            "description": "The Prometheus that scrapes the agents",
            "query": "prometheus",
            "regex": "",
            "refresh": 1,
            "multi": false,
            "includeAll": false,
            "hide": 0,
            "options": [],
            "current": {},
        }))
    }

    /// The name that Prometheus' configuration has for the agents.
    pub(super) fn job() -> Self {
        let query = "label_values(migscope_build_info, job)";
        Self::query("job", "Job", "The scrape job of the agents", query, All::Something)
    }

    /// The agents, one a host.
    pub(super) fn instance() -> Self {
        let query = r#"label_values(migscope_build_info{job=~"$job"}, instance)"#;
        Self::query("instance", "Instance", "The agents, one a host", query, All::Something)
    }

    /// The same, of which one is chosen at first: two hosts have devices with the same address.
    pub(super) fn one_instance() -> Self {
        Self::instance().one_at_first()
    }

    /// Machines by name; it narrows what can be chosen as UUID.
    pub(super) fn vm() -> Self {
        let info = of("vfio_migration_device_info", "");
        let query = format!("label_values({info}, vm)");
        Self::query("vm", "Machine", "Machines by their names", &query, All::Anything)
    }

    /// Machines by UUID, which is the same at both ends of a migration.
    pub(super) fn vm_uuid() -> Self {
        let info = of("vfio_migration_device_info", r#"vm=~"$vm""#);
        let query = format!("label_values({info}, vm_uuid)");
        let description = "Machines by their UUIDs, which are the same on both hosts";
        Self::query("vm_uuid", "Machine UUID", description, &query, All::Anything)
    }

    /// Devices, of these machines where some are chosen.
    pub(super) fn device(machine: &str) -> Self {
        let info = of("vfio_migration_device_info", machine);
        let query = format!("label_values({info}, device)");
        let description = "VFIO devices, by PCI address or mdev UUID";
        Self::query("device", "Device", description, &query, All::Something)
    }

    /// A device of which nobody knows more than where it is; one is chosen at first.
    pub(super) fn one_device() -> Self {
        Self::device("").one_at_first()
    }

    /// Without an `All`, Grafana chooses the first value that there is.
    fn one_at_first(mut self) -> Self {
        self.0["includeAll"] = false.into();
        self.0["current"] = json!({});
        self
    }

    /// The values that a label of a metric has; the variable has the label's name.
    pub(super) fn label_of(label: &str, shown: &str, description: &str, metric: &str) -> Self {
        let query = format!("label_values({}, {label})", of(metric, ""));
        Self::query(label, shown, description, &query, All::Something)
    }

    fn query(name: &str, label: &str, description: &str, query: &str, all: All) -> Self {
        let all = match all {
            All::Something => ".+",
            All::Anything => ".*",
        };
        Self(json!({
            "type": "query",
            "name": name,
            "label": label,
            "description": description,
            "datasource": datasource(),
            "query": query,
            "regex": "",
            // When the time changes: a machine may have been there then.
            "refresh": 2,
            "sort": 1,
            "multi": true,
            "includeAll": true,
            "allValue": all,
            "hide": 0,
            "options": [],
            "current": { "selected": true, "text": ["All"], "value": ["$__all"] },
        }))
    }

    /// One of a closed set of a label's values, the first unless chosen otherwise.
    pub(super) fn one_of(name: &str, label: &str, description: &str, values: &[&str]) -> Self {
        let option = |value: &str, selected: bool| json!({ "selected": selected, "text": value, "value": value });
        let options: Vec<Value> =
            (0..).zip(values).map(|(index, value)| option(value, index == 0)).collect();
        Self(json!({
            "type": "custom",
            "name": name,
            "label": label,
            "description": description,
            "query": values.join(","),
            "multi": false,
            "includeAll": false,
            "hide": 0,
            "current": option(values[0], true),
            "options": options,
        }))
    }

    pub(super) fn json(&self) -> &Value {
        &self.0
    }
}
