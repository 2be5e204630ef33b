// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Text from outside, made fit for a terminal.
//!
//! The name of a machine comes from the command line of somebody's process. What it holds is not to move the cursor, change a colour,
//! turn the line around or shift the columns after it: an escape sequence is shown as the characters that it is made of.

use crate::harmless::{REPLACED, acts};
use unicode_width::UnicodeWidthChar as _;

/// Stands for what had no room.
const CUT: char = '…';
/// Most characters that are looked at for each cell: marks without a width of their own come in any number.
const CHARS_PER_CELL: usize = 8;

/// At most `cells` cells of `text`. Control characters become U+FFFD, marks without a width are left out, and what is cut off ends
/// with `…`.
pub fn printable(text: &str, cells: usize) -> String {
    let mut shown = String::new();
    let mut width = 0;
    // Where the text must end to have room for the mark of the cut.
    let mut last_fit = 0;
    for (index, char) in text.chars().enumerate() {
        let (char, char_width) = cell(char);
        if width + char_width > cells || index >= cells.saturating_mul(CHARS_PER_CELL) {
            shown.truncate(last_fit);
            if cells > 0 {
                shown.push(CUT);
            }
            return shown;
        }
        if char_width > 0 {
            shown.push(char);
        }
        width += char_width;
        if width < cells {
            last_fit = shown.len();
        }
    }
    shown
}

/// How many cells `text` takes once it is printable.
pub fn cells(text: &str) -> usize {
    text.chars().map(|char| cell(char).1).fold(0, usize::saturating_add)
}

/// The character to show, and its width in cells.
fn cell(char: char) -> (char, usize) {
    match char.width() {
        Some(width) if !acts(char) => (char, width),
        // What hides takes no room either.
        Some(0) => (char, 0),
        _ => (REPLACED, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_escape_sequence_is_shown_and_not_done() {
        assert_eq!(printable("a\x1b[31mb", 20), "a\u{fffd}[31mb");
        assert_eq!(printable("a\r\nb\tc\x07", 20), "a\u{fffd}\u{fffd}b\u{fffd}c\u{fffd}");
        assert_eq!(printable("a\u{9b}2Jb", 20), "a\u{fffd}2Jb", "the C1 form of an escape");
    }

    #[test]
    fn nothing_turns_the_line_around_or_hides_in_it() {
        assert_eq!(printable("a\u{202e}b\u{2066}c\u{200b}d\u{feff}", 20), "abcd");
        assert_eq!(printable("a\u{2028}b", 20), "a\u{fffd}b");
    }

    #[test]
    fn what_has_no_room_is_cut_and_told_so() {
        assert_eq!(printable("0000:00:10.0", 12), "0000:00:10.0");
        assert_eq!(printable("0000:00:10.0", 6), "0000:…");
        assert_eq!(printable("web", 1), "…");
        assert_eq!(printable("web", 0), "");
    }

    #[test]
    fn a_wide_character_takes_two_cells_and_is_never_halved() {
        assert_eq!(printable("日本語", 6), "日本語");
        assert_eq!(printable("日本語", 5), "日本…");
        assert_eq!(printable("日本語", 4), "日…");
        assert_eq!(cells("日本"), 4);
    }

    #[test]
    fn a_heap_of_marks_is_bounded() {
        let heap = "a".to_owned() + &"\u{301}".repeat(100_000);
        assert_eq!(printable(&heap, 4), "a…");
    }

    proptest! {
        #[test]
        fn no_text_is_wider_than_its_room_or_holds_a_control(text in any::<String>(), room in 0_usize..40) {
            let shown = printable(&text, room);
            prop_assert!(cells(&shown) <= room);
            prop_assert!(!shown.chars().any(char::is_control));
        }
    }
}
