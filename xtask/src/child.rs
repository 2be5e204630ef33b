// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Child processes: every error shows the command, and nothing of theirs reaches our stdout.
//!
//! stdout belongs to a subcommand's result (`--json` is read by programs), so what children say
//! goes to stderr, into a log, or into a string.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Of util-linux; sets the signal and becomes the program.
const BINDER: &str = "setpriv";
/// How much of a log a failure shows.
const TAIL_LINES: usize = 40;

/// A command that ends when xtask ends.
///
/// `make` and QEMU would otherwise outlive an xtask that was killed: a second one would take the
/// file lock (see [`crate::cache`]), and two builds would write one tree. `make` answers SIGTERM by
/// stopping its jobs and removing half-written targets. The kernel ties the signal to the thread
/// that spawned the child, so spawn from a thread that lives as long as the child should.
pub(crate) fn bound(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(BINDER);
    command.args(["--pdeathsig", "TERM", "--"]).arg(program);
    command
}

/// A command as one would type it: neither the variables that it gets nor [`bound`]'s prefix.
pub(crate) fn show(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let words = match words.as_slice() {
        [first, _, _, _, rest @ ..] if *first == BINDER => rest,
        all => all,
    };
    let quoted = words.iter().map(|word| match word.to_str() {
        Some(plain) if !plain.is_empty() && !plain.contains([' ', '"', '\'', '\n']) => {
            plain.to_owned()
        }
        _ => format!("{word:?}"),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Runs a command, its output on our stderr.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::from(io::stderr()))
        .status()
        .with_context(|| format!("failed to start {}", show(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", show(command));
    }
    Ok(())
}

/// Runs a command and returns its stdout, trimmed at the end; a failure shows its stderr.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to start {}", show(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed: {}\n{}", show(command), output.status, stderr.trim_end());
    }
    let stdout = String::from_utf8(output.stdout)
        .with_context(|| format!("{} printed what is not UTF-8", show(command)))?;
    Ok(stdout.trim_end().to_owned())
}

/// Runs a command, its whole output appended to `log`, each line also given to `on_line`.
pub(crate) fn logged(
    command: &mut Command,
    log: &Path,
    mut on_line: impl FnMut(&str),
) -> Result<()> {
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("failed to open the log {}", log.display()))?;
    writeln!(file, "+ {command:?}").context("failed to write the log")?;

    let (reader, writer) = io::pipe().context("failed to make a pipe")?;
    let shown = show(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("failed to share a pipe")?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("failed to start {shown}"))?;
    // The command keeps the pipe's write ends, and the loop below ends when the last one is closed.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut lines = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line).context("failed to read a child's output")? == 0 {
            break;
        }
        file.write_all(&line).context("failed to write the log")?;
        on_line(String::from_utf8_lossy(&line).trim_end());
    }
    let status = child.wait().with_context(|| format!("failed to wait for {shown}"))?;
    if !status.success() {
        bail!("{shown} failed: {status}; all that it said is in {}", log.display());
    }
    Ok(())
}

/// The last lines of a log, for an error's reader.
pub(crate) fn tail(log: &Path) -> String {
    match std::fs::read(log) {
        Ok(text) => {
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
        }
        Err(error) => format!("(unreadable: {error})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_command_and_the_log_has_all() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut seen = Vec::new();
        let error = logged(
            Command::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]),
            &log,
            |line| seen.push(line.to_owned()),
        )
        .unwrap_err()
        .to_string();
        assert_eq!(seen, ["one", "two"]);
        assert!(error.contains("exit 3"), "{error}");
        assert!(tail(&log).ends_with("one\ntwo"), "{}", tail(&log));
    }

    #[test]
    fn capture_reports_stderr_of_a_failure() {
        let error = capture(Command::new("sh").args(["-c", "echo why >&2; exit 1"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("why"), "{error}");
        assert_eq!(capture(Command::new("echo").arg("text")).unwrap(), "text");
    }

    #[test]
    fn a_command_is_shown_as_it_is_typed() {
        assert_eq!(show(bound("make").args(["-C", "a b"]).env("PATH", "/x")), "make -C \"a b\"");
        assert_eq!(show(Command::new("sh").args(["-c", ""])), "sh -c \"\"");
    }

    #[test]
    fn a_bound_child_passes_its_exit_code_on() {
        let status = bound("sh").args(["-c", "exit 7"]).status().unwrap();
        assert_eq!(status.code(), Some(7));
    }
}
