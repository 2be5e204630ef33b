// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A part of the screen that is drawn into: places count from its corner, and what lies outside is not drawn.

use crate::top::printable::{cells, printable};
use ratatui::{buffer::Buffer, layout::Rect, style::Style, text::Line, widgets::Widget};

pub(super) struct Canvas<'a> {
    area: Rect,
    buffer: &'a mut Buffer,
}

/// The upper `height` lines, and the rest.
pub(super) fn split_top(area: Rect, height: u16) -> (Rect, Rect) {
    let height = height.min(area.height);
    let rest = Rect { y: area.y + height, height: area.height - height, ..area };
    (Rect { height, ..area }, rest)
}

/// What is above the lower `height` lines, and these.
pub(super) fn split_bottom(area: Rect, height: u16) -> (Rect, Rect) {
    split_top(area, area.height.saturating_sub(height))
}

/// The left `width` columns, and the rest.
pub(super) fn split_left(area: Rect, width: u16) -> (Rect, Rect) {
    let width = width.min(area.width);
    let rest = Rect { x: area.x + width, width: area.width - width, ..area };
    (Rect { width, ..area }, rest)
}

impl<'a> Canvas<'a> {
    pub(super) fn new(area: Rect, buffer: &'a mut Buffer) -> Self {
        Self { area: area.intersection(*buffer.area()), buffer }
    }

    /// A part of it; `area` is of the screen.
    pub(super) fn part(&mut self, area: Rect) -> Canvas<'_> {
        Canvas { area: area.intersection(self.area), buffer: self.buffer }
    }

    /// Where it lies on the screen.
    pub(super) fn area(&self) -> Rect {
        self.area
    }

    pub(super) fn width(&self) -> u16 {
        self.area.width
    }

    pub(super) fn height(&self) -> u16 {
        self.area.height
    }

    /// Makes an area empty and gives it a style.
    pub(super) fn fill(&mut self, area: Rect, style: Style) {
        let area = area.intersection(self.area);
        ratatui::widgets::Clear.render(area, self.buffer);
        self.buffer.set_style(area, style);
    }

    /// Gives a whole line a style.
    pub(super) fn line_style(&mut self, y: u16, style: Style) {
        let line = Rect { y: self.area.y.saturating_add(y), height: 1, ..self.area };
        self.buffer.set_style(line.intersection(self.area), style);
    }

    /// Writes `text` from `x` on into at most `width` cells. Gives the cells that it took.
    pub(super) fn text(&mut self, x: u16, y: u16, width: u16, text: &str, style: Style) -> u16 {
        if x >= self.area.width || y >= self.area.height {
            return 0;
        }
        let room = usize::from(width.min(self.area.width - x));
        let shown = printable(text, room);
        self.buffer.set_stringn(self.area.x + x, self.area.y + y, &shown, room, style);
        u16::try_from(cells(&shown)).unwrap_or(width)
    }

    /// The same, against the right edge of the `width` cells.
    pub(super) fn text_right(&mut self, x: u16, y: u16, width: u16, text: &str, style: Style) {
        let free = usize::from(width).saturating_sub(cells(text));
        let free = u16::try_from(free).unwrap_or(0);
        self.text(x.saturating_add(free), y, width - free.min(width), text, style);
    }

    /// Writes a line of styled, printable text.
    pub(super) fn styled(&mut self, x: u16, y: u16, line: &Line<'_>) {
        if x < self.area.width && y < self.area.height {
            let room = self.area.width - x;
            self.buffer.set_line(self.area.x + x, self.area.y + y, line, room);
            if line.width() > usize::from(room) {
                self.cut(self.area.y + y);
            }
        }
    }

    /// Marks a line whose end had no room.
    fn cut(&mut self, y: u16) {
        let last = self.area.right().saturating_sub(1);
        let before = self.buffer.cell((last.saturating_sub(1), y));
        // Half of a wide character would be left.
        let wide = last > self.area.x && before.is_some_and(|cell| cells(cell.symbol()) > 1);
        if wide && let Some(cell) = self.buffer.cell_mut((last - 1, y)) {
            cell.set_symbol(" ");
        }
        if let Some(cell) = self.buffer.cell_mut((last, y)) {
            cell.set_symbol("…");
        }
    }

    /// Draws a widget of ratatui into an area of the screen.
    pub(super) fn widget(&mut self, area: Rect, widget: impl Widget) {
        let area = area.intersection(self.area);
        if !area.is_empty() {
            widget.render(area, self.buffer);
        }
    }
}
