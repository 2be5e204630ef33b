// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What packages take from the command line: man pages and completions.

mod support;

use std::{collections::BTreeSet, fs, path::Path, process::Command};
use support::migscope;

fn generate(what: &str) -> (tempfile::TempDir, BTreeSet<String>) {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("made").to_str().expect("text").to_owned();
    let output = migscope(&["generate", what, "--out", &out]).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let names = fs::read_dir(&out).expect("made").flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    (folder, names)
}

/// The long flags and the commands that a help text names.
fn help(words: &[&str]) -> (BTreeSet<String>, BTreeSet<String>) {
    let output = migscope(words).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let flag = |word: &str| {
        let name: String = word
            .strip_prefix("--")?
            .chars()
            .take_while(|letter| letter.is_ascii_alphanumeric() || ".-".contains(*letter))
            .collect();
        Some(name)
    };
    let flags = text
        .lines()
        .filter(|line| line.trim_start().starts_with('-'))
        .flat_map(|line| line.split_whitespace().filter_map(flag))
        .collect();
    let commands = text
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|name| name != "help")
        .collect();
    (flags, commands)
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join("made").join(name)).expect("made")
}

#[test]
fn every_command_has_a_page_with_every_flag() {
    let (folder, names) = generate("man");
    let (_, commands) = help(&["--help"]);
    assert!(commands.len() >= 2, "{commands:?}");
    let main = read(folder.path(), "migscope.1");
    for command in &commands {
        let page = format!("migscope-{command}.1");
        assert!(names.contains(&page), "{page} is none of {names:?}");
        assert!(main.contains(&format!("migscope\\-{command}(1)")), "{command}: {main}");
        // A man page writes a hyphen as \-.
        let page = read(folder.path(), &page).replace("\\-", "-");
        let (flags, _) = help(&[command, "--help"]);
        for flag in flags {
            assert!(
                page.contains(&format!("--{flag}")),
                "--{flag} is not in the page of {command}"
            );
        }
    }
}

#[test]
fn man_can_show_every_page() {
    let (folder, names) = generate("man");
    let mut tools = 0;
    for (tool, words) in
        [("man", &["--warnings", "-l"][..]), ("mandoc", &["-T", "lint", "-W", "error"])]
    {
        for name in &names {
            let mut command = Command::new(tool);
            command.args(words).arg(folder.path().join("made").join(name)).env("MANPAGER", "cat");
            match command.output() {
                Ok(output) => {
                    tools += 1;
                    assert!(output.status.success(), "{tool} {name}: {output:?}");
                    assert!(output.stderr.is_empty(), "{tool} {name}: {output:?}");
                }
                Err(error) => eprintln!("not run: {tool}: {error}"),
            }
        }
    }
    eprintln!("{tools} pages were shown");
}

#[test]
fn shells_complete_commands_and_flags() {
    let (folder, names) = generate("completions");
    let expected = ["_migscope", "migscope.bash", "migscope.fish"].map(str::to_owned);
    assert_eq!(names, expected.clone().into());
    for name in &expected {
        let text = read(folder.path(), name);
        for word in ["agent", "check", "web.config.file", "privileges", "drop-now"] {
            assert!(text.contains(word), "{name} does not know {word}");
        }
    }
    // bash is on every machine that this is built on.
    let script = "source \"$0\"; COMP_WORDS=(migscope agent --web.t); COMP_CWORD=2; \
                  _migscope migscope --web.t agent; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let bash = folder.path().join("made/migscope.bash");
    let output = Command::new("bash").args(["-c", script]).arg(bash).output().expect("bash");
    let completed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(completed.trim(), "--web.telemetry-path", "{output:?}");
}
