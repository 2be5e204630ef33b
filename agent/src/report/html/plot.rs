// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Plots: shapes as SVG that stretches, words as HTML that does not.
//!
//! ```text
//!   ┌ figure ──────────────────────────────┐
//!   │ title, legend                        │
//!   │  4 KiB ┌ svg, 1000 × 1000 units ───┐ │   The SVG is as wide as there is room, on a phone as on paper, and its lines stay
//!   │        │   ╱╲                      │ │   as thin as they are; words beside it keep their size. Colours are classes of the
//!   │  0     └───────────────────────────┘ │   style sheet, so that one page is dark and light.
//!   │        0 s         1 s         2 s   │
//!   └──────────────────────────────────────┘
//! ```
//!
//! Crates that draw charts write words, sizes and colours into the SVG, which is then too small on a phone and wrong in the dark.
//! Values that the pointer shows stand in a JSON block beside the SVG, already in words: the script makes none of its own.

use maud::{Markup, PreEscaped, html};
use serde::Serialize;

/// Units of the SVG in either direction.
const UNITS: f64 = 1000.0;

/// One axis.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// Places of 0 to 1, and what stands there.
    pub(super) ticks: Vec<(f64, String)>,
}

/// One point of a line.
#[derive(Clone, Debug)]
pub(super) struct Dot {
    /// Its place, 0 to 1 from the left.
    pub(super) x: f64,
    /// Its height, 0 to 1 from below; `None` is a gap.
    pub(super) y: Option<f64>,
    /// Where it is and how much it is, in words.
    pub(super) text: (String, String),
}

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    /// Which of the style sheet's colours, from 1.
    pub(super) colour: usize,
    pub(super) dots: Vec<Dot>,
    /// Whether a value holds until the next one.
    pub(super) steps: bool,
    pub(super) dashed: bool,
}

/// An area between two heights.
#[derive(Clone, Debug)]
pub(super) struct Band {
    pub(super) name: String,
    pub(super) colour: usize,
    /// Place, lower and upper end; each list is one area without a gap.
    pub(super) areas: Vec<Vec<(f64, f64, f64)>>,
}

/// A plot.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) note: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
    pub(super) bands: Vec<Band>,
    /// Parts of the ground that are told apart: from, to, and the name of a state.
    pub(super) grounds: Vec<(f64, f64, &'static str)>,
}

#[derive(Serialize)]
struct Tip<'a> {
    name: &'a str,
    colour: usize,
    dots: Vec<(f64, &'a str, &'a str)>,
}

impl Plot {
    /// The plot; nothing where there is no line.
    pub(super) fn show(&self) -> Markup {
        if self.lines.iter().all(|line| line.dots.iter().all(|dot| dot.y.is_none())) {
            return html! {};
        }
        html! {
            figure.plot {
                figcaption {
                    strong { (self.title) }
                    @if !self.note.is_empty() { " " span.note { (self.note) } }
                }
                (self.legend())
                div.frame {
                    div.ys aria-hidden="true" {
                        @for (place, text) in &self.y.ticks {
                            span style=(format!("bottom:{}", percent(*place))) { (text) }
                        }
                    }
                    div.area { (self.svg()) (self.tips()) }
                    div.xs aria-hidden="true" {
                        @for (place, text) in &self.x.ticks {
                            span style=(format!("left:{}", percent(*place))) { (text) }
                        }
                    }
                }
            }
        }
    }

    fn legend(&self) -> Markup {
        let many = self.lines.len() + self.bands.len() > 1;
        html! {
            @if many {
                ul.legend {
                    @for line in &self.lines {
                        li class=(format!("c{}", line.colour)) { i.dashed[line.dashed] {} (line.name) }
                    }
                    @for band in &self.bands {
                        li class=(format!("c{}", band.colour)) { i.band {} (band.name) }
                    }
                }
            }
        }
    }

    fn svg(&self) -> Markup {
        html! {
            svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 1000" preserveAspectRatio="none"
                role="img" aria-label=(self.title) {
                @for (from, to, state) in &self.grounds {
                    rect class=(format!("ground {state}")) x=(units(*from)) y="0" height="1000"
                        width=(units((to - from).max(0.0))) {}
                }
                @for (place, _) in &self.y.ticks {
                    line.grid x1="0" x2="1000" y1=(height(*place)) y2=(height(*place)) {}
                }
                @for (place, _) in &self.x.ticks {
                    line.grid y1="0" y2="1000" x1=(units(*place)) x2=(units(*place)) {}
                }
                @for band in &self.bands {
                    @for area in &band.areas {
                        path class=(format!("band c{}", band.colour)) d=(around(area)) {}
                    }
                }
                @for line in &self.lines {
                    path class=(format!("line c{}{}", line.colour, if line.dashed { " dashed" } else { "" }))
                        d=(line.path()) {}
                }
            }
        }
    }

    fn tips(&self) -> Markup {
        let tips: Vec<_> = self
            .lines
            .iter()
            .map(|line| Tip {
                name: &line.name,
                colour: line.colour,
                dots: line
                    .dots
                    .iter()
                    .filter(|dot| dot.y.is_some())
                    .map(|dot| (rounded(dot.x), dot.text.0.as_str(), dot.text.1.as_str()))
                    .collect(),
            })
            .collect();
        html! { script type="application/json" { (json(&tips)) } }
    }
}

impl Line {
    fn path(&self) -> String {
        let mut path = String::new();
        let mut before = None;
        for dot in &self.dots {
            let Some(y) = dot.y else {
                before = None;
                continue;
            };
            let (x, y) = (units(dot.x), height(y));
            match before {
                None => path.push_str(&format!("M{x} {y}")),
                Some(_) if self.steps => path.push_str(&format!("H{x}V{y}")),
                Some(_) => path.push_str(&format!("L{x} {y}")),
            }
            before = dot.y;
        }
        path
    }
}

/// A value as JSON that can stand in a script element: nothing in it can end the element or begin a comment.
pub(super) fn json<T: Serialize>(value: &T) -> Markup {
    let text = serde_json::to_string(value).unwrap_or_else(|_| "[]".to_owned());
    PreEscaped(text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"))
}

/// Places for `value` of `from` to `to`, all of them numbers of the same unit.
pub(super) fn place(value: u64, from: u64, to: u64) -> f64 {
    let whole = to.saturating_sub(from).max(1);
    value.saturating_sub(from).min(whole) as f64 / whole as f64
}

/// Round values from 0 up to `most` and not far above it, as few as can be read: the axis' end, and the values.
pub(super) fn round_steps(most: u64, binary: bool, at_most: u64) -> (u64, Vec<u64>) {
    let most = most.max(1);
    let mut step = 1_u64;
    // 1, 2, 4, 8, … for bytes; 1, 2, 5, 10, 20, 50, … for all else.
    let mut factors = if binary { [2, 2, 2] } else { [2, 5, 10] }.into_iter().cycle();
    let mut decade = 1_u64;
    while most.div_ceil(step) > at_most {
        let factor = factors.next().unwrap_or(2);
        let next = if binary { step.checked_mul(2) } else { decade.checked_mul(factor) };
        let Some(next) = next else { return (u64::MAX, vec![0]) };
        step = next;
        if factor == 10 {
            decade = next;
        }
    }
    let count = most.div_ceil(step);
    let end = step.saturating_mul(count);
    (end, (0..=count).map(|number| step.saturating_mul(number)).collect())
}

fn around(area: &[(f64, f64, f64)]) -> String {
    let there = area.iter().map(|(x, _, high)| format!("{} {}", units(*x), height(*high)));
    let back = area.iter().rev().map(|(x, low, _)| format!("{} {}", units(*x), height(*low)));
    let corners: Vec<_> = there.chain(back).collect();
    if corners.is_empty() { String::new() } else { format!("M{}Z", corners.join("L")) }
}

/// A place as the SVG counts it.
fn units(place: f64) -> String {
    format!("{:.1}", place * UNITS)
}

/// A height as the SVG counts it, from above.
fn height(place: f64) -> String {
    units(1.0 - place)
}

pub(super) fn percent(place: f64) -> String {
    format!("{:.2}%", place * 100.0)
}

fn rounded(place: f64) -> f64 {
    (place * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn axes_have_round_numbers() {
        assert_eq!(round_steps(9, false, 5), (10, vec![0, 2, 4, 6, 8, 10]));
        assert_eq!(round_steps(2_400_000_000, false, 5).0, 2_500_000_000);
        assert_eq!(round_steps(4279, true, 5), (5120, vec![0, 1024, 2048, 3072, 4096, 5120]));
        assert_eq!(round_steps(0, true, 5), (1, vec![0, 1]));
    }

    #[test]
    fn a_gap_is_no_line_and_a_step_holds_its_value() {
        let dot = |x, y| Dot { x, y, text: Default::default() };
        let dots =
            vec![dot(0.0, Some(0.5)), dot(0.2, Some(1.0)), dot(0.4, None), dot(0.6, Some(0.0))];
        let mut line = Line { name: String::new(), colour: 1, dots, steps: false, dashed: false };
        assert_eq!(line.path(), "M0.0 500.0L200.0 0.0M600.0 1000.0");
        line.steps = true;
        assert_eq!(line.path(), "M0.0 500.0H200.0V0.0M600.0 1000.0");
    }

    #[test]
    fn json_cannot_leave_its_element() {
        assert_eq!(json(&"</script><!--&").0, "\"\\u003c/script\\u003e\\u003c!--\\u0026\"");
    }

    proptest! {
        #[test]
        fn an_axis_holds_its_largest_value_and_few_ticks(most in any::<u64>(), binary: bool) {
            let (end, ticks) = round_steps(most, binary, 5);
            prop_assert!(end >= most);
            prop_assert!(ticks.len() <= 6 && ticks.is_sorted());
        }
    }
}
