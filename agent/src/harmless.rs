// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Text from outside, for terminals, pages and readers of lines.
//!
//! ```text
//!   /proc, recordings, answers of other agents ──▶ as it is ──▶ labels, JSON, the recording
//!                                              └──▶ harmless ──▶ terminal, HTML
//! ```
//!
//! The name of a machine comes from the command line of somebody's process, a recording from anybody. What they hold is not to move the cursor,
//! begin a line, turn the order of the text around, or hide in it: each such character is shown as U+FFFD. Formats that are read by programs
//! have escapes of their own and keep the text as it is.

use std::borrow::Cow;

/// Stands for a character that would do something.
pub const REPLACED: char = '\u{fffd}';

/// Whether somebody takes `char` for more than a character to show: a control, an end of a line, a change of direction, or what is not
/// seen at all, the two joiners among it, which have a meaning in some scripts and hide in all others.
pub const fn acts(char: char) -> bool {
    // Letters, digits and most of what is written, first.
    if matches!(char, ' '..='~') {
        return false;
    }
    matches!(
        char,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            // U+2028 and U+2029 end a line and a paragraph; behind them are the changes of direction.
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            // Tags: a text that nothing shows.
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// `text` on one line, with U+FFFD for each character that acts.
pub fn harmless(text: &str) -> Cow<'_, str> {
    replaced(text, acts)
}

/// The same for text of several lines, which are ours.
pub fn harmless_lines(text: &str) -> Cow<'_, str> {
    replaced(text, |char| acts(char) && char != '\n')
}

fn replaced(text: &str, bad: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().any(&bad) {
        text.chars().map(|char| if bad(char) { REPLACED } else { char }).collect()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_can_neither_drive_the_terminal_nor_begin_a_line() {
        assert_eq!(harmless("a\x1b[31mb\r\n\u{202e}c\u{9b}2J"), "a�[31mb���c�2J");
        assert_eq!(harmless("a\u{2028}b\u{2029}c\u{85}d\u{b}e"), "a�b�c�d�e");
        assert_eq!(harmless("a\u{200b}\u{feff}\u{2066}\u{e0041}b"), "a����b", "nor hide");
        assert_eq!(harmless_lines("a\nb\u{2028}"), "a\nb�");
    }

    #[test]
    fn what_is_only_shown_stays_as_it_is() {
        for text in ["", "0000:00:10.0", "straße 日本", "ال", "e\u{301}", "→ ✔ …"] {
            assert!(matches!(harmless(text), Cow::Borrowed(same) if same == text), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_acts_is_left(text in any::<String>()) {
            let shown = harmless(&text);
            prop_assert!(!shown.chars().any(|char| acts(char) || char.is_control()));
            prop_assert_eq!(shown.chars().count(), text.chars().count());
            prop_assert!(shown.lines().count() <= 1);
        }
    }
}
