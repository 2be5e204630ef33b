// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The screens of `migscope top`, drawn into a buffer and held against what is in `tests/top`.
//!
//! `MIGSCOPE_BLESS=1` writes what is drawn; look at the difference before you keep it.

use crossterm::event::KeyEvent;
use migscope::{
    session::timeline::Point,
    snapshot::Snapshot,
    top::{
        input::{Action, action},
        model::{Model, Outcome, Update},
        view::{self, theme::Theme},
    },
};
use proptest::prelude::*;
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    style::{Color, Modifier},
};
use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

/// 2026-11-22 23:02:48Z.
const CLOCK: Duration = Duration::from_secs(1_795_388_568);
const COLOURED: Theme = Theme { colours: true, stale: false };

fn clock() -> SystemTime {
    SystemTime::UNIX_EPOCH + CLOCK
}

fn snapshot() -> Snapshot {
    serde_json::from_str(include_str!("top/snapshot.json")).expect("a snapshot")
}

fn timeline() -> Vec<Point> {
    serde_json::from_str(include_str!("top/timeline.json")).expect("points")
}

/// A minute of polls, in which the sessions that are under way go on.
fn model() -> Model {
    let mut model = Model::new("agent http://127.0.0.1:10477");
    let last = snapshot();
    for poll in 0..40_u64 {
        let mut then = last.clone();
        let ago = 39 - poll;
        then.monotonic_ns -= ago * 500_000_000;
        for session in then.devices.iter_mut().filter_map(|device| device.session.as_mut()) {
            let step = 60_000_000 + 12_000_000 * ((poll * poll) % 7);
            let figures = &mut session.figures;
            figures.data_bytes = figures.data_bytes.map(|bytes| bytes.saturating_sub(ago * step));
            if let Some(dirty) = &mut figures.dirty {
                dirty.queries.bitmap = dirty.queries.bitmap.saturating_sub(ago);
                dirty.bytes = dirty.bytes.saturating_sub(ago * 9_000_000);
            }
        }
        model.updated(Update { snapshot: then, timeline: Some((1, timeline())) });
    }
    model
}

fn draw(model: &Model, theme: Theme, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a buffer");
    let drawn = terminal.draw(|frame| {
        let area = frame.area();
        view::render(model, clock(), theme, area, frame.buffer_mut());
    });
    drawn.expect("drawn").buffer.clone()
}

fn text(buffer: &Buffer) -> String {
    let area = buffer.area();
    let mut text = String::new();
    for y in 0..area.height {
        let mut line = String::new();
        let mut x = 0;
        while x < area.width {
            let symbol = buffer[(x, y)].symbol();
            line += symbol;
            x += u16::try_from(migscope::top::printable::cells(symbol)).expect("narrow").max(1);
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn hold(name: &str, model: &Model) {
    for (width, height) in [(60, 20), (80, 24), (160, 50)] {
        let drawn = text(&draw(model, COLOURED, width, height));
        let file = format!("{name}-{width}x{height}.txt");
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/top").join(&file);
        if std::env::var_os("MIGSCOPE_BLESS").is_some() {
            std::fs::write(&path, &drawn).expect("written");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == drawn, "{file} is another:\n{drawn}\nit was:\n{kept}");
    }
}

fn with(actions: &[Action]) -> Model {
    let mut model = model();
    for action in actions {
        assert_eq!(model.act(*action, 10), Outcome::Draw);
    }
    model.updated(Update { snapshot: snapshot(), timeline: Some((1, timeline())) });
    model
}

#[test]
fn the_table_is_as_it_was() {
    hold("table", &model());
}

#[test]
fn the_tree_is_as_it_was() {
    hold("tree", &with(&[Action::Tree, Action::Move(3), Action::Tag, Action::Move(1)]));
}

#[test]
fn the_page_of_a_device_is_as_it_was() {
    hold("detail", &with(&[Action::Move(3), Action::Detail]));
}

#[test]
fn the_page_of_a_migration_under_way_is_as_it_was() {
    hold("live", &with(&[Action::Move(2), Action::Detail]));
}

#[test]
fn the_help_is_as_it_was() {
    hold("help", &with(&[Action::Help]));
}

#[test]
fn the_filter_and_a_lost_agent_are_as_they_were() {
    let mut model = with(&[Action::Pause, Action::Filter]);
    for char in "web".chars() {
        model.act(Action::Type(char), 10);
    }
    model.missed("it refused the connection", clock() - Duration::from_secs(75));
    hold("gone", &model);
}

#[test]
fn before_the_first_answer_there_is_something_to_read() {
    hold("waiting", &Model::new("agent http://127.0.0.1:10477"));
}

#[test]
fn what_is_old_is_grey() {
    let mut model = model();
    let state = |model: &Model| {
        let buffer = draw(model, COLOURED, 80, 24);
        // The second device, whose line is not reversed.
        let x = (0..80).find(|x| buffer[(*x, 4)].symbol() == "r").expect("resuming");
        (buffer[(x, 4)].fg, buffer[(x, 4)].modifier.contains(Modifier::DIM))
    };
    assert_eq!(state(&model), (Color::Blue, false));
    model.missed("gone", clock());
    assert_eq!(state(&model), (Color::Reset, true));
}

#[test]
fn without_colours_there_are_none_and_the_words_are_the_same() {
    let model = model();
    let coloured = draw(&model, COLOURED, 80, 24);
    let plain = draw(&model, Theme { colours: false, stale: false }, 80, 24);
    assert_eq!(text(&coloured), text(&plain));
    assert!(coloured.content().iter().any(|cell| cell.fg != Color::Reset));
    assert!(plain.content().iter().all(|cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset)));
}

#[test]
fn only_the_colours_that_every_terminal_has_are_used() {
    for model in [model(), with(&[Action::Move(2), Action::Detail])] {
        for cell in draw(&model, COLOURED, 160, 50).content() {
            for colour in [cell.fg, cell.bg] {
                assert!(!matches!(colour, Color::Rgb(..) | Color::Indexed(_)), "{colour:?}");
            }
        }
    }
}

#[test]
fn the_selection_can_be_seen_without_colours() {
    let buffer = draw(&model(), Theme { colours: false, stale: false }, 80, 24);
    assert_eq!(buffer[(0, 3)].symbol(), "›");
    assert!(buffer[(5, 3)].modifier.contains(Modifier::REVERSED));
    assert!(!buffer[(5, 4)].modifier.contains(Modifier::REVERSED));
}

#[test]
fn no_text_from_outside_reaches_the_terminal_as_a_command() {
    let hostile = "\u{1b}[2J\u{9b}31m\u{202e}\u{7}\r\n\t日本\u{301}\u{301}\u{200b}".repeat(40);
    let mut bad = snapshot();
    bad.version = hostile.clone().into();
    for probe in &mut bad.probes {
        probe.attached = false;
        probe.name = hostile.clone().into();
    }
    for device in &mut bad.devices {
        device.device += &hostile;
        device.state = Some(hostile.clone().into());
        device.info.vm = hostile.clone();
        device.info.driver = hostile.clone();
        device.info.vm_uuid = hostile.clone();
        if let Some(session) = &mut device.session {
            session.role = hostile.clone().into();
            session.protocol = hostile.clone().into();
            for change in &mut session.transitions {
                change.from = hostile.clone().into();
                change.to = hostile.clone().into();
                change.now = hostile.clone().into();
                change.cause = hostile.clone().into();
            }
            session.states_ns = [(hostile.clone().into(), 5)].into();
        }
    }
    for migration in &mut bad.migrations {
        migration.role = hostile.clone().into();
        migration.vm = Some(hostile.clone());
    }
    for actions in [&[][..], &[Action::Tree], &[Action::Detail]] {
        let mut model = Model::new(hostile.clone());
        model.updated(Update { snapshot: bad.clone(), timeline: None });
        for action in actions {
            model.act(*action, 10);
        }
        for (width, height) in [(60, 20), (80, 24), (160, 50)] {
            for cell in draw(&model, COLOURED, width, height).content() {
                let good = |char: char| !char.is_control() && !"\u{202e}\u{200b}".contains(char);
                assert!(cell.symbol().chars().all(good), "{:?}", cell.symbol());
            }
        }
        model.missed(hostile.clone(), clock());
        let gone = draw(&model, COLOURED, 160, 50);
        assert!(gone.content().iter().all(|cell| !cell.symbol().contains(char::is_control)));
    }
}

fn keys() -> impl Strategy<Value = KeyEvent> {
    use crossterm::event::{KeyCode, KeyModifiers};
    let code = prop_oneof![
        any::<char>().prop_map(KeyCode::Char),
        proptest::sample::select("jkgGtpIU <>/h?".chars().collect::<Vec<_>>())
            .prop_map(KeyCode::Char),
        (1_u8..=12).prop_map(KeyCode::F),
        Just(KeyCode::Enter),
        Just(KeyCode::Esc),
        Just(KeyCode::Backspace),
        Just(KeyCode::Up),
        Just(KeyCode::PageDown),
        Just(KeyCode::End),
    ];
    code.prop_map(|code| KeyEvent::new(code, KeyModifiers::NONE))
}

/// A snapshot with any numbers and any texts in it, and with devices in any order and number.
fn snapshots() -> impl Strategy<Value = Snapshot> {
    let number = || prop_oneof![Just(0), 0_u64..100_000_000_000_000, any::<u64>()];
    let device = (
        0_usize..8,
        ".{0,30}",
        proptest::option::of(number()),
        number(),
        number(),
        any::<[bool; 3]>(),
    );
    let devices = proptest::collection::vec(device, 0..12);
    (number(), devices, proptest::option::of(number())).prop_map(|(now_ns, devices, lost)| {
        let canned = snapshot();
        let mut any =
            Snapshot { monotonic_ns: now_ns, lost, devices: Vec::new(), ..canned.clone() };
        for (place, vm, data, at_ns, more, [known, exact, running]) in devices {
            let Some(mut device) = canned.devices.get(place).cloned() else { continue };
            device.info.vm = vm.clone();
            device.since_monotonic_ns = data;
            device.state = known.then(|| vm.into());
            if let Some(session) = &mut device.session {
                session.exact = exact;
                session.result = (!running).then(|| "failed".into());
                session.began_monotonic_ns = at_ns;
                session.ended_monotonic_ns = data;
                session.duration_ns = more;
                session.figures.data_bytes = data;
                session.figures.pending_bytes = known.then_some(more);
                session.figures.data_busy_ns = Some(at_ns);
                session.figures.iterations = data;
                session.downtime.total_ns = data;
                for change in &mut session.transitions {
                    change.at_monotonic_ns = change.at_monotonic_ns.wrapping_add(more);
                }
                if let Some(dirty) = &mut session.figures.dirty {
                    (dirty.bytes, dirty.queries.error) = (more, at_ns);
                }
            }
            any.devices.push(device);
        }
        any
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn nothing_makes_it_panic_at_any_size(
        snapshots in proptest::collection::vec(snapshots(), 1..4),
        keys in proptest::collection::vec(keys(), 0..24),
        (width, height) in (1_u16..170, 1_u16..60),
    ) {
        let mut model = Model::new("a test");
        let mut keys = keys.into_iter();
        for snapshot in snapshots {
            let points = timeline();
            model.updated(Update { snapshot, timeline: Some((3, points)) });
            for key in keys.by_ref().take(8) {
                if let Some(action) = action(key, model.mode()) {
                    model.act(action, view::page(height));
                }
                draw(&model, COLOURED, width, height);
            }
            draw(&model, COLOURED, width, height);
        }
    }

    #[test]
    fn the_smallest_screens_are_no_exception(width in 1_u16..12, height in 1_u16..8, page in 0_usize..4) {
        let pages = [vec![], vec![Action::Detail], vec![Action::Help], vec![Action::Tree, Action::Filter]];
        let mut model = model();
        model.updated(Update { snapshot: snapshot(), timeline: Some((3, timeline())) });
        for action in &pages[page] {
            model.act(*action, view::page(height));
        }
        draw(&model, COLOURED, width, height);
    }
}
