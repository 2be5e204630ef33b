// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The views of the scripted migration, letter for letter.

use crate::feed::{MS, Script, migration, told};
use migscope::report::{Document, compare::compare, terminal};
use std::{fs, path::Path};

fn holds(name: &str, shown: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/report").join(name);
    if std::env::var_os("MIGSCOPE_BLESS").is_some() {
        fs::write(&file, shown).expect("written");
    }
    let expected = fs::read_to_string(&file).expect("MIGSCOPE_BLESS=1 writes it");
    for (number, (shown, expected)) in (1..).zip(shown.lines().zip(expected.lines())) {
        assert_eq!(shown, expected, "{name}, line {number}");
    }
    assert_eq!(shown.lines().count(), expected.lines().count());
}

/// The migration without its forecast: how well that is made changes, and its own tests hold it to account.
fn scripted() -> Document {
    let mut document = told(migration(&Script::default()));
    for detail in &mut document.sessions {
        detail.prediction = None;
        detail.report.outlook = None;
        for point in &mut detail.timeline {
            point.estimated_remaining_ns = None;
            point.estimated_downtime_ns = None;
        }
    }
    document
}

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[test]
fn the_summary() {
    let document = scripted();
    holds("summary.txt", &plain(&terminal::summary(&document, 100)));
}

#[test]
fn the_summary_on_a_narrow_terminal() {
    let document = scripted();
    let text = plain(&terminal::summary(&document, 60));
    holds("summary-narrow.txt", &text);
    for line in text.lines() {
        assert!(line.chars().count() <= 60, "{line}");
    }
}

#[test]
fn the_json() {
    let mut document = scripted();
    document.migscope = "VERSION".into();
    let json = serde_json::to_string_pretty(&document).expect("JSON");
    holds("report.json", &json);
}

#[test]
fn the_comparison() {
    let slower =
        Script { stop_ns: 20 * MS, dirty_bytes: 20_480, read_ns: 4_000, ..Script::default() };
    let (a, b) = (told(migration(&Script::default())), told(migration(&slower)));
    let comparison = compare(&a, &b).expect("both have one");
    holds("comparison.txt", &plain(&terminal::comparison(&comparison, 100)));
}

#[test]
fn the_list() {
    let document = scripted();
    holds("list.txt", &plain(&terminal::list(&document, 120)));
}

#[test]
fn a_name_cannot_drive_the_terminal() {
    let script = Script { vm: "\x1b]0;gone\x07\x1b[2Jweb\u{202e}".into(), ..Script::default() };
    let document = told(migration(&script));
    for text in [terminal::summary(&document, 100), terminal::list(&document, 160)] {
        assert!(
            !text.contains('\x07') && !text.contains("\x1b[2J") && !text.contains('\u{202e}'),
            "{text:?}"
        );
        assert!(text.contains("web"), "{text}");
    }
}
