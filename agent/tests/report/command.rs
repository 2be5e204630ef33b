// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope report` as its users meet it: files in, text and files out, and an exit status.

use crate::feed::{Script, ZERO_NS, attached, losses, migration, told};
use migscope::{
    feed::Input,
    record::{Header, Stream},
    report::terminal,
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

fn recording(feed: &[Input]) -> Vec<u8> {
    let header = Header {
        created_unix_ns: 1_795_384_800_000_000_000,
        created_monotonic_ns: ZERO_NS,
        host: "demo".into(),
        kernel: "7.3.0-migscope".into(),
        migscope: "0.1.0".into(),
        ..Header::default()
    };
    let mut stream = Stream::new(Vec::new(), &header).expect("memory takes all");
    for input in feed {
        stream.push(input).expect("memory takes all");
        stream.flush().expect("memory takes all");
    }
    stream.finish().expect("memory takes all")
}

fn file(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).expect("written");
    path
}

fn report(path: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_migscope"));
    command.arg("report").arg(path).args(words).env_remove("CLICOLOR_FORCE");
    command.output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn scripted() -> Vec<u8> {
    recording(&migration(&Script::default()))
}

#[test]
fn a_recording_is_told_without_colours_where_there_is_no_terminal() {
    let folder = TempDir::new().expect("a folder");
    let output = report(&file(&folder, "scripted.migscope", &scripted()), &[]);
    let (shown, warned) = (text(&output.stdout), text(&output.stderr));
    assert_eq!((output.status.code(), warned.as_str()), (Some(0), ""));
    // The same text as from the feed itself: nothing was lost on the way through the file.
    let document = told(migration(&Script::default()));
    let expected = terminal::summary(&document, 100);
    assert_eq!(shown, anstream::adapter::strip_str(&expected).to_string());
}

#[test]
fn a_cut_recording_is_told_up_to_the_cut_with_a_warning() {
    let folder = TempDir::new().expect("a folder");
    let whole = scripted();
    let half = file(&folder, "half.migscope", &whole[..whole.len() / 2]);
    let output = report(&half, &["--json"]);
    assert_eq!(output.status.code(), Some(0));
    let warning = text(&output.stderr);
    assert!(
        warning.starts_with("migscope: warning: ") && warning.contains("cut off at byte"),
        "{warning}"
    );
    let document: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let fault = document["recording"]["faults"][0].as_str().expect("it is in the document");
    assert!(
        warning.contains(fault) && fault.contains("what came after 2026-11-22 22:00:0"),
        "{fault}"
    );
    assert_eq!(document["sessions"].as_array().map(Vec::len), Some(2));
    assert!(document["unknown"].as_array().expect("a list").iter().any(|s| s == fault));
}

#[test]
fn what_is_no_recording_is_an_error_with_its_reason() {
    let folder = TempDir::new().expect("a folder");
    let none = folder.path().join("none");
    for (path, reason) in [
        (file(&folder, "notes.txt", b"a list"), "this is no recording of migscope"),
        (file(&folder, "empty", b""), "this is no recording of migscope"),
        (none, "No such file"),
        (folder.path().to_owned(), "director"),
    ] {
        let output = report(&path, &[]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(&path.display().to_string()) && error.contains(reason), "{error}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_recording_without_a_migration_says_so() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder, "idle.migscope", &recording(&[attached(), losses(0, 1)]));
    for words in [&[][..], &["--list"]] {
        let output = report(&path, words);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("no migration in this recording"));
    }
    let compared = report(&path, &[path.to_str().expect("text")]);
    assert_eq!(compared.status.code(), Some(1));
    assert!(text(&compared.stderr).contains("idle.migscope has no migration in it"));
}

#[test]
fn page_and_trace_are_written_where_they_shall_be_and_never_over_the_recording() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder, "scripted.migscope", &scripted());
    let [page, trace] = ["page.html", "trace.json"].map(|name| folder.path().join(name));
    let words =
        ["--html", page.to_str().expect("text"), "--perfetto", trace.to_str().expect("text")];
    let output = report(&path, &words);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stdout.is_empty(), "only files were asked for");
    assert!(fs::read_to_string(page).expect("written").starts_with("<!DOCTYPE html>"));
    let trace: Value = serde_json::from_slice(&fs::read(trace).expect("written")).expect("JSON");
    assert!(trace["traceEvents"].is_array());

    let output = report(&path, &["--html", path.to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("is the recording itself"));
    assert_eq!(fs::read(&path).expect("still there"), scripted());
}

#[test]
fn sessions_are_chosen_by_number() {
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder, "scripted.migscope", &scripted());
    let chosen = report(&path, &["--session", "2", "--json"]);
    let document: Value = serde_json::from_slice(&chosen.stdout).expect("one JSON object");
    assert_eq!(document["moves"].as_array().map(Vec::len), Some(1));
    let missing = report(&path, &["--session", "7"]);
    assert_eq!(missing.status.code(), Some(1));
    let error = text(&missing.stderr);
    assert!(error.contains("scripted.migscope has no session 7; it has 1, 2"), "{error}");
    let twice = report(&path, &["--session", "1", "--session", "2"]);
    assert_eq!(twice.status.code(), Some(1));
    let list = report(&path, &["--list"]);
    assert_eq!(text(&list.stdout).lines().count(), 3);
}

#[test]
fn two_recordings_are_compared_in_every_form() {
    let folder = TempDir::new().expect("a folder");
    let slower = Script { dirty_bytes: 20_480, ..Script::default() };
    let a = file(&folder, "a.migscope", &scripted());
    let b = file(&folder, "b.migscope", &recording(&migration(&slower)));
    let page = folder.path().join("compared.html");
    let (b, out) = (b.to_str().expect("text"), page.to_str().expect("text"));
    let shown = text(&report(&a, &[b]).stdout);
    assert!(shown.contains("against A, B is worse in 2 figures"), "{shown}");
    let json: Value = serde_json::from_slice(&report(&a, &[b, "--json"]).stdout).expect("JSON");
    assert_eq!(json["b"]["file"], "b.migscope");
    assert!(report(&a, &[b, "--html", out]).status.success());
    assert!(fs::read_to_string(page).expect("written").contains("B / A"));
    assert_eq!(report(&a, &[b, "--list"]).status.code(), Some(64));
}
