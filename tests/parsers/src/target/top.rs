// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What an agent answers to `migscope top`, which may be another program, or an agent of another version on somebody else's host. The
//! input is JSON, then a zero byte, then the size of the screen and keys.
//!
//! Held against it: nothing of it reaches the terminal that a terminal would obey, and a line stays a line.

use crate::{Seed, pieces::Pieces, printed, target::ring};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use migscope::{
    session::timeline::Point,
    snapshot::Snapshot,
    top::{
        input::action,
        model::{Model, Update},
        plain::Plain,
        view::{self, theme::Theme},
    },
};
use ratatui::{buffer::Buffer, layout::Rect};
use std::time::{Duration, SystemTime};

/// Keys that are pressed; the screen is drawn after each.
const KEYS: usize = 12;

/// Shows an answer.
///
/// # Panics
///
/// When something is wrong.
pub fn run(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let (json, controls) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Ok(snapshot) = serde_json::from_slice::<Snapshot>(json) else {
        // A session's timeline is asked for by itself.
        let _ = serde_json::from_slice::<Vec<Point>>(json);
        return;
    };
    let again = serde_json::to_vec(&snapshot).expect("a snapshot is JSON");
    serde_json::from_slice::<Snapshot>(&again).expect("what top writes it reads");
    let mut controls = Pieces(controls);
    let (width, height) = (u16::from(controls.u8()), u16::from(controls.u8() % 128));
    let theme = Theme { colours: controls.u8() % 2 == 0, stale: false };
    let mut model = Model::new("agent");
    let timeline = timeline(&snapshot);
    let mut earlier = snapshot.clone();
    earlier.monotonic_ns = earlier.monotonic_ns.saturating_sub(500_000_000);
    model.updated(Update { snapshot: earlier, timeline: None });
    model.updated(Update { snapshot, timeline });
    draw(&model, theme, width, height);
    for _ in 0..KEYS {
        if controls.is_empty() {
            break;
        }
        if let Some(action) = action(key(controls.u8()), model.mode()) {
            let _ = model.act(action, view::page(height));
        }
        draw(&model, theme, width, height);
    }
    model.missed("gone", clock());
    draw(&model, theme, width, height);
    for line in Plain::default().lines(model.rows(), clock()) {
        assert!(!line.contains('\n'), "{line:?}");
        printed::hold(&line);
    }
}

fn clock() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_388_568)
}

/// Points for the first session, out of its own numbers.
fn timeline(snapshot: &Snapshot) -> Option<(u64, Vec<Point>)> {
    let session = snapshot.sessions.first()?;
    let point = |transition: &migscope::session::report::TransitionReport| Point {
        at_monotonic_ns: transition.at_monotonic_ns,
        state: migscope::state::State::PreCopy,
        edge: true,
        data_bytes: session.figures.data_bytes,
        iterations: session.figures.iterations,
        pending_bytes: session.figures.pending_bytes,
        dirty_bytes: Some(transition.duration_ns),
        dma_to_memory_bytes: None,
        estimated_remaining_ns: Some(transition.duration_ns),
        estimated_downtime_ns: None,
    };
    Some((session.id, session.transitions.iter().map(point).collect()))
}

fn key(byte: u8) -> KeyEvent {
    let code = match byte {
        0 => KeyCode::Enter,
        1 => KeyCode::Esc,
        2 => KeyCode::Down,
        3 => KeyCode::Up,
        4 => KeyCode::PageDown,
        5 => KeyCode::PageUp,
        6 => KeyCode::End,
        7 => KeyCode::Backspace,
        _ => KeyCode::Char(char::from(byte)),
    };
    KeyEvent::new(code, KeyModifiers::NONE)
}

fn draw(model: &Model, theme: Theme, width: u16, height: u16) {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    view::render(model, clock(), theme, area, &mut buffer);
    for cell in buffer.content() {
        let symbol = cell.symbol();
        assert!(!symbol.chars().any(char::is_control), "{symbol:?}");
    }
}

/// What agents say that have seen the scripts of `ring`, and one in whose machines' names there is more than text.
pub fn seeds() -> Vec<Seed> {
    let controls = [0, 80, 24, 0, 2, 0, b'h', b'q', b'q', b't', b'/', b'w', 7, 0];
    let json = |seed: &Seed| {
        let played = ring::Played::of(&seed.bytes);
        let snapshot = Snapshot::of(&played.observer, played.latest_ns);
        serde_json::to_string(&snapshot).expect("a snapshot is JSON")
    };
    let all = |text: String| [text.as_bytes(), &controls[..]].concat();
    let mut seeds: Vec<_> =
        ring::seeds().iter().map(|seed| Seed::new(seed.name, all(json(seed)))).collect();
    let rude = ring::seeds().first().map(json).unwrap_or_default();
    let rude = rude.replace("\"web\"", "\"\\u001b[2J\\u202e\\r\\n\\u2028a\\u0300\\u0300\"");
    seeds.push(Seed::new("rude-name", all(rude)));
    seeds
}
