// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a key means: the keys of htop, as far as there is something to do with them.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What the keys go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The table.
    Table,
    /// The page of one device.
    Detail,
    /// The page about the keys.
    Help,
    /// The filter, which is being typed.
    Filter,
}

/// What the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The line so many places further down; negative: up.
    Move(isize),
    /// A screenful down or up.
    Page(isize),
    /// The first line.
    First,
    /// The last line.
    Last,
    /// The page of the device, or back.
    Detail,
    /// The page about the keys, or back.
    Help,
    /// Back to where this was opened from.
    Back,
    /// Group the devices by their machines, or not.
    Tree,
    /// The next order, or the one before.
    Sort(bool),
    /// The order the other way round.
    Reverse,
    /// Begin to type a filter.
    Filter,
    /// A character of the filter.
    Type(char),
    /// Take the last character of the filter away.
    Erase,
    /// The filter stands.
    Accept,
    /// Away with the filter.
    Clear,
    /// Show what is there now and nothing newer, or go on.
    Pause,
    /// Keep this device at the top, or no longer.
    Tag,
    /// No device is kept at the top.
    UntagAll,
    /// Draw everything anew.
    Redraw,
    /// Let the shell have the terminal.
    Suspend,
    /// The end.
    Quit,
}

/// What `key` means in `mode`.
pub fn action(key: KeyEvent, mode: Mode) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Action::Quit),
            KeyCode::Char('z') => Some(Action::Suspend),
            KeyCode::Char('l') => Some(Action::Redraw),
            KeyCode::Char('h') if mode == Mode::Filter => Some(Action::Erase),
            KeyCode::Char('u') if mode == Mode::Filter => Some(Action::Clear),
            _ => None,
        };
    }
    if key.code == KeyCode::F(10) {
        return Some(Action::Quit);
    }
    match mode {
        Mode::Filter => typed(key.code),
        Mode::Help => match key.code {
            KeyCode::Char('q' | 'h' | '?') | KeyCode::Esc | KeyCode::Enter | KeyCode::F(1) => {
                Some(Action::Back)
            }
            _ => None,
        },
        Mode::Detail => match key.code {
            KeyCode::Char('q') | KeyCode::Esc | KeyCode::Enter | KeyCode::F(3) => {
                Some(Action::Back)
            }
            code => common(code),
        },
        Mode::Table => match key.code {
            KeyCode::Char('q') | KeyCode::Esc => Some(Action::Quit),
            KeyCode::Enter | KeyCode::F(3) => Some(Action::Detail),
            KeyCode::F(5) | KeyCode::Char('t') => Some(Action::Tree),
            KeyCode::F(6) | KeyCode::Char('>' | '.') => Some(Action::Sort(true)),
            KeyCode::Char('<' | ',') => Some(Action::Sort(false)),
            KeyCode::Char('I') => Some(Action::Reverse),
            KeyCode::F(4) | KeyCode::Char('/' | '\\') => Some(Action::Filter),
            KeyCode::Char(' ') => Some(Action::Tag),
            KeyCode::Char('U') => Some(Action::UntagAll),
            code => common(code),
        },
    }
}

/// The keys of the table and of the page of a device.
fn common(code: KeyCode) -> Option<Action> {
    match code {
        KeyCode::Up | KeyCode::Char('k') => Some(Action::Move(-1)),
        KeyCode::Down | KeyCode::Char('j') => Some(Action::Move(1)),
        KeyCode::PageUp => Some(Action::Page(-1)),
        KeyCode::PageDown => Some(Action::Page(1)),
        KeyCode::Home | KeyCode::Char('g') => Some(Action::First),
        KeyCode::End | KeyCode::Char('G') => Some(Action::Last),
        KeyCode::F(1) | KeyCode::Char('h' | '?') => Some(Action::Help),
        KeyCode::Char('p') => Some(Action::Pause),
        _ => None,
    }
}

fn typed(code: KeyCode) -> Option<Action> {
    match code {
        KeyCode::Enter => Some(Action::Accept),
        KeyCode::Esc => Some(Action::Clear),
        KeyCode::Backspace => Some(Action::Erase),
        KeyCode::Up => Some(Action::Move(-1)),
        KeyCode::Down => Some(Action::Move(1)),
        KeyCode::Char(char) => Some(Action::Type(char)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(code: KeyCode, mode: Mode) -> Option<Action> {
        action(KeyEvent::new(code, KeyModifiers::NONE), mode)
    }

    #[test]
    fn escape_goes_back_and_from_the_table_out() {
        assert_eq!(plain(KeyCode::Esc, Mode::Table), Some(Action::Quit));
        assert_eq!(plain(KeyCode::Esc, Mode::Detail), Some(Action::Back));
        assert_eq!(plain(KeyCode::Esc, Mode::Help), Some(Action::Back));
        assert_eq!(plain(KeyCode::Esc, Mode::Filter), Some(Action::Clear));
    }

    #[test]
    fn f10_and_interrupt_end_it_everywhere() {
        for mode in [Mode::Table, Mode::Detail, Mode::Help, Mode::Filter] {
            assert_eq!(plain(KeyCode::F(10), mode), Some(Action::Quit));
            let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
            assert_eq!(action(interrupt, mode), Some(Action::Quit));
        }
    }

    #[test]
    fn a_letter_in_the_filter_is_a_letter() {
        for letter in ['q', 'p', 'h', '/', ' ', '<'] {
            assert_eq!(plain(KeyCode::Char(letter), Mode::Filter), Some(Action::Type(letter)));
        }
    }

    #[test]
    fn a_key_that_is_let_go_does_nothing() {
        let mut key = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        key.kind = KeyEventKind::Release;
        assert_eq!(action(key, Mode::Table), None);
    }
}
