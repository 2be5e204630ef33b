// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What Prometheus sees. One file an area; each has a `…Families` that registers the area's families and takes in what it shows.
//!
//! ```text
//!  observer ──▶ device  region  dirty ─┐                           ┌──▶ text 0.0.4
//!               session convergence    ├──▶ families ──▶ gather() ─┤
//!               own ───────────────────┘    (catalog)              └──▶ OpenMetrics, with exemplars
//!                                               └──▶ descriptions ──▶ METRICS.md
//! ```
//!
//! Names are a contract. The kernel side counts in nanoseconds, bytes and pages; here, and nowhere else, they become seconds.
//! A scrape reads what is kept here and asks neither a device nor a map. It waits for nobody but for an update of a single
//! family, which takes no longer than to write its numbers down.

mod catalog;
mod convergence;
mod description;
mod device;
mod dirty;
mod exemplar;
mod family;
mod format;
mod openmetrics;
mod own;
mod region;
mod session;

pub use convergence::{Convergence, ConvergenceFamilies, REASONS};
pub use description::{DEVICES, Description, Kind, LABEL_BYTES, Label, Values};
pub use device::{DeviceFamilies, Info, Remaining};
pub use dirty::DirtyFamilies;
pub use format::Format;
pub use own::OwnFamilies;
pub use region::RegionFamilies;
pub use session::SessionFamilies;

use crate::device_key::DeviceKey;
use crate::{clock::monotonic_ns, latency::Latency};
use catalog::Catalog;
use prometheus::{Encoder, Registry, TextEncoder};
use std::{
    fmt,
    time::{Duration, Instant, SystemTime},
};

/// All families.
pub struct Metrics {
    catalog: Catalog,
    /// States of devices.
    pub device: DeviceFamilies,
    /// The migration region: accesses, data, broken rules.
    pub region: RegionFamilies,
    /// Dirty pages and DMA.
    pub dirty: DirtyFamilies,
    /// Sessions and downtime.
    pub session: SessionFamilies,
    /// Whether migrations converge.
    pub convergence: ConvergenceFamilies,
    /// The agent itself.
    pub own: OwnFamilies,
}

/// Why the metrics could not be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// A family that the text format 0.0.4 cannot show.
    #[error("failed to write the metrics as text")]
    Text(#[source] prometheus::Error),
    /// A number or a label that does not want to be written.
    #[error("failed to write the metrics as OpenMetrics")]
    OpenMetrics(#[source] fmt::Error),
}

impl Metrics {
    /// Registers the families with `registry`.
    pub fn new(registry: Registry) -> Self {
        Self::with_clock(registry, monotonic_zero)
    }

    /// The same with a clock of one's own: `monotonic_zero` tells when `CLOCK_MONOTONIC` was zero, since the Unix epoch.
    pub fn with_clock(registry: Registry, monotonic_zero: fn() -> Duration) -> Self {
        let mut catalog = Catalog::new(registry);
        Self {
            device: DeviceFamilies::register(&mut catalog),
            region: RegionFamilies::register(&mut catalog),
            dirty: DirtyFamilies::register(&mut catalog),
            session: SessionFamilies::register(&mut catalog, monotonic_zero),
            convergence: ConvergenceFamilies::register(&mut catalog),
            own: OwnFamilies::register(&mut catalog),
            catalog,
        }
    }

    /// Drops every series of a device.
    pub fn forget(&self, device: DeviceKey) {
        self.own.evicted(self.catalog.evict(&device.to_string()));
    }

    /// The registry, for what is registered elsewhere (`process_*`).
    pub fn registry(&self) -> &Registry {
        self.catalog.registry()
    }

    /// How many series each family has; a histogram is one.
    pub fn series(&self) -> impl Iterator<Item = (&Description, usize)> {
        self.catalog.series()
    }

    /// The distributions of all histograms, each with its family and the values of its labels.
    pub fn latencies(&self) -> impl Iterator<Item = (&Description, Vec<String>, Latency)> {
        self.catalog.latencies()
    }

    /// The exposition, in the text format 0.0.4.
    ///
    /// # Errors
    ///
    /// [`EncodeError`], on a family that the text format cannot show.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        self.expose(Format::Text)
    }

    /// The exposition.
    ///
    /// # Errors
    ///
    /// [`EncodeError`].
    pub fn expose(&self, format: Format) -> Result<Vec<u8>, EncodeError> {
        // Before the families: an exemplar then is of something that is counted.
        let exemplars = self.catalog.exemplars();
        let families = self.registry().gather();
        match format {
            Format::Text => {
                let mut text = Vec::new();
                TextEncoder::new().encode(&families, &mut text).map_err(EncodeError::Text)?;
                Ok(text)
            }
            Format::OpenMetrics => {
                let text = openmetrics::encode(&families, &exemplars);
                text.map(String::into_bytes).map_err(EncodeError::OpenMetrics)
            }
        }
    }

    /// The exposition for a scraper: it is counted, and the next one tells how long it took.
    ///
    /// # Errors
    ///
    /// [`EncodeError`].
    pub fn scrape(&self, format: Format) -> Result<Vec<u8>, EncodeError> {
        let began = Instant::now();
        self.own.series(self.series().map(|(_, series)| series).sum());
        let text = self.expose(format)?;
        self.own.scraped(format, began.elapsed());
        Ok(text)
    }
}

/// What the families of the agent are, in the order in which the documentation has them.
pub fn describe() -> Vec<Description> {
    Metrics::new(Registry::new()).catalog.descriptions().cloned().collect()
}

/// When `CLOCK_MONOTONIC` was zero. Asked anew each time: the time of day is set now and then.
fn monotonic_zero() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_nanos(monotonic_ns()))
}

/// A count as Prometheus keeps it: exact up to 2^53.
fn number(count: u64) -> f64 {
    count as f64
}

/// Nanoseconds as seconds.
fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}
