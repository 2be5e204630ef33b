// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The maps in which the probes add up. Names, keys and values are those of `ebpf/src/maps.rs`.

use super::rest::Rest;
use crate::device_key::{DeviceKey, RawKey};
use crate::{
    clock::monotonic_ns,
    dirty::Told,
    sample::{Access, LatencySeries, Sample},
};
use aya::{
    Ebpf,
    maps::{
        Array, HashMap, Map, MapData, MapError as AyaMapError, PerCpuArray, PerCpuHashMap,
        PerCpuValues, ProgramArray,
    },
    programs::Program,
};
use migscope_abi::{
    device::NAME_BYTES,
    latency::BUCKETS,
    machine::{MachineKey, MachineSums, Tracker},
    outside::{Outside, RegionOffsets},
    probe::{FileOp, Probe, Subsystem},
    region::{Field, Op},
    ring::{AccessKey, Conducted, DeviceSums, Losses, latency_series},
    rule::Rule,
    tracking::TrackingOffsets,
    v2::Offsets,
};
use std::collections::BTreeMap;

/// Why a map could not be used.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The object has no map of this name.
    #[error("the object has no map named {0}")]
    Absent(&'static str),
    /// The map has another type, or keys or values of another size.
    #[error("the map {0} is of another shape than this agent knows")]
    Shape(&'static str, #[source] AyaMapError),
    /// The kernel refused to write to it.
    #[error("failed to write to the map {0}")]
    Write(&'static str, #[source] AyaMapError),
    /// A program that a map is to hold is not loaded.
    #[error("the program {0} is not loaded")]
    Unloaded(&'static str),
    /// The kernel refused to read it.
    #[error("failed to read the map {0}")]
    Read(&'static str, #[source] AyaMapError),
}

/// Takes a map out of the object, by name.
pub(super) fn take<M: TryFrom<Map, Error = AyaMapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, MapError> {
    let map = ebpf.take_map(name).ok_or(MapError::Absent(name))?;
    M::try_from(map).map_err(|error| MapError::Shape(name, error))
}

/// How many entries a hash map has room for, as the kernel says.
fn capacity(ebpf: &Ebpf, name: &str) -> Option<u32> {
    match ebpf.map(name)? {
        Map::HashMap(map) | Map::PerCpuHashMap(map) => Some(map.info().ok()?.max_entries()),
        _ => None,
    }
}

/// Latency series of devices that tracepoints tell of; those of devices that are seen from outside come after them.
const LATENCY_SERIES: u32 = 2 * 12;
const _: () = assert!(LATENCY_SERIES as usize == Op::COUNT * Field::COUNT);

/// The maps of loaded probes.
pub struct Maps {
    /// The last reading of all maps, and whether it holds; and of the two kinds of latencies, which are most of it.
    last: Option<Sample>,
    rest: Rest,
    accesses_rest: Rest,
    queries_rest: Rest,
    device_sums: HashMap<MapData, u64, DeviceSums>,
    conduct: HashMap<MapData, u64, Conducted>,
    refusals: PerCpuHashMap<MapData, u64, [u64; Rule::COUNT]>,
    accesses: PerCpuHashMap<MapData, AccessKey, u64>,
    latency_buckets: PerCpuArray<MapData, [u64; BUCKETS]>,
    latency_sum_ns: PerCpuArray<MapData, u64>,
    lost: PerCpuArray<MapData, Losses>,
    seen: PerCpuArray<MapData, [u64; Probe::COUNT]>,
    offsets: Array<MapData, Offsets>,
    region_offsets: Array<MapData, RegionOffsets>,
    regions: HashMap<MapData, u64, Outside>,
    region_watch: Array<MapData, u64>,
    region_tail: ProgramArray<MapData>,
    device_names: HashMap<MapData, u64, [u8; NAME_BYTES]>,
    data_operations: HashMap<MapData, u64, u32>,
    machine_sums: HashMap<MapData, MachineKey, MachineSums>,
    tracker_buckets: PerCpuArray<MapData, [u64; BUCKETS]>,
    tracker_sum_ns: PerCpuArray<MapData, u64>,
    tracking_offsets: Array<MapData, TrackingOffsets>,
    capacities: BTreeMap<&'static str, u32>,
}

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, MapError> {
        let growing = ["DEVICE_SUMS", "ACCESSES"];
        let capacities = growing.into_iter().filter_map(|name| Some((name, capacity(ebpf, name)?)));
        Ok(Self {
            last: None,
            rest: Rest::default(),
            accesses_rest: Rest::default(),
            queries_rest: Rest::default(),
            capacities: capacities.collect(),
            device_sums: take(ebpf, "DEVICE_SUMS")?,
            conduct: take(ebpf, "CONDUCT")?,
            refusals: take(ebpf, "REFUSALS")?,
            accesses: take(ebpf, "ACCESSES")?,
            latency_buckets: take(ebpf, "LATENCY_BUCKETS")?,
            latency_sum_ns: take(ebpf, "LATENCY_SUM_NS")?,
            lost: take(ebpf, "LOST")?,
            seen: take(ebpf, "SEEN")?,
            offsets: take(ebpf, "OFFSETS")?,
            region_offsets: take(ebpf, "REGION_OFFSETS")?,
            regions: take(ebpf, "REGIONS")?,
            region_watch: take(ebpf, "REGION_WATCH")?,
            region_tail: take(ebpf, "REGION_TAIL")?,
            device_names: take(ebpf, "DEVICE_NAMES")?,
            data_operations: take(ebpf, "DATA_OPS")?,
            machine_sums: take(ebpf, "MACHINE_SUMS")?,
            tracker_buckets: take(ebpf, "TRACKER_BUCKETS")?,
            tracker_sum_ns: take(ebpf, "TRACKER_SUM_NS")?,
            tracking_offsets: take(ebpf, "TRACKING_OFFSETS")?,
        })
    }

    /// How many devices have a place of their own; `None` where the kernel does not tell.
    pub fn room_for_devices(&self) -> Option<usize> {
        usize::try_from(*self.capacities.get("DEVICE_SUMS")?).ok()
    }

    /// What was lost since the probes were loaded.
    ///
    /// # Errors
    ///
    /// [`MapError::Read`].
    pub fn lost(&self) -> Result<Losses, MapError> {
        let cpus = self.lost.get(&0, 0).map_err(|error| MapError::Read("LOST", error))?;
        let mut lost = Losses::default();
        for of_cpu in cpus.iter() {
            lost.iter_mut().zip(of_cpu).for_each(|(sums, row)| add(sums, row));
        }
        Ok(lost)
    }

    /// How much each program has seen.
    fn seen(&self) -> Result<[u64; Probe::COUNT], MapError> {
        let cpus = self.seen.get(&0, 0).map_err(|error| MapError::Read("SEEN", error))?;
        let mut seen = [0; Probe::COUNT];
        cpus.iter().for_each(|row| add(&mut seen, row));
        Ok(seen)
    }

    /// Everything that is added up: one entry for each device, some ten for each that has migrated, and some fifty others.
    ///
    /// Nothing changes in the maps but by a record. On a host with many devices, none of which migrates, that would be ten thousand
    /// system calls a second for what is known; so while no record comes the last reading holds.
    ///
    /// # Errors
    ///
    /// [`MapError::Read`]: then nothing is known, which is not the same as nothing being there.
    pub fn sample(&mut self) -> Result<Sample, MapError> {
        let now_ns = monotonic_ns();
        let seen = self.seen()?;
        let holds = self.rest.holds(records(&seen, |_| true), now_ns);
        if let Some(last) = &mut self.last
            && holds
        {
            last.at_ns = now_ns;
            return Ok(last.clone());
        }
        let sample = self.read(now_ns, seen)?;
        self.rest.was_read(now_ns);
        self.last = Some(sample.clone());
        Ok(sample)
    }

    fn read(&mut self, at_ns: u64, seen: [u64; Probe::COUNT]) -> Result<Sample, MapError> {
        let last = self.last.take();
        let mut sample = Sample {
            at_ns,
            devices: self.device_sums()?,
            seen,
            capacities: self.capacities.clone(),
            ..Sample::default()
        };
        for entry in self.conduct.iter() {
            let (raw, conducted) = entry.map_err(|error| MapError::Read("CONDUCT", error))?;
            let counts = sample.conduct.entry(self.device(RawKey(raw))).or_insert([0; _]);
            add(counts, &conducted.total);
        }
        for entry in self.refusals.iter() {
            let (device, rows) = entry.map_err(|error| MapError::Read("REFUSALS", error))?;
            let mut sums = [0; Rule::COUNT];
            rows.iter().for_each(|row| add(&mut sums, row));
            sample.refusals.insert(DeviceKey(device), sums);
        }
        sample.accesses = self.all_accesses()?;
        sample.machines = self.machines()?;
        let (latencies, query_latencies) =
            last.map(|last| (last.latencies, last.query_latencies)).unzip();
        let of_accesses = |probe| matches!(probe, Probe::RegionAccess | Probe::RegionReturn);
        let hold = self.accesses_rest.holds(records(&seen, of_accesses), at_ns);
        sample.latencies = match latencies {
            Some(latencies) if hold => latencies,
            _ => self.latencies(at_ns)?,
        };
        let of_queries = |probe: Probe| probe.subsystem() != Subsystem::Vfio;
        let hold = self.queries_rest.holds(records(&seen, of_queries), at_ns);
        sample.query_latencies = match query_latencies {
            Some(latencies) if hold => latencies,
            _ => self.query_latencies(at_ns)?,
        };
        Ok(sample)
    }

    /// Durations of accesses, by field and direction.
    fn latencies(
        &mut self,
        at_ns: u64,
    ) -> Result<BTreeMap<LatencySeries, (Vec<u64>, u64)>, MapError> {
        let mut latencies = BTreeMap::new();
        for (field, op) in Field::ALL.into_iter().flat_map(|field| Op::ALL.map(|op| (field, op))) {
            let series = latency_series(field as u32, op as u32);
            let mut buckets = vec![0_u64; BUCKETS];
            let mut sum_ns = 0_u64;
            // Of devices that tracepoints tell of, and of those that are seen from outside.
            for series in [series, series + LATENCY_SERIES] {
                let counts = self
                    .latency_buckets
                    .get(&series, 0)
                    .map_err(|error| MapError::Read("LATENCY_BUCKETS", error))?;
                let sums = self
                    .latency_sum_ns
                    .get(&series, 0)
                    .map_err(|error| MapError::Read("LATENCY_SUM_NS", error))?;
                counts.iter().for_each(|row| add(&mut buckets, row));
                sum_ns = sum_ns.wrapping_add(total(&sums));
            }
            latencies.insert((field as u32, op as u32), (buckets, sum_ns));
        }
        self.accesses_rest.was_read(at_ns);
        Ok(latencies)
    }

    /// Durations of the queries of each tracker, by its number.
    fn query_latencies(&mut self, at_ns: u64) -> Result<BTreeMap<u32, (Vec<u64>, u64)>, MapError> {
        let mut latencies = BTreeMap::new();
        for tracker in Tracker::ALL {
            let number = tracker as u32;
            let counts = self
                .tracker_buckets
                .get(&number, 0)
                .map_err(|error| MapError::Read("TRACKER_BUCKETS", error))?;
            let sums = self
                .tracker_sum_ns
                .get(&number, 0)
                .map_err(|error| MapError::Read("TRACKER_SUM_NS", error))?;
            let mut buckets = vec![0_u64; BUCKETS];
            counts.iter().for_each(|row| add(&mut buckets, row));
            latencies.insert(number, (buckets, total(&sums)));
        }
        self.queries_rest.was_read(at_ns);
        Ok(latencies)
    }

    /// What trackers told machines, by process.
    fn machines(&self) -> Result<BTreeMap<u32, Told>, MapError> {
        let mut machines: BTreeMap<u32, Told> = BTreeMap::new();
        for entry in self.machine_sums.iter() {
            let (MachineKey { tgid, tracker }, sums) =
                entry.map_err(|error| MapError::Read("MACHINE_SUMS", error))?;
            let told = machines.entry(tgid).or_default();
            let place = usize::try_from(tracker).ok().and_then(|place| told.get_mut(place));
            place.into_iter().for_each(|place| *place = sums);
        }
        Ok(machines)
    }

    /// Drops what was told machines of which nothing was seen since `before_ns` (`CLOCK_MONOTONIC`) and whose processes are gone, as `lives`
    /// says.
    pub fn retire_machines(&mut self, before_ns: u64, lives: impl Fn(u32) -> bool) {
        let old = |told: &Told| told.iter().all(|sums| sums.last_seen_ns < before_ns);
        // Without a reading there is nothing to drop, this time.
        let machines = self.machines().unwrap_or_default();
        for (tgid, _) in machines.into_iter().filter(|(tgid, told)| old(told) && !lives(*tgid)) {
            self.read_anew();
            for tracker in Tracker::ALL {
                // An entry that is not there is as good as one that was removed.
                let _ = self.machine_sums.remove(&MachineKey { tgid, tracker: tracker as u32 });
            }
        }
    }

    /// How often each field of each device was read or written.
    fn all_accesses(&self) -> Result<Vec<Access>, MapError> {
        let mut accesses = Vec::new();
        let mut of_names = Vec::new();
        for entry in self.accesses.iter() {
            let (key, counts) = entry.map_err(|error| MapError::Read("ACCESSES", error))?;
            let device = self.device(RawKey(key.device)).0;
            let access = Access { key: AccessKey { device, ..key }, count: total(&counts) };
            let known_otherwise = device != key.device;
            if known_otherwise { &mut of_names } else { &mut accesses }.push(access);
        }
        // A device may have been seen in both ways, one after the other.
        for access in of_names {
            match accesses.iter_mut().find(|known| known.key == access.key) {
                Some(known) => known.count = known.count.wrapping_add(access.count),
                None => accesses.push(access),
            }
        }
        Ok(accesses)
    }

    /// Reads the sums of the devices alone.
    ///
    /// # Errors
    ///
    /// [`MapError::Read`], as for [`Maps::sample`].
    pub fn device_sums(&self) -> Result<BTreeMap<DeviceKey, DeviceSums>, MapError> {
        let mut found: BTreeMap<DeviceKey, DeviceSums> = BTreeMap::new();
        for entry in self.device_sums.iter() {
            let (raw, sums) = entry.map_err(|error| MapError::Read("DEVICE_SUMS", error))?;
            let device = self.device(RawKey(raw));
            // A device that was given to another driver has sums from before; what it does now is in the newer ones.
            let newer = found.get(&device).is_none_or(|at| at.last_seen_ns <= sums.last_seen_ns);
            if newer {
                found.insert(device, sums);
            }
        }
        Ok(found)
    }

    /// Tells the probes where the fields of the kernel's structures are.
    ///
    /// # Errors
    ///
    /// [`MapError::Write`].
    pub fn tell_offsets(&mut self, offsets: &Offsets) -> Result<(), MapError> {
        self.offsets.set(0, offsets, 0).map_err(|error| MapError::Write("OFFSETS", error))
    }

    /// Tells the probes where the fields of structures of iommufd and KVM are.
    ///
    /// # Errors
    ///
    /// [`MapError::Write`].
    pub fn tell_tracking_offsets(&mut self, offsets: &TrackingOffsets) -> Result<(), MapError> {
        self.tracking_offsets
            .set(0, offsets, 0)
            .map_err(|error| MapError::Write("TRACKING_OFFSETS", error))
    }

    /// Tells the probes where the fields are that lead to regions.
    ///
    /// # Errors
    ///
    /// [`MapError::Write`].
    pub fn tell_region_offsets(&mut self, offsets: &RegionOffsets) -> Result<(), MapError> {
        let told = self.region_offsets.set(0, offsets, 0);
        told.map_err(|error| MapError::Write("REGION_OFFSETS", error))
    }

    /// Tells the program for the end of an access which one to go on with.
    ///
    /// # Errors
    ///
    /// [`MapError::Write`].
    pub fn go_on_with(&mut self, program: &Program, probe: Probe) -> Result<(), MapError> {
        let unloaded = || MapError::Unloaded(probe.name());
        let descriptor = program.fd().map_err(|_not_loaded| unloaded())?;
        let told = self.region_tail.set(0, descriptor, 0);
        told.map_err(|error| MapError::Write("REGION_TAIL", error))
    }

    /// Whether a device is open that has a migration region which no tracepoint tells of.
    ///
    /// # Errors
    ///
    /// [`MapError::Read`].
    pub fn has_regions(&self) -> Result<bool, MapError> {
        let first = self.regions.keys().next().transpose();
        first.map(|key| key.is_some()).map_err(|error| MapError::Read("REGIONS", error))
    }

    /// Tells the probes that all accesses are watched from now on, by the number of this watch; 0 is that they are not.
    ///
    /// # Errors
    ///
    /// [`MapError::Write`].
    pub fn watch_regions(&mut self, number: u64) -> Result<(), MapError> {
        let told = self.region_watch.set(0, number, 0);
        told.map_err(|error| MapError::Write("REGION_WATCH", error))
    }

    /// The functions that files for device data were seen to point to, by address.
    ///
    /// # Errors
    ///
    /// [`MapError::Read`].
    pub fn data_operations(&self) -> Result<BTreeMap<u64, FileOp>, MapError> {
        let mut found = BTreeMap::new();
        for entry in self.data_operations.iter() {
            let (address, number) = entry.map_err(|error| MapError::Read("DATA_OPS", error))?;
            let op = FileOp::ALL.into_iter().find(|op| *op as u32 == number);
            found.extend(op.map(|op| (address, op)));
        }
        Ok(found)
    }

    /// The device that a probe means, by its name if the probe told one.
    pub fn device(&self, raw: RawKey) -> DeviceKey {
        if !raw.is_known()
            && let Some(name) = self.name(raw)
        {
            // What cannot be a name is shown by its key.
            let _ = DeviceKey::named(&name);
        }
        raw.device()
    }

    fn name(&self, raw: RawKey) -> Option<String> {
        let bytes = self.device_names.get(&raw.0, 0).ok()?;
        let length = bytes.iter().position(|byte| *byte == 0)?;
        let name = bytes.get(..length)?;
        Some(String::from_utf8_lossy(name).into_owned())
    }

    /// The last reading holds no more, for what it was of is changed from here.
    fn read_anew(&mut self) {
        self.last = None;
        self.rest.is_over();
    }

    /// Drops what was added up for a device that is gone, so that the maps have room for others.
    pub fn forget(&mut self, device: DeviceKey) {
        self.read_anew();
        // An entry that is not there is as good as one that was removed.
        for raw in device.raw() {
            let _ = self.device_sums.remove(&raw.0);
            let _ = self.device_names.remove(&raw.0);
            let _ = self.conduct.remove(&raw.0);
            let _ = self.refusals.remove(&raw.0);
            let _ = self.regions.remove(&raw.0);
        }
        let of_device = |key: &AccessKey| device.raw().contains(&RawKey(key.device));
        let keys: Vec<_> = self.accesses.keys().flatten().filter(of_device).collect();
        for key in keys {
            let _ = self.accesses.remove(&key);
        }
    }
}

/// How many records the probes of a kind have seen.
fn records(seen: &[u64; Probe::COUNT], of: impl Fn(Probe) -> bool) -> u64 {
    let rows = Probe::ALL.into_iter().zip(seen).filter(|(probe, _)| of(*probe));
    rows.fold(0, |sum, (_, count)| sum.wrapping_add(*count))
}

/// Adds one CPU's row to the sums of all.
fn add(sums: &mut [u64], row: &[u64]) {
    for (sum, count) in sums.iter_mut().zip(row) {
        *sum = sum.wrapping_add(*count);
    }
}

fn total(values: &PerCpuValues<u64>) -> u64 {
    values.iter().fold(0, |sum, value| sum.wrapping_add(*value))
}
