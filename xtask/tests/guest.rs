// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask vm run` as its callers see it: exit codes, outputs, arguments, and a kernel in trouble.
//!
//! They boot the guest, so `cargo test` leaves them out; `cargo xtask test` runs them, by hand:
//! `cargo test --package xtask --test guest -- --test-threads=1`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Output};

/// Without the driver: what is tested here is the way there and back.
fn vm_run(options: &[&str], command: &[&OsStr]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["vm", "run", "--no-driver"])
        .args(options)
        .arg("--")
        .args(command)
        .output()
        .expect("xtask starts")
}

fn sh(script: &str) -> Output {
    vm_run(&[], &["sh", "-c", script].map(OsStr::new))
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "stderr:\n{stderr}");
}

#[test]
fn outputs_stay_apart_and_the_exit_code_passes() {
    let output = sh("echo to stdout; echo to stderr >&2; exit 3");
    assert_code(&output, 3);
    assert_eq!(output.stdout, b"to stdout\n");
    assert_eq!(output.stderr, b"to stderr\n");
}

#[test]
fn arguments_arrive_byte_for_byte() {
    let arguments = [&b""[..], b"a b", b"'\"\\$(id)`", b"\n", b"--", b"\xff\xfe\x01"];
    let mut command = vec![OsStr::new("printf"), OsStr::new("%s\\0")];
    command.extend(arguments.map(OsStr::from_bytes));
    let output = vm_run(&[], &command);
    assert_code(&output, 0);
    let expected: Vec<u8> = arguments.join(&b'\0').into_iter().chain([b'\0']).collect();
    assert_eq!(output.stdout, expected);
}

#[test]
fn a_signal_is_128_and_its_number() {
    assert_code(&sh("kill -KILL $$"), 137);
}

#[test]
fn a_command_that_is_not_there_is_127() {
    let output = vm_run(&[], &[OsStr::new("migscope-no-such-command")]);
    assert_code(&output, 127);
    assert!(String::from_utf8_lossy(&output.stderr).contains("migscope-no-such-command"));
}

#[test]
fn a_megabyte_of_output_comes_whole_though_its_writer_lives_on() {
    // The sleep holds stdout open; the command's end must not wait for it, nor lose what was written.
    let output = sh("sleep 1000 & head -c 1048576 /dev/zero");
    assert_code(&output, 0);
    assert_eq!(output.stdout.len(), 1 << 20);
    assert!(output.stdout.iter().all(|&byte| byte == 0));
}

#[test]
fn what_the_guest_writes_stays_in_the_guest() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "host").expect("the folder can be written");
    let output = vm_run(
        &[],
        &["sh", "-c", "cat \"$1\"; echo guest > \"$1\"; cat \"$1\"", "sh"]
            .map(OsStr::new)
            .into_iter()
            .chain([file.as_os_str()])
            .collect::<Vec<_>>(),
    );
    assert_code(&output, 0);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hostguest\n");
    assert_eq!(std::fs::read_to_string(&file).expect("it is still there"), "host");
}

#[test]
fn a_crashed_kernel_fails_and_its_last_words_are_shown() {
    let output = sh("echo before; echo c > /proc/sysrq-trigger; echo after");
    assert_code(&output, 125);
    assert_eq!(output.stdout, b"before\n");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("sysrq triggered crash"), "{stderr}");
}

#[test]
fn a_warning_of_the_kernel_fails_a_command_that_passed() {
    let output = sh("echo '<4>WARNING: CPU: 0 PID: 1 at a test' > /dev/kmsg; echo done");
    assert_code(&output, 125);
    assert_eq!(output.stdout, b"done\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("at a test"));
}

#[test]
fn a_command_that_hangs_is_stopped() {
    let output = vm_run(&["--timeout", "10"], &["sleep", "1000"].map(OsStr::new));
    assert_code(&output, 124);
}

#[test]
fn timings_are_told() {
    let file = tempfile::NamedTempFile::new().expect("there is a temporary folder");
    let path = file.path().to_str().expect("its path is UTF-8");
    assert_code(&vm_run(&["--timings", path], &[OsStr::new("true")]), 0);
    let text = std::fs::read_to_string(path).expect("the timings were written");
    let timings: serde_json::Value = serde_json::from_str(&text).expect("they are JSON");
    let of = |name: &str| timings[name].as_u64().expect("it is a number");
    assert!(0 < of("boot_ns") && of("boot_ns") <= of("ready_ns"), "{text}");
    assert!(timings["driver_load_ns"].is_null(), "no driver was loaded: {text}");
}
