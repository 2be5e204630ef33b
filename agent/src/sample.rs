// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the probes had added up at one moment. Every number counts from the moment when the probes were loaded.

use migscope_abi::{
    device::DeviceKey,
    ring::{AccessKey, DeviceSums, Lost},
    rule::Rule,
    trace::Event,
    watch::conduct::Conduct,
};
use std::collections::BTreeMap;

/// Which latency: field and direction, as numbered in the ABI.
pub type LatencySeries = (u32, u32);

/// One reading of the maps.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// When they were read, `CLOCK_MONOTONIC` in nanoseconds.
    pub at_ns: u64,
    /// The sums of each device.
    pub devices: BTreeMap<DeviceKey, DeviceSums>,
    /// Accesses to the regions' fields.
    pub accesses: Vec<Access>,
    /// How often each rule of conduct was broken, by [`Conduct::index`]. Only devices of which a record was seen are here.
    pub conduct: BTreeMap<DeviceKey, [u64; Conduct::COUNT]>,
    /// How often the driver refused by each rule, by [`Rule::index`]. Only devices that refused something are here.
    pub refusals: BTreeMap<DeviceKey, [u64; Rule::COUNT]>,
    /// Durations of accesses: counts by bucket of `migscope_abi::latency`, and their sum in nanoseconds.
    pub latencies: BTreeMap<LatencySeries, (Vec<u64>, u64)>,
    /// How many entries the maps that grow have room for, by name; what the kernel does not tell is not in it.
    pub capacities: BTreeMap<&'static str, u32>,
    /// Records of tracepoints that the probes read, by [`Event`].
    pub seen: [u64; Event::COUNT],
}

/// How often one field of one device was read or written.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Which device, field, direction, and whether refused.
    pub key: AccessKey,
    /// How often.
    pub count: u64,
}

/// What did not reach the agent since the probes were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// What the probes say that they lost, by [`Lost`].
    pub told: [u64; Lost::COUNT],
    /// Runs that the kernel left out because the same probe was running on that CPU; `None` where it does not say.
    pub skipped: Option<u64>,
}

impl Losses {
    /// All of them together; `None` where the kernel does not say what it left out.
    pub fn total(&self) -> Option<u64> {
        let told = self.told.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
        self.skipped.map(|skipped| told.saturating_add(skipped))
    }
}
