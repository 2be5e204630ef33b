// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A session in time: bytes moved and pending, and below them, on the same axis, the states.

use super::super::{
    canvas::{Canvas, split_bottom, split_top},
    theme::Theme,
};
use crate::{
    session::{report::Report, timeline::Point},
    top::{
        printable::{cells, printable},
        units::{bytes, duration},
    },
};
use ratatui::{
    symbols::Marker,
    widgets::{Axis, Chart, Dataset, GraphType},
};

/// Cells at the left of the chart: labels of at most five, and the axis.
const AXIS: u16 = 6;

#[expect(clippy::cast_precision_loss, reason = "a cell is coarser than a byte")]
pub(super) fn draw(
    session: &Report,
    timeline: Option<&[Point]>,
    theme: Theme,
    canvas: &mut Canvas<'_>,
) {
    let (upper, last) = split_bottom(canvas.area(), 1);
    let end_ns = session.duration_ns.max(1);
    draw_states(session, end_ns, theme, &mut canvas.part(last));
    let (first, upper) = split_top(upper, 1);
    let points = timeline.unwrap_or_default();
    legend(timeline, theme, &mut canvas.part(first));
    if points.is_empty() {
        return;
    }
    let began_ns = session.began_monotonic_ns;
    let series = |of: fn(&Point) -> Option<u64>| -> Vec<(f64, f64)> {
        let point = |point: &Point| {
            let at_ns = point.at_monotonic_ns.saturating_sub(began_ns);
            of(point).map(|bytes| (at_ns as f64, bytes as f64))
        };
        points.iter().filter_map(point).collect()
    };
    let sent = series(|point| point.data_bytes);
    let pending = series(|point| point.pending_bytes);
    let most = points.iter().flat_map(|point| [point.data_bytes, point.pending_bytes]);
    let most = most.flatten().max().unwrap_or(0).max(1);
    let label = |bytes: String| format!("{bytes:>5}");
    let line = |marker, data, style| {
        Dataset::default().marker(marker).graph_type(GraphType::Line).style(style).data(data)
    };
    // What waits is drawn over what was moved.
    let lines = vec![
        line(Marker::Braille, &sent[..], theme.sent()),
        line(Marker::Dot, &pending[..], theme.pending()),
    ];
    let chart = Chart::new(lines)
        .style(theme.data())
        .legend_position(None)
        .x_axis(Axis::default().bounds([0.0, end_ns as f64]).style(theme.dim()))
        .y_axis(
            Axis::default()
                .bounds([0.0, most as f64])
                .labels([label("0".into()), label(bytes(most))])
                .style(theme.dim()),
        );
    canvas.widget(upper, chart);
}

fn legend(timeline: Option<&[Point]>, theme: Theme, canvas: &mut Canvas<'_>) {
    let width = canvas.width();
    canvas.text_right(0, 0, AXIS - 1, "bytes", theme.label());
    match timeline {
        None => {
            let text = "the points of this session have not come yet";
            canvas.text(AXIS, 0, width, text, theme.dim());
        }
        Some([]) => {
            canvas.text(AXIS, 0, width, "no points of this session are known", theme.dim());
        }
        Some(_) => {
            let x = AXIS + canvas.text(AXIS, 0, width, "⠤⠤ moved", theme.sent());
            canvas.text(x + 3, 0, width, "•• pending", theme.pending());
        }
    }
}

/// The states as stretches of one line; each has its name, if it is long enough, and begins with a mark.
fn draw_states(session: &Report, end_ns: u64, theme: Theme, canvas: &mut Canvas<'_>) {
    let time = duration(session.duration_ns);
    let time_width = u16::try_from(cells(&time)).unwrap_or(0);
    canvas.text_right(0, 0, AXIS - 1, "state", theme.label());
    let width = canvas.width().saturating_sub(AXIS + 1 + time_width);
    let taken: Vec<_> =
        session.transitions.iter().filter(|change| change.result != "refused").collect();
    let ends = taken.iter().skip(1).map(|change| Some(change.at_monotonic_ns));
    let ends = ends.chain([session.ended_monotonic_ns]);
    for (change, end) in taken.iter().zip(ends) {
        let place = |at_ns: u64| {
            let since_ns = at_ns.saturating_sub(session.began_monotonic_ns).min(end_ns);
            let cell = u128::from(since_ns) * u128::from(width) / u128::from(end_ns);
            u16::try_from(cell).unwrap_or(width)
        };
        let from = place(change.at_monotonic_ns);
        let to = end.map_or(width, place);
        let length = usize::from(to.saturating_sub(from));
        let name = printable(&change.now, length.saturating_sub(2));
        let name = if cells(&change.now) + 2 <= length { name } else { String::new() };
        let rest = "─".repeat(length.saturating_sub(cells(&name) + 1));
        let text = if length > 0 { format!("┃{name}{rest}") } else { String::new() };
        canvas.text(AXIS + from, 0, to.saturating_sub(from), &text, theme.state(&change.now));
    }
    canvas.text(AXIS + width + 1, 0, time_width, &time, theme.data());
}
