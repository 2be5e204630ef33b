// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope report`.

use crate::{
    harmless::harmless,
    report::{Document, compare, html, load, perfetto, terminal},
};
use clap::Args;
use std::{
    error::Error,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Says what a recording of `migscope record` tells: what came of the migrations in it, and where time and bytes went.
///
/// With two recordings it compares the first migration of the one with the first of the other.
///
/// A recording that is cut off or damaged is told as far as it can be read, with a warning. Exit status: 0 when it was told, also when
/// there is no migration in it; 1 when nothing could be read; 64 when the command line is wrong.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Flags {
    /// The recording.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A second recording, to compare the first one with.
    #[arg(value_name = "OTHER")]
    other: Option<PathBuf>,
    /// Print one JSON object and nothing else.
    #[arg(long)]
    json: bool,
    /// Write one HTML page, which needs nothing else, to this file.
    #[arg(long, value_name = "OUT")]
    html: Option<PathBuf>,
    /// Write a trace for ui.perfetto.dev to this file.
    #[arg(long, value_name = "OUT", conflicts_with = "other")]
    perfetto: Option<PathBuf>,
    /// Tell this session and its other end alone. With two recordings: the session of both, or given twice, one of each.
    #[arg(long, value_name = "N")]
    session: Vec<u64>,
    /// List the sessions, one a line, and nothing else.
    #[arg(long, conflicts_with_all = ["other", "json", "html", "perfetto", "session"])]
    list: bool,
}

/// Why what was asked for cannot be told.
#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error("failed to read {}", path.display())]
    Unreadable { path: PathBuf, source: crate::record::RecordError },
    #[error("{file} has no session {id}; it has {known}")]
    NoSession { file: String, id: u64, known: String },
    #[error("{} is the recording itself: choose another name", .0.display())]
    WouldReplace(PathBuf),
    #[error("failed to write {}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    #[error("--session is given {0} times, and there are {1} recordings")]
    TooManySessions(usize, usize),
}

/// Reads, tells, and writes what was asked for.
pub(super) fn run(flags: &Flags) -> Result<ExitCode, Box<dyn Error>> {
    let files = 1 + usize::from(flags.other.is_some());
    if flags.session.len() > files {
        return Err(ReportError::TooManySessions(flags.session.len(), files).into());
    }
    let (of_first, of_other) = (flags.session.first(), flags.session.last());
    let document = read(&flags.file, of_first.copied())?;
    match &flags.other {
        None => tell(flags, &document)?,
        Some(other) => {
            let comparison = compare::compare(&document, &read(other, of_other.copied())?)?;
            if let Some(out) = &flags.html {
                write(flags, out, &html::comparison(&comparison))?;
            }
            if flags.json {
                print(&serde_json::to_string_pretty(&comparison)?)?;
            } else if flags.html.is_none() {
                print(&terminal::comparison(&comparison, columns()))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(flags: &Flags, document: &Document) -> Result<(), Box<dyn Error>> {
    if let Some(out) = &flags.html {
        write(flags, out, &html::page(document))?;
    }
    if let Some(out) = &flags.perfetto {
        write(flags, out, &serde_json::to_string(&perfetto::trace(document))?)?;
    }
    if flags.list {
        print(&terminal::list(document, columns()))?;
    } else if flags.json {
        print(&serde_json::to_string_pretty(document)?)?;
    } else if flags.html.is_none() && flags.perfetto.is_none() {
        print(&terminal::summary(document, columns()))?;
    }
    Ok(())
}

fn read(path: &Path, session: Option<u64>) -> Result<Document, ReportError> {
    let mut document = load::load(path)
        .map_err(|source| ReportError::Unreadable { path: path.to_owned(), source })?;
    for fault in &document.recording.faults {
        eprintln!("migscope: warning: {}", harmless(&format!("{}: {fault}", path.display())));
    }
    if let Some(id) = session
        && !document.keep_only(id)
    {
        let ids: Vec<_> = document.sessions.iter().map(|s| s.report.id.to_string()).collect();
        let known = if ids.is_empty() { "none".to_owned() } else { ids.join(", ") };
        return Err(ReportError::NoSession { file: document.recording.file, id, known });
    }
    Ok(document)
}

/// Writes a file that is not one of those that are read.
fn write(flags: &Flags, out: &Path, text: &str) -> Result<(), ReportError> {
    let same = |file: &PathBuf| {
        let pair = fs::canonicalize(file).ok().zip(fs::canonicalize(out).ok());
        pair.is_some_and(|(file, out)| file == out)
    };
    if same(&flags.file) || flags.other.as_ref().is_some_and(same) {
        return Err(ReportError::WouldReplace(out.to_owned()));
    }
    fs::write(out, text).map_err(|source| ReportError::Unwritable { path: out.to_owned(), source })
}

/// Prints text with colours, where they belong: anstream asks the terminal and the environment (`NO_COLOR`).
fn print(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    let printed = out.write_all(text.as_bytes()).and_then(|()| match text.ends_with('\n') {
        true => out.flush(),
        false => out.write_all(b"\n").and_then(|()| out.flush()),
    });
    match printed {
        // A reader that has gone has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// How wide the terminal is; what goes elsewhere is as wide as people like to read.
fn columns() -> usize {
    const ELSEWHERE: usize = 100;
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => ELSEWHERE,
    }
}
