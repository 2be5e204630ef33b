// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The agent itself: which probes it has, what came, what was lost, what it costs.

use super::{
    catalog::Catalog,
    description::Label,
    family::{About, Numbers},
    format::Format,
    number,
};
use crate::{
    probes::{Standing, stats::ProgramCost, wanted},
    sample::{Losses, Sample},
};
use migscope_abi::{
    probe::Probe,
    ring::{Kind, Lost},
};
use std::{collections::BTreeMap, time::Duration};

/// Families of the agent itself.
pub struct OwnFamilies {
    probe_attached: Numbers<1>,
    events: Numbers<1>,
    records: Numbers<1>,
    events_lost: Numbers<1>,
    program_runs: Numbers<1>,
    program_run_seconds: Numbers<1>,
    map_entries: Numbers<1>,
    map_capacity: Numbers<1>,
    scrapes: Numbers<1>,
    scrape_duration: Numbers<0>,
    series: Numbers<0>,
    evicted: Numbers<0>,
}

/// The value of the label `reason` for a record that reached the agent and made no sense.
const MALFORMED: &str = "malformed";

/// Maps of the probes that grow with the devices seen.
const MAPS: [&str; 2] = ["DEVICE_SUMS", "ACCESSES"];

/// The same for a run that the kernel left out: programs of kprobes do not run on a CPU on which another program does, or on which a thread
/// is in the middle of reading a map (`bpf_prog_active`), this agent's too. Where that thread is set aside there, a whole time slice is lost.
const SKIPPED: &str = "skipped";

impl OwnFamilies {
    pub(super) fn register(catalog: &mut Catalog) -> Self {
        let catalog = catalog.area("The agent itself");
        let build_info = Numbers::infos(
            catalog,
            About {
                name: "migscope_build_info",
                help: "The version of this agent. Always 1.",
                labels: [Label::follows("version")],
                absent: "never",
            },
        );
        build_info.set([env!("CARGO_PKG_VERSION")], 1.0);
        let scrapes = Numbers::counters(
            catalog,
            About {
                name: "migscope_scrapes_total",
                help: "Scrapes that were answered before this one, by the format that was asked for.",
                labels: [Label::one_of("format", Format::ALL.map(Format::name))],
                absent: "never",
            },
        );
        for format in Format::ALL {
            scrapes.set([format.name()], 0.0);
        }
        let evicted = Numbers::counters(
            catalog,
            About {
                name: "migscope_series_evicted_total",
                help: "Series that ended because their device was closed long ago; see --series.keep.",
                labels: [],
                absent: "never",
            },
        );
        evicted.set([], 0.0);
        Self {
            probe_attached: Numbers::gauges(
                catalog,
                About {
                    name: "migscope_probe_attached",
                    help: "1 for a probe that is attached, 0 for one that is missing; /readyz and `migscope check` say why.",
                    labels: [Label::one_of("probe", Probe::ALL.map(Probe::name))],
                    absent: "before the probes were tried, and while no module is loaded that the probe is for",
                },
            ),
            events: Numbers::counters(
                catalog,
                About {
                    name: "migscope_events_total",
                    help: "Events of the driver that the probes saw.",
                    labels: [Label::one_of("kind", Probe::ALL.map(Probe::name))],
                    absent: "while the probe is missing",
                },
            ),
            records: Numbers::counters(
                catalog,
                About {
                    name: "migscope_records_total",
                    help: "Records of the probes that the agent took in. With those lost as ring_full or malformed they are all that the probes made.",
                    labels: [Label::one_of("kind", Kind::ALL.map(Kind::name))],
                    absent: "where none has come yet",
                },
            ),
            events_lost: Numbers::counters(
                catalog,
                About {
                    name: "migscope_events_lost_total",
                    help: "Events that did not reach the agent whole. After one, states are unknown until told again.",
                    labels: [Label::one_of(
                        "reason",
                        Lost::ALL.map(Lost::name).into_iter().chain([MALFORMED, SKIPPED]),
                    )],
                    absent: "before the probes were loaded; skipped also where the kernel does not tell",
                },
            ),
            program_runs: Numbers::counters(
                catalog,
                About {
                    name: "migscope_bpf_program_runs_total",
                    help: "Runs of each probe's program; absent where the kernel does not count them.",
                    labels: [Label::one_of("program", Probe::ALL.map(Probe::name))],
                    absent: "where the kernel does not count",
                },
            ),
            program_run_seconds: Numbers::counters(
                catalog,
                About {
                    name: "migscope_bpf_program_run_seconds_total",
                    help: "Run time of each probe's program; absent where the kernel does not count it.",
                    labels: [Label::one_of("program", Probe::ALL.map(Probe::name))],
                    absent: "where the kernel does not count",
                },
            ),
            map_entries: Numbers::gauges(
                catalog,
                About {
                    name: "migscope_map_entries",
                    help: "Entries in the maps of the probes that grow with the devices seen.",
                    labels: [Label::one_of("map", MAPS)],
                    absent: "before the probes were loaded",
                },
            ),
            map_capacity: Numbers::gauges(
                catalog,
                About {
                    name: "migscope_map_capacity_entries",
                    help: "Entries that these maps have room for; what comes when one is full is lost, with the reason map_full.",
                    labels: [Label::one_of("map", MAPS)],
                    absent: "before the probes were loaded, and where the kernel does not tell",
                },
            ),
            scrapes,
            scrape_duration: Numbers::gauges(
                catalog,
                About {
                    name: "migscope_scrape_duration_seconds",
                    help: "How long the agent took to write the exposition of the scrape before this one.",
                    labels: [],
                    absent: "in the first scrape",
                },
            ),
            series: Numbers::gauges(
                catalog,
                About {
                    name: "migscope_series",
                    help: "Series that the agent keeps, a histogram with all its buckets as one; process_* are not among them.",
                    labels: [],
                    absent: "never",
                },
            ),
            evicted,
        }
    }

    /// Shows which probes are attached.
    pub fn probes(&self, standing: &Standing) {
        let wanted: BTreeMap<_, _> = wanted(standing).collect();
        for probe in standing.keys() {
            // Of one that is not wanted nothing is missing, so nobody is to be called for it.
            let shown = wanted.get(probe).map(|attached| if attached.is_ok() { 1.0 } else { 0.0 });
            self.probe_attached.set_known([probe.name()], shown);
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

    /// Counts records that were taken in, by [`Kind`].
    pub fn taken(&self, kinds: [u64; Kind::COUNT]) {
        for (kind, records) in Kind::ALL.into_iter().zip(kinds).filter(|(_, records)| *records > 0)
        {
            self.records.add([kind.name()], number(records));
        }
    }

    /// Counts a record that made no sense.
    pub fn malformed(&self) {
        self.events_lost.add([MALFORMED], 1.0);
    }

    /// Shows what the probes saw; what a missing probe would have seen is unknown.
    pub fn sampled(&self, sample: &Sample, standing: &Standing) {
        for (event, count) in Probe::ALL.into_iter().zip(sample.seen) {
            if standing.get(&event).is_some_and(Result::is_ok) {
                self.events.set([event.name()], number(count));
            }
        }
        let entries = [sample.devices.len(), sample.accesses.len()];
        for (map, entries) in MAPS.into_iter().zip(entries) {
            self.map_entries.set([map], count(entries));
            let capacity = sample.capacities.get(map).map(|entries| f64::from(*entries));
            self.map_capacity.set_known([map], capacity);
        }
    }

    /// Shows how many series there are.
    pub(super) fn series(&self, series: usize) {
        self.series.set([], count(series));
    }

    /// Counts series that ended with their device.
    pub(super) fn evicted(&self, series: usize) {
        self.evicted.add([], count(series));
    }

    /// Counts a scrape that was answered, and shows how long its exposition took to write.
    pub(super) fn scraped(&self, format: Format, took: Duration) {
        self.scrapes.add([format.name()], 1.0);
        self.scrape_duration.set([], took.as_secs_f64());
    }

    /// Shows what the probes cost.
    pub fn costs(&self, costs: &[ProgramCost]) {
        for ProgramCost { program, runs, run_time } in costs {
            self.program_runs.set([program.name()], number(*runs));
            self.program_run_seconds.set([program.name()], run_time.as_secs_f64());
        }
    }
}

/// A number of things that are in memory.
fn count(things: usize) -> f64 {
    u64::try_from(things).map_or(f64::INFINITY, number)
}
