// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is in a panel, by its kind.

use std::collections::BTreeMap;

use anyhow::Result;
use maud::{Markup, PreEscaped, html};

use super::super::dashboard::{Panel, list, text_of};
use super::super::expressions::Answered;
use super::super::server::Series;
use super::paint::{PALETTE, Paint};
use super::plot::{Bar, Line, Plot};
use super::{table, unit};

/// Names of a legend that are shown, in a panel of usual width.
const NAMES: usize = 10;
/// Lines of a table.
pub(super) const LINES: usize = 24;
/// Of a panel, in pixels: its border and padding, its heading, a line of its legend.
const FRAME: u32 = 22;
const TITLE: u32 = 24;
const LEGEND_LINE: u32 = 17;
/// Of a letter, in pixels.
const LETTER: f64 = 6.4;
/// The part of a number that is an error of its calculation.
const NOTHING: f64 = 1e-9;
/// Without a sample for so many steps, there was none.
const GAP_STEPS: f64 = 3.0;

/// When it was.
pub(super) struct Scene {
    /// Where the time axis begins, in Prometheus' time.
    pub(super) start: f64,
    /// The axis, in seconds from there.
    pub(super) span: (f64, f64),
    /// Ends of migrations.
    pub(super) marks: Vec<f64>,
}

/// A line of pieces of time: from, to, what was, and its colour.
pub(super) struct Band {
    pub(super) name: String,
    pub(super) pieces: Vec<(f64, f64, String, String)>,
}

/// One series with its name.
struct Named<'a> {
    name: String,
    letter: &'a str,
    /// Between two points, in seconds.
    step: f64,
    series: &'a Series,
}

impl Named<'_> {
    fn key(&self) -> (&str, &str) {
        (&self.name, self.letter)
    }

    /// Its points with numbers, in the scene's time.
    fn points(&self, scene: &Scene) -> Vec<(f64, f64)> {
        let known = self.series.points.iter().filter(|(_, value)| value.is_finite());
        known.map(|(at, value)| (at - scene.start, *value)).collect()
    }
}

/// What a panel shows.
pub(super) fn show(
    panel: &Panel,
    answers: &[&Answered<'_>],
    scene: &Scene,
    size: (u32, u32),
) -> Result<Markup> {
    let paint = Paint::of(&panel.model);
    let named = named(answers, &paint);
    Ok(match panel.kind.as_str() {
        "text" => html! {
            div.words { (text_of(&panel.model["options"], "content").unwrap_or_default()) }
        },
        _ if named.is_empty() => html! { div.none { "no data in this run" } },
        "stat" | "gauge" | "piechart" => values(panel, &named, &paint),
        "bargauge" => bars(panel, &named, &paint),
        "table" => table::of(panel, answers, &paint, scene.start),
        "state-timeline" | "status-history" => {
            let bands: Vec<Band> = named.iter().map(|it| band(it, &paint, scene)).collect();
            self::bands(scene, &bands, size.0 - FRAME, LINES)
        }
        "heatmap" => heat(&named, scene, size.0 - FRAME),
        _ => lines(panel, &named, &paint, scene, size)?,
    })
}

fn named<'a>(answers: &[&'a Answered<'_>], paint: &Paint<'_>) -> Vec<Named<'a>> {
    let mut all = Vec::new();
    for answered in answers {
        let letter = answered.target.letter.as_str();
        for series in &answered.series {
            let name = match &answered.target.legend {
                Some(legend) => fill(legend, &series.labels),
                None => labels(&series.labels),
            };
            let name = paint.name((&name, letter)).map_or(name, str::to_owned);
            all.push(Named { name, letter, step: answered.step, series });
        }
    }
    all.retain(|named| named.series.points.iter().any(|(_, value)| !value.is_nan()));
    all
}

/// `{{label}}` replaced by the label's value.
fn fill(legend: &str, labels: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    let mut rest = legend;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else { break };
        text.push_str(before);
        text.push_str(labels.get(name.trim()).map_or("", String::as_str));
        rest = after;
    }
    text + rest
}

/// Labels that all series of this run share, and a name.
pub(super) fn is_shared(label: &str) -> bool {
    ["__name__", "job", "instance"].contains(&label)
}

/// All labels, but those that all series of this run share.
fn labels(labels: &BTreeMap<String, String>) -> String {
    let own = |name: &&String| !is_shared(name);
    let values: Vec<&str> = labels.keys().filter(own).map(|name| labels[name].as_str()).collect();
    match (values.is_empty(), labels.get("__name__")) {
        (true, Some(name)) => name.clone(),
        (true, None) => "value".to_owned(),
        (false, _) => values.join(" "),
    }
}

fn colour_of(paint: &Paint<'_>, named: &Named<'_>, number: usize) -> String {
    paint.fixed(named.key()).unwrap_or_else(|| PALETTE[number % PALETTE.len()].to_owned())
}

fn lines(
    panel: &Panel,
    named: &[Named<'_>],
    paint: &Paint<'_>,
    scene: &Scene,
    (width, height): (u32, u32),
) -> Result<Markup> {
    let custom = &panel.model["fieldConfig"]["defaults"]["custom"];
    let steps = custom["lineInterpolation"] == "stepAfter";
    let (mut bars, mut heights) = (Vec::new(), BTreeMap::<u64, f64>::new());
    let drawn = named.iter().enumerate().filter_map(|(number, named)| {
        if custom["drawStyle"] == "bars" {
            bars.extend(named.points(scene).into_iter().map(|(at, value)| {
                let base = heights.entry(at.to_bits()).or_default();
                let bar = (*base, *base + value);
                *base = bar.1;
                let colour = colour_of(paint, named, number);
                Bar { colour, time: (at - named.step, at), height: bar }
            }));
            return None;
        }
        let mut parts = parts(&named.points(scene), named.step);
        if steps {
            parts.iter_mut().for_each(|part| *part = stairs(part));
        }
        Some(Line { colour: colour_of(paint, named, number), parts })
    });
    let drawn = drawn.collect();
    // How many names fit into a line, from their lengths in letters.
    let letters: usize = named.iter().take(NAMES).map(|named| named.name.chars().count() + 5).sum();
    let per_line = usize::try_from(width / 7).unwrap_or(1).max(1);
    let legend_lines = u32::try_from(letters.div_ceil(per_line)).unwrap_or(1).clamp(1, 3);
    let legend = legend_lines * LEGEND_LINE;
    let plot = Plot {
        size: (width - FRAME, height.saturating_sub(FRAME / 2 + TITLE + legend + 4).max(60)),
        span: scene.span,
        unit: paint.unit(("", "")),
        lines: drawn,
        bars,
        marks: &scene.marks,
        fill: custom["fillOpacity"].as_f64().unwrap_or(0.0).min(30.0) / 100.0,
    };
    Ok(html! {
        div.plot { (PreEscaped(plot.draw()?)) }
        ul.legend style=(format!("height:{legend}px")) {
            @for (number, named) in named.iter().enumerate().take(NAMES) {
                li { i style=(format!("background:{}", colour_of(paint, named, number))) {} (named.name) }
            }
            @if named.len() > NAMES { li { "and " (named.len() - NAMES) " more" } }
        }
    })
}

/// The points in parts without a gap.
fn parts(points: &[(f64, f64)], step: f64) -> Vec<Vec<(f64, f64)>> {
    let longest = GAP_STEPS * step;
    let mut parts: Vec<Vec<(f64, f64)>> = Vec::new();
    for &point in points {
        match parts.last_mut() {
            Some(part) if part.last().is_some_and(|last| point.0 - last.0 <= longest) => {
                part.push(point);
            }
            _ => parts.push(vec![point]),
        }
    }
    parts
}

/// Each value holds until the next.
fn stairs(part: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let corners = part.windows(2).flat_map(|pair| [pair[0], (pair[1].0, pair[0].1)]);
    corners.chain(part.last().copied()).collect()
}

fn values(panel: &Panel, named: &[Named<'_>], paint: &Paint<'_>) -> Markup {
    let calculation = calculation(panel);
    let (only_one, many) = (named.len() == 1, named.len() > 2);
    html! {
        div.values {
            @for named in named.iter().take(NAMES) {
                @let value = reduce(named.series, calculation);
                @let colour = paint.colour(named.key(), value).unwrap_or_else(|| PALETTE[0].to_owned());
                div {
                    b.small[many] style=(format!("color:{colour}")) { (paint.show(named.key(), value)) }
                    @if !only_one { span { (named.name) } }
                }
            }
        }
        @if named.len() > NAMES { ul.legend { li { "and " (named.len() - NAMES) " more" } } }
    }
}

/// A bar for each value, the longest for the largest.
fn bars(panel: &Panel, named: &[Named<'_>], paint: &Paint<'_>) -> Markup {
    let calculation = calculation(panel);
    let values: Vec<f64> = named.iter().map(|named| reduce(named.series, calculation)).collect();
    let most = values.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
    html! {
        div.bars {
            @for (named, value) in named.iter().zip(&values).take(LINES) {
                @let share = if most > 0.0 { value / most * 100.0 } else { 0.0 };
                @let colour = paint.colour(named.key(), *value).unwrap_or_else(|| PALETTE[0].to_owned());
                div {
                    span { (named.name) }
                    b { i style=(format!("width:{share:.1}%;background:{colour}")) {} }
                    em { (paint.show(named.key(), *value)) }
                }
            }
        }
        @if named.len() > LINES { ul.legend { li { "and " (named.len() - LINES) " more" } } }
    }
}

/// How a series becomes one number.
fn calculation(panel: &Panel) -> &str {
    let calculation = list(&panel.model["options"]["reduceOptions"]["calcs"]).next();
    calculation.and_then(|name| name.as_str()).unwrap_or("lastNotNull")
}

pub(super) fn reduce(series: &Series, calculation: &str) -> f64 {
    let known: Vec<f64> =
        series.points.iter().map(|(_, value)| *value).filter(|value| !value.is_nan()).collect();
    let sum: f64 = known.iter().sum();
    match calculation {
        "max" => known.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        "min" => known.iter().copied().fold(f64::INFINITY, f64::min),
        "sum" => sum,
        "mean" => sum / f64::from(u32::try_from(known.len()).unwrap_or(u32::MAX)),
        "first" | "firstNotNull" => known.first().copied().unwrap_or(f64::NAN),
        _ => known.last().copied().unwrap_or(f64::NAN),
    }
}

/// Equal values that follow each other are one piece.
fn band(named: &Named<'_>, paint: &Paint<'_>, scene: &Scene) -> Band {
    let (step, mut pieces) = (named.step, Vec::<(f64, f64, f64)>::new());
    for (at, value) in named.points(scene) {
        match pieces.last_mut() {
            Some((_, end, same)) if *same == value && at <= *end + GAP_STEPS * step => {
                *end = at + step
            }
            _ => pieces.push((at, at + step, value)),
        }
    }
    let painted = pieces.into_iter().map(|(from, to, value)| {
        let colour = paint.colour(named.key(), value);
        let colour =
            colour.unwrap_or_else(|| if value == 0.0 { "#d5dbe1" } else { PALETTE[0] }.to_owned());
        (from, to.min(scene.span.1), paint.show(named.key(), value), colour)
    });
    Band { name: named.name.clone(), pieces: painted.collect() }
}

/// Bands with a time axis below them, in so many pixels.
pub(super) fn bands(scene: &Scene, bands: &[Band], width: u32, most: usize) -> Markup {
    let (from, to) = scene.span;
    let place = |at: f64| ((at - from) / (to - from) * 100.0).clamp(0.0, 100.0);
    let letters = |text: &str| LETTER * f64::from(u32::try_from(text.chars().count()).unwrap_or(0));
    let width = f64::from(width);
    let longest = bands.iter().map(|band| letters(&band.name)).fold(40.0, f64::max);
    let names = (longest + 12.0).min(0.4 * width);
    let inner = width - names;
    let every = [5.0, 10.0, 20.0].into_iter().find(|every| inner * every / (to - from) > 45.0);
    let every = every.unwrap_or(60.0);
    html! {
        div.bands {
            @for Band { name, pieces } in bands.iter().take(most) {
                div.band {
                    span style=(format!("width:{names:.0}px")) { (name) }
                    div {
                        @for (from, to, text, colour) in pieces {
                            @let (left, share) = (place(*from), place(*to) - place(*from));
                            i style=(format!("left:{left:.2}%;width:{share:.2}%;background:{colour}")) {
                                // Where there is no room for a word, half of one says nothing.
                                @if inner * share / 100.0 > letters(text) + 4.0 { (text) }
                            }
                        }
                    }
                }
            }
            @if bands.len() > most { div.band { span { "and " (bands.len() - most) " more" } } }
        }
        div.axis style=(format!("margin-left:{names:.0}px")) {
            @for tick in (0..).map(|number| f64::from(number) * every).take_while(|tick| *tick <= to) {
                span style=(format!("left:{:.2}%", place(tick))) { (format!("{tick:.0} s")) }
            }
        }
    }
}

/// Buckets over time: how many were in each, beyond those of the bucket below.
fn heat(named: &[Named<'_>], scene: &Scene, width: u32) -> Markup {
    let edge =
        |named: &Named<'_>| named.series.labels.get("le").and_then(|le| le.parse::<f64>().ok());
    let mut buckets: Vec<(f64, Vec<(f64, f64)>)> =
        named.iter().filter_map(|it| Some((edge(it)?, it.points(scene)))).collect();
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut below: BTreeMap<u64, f64> = BTreeMap::new();
    let mut bands = Vec::new();
    let mut most: f64 = 0.0;
    for (edge, points) in buckets {
        let mut cells = Vec::new();
        for (at, value) in points {
            let beyond = value - below.insert(at.to_bits(), value).unwrap_or(0.0);
            // Rates are not whole numbers, and their differences not quite nothing.
            let beyond = if beyond < NOTHING * value { 0.0 } else { beyond };
            most = most.max(beyond);
            cells.push((at, beyond));
        }
        bands.push((edge, cells));
    }
    bands.retain(|(_, cells)| cells.iter().any(|(_, value)| *value > 0.0));
    let step = named.first().map_or(0.0, |named| named.step);
    let painted = |(edge, cells): (f64, Vec<(f64, f64)>)| {
        let seen = cells.into_iter().filter(|(_, value)| *value > 0.0);
        let pieces = seen.map(|(at, value)| {
            let share = (0.25 + 0.75 * value / most).min(1.0);
            (at, at + step, String::new(), format!("rgb(37 99 201 / {share:.2})"))
        });
        Band { name: format!("≤ {}", unit::show("s", edge)), pieces: pieces.collect() }
    };
    // The longest stand above.
    let painted: Vec<Band> = bands.into_iter().rev().map(painted).collect();
    self::bands(scene, &painted, width, LINES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_legend_has_the_labels() {
        let labels = BTreeMap::from([("device".to_owned(), "d".to_owned())]);
        assert_eq!(fill("of {{device}}, {{ other }}", &labels), "of d, ");
        assert_eq!(super::labels(&labels), "d");
    }

    #[test]
    fn a_gap_parts_a_line() {
        let points = [(0.0, 1.0), (0.5, 1.0), (1.0, 2.0), (5.0, 2.0)];
        let lengths: Vec<usize> = parts(&points, 0.5).iter().map(Vec::len).collect();
        assert_eq!(lengths, [3, 1]);
    }

    #[test]
    fn a_step_holds_until_the_next() {
        assert_eq!(stairs(&[(0.0, 1.0), (1.0, 2.0)]), [(0.0, 1.0), (1.0, 1.0), (1.0, 2.0)]);
    }

    #[test]
    fn equal_values_are_one_piece() {
        let model = serde_json::json!({});
        let series = Series {
            points: vec![(0.0, 1.0), (0.5, 1.0), (1.0, 2.0), (9.0, 2.0)],
            ..Series::default()
        };
        let named = Named { name: "x".to_owned(), letter: "A", step: 0.5, series: &series };
        let scene = Scene { start: 0.0, span: (0.0, 10.0), marks: Vec::new() };
        let pieces = band(&named, &Paint::of(&model), &scene).pieces;
        let times: Vec<_> = pieces.iter().map(|(from, to, ..)| (*from, *to)).collect();
        assert_eq!(times, [(0.0, 1.0), (1.0, 1.5), (9.0, 9.5)]);
    }
}
