// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The screen, drawn from the model into a buffer; nothing here touches a terminal.
//!
//! ```text
//!   ┌ header  ─ where the data comes from, probes, losses ┐
//!   │ table   ─ a line a device                           │   or, instead of table and summary:
//!   │ summary ─ the selected device, where there is room  │   the page of one device, or of the keys
//!   └ footer  ─ keys, or the filter that is typed         ┘
//! ```
//!
//! Any size is good: what has no room is left out, from the least important on. States are told by words; colours only repeat them.

mod canvas;
mod detail;
mod footer;
mod header;
mod help;
mod marks;
mod summary;
mod table;
pub mod theme;

use super::{input::Mode, model::Model};
use canvas::Canvas;
use ratatui::{buffer::Buffer, layout::Rect};
use std::time::SystemTime;
use theme::Theme;

/// Least height at which the table and a summary both have room.
const SUMMARY_FROM_HEIGHT: u16 = 16;

/// Lines of `height` that the table has for devices: a screenful.
pub fn page(height: u16) -> usize {
    usize::from(height.saturating_sub(header::HEIGHT + footer::HEIGHT + 1))
}

/// Draws `model` as it stands at `clock`.
pub fn render(model: &Model, clock: SystemTime, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let area = area.intersection(*buffer.area());
    let mut canvas = Canvas::new(area, buffer);
    canvas.fill(area, theme.plain());
    let (top, rest) = canvas::split_top(area, header::HEIGHT);
    let (middle, bottom) = canvas::split_bottom(rest, footer::HEIGHT);
    header::draw(model, clock, theme, &mut canvas.part(top));
    footer::draw(model, theme, &mut canvas.part(bottom));
    match model.mode() {
        Mode::Help => help::draw(theme, &mut canvas.part(middle)),
        Mode::Detail => detail::draw(model, theme, &mut canvas.part(middle)),
        Mode::Table | Mode::Filter => {
            let wanted = if area.height >= SUMMARY_FROM_HEIGHT { summary::HEIGHT } else { 0 };
            let (lines, below) = canvas::split_bottom(middle, wanted);
            table::draw(model, theme, &mut canvas.part(lines));
            summary::draw(model, theme, &mut canvas.part(below));
        }
    }
}
