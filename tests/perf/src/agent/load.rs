// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CPU and memory of the agent while it watches a [`Fleet`](super::fleet::Fleet), idle and with migrations under way.
//!
//! It is scraped once a second, and so is node_exporter, whose CPU time over the same seconds it is held against. When migrations are
//! under way, [`AT_A_TIME`] devices migrate at a time, each within a second, and then the next ones.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use migscope_abi::device::DeviceKey;

use super::exporter::{Encoding, Exporter};
use super::probes::Player;
use super::records::{self, Record};
use crate::result::{Report, Runs, Unit};

/// Devices that migrate at a time.
const AT_A_TIME: usize = 4;
/// Length of a measurement, in seconds.
const SECONDS: u32 = 5;
/// How long everybody has to come to rest before the first measurement.
const REST: Duration = Duration::from_secs(3);
/// In how many steps a second's records are played.
const STEPS: u32 = 20;

/// What is measured of each of the two.
#[derive(Default)]
struct Used {
    agent: Runs,
    node: Runs,
}

pub(super) fn run(
    (agent, node): (&Exporter, &Exporter),
    player: &Player,
    devices: &[DeviceKey],
    runs: u32,
    report: &mut Report,
) -> Result<()> {
    let (mut idle, mut busy, mut memory) = (Used::default(), Used::default(), Used::default());
    let mut next = devices.iter().cycle();
    sleep(REST);
    for _ in 0..runs {
        window((agent, node), &mut idle, || Ok(Vec::new()), player)?;
        if !devices.is_empty() {
            let records = || {
                Ok(next
                    .by_ref()
                    .take(AT_A_TIME)
                    .map(|device| records::migration(*device))
                    .collect())
            };
            window((agent, node), &mut busy, records, player)?;
        }
        memory.agent.add_each(agent.resident_bytes()?, 1);
        memory.node.add_each(node.resident_bytes()?, 1);
    }
    let count = devices.len();
    let node = Some(("node_exporter", &idle.node));
    report.add(&format!("cpu_idle_{count}_devices"), Unit::CpuPercent, &idle.agent, node);
    if !devices.is_empty() {
        let node = Some(("node_exporter", &busy.node));
        report.add(&format!("cpu_migrating_{count}_devices"), Unit::CpuPercent, &busy.agent, node);
    }
    let node = Some(("node_exporter", &memory.node));
    report.add(&format!("rss_{count}_devices"), Unit::Bytes, &memory.agent, node);
    Ok(())
}

/// Some seconds, in each of which both are scraped, and the records that `migrations` gives are played.
fn window(
    (agent, node): (&Exporter, &Exporter),
    used: &mut Used,
    mut migrations: impl FnMut() -> Result<Vec<Vec<Record>>>,
    player: &Player,
) -> Result<()> {
    let before = (agent.cpu()?, node.cpu()?);
    let began = Instant::now();
    for second in 0..SECONDS {
        let scripts = migrations()?;
        agent.scrape(Encoding::Plain)?;
        node.scrape(Encoding::Plain)?;
        for step in 0..STEPS {
            for script in &scripts {
                player.play(slice(script, step))?;
            }
            let at = Duration::from_secs(1) * (second * STEPS + step + 1) / STEPS;
            sleep(at.saturating_sub(began.elapsed()));
        }
    }
    let took = began.elapsed();
    used.agent.add_cpu(agent.cpu()?.saturating_sub(before.0), took);
    used.node.add_cpu(node.cpu()?.saturating_sub(before.1), took);
    Ok(())
}

/// The records of one step.
fn slice(script: &[Record], step: u32) -> &[Record] {
    let at = |step: u32| {
        let (step, steps) = (usize::try_from(step), usize::try_from(STEPS));
        script.len() * step.expect("small") / steps.expect("small")
    };
    script.get(at(step)..at(step + 1)).unwrap_or_default()
}
