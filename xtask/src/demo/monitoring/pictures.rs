// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pictures of what the panels of a dashboard show, from Prometheus' answers. They are drawn here and are not Grafana's, and say so.
//!
//! ```text
//!   dashboard + answers ─▶ page.rs: where panels stand ─▶ panel.rs: what is in each ─▶ HTML ─▶ chromium.rs ─▶ PNG
//!                                                          ├─ plot.rs: lines (plotters)
//!                                                          └─ paint.rs, unit.rs: words and colours for values
//! ```

mod chromium;
mod page;
mod paint;
mod panel;
mod plot;
mod table;
mod unit;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::course::Course;
use super::dashboard::Dashboard;
use super::expressions::Answered;
use super::variable::Chosen;

/// A dashboard, and what was answered to it.
pub(crate) struct Drawing<'a> {
    pub(crate) dashboard: &'a Dashboard,
    /// The values of its variables, which titles have.
    pub(crate) chosen: BTreeMap<String, Chosen>,
    pub(crate) answers: Vec<Answered<'a>>,
}

/// One picture for each dashboard, `NAME.png` in the folder. Without a browser there is none, which is said.
pub(crate) fn draw(folder: &Path, drawings: &[Drawing<'_>], course: &Course) -> Result<()> {
    let browser = match chromium::find() {
        Ok(browser) => browser,
        Err(why) => {
            eprintln!("no pictures were drawn: {why}");
            return Ok(());
        }
    };
    fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let scratch = tempfile::tempdir().context("failed to make a scratch folder")?;
    // One that asks for nothing has nothing to show.
    for drawing in drawings.iter().filter(|drawing| !drawing.answers.is_empty()) {
        let page = page::of(drawing, course)?;
        let name = &drawing.dashboard.name;
        let file = scratch.path().join(format!("{name}.html"));
        fs::write(&file, page.html).context("failed to write a page")?;
        let picture = folder.join(format!("{name}.png"));
        chromium::picture(browser, &file, page.size, &picture)?;
        eprintln!("drew {}", picture.display());
    }
    Ok(())
}
