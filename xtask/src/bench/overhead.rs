// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask bench overhead`: the guest has the agent, QEMU 10 and mtty.

use anyhow::Result;

use super::in_guest;
use crate::kernel::{Kernel, Variant};
use crate::programs::{self, Programs};
use crate::setup::qemu;
use crate::vm::{Machine, Task};
use crate::workspace::Workspace;

pub(super) const EXAMPLES: &str = "\
How to read it:
  total_time_ratio       of each pair, total time with the agent over that without it: the median of all pairs, the least, the most
  downtime_ratio         the same of the downtime
  total_time_…, downtime_…   the times themselves, as QEMU's own trace has them

The guest is emulated: a ratio means something, a time by itself does not.

Examples:
  cargo xtask bench overhead
  cargo xtask bench overhead --pairs 60 --json > overhead.json";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many pairs of migrations, each one without and one with the agent, in turn first
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) pairs: u32,
    /// Print one JSON object on stdout, and nothing else there
    #[arg(long)]
    pub(super) json: bool,
}

/// Gives the results, as the program in the guest prints them.
pub(super) fn run(workspace: &Workspace, pairs: u32) -> Result<String> {
    let qemu = qemu::environment(workspace, qemu::Version::Ten)?;
    let kernel = Kernel::ensure(workspace, Variant::Ours)?;
    let programs = Programs::build(workspace)?;
    let mut environment = programs.environment();
    environment.push(qemu);
    let argv = vec![
        programs::bench(workspace)?.into(),
        format!("--runs={pairs}").into(),
        "overhead".into(),
    ];
    let machine = Machine { devices: Vec::new(), ..Machine::default() };
    let task = Task { argv, environment, driver: None, timeout: Some(super::TIMEOUT) };
    in_guest(workspace, &kernel, &machine, task)
}
