// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope check`.

use crate::{check::check, host::Paths, probes::object};
use clap::Args;
use std::{error::Error, process::ExitCode};

/// Says what this host can show, and for each thing it cannot, why and what would mend it.
///
/// Exit status: 0 when everything that is needed is there, 1 when something is missing, 2 when no probe can work, 64 when the command
/// line is wrong.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Flags {
    /// Print one JSON object and nothing else.
    #[arg(long)]
    json: bool,
}

/// Prints what was found.
pub(super) fn run(flags: &Flags, paths: &Paths) -> Result<ExitCode, Box<dyn Error>> {
    let findings = check(paths, object::EMBEDDED);
    if flags.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        print!("{findings}");
    }
    Ok(findings.verdict.exit_code().into())
}
