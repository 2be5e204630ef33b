// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope-bench agent`: what the agent costs, in the kernel and beside it.
//!
//! ```text
//!   accesses   a client's accesses through VFIO: nothing attached, the agent, bpftrace with same.bt
//!   test_run   each probe by BPF_PROG_TEST_RUN, beside an empty program
//!   load       CPU and memory with 0, 64 and 1,000 devices, beside node_exporter     ┐ devices of a fleet,
//!   scrape     time and bytes of a scrape for each series, beside node_exporter      ┘ played to the probes
//! ```

mod accesses;
mod bpf;
mod exporter;
mod fleet;
mod load;
mod probes;
mod records;
mod scrape;
mod script;
mod test_run;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use self::exporter::{Encoding, Exporter};
use self::fleet::Fleet;
use self::probes::Player;
use crate::result::Report;

/// How many devices a host has.
const FLEETS: [u32; 3] = [0, 64, 1000];
/// With how many of them the probes are run by themselves.
const TEST_RUN: u32 = 64;
const AGENT: ([u8; 4], u16) = ([127, 0, 0, 1], 10477);
const NODE: ([u8; 4], u16) = ([127, 0, 0, 1], 9100);

/// What the benchmark is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Debian's prometheus-node-exporter
    #[arg(long, value_name = "PROGRAM")]
    node_exporter: PathBuf,
    /// bpftrace is not there: leave out what is held against it
    #[arg(long)]
    no_bpftrace: bool,
}

/// Everything that concerns the agent. The first device is an `edu` one.
pub(crate) fn run(arguments: &Arguments, runs: u32) -> Result<Report> {
    let mut report = Report::default();
    let _stats = bpf::enable_stats().context("the kernel does not count programs' run time")?;
    let (listen, node) = (SocketAddr::from(AGENT), SocketAddr::from(NODE));
    accesses::run(listen, runs, !arguments.no_bpftrace, &mut report).context("accesses")?;
    let node = Exporter::node(&arguments.node_exporter, node)?;
    for count in FLEETS {
        eprintln!("{count} devices");
        let fleet = Fleet::new(count)?;
        let agent = Exporter::agent(listen, fleet.sysfs())?;
        let player = Player::new()?;
        fleet.settle(&player)?;
        let exposition = agent.scrape(Encoding::Plain)?;
        fleet::check(str::from_utf8(&exposition.body)?)?;
        if count == TEST_RUN {
            test_run::run(&player, &fleet.devices, runs, &mut report).context("test runs")?;
        }
        let both = (&agent, &node);
        load::run(both, &player, &fleet.devices, runs, &mut report).context("load")?;
        scrape::run(both, fleet.devices.len(), runs, &mut report).context("scrapes")?;
    }
    Ok(report)
}
