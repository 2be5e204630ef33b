// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Dirty pages: what was reported, how the queries went, and the DMA behind it.

use super::{
    catalog::Catalog,
    description::Label,
    family::{About, Latencies, Numbers},
    number,
};
use crate::{
    dirty::{Account, Source, Told},
    event::DirtyQuery,
    latency::CALL,
    sample::Sample,
    session::Coverages,
    state::{Seen, protocol_of, unseen_bitmaps},
};
use migscope_abi::{dirty::Outcome, machine::Tracker, trace::DmaDirection};
use std::collections::BTreeMap;

/// When there is no series of dirty pages.
const ABSENT: &str = "while the probes of the source are missing, and for type1, iommufd and kvm before they were asked";
/// The same of what bitmaps tell.
const UNSEEN: &str = "while the probes of the source are missing, for type1, iommufd and kvm before they were asked, and for region once a bitmap was not seen";

/// Families of dirty pages.
pub struct DirtyFamilies {
    pages: Numbers<2>,
    bytes: Numbers<2>,
    queries: Numbers<3>,
    query_duration: Latencies<1>,
    dma_transfers: Numbers<2>,
    dma_bytes: Numbers<2>,
}

impl DirtyFamilies {
    pub(super) fn register(catalog: &mut Catalog) -> Self {
        let catalog = catalog.area("Dirty pages and DMA");
        Self {
            pages: Numbers::counters(
                catalog,
                About {
                    name: "vfio_migration_dirty_pages_total",
                    help: "Pages reported dirty, in pages of the queries, by who reported them. What type1, iommufd and kvm tell is of the whole machine that has the device: all its devices have the same account (max by machine, not sum), and two sources may tell of the same page.",
                    labels: [
                        Label::device(),
                        Label::one_of("source", Source::ALL.map(Source::name)),
                    ],
                    absent: UNSEEN,
                },
            ),
            bytes: Numbers::counters(
                catalog,
                About {
                    name: "vfio_migration_dirty_bytes_total",
                    help: "Memory reported dirty, by who reported it; type1, iommufd and kvm tell of the whole machine that has the device (max by machine, not sum).",
                    labels: [
                        Label::device(),
                        Label::one_of("source", Source::ALL.map(Source::name)),
                    ],
                    absent: UNSEEN,
                },
            ),
            queries: Numbers::counters(
                catalog,
                About {
                    name: "vfio_migration_dirty_queries_total",
                    help: "Queries for dirty pages: no page (none), every page (all), a bitmap, or an error, after which nothing is known. type1, iommufd and kvm are asked for the whole machine that has the device.",
                    labels: [
                        Label::device(),
                        Label::one_of("source", Source::ALL.map(Source::name)),
                        Label::one_of("outcome", Outcome::ALL.map(Outcome::name)),
                    ],
                    absent: ABSENT,
                },
            ),
            query_duration: Latencies::histograms(
                catalog,
                CALL,
                About {
                    name: "vfio_migration_dirty_query_duration_seconds",
                    help: "How long the driver or the kernel took to answer a query for dirty pages.",
                    labels: [Label::one_of("source", Source::ALL.map(Source::name))],
                    absent: "before the first query",
                },
            ),
            dma_transfers: Numbers::counters(
                catalog,
                About {
                    name: "vfio_migration_dma_transfers_total",
                    help: "DMA transfers seen to their end: to_memory dirties pages, from_memory does not.",
                    labels: [
                        Label::device(),
                        Label::one_of("direction", DmaDirection::ALL.map(DmaDirection::name)),
                    ],
                    absent: "while the probe dma is missing, and for devices of other drivers than ours",
                },
            ),
            dma_bytes: Numbers::counters(
                catalog,
                About {
                    name: "vfio_migration_dma_bytes_total",
                    help: "Bytes of the DMA transfers seen to their end.",
                    labels: [
                        Label::device(),
                        Label::one_of("direction", DmaDirection::ALL.map(DmaDirection::name)),
                    ],
                    absent: "while the probe dma is missing, and for devices of other drivers than ours",
                },
            ),
        }
    }

    /// Shows what the probes have added up, as far as they are there.
    pub fn show(&self, sample: &Sample, coverages: &Coverages) {
        for (device, sums) in &sample.devices {
            let device = device.to_string();
            let protocol = protocol_of(sums);
            let (source, coverage) = (Source::of(protocol).name(), coverages.of(Seen::of(sums)));
            if coverage.dirty {
                let account = Account::from(sums);
                // Of a bitmap that nobody was seen to read the pages are unknown, and so is their sum from then on.
                let known = unseen_bitmaps(sums) == 0;
                self.pages.set_known([&device, source], known.then(|| number(account.pages)));
                self.bytes.set_known([&device, source], known.then(|| number(account.bytes)));
                for outcome in Outcome::ALL {
                    let queries = number(account.queries.of(outcome));
                    self.queries.set([&device, source, outcome.name()], queries);
                }
            }
            if coverage.dma {
                let rows =
                    DmaDirection::ALL.into_iter().zip(sums.dma_transfers).zip(sums.dma_bytes);
                for ((direction, transfers), bytes) in rows {
                    self.dma_transfers.set([&device, direction.name()], number(transfers));
                    self.dma_bytes.set([&device, direction.name()], number(bytes));
                }
            }
        }
    }

    /// Shows under `device` what was told of its machine, as far as it is covered. What was told of `another` machine, which had the device
    /// before, is taken away first.
    pub fn show_machine(
        &self,
        device: &str,
        told: &Told,
        covered: [bool; Tracker::COUNT],
        another: bool,
    ) {
        for ((tracker, sums), covered) in Tracker::ALL.into_iter().zip(told).zip(covered) {
            let source = Source::from(tracker).name();
            if another {
                self.pages.forget(|[of, by]| of == device && by == source);
                self.bytes.forget(|[of, by]| of == device && by == source);
                self.queries.forget(|[of, by, _]| of == device && by == source);
            }
            // It was never asked.
            if !covered || sums.last_seen_ns == 0 {
                continue;
            }
            let account = Account::from(sums);
            self.pages.set([device, source], number(account.pages));
            self.bytes.set([device, source], number(account.bytes));
            for outcome in Outcome::ALL {
                let queries = number(account.queries.of(outcome));
                self.queries.set([device, source, outcome.name()], queries);
            }
        }
    }

    /// Takes in how long the trackers took for their answers, as the probes have added it up.
    pub fn answered(&self, latencies: &BTreeMap<u32, (Vec<u64>, u64)>) {
        for (tracker, (buckets, sum_ns)) in latencies {
            if let Ok(tracker) = Tracker::try_from(*tracker)
                && buckets.iter().any(|count| *count > 0)
            {
                self.query_duration.update([Source::from(tracker).name()], |latency| {
                    latency.fold(buckets, *sum_ns);
                });
            }
        }
    }

    /// Counts the duration of a query.
    pub fn queried(&self, query: &DirtyQuery) {
        self.query_duration.update([query.source.name()], |latency| {
            latency.record(query.duration_ns);
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;
    use migscope_abi::machine::MachineSums;
    use prometheus::Registry;

    const DEVICE: &str = "0000:00:10.0";

    fn shown(metrics: &Metrics) -> Vec<String> {
        let text = String::from_utf8(metrics.encode().expect("encodes")).expect("text");
        let pages =
            text.lines().filter(|line| line.starts_with("vfio_migration_dirty_pages_total"));
        pages.filter_map(|line| Some(line.split_once("source=")?.1.to_owned())).collect()
    }

    #[test]
    fn only_sources_that_are_followed_and_were_asked_are_shown() {
        let metrics = Metrics::new(Registry::new());
        let asked = |pages| MachineSums { pages, last_seen_ns: 1, ..MachineSums::default() };
        let told = [asked(3), asked(4), MachineSums::default()];
        metrics.dirty.show_machine(DEVICE, &told, [true, false, true], false);
        assert_eq!(shown(&metrics), ["\"type1\"} 3"]);
        // Another process has the device now, and asked KVM alone.
        let told = [MachineSums::default(), MachineSums::default(), asked(5)];
        metrics.dirty.show_machine(DEVICE, &told, [true; 3], true);
        assert_eq!(shown(&metrics), ["\"kvm\"} 5"]);
    }
}
