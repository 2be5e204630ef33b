// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Text in columns, bars and lines, for a terminal of some width.

use crate::harmless::harmless;
use anstyle::{AnsiColor, Style};
use std::fmt::Write as _;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

pub(super) const BOLD: Style = Style::new().bold();
pub(super) const DIM: Style = Style::new().dimmed();
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
pub(super) const OPEN: Style = AnsiColor::Yellow.on_default();
pub(super) const BAD: Style = AnsiColor::Red.on_default();

/// Text in a style. The escape sequences are taken out again where they do not belong ([`anstream`]).
pub(super) fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Text that came from outside: what a terminal would act on, or what ends a line, turns the order of the text or hides in it, becomes �.
pub(super) fn clean(text: &str) -> String {
    harmless(text).into_owned()
}

/// Columns that text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// Breaks text between words, so that no line is wider than `columns`; a word that is wider has a line of its own.
pub(super) fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if width(line) + 1 + width(word) <= columns {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// The beginning of the text that fits into `columns`, with … where something was cut.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut taken = 0;
    for c in text.chars() {
        taken += c.width().unwrap_or(0);
        if taken + 1 > columns {
            break;
        }
        shown.push(c);
    }
    shown.push('…');
    shown
}

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Rows whose columns stand below each other.
#[derive(Debug, Default)]
pub(super) struct Table {
    sides: Vec<Side>,
    rows: Vec<(Style, Vec<String>)>,
}

impl Table {
    pub(super) fn new(sides: &[Side]) -> Self {
        Self { sides: sides.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.styled_row(Style::new(), cells);
    }

    pub(super) fn styled_row<T: Into<String>>(
        &mut self,
        style: Style,
        cells: impl IntoIterator<Item = T>,
    ) {
        self.rows.push((style, cells.into_iter().map(Into::into).collect()));
    }

    /// The rows, `indent` columns from the left, none wider than `columns`.
    pub(super) fn lines(&self, indent: usize, columns: usize) -> Vec<String> {
        let mut widths = vec![0; self.sides.len()];
        for (_, cells) in &self.rows {
            for (widest, cell) in widths.iter_mut().zip(cells) {
                *widest = width(cell).max(*widest);
            }
        }
        let line = |(style, cells): &(Style, Vec<String>)| {
            let mut line = " ".repeat(indent);
            for ((cell, widest), side) in cells.iter().zip(&widths).zip(&self.sides) {
                let gap = " ".repeat(widest.saturating_sub(width(cell)));
                match side {
                    Side::Left => line.extend([cell.as_str(), &gap, "  "]),
                    Side::Right => line.extend([&gap, cell.as_str(), "  "]),
                }
            }
            styled_line(*style, &cut(line.trim_end(), columns))
        };
        self.rows.iter().map(line).collect()
    }
}

fn styled_line(style: Style, line: &str) -> String {
    if style == Style::new() { line.to_owned() } else { styled(style, line) }
}

/// A bar from `from` to `to` on a line that stands for 0 to `whole`, `columns` wide. It is at least one column, or it would be lost.
pub(super) fn span(from: u64, to: u64, whole: u64, columns: usize, block: char) -> String {
    let place = |at: u64| {
        let columns = u128::try_from(columns).unwrap_or(0);
        let place = (u128::from(at.min(whole)) * columns + u128::from(whole) / 2)
            / u128::from(whole.max(1));
        usize::try_from(place).unwrap_or(0)
    };
    let begin = place(from).min(columns.saturating_sub(1));
    let end = place(to).max(begin + 1);
    let mut line = String::new();
    for column in 0..end {
        line.push(if column < begin { ' ' } else { block });
    }
    line
}

/// One character a value, as high as the value is, from 0 to the largest; `·` where there is none.
pub(super) fn sparkline(values: &[Option<u64>]) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let largest = values.iter().flatten().max().copied().unwrap_or(0);
    let height = |value: u64| {
        let step = (u128::from(value) * 7).div_ceil(u128::from(largest.max(1)));
        let place = usize::try_from(step).unwrap_or(0).min(7);
        HEIGHTS.get(place).copied().unwrap_or('█')
    };
    values.iter().map(|value| value.map_or('·', height)).collect()
}

/// Adds lines.
pub(super) fn put(text: &mut String, lines: impl IntoIterator<Item = String>) {
    for line in lines {
        writeln!(text, "{line}").expect("a string takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        assert_eq!(clean("a\x1b[31mb\r\n\u{202e}c\u{9b}2J"), "a�[31mb���c�2J");
        assert_eq!(clean("straße 日本"), "straße 日本");
    }

    #[test]
    fn columns_stand_below_each_other_also_under_wide_letters() {
        let mut table = Table::new(&[Side::Left, Side::Right]);
        table.row(["日本", "1"]);
        table.row(["a", "100"]);
        assert_eq!(table.lines(1, 80), [" 日本    1", " a     100"]);
        assert_eq!(table.lines(1, 5), [" 日…", " a  …"]);
    }

    #[test]
    fn sparklines_keep_zero_apart_from_unknown() {
        assert_eq!(sparkline(&[Some(0), None, Some(1), Some(700), Some(u64::MAX)]), "▁·▂▂█");
        assert_eq!(sparkline(&[Some(0)]), "▁");
    }

    #[test]
    fn a_span_is_seen_however_short_it_is() {
        assert_eq!(span(50, 50, 100, 10, '█'), "     █");
        assert_eq!(span(100, 100, 100, 10, '█'), "         █");
        assert_eq!(span(0, 100, 100, 4, '█'), "████");
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_the_terminal(
            text in "\\PC{0,60}",
            columns in 2_usize..40,
            from in any::<u64>(),
            to in any::<u64>(),
            whole in any::<u64>(),
        ) {
            prop_assert!(width(&cut(&clean(&text), columns)) <= columns);
            prop_assert!(width(&span(from, to, whole, columns, '█')) <= columns);
            let widest = text.split_whitespace().map(width).max().unwrap_or(0);
            for line in wrapped(&text, columns) {
                prop_assert!(width(&line) <= columns.max(widest));
            }
        }
    }
}
