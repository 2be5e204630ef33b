// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Saving a device's memory: through the mapped window, and by `read()`.
//!
//! The time of a save is the time of the whole sequence (`pending_bytes`, `data_offset`, `data_size`, the data). It holds two
//! copies: the driver's from the device into the window, with the look for pages that are all alike and the checksum, and
//! ours out of it. So each is measured by itself as well. What it is held against is `memcpy` of as much, in pieces as long
//! as a buffer, between two buffers of our own. Why the whole is slower than `memcpy` is in ARCHITECTURE.md.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use migrator::device::Device;
use migrator::mapping::Mapping;
use migrator::region::RegionIo as _;
use migscope_abi::region::{Field, HEADER_BYTES};
use migscope_abi::state::State;

use super::{mtty, put_state};
use crate::result::{Report, Runs, Unit};

/// The BAR with the device's memory.
const MEMORY_BAR: u32 = 2;
/// The largest `read()` of the trapped way, in bytes.
const READ_BYTES: usize = 1 << 20;

/// The times of one save.
#[derive(Default)]
struct Save {
    bytes: usize,
    total: Duration,
    stage: Duration,
    copy: Duration,
}

pub(super) fn run(device: &Arc<Device>, runs: u32, report: &mut Report) -> Result<()> {
    let memory = super::bar(device, MEMORY_BAR)?;
    fill(&memory);
    let io = device.region();
    let io = io.io();
    let window = {
        let data = device.mappable_areas().first().context("the driver maps no window")?;
        ensure!(data.offset == HEADER_BYTES, "the data window is not mapped as a whole");
        device.map(*data)?
    };
    let mut into = vec![0; memory.bytes()];
    let (mut whole, mut stage, mut copy) = (Runs::default(), Runs::default(), Runs::default());
    let (mut memcpy, mut trapped, mut trapped_whole) =
        (Runs::default(), Runs::default(), Runs::default());
    for _ in 0..runs {
        let saved = save(device, |bytes, at| {
            window.read(0, &mut into[at..at + bytes]);
            Ok(())
        })?;
        whole.add_bytes(saved.bytes, saved.total);
        stage.add_bytes(saved.bytes, saved.stage);
        copy.add_bytes(saved.bytes, saved.copy);

        // The same again without a driver: each piece is where the last one was, as the window is.
        let from: Vec<u8> = (0..window.bytes()).map(|at| at.to_le_bytes()[0]).collect();
        let began = Instant::now();
        let mut pieces = into.chunks_exact_mut(from.len());
        let mut bytes = 0;
        for piece in &mut pieces {
            piece.copy_from_slice(std::hint::black_box(&from));
            bytes += piece.len();
        }
        memcpy.add_bytes(bytes, began.elapsed());

        let saved = save(device, |bytes, at| {
            for (start, piece) in
                (0..).step_by(READ_BYTES).zip(into[at..at + bytes].chunks_mut(READ_BYTES))
            {
                ensure!(io.read_at(HEADER_BYTES + start, piece)? == piece.len(), "a short read");
            }
            Ok(())
        })?;
        trapped_whole.add_bytes(saved.bytes, saved.total);
        trapped.add_bytes(saved.bytes, saved.copy);
    }
    let versus = Some(("memcpy", &memcpy));
    report.add("save_mapped", Unit::BytesPerSecond, &whole, versus);
    report.add("save_mapped_staging", Unit::BytesPerSecond, &stage, versus);
    report.add("save_mapped_copy", Unit::BytesPerSecond, &copy, versus);
    report.add("save_trapped", Unit::BytesPerSecond, &trapped_whole, versus);

    let v2 = mtty::read(runs).context("the sample driver mtty")?;
    report.add("save_trapped_read", Unit::BytesPerSecond, &trapped, Some(("mtty_v2_read", &v2)));
    Ok(())
}

/// Words that no two pages share, so that every page is sent as it is.
fn fill(memory: &Mapping) {
    let mut page = vec![0; 1 << 16];
    let mut word = 0_u64;
    for at in (0..memory.bytes()).step_by(page.len()) {
        for bytes in page.as_chunks_mut().0 {
            word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
            *bytes = word.to_le_bytes();
        }
        memory.write(at, &page);
    }
}

/// Stops the device, saves it, and lets it run; `copy` takes the data of a buffer.
fn save(device: &Arc<Device>, mut copy: impl FnMut(usize, usize) -> Result<()>) -> Result<Save> {
    let region = device.region();
    let io = region.io();
    let read = |field: Field| -> Result<u64> {
        let mut bytes = [0; 8];
        let (offset, _) = field.register().context("no register")?;
        ensure!(io.read_at(offset, &mut bytes)? == 8, "a short read");
        Ok(u64::from_ne_bytes(bytes))
    };
    put_state(device, State::StopAndCopy)?;
    let mut times = Save::default();
    let began = Instant::now();
    while read(Field::PendingBytes)? > 0 {
        let staging = Instant::now();
        read(Field::DataOffset)?;
        let bytes = usize::try_from(read(Field::DataSize)?)?;
        times.stage += staging.elapsed();
        ensure!(bytes > 0, "data is pending and none comes");
        let copying = Instant::now();
        copy(bytes, 0)?;
        times.copy += copying.elapsed();
        times.bytes += bytes;
    }
    times.total = began.elapsed();
    put_state(device, State::Running)?;
    Ok(times)
}
