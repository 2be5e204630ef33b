// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope record`.

use crate::{
    host::Paths,
    record::{
        Existing, Options,
        live::{self, Plan},
    },
};
use clap::Args;
use std::{error::Error, path::PathBuf, process::ExitCode, time::Duration};

/// Records everything that it sees into a file, which `migscope report` reads.
///
/// It attaches probes of its own, as the agent does, and needs no agent. It ends with SIGINT, SIGTERM, or as told by --duration,
/// --until-end or --rotate 0. A file that was cut off, because the machine failed or the disk is full, can be read up to its last second.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Flags {
    /// File to write; older ones are FILE.1, FILE.2 and so on.
    #[arg(short = 'o', long, value_name = "FILE")]
    output: PathBuf,
    /// Size at which a file is full, at least 1M; K, M and G are powers of 1024. The next one is begun, which can be read by itself.
    #[arg(long, value_name = "SIZE", default_value = "100M", value_parser = crate::config::size)]
    max_size: u64,
    /// Number of full files that are kept. 0 ends the recording when its file is full.
    #[arg(long, value_name = "N", default_value_t = 1)]
    rotate: u32,
    /// End after this time.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// End when a migration has ended and none is under way.
    #[arg(long)]
    until_end: bool,
    /// Replace the files that are there.
    #[arg(long)]
    force: bool,
}

/// Records until it is told to end.
pub(super) fn run(flags: Flags, paths: Paths) -> Result<ExitCode, Box<dyn Error>> {
    let Flags { output, max_size, rotate, duration, until_end, force } = flags;
    let existing = if force { Existing::Replace } else { Existing::Refuse };
    let options = Options { path: output, max_bytes: max_size, older: rotate, existing, paths };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(live::run(Plan { options, duration, until_end }))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use crate::args::{Command, Typed};
    use clap::Parser as _;

    #[test]
    fn the_defaults_are_those_of_the_documents() {
        let typed = Typed::try_parse_from(["migscope", "record", "-o", "x"]).expect("complete");
        let Command::Record(flags) = typed.command else { panic!("record was typed") };
        assert_eq!((flags.max_size, flags.rotate, flags.duration), (100 << 20, 1, None));
        assert!(!flags.force && !flags.until_end);
        assert!(Typed::try_parse_from(["migscope", "record"]).is_err(), "a file must be named");
    }
}
