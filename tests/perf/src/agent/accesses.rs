// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the probes cost where they are: in a client's accesses to a device, through VFIO and the driver.
//!
//! In turn with nothing attached, with the agent, and with bpftrace and `same.bt`. The time of an access is the client's own, all
//! things included; the time of a program is what the kernel counts of it (`run_time_ns` over `run_cnt`), and has in it neither what it
//! takes to call a raw tracepoint nor what perf does to hand a record to a script.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use cases::demo::agent::Agent;
use cases::session::Session;
use migscope_abi::probe::{Probe, Target};
use migscope_abi::state::State;

use super::bpf;
use super::probes::Programs;
use super::script::Script;
use crate::result::{Report, Runs, Unit};

/// Reads of `pending_bytes` that are timed together.
const ACCESSES: u32 = 1000;
/// Short migrations, each with every tracepoint in it.
const ROUNDS: u64 = 20;

/// Runs of each tracepoint's program.
type Each = BTreeMap<Probe, Runs>;

pub(super) fn run(
    listen: SocketAddr,
    runs: u32,
    bpftrace: bool,
    report: &mut Report,
) -> Result<()> {
    let (mut bare, mut agents, mut scripts) = (Runs::default(), Runs::default(), Runs::default());
    let (mut probes, mut lines) = (Each::new(), Each::new());
    for run in 0..runs {
        eprintln!("accesses, run {} of {runs}", run + 1);
        let mut session = Session::first();
        rounds(&mut session)?;
        access(&mut session, &mut bare)?;

        let agent = Agent::start_with(listen, &["--log.level", "warn"])?;
        programs(&Programs::of_the_agent()?, &mut session, &mut probes)?;
        access(&mut session, &mut agents)?;
        agent.stop()?;

        if !bpftrace {
            continue;
        }
        let script = Script::start()?;
        programs(&Programs::find(bpf::TRACEPOINT, script_name)?, &mut session, &mut lines)?;
        access(&mut session, &mut scripts)?;
        ensure!(script.stop()? > 0, "the script saw nothing");
    }
    report.add("access_with_agent", Unit::Nanoseconds, &agents, Some(("without_probes", &bare)));
    if bpftrace {
        let scripts = Some(("with_bpftrace", &scripts));
        report.add("access_with_agent", Unit::Nanoseconds, &agents, scripts);
    }
    for (event, runs) in &probes {
        let name = event.name();
        let other = lines.get(event).map(|runs| (format!("bpftrace_{name}"), runs));
        let other = other.as_ref().map(|(name, runs)| (name.as_str(), *runs));
        report.add(&format!("probe_{name}"), Unit::Nanoseconds, runs, other);
    }
    Ok(())
}

/// How bpftrace names the program of a tracepoint: what comes after the last colon, cut to the kernel's 15 letters.
fn script_name(event: Probe) -> String {
    let Target::Tracepoint(tracepoint) = event.target() else {
        return String::new();
    };
    tracepoint.chars().take(15).collect()
}

fn programs(programs: &Programs, session: &mut Session, each: &mut Each) -> Result<()> {
    let before = programs.costs()?;
    rounds(session)?;
    for (event, cost) in programs.costs()? {
        let cost = cost.since(before.get(&event).copied().unwrap_or_default());
        ensure!(cost.runs > 0, "the program of {} did not run", event.name());
        each.entry(event).or_default().add_each(cost.ns, cost.runs);
    }
    Ok(())
}

fn access(session: &mut Session, runs: &mut Runs) -> Result<()> {
    let began = Instant::now();
    for _ in 0..ACCESSES {
        session.region.pending_bytes().context("failed to read pending_bytes")?;
    }
    runs.add_times(ACCESSES, began.elapsed());
    Ok(())
}

/// Short migrations that are cancelled: states, transfers, a query, buffers of data, and a refusal.
fn rounds(session: &mut Session) -> Result<()> {
    for _ in 0..ROUNDS {
        session.region.set_state(State::PreCopy).context("pre-copy is refused")?;
        for page in 0..4 {
            session.store(page, 64);
        }
        ensure!(!session.dirty().is_empty(), "what the device wrote is not dirty");
        for _ in 0..4 {
            if session.region.next_buffer(State::PreCopy).context("no data")?.is_none() {
                break;
            }
        }
        ensure!(session.read(0, 2).is_err(), "two bytes of a state were read");
        session.region.set_state(State::Running).context("the cancel is refused")?;
    }
    Ok(())
}
