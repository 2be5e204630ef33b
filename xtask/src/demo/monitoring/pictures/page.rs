// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A dashboard's page: its panels where Grafana has them, below the course of the migrations.

use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::super::course::{Course, Migration};
use super::super::dashboard::{Dashboard, Panel};
use super::super::expressions::Answered;
use super::Drawing;
use super::panel::{self, Band, Scene};

/// Of the page, and of its margin, in pixels.
const WIDTH: u32 = 1240;
const MARGIN: u32 = 16;
/// A unit of Grafana's grid, in pixels.
const ROW: u32 = 32;
const COLUMNS: u32 = 24;
const GAP: u32 = 8;
/// What stands above the panels, and above those of each row.
const HEAD: u32 = 210;
const HEADING: u32 = 34;

/// What the migrations' ends are painted with.
const ENDINGS: [(&str, &str); 3] =
    [("completed", "#1f8552"), ("cancelled", "#a87b00"), ("failed", "#b3261e")];

/// A page, and how large it is.
pub(super) struct Page {
    pub(super) html: String,
    pub(super) size: (u32, u32),
}

/// Panels below one heading.
struct Section<'a> {
    title: Option<&'a str>,
    panels: Vec<&'a Panel>,
}

impl Section<'_> {
    /// The first row of the grid that it has, and the first that it has no more.
    fn rows(&self) -> (u32, u32) {
        let rows = |panel: &&Panel| {
            let place = panel.place;
            (pixels(place.y), pixels(place.y + place.height))
        };
        let all = self.panels.iter().map(rows);
        all.reduce(|(top, end), (y, below)| (top.min(y), end.max(below))).unwrap_or_default()
    }
}

/// The page.
pub(super) fn of(drawing: &Drawing<'_>, course: &Course) -> Result<Page> {
    let dashboard = drawing.dashboard;
    let (from, to) = course.span()?;
    let inner = WIDTH - 2 * MARGIN;
    let scene = Scene {
        start: from,
        span: (0.0, to - from),
        marks: course.migrations.iter().map(|migration| migration.ended - from).collect(),
    };
    let mut height = HEAD + 2 * MARGIN;
    let mut sections = Vec::new();
    for section in sections_of(dashboard) {
        let (top, end) = section.rows();
        height += (end - top) * ROW + if section.title.is_some() { HEADING } else { 0 };
        sections.push(show(&section, drawing, &scene)?);
    }
    let html = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (dashboard.title) }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                h1 { (dashboard.title) }
                span.note {
                    "drawn by migscope from the answers of a Prometheus in `cargo xtask demo --monitoring`; this is not Grafana"
                }
                div.course {
                    strong { "Migrations of this run, and how each ended for its source" }
                    (panel::bands(&scene, &bands(course, from), inner - 26, 10))
                }
                @for section in sections { (section) }
            }
        }
    };
    Ok(Page { html: html.into_string(), size: (WIDTH, height) })
}

/// What is below each row's heading, and before the first.
fn sections_of(dashboard: &Dashboard) -> Vec<Section<'_>> {
    let mut sections = vec![Section { title: None, panels: Vec::new() }];
    for panel in &dashboard.panels {
        if panel.kind == "row" {
            sections.push(Section { title: Some(&panel.title), panels: Vec::new() });
        } else if let Some(section) = sections.last_mut() {
            section.panels.push(panel);
        }
    }
    sections.retain(|section| !section.panels.is_empty());
    sections
}

fn show(section: &Section<'_>, drawing: &Drawing<'_>, scene: &Scene) -> Result<Markup> {
    let (top, end) = section.rows();
    let inner = WIDTH - 2 * MARGIN;
    let mut panels = Vec::new();
    for panel in &section.panels {
        let column = |columns: u64| pixels(columns) * inner / COLUMNS;
        let place = panel.place;
        let (x, y) = (column(place.x), (pixels(place.y) - top) * ROW);
        let size = (column(place.width) - GAP, pixels(place.height) * ROW - GAP);
        let of_panel: Vec<&Answered<'_>> =
            drawing.answers.iter().filter(|it| std::ptr::eq(it.panel, *panel)).collect();
        let style = format!("left:{x}px;top:{y}px;width:{}px;height:{}px", size.0, size.1);
        panels.push(html! {
            div.panel style=(style) {
                h3 { (title(&panel.title, drawing)) }
                (panel::show(panel, &of_panel, scene, size)?)
            }
        });
    }
    Ok(html! {
        @if let Some(title) = section.title { h2 { (title) } }
        div.section style=(format!("height:{}px", (end - top) * ROW)) {
            @for panel in panels { (panel) }
        }
    })
}

/// The migrations as bands, each from its beginning to its end.
fn bands(course: &Course, start: f64) -> Vec<Band> {
    let band = |migration: &Migration| {
        let ending = migration.ends.iter().find(|end| end.role == "source");
        let ending = ending.map_or("", |end| end.ending.as_str());
        let colour = ENDINGS.iter().find(|(name, _)| *name == ending).map_or("#7b8794", |it| it.1);
        let since = |time: f64| time - start;
        let piece =
            (since(migration.began), since(migration.ended), ending.to_owned(), colour.to_owned());
        Band { name: migration.name.clone(), pieces: vec![piece] }
    };
    let mut migrations: Vec<_> = course.migrations.iter().collect();
    migrations.sort_by(|one, other| one.began.total_cmp(&other.began));
    migrations.into_iter().map(band).collect()
}

/// A title with the values of variables in it.
fn title(text: &str, drawing: &Drawing<'_>) -> String {
    let mut text = text.to_owned();
    for (name, chosen) in &drawing.chosen {
        text = text.replace(&format!("${name}"), &chosen.title());
    }
    text
}

fn pixels(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
