// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Dirty queries of the driver's log, against those of the type 1 container over the same range.
//!
//! No device here can write to a terabyte, so the log is not filled by DMA: a kernel module that is made of the driver's own
//! `dirty.rs` (`tests/perf/module`) fills it with random pages and asks for all of the range, in pieces as long as the bitmap
//! window, each copied to memory of its own as the driver copies it to the window, and counted as arrived. A system call's
//! entry and exit are not in it; there are five to a piece, about 1 us each, and 512 pieces to a terabyte.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::type1;
use crate::result::{Report, Runs, Unit};

const MODULE: &str = "vfio_mediate_bench";
/// Lengths of the range, in GiB, and their names.
const RANGES: [(u64, &str); 2] = [(1, "1GiB"), (1024, "1TiB")];
/// Dirty pages in a million, and their names.
const DENSITIES: [(u32, &str); 3] = [(100, "0.01%"), (10_000, "1%"), (500_000, "50%")];

pub(super) fn run(module: &Path, runs: u32, report: &mut Report) -> Result<()> {
    for (gibibytes, range) in RANGES {
        let type1 = type1::query(gibibytes << 30, runs).context("type 1")?;
        for (density, percent) in DENSITIES {
            let ours = query(module, gibibytes, density, runs)?;
            let name = format!("dirty_query_{range}_{percent}");
            report.add(&name, Unit::Nanoseconds, &ours, Some(("type1_get_bitmap", &type1)));
        }
    }
    Ok(())
}

/// Loads the module, which measures while it is loaded and keeps the times as a parameter.
fn query(module: &Path, gibibytes: u64, density: u32, runs: u32) -> Result<Runs> {
    let status = Command::new("insmod")
        .arg(module)
        .args([
            format!("gibibytes={gibibytes}"),
            format!("dirty_per_million={density}"),
            format!("runs={runs}"),
        ])
        .status()
        .context("insmod")?;
    ensure!(status.success(), "insmod {}: {status}", module.display());
    let times = fs::read_to_string(format!("/sys/kernel/debug/{MODULE}/query_ns"));
    let status = Command::new("rmmod").arg(MODULE).status().context("rmmod")?;
    ensure!(status.success(), "rmmod: {status}");
    let mut results = Runs::default();
    for time in times.context("the module has no results")?.split_whitespace() {
        let ns: u64 = time.parse().with_context(|| format!("`{time}` is no time"))?;
        results.add_times(1, std::time::Duration::from_nanos(ns));
    }
    ensure!(results.len() == usize::try_from(runs)?, "the module did not measure {runs} times");
    Ok(results)
}
