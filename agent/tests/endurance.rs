// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A day of migrations, a hundred a minute, in accelerated time: what is kept must not grow.
//!
//! An unoptimised build takes many minutes for the day; it goes through four hours, and says so. The whole day is
//! `cargo test --release -p migscope --test endurance`.
//!
//! The observer has no clock, so a day is a loop: 144,000 migrations of devices that come and go, every tenth refused, cancelled, reset or
//! cut by a loss, each with a machine's process of its own. The memory of this process is read after the first quarter and at the end.

use migscope::device_key::DeviceKey;
use migscope::{
    event::{DirtyQuery, Event, StateChange, Violation},
    feed::{Describe, Nobody},
    metrics::{Info, Metrics},
    observer::Observer,
    probes::Standing,
    sample::{Losses, Sample},
    snapshot::Snapshot,
    state::{Protocol, State},
};
use migscope_abi::{dirty::Outcome, probe::Probe, ring::DeviceSums, rule::Rule, state::Cause};
use prometheus::Registry;
use std::{fs, sync::Arc, time::Duration};

const MIGRATIONS: u64 = HOURS * 60 * 100;
const HOURS: u64 = if cfg!(debug_assertions) { 4 } else { 24 };
const MINUTE_NS: u64 = 60_000_000_000;
/// Migrations between two readings of all maps.
const SAMPLED: u64 = 25;
const STEP_NS: u64 = MINUTE_NS / 100;
/// Series of a closed device are kept for that long, as by default.
const KEEP: Duration = Duration::from_secs(600);
/// By how much the process may grow after the first quarter. The allocator's own spread is a few hundred KiB; one leaked session
/// of a few hundred bytes for each migration would be 40 MiB and more.
const GROWTH_BYTES: u64 = 4 << 20;

/// A host on which every process is a machine of another name.
struct Host;

impl Describe for Host {
    fn describe(&self, _device: DeviceKey, tgid: Option<u32>) -> Option<Info> {
        let name = format!("machine-{}", tgid.unwrap_or_default());
        Some(Info { vm: name.clone(), vm_uuid: name, ..Info::default() })
    }

    fn is_present(&self, device: DeviceKey) -> bool {
        Nobody.is_present(device)
    }
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    let kib = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
    kib * 1024
}

struct Day {
    observer: Observer,
    now_ns: u64,
    lost: u64,
}

impl Day {
    fn change(
        &mut self,
        device: DeviceKey,
        tgid: u32,
        sums: &DeviceSums,
        arc: (State, State, Cause),
    ) {
        self.now_ns += STEP_NS / 20;
        let (from, now, cause) = arc;
        let sums = DeviceSums { last_seen_ns: self.now_ns, ..*sums };
        self.observer.events(&[Event::State(StateChange {
            device,
            at_ns: self.now_ns,
            tgid,
            protocol: Protocol::Region,
            from,
            requested: Some(now),
            now,
            cause,
            duration_ns: 20_000 + u64::from(tgid % 1_000),
            result: 0,
            sums: Some(sums),
        })]);
    }

    fn migrate(&mut self, number: u64) {
        use State::{PreCopy, Running, StopAndCopy, Stopped};
        // More devices than a host has ever had at a time, so that some must be forgotten.
        let device = DeviceKey::pci(0, u8::try_from(number % 251).expect("small"), 8);
        let tgid = u32::try_from(number % 4_000_000).expect("small") + 1;
        let mut sums = DeviceSums { state: 3, ..DeviceSums::default() };
        self.change(device, tgid, &sums, (Running, Running, Cause::Open));
        self.change(device, tgid, &sums, (Running, PreCopy, Cause::Write));
        for step in 1..=2 {
            sums.data_bytes[0] += 1 << 20;
            sums.iterations[0] += 1;
            sums.dirty_bytes += 4096;
            sums.pending_reads += 1;
            sums.pending_bytes = (2 - step) << 20;
            sums.last_seen_ns = self.now_ns;
            let query = DirtyQuery {
                device,
                source: migscope::dirty::Source::Region,
                at_ns: self.now_ns,
                start_bytes: 0,
                range_bytes: 1 << 30,
                dirty_bytes: 4096,
                outcome: Outcome::Bitmap,
                duration_ns: 3_000,
            };
            let rule = Rule::ALL[usize::try_from(number + step).expect("small") % Rule::COUNT];
            let violation = Violation {
                device,
                at_ns: self.now_ns,
                rule,
                state: PreCopy,
                field: None,
                value: 0,
            };
            self.observer.events(&[Event::DirtyQuery(query), Event::Violation(violation)]);
            self.now_ns += STEP_NS / 40;
            self.observer.sums_read(self.now_ns, &[(device, sums)].into());
        }
        match number % 10 {
            0 => self.change(device, tgid, &sums, (PreCopy, Running, Cause::Write)),
            1 => self.change(device, tgid, &sums, (PreCopy, Running, Cause::Reset)),
            2 => self.lost += 1,
            _ => {
                self.change(device, tgid, &sums, (PreCopy, StopAndCopy, Cause::Write));
                self.change(device, tgid, &sums, (StopAndCopy, Stopped, Cause::Write));
            }
        }
        self.change(device, tgid, &sums, (Stopped, Running, Cause::Close));
        let losses = Losses { told: [self.lost, 0, 0, 0], skipped: Some(0) };
        self.observer.losses(losses, self.now_ns);
        self.observer.settled(self.now_ns);
        // The maps are read by the clock; what that shows of each device does not add up, so now and then is enough.
        if number.is_multiple_of(SAMPLED) {
            let devices = [(device, DeviceSums { state: u64::MAX - 1, ..sums })].into();
            let seen = [number; Probe::COUNT];
            let sample = Sample { at_ns: self.now_ns, devices, seen, ..Sample::default() };
            self.observer.sampled(&sample);
        }
        self.now_ns += STEP_NS / 4;
    }
}

#[test]
fn a_day_of_a_hundred_migrations_a_minute_leaves_memory_flat() {
    let mut observer = Observer::new(Host, Arc::new(Metrics::new(Registry::new())));
    let attached: Standing = Probe::ALL.into_iter().map(|event| (event, Ok(()))).collect();
    observer.probes(attached);
    let mut day = Day { observer, now_ns: MINUTE_NS, lost: 0 };
    let mut early = (0, 0);
    for number in 0..MIGRATIONS {
        day.migrate(number);
        if number.is_multiple_of(100) {
            let now_ns = day.now_ns;
            day.observer.retire(KEEP, now_ns);
        }
        if number.is_multiple_of(MIGRATIONS / 20) {
            let now_ns = day.now_ns;
            let scraped = day.observer.metrics().encode().expect("it can be shown");
            let snapshot = serde_json::to_vec(&Snapshot::of(&day.observer, now_ns)).expect("JSON");
            if number == MIGRATIONS / 20 * 5 {
                early = (resident_bytes(), scraped.len() + snapshot.len());
            }
        }
    }
    let (late, shown) = (resident_bytes(), {
        let text = day.observer.metrics().encode().expect("it can be shown");
        let snapshot = Snapshot::of(&day.observer, day.now_ns);
        text.len() + serde_json::to_vec(&snapshot).expect("JSON").len()
    });
    println!("measured: hours_of_migrations {HOURS} h");
    let growth = late.saturating_sub(early.0);
    println!("measured: day_growth {} KiB", growth / 1024);
    assert!(growth < GROWTH_BYTES, "{} bytes after a quarter, {late} after the day", early.0);
    assert!(shown < early.1 * 2, "{} bytes shown after a quarter, {shown} after the day", early.1);
    let all = day.observer.migrations().last().expect("migrations").id;
    assert!(all >= MIGRATIONS, "each was a migration of its own: {all}");
}
