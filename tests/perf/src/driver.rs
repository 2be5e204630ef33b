// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope-bench driver`.

mod dirty_log;
mod faults;
mod mtty;
mod save;
mod type1;

use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use cases::guest;
use migrator::device::{Device, Placed};
use migrator::mapping::Mapping;
use migrator::memory::DmaMemory;
use migrator::region::RegionIo as _;
use migscope_abi::state::State;

use crate::result::Report;

/// What the benchmark is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The kernel module that measures the driver's dirty log (`tests/perf/module`)
    #[arg(long, value_name = "KO")]
    dirty_log_module: PathBuf,
}

/// Everything that concerns the driver. The first device is an `ivshmem` one.
pub(crate) fn run(arguments: &Arguments, runs: u32) -> Result<Report> {
    let mut report = Report::default();
    let [key, ..] = guest::devices();
    let memory = DmaMemory::new(DmaMemory::DEFAULT_IOVA, 1 << 20).context("no memory")?;
    let device = Device::open(key, memory).context("failed to open the device")?;
    save::run(&device, runs, &mut report).context("saving")?;
    faults::run(&device, runs, &mut report).context("write faults")?;
    dirty_log::run(&arguments.dirty_log_module, runs, &mut report).context("dirty queries")?;
    Ok(report)
}

/// Maps a BAR as a whole.
fn bar(device: &Arc<Device>, number: u32) -> Result<Mapping> {
    let Placed { offset, bytes } = device.bar(number).placed();
    Mapping::new(device.as_fd(), offset, usize::try_from(bytes)?)
        .with_context(|| format!("failed to map BAR {number}"))
}

/// Writes `device_state`, without an account.
fn put_state(device: &Arc<Device>, state: State) -> Result<()> {
    let bits = state as u32;
    let done = device.region().io().write_at(0, &bits.to_ne_bytes());
    let done = done.with_context(|| format!("the device does not go to {}", state.name()))?;
    ensure!(done == 4, "a short write");
    Ok(())
}
