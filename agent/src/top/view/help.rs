// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The page about the keys and the columns.

use super::{canvas::Canvas, theme::Theme};

const KEYS: [(&str, &str); 14] = [
    ("↑ ↓  k j", "select a device"),
    ("PgUp PgDn g G", "a screenful, first, last"),
    ("Enter F3", "the page of the device"),
    ("/ F4", "filter by text in the line"),
    ("F5 t", "group by machine"),
    ("F6 > <", "order by the next column"),
    ("I", "the other way round"),
    ("Space", "tag: keep it at the top"),
    ("U", "untag all"),
    ("p", "pause, or go on"),
    ("Ctrl-L", "draw anew"),
    ("Ctrl-Z", "back to the shell"),
    ("F1 h ?", "this page"),
    ("q Esc F10", "back, quit"),
];

const TERMS: [(&str, &str); 9] = [
    ("?", "unknown, which is not 0"),
    ("-", "does not apply"),
    ("K M G T", "1024 bytes, 1024² …"),
    ("PROGRESS", "moved / (moved + pending)"),
    ("DATA/s", "device data moved"),
    ("DIRTY/s", "memory told dirty"),
    ("PENDING", "what the device last told"),
    ("VERDICT", "will it end, how it ended"),
    ("·····", "in bars: unknown"),
];

pub(super) fn draw(theme: Theme, canvas: &mut Canvas<'_>) {
    let side_by_side = canvas.width() >= 80;
    let second = if side_by_side { 46 } else { 1 };
    canvas.text(1, 1, canvas.width(), "Keys", theme.strong());
    let mut y = 2;
    for (key, meaning) in KEYS {
        canvas.text(1, y, 14, key, theme.label());
        canvas.text(16, y, 30, meaning, theme.data());
        y += 1;
    }
    let mut y = if side_by_side { 1 } else { y + 1 };
    canvas.text(second, y, canvas.width(), "On the screen", theme.strong());
    for (term, meaning) in TERMS {
        y += 1;
        canvas.text(second, y, 8, term, theme.label());
        canvas.text(second + 9, y, 32, meaning, theme.data());
    }
}
