// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Hosts between which machines move for a day, and what a Prometheus that scrapes them has to keep.

use crate::host::{Host, Protocol, SECOND_NS};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

const DAY_SECONDS: u64 = 86_400;
/// A series without samples for that long is gone from Prometheus' memory; when it comes back it is created again. The head goes back one
/// and a half block ranges, of two hours, at most.
const HEAD_SECONDS: u64 = 3 * 3600;

/// What is simulated.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) hosts: u32,
    /// Open on each host in the beginning.
    pub(crate) devices: u32,
    pub(crate) migrations_a_day: u32,
    pub(crate) migration_seconds: u32,
    pub(crate) scrape_seconds: u32,
    /// `--series.keep`.
    pub(crate) keep_seconds: u32,
}

/// What a day of it came to, of all hosts together.
#[derive(Default)]
pub(crate) struct Fleet {
    pub(crate) mean: f64,
    pub(crate) most: f64,
    /// Series that were not there in the beginning, each time that one came.
    pub(crate) created: f64,
    pub(crate) samples: f64,
    /// How many migrations there were.
    pub(crate) moved: u32,
}

/// One end of a migration.
#[derive(Clone, Copy)]
struct End {
    at_seconds: u64,
    slot: u8,
    tgid: u32,
    leaves: bool,
}

impl Fleet {
    pub(crate) fn a_day(shape: &Shape) -> Self {
        let (plan, moved) = plan(shape);
        let mut fleet = Self { moved, ..Self::default() };
        // By scrape: how many series all hosts have together.
        let mut active = vec![0_u64; scrapes(shape)];
        for (number, ends) in (0..).zip(&plan) {
            let day = Day::of_host(shape, number, ends);
            fleet.created += day.created as f64;
            for (sum, series) in active.iter_mut().zip(day.active) {
                *sum += series;
            }
        }
        let samples: u64 = active.iter().sum();
        fleet.samples = samples as f64;
        fleet.mean = samples as f64 / active.len() as f64;
        fleet.most = active.iter().max().copied().unwrap_or_default() as f64;
        fleet
    }
}

fn scrapes(shape: &Shape) -> usize {
    usize::try_from(DAY_SECONDS / u64::from(shape.scrape_seconds)).expect("small")
}

/// Numbers that look like chance, and are the same each time (Steele's SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    /// One of these, if there is one.
    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let index = usize::try_from(self.below(u64::try_from(from.len()).ok()?.max(1))).ok()?;
        from.get(index).copied()
    }
}

/// A host while it is planned what becomes of it.
struct Planned {
    /// Who has the device in which slot.
    slots: BTreeMap<u8, u32>,
    busy_until_seconds: u64,
    ends: Vec<End>,
}

/// Who migrates when and where to: for each host the ends of migrations that it sees, in the order of time. A machine takes the first free slot
/// of its new host, as a management layer would.
fn plan(shape: &Shape) -> (Vec<Vec<End>>, u32) {
    let Shape { hosts, devices, migrations_a_day, migration_seconds, keep_seconds, .. } = *shape;
    let mut chance = Chance(u64::from(hosts) << 32 | u64::from(devices));
    let planned = |host: u32| Planned {
        slots: (0..devices).map(|slot| (slot_of(slot), machine(host, slot))).collect(),
        busy_until_seconds: 0,
        ends: Vec::new(),
    };
    let mut fleet: Vec<_> = (0..hosts).map(planned).collect();
    // A host takes part in one migration at a time, and none that would not be over, with its series, by the end of the day.
    let length = u64::from(migration_seconds) + 2;
    let last = DAY_SECONDS.saturating_sub(length + u64::from(keep_seconds) + 120);
    let mut times: Vec<_> = (0..migrations_a_day).map(|_| chance.below(last) + 60).collect();
    times.sort_unstable();
    let mut moved = 0;
    for at_seconds in times {
        let free = |host: &Planned| host.busy_until_seconds <= at_seconds;
        let indices = |wanted: &dyn Fn(usize, &Planned) -> bool| -> Vec<usize> {
            let each = fleet.iter().enumerate();
            each.filter(|(index, host)| free(host) && wanted(*index, host)).map(|it| it.0).collect()
        };
        let Some(from) = chance.pick(&indices(&|_, host| !host.slots.is_empty())) else { continue };
        let others = indices(&|index, host| index != from && host.slots.len() < SLOTS);
        let Some(to) = chance.pick(&others) else { continue };
        let there: Vec<_> = fleet[from].slots.iter().map(|(slot, tgid)| (*slot, *tgid)).collect();
        let Some((slot, tgid)) = chance.pick(&there) else { continue };
        let Some(new) = (0..u8::MAX).find(|slot| !fleet[to].slots.contains_key(slot)) else {
            continue;
        };
        fleet[from].slots.remove(&slot);
        fleet[to].slots.insert(new, tgid);
        fleet[from].ends.push(End { at_seconds, slot, tgid, leaves: true });
        fleet[to].ends.push(End { at_seconds, slot: new, tgid, leaves: false });
        for host in [from, to] {
            fleet[host].busy_until_seconds = at_seconds + length;
        }
        moved += 1;
    }
    (fleet.into_iter().map(|host| host.ends).collect(), moved)
}

/// As many as `slot` can tell apart.
const SLOTS: usize = u8::MAX as usize;

fn slot_of(number: u32) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

/// The process of the machine that a host has in a slot at first.
fn machine(host: u32, slot: u32) -> u32 {
    host * 1000 + slot + 1
}

/// A day of one host.
struct Day {
    /// Series, by scrape.
    active: Vec<u64>,
    created: u64,
    scrape_seconds: u64,
    /// When a series was last scraped, in seconds.
    seen: HashMap<String, u64>,
    present: BTreeSet<String>,
}

impl Day {
    fn of_host(shape: &Shape, number: u32, ends: &[End]) -> Self {
        let mut host = Host::new(Protocol::V2);
        for slot in 0..shape.devices {
            host.open(slot_of(slot), machine(number, slot));
        }
        host.warm_up(0, machine(number, 0));
        let mut day = Self {
            active: Vec::new(),
            created: 0,
            scrape_seconds: shape.scrape_seconds.into(),
            seen: HashMap::new(),
            present: host.series(),
        };
        let length = u64::from(shape.migration_seconds);
        let keep = u64::from(shape.keep_seconds);
        // When the series of a device that was closed end.
        let mut closing: VecDeque<u64> = VecDeque::new();
        for end in ends {
            day.retire_until(&mut host, &mut closing, end.at_seconds, shape);
            day.scrape_until(end.at_seconds);
            host.begin(end.at_seconds * SECOND_NS);
            let mut steps = if end.leaves {
                host.source(end.slot, end.tgid, length)
            } else {
                host.destination(end.slot, end.tgid, length)
            };
            // Each scrape while it goes on: series come and go with what is known.
            let mut elapsed = 0;
            while elapsed <= length + 1 {
                host.play_until(&mut steps, elapsed);
                day.changed(host.series(), end.at_seconds + elapsed);
                elapsed += day.scrape_seconds;
                day.scrape_until(end.at_seconds + elapsed.min(length + 2));
            }
            host.play_until(&mut steps, length + 1);
            day.changed(host.series(), end.at_seconds + length + 1);
            if end.leaves {
                closing.push_back(end.at_seconds + length + 1 + keep);
            }
        }
        day.retire_until(&mut host, &mut closing, DAY_SECONDS, shape);
        day.scrape_until(DAY_SECONDS);
        day
    }

    fn retire_until(
        &mut self,
        host: &mut Host,
        closing: &mut VecDeque<u64>,
        until: u64,
        shape: &Shape,
    ) {
        while closing.front().is_some_and(|at| *at <= until) {
            let Some(at_seconds) = closing.pop_front() else { break };
            self.scrape_until(at_seconds);
            host.begin((at_seconds + 1) * SECOND_NS);
            host.retire(shape.keep_seconds);
            self.changed(host.series(), at_seconds);
        }
    }

    /// Everything stands as it is until then.
    fn scrape_until(&mut self, until_seconds: u64) {
        while (self.active.len() as u64) * self.scrape_seconds < until_seconds {
            self.active.push(self.present.len() as u64);
        }
    }

    fn changed(&mut self, now: BTreeSet<String>, at_seconds: u64) {
        for series in now.difference(&self.present) {
            let before = self.seen.get(series);
            let is_new = before.is_none_or(|seen| at_seconds.saturating_sub(*seen) > HEAD_SECONDS);
            self.created += u64::from(is_new);
        }
        for series in self.present.difference(&now) {
            self.seen.insert(series.clone(), at_seconds);
        }
        self.present = now;
    }
}
