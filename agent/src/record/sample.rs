// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Samples in a recording: what changed since the last one.
//!
//! ```text
//!   sample     devices │ accesses │ latencies │ row of records seen │ conduct │ refusals
//!   accesses   how many │ how many changed │ step to the next that changed, what it is, count …
//!   latencies  how many are gone │ key … │ how many changed │ key, buckets, sum …
//!   buckets    how many │ how many changed │ step, count …
//!   conduct    how many │ device, row of counts …; refusals likewise
//! ```

use super::{
    bytes::{Bad, Bytes, put, put_difference, put_length},
    sums::{DEVICES, Devices, put_row, take_row},
};
use crate::device_key::DeviceKey;
use crate::sample::{Access, LatencySeries, Sample};
use migscope_abi::{probe::Probe, ring::AccessKey};
use std::collections::BTreeMap;

/// Most fields that are counted; the probes have room for half of it.
pub(super) const ACCESSES: usize = 32_768;
/// Most latency series; there are two for each field of the region.
pub(super) const SERIES: usize = 256;
/// Most buckets of one; `migscope_abi::latency` has 272.
pub(super) const BUCKETS: usize = 1024;

/// How often each of `N` rules was broken, by device.
type Broken<const N: usize> = BTreeMap<DeviceKey, [u64; N]>;

/// What was last written or read, on which the next sample builds.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    pub(super) devices: Devices,
    accesses: Vec<Access>,
    latencies: BTreeMap<LatencySeries, (Vec<u64>, u64)>,
    seen: [u64; Probe::COUNT],
}

impl Chain {
    /// Appends what changed.
    ///
    /// # Errors
    ///
    /// More of something than a recording may have; then the chain is as it was.
    pub(super) fn put(&mut self, out: &mut Vec<u8>, sample: &Sample) -> Result<(), Bad> {
        // Its time stands in the frame of the record.
        // How much room the probes' maps have is of the agent, not of a migration.
        let Sample {
            at_ns: _,
            devices,
            accesses,
            conduct,
            refusals,
            latencies,
            seen,
            capacities: _,
        } = sample;
        if accesses.len() > ACCESSES {
            return Err(Bad::TooMany("fields"));
        }
        let long = latencies.values().any(|(buckets, _)| buckets.len() > BUCKETS);
        if conduct.len() > DEVICES || refusals.len() > DEVICES {
            return Err(Bad::TooMany("devices"));
        }
        if latencies.len() > SERIES || long {
            return Err(Bad::TooMany("latencies"));
        }
        self.devices.put(out, devices)?;
        self.put_accesses(out, accesses);
        self.put_latencies(out, latencies);
        put_row(out, seen, &self.seen);
        self.seen = *seen;
        put_broken(out, conduct);
        put_broken(out, refusals);
        Ok(())
    }

    /// Reads a sample that was taken at `at_ns`.
    pub(super) fn take(&mut self, bytes: &mut Bytes<'_>, at_ns: u64) -> Result<Sample, Bad> {
        let devices = self.devices.take(bytes)?;
        self.take_accesses(bytes)?;
        self.take_latencies(bytes)?;
        take_row(bytes, &mut self.seen)?;
        Ok(Sample {
            at_ns,
            devices,
            accesses: self.accesses.clone(),
            latencies: self.latencies.clone(),
            seen: self.seen,
            // Recordings of before these were counted end here.
            conduct: if bytes.is_empty() { Broken::new() } else { take_broken(bytes)? },
            refusals: if bytes.is_empty() { Broken::new() } else { take_broken(bytes)? },
            ..Sample::default()
        })
    }

    fn put_accesses(&mut self, out: &mut Vec<u8>, accesses: &[Access]) {
        let entry = |access: &Access| {
            let Access { key: AccessKey { device, field, op_and_refused }, count } = *access;
            (device, u64::from(field), u64::from(op_and_refused), count)
        };
        let changed: Vec<_> = accesses
            .iter()
            .enumerate()
            .filter(|(place, access)| self.accesses.get(*place).map(entry) != Some(entry(access)))
            .collect();
        put_length(out, accesses.len());
        put_length(out, changed.len());
        let mut next = 0;
        for (place, access) in changed {
            put_length(out, place - next);
            next = place + 1;
            let before = self.accesses.get(place);
            let before = before.filter(|before| before.key == access.key);
            let (device, field, op_and_refused, count) = entry(access);
            put(out, u64::from(before.is_none()));
            if before.is_none() {
                put(out, device);
                put(out, field);
                put(out, op_and_refused);
            }
            put_difference(out, count, before.map_or(0, |before| before.count));
        }
        self.accesses = accesses.to_vec();
    }

    fn take_accesses(&mut self, bytes: &mut Bytes<'_>) -> Result<(), Bad> {
        let length = bytes.length("fields", ACCESSES)?;
        self.accesses.truncate(length);
        let mut next = 0_usize;
        for _ in 0..bytes.length("fields", ACCESSES)? {
            let place = next.saturating_add(bytes.length("fields", ACCESSES)?);
            next = place.saturating_add(1);
            let known = self.accesses.len();
            let before = self.accesses.get_mut(place);
            if bytes.number()? == 0 {
                let before = before.ok_or(Bad::Place)?;
                before.count = bytes.after(before.count)?;
                continue;
            }
            let device = bytes.number()?;
            let field = bytes.small("field")?;
            let op_and_refused = bytes.small("direction")?;
            let key = AccessKey { device, field, op_and_refused };
            let access = Access { key, count: bytes.after(0)? };
            match before {
                Some(before) => *before = access,
                None if place == known => self.accesses.push(access),
                None => return Err(Bad::Place),
            }
        }
        if self.accesses.len() == length { Ok(()) } else { Err(Bad::Place) }
    }

    fn put_latencies(
        &mut self,
        out: &mut Vec<u8>,
        latencies: &BTreeMap<LatencySeries, (Vec<u64>, u64)>,
    ) {
        let put_key = |out: &mut Vec<u8>, (field, op): LatencySeries| {
            put(out, field.into());
            put(out, op.into());
        };
        let gone: Vec<_> =
            self.latencies.keys().filter(|key| !latencies.contains_key(key)).copied().collect();
        put_length(out, gone.len());
        for key in gone {
            put_key(out, key);
            self.latencies.remove(&key);
        }
        let changed = || latencies.iter().filter(|(key, now)| self.latencies.get(key) != Some(now));
        put_length(out, changed().count());
        let none = (Vec::new(), 0);
        for (key, (buckets, sum_ns)) in changed() {
            let (buckets_before, sum_before_ns) = self.latencies.get(key).unwrap_or(&none);
            put_key(out, *key);
            put_buckets(out, buckets, buckets_before);
            put_difference(out, *sum_ns, *sum_before_ns);
        }
        self.latencies.clone_from(latencies);
    }

    fn take_latencies(&mut self, bytes: &mut Bytes<'_>) -> Result<(), Bad> {
        let key = |bytes: &mut Bytes<'_>| Ok((bytes.small("field")?, bytes.small("direction")?));
        for _ in 0..bytes.length("latencies", SERIES)? {
            self.latencies.remove(&key(bytes)?).ok_or(Bad::Place)?;
        }
        for _ in 0..bytes.length("latencies", SERIES)? {
            let (buckets, sum_ns) = self.latencies.entry(key(bytes)?).or_default();
            take_buckets(bytes, buckets)?;
            *sum_ns = bytes.after(*sum_ns)?;
        }
        if self.latencies.len() <= SERIES { Ok(()) } else { Err(Bad::TooMany("latencies")) }
    }
}

/// Each device with its row; rules that were never broken, as most are, take one byte together.
fn put_broken<const N: usize>(out: &mut Vec<u8>, broken: &Broken<N>) {
    put_length(out, broken.len());
    for (device, counts) in broken {
        put(out, device.0);
        put_row(out, counts, &[0; N]);
    }
}

fn take_broken<const N: usize>(bytes: &mut Bytes<'_>) -> Result<Broken<N>, Bad> {
    let mut broken = Broken::new();
    for _ in 0..bytes.length("devices", DEVICES)? {
        let device = DeviceKey(bytes.number()?);
        let mut counts = [0; N];
        take_row(bytes, &mut counts)?;
        broken.insert(device, counts);
    }
    Ok(broken)
}

fn put_buckets(out: &mut Vec<u8>, now: &[u64], before: &[u64]) {
    let before = before.iter().copied().chain(std::iter::repeat(0));
    let changed: Vec<_> =
        now.iter().zip(before).enumerate().filter(|(_, (now, before))| *now != before).collect();
    put_length(out, now.len());
    put_length(out, changed.len());
    let mut next = 0;
    for (place, (now, before)) in changed {
        put_length(out, place - next);
        put_difference(out, *now, before);
        next = place + 1;
    }
}

fn take_buckets(bytes: &mut Bytes<'_>, buckets: &mut Vec<u64>) -> Result<(), Bad> {
    buckets.resize(bytes.length("buckets", BUCKETS)?, 0);
    let mut next = 0_usize;
    for _ in 0..bytes.length("buckets", BUCKETS)? {
        let place = next.saturating_add(bytes.length("buckets", BUCKETS)?);
        let bucket = buckets.get_mut(place).ok_or(Bad::Place)?;
        *bucket = bytes.after(*bucket)?;
        next = place.saturating_add(1);
    }
    Ok(())
}
