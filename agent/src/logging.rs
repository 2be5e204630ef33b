// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The agent's own log, on standard error: from which level, in which form. The level can be changed while it runs.

use clap::ValueEnum;
use serde::Deserialize;
use std::{fmt, io, io::IsTerminal as _};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Registry, filter::Targets, fmt as lines, layer::SubscriberExt as _, reload,
    util::SubscriberInitExt as _,
};

/// Lowest level that is logged.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// What went wrong and stays wrong.
    Error,
    /// What somebody should look at.
    Warn,
    /// What happens rarely and is worth knowing.
    Info,
    /// What helps to find a fault.
    Debug,
    /// Everything.
    Trace,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The log, running.
pub struct Logging(reload::Handle<Targets, Registry>);

/// Starts the log. Once in a process.
pub fn start(level: Level, format: Format) -> Logging {
    let (targets, handle) = reload::Layer::new(targets(level));
    let lines = lines::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let log = tracing_subscriber::registry().with(targets);
    match format {
        Format::Text => log.with(lines).init(),
        Format::Json => log.with(lines.json()).init(),
    }
    Logging(handle)
}

impl Logging {
    /// Logs from another level on.
    pub fn set_level(&self, level: Level) {
        // The handle is bad only once the log is gone, and it stays as long as the process.
        let _ = self.0.reload(targets(level));
    }
}

fn targets(level: Level) -> Targets {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    // aya tells of every relocation at level debug, hundreds of lines before the first of ours. hyper and h2 would log headers at
    // level trace, and a header can be a password.
    let quiet = ["aya_obj", "h2", "hyper", "hyper_util", "rustls", "tokio_rustls"];
    Targets::new()
        .with_default(level)
        .with_targets(quiet.map(|target| (target, level.min(LevelFilter::INFO))))
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        name(self, f)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        name(self, f)
    }
}

/// The name that the command line and the configuration file have for a value.
pub(crate) fn name(value: &impl ValueEnum, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let value = value.to_possible_value().expect("no value is hidden");
    f.write_str(value.get_name())
}
