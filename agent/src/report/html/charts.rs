// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The plots of one session.

use super::plot::{Axis, Band, Dot, Line, Plot, place, round_steps};
use crate::report::{
    model::{Detail, Latency, RateWindow},
    prediction::{Prediction, Said},
    units::{bytes, count, rate, time},
};
use crate::session::timeline::Point;

/// Ticks on an axis, and one more.
const TICKS: u64 = 5;
/// A forecast of hours would make a plot of seconds flat: what is beyond so many times the session is beyond the plot.
const TIMES: u64 = 4;
/// Latencies that are drawn; the table has them all.
const CURVES: usize = 8;

/// The time of a session, from left to right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
}

impl Span {
    pub(super) fn of(detail: &Detail) -> Self {
        let from_ns = detail.report.began_monotonic_ns;
        Self { from_ns, to_ns: from_ns.saturating_add(detail.report.duration_ns) }
    }

    pub(super) fn place(self, at_ns: u64) -> f64 {
        place(at_ns, self.from_ns, self.to_ns)
    }

    fn text(self, at_ns: u64) -> String {
        format!("+{}", time(at_ns.saturating_sub(self.from_ns)))
    }

    fn axis(self) -> Axis {
        let whole_ns = self.to_ns.saturating_sub(self.from_ns);
        let (_, steps) = round_steps(whole_ns, false, TICKS);
        // The last round value lies beyond the end.
        let ticks = steps.into_iter().filter(|ns| *ns <= whole_ns);
        Axis { ticks: ticks.map(|ns| (place(ns, 0, whole_ns), tick(ns, time))).collect() }
    }

    fn grounds(self, detail: &Detail) -> Vec<(f64, f64, &'static str)> {
        let ground = |stay: &crate::report::model::Stay| {
            (self.place(stay.from_ns), self.place(stay.to_ns), stay.state)
        };
        detail.states.iter().map(ground).collect()
    }
}

/// A round value: without the zeros behind the point, and nothing is nothing in every unit.
fn tick(value: u64, show: fn(u64) -> String) -> String {
    let text = show(value);
    match text.split_once(' ') {
        _ if value == 0 => "0".to_owned(),
        Some((number, unit)) if number.contains('.') => {
            format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

/// An axis from 0 to a round value above `most`, and that value.
fn upwards(most: u64, binary: bool, show: fn(u64) -> String) -> (Axis, u64) {
    let (end, steps) = round_steps(most, binary, TICKS);
    (
        Axis {
            ticks: steps
                .into_iter()
                .map(|value| (place(value, 0, end), tick(value, show)))
                .collect(),
        },
        end,
    )
}

struct Series<'a> {
    name: &'a str,
    colour: usize,
    values: Vec<(u64, Option<u64>)>,
    steps: bool,
    dashed: bool,
}

/// From below to above: in equal steps from 0, or in equal ratios.
#[derive(Clone, Copy, Debug)]
enum Scale {
    Linear { end: u64 },
    Logarithmic { from: f64, to: f64 },
}

impl Scale {
    fn place(self, value: u64) -> f64 {
        match self {
            Self::Linear { end } => place(value, 0, end),
            // 0 has no logarithm; it lies at the bottom.
            Self::Logarithmic { .. } if value == 0 => 0.0,
            Self::Logarithmic { from, to } => ((value as f64).log2() - from) / (to - from),
        }
    }

    /// Equal ratios between powers of 16, which are round in bytes, from `least` to `most`; neither is 0.
    fn logarithmic(least: u64, most: u64, show: fn(u64) -> String) -> (Self, Axis) {
        let (from, to) = (least.ilog2() / 4 * 4, (most.ilog2() / 4 + 1) * 4);
        let scale = Self::Logarithmic { from: f64::from(from), to: f64::from(to) };
        let mut exponents: Vec<_> = (from..=to.min(63)).step_by(4).collect();
        while exponents.len() > 7 {
            exponents = exponents.into_iter().step_by(2).collect();
        }
        let ticks = exponents.into_iter().map(|exponent| 1 << exponent);
        (
            scale,
            Axis { ticks: ticks.map(|value| (scale.place(value), tick(value, show))).collect() },
        )
    }
}

/// The least and the most that a series has above 0.
fn extent(series: &Series<'_>) -> Option<(u64, u64)> {
    let known = || series.values.iter().filter_map(|(_, value)| *value).filter(|value| *value > 0);
    known().min().zip(known().max())
}

/// Series whose largest values differ by more than this are drawn in equal ratios, or one of them would be a line along the ground.
const APART: u64 = 20;

fn over_time(
    title: &str,
    mut note: String,
    detail: &Detail,
    series: Vec<Series<'_>>,
    (binary, show): (bool, fn(u64) -> String),
) -> Plot {
    let span = Span::of(detail);
    let extents: Vec<_> = series.iter().filter_map(extent).collect();
    let most = extents.iter().map(|(_, most)| *most).max().unwrap_or(0);
    let smallest_most = extents.iter().map(|(_, most)| *most).min().unwrap_or(0);
    let least = extents.iter().map(|(least, _)| *least).min().unwrap_or(0);
    let (scale, y) = if binary && least > 0 && most / APART > smallest_most {
        note = if note.is_empty() {
            "logarithmic, 0 at the bottom".to_owned()
        } else {
            format!("{note}; logarithmic, 0 at the bottom")
        };
        Scale::logarithmic(least, most, show)
    } else {
        let (y, end) = upwards(most, binary, show);
        (Scale::Linear { end }, y)
    };
    let line = |series: Series<'_>| Line {
        name: series.name.to_owned(),
        colour: series.colour,
        steps: series.steps,
        dashed: series.dashed,
        dots: series
            .values
            .into_iter()
            .map(|(at_ns, value)| Dot {
                x: span.place(at_ns),
                y: value.map(|value| scale.place(value)),
                text: (span.text(at_ns), value.map(show).unwrap_or_default()),
            })
            .collect(),
    };
    Plot {
        title: title.to_owned(),
        note,
        x: span.axis(),
        y,
        // What is not known at all has no line.
        lines: series
            .into_iter()
            .filter(|series| series.values.iter().any(|(_, value)| value.is_some()))
            .map(line)
            .collect(),
        bands: Vec::new(),
        grounds: span.grounds(detail),
    }
}

fn of_points(detail: &Detail, of: fn(&Point) -> Option<u64>) -> Vec<(u64, Option<u64>)> {
    detail.timeline.iter().map(|point| (point.at_monotonic_ns, of(point))).collect()
}

/// Bytes pending, moved and dirtied.
pub(super) fn amounts(detail: &Detail) -> Plot {
    let moved = if detail.report.role == "source" { "sent" } else { "taken in" };
    let series = vec![
        Series {
            name: "pending, as last told",
            colour: 2,
            values: of_points(detail, |point| point.pending_bytes),
            steps: true,
            dashed: false,
        },
        Series {
            name: moved,
            colour: 1,
            values: of_points(detail, |point| point.data_bytes),
            steps: true,
            dashed: false,
        },
    ];
    over_time("Pending and moved device data", String::new(), detail, series, (true, bytes))
}

/// Memory that was reported dirty, added up.
pub(super) fn dirtied(detail: &Detail) -> Plot {
    let series = vec![Series {
        name: "reported dirty",
        colour: 5,
        values: of_points(detail, |point| point.dirty_bytes),
        steps: true,
        dashed: false,
    }];
    let note = "added up; a page counts each time it is reported".to_owned();
    over_time("Memory reported dirty", note, detail, series, (true, bytes))
}

/// Dirty rate against throughput.
pub(super) fn rates(detail: &Detail) -> Plot {
    // A rate holds for its whole window: the value stands at both of its ends.
    let values = |of: fn(&RateWindow) -> Option<u64>| {
        let ends = |window: &RateWindow| [(window.from_ns, of(window)), (window.to_ns, of(window))];
        detail.rates.windows.iter().flat_map(ends).collect()
    };
    let series = vec![
        Series {
            name: "throughput of device data",
            colour: 1,
            values: values(|window| window.throughput_bytes_per_second),
            steps: true,
            dashed: false,
        },
        Series {
            name: "dirty rate",
            colour: 5,
            values: values(|window| window.dirty_bytes_per_second),
            steps: true,
            dashed: false,
        },
    ];
    let note = format!("over windows of {} or a little more", time(detail.rates.window_ns));
    over_time("Dirty rate and throughput", note, detail, series, (true, rate))
}

/// Buffers, added up.
pub(super) fn iterations(detail: &Detail) -> Plot {
    let series = vec![Series {
        name: "buffers",
        colour: 3,
        values: of_points(detail, |point| point.iterations),
        steps: true,
        dashed: false,
    }];
    over_time(
        "Iterations",
        "buffers of device data, added up".into(),
        detail,
        series,
        (false, count),
    )
}

/// What was foretold to be left, and what was.
pub(super) fn prediction(detail: &Detail, prediction: &Prediction) -> Plot {
    let values = |of: fn(&Said) -> Option<u64>| {
        prediction.said.iter().map(|said| (said.at_ns, of(said))).collect::<Vec<_>>()
    };
    let mut series = Vec::new();
    for (name, colour, of, dashed) in [
        ("truth", 6, (|said| said.truth_ns) as fn(&Said) -> Option<u64>, true),
        ("foretold", 1, |said| said.expected_ns, false),
        ("QEMU's formula", 2, |said| said.qemu_ns, false),
        ("KubeVirt's", 3, |said| said.kubevirt_ns, false),
        ("geometric model", 4, |said| said.geometric_ns, false),
    ] {
        let mut values = values(of);
        if name != "truth" {
            let limit = detail.report.duration_ns.saturating_mul(TIMES);
            for (_, value) in &mut values {
                *value = value.filter(|ns| *ns <= limit);
            }
        }
        series.push(Series { name, colour, values, steps: false, dashed });
    }
    let beyond = prediction
        .said
        .iter()
        .flat_map(|said| [said.expected_ns, said.qemu_ns, said.kubevirt_ns, said.geometric_ns]);
    let limit = detail.report.duration_ns.saturating_mul(TIMES);
    let mut note = "time until the end, foretold at each moment".to_owned();
    if beyond.flatten().any(|ns| ns > limit) {
        note.push_str(&format!("; what is more than {TIMES} times the session lies above"));
    }
    let mut plot = over_time("Prediction and outcome", note, detail, series, (false, time));
    let most = plot.lines.iter().flat_map(|line| &line.dots).count();
    if most > 0 {
        plot.bands.extend(band(detail, prediction));
    }
    plot
}

fn band(detail: &Detail, prediction: &Prediction) -> Option<Band> {
    let span = Span::of(detail);
    let limit = detail.report.duration_ns.saturating_mul(TIMES);
    let all = prediction.said.iter();
    let shown = all.clone().flat_map(|said| {
        [said.truth_ns, said.expected_ns, said.qemu_ns, said.kubevirt_ns, said.geometric_ns]
    });
    let most = shown.flatten().filter(|ns| *ns <= limit).max()?;
    let (_, end) = upwards(most, false, time);
    let mut areas = vec![Vec::new()];
    for said in all {
        match (said.low_ns, said.high_ns) {
            (Some(low), Some(high)) => {
                let corner = (span.place(said.at_ns), place(low, 0, end), place(high, 0, end));
                areas.last_mut()?.push(corner);
            }
            _ => areas.push(Vec::new()),
        }
    }
    areas.retain(|area: &Vec<_>| area.len() > 1);
    (!areas.is_empty()).then(|| Band { name: "8 of 10 end here".into(), colour: 1, areas })
}

/// Latencies by quantile, as HdrHistogram's plots have them: each step to the right leaves half as many above.
pub(super) fn latencies(detail: &Detail) -> Plot {
    let mut series: Vec<&Latency> = detail.latencies.series.iter().collect();
    series.sort_by_key(|series| std::cmp::Reverse(series.count));
    series.truncate(CURVES);
    let curves = || series.iter().flat_map(|series| &series.curve);
    let halvings = |share: f64| -(1.0 - share).log2();
    let widest = curves().map(|(share, _)| halvings(*share)).filter(|x| x.is_finite());
    let whole = widest.fold(1.0, f64::max) + 1.0;
    let (least, most) =
        curves().fold((u64::MAX, 1), |(least, most), (_, ns)| (least.min(*ns), most.max(*ns)));
    let (from, to) = (f64::from(least.max(1).ilog10()), (most as f64).log10().ceil().max(1.0));
    let to = to.max(from + 1.0);
    let height = |ns: u64| ((ns.max(1) as f64).log10() - from) / (to - from);
    let ticks = (least.max(1).ilog10()..=19)
        .map(|decade| 10_u64.pow(decade))
        .map(|ns| (height(ns), tick(ns, time)))
        .take_while(|(place, _)| *place <= 1.0 + f64::EPSILON)
        .collect();
    let shares = [
        (0.0, "0 %"),
        (0.5, "50 %"),
        (0.9, "90 %"),
        (0.99, "99 %"),
        (0.999, "99.9 %"),
        (0.9999, "99.99 %"),
        (0.99999, "99.999 %"),
    ];
    let mut x: Vec<_> = shares
        .into_iter()
        .map(|(share, text)| (halvings(share) / whole, text.to_owned()))
        .filter(|(place, _)| *place < 0.93)
        .collect();
    x.push((1.0, "max".to_owned()));
    let line = |(number, series): (usize, &&Latency)| Line {
        name: series.what.clone(),
        colour: number % CURVES + 1,
        steps: true,
        dashed: number >= CURVES,
        dots: series
            .curve
            .iter()
            .map(|(share, ns)| Dot {
                x: if *share < 1.0 { halvings(*share) / whole } else { 1.0 },
                y: Some(height(*ns)),
                text: (named(*share), time(*ns)),
            })
            .collect(),
    };
    Plot {
        title: "Latencies by percentile".to_owned(),
        note: match detail.latencies.series.len() {
            all if all > CURVES => format!("the {CURVES} most frequent of {all}"),
            _ => String::new(),
        },
        x: Axis { ticks: x },
        y: Axis { ticks },
        lines: series.iter().enumerate().map(line).collect(),
        bands: Vec::new(),
        grounds: Vec::new(),
    }
}

fn named(share: f64) -> String {
    if share < 1.0 {
        format!("{:.4} % are no longer than", share * 100.0)
    } else {
        "all are no longer than".to_owned()
    }
}
