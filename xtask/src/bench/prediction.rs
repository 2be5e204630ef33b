// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask bench prediction`: builds tests/prediction and runs it, on the host.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::child;
use crate::programs;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Simulated migrations of each family
    #[arg(long, value_name = "N", default_value_t = 200)]
    per_family: u64,
    /// Which half of them: `train`, which constants were chosen by, or `held-out`
    #[arg(long, value_name = "HALF", default_value = "held-out")]
    split: String,
    /// Also say what one who knows the simulation would be wrong by, from so many other futures of each migration (16 take some
    /// ten minutes)
    #[arg(long, value_name = "FUTURES", default_value_t = 0)]
    oracle: u64,
    /// A recorded migration (may be given more than once); then nothing is simulated
    #[arg(long, value_name = "FILE")]
    trace: Vec<PathBuf>,
    /// Print one JSON object on stdout, and nothing else there
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    let program = programs::prediction(workspace)?;
    let mut command = child::bound(program);
    command.args(argv(arguments)).stdin(Stdio::null());
    // What it prints on stdout is what this prints.
    let status =
        command.status().with_context(|| format!("failed to start {}", child::show(&command)))?;
    ensure!(status.success(), "{} failed: {status}", child::show(&command));
    Ok(ExitCode::SUCCESS)
}

fn argv(arguments: &Arguments) -> Vec<OsString> {
    let Arguments { per_family, split, oracle, trace, json } = arguments;
    let mut argv = vec![
        format!("--per-family={per_family}").into(),
        format!("--split={split}").into(),
        format!("--oracle={oracle}").into(),
    ];
    for file in trace {
        argv.extend(["--trace".into(), file.into()]);
    }
    argv.extend(json.then(|| "--json".into()));
    argv
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_gets_what_was_asked_for() {
        let arguments = Arguments {
            per_family: 3,
            split: "train".to_owned(),
            oracle: 5,
            trace: vec!["a b".into()],
            json: true,
        };
        let argv = argv(&arguments);
        assert_eq!(
            argv,
            ["--per-family=3", "--split=train", "--oracle=5", "--trace", "a b", "--json"]
        );
    }
}
