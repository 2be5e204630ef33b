// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the agent cannot start with: it ends with 1, says what is wrong and what to do, and breaks nothing that was there.

mod support;

use migscope::record::open;
use rustix::process::Signal;
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use support::{Agent, migscope};

/// A folder with a recording of an agent in it, and other things that tests need.
struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("text").to_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).expect("written");
        path
    }
}

/// What it says when it cannot start.
fn refusal(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    // Not in the log, which may be somewhere else, and with its cause.
    assert!(text.lines().any(|line| line.starts_with("migscope: ")), "{text}");
    text
}

fn refused(words: &[&str]) -> String {
    let mut command = migscope(&["agent", "--web.listen-address", "127.0.0.1:0"]);
    refusal(&command.args(words).output().expect("it runs"))
}

#[test]
fn an_address_in_use_is_told_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let error = refused(&["--web.listen-address", &address]);
    for told in [&*address, "in use", "stop it", "--web.listen-address"] {
        assert!(error.contains(told), "{told}: {error}");
    }
}

#[test]
fn what_is_missing_is_told_by_its_name_and_by_the_setting_that_names_it() {
    let site = Site::new();
    let (nowhere, file) = (site.path("nowhere"), site.write("file", "x"));
    let (log, socket) = (site.path("nowhere/latency.log"), site.path("nowhere/agent.sock"));
    let socket = format!("unix:{socket}");
    for (flag, value, remedy) in [
        ("--config.file", &nowhere, "name another"),
        ("--web.config.file", &nowhere, "name another"),
        ("--web.listen-address", &socket, "choose another"),
        ("--record.dir", &nowhere, "make it"),
        ("--record.dir", &file, "make it"),
        ("--latency.log", &log, "choose another"),
    ] {
        let error = refused(&[flag, value]);
        for told in [flag, value, remedy] {
            assert!(error.contains(told), "{told}: {error}");
        }
    }
    assert_eq!(fs::read_to_string(file).expect("there"), "x");
}

#[test]
fn a_certificate_that_is_missing_is_told_by_its_key_and_by_the_file_that_names_it() {
    let site = Site::new();
    let there = site.write("there.pem", "");
    for (key, missing, other) in [
        ("cert_file", "gone.crt", format!("key_file: {there}")),
        ("key_file", "gone.key", format!("cert_file: {there}")),
    ] {
        let text = format!("tls_server_config:\n  {key}: {missing}\n  {other}\n");
        let config = site.write("web.yml", &text);
        for more in [&[][..], &["--config.check"]] {
            let error = refused(&[&["--web.config.file", &config], more].concat());
            for told in [key, &site.path(missing), &config, "put it there"] {
                assert!(error.contains(told), "{told}: {error}");
            }
        }
    }
}

/// An agent that may write no byte to a file, as on a full disk.
fn on_a_full_disk(folder: &Path) -> Output {
    Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_migscope"))
        .args(["agent", "--web.listen-address", "127.0.0.1:0", "--record.dir"])
        .arg(folder)
        .output()
        .expect("it runs")
}

#[test]
fn a_full_disk_is_told_and_costs_none_of_what_was_recorded_before() {
    let site = Site::new();
    let agent = Agent::start(&["--record.dir", site.0.path().to_str().expect("text")]);
    assert_eq!(agent.stop(Signal::TERM).0, Some(0));
    let before = fs::read(site.path("agent.migscope")).expect("recorded");
    // As a service manager does that starts it again and again; each time another file would have gone.
    for _ in 0..5 {
        let error = refusal(&on_a_full_disk(site.0.path()));
        for told in ["--record.dir", "agent.migscope", "there must be room", "File too large"] {
            assert!(error.contains(told), "{told}: {error}");
        }
    }
    let names: Vec<PathBuf> = fs::read_dir(site.0.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert_eq!(names, [site.0.path().join("agent.migscope")]);
    assert_eq!(fs::read(&names[0]).expect("there"), before);
    assert!(open(&names[0]).expect("a recording").all(|input| input.is_ok()));
}
