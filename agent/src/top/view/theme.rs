// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Colours: the eight that every terminal has, in the shades that its user chose, or none (<https://no-color.org>).
//!
//! What is told by a colour is told by a word as well.

use ratatui::style::{Color, Modifier, Style};

/// With colours or without; grey while what is shown is old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Whether there are colours.
    pub colours: bool,
    /// Whether the source is gone and what is shown is old.
    pub stale: bool,
}

impl Theme {
    /// The theme for this value of the variable `NO_COLOR`: any but the empty one takes the colours away.
    pub fn for_no_color(value: Option<&std::ffi::OsStr>) -> Self {
        Self { colours: value.is_none_or(std::ffi::OsStr::is_empty), stale: false }
    }

    fn colour(self, colour: Color) -> Style {
        if self.stale {
            return self.dim();
        }
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    pub(super) fn plain(self) -> Style {
        Style::reset()
    }

    /// What is of little interest, and what is old.
    pub(super) fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Of data: dim once it is old.
    pub(super) fn data(self) -> Style {
        if self.stale { self.dim() } else { Style::new() }
    }

    pub(super) fn strong(self) -> Style {
        self.data().add_modifier(Modifier::BOLD)
    }

    /// The line at the top and the heads of the columns.
    pub(super) fn bar(self) -> Style {
        if self.colours {
            Style::new().fg(Color::Black).bg(Color::Cyan)
        } else {
            Style::new().add_modifier(Modifier::REVERSED)
        }
    }

    /// The head of the column that orders the lines, and what was typed.
    pub(super) fn bar_strong(self) -> Style {
        self.bar().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
    }

    pub(super) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// A name of a number.
    pub(super) fn label(self) -> Style {
        self.colour(Color::Cyan)
    }

    pub(super) fn good(self) -> Style {
        self.colour(Color::Green)
    }

    pub(super) fn warning(self) -> Style {
        self.colour(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    pub(super) fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Data that was moved, in bars and charts.
    pub(super) fn sent(self) -> Style {
        self.colour(Color::Green)
    }

    /// Data that is pending, in charts.
    pub(super) fn pending(self) -> Style {
        self.colour(Color::Yellow)
    }

    /// The colour of a state of a device.
    pub(super) fn state(self, state: &str) -> Style {
        match state {
            "running" | "running_p2p" => self.colour(Color::Green),
            "pre_copy" | "pre_copy_p2p" => self.colour(Color::Yellow),
            "stop_and_copy" => self.colour(Color::Magenta).add_modifier(Modifier::BOLD),
            "resuming" => self.colour(Color::Blue).add_modifier(Modifier::BOLD),
            "error" => self.bad(),
            "stopped" => self.data(),
            _ => self.dim(),
        }
    }

    /// The colour of a verdict or of the result of a session.
    pub(super) fn verdict(self, verdict: &str) -> Style {
        match verdict {
            "completed" | "converging" => self.good(),
            "cancelled" | "unknown" => self.data(),
            "failed" | "device_error" => self.bad(),
            _ => self.warning(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_takes_the_colours_unless_it_is_empty() {
        for (value, colours) in
            [(None, true), (Some(""), true), (Some("1"), false), (Some("0"), false)]
        {
            assert_eq!(Theme::for_no_color(value.map(AsRef::as_ref)).colours, colours, "{value:?}");
        }
    }

    #[test]
    fn without_colours_no_style_has_one() {
        let theme = Theme { colours: false, stale: false };
        for style in [theme.bar(), theme.bad(), theme.state("error"), theme.sent(), theme.label()] {
            assert_eq!((style.fg, style.bg), (None, None));
        }
    }
}
