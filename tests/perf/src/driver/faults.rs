// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What watching the device's memory costs its user: the first write to a page in each pass.
//!
//! Held against the fault that any program pays for a page of its own, the first write to anonymous memory. (That one clears
//! the page as well, so the two are of a kind and not the same.)

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use migrator::device::Device;
use migscope_abi::state::State;

use super::{bar, put_state};
use crate::result::{Report, Runs, Unit};

const MEMORY_BAR: u32 = 2;
const PAGE_BYTES: usize = 4096;
/// Pages that are written in a run.
const PAGES: u32 = 4096;

pub(super) fn run(device: &Arc<Device>, runs: u32, report: &mut Report) -> Result<()> {
    let memory = bar(device, MEMORY_BAR)?;
    let (mut first, mut second, mut anonymous) =
        (Runs::default(), Runs::default(), Runs::default());
    for run in 0..runs {
        // Entering pre-copy takes all mappings away and watches every page.
        put_state(device, State::PreCopy)?;
        let value = run.to_le_bytes()[0];
        first.add_times(PAGES, touch(|at| memory.write(at, &[value])));
        second.add_times(PAGES, touch(|at| memory.write(at, &[!value])));
        put_state(device, State::Running)?;
        // Zeroed memory of this length is mapped and not touched.
        let mut own = vec![0_u8; PAGE_BYTES * usize::try_from(PAGES)?];
        anonymous.add_times(PAGES, touch(|at| own[at] = std::hint::black_box(value | 1)));
        std::hint::black_box(&own);
    }
    report.add("write_fault", Unit::Nanoseconds, &first, Some(("anonymous_fault", &anonymous)));
    report.add("write_without_fault", Unit::Nanoseconds, &second, None);
    Ok(())
}

/// Lets `write` write to the start of each page.
fn touch(mut write: impl FnMut(usize)) -> Duration {
    let began = Instant::now();
    for page in 0..usize::try_from(PAGES).expect("fits") {
        write(page * PAGE_BYTES);
    }
    began.elapsed()
}
