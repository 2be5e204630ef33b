// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Dirty pages: what was reported, how the queries went, and the DMA behind it.

use super::{
    family::{Latencies, Numbers},
    number,
};
use crate::{
    dirty::{Account, Source},
    event::DirtyQuery,
    latency::CALL,
    sample::Sample,
    session::Coverage,
};
use migscope_abi::{dirty::Outcome, trace::DmaDirection};
use prometheus::Registry;

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
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            pages: Numbers::counters(
                registry,
                "vfio_migration_dirty_pages_total",
                "Pages reported dirty, in pages of the queries, by who reported them.",
                ["device", "source"],
            ),
            bytes: Numbers::counters(
                registry,
                "vfio_migration_dirty_bytes_total",
                "Memory reported dirty, by who reported it.",
                ["device", "source"],
            ),
            queries: Numbers::counters(
                registry,
                "vfio_migration_dirty_queries_total",
                "Queries for dirty pages: no page (none), every page (all), a bitmap, or an error, after which nothing is known.",
                ["device", "source", "outcome"],
            ),
            query_duration: Latencies::histograms(
                registry,
                "vfio_migration_dirty_query_duration_seconds",
                "How long the driver took to answer a query for dirty pages.",
                ["source"],
                CALL,
            ),
            dma_transfers: Numbers::counters(
                registry,
                "vfio_migration_dma_transfers_total",
                "DMA transfers seen to their end: to_memory dirties pages, from_memory does not.",
                ["device", "direction"],
            ),
            dma_bytes: Numbers::counters(
                registry,
                "vfio_migration_dma_bytes_total",
                "Bytes of the DMA transfers seen to their end.",
                ["device", "direction"],
            ),
        }
    }

    /// Shows what the probes have added up, as far as they are there.
    pub fn show(&self, sample: &Sample, coverage: Coverage) {
        let source = Source::Region.name();
        for (device, sums) in &sample.devices {
            let device = device.to_string();
            if coverage.dirty {
                let account = Account::from(sums);
                self.pages.set([&device, source], number(account.pages));
                self.bytes.set([&device, source], number(account.bytes));
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
        self.query_duration.update([Source::Region.name()], |latency| {
            latency.record(query.duration_ns);
        });
    }

    pub(super) fn forget(&self, device: &str) {
        self.pages.forget(|[known, ..]| known == device);
        self.bytes.forget(|[known, ..]| known == device);
        self.queries.forget(|[known, ..]| known == device);
        self.dma_transfers.forget(|[known, ..]| known == device);
        self.dma_bytes.forget(|[known, ..]| known == device);
    }
}
