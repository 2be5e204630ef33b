// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a probe costs by itself: run by `BPF_PROG_TEST_RUN` on the records of migrations.
//!
//! A test run of a raw-tracepoint program takes a context and nothing else: it repeats nothing and tells no duration
//! (`bpf_prog_test_run_raw_tp()`, `net/bpf/test_run.c`). So the duration is what the kernel counts of the program, as in
//! [`super::accesses`], and each run is a call of its own. What the kernel's two readings of the clock cost is in it: that is what an empty
//! program shows, and what each is held against.
//!
//! Since Linux 7.0 a tracepoint's programs can be preempted. A change of state wakes the agent, and where that wins the CPU at once, its
//! first steps are in the time of the program `state`, here as in [`super::accesses`].

use std::collections::BTreeMap;
use std::thread::sleep;

use anyhow::{Context as _, Result, ensure};
use migscope_abi::device::DeviceKey;
use migscope_abi::probe::Probe;

use super::bpf;
use super::fleet::RING_PAUSE;
use super::probes::Player;
use super::records;
use crate::result::{Report, Runs, Unit};

/// Migrations in a run.
const MIGRATIONS: usize = 32;
/// Runs of the empty program in a run.
const EMPTY: u64 = 2000;

pub(super) fn run(
    player: &Player,
    devices: &[DeviceKey],
    runs: u32,
    report: &mut Report,
) -> Result<()> {
    let nothing = bpf::nothing().context("failed to load an empty program")?;
    let (mut each, mut empty) = (BTreeMap::<Probe, Runs>::new(), Runs::default());
    // The first warms up.
    for run in 0..=runs {
        let before = player.costs()?;
        for device in devices.iter().cycle().take(MIGRATIONS) {
            player.play(&records::migration(*device))?;
            player.play(&records::refusal(*device))?;
            sleep(RING_PAUSE);
        }
        let after = player.costs()?;
        let empty_before = nothing.cost()?;
        for _ in 0..EMPTY {
            nothing.run(0).context("failed to run an empty program")?;
        }
        let cost = nothing.cost()?.since(empty_before);
        ensure!(cost.runs == EMPTY, "the kernel counts {} runs, and not {EMPTY}", cost.runs);
        if run == 0 {
            continue;
        }
        empty.add_each(cost.ns, cost.runs);
        for (event, cost) in after {
            let cost = cost.since(before.get(&event).copied().unwrap_or_default());
            ensure!(cost.runs > 0, "the program of {} did not run", event.name());
            each.entry(event).or_default().add_each(cost.ns, cost.runs);
        }
    }
    for (event, runs) in &each {
        let name = format!("probe_{}_test_run", event.name());
        report.add(&name, Unit::Nanoseconds, runs, Some(("empty_program", &empty)));
    }
    Ok(())
}
