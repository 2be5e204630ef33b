// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What may be written to a terminal: whatever a machine calls itself, it does not move the cursor, begin a line or turn one around.

use migscope::harmless::acts;

/// Holds that `text` has nothing in it that is more than text, but ends of lines and our own colours (SGR, `ESC [ … m`).
///
/// # Panics
///
/// When there is.
pub fn hold(text: &str) {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        hold_plain(before);
        let colour = after.strip_prefix('[').and_then(|after| after.split_once('m'));
        let is_colour = |code: &str| code.bytes().all(|byte| byte.is_ascii_digit() || byte == b';');
        let Some((_, after)) = colour.filter(|(code, _)| is_colour(code)) else {
            panic!("an escape sequence that is no colour: {:?}", rest.get(before.len()..));
        };
        rest = after;
    }
    hold_plain(rest);
}

fn hold_plain(text: &str) {
    let bad = text.chars().find(|letter| acts(*letter) && *letter != '\n');
    assert!(bad.is_none(), "a character that acts, {bad:?}, in {text:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_ours_and_nothing_else_is() {
        hold("a\n\u{1b}[1;31mred\u{1b}[0m");
        for bad in ["a\u{1b}[2J", "\u{1b}[31", "\r", "\u{9b}2J", "\u{7}", "\u{2028}", "\u{202e}"] {
            assert!(std::panic::catch_unwind(|| hold(bad)).is_err(), "{bad:?}");
        }
    }
}
