// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The page of one device: its session in time, and where the time went.
//!
//! ```text
//!   title
//!   chart     bytes moved and pending over time, by line and dots
//!   states    pre_copy───────────┃stop_and_copy──┃       on the same axis
//!   facts     transitions, downtime, dirty pages, latencies; in two columns where there is room, scrolled where there is not
//! ```

mod chart;
mod facts;

use super::{
    canvas::{Canvas, split_bottom, split_left, split_top},
    summary,
    theme::Theme,
};
use crate::top::model::{Contact, Model};
use ratatui::{layout::Rect, text::Line};

/// Width from which facts stand in two columns.
const TWO_COLUMNS: u16 = 76;
/// Least and greatest height of the chart.
const CHART: (u16, u16) = (7, 16);

pub(super) fn draw(model: &Model, theme: Theme, canvas: &mut Canvas<'_>) {
    let theme = Theme { stale: matches!(model.contact(), Contact::Gone { .. }), ..theme };
    let Some(row) = model.selected() else {
        return;
    };
    let area = canvas.area();
    canvas.text(0, 0, area.width, &"─".repeat(usize::from(area.width)), theme.dim());
    canvas.styled(2, 0, &summary::title(row, theme));
    let (_, rest) = split_top(area, 1);
    let Some(session) = &row.session else {
        canvas.text(1, 2, area.width, "no migration of this device is known", theme.dim());
        return;
    };
    let (least, most) = CHART;
    let chart_height = (rest.height / 3).clamp(least, most);
    // Without room for both, the facts say more.
    let chart_height = if rest.height >= least * 2 { chart_height } else { 0 };
    let (upper, lower) = split_top(rest, chart_height);
    chart::draw(session, model.timeline(), theme, &mut canvas.part(upper));
    let (left, right) = (facts::course(session, theme), facts::account(row, session, theme));
    if lower.width >= TWO_COLUMNS {
        let (left_area, right_area) = split_left(lower, lower.width / 2);
        draw_lines(&left, model.scroll(), theme, &mut canvas.part(left_area));
        draw_lines(&right, model.scroll(), theme, &mut canvas.part(right_area));
    } else {
        let all: Vec<_> = right.into_iter().chain(left).collect();
        draw_lines(&all, model.scroll(), theme, &mut canvas.part(lower));
    }
}

/// Draws lines from `scroll` on, but no further than their end.
fn draw_lines(lines: &[Line<'static>], scroll: usize, theme: Theme, canvas: &mut Canvas<'_>) {
    let room = usize::from(canvas.height());
    let first = scroll.min(lines.len().saturating_sub(room));
    for (y, line) in (0..canvas.height()).zip(lines.iter().skip(first)) {
        canvas.styled(1, y, line);
    }
    let hidden = lines.len().saturating_sub(first + room);
    if hidden > 0 && room > 0 {
        let area = canvas.area();
        let (_, last) = split_bottom(area, 1);
        let more = format!(" ↓ {hidden} more ");
        let width = u16::try_from(more.chars().count()).unwrap_or(0);
        let at = Rect { x: last.right().saturating_sub(width + 1).max(last.x), ..last };
        canvas.part(at).text(0, 0, width, &more, theme.bar());
    }
}
