// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What Prometheus sees. One file an area; each has a `…Families` that registers the area's families and takes in what it shows.
//!
//! Names are a contract. The kernel side counts in nanoseconds, bytes and pages; here, and nowhere else, they become seconds.
//! A scrape reads what is kept here and asks neither a device nor a map.

mod device;
mod dirty;
mod family;
mod own;
mod region;
mod session;

pub use device::{DeviceFamilies, Info};
pub use dirty::DirtyFamilies;
pub use own::OwnFamilies;
pub use region::RegionFamilies;
pub use session::SessionFamilies;

use migscope_abi::device::DeviceKey;
use prometheus::{Encoder, Registry, TextEncoder};
use std::time::Duration;

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All families.
pub struct Metrics {
    registry: Registry,
    /// States of devices.
    pub device: DeviceFamilies,
    /// The migration region: accesses, data, broken rules.
    pub region: RegionFamilies,
    /// Dirty pages and DMA.
    pub dirty: DirtyFamilies,
    /// Sessions and downtime.
    pub session: SessionFamilies,
    /// The agent itself.
    pub own: OwnFamilies,
}

/// Why the metrics could not be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write the metrics as text")]
pub struct EncodeError(#[source] prometheus::Error);

impl Metrics {
    /// Registers the families with `registry`.
    pub fn new(registry: Registry) -> Self {
        Self {
            device: DeviceFamilies::register(&registry),
            region: RegionFamilies::register(&registry),
            dirty: DirtyFamilies::register(&registry),
            session: SessionFamilies::register(&registry),
            own: OwnFamilies::register(&registry),
            registry,
        }
    }

    /// Drops every series of a device.
    pub fn forget(&self, device: DeviceKey) {
        let device = device.to_string();
        self.device.forget(&device);
        self.region.forget(&device);
        self.dirty.forget(&device);
    }

    /// The registry, for what is registered elsewhere (`process_*`).
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The exposition, in the text format 0.0.4.
    ///
    /// # Errors
    ///
    /// [`EncodeError`], on a family that the text format cannot show.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).map_err(EncodeError)?;
        Ok(text)
    }
}

/// A count as Prometheus keeps it: exact up to 2^53.
fn number(count: u64) -> f64 {
    count as f64
}

/// Nanoseconds as seconds.
fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}
