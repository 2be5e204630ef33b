// SPDX-License-Identifier: Apache-2.0 OR MIT
use super::*;
use crate::top::canned;
use std::time::Duration;

fn update() -> Update {
    Update { snapshot: canned::snapshot(), timeline: None }
}

fn model() -> Model {
    let mut model = Model::new("a test");
    model.updated(update());
    model
}

fn shown(model: &Model) -> Vec<&str> {
    model.devices().map(|row| &*row.device.device).collect()
}

fn selected(model: &Model) -> &str {
    &model.selected().expect("one is selected").device.device
}

fn type_in(model: &mut Model, text: &str) {
    model.act(Action::Filter, 10);
    for char in text.chars() {
        model.act(Action::Type(char), 10);
    }
}

#[test]
fn what_migrates_comes_first() {
    let model = model();
    let first: Vec<_> = shown(&model).into_iter().take(5).collect();
    assert_eq!(
        first,
        [
            "0000:00:10.0",
            "0000:00:11.0",
            "0000:00:12.0",
            "0000:00:13.0",
            "c0ffee00-1111-2222-3333-444455556666"
        ]
    );
    assert_eq!(model.migrating(), 3);
}

#[test]
fn the_selection_is_a_device_wherever_its_line_goes() {
    let mut model = model();
    model.act(Action::Move(2), 10);
    assert_eq!(selected(&model), "0000:00:12.0");
    model.act(Action::Sort(false), 10);
    model.act(Action::Reverse, 10);
    assert_eq!(selected(&model), "0000:00:12.0");
    let mut fewer = update();
    fewer.snapshot.devices.remove(0);
    model.updated(fewer);
    assert_eq!(selected(&model), "0000:00:12.0");
}

#[test]
fn when_the_selected_device_is_gone_its_neighbour_is_selected_and_its_page_closed() {
    let mut model = model();
    model.act(Action::Move(1), 10);
    model.act(Action::Detail, 10);
    assert_eq!(model.wants_timeline(), Some(4));
    let mut fewer = update();
    fewer.snapshot.devices.remove(1);
    model.updated(fewer);
    assert_eq!((selected(&model), model.mode()), ("0000:00:12.0", Mode::Table));
    let mut none = update();
    none.snapshot.devices.clear();
    model.updated(none);
    assert!(model.selected().is_none());
    model.act(Action::Move(1), 10);
    model.act(Action::Detail, 10);
    assert_eq!(model.mode(), Mode::Table, "there is nothing to show");
}

#[test]
fn the_selection_stays_on_the_screen() {
    let mut model = model();
    model.act(Action::Move(-1), 10);
    assert_eq!(selected(&model), "0000:00:10.0");
    model.act(Action::Page(1), 100);
    let last = shown(&model).last().copied().map(str::to_owned);
    assert_eq!(Some(selected(&model)), last.as_deref());
    model.act(Action::First, 10);
    assert_eq!(selected(&model), "0000:00:10.0");
}

#[test]
fn a_filter_hides_what_does_not_match_but_not_what_is_tagged() {
    let mut model = model();
    model.act(Action::Move(3), 10);
    model.act(Action::Tag, 10);
    type_in(&mut model, "WEB");
    assert_eq!(
        shown(&model),
        ["0000:00:13.0", "0000:00:10.0", "0000:00:11.0", "0000:00:12.0"],
        "tagged ones stand at the top"
    );
    model.act(Action::UntagAll, 10);
    assert_eq!(shown(&model).len(), 3);
    model.act(Action::Accept, 10);
    assert_eq!((model.mode(), model.filter()), (Mode::Table, "WEB"));
    type_in(&mut model, "-none");
    assert!(shown(&model).is_empty() && model.selected().is_none());
    model.act(Action::Clear, 10);
    assert_eq!((shown(&model).len(), model.filter()), (8, ""));
    assert!(model.selected().is_some());
}

#[test]
fn a_filter_is_bounded_and_holds_no_control() {
    let mut model = model();
    type_in(&mut model, &"x\u{1b}".repeat(1_000));
    assert_eq!(model.filter(), "x".repeat(FILTER_CHARS));
}

#[test]
fn machines_stand_above_their_devices() {
    let mut model = model();
    model.act(Action::Tree, 10);
    let lines: Vec<_> = model
        .entries()
        .into_iter()
        .map(|entry| match entry {
            Entry::Machine { vm, devices, migration, .. } => {
                format!("{vm:?} {devices} {:?}", migration.map(|migration| migration.id))
            }
            Entry::Device { row, last_of_machine } => {
                format!("{} {last_of_machine:?}", row.device.device)
            }
        })
        .collect();
    assert_eq!(
        lines[..3],
        ["Some(\"web\") 2 Some(2)", "0000:00:10.0 Some(false)", "0000:00:12.0 Some(true)"]
    );
    assert!(lines.contains(&"None 2 None".to_owned()), "{lines:?}");
    model.act(Action::Move(1), 10);
    assert_eq!(selected(&model), "0000:00:12.0", "machines are not selected");
}

#[test]
fn a_paused_view_stands_still_and_goes_on_from_now() {
    let mut model = model();
    model.act(Action::Pause, 10);
    let mut later = update();
    later.snapshot.monotonic_ns += 2_000_000_000;
    later.snapshot.devices.truncate(1);
    let session = later.snapshot.devices[0].session.as_mut().expect("canned");
    let moved = session.figures.data_bytes.as_mut().expect("canned");
    *moved += 4096;
    model.updated(later.clone());
    assert_eq!(shown(&model).len(), 8);
    model.act(Action::Pause, 10);
    model.updated(later);
    assert_eq!(shown(&model).len(), 1);
    let rate = model.selected().and_then(|row| row.throughput).expect("two snapshots");
    assert_eq!((rate.bytes_per_second, rate.window_ns), (2048.0, 2_000_000_000));
}

#[test]
fn a_lost_agent_is_gone_since_it_was_first_missed() {
    let mut model = model();
    let first = SystemTime::UNIX_EPOCH;
    model.missed("refused", first);
    model.missed("timeout", first + Duration::from_secs(9));
    assert_eq!(*model.contact(), Contact::Gone { since: first, why: "timeout".into() });
    assert_eq!(shown(&model).len(), 8, "what was known stays");
    model.updated(update());
    assert_eq!(*model.contact(), Contact::Live);
}

#[test]
fn points_of_a_session_that_is_not_selected_are_not_shown() {
    let mut model = model();
    model.act(Action::Detail, 10);
    model.updated(Update { timeline: Some((4, Vec::new())), ..update() });
    assert_eq!(model.timeline(), None);
    model.updated(Update { timeline: Some((3, Vec::new())), ..update() });
    assert_eq!(model.timeline(), Some(&[][..]));
    model.updated(Update { timeline: Some((99, Vec::new())), ..update() });
    assert!(model.timeline().is_some(), "unknown sessions are left out");
}

#[test]
fn help_goes_back_to_where_it_was_called() {
    let mut model = model();
    model.act(Action::Detail, 10);
    model.act(Action::Help, 10);
    assert_eq!(model.mode(), Mode::Help);
    model.act(Action::Back, 10);
    assert_eq!(model.mode(), Mode::Detail);
    model.act(Action::Back, 10);
    assert_eq!(model.mode(), Mode::Table);
}
