// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One host with an agent: what its probes would tell of migrations, and what the agent exposes of it.

use migscope::device_key::DeviceKey;
use migscope::{
    dirty::Told,
    event::{Event, Machine, StateChange},
    feed::Describe,
    metrics::{Info, Metrics},
    observer::Observer,
    probes::{Standing, attach::Missing, stats::ProgramCost},
    sample::{Access, Losses, Sample},
    state::{self, State},
};
use migscope_abi::{
    latency::BUCKETS,
    machine::{MachineSums, Tracker},
    probe::{Probe, Target},
    region::{Field, Op},
    ring::{AccessKey, Left, STATE_CLOSED},
    state::Cause,
};
use prometheus::{Registry, process_collector::ProcessCollector};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

pub(crate) const SECOND_NS: u64 = 1_000_000_000;
const MIB: u64 = 1 << 20;

/// What kind of devices the host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Of a vendor's driver, on a kernel that has nothing of ours.
    V2,
    /// Of the driver vfio_mediate.
    Region,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::Region => "region",
        }
    }

    fn of_events(self) -> state::Protocol {
        match self {
            Self::V2 => state::Protocol::V2,
            Self::Region => state::Protocol::Region,
        }
    }

    /// The states of a source from the beginning to the stop of its device, and after it.
    fn source(self) -> (&'static [State], &'static [State]) {
        use State::{PreCopy, PreCopyP2p, Running, StopAndCopy, Stopped};
        match self {
            Self::V2 => (&[Running, PreCopy], &[PreCopyP2p, StopAndCopy, Stopped]),
            Self::Region => (&[Running, PreCopy], &[StopAndCopy, Stopped]),
        }
    }

    /// Those of a destination.
    fn destination(self) -> (&'static [State], &'static [State]) {
        use State::{Resuming, Running, RunningP2p, Stopped};
        match self {
            Self::V2 => {
                (&[Running, RunningP2p, Stopped, Resuming], &[Stopped, RunningP2p, Running])
            }
            Self::Region => (&[Running, Resuming], &[Running]),
        }
    }
}

/// A host's answers: each process is a machine of its own.
struct Answers;

impl Describe for Answers {
    fn describe(&self, device: DeviceKey, tgid: Option<u32>) -> Option<Info> {
        let number = tgid.unwrap_or_default();
        Some(Info {
            driver: "vendor_vfio_pci".into(),
            iommu_group: device.to_string(),
            vm: format!("machine-{number}"),
            vm_uuid: format!("00000000-0000-0000-0000-{number:012}"),
        })
    }

    fn is_present(&self, _device: DeviceKey) -> bool {
        true
    }
}

/// One thing that happens, and when: in seconds from the beginning of the migration.
pub(crate) struct Step {
    at_seconds: u64,
    device: DeviceKey,
    tgid: u32,
    what: What,
}

enum What {
    Change(State, State, Cause),
    /// The device moved data and told what is left.
    Progress {
        saved: u64,
        loaded: u64,
        left: u64,
    },
}

pub(crate) struct Host {
    protocol: Protocol,
    observer: Observer,
    now_ns: u64,
    began_ns: u64,
    sample: Sample,
}

impl Host {
    /// One that has just booted: probes are attached, and no device is open.
    pub(crate) fn new(protocol: Protocol) -> Self {
        let registry = Registry::new();
        let process = Box::new(ProcessCollector::for_self());
        registry.register(process).expect("nothing else is registered");
        let observer = Observer::new(Answers, Arc::new(Metrics::new(registry)));
        let mut host = Self {
            protocol,
            observer,
            now_ns: SECOND_NS,
            began_ns: SECOND_NS,
            sample: Sample::default(),
        };
        host.sample.capacities =
            ["DEVICE_SUMS", "ACCESSES", "MACHINES"].into_iter().map(|map| (map, 1024)).collect();
        let standing = |probe: Probe| match probe.target() {
            Target::Tracepoint(_) if protocol == Protocol::V2 => {
                Err(Missing::new("the module is not loaded", "load it").dormant())
            }
            _ => Ok(()),
        };
        let standing: Standing = Probe::ALL.into_iter().map(|it| (it, standing(it))).collect();
        host.observer.probes(standing);
        let cost = |program| ProgramCost { program, runs: 1, run_time: Duration::from_nanos(100) };
        host.observer.costs(&Probe::ALL.map(cost));
        host.sample();
        host
    }

    /// What a scrape would find, without the values: `name{labels}`.
    pub(crate) fn series(&self) -> BTreeSet<String> {
        let scraped = self.observer.metrics().scrape(migscope::metrics::Format::Text);
        let text = String::from_utf8(scraped.expect("it can be shown")).expect("text");
        let name = |line: &str| Some(line.rsplit_once(' ')?.0.to_owned());
        text.lines().filter(|line| !line.starts_with('#')).filter_map(name).collect()
    }

    /// A machine is started, or moved here earlier, with this device.
    pub(crate) fn open(&mut self, slot: u8, tgid: u32) {
        let device = device(slot);
        self.change(device, tgid, State::Running, State::Running, Cause::Open);
    }

    /// Its machine ends.
    pub(crate) fn close(&mut self, slot: u8, tgid: u32) {
        self.change(device(slot), tgid, State::Running, State::Running, Cause::Close);
    }

    /// One migration away and one back to the same slot, long ago: what they bring for good is there.
    pub(crate) fn warm_up(&mut self, slot: u8, tgid: u32) {
        let mut away = self.source(slot, tgid, 60);
        self.play_to_end(&mut away);
        self.age_out();
        let mut back = self.destination(slot, tgid, 60);
        self.play_to_end(&mut back);
    }

    /// The steps of a migration away from here; the machine ends when it has moved.
    pub(crate) fn source(&self, slot: u8, tgid: u32, seconds: u64) -> VecDeque<Step> {
        let (begin, end) = self.protocol.source();
        let mut steps = changes(slot, tgid, 0, begin);
        for at_seconds in 1..seconds {
            let (saved, left) = (at_seconds * MIB, (seconds - at_seconds) * MIB);
            steps.push_back(step(
                slot,
                tgid,
                at_seconds,
                What::Progress { saved, loaded: 0, left },
            ));
        }
        let from = begin.last().copied().into_iter();
        let end: Vec<_> = from.chain(end.iter().copied()).collect();
        steps.extend(changes(slot, tgid, seconds, &end));
        let closed = What::Change(State::Stopped, State::Running, Cause::Close);
        steps.push_back(step(slot, tgid, seconds + 1, closed));
        steps
    }

    /// The steps of one that comes here; the machine stays.
    pub(crate) fn destination(&self, slot: u8, tgid: u32, seconds: u64) -> VecDeque<Step> {
        let (begin, end) = self.protocol.destination();
        let open = What::Change(State::Running, State::Running, Cause::Open);
        let mut steps = VecDeque::from([step(slot, tgid, 0, open)]);
        steps.extend(changes(slot, tgid, 0, begin));
        for at_seconds in 1..seconds {
            let loaded = at_seconds * MIB;
            steps.push_back(step(
                slot,
                tgid,
                at_seconds,
                What::Progress { saved: 0, loaded, left: 0 },
            ));
        }
        let from = begin.last().copied().into_iter();
        let end: Vec<_> = from.chain(end.iter().copied()).collect();
        steps.extend(changes(slot, tgid, seconds, &end));
        steps
    }

    /// The steps begin now.
    pub(crate) fn begin(&mut self, at_ns: u64) {
        self.now_ns = self.now_ns.max(at_ns);
        self.began_ns = self.now_ns;
    }

    /// Lets everything happen up to `seconds` after the beginning, and reads the maps then.
    pub(crate) fn play_until(&mut self, steps: &mut VecDeque<Step>, seconds: u64) {
        while steps.front().is_some_and(|step| step.at_seconds <= seconds) {
            if let Some(step) = steps.pop_front() {
                self.play(step);
            }
        }
        self.now_ns = self.now_ns.max(self.began_ns + seconds * SECOND_NS);
        self.sample();
    }

    pub(crate) fn play_to_end(&mut self, steps: &mut VecDeque<Step>) {
        let end = steps.back().map_or(0, |step| step.at_seconds);
        self.play_until(steps, end);
        self.began_ns = self.now_ns;
    }

    fn play(&mut self, step: Step) {
        let Step { at_seconds, device, tgid, what } = step;
        self.now_ns = self.now_ns.max(self.began_ns + at_seconds * SECOND_NS) + 1_000_000;
        match what {
            What::Change(from, now, cause) => self.change(device, tgid, from, now, cause),
            What::Progress { saved, loaded, left } => {
                self.progress(device, tgid, saved, loaded, left);
            }
        }
    }

    fn change(&mut self, device: DeviceKey, tgid: u32, from: State, now: State, cause: Cause) {
        let at_ns = self.now_ns;
        let sums = self.sample.devices.entry(device).or_default();
        sums.state = match cause {
            Cause::Close => STATE_CLOSED,
            _ => STATE_OF_EVENTS,
        };
        sums.last_seen_ns = at_ns;
        let sums = *sums;
        let machine = *self.sample.machines.entry(tgid).or_insert_with(|| told(at_ns, 0));
        self.observer.events(&[
            Event::Machine(Machine { device, at_ns, tgid, told: machine }),
            Event::State(StateChange {
                device,
                at_ns,
                tgid,
                protocol: self.protocol.of_events(),
                from,
                requested: (cause == Cause::Write).then_some(now),
                now,
                cause,
                duration_ns: 200_000,
                result: 0,
                sums: Some(sums),
            }),
        ]);
        if cause == Cause::Close {
            self.sample.machines.remove(&tgid);
        }
        self.observer.settled(at_ns);
    }

    fn progress(&mut self, device: DeviceKey, tgid: u32, saved: u64, loaded: u64, left: u64) {
        let at_ns = self.now_ns;
        let sums = self.sample.devices.entry(device).or_default();
        sums.data_bytes = [sums.data_bytes[0].max(saved), sums.data_bytes[1].max(loaded)];
        sums.iterations[usize::from(loaded > 0)] += 1;
        sums.last_seen_ns = at_ns;
        match self.protocol {
            Protocol::V2 => {
                sums.left = Left {
                    initial_bytes: left / 2,
                    dirty_bytes: left / 2,
                    precopy_tellings: sums.left.precopy_tellings + 1,
                    stop_copy_bytes: left,
                    stop_copy_tellings: sums.left.stop_copy_tellings + 1,
                    ..Left::NONE
                };
            }
            Protocol::Region => {
                sums.pending_bytes = left;
                sums.pending_reads += 1;
                accesses(&mut self.sample, device, loaded > 0);
            }
        }
        // The device's own log of its DMA, or the region's.
        if saved > 0 {
            let sums = self.sample.devices.entry(device).or_default();
            sums.dirty_queries[2] += 1;
            sums.dirty_pages += 16;
            sums.dirty_bytes += 65_536;
        }
        self.sample.machines.insert(tgid, told(at_ns, at_ns / SECOND_NS));
        self.observer.settled(at_ns);
        let devices: BTreeMap<_, _> = self.sample.devices.clone();
        self.observer.sums_read(at_ns, &devices);
    }

    /// Reads the maps.
    pub(crate) fn sample(&mut self) {
        self.sample.at_ns = self.now_ns;
        self.observer.losses(Losses { skipped: Some(0), ..Losses::default() }, self.now_ns);
        self.observer.settled(self.now_ns);
        self.observer.sampled(&self.sample);
    }

    /// The time of `--series.keep` is over for what was closed at least so long ago.
    pub(crate) fn retire(&mut self, keep_seconds: u32) {
        let keep = Duration::from_secs(keep_seconds.into());
        for device in self.observer.retire(keep, self.now_ns) {
            self.sample.devices.remove(&device);
            self.sample.accesses.retain(|access| DeviceKey(access.key.device) != device);
        }
        self.sample();
    }

    /// Everything that was closed is forgotten.
    pub(crate) fn age_out(&mut self) {
        self.now_ns += SECOND_NS;
        self.began_ns = self.now_ns;
        self.retire(0);
    }
}

/// The records tell the state; this says of the sums that they do not.
const STATE_OF_EVENTS: u64 = migscope_abi::ring::STATE_UNKNOWN;

fn device(slot: u8) -> DeviceKey {
    DeviceKey::pci(0, slot, 8)
}

fn step(slot: u8, tgid: u32, at_seconds: u64, what: What) -> Step {
    Step { at_seconds, device: device(slot), tgid, what }
}

/// From each state to the next.
fn changes(slot: u8, tgid: u32, at_seconds: u64, states: &[State]) -> VecDeque<Step> {
    let arcs = states.windows(2).filter_map(|pair| match pair {
        [from, now] => Some(step(slot, tgid, at_seconds, What::Change(*from, *now, Cause::Write))),
        _ => None,
    });
    arcs.collect()
}

/// KVM and the IOMMU have told the machine of dirty pages.
fn told(at_ns: u64, pages: u64) -> Told {
    let sums = MachineSums {
        queries: [0, 0, pages, 0],
        pages,
        bytes: pages * 4096,
        last_seen_ns: at_ns,
        ..MachineSums::default()
    };
    let mut told = Told::default();
    told[Tracker::Kvm as usize] = sums;
    told[Tracker::Iommufd as usize] = sums;
    told
}

/// The accesses that a client of a region makes for each buffer.
fn accesses(sample: &mut Sample, device: DeviceKey, resuming: bool) {
    let fields: &[(Field, Op)] = if resuming {
        &[(Field::DataOffset, Op::Read), (Field::DataSize, Op::Write), (Field::Data, Op::Write)]
    } else {
        &[
            (Field::PendingBytes, Op::Read),
            (Field::DataOffset, Op::Read),
            (Field::DataSize, Op::Read),
            (Field::Data, Op::Read),
        ]
    };
    for (field, op) in fields.iter().copied() {
        let key = AccessKey { device: device.0, field: field as u32, op_and_refused: op as u32 };
        match sample.accesses.iter_mut().find(|access| access.key == key) {
            Some(access) => access.count += 1,
            None => sample.accesses.push(Access { key, count: 1 }),
        }
        sample.latencies.insert((field as u32, op as u32), (vec![1; BUCKETS], 1000));
    }
}
