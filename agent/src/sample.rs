// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the probes had added up at one moment. Every number counts from the moment when the probes were loaded.

use crate::device_key::DeviceKey;
use migscope_abi::{
    probe::Probe,
    ring::{AccessKey, DeviceSums, Lost},
    rule::Rule,
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
    /// Records of tracepoints that the probes read, by [`Probe`].
    pub seen: [u64; Probe::COUNT],
}

impl Sample {
    /// This sample without what was the same in `earlier`, or at least most of it: what has to be shown again.
    pub fn news_since(&self, earlier: &Self) -> Self {
        let mut news = self.clone();
        news.devices.retain(|device, sums| earlier.devices.get(device) != Some(sums));
        news.conduct.retain(|device, counts| earlier.conduct.get(device) != Some(counts));
        // A map is read in the same order again, as long as nothing comes or goes.
        let mut before = earlier.accesses.iter();
        news.accesses.retain(|access| before.next() != Some(access));
        news
    }
}

/// How often one field of one device was read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Those that may have been of any device: all but those for which a map had no room ([`Lost::MapFull`]), which are not of the
    /// devices that have a place in it.
    pub fn of_any_device(mut self) -> Self {
        for (reason, count) in Lost::ALL.into_iter().zip(&mut self.told) {
            if reason == Lost::MapFull {
                *count = 0;
            }
        }
        Self { skipped: Some(self.skipped.unwrap_or(0)), ..self }
    }

    /// All of them together; `None` where the kernel does not say what it left out.
    pub fn total(&self) -> Option<u64> {
        let told = self.told.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
        self.skipped.map(|skipped| told.saturating_add(skipped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(device: u64, count: u64) -> Access {
        Access { key: AccessKey { device, field: 2, op_and_refused: 0 }, count }
    }

    fn sample(pending_bytes: [u64; 2], counts: &[u64]) -> Sample {
        let sums = pending_bytes
            .map(|pending_bytes| DeviceSums { pending_bytes, ..DeviceSums::default() });
        Sample {
            devices: (1..).map(DeviceKey).zip(sums).collect(),
            accesses: (1..).zip(counts).map(|(device, count)| access(device, *count)).collect(),
            conduct: [(DeviceKey(1), [pending_bytes[0]; Conduct::COUNT])].into(),
            ..Sample::default()
        }
    }

    #[test]
    fn news_are_what_has_changed_or_come() {
        let earlier = sample([5, 6], &[1, 2]);
        let same = earlier.news_since(&earlier);
        assert!(same.devices.is_empty() && same.accesses.is_empty() && same.conduct.is_empty());
        let news = sample([5, 7], &[1, 3, 1]).news_since(&earlier);
        assert_eq!(news.devices.keys().collect::<Vec<_>>(), [&DeviceKey(2)]);
        assert_eq!(news.accesses, [access(2, 3), access(3, 1)]);
        assert!(news.conduct.is_empty());
        let news = sample([6, 6], &[2]).news_since(&earlier);
        assert_eq!(news.devices.keys().collect::<Vec<_>>(), [&DeviceKey(1)]);
        assert_eq!((news.accesses.len(), news.conduct.len()), (1, 1));
    }

    #[test]
    fn an_entry_that_went_hides_none_that_changed() {
        let earlier = sample([0, 0], &[1, 2, 3]);
        let mut later = sample([0, 0], &[1, 2, 4]);
        later.accesses.remove(0);
        assert_eq!(later.news_since(&earlier).accesses, [access(2, 2), access(3, 4)]);
    }
}
