// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What one access to the region costs: with the agent and without, the ratio is what its probes cost.

use std::time::Instant;

use anyhow::{Context as _, Result};
use migrator::device::Device;
use migrator::memory::DmaMemory;
use migscope_abi::device::DeviceKey;

/// Accesses that are timed together.
const BATCH: u32 = 500;
/// Batches; the quickest one counts, since a shared machine only ever adds time.
const BATCHES: u32 = 8;

/// Nanoseconds that a read of `pending_bytes` takes on a device that is not migrating.
///
/// # Errors
///
/// What opening the device or reading failed with.
pub fn of_one_access(key: DeviceKey) -> Result<f64> {
    let memory = DmaMemory::new(0x10_0000, 0x1000).context("failed to get a page of memory")?;
    let device = Device::open(key, memory).with_context(|| format!("failed to open {key}"))?;
    let mut region = device.region();
    let mut best = f64::INFINITY;
    for _ in 0..BATCHES {
        let began = Instant::now();
        for _ in 0..BATCH {
            region.pending_bytes().context("failed to read pending_bytes")?;
        }
        best = best.min(began.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH));
    }
    Ok(best)
}
