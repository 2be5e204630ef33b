// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One dashboard: rows of panels that are laid out from left to right, and what stands above them.

use serde_json::{Value, json};

use super::annotation::Annotation;
use super::panel::Panel;
use super::variable::Variable;

/// Grafana's classic schema for dashboards, which every Grafana from 10 to 13 reads; see dashboards/grafana/README.md.
const SCHEMA: u32 = 42;
/// Columns of the grid.
pub(super) const COLUMNS: u8 = 24;
/// What the dashboards know each other by.
pub(super) const TAG: &str = "migscope";

/// A heading, and the panels below it.
#[derive(Clone, Debug)]
pub(super) struct Row {
    title: String,
    collapsed: bool,
    panels: Vec<Panel>,
}

impl Row {
    pub(super) fn open(title: &str, panels: Vec<Panel>) -> Self {
        Self { title: title.to_owned(), collapsed: false, panels }
    }

    /// Not asked for until a reader opens it.
    pub(super) fn closed(title: &str, panels: Vec<Panel>) -> Self {
        Self { collapsed: true, ..Self::open(title, panels) }
    }
}

/// A dashboard.
#[derive(Clone, Debug)]
pub(super) struct Dashboard {
    /// Also the name of its file.
    pub(super) uid: &'static str,
    pub(super) title: &'static str,
    pub(super) description: &'static str,
    /// The time that is shown at first, until now.
    pub(super) last: &'static str,
    pub(super) variables: Vec<Variable>,
    pub(super) annotations: Vec<Annotation>,
    pub(super) rows: Vec<Row>,
}

impl Dashboard {
    /// The file that Grafana imports.
    pub(super) fn json(&self) -> Value {
        let variables: Vec<&Value> = self.variables.iter().map(Variable::json).collect();
        let annotations: Vec<&Value> = self.annotations.iter().map(Annotation::json).collect();
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": SCHEMA,
            // One that is changed in the browser is lost when its file is read again.
            "editable": false,
            // A crosshair in all panels at once.
            "graphTooltip": 1,
            "timezone": "browser",
            "refresh": "10s",
            "time": { "from": format!("now-{}", self.last), "to": "now" },
            "links": [{
                "type": "dashboards",
                "title": "migscope",
                "tooltip": "The other dashboards, and the runbooks",
                "tags": [TAG],
                "asDropdown": false,
                "includeVars": true,
                "keepTime": true,
                "targetBlank": false,
                "icon": "external link",
                "url": "",
            }],
            "templating": { "list": variables },
            "annotations": { "list": annotations },
            "panels": self.panels(),
        })
    }

    fn panels(&self) -> Vec<Value> {
        let mut found = Vec::new();
        let mut id = 0;
        let mut next = || {
            id += 1;
            id
        };
        let mut y = 0;
        for row in &self.rows {
            let heading = next();
            let top = y + 1;
            let mut flow = Flow { x: 0, y: top, height: 0 };
            let mut panels = Vec::new();
            for panel in &row.panels {
                let (x, y) = flow.place(panel);
                panels.push(panel.json(next(), x, y));
            }
            let inner = if row.collapsed { std::mem::take(&mut panels) } else { Vec::new() };
            found.push(json!({
                "id": heading,
                "type": "row",
                "title": row.title,
                "collapsed": row.collapsed,
                "gridPos": { "x": 0, "y": y, "w": COLUMNS, "h": 1 },
                "panels": inner,
            }));
            found.extend(panels);
            y = if row.collapsed { top } else { flow.bottom() };
        }
        found
    }
}

/// Where the next panel goes: beside the last one, or below where there is no room.
struct Flow {
    x: u8,
    y: u32,
    height: u8,
}

impl Flow {
    fn place(&mut self, panel: &Panel) -> (u8, u32) {
        if self.x + panel.width > COLUMNS {
            *self = Self { x: 0, y: self.bottom(), height: 0 };
        }
        let place = (self.x, self.y);
        self.x += panel.width;
        self.height = self.height.max(panel.height);
        place
    }

    fn bottom(&self) -> u32 {
        self.y + u32::from(self.height)
    }
}
