// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Dirty pages: what was reported, how the queries went, and the DMA behind it.

use super::{
    catalog::Catalog,
    description::Label,
    family::{About, Latencies, Numbers},
    number,
};
use crate::{
    dirty::{Account, Source},
    event::DirtyQuery,
    latency::CALL,
    sample::Sample,
    session::Coverages,
    state::{Seen, protocol_of, unseen_bitmaps},
};
use migscope_abi::{dirty::Outcome, trace::DmaDirection};

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
                    help: "Pages reported dirty, in pages of the queries, by who reported them.",
                    labels: [
                        Label::device(),
                        Label::one_of("source", Source::ALL.map(Source::name)),
                    ],
                    absent: "while the probe dirty_query, region_return or device_ioctl_return is missing; once a bitmap was not seen",
                },
            ),
            bytes: Numbers::counters(
                catalog,
                About {
                    name: "vfio_migration_dirty_bytes_total",
                    help: "Memory reported dirty, by who reported it.",
                    labels: [
                        Label::device(),
                        Label::one_of("source", Source::ALL.map(Source::name)),
                    ],
                    absent: "while the probe dirty_query, region_return or device_ioctl_return is missing; once a bitmap was not seen",
                },
            ),
            queries: Numbers::counters(
                catalog,
                About {
                    name: "vfio_migration_dirty_queries_total",
                    help: "Queries for dirty pages: no page (none), every page (all), a bitmap, or an error, after which nothing is known.",
                    labels: [
                        Label::device(),
                        Label::one_of("source", Source::ALL.map(Source::name)),
                        Label::one_of("outcome", Outcome::ALL.map(Outcome::name)),
                    ],
                    absent: "while the probe dirty_query, region_return or device_ioctl_return is missing",
                },
            ),
            query_duration: Latencies::histograms(
                catalog,
                CALL,
                About {
                    name: "vfio_migration_dirty_query_duration_seconds",
                    help: "How long the driver took to answer a query for dirty pages.",
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

    /// Counts the duration of a query.
    pub fn queried(&self, query: &DirtyQuery) {
        self.query_duration.update([query.source.name()], |latency| {
            latency.record(query.duration_ns);
        });
    }
}
