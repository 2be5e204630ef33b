// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the probes hand to the agent, as bytes: the input of the target [`ring`](crate::target::ring), written and read.
//!
//! ```text
//!   script   step, step, …
//!   step     1 byte │ what belongs to it
//!     0      a record of the ring: length u16, bytes
//!     1      the ring was read: now u64, losses 3 u8, skipped u8, emptied u8
//!     2      sums: now u64, how many u8, (device u64, sums) …
//!     3      a sample: as sums, then accesses, latencies, events seen, conduct
//!     4      what a device is: device u64, four texts
//!     5      the probes: a bit each
//!     6      devices that are gone are dropped: now u64, for how long u64
//! ```
//!
//! Records and sums stand in it as the ABI lays them out, so that a mutation hits their numbers.

use crate::pieces::{Pieces, put_part};
use migscope::device_key::DeviceKey;
use migscope::{
    metrics::Info,
    probes::{Standing, attach::Missing},
    sample::{Access, Losses, Sample},
};
use migscope_abi::{
    latency::BUCKETS,
    probe::Probe,
    ring::{
        AccessKey, ConductCounts, ConductRecord, DeviceSums, DirtyQueryRecord, ErrorRecord, Header,
        Kind, Lost, StateRecord,
    },
    trace,
    watch::conduct::Conduct,
};
use std::{collections::BTreeMap, time::Duration};
use zerocopy::{FromBytes as _, IntoBytes};

/// One thing that comes from the probes, or by the clock.
#[derive(Clone, Debug)]
pub enum Step<'a> {
    /// A record of the ring.
    Record(&'a [u8]),
    /// The ring was read.
    Turn(Turn),
    /// The sums of the devices, and when they were read.
    Sums(u64, BTreeMap<DeviceKey, DeviceSums>),
    /// All that the maps hold.
    Sample(Sample),
    /// What a device is.
    Info(DeviceKey, Info),
    /// Which probes there are.
    Probes(Standing),
    /// Devices that are closed for so long are dropped, now.
    Retire(Duration, u64),
}

/// How a reading of the ring ended.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// When, `CLOCK_MONOTONIC` in nanoseconds.
    pub now_ns: u64,
    /// What was lost since the last one; `None` where the counters cannot be read.
    pub lost: Option<Losses>,
    /// Whether the ring was read to its end.
    pub emptied: bool,
}

/// The steps of an input.
pub fn steps(input: &[u8]) -> impl Iterator<Item = Step<'_>> {
    let mut pieces = Pieces(input);
    std::iter::from_fn(move || (!pieces.is_empty()).then(|| step(&mut pieces)))
}

fn step<'a>(pieces: &mut Pieces<'a>) -> Step<'a> {
    match pieces.u8() % 7 {
        0 => Step::Record(pieces.part()),
        1 => {
            let now_ns = pieces.u64();
            let told: [u8; Lost::COUNT] = pieces.array();
            let skipped = pieces.u8();
            let emptied = pieces.u8();
            // 255 stands for what cannot be read.
            let losses = Losses {
                told: told.map(u64::from),
                skipped: (skipped < u8::MAX).then_some(skipped.into()),
            };
            Step::Turn(Turn {
                now_ns,
                lost: (emptied < u8::MAX).then_some(losses),
                emptied: emptied % 2 == 1,
            })
        }
        2 => Step::Sums(pieces.u64(), sums(pieces)),
        3 => Step::Sample(sample(pieces)),
        4 => {
            let device = DeviceKey(pieces.u64());
            let [driver, iommu_group, vm, vm_uuid] = std::array::from_fn(|_| pieces.text());
            Step::Info(device, Info { driver, iommu_group, vm, vm_uuid })
        }
        5 => {
            let bits = pieces.u64();
            let attached = |probe: Probe| match bits >> probe as u32 & 1 {
                1 => Ok(()),
                _ => Err(Missing::new("not here", "none")),
            };
            Step::Probes(Probe::ALL.map(|event| (event, attached(event))).into())
        }
        _ => {
            let now_ns = pieces.u64();
            Step::Retire(Duration::from_nanos(pieces.u64()), now_ns)
        }
    }
}

fn sums(pieces: &mut Pieces<'_>) -> BTreeMap<DeviceKey, DeviceSums> {
    (0..pieces.u8() % 8).map(|_| (DeviceKey(pieces.u64()), device_sums(pieces))).collect()
}

fn device_sums(pieces: &mut Pieces<'_>) -> DeviceSums {
    let bytes: [u8; size_of::<DeviceSums>()] = pieces.array();
    DeviceSums::read_from_bytes(&bytes).unwrap_or_default()
}

fn sample(pieces: &mut Pieces<'_>) -> Sample {
    let at_ns = pieces.u64();
    let devices = sums(pieces);
    let access = |pieces: &mut Pieces<'_>| {
        let (device, field, op_and_refused) = (pieces.u64(), pieces.u32(), pieces.u32());
        Access { key: AccessKey { device, field, op_and_refused }, count: pieces.u64() }
    };
    let accesses = (0..pieces.u8() % 16).map(|_| access(pieces)).collect();
    let latency = |pieces: &mut Pieces<'_>| {
        let (series, sum_ns) = ((pieces.u32(), pieces.u32()), pieces.u64());
        let mut buckets = vec![0; BUCKETS];
        for _ in 0..pieces.u8() % 16 {
            let place = usize::from(pieces.u16()) % BUCKETS;
            let count = pieces.u64();
            if let Some(bucket) = buckets.get_mut(place) {
                *bucket = count;
            }
        }
        (series, (buckets, sum_ns))
    };
    let latencies = (0..pieces.u8() % 8).map(|_| latency(pieces)).collect();
    let seen = std::array::from_fn(|_| pieces.u64());
    let conduct = (0..pieces.u8() % 4)
        .map(|_| {
            let device = DeviceKey(pieces.u64());
            let mut counts = [0; Conduct::COUNT];
            for _ in 0..pieces.u8() % 8 {
                let place = usize::from(pieces.u8()) % Conduct::COUNT;
                let count = pieces.u64();
                if let Some(broken) = counts.get_mut(place) {
                    *broken = count;
                }
            }
            (device, counts)
        })
        .collect();
    Sample { at_ns, devices, accesses, latencies, seen, conduct, ..Sample::default() }
}

/// Writes an input, step by step.
#[derive(Debug, Default)]
pub struct Script {
    bytes: Vec<u8>,
}

impl Script {
    /// The input.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// A record of the ring.
    pub fn record(&mut self, record: &(impl IntoBytes + zerocopy::Immutable)) -> &mut Self {
        self.bytes.push(0);
        put_part(&mut self.bytes, record.as_bytes());
        self
    }

    /// A record of a state.
    pub fn state(&mut self, at_ns: u64, event: trace::State, sums: DeviceSums) -> &mut Self {
        let header = Header { monotonic_ns: at_ns, kind: Kind::State as u32, tgid: 4711 };
        self.record(&StateRecord { header, event, sums })
    }

    /// A record of a dirty query.
    pub fn query(&mut self, at_ns: u64, event: trace::DirtyQuery) -> &mut Self {
        let header = Header { monotonic_ns: at_ns, kind: Kind::DirtyQuery as u32, tgid: 4711 };
        self.record(&DirtyQueryRecord { header, event })
    }

    /// A record of a refusal.
    pub fn error(&mut self, at_ns: u64, event: trace::Error) -> &mut Self {
        let header = Header { monotonic_ns: at_ns, kind: Kind::Error as u32, tgid: 4711 };
        self.record(&ErrorRecord { header, event })
    }

    /// Records of a broken rule of conduct: one of the first time, and one of all.
    pub fn conduct(&mut self, at_ns: u64, device: DeviceKey, rule: Conduct) -> &mut Self {
        let header = |kind: Kind| Header { monotonic_ns: at_ns, kind: kind as u32, tgid: 4711 };
        self.record(&ConductRecord {
            header: header(Kind::Conduct),
            device: device.0,
            offset: 0x18,
            value: 0,
            count: 1,
            rule: rule as u32,
            state: 3,
            field: 4,
            op: 0,
        });
        let mut counts = [0; Conduct::COUNT];
        if let Some(first) = counts.first_mut() {
            *first = 3;
        }
        let header = header(Kind::ConductCounts);
        self.record(&ConductCounts { header, device: device.0, counts })
    }

    /// The ring was read to its end; `ring_full` records were lost so far.
    pub fn turn(&mut self, now_ns: u64, ring_full: u8) -> &mut Self {
        self.bytes.push(1);
        self.bytes.extend(now_ns.to_le_bytes());
        self.bytes.extend([ring_full, 0, 0, 0, 0, 1]);
        self
    }

    /// The sums were read.
    pub fn sums(&mut self, now_ns: u64, devices: &[(DeviceKey, DeviceSums)]) -> &mut Self {
        self.bytes.push(2);
        self.put_sums(now_ns, devices)
    }

    /// The maps were read: three accesses, a latency and a broken rule for each of the devices.
    pub fn sample(&mut self, now_ns: u64, devices: &[(DeviceKey, DeviceSums)]) -> &mut Self {
        self.bytes.push(3);
        self.put_sums(now_ns, devices);
        let count = u8::try_from(devices.len()).expect("a seed has few devices");
        self.bytes.push(count);
        for (device, _) in devices {
            let key = AccessKey { device: device.0, field: 2, op_and_refused: 0 };
            self.bytes.extend(key.as_bytes());
            self.bytes.extend(now_ns.to_le_bytes());
        }
        // One series with two buckets.
        self.bytes.extend([1, 2, 0, 0, 0, 0, 0, 0, 0]);
        self.bytes.extend((now_ns / 16).to_le_bytes());
        self.bytes.push(2);
        for (place, count) in [(40_u16, now_ns / 1024), (64, 1)] {
            self.bytes.extend(place.to_le_bytes());
            self.bytes.extend(count.to_le_bytes());
        }
        for _ in Probe::ALL {
            self.bytes.extend((now_ns / 1000).to_le_bytes());
        }
        self.bytes.push(count);
        for (device, _) in devices {
            self.bytes.extend(device.0.to_le_bytes());
            self.bytes.extend([1, 0]);
            self.bytes.extend(1_u64.to_le_bytes());
        }
        self
    }

    fn put_sums(&mut self, now_ns: u64, devices: &[(DeviceKey, DeviceSums)]) -> &mut Self {
        self.bytes.extend(now_ns.to_le_bytes());
        self.bytes.push(u8::try_from(devices.len()).expect("a seed has few devices"));
        for (device, sums) in devices {
            self.bytes.extend(device.0.to_le_bytes());
            self.bytes.extend(sums.as_bytes());
        }
        self
    }

    /// What a device is.
    pub fn info(&mut self, device: DeviceKey, texts: [&str; 4]) -> &mut Self {
        self.bytes.push(4);
        self.bytes.extend(device.0.to_le_bytes());
        for text in texts {
            put_part(&mut self.bytes, text.as_bytes());
        }
        self
    }

    /// All probes are attached.
    pub fn attached(&mut self) -> &mut Self {
        self.bytes.push(5);
        self.bytes.extend(u64::MAX.to_le_bytes());
        self
    }

    /// Devices that are closed for longer than `keep_ns` are dropped.
    pub fn retire(&mut self, now_ns: u64, keep_ns: u64) -> &mut Self {
        self.bytes.push(6);
        self.bytes.extend(now_ns.to_le_bytes());
        self.bytes.extend(keep_ns.to_le_bytes());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let device = DeviceKey::pci(0, 0, 0x10 << 3);
        let sums = DeviceSums { dirty_pages: 9, ..DeviceSums::default() };
        let mut script = Script::default();
        script.attached().record(&7_u64).turn(5, 2).sums(6, &[(device, sums)]);
        script.sample(1 << 20, &[(device, sums)]).info(device, ["a", "b", "c", ""]).retire(8, 9);
        let script = script.finish();
        let steps: Vec<_> = steps(&script).collect();
        let [
            Step::Probes(_),
            Step::Record(record),
            Step::Turn(turn),
            Step::Sums(6, read),
            Step::Sample(sample),
            Step::Info(described, info),
            Step::Retire(keep, 8),
        ] = &steps[..]
        else {
            panic!("{steps:?}")
        };
        assert_eq!(
            (*record, turn.lost.expect("told").told),
            (&7_u64.to_le_bytes()[..], [2, 0, 0, 0])
        );
        assert_eq!((read.get(&device), sample.devices.get(&device)), (Some(&sums), Some(&sums)));
        assert_eq!(
            (sample.accesses.len(), sample.latencies.len(), sample.conduct.len()),
            (1, 1, 1)
        );
        assert_eq!((*described, info.vm.as_str(), keep.as_nanos()), (device, "c", 9));
    }
}
