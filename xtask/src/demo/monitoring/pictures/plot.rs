// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Lines over time, as SVG.

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::unit::Written;

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(0x5b, 0x65, 0x70);
const GRID: RGBColor = RGBColor(0xe8, 0xeb, 0xee);
const RULE: RGBColor = RGBColor(0xc5, 0xcc, 0xd3);
/// Room above the largest value, as a share.
const HEADROOM: f64 = 0.08;

/// One line; each part of it is without a gap.
pub(super) struct Line {
    pub(super) colour: String,
    pub(super) parts: Vec<Vec<(f64, f64)>>,
}

/// One bar: from when to when, and from where to where.
pub(super) struct Bar {
    pub(super) colour: String,
    pub(super) time: (f64, f64),
    pub(super) height: (f64, f64),
}

/// All that is in one plot.
pub(super) struct Plot<'a> {
    pub(super) size: (u32, u32),
    /// Time, in seconds.
    pub(super) span: (f64, f64),
    pub(super) unit: &'a str,
    pub(super) lines: Vec<Line>,
    pub(super) bars: Vec<Bar>,
    /// Moments that are marked.
    pub(super) marks: &'a [f64],
    /// How much of the ground below a line has its colour, as a share.
    pub(super) fill: f64,
}

impl Plot<'_> {
    /// The SVG.
    pub(super) fn draw(&self) -> Result<String> {
        let mut text = String::new();
        {
            let root = SVGBackend::with_string(&mut text, self.size).into_drawing_area();
            self.draw_on(&root).map_err(|error| anyhow!("failed to draw a plot: {error}"))?;
        }
        Ok(text)
    }

    fn draw_on<DB: DrawingBackend>(
        &self,
        root: &DrawingArea<DB, plotters::coord::Shift>,
    ) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
        let points = self.lines.iter().flat_map(|line| line.parts.iter().flatten());
        let tops = self.bars.iter().map(|bar| bar.height.1);
        let values: Vec<f64> = points.map(|(_, value)| *value).chain(tops).collect();
        let most = values.iter().copied().fold(0.0, f64::max);
        let least = values.iter().copied().fold(0.0, f64::min);
        let written = Written::of(self.unit, most.max(-least));
        let (low, high) = (least / written.divisor, most / written.divisor);
        let room = if high > low { (high - low) * HEADROOM } else { 1.0 };
        let low = if low < 0.0 { low - room } else { low };
        let mut chart = ChartBuilder::on(root)
            .margin_top(8)
            .margin_right(14)
            .x_label_area_size(20)
            .y_label_area_size(68)
            .build_cartesian_2d(self.span.0..self.span.1, low..high + room)?;
        let ink = |horizontal, vertical| {
            TextStyle::from((FONT, 12).into_font()).color(&INK).pos(Pos::new(horizontal, vertical))
        };
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(RULE)
            .x_labels(8)
            .y_labels(5)
            .x_label_style(ink(HPos::Center, VPos::Top))
            .y_label_style(ink(HPos::Right, VPos::Center))
            .x_label_formatter(&|second| format!("{second:.0} s"))
            .y_label_formatter(&|value| written.show(value * written.divisor))
            .draw()?;
        for &mark in self.marks {
            let ends = [(mark, low), (mark, high + room)];
            chart.draw_series(DashedLineSeries::new(ends, 3, 3, RULE.stroke_width(1)))?;
        }
        for Bar { colour, time, height } in &self.bars {
            let corners = [
                (time.0.max(self.span.0), height.0 / written.divisor),
                (time.1.min(self.span.1), height.1 / written.divisor),
            ];
            chart.draw_series([Rectangle::new(corners, rgb(colour).mix(0.8).filled())])?;
        }
        for Line { colour, parts } in &self.lines {
            let colour = rgb(colour);
            for part in parts {
                let part: Vec<_> =
                    part.iter().map(|(at, value)| (*at, value / written.divisor)).collect();
                if let [only] = part.as_slice() {
                    chart.draw_series([Circle::new(*only, 2, colour.filled())])?;
                } else {
                    if self.fill > 0.0 {
                        let ground = colour.mix(self.fill);
                        chart.draw_series(AreaSeries::new(part.clone(), 0.0, ground))?;
                    }
                    chart.draw_series(LineSeries::new(part, colour.stroke_width(2)))?;
                }
            }
        }
        root.present()
    }
}

/// `#rrggbb`; black for what is not.
fn rgb(colour: &str) -> RGBColor {
    let number =
        |at: usize| colour.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    match (number(1), number(3), number(5)) {
        (Some(red), Some(green), Some(blue)) => RGBColor(red, green, blue),
        _ => BLACK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(lines: Vec<Line>) -> String {
        let plot = Plot {
            size: (400, 200),
            span: (0.0, 60.0),
            unit: "bytes",
            lines,
            bars: vec![Bar { colour: "#1f8552".to_owned(), time: (0.0, 5.0), height: (0.0, 1e6) }],
            marks: &[30.0],
            fill: 0.1,
        };
        plot.draw().unwrap()
    }

    #[test]
    fn a_line_has_axes_in_its_unit() {
        let parts = vec![vec![(0.0, 0.0), (10.0, 3e6)], vec![(20.0, 1e6)]];
        let svg = plot(vec![Line { colour: "#2563c9".to_owned(), parts }]);
        assert!(svg.contains("2 MiB") && svg.contains("40 s"), "{svg}");
        assert!(svg.contains("#2563C9"), "{svg}");
    }

    #[test]
    fn nothing_is_a_plot_too() {
        assert!(plot(Vec::new()).contains("</svg>"));
    }
}
