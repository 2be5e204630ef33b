// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope generate`, for packagers: man pages and completions, made from the command line itself.

use super::Typed;
use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::Shell;
use std::{error::Error, fs, path::PathBuf, process::ExitCode};

/// Writes man pages or shell completions. For packages.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Flags {
    /// What to write.
    what: What,
    /// Folder to write to; it is made.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// One page a command, in section 1.
    Man,
    /// For bash, zsh and fish.
    Completions,
}

/// Writes the files.
pub(super) fn run(flags: &Flags) -> Result<ExitCode, Box<dyn Error>> {
    let Flags { what, out } = flags;
    fs::create_dir_all(out)?;
    let mut command = Typed::command();
    match what {
        What::Man => clap_mangen::generate_to(command, out)?,
        What::Completions => {
            for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
                clap_complete::generate_to(shell, &mut command, "migscope", out)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
