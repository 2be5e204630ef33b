// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask bench agent`: the guest has the agent as users run it, and what it is held against.
//!
//! bpftrace is Debian's package, installed like the other packages that the host needs; where that fails, what is held against it is left
//! out, which is said. prometheus-node-exporter is unpacked and not installed.

use anyhow::Result;

use super::{TIMEOUT, in_guest};
use crate::build_driver;
use crate::kernel::{Kernel, Variant};
use crate::programs::{self, Programs};
use crate::setup::node_exporter;
use crate::setup::packages::{self, Group};
use crate::vm::{Machine, Task};
use crate::workspace::Workspace;

pub(super) const EXAMPLES: &str = "\
How to read it:
  probe_NAME             ns for each event in the program NAME, called by real accesses; against bpftrace's program
  probe_NAME_test_run    the same by BPF_PROG_TEST_RUN on made-up records; against a program that does nothing
  access_with_agent      ns for one read of pending_bytes by a client, everything included
  cpu_…, rss_…           percent of one CPU, and resident memory, of the whole process
  scrape_series_…        ns of a scrape for each series in it; series_bytes_… its length for each

The guest is emulated: a ratio means something, a time by itself does not.

Examples:
  cargo xtask bench agent
  cargo xtask bench agent --runs 9 --json > agent.json";

/// Gives the results, as the program in the guest prints them.
pub(super) fn run(workspace: &Workspace, runs: u32) -> Result<String> {
    let bpftrace = packages::ensure(&[Group::Bpftrace]);
    if let Err(error) = &bpftrace {
        eprintln!("nothing is held against bpftrace, which is not there: {error:#}");
    }
    let node_exporter = node_exporter::ensure(workspace)?;
    let kernel = Kernel::ensure(workspace, Variant::Ours)?;
    let driver = build_driver::build(workspace, &kernel.build_tree())?;
    let programs = Programs::build(workspace)?;
    let mut argv = vec![
        programs::bench(workspace)?.into(),
        format!("--runs={runs}").into(),
        "agent".into(),
        "--node-exporter".into(),
        node_exporter.into(),
    ];
    argv.extend(bpftrace.is_err().then(|| "--no-bpftrace".into()));
    let task = Task {
        argv,
        environment: programs.environment(),
        driver: Some(&driver),
        timeout: Some(TIMEOUT),
    };
    in_guest(workspace, &kernel, &Machine::default(), task)
}
