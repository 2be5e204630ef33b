// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope-bench overhead`: what it costs a migration to be watched.
//!
//! ```text
//!   pair 1   without ─▶ with the agent          each: two QEMU 10 with a device of mtty, started, migrated, ended
//!   pair 2   with the agent ─▶ without
//!   …
//! ```
//!
//! The times are those of QEMU's trace, to the microsecond; `query-migrate` has whole milliseconds, of which a downtime has few. The
//! machines' processors halt, so that both of a pair do the same. The agent has been ready for a while when a migration begins: what is
//! measured is that it watches, not that it starts.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cases::demo::agent::Agent;
use cases::guest::load_modules;
use cases::mdev::{Mtty, Ports};
use cases::vmm::{Machine, Plan, Trace};

use crate::result::{Report, Runs, Unit};

const AGENT: ([u8; 4], u16) = ([127, 0, 0, 1], 10477);
const UUIDS: [&str; 2] =
    ["6d696773-636f-7065-0003-000000000001", "6d696773-636f-7065-0003-000000000002"];
const VM: &str = "11111111-2222-3333-4444-555555555503";
const SOCKET: &str = "unix:/tmp/migscope-bench.migration";
/// Memory of a machine, in MiB: its pages are most of the total time, as with any machine.
const MEMORY_MIB: u32 = 128;
/// What the machine and the agent have to come to rest.
const REST: Duration = Duration::from_millis(500);
/// How long the agent may take to attach, and to tell what it saw.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one migration took.
struct Times {
    total: Duration,
    downtime: Duration,
}

/// One of the times, without and with the agent.
#[derive(Default)]
struct Kind {
    without: Runs,
    with: Runs,
    ratios: Runs,
}

impl Kind {
    fn add(&mut self, without: Duration, with: Duration) -> Result<()> {
        self.without.add_times(1, without);
        self.with.add_times(1, with);
        let [without, with] = [without, with].map(|it| u64::try_from(it.as_nanos()));
        self.ratios.add_each(with?, without?);
        Ok(())
    }

    fn report(&self, name: &str, report: &mut Report) {
        report.add(&format!("{name}_ratio"), Unit::Ratio, &self.ratios, None);
        let without = Some(("without_agent", &self.without));
        report.add(&format!("{name}_with_agent"), Unit::Nanoseconds, &self.with, without);
    }
}

/// So many pairs of migrations.
pub(crate) fn run(pairs: u32) -> Result<Report> {
    load_modules(&["mtty", "vfio_iommu_type1"]);
    let (mut total, mut downtime) = (Kind::default(), Kind::default());
    // The first one reads QEMU from the host.
    migration()?;
    for pair in 0..pairs {
        let (without, with) = if pair % 2 == 0 {
            let without = migration()?;
            (without, watched()?)
        } else {
            let with = watched()?;
            (migration()?, with)
        };
        eprintln!("pair {} of {pairs}: {:?} and {:?}", pair + 1, without.total, with.total);
        total.add(without.total, with.total)?;
        downtime.add(without.downtime, with.downtime)?;
    }
    let mut report = Report::default();
    total.report("total_time", &mut report);
    downtime.report("downtime", &mut report);
    Ok(report)
}

/// A migration that the agent watches.
fn watched() -> Result<Times> {
    let agent = Agent::start_with(SocketAddr::from(AGENT), &["--log.level", "warn"])?;
    tells(&agent, "/readyz", ("probe data_read: attached", 1))?;
    let times = migration()?;
    // Or it watched nothing.
    tells(&agent, "/api/v1/sessions", ("\"result\":\"completed\"", UUIDS.len()))?;
    agent.stop()?;
    Ok(times)
}

/// Waits until a page of the agent has these words so often.
fn tells(agent: &Agent, page: &str, (words, count): (&str, usize)) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told = agent.get(page)?;
        if told.matches(words).count() == count {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{words} is not {count} times in {told}");
        sleep(Duration::from_millis(50));
    }
}

fn migration() -> Result<Times> {
    let make = |uuid| Mtty::create(uuid, Ports::Two).context("failed to create a device of mtty");
    let [from, to] = [make(UUIDS[0])?, make(UUIDS[1])?];
    let (froms, tos) = ([&from], [&to]);
    let plan = Plan { memory_mib: MEMORY_MIB, ..Plan::new("bench", VM, &froms) };
    let waiting = Plan { incoming: Some(SOCKET), devices: &tos, ..plan };
    let to = Machine::start(&waiting)?;
    let from = Machine::start(&plan)?;
    from.wait_for_status("running");
    // As fast as it goes: QEMU's own limit is for a network of other people's.
    from.set(serde_json::json!({ "max-bandwidth": 0 }));
    sleep(REST);
    from.migrate(SOCKET);
    from.wait_for_departure();
    to.wait_for_status("running");
    let trace = from.quit();
    to.quit();
    let between = |began: Option<u64>, ended: Option<u64>| {
        let (began, ended) = began.zip(ended).context("QEMU did not trace the migration")?;
        Ok::<_, anyhow::Error>(Duration::from_nanos(ended.saturating_sub(began)))
    };
    let came_to = |status| Trace::migration_came_to(&trace, status);
    Ok(Times {
        total: between(came_to("setup"), came_to("completed"))?,
        downtime: between(
            trace.checkpoint("src-downtime-start"),
            trace.checkpoint("src-downtime-end"),
        )?,
    })
}
