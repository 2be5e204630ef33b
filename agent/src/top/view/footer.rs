// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The last line: the keys, or the filter while it is typed.

use super::{canvas::Canvas, theme::Theme};
use crate::top::{input::Mode, model::Model, printable::cells};

/// Lines that it takes.
pub(super) const HEIGHT: u16 = 1;

pub(super) fn draw(model: &Model, theme: Theme, canvas: &mut Canvas<'_>) {
    if model.mode() == Mode::Filter {
        let width = canvas.width();
        let used = canvas.text(0, 0, width, "Enter", theme.strong());
        let used = used + canvas.text(used, 0, width, "Keep ", theme.bar());
        let used = used + canvas.text(used, 0, width, "Esc", theme.strong());
        let used = used + canvas.text(used, 0, width, "Clear ", theme.bar());
        let used = used + canvas.text(used, 0, width, " Filter: ", theme.label());
        let used = used + canvas.text(used, 0, width, model.filter(), theme.strong());
        canvas.text(used, 0, width, "▏", theme.strong());
        return;
    }
    let pause = if model.is_paused() { "Go on" } else { "Pause" };
    let keys: &[(&str, &str)] = match model.mode() {
        Mode::Help => &[("Esc", "Back"), ("F10", "Quit")],
        Mode::Detail => {
            &[("F1", "Help"), ("Esc", "Back"), ("↑↓", "Scroll"), ("p", pause), ("F10", "Quit")]
        }
        Mode::Table | Mode::Filter => &[
            ("F1", "Help"),
            ("F3", "Detail"),
            ("F4", "Filter"),
            ("F5", if model.is_tree() { "List" } else { "Tree" }),
            ("F6", "Sort"),
            ("F10", "Quit"),
            ("Spc", "Tag"),
            ("p", pause),
        ],
    };
    let mut x = 0;
    for (key, meaning) in keys {
        let meaning = format!("{meaning:<7}");
        let width = canvas.width();
        if usize::from(x) + cells(key) + cells(&meaning) > usize::from(width) {
            break;
        }
        x += canvas.text(x, 0, width, key, theme.strong());
        x += canvas.text(x, 0, width, &meaning, theme.bar());
    }
}
