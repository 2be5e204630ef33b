// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The agent itself: which probes it has, what came, what was lost, what it costs.

use super::{family::Numbers, number};
use crate::{
    probes::{Standing, stats::ProgramCost},
    sample::{Losses, Sample},
};
use migscope_abi::{ring::Lost, trace::Event};
use prometheus::Registry;

/// Families of the agent itself.
pub struct OwnFamilies {
    probe_attached: Numbers<1>,
    events: Numbers<1>,
    events_lost: Numbers<1>,
    program_runs: Numbers<1>,
    program_run_seconds: Numbers<1>,
    map_entries: Numbers<1>,
}

/// The value of the label `reason` for a record that reached the agent and made no sense.
const MALFORMED: &str = "malformed";

/// The same for a run that the kernel left out because the probe was running already on that CPU.
const SKIPPED: &str = "skipped";

impl OwnFamilies {
    pub(super) fn register(registry: &Registry) -> Self {
        let build_info = Numbers::gauges(
            registry,
            "migscope_build_info",
            "The version of this agent. Always 1.",
            ["version"],
        );
        build_info.set([env!("CARGO_PKG_VERSION")], 1.0);
        Self {
            probe_attached: Numbers::gauges(
                registry,
                "migscope_probe_attached",
                "1 for a probe that is attached, 0 for one that is missing; /readyz and `migscope check` say why.",
                ["probe"],
            ),
            events: Numbers::counters(
                registry,
                "migscope_events_total",
                "Events of the driver that the probes saw.",
                ["kind"],
            ),
            events_lost: Numbers::counters(
                registry,
                "migscope_events_lost_total",
                "Events that did not reach the agent whole. After one, states are unknown until told again.",
                ["reason"],
            ),
            program_runs: Numbers::counters(
                registry,
                "migscope_bpf_program_runs_total",
                "Runs of each probe's program; absent where the kernel does not count them.",
                ["program"],
            ),
            program_run_seconds: Numbers::counters(
                registry,
                "migscope_bpf_program_run_seconds_total",
                "Run time of each probe's program; absent where the kernel does not count it.",
                ["program"],
            ),
            map_entries: Numbers::gauges(
                registry,
                "migscope_map_entries",
                "Entries in the maps of the probes that grow with the devices seen.",
                ["map"],
            ),
        }
    }

    /// Shows which probes are attached.
    pub fn probes(&self, standing: &Standing) {
        for (event, attached) in standing {
            self.probe_attached.set([event.name()], if attached.is_ok() { 1.0 } else { 0.0 });
        }
    }

    /// Shows what was lost. What came and made no sense is counted apart.
    pub fn lost(&self, losses: &Losses) {
        let Losses { told, skipped } = losses;
        for (reason, count) in Lost::ALL.into_iter().zip(told) {
            self.events_lost.set([reason.name()], number(*count));
        }
        if let Some(count) = skipped {
            self.events_lost.set([SKIPPED], number(*count));
        }
        self.events_lost.add([MALFORMED], 0.0);
    }

    /// Counts a record that made no sense.
    pub fn malformed(&self) {
        self.events_lost.add([MALFORMED], 1.0);
    }

    /// Shows what the probes saw; what a missing probe would have seen is unknown.
    pub fn sampled(&self, sample: &Sample, standing: &Standing) {
        for (event, count) in Event::ALL.into_iter().zip(sample.seen) {
            if standing.get(&event).is_some_and(Result::is_ok) {
                self.events.set([event.name()], number(count));
            }
        }
        let entries = [("DEVICE_SUMS", sample.devices.len()), ("ACCESSES", sample.accesses.len())];
        for (map, entries) in entries {
            self.map_entries.set([map], u64::try_from(entries).map_or(f64::INFINITY, number));
        }
    }

    /// Shows what the probes cost.
    pub fn costs(&self, costs: &[ProgramCost]) {
        for ProgramCost { program, runs, run_time } in costs {
            self.program_runs.set([program.name()], number(*runs));
            self.program_run_seconds.set([program.name()], run_time.as_secs_f64());
        }
    }
}
