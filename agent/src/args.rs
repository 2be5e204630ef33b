// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line: what was typed, and what becomes of it. A file a subcommand; its `Flags` say what can be typed after it, and
//! its `run` does it.
//!
//! ```text
//!   migscope [--log.… --path.…] agent     agent.rs     also reads a file
//!                               check     check.rs
//!                               generate  generate.rs  hidden
//!                               record    record.rs
//!                               report    report.rs
//!                               top       top.rs
//! ```
//!
//! Exit status, for every subcommand: 1 is a failure, told on standard error with its causes. 64 is a wrong command line
//! ([`WRONG_USAGE`]), so that 2 is free to be an answer.

mod agent;
mod check;
mod generate;
mod log;
mod paths;
mod record;
mod report;
mod top;

use crate::{
    config::{Layer, Settings},
    harmless::harmless_lines,
    logging,
};
use clap::{Parser, Subcommand, error::ErrorKind};
use std::{error::Error, process::ExitCode};

/// Exit status for a wrong command line: `EX_USAGE` of sysexits(3).
pub const WRONG_USAGE: u8 = 64;

/// Shows what the migration of a VFIO device is doing while it does it.
///
/// It watches with eBPF and changes nothing: the VMM, the guest and the device's driver need no change.
///
/// Exit status: 0 when it was done, 1 when it failed, 64 when the command line is wrong; a command's own help says where it has more.
#[derive(Debug, Parser)]
#[command(name = "migscope", version)]
struct Typed {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: log::Flags,
    #[command(flatten)]
    paths: paths::Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    Agent(agent::Flags),
    Check(check::Flags),
    Record(record::Flags),
    Report(report::Flags),
    Top(top::Flags),
    #[command(hide = true)]
    Generate(generate::Flags),
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    let Typed { command, log, paths } = match Typed::try_parse() {
        Ok(typed) => typed,
        Err(answer) => return not_a_command(&answer),
    };
    let typed = Layer { log: log.into(), path: paths.into(), ..Layer::default() };
    let done = match command {
        // Its log starts later: its file says how.
        Command::Agent(flags) => agent::run(flags, typed),
        Command::Check(flags) => check::run(&flags, &without_file(typed).paths),
        Command::Generate(flags) => generate::run(&flags),
        // The view has the terminal: a log would be written across it.
        Command::Top(flags) if flags.hides_the_log() => {
            top::run(flags, Settings::from(typed).paths)
        }
        Command::Top(flags) => top::run(flags, without_file(typed).paths),
        Command::Record(flags) => record::run(flags, without_file(typed).paths),
        Command::Report(flags) => {
            // What an observer says of a feed it said when the feed was recorded; only who asks for the log gets it again.
            if typed.log.level.is_some() {
                without_file(typed);
            }
            report::run(&flags)
        }
    };
    done.unwrap_or_else(|error| {
        tell(&*error);
        ExitCode::FAILURE
    })
}

/// The settings for a command that has no file; starts the log.
fn without_file(typed: Layer) -> Settings {
    let settings = Settings::from(typed);
    logging::start(settings.log_level, settings.log_format);
    settings
}

/// Prints help where it was asked for, and what is wrong where it was not.
fn not_a_command(answer: &clap::Error) -> ExitCode {
    // A reader that has gone has read enough.
    let _ = answer.print();
    match answer.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(WRONG_USAGE),
    }
}

/// Prints an error with its causes. They may quote a file, or what another program answered.
fn tell(error: &dyn Error) {
    eprintln!("migscope: {}", harmless_lines(&error.to_string()));
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {}", harmless_lines(&error.to_string()));
        cause = error.source();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Typed::command().debug_assert();
    }
}
