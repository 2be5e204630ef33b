// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the observer thinks of sources that are played to it: how they end, what blocks them, what is too little to say.

use migscope::device_key::DeviceKey;
use migscope::{
    event::{DirtyQuery, Event, StateChange},
    feed::Nobody,
    metrics::Metrics,
    observer::Observer,
    probes::Standing,
    sample::Losses,
    session::{outlook::OutlookReport, report::Report},
    state::{Protocol, State},
};
use migscope_abi::{dirty::Outcome, probe::Probe, ring::DeviceSums, state::Cause};
use prometheus::Registry;
use std::sync::Arc;

const SOURCE: DeviceKey = DeviceKey::pci(0, 0, 0x10 << 3);
const DESTINATION: DeviceKey = DeviceKey::pci(0, 0, 0x11 << 3);
const STEP_NS: u64 = 50_000_000;
const MIB: u64 = 1 << 20;

/// A device with `left` bytes to give, `throughput` of which are read in each step, while `stale` are made stale.
struct Source {
    observer: Observer,
    sums: DeviceSums,
    /// What takes it in, if it is on this host too.
    destination: Option<DeviceSums>,
    now_ns: u64,
    throughput: u64,
    stale: u64,
}

impl Source {
    fn new(left: u64, throughput: u64, stale: u64) -> Self {
        let mut observer = Observer::new(Nobody, Arc::new(Metrics::new(Registry::new())));
        let attached: Standing = Probe::ALL.into_iter().map(|event| (event, Ok(()))).collect();
        observer.probes(attached);
        observer.losses(Losses { told: [0; 4], skipped: Some(0) }, 1);
        let sums = DeviceSums { state: 3, last_seen_ns: STEP_NS, ..DeviceSums::default() };
        let mut source =
            Self { observer, sums, destination: None, now_ns: STEP_NS, throughput, stale };
        source.change(State::Running, State::PreCopy);
        source.sums.pending_bytes = left;
        source.sums.pending_reads = 1;
        source.read();
        source
    }

    fn change(&mut self, from: State, now: State) {
        self.change_of(SOURCE, self.sums, from, now);
    }

    fn change_of(&mut self, device: DeviceKey, sums: DeviceSums, from: State, now: State) {
        self.observer.events(&[Event::State(StateChange {
            device,
            at_ns: self.now_ns,
            tgid: 1,
            protocol: Protocol::Region,
            from,
            requested: Some(now),
            now,
            cause: Cause::Write,
            duration_ns: 1_000,
            result: 0,
            sums: Some(sums),
        })]);
    }

    fn read(&mut self) {
        self.sums.last_seen_ns = self.now_ns;
        let mut sums = std::collections::BTreeMap::from([(SOURCE, self.sums)]);
        if let Some(destination) = &mut self.destination {
            destination.last_seen_ns = self.now_ns;
            sums.insert(DESTINATION, *destination);
        }
        self.observer.sums_read(self.now_ns, &sums);
    }

    /// From now on a destination on this host takes in what is read.
    fn arrives(&mut self) {
        let sums = DeviceSums { state: 4, last_seen_ns: self.now_ns, ..DeviceSums::default() };
        self.destination = Some(sums);
        self.change_of(DESTINATION, sums, State::Running, State::Resuming);
    }

    /// As [`Self::run`], and in each step the destination is busy for `busy_ns` and takes in `loaded` bytes.
    fn run_into(&mut self, steps: u64, busy_ns: u64, loaded: u64) {
        for _ in 0..steps {
            let destination = self.destination.as_mut().expect("it has arrived");
            destination.data_busy_ns[1] += busy_ns;
            destination.data_bytes[1] += loaded;
            self.run(1);
        }
    }

    /// The device is read for `steps`; what became stale is told when the rest has been read, as a pass over it.
    fn run(&mut self, steps: u64) {
        let mut stale = 0;
        for _ in 0..steps {
            self.now_ns += STEP_NS;
            stale += self.stale;
            let read = self.throughput.min(self.sums.pending_bytes);
            self.sums.data_bytes[0] += read;
            self.sums.iterations[0] += 1;
            self.sums.pending_reads += 1;
            self.sums.pending_bytes -= read;
            if self.sums.pending_bytes == 0 {
                self.sums.pending_bytes = stale;
                stale = 0;
            }
            self.read();
        }
    }

    /// The device is asked `passes` times, a fifth of a second apart. It gives at `throughput` what it has beyond `held` bytes, and
    /// then says that it has nothing.
    fn run_dry(&mut self, passes: u64, held: u64) {
        for _ in 0..passes {
            let given = self.sums.pending_bytes.saturating_sub(held);
            self.sums.data_bytes[0] += given;
            self.sums.data_busy_ns[0] += given * STEP_NS / self.throughput;
            self.sums.pending_bytes -= given;
            self.sums.pending_reads += 2;
            self.sums.withheld.bytes = self.sums.pending_bytes;
            self.sums.withheld.answers += 1;
            for _ in 0..4 {
                self.now_ns += STEP_NS;
                self.read();
            }
        }
    }

    fn queries(&mut self, rounds: u64, outcome: Outcome) {
        for round in 0..=rounds {
            for start in 0..4 {
                self.observer.events(&[Event::DirtyQuery(DirtyQuery {
                    device: SOURCE,
                    source: migscope::dirty::Source::Region,
                    at_ns: self.now_ns + round,
                    start_bytes: start * 256 * MIB,
                    range_bytes: 256 * MIB,
                    dirty_bytes: if outcome == Outcome::All { 256 * MIB } else { 4096 },
                    outcome,
                    duration_ns: 1_000,
                })]);
            }
        }
    }

    fn report(&self) -> Report {
        let mut reports = self.observer.session_reports(self.now_ns);
        reports.retain(|report| report.outlook.is_some());
        reports.pop().expect("a session of a source")
    }

    fn outlook(&self) -> OutlookReport {
        self.report().outlook.expect("it was read")
    }

    fn reasons(&self) -> Vec<String> {
        self.outlook().blocked.iter().map(|blocked| blocked.reason.to_string()).collect()
    }
}

#[test]
fn a_device_that_is_read_faster_than_it_changes_converges() {
    // 200 MiB at 20 MiB a second, of which 2 become stale again: 10 s, 1 s, 0.1 s.
    let mut source = Source::new(200 * MIB, MIB, MIB / 10);
    source.run(100);
    let outlook = source.outlook();
    assert_eq!(outlook.verdict, "unknown", "no pass has told yet what becomes stale: {outlook:?}");
    assert!(outlook.blocked.is_empty(), "{outlook:?}");
    let throughput = outlook.throughput_bytes_per_second.expect("known");
    assert!((throughput / (20.0 * MIB as f64) - 1.0).abs() < 0.02, "{throughput}");
    let remaining = outlook.remaining.expect("an estimate");
    let truth_ns = 5_000_000_000 + 1_000_000_000;
    assert!(
        remaining.low_ns < truth_ns && remaining.high_ns > Some(truth_ns),
        "5 s of the first pass and 1 s after it: {remaining:?}"
    );

    source.run(110);
    let outlook = source.outlook();
    let ratio = outlook.convergence_ratio.expect("a pass has ended");
    assert!((0.05..0.2).contains(&ratio), "2 of 20: {outlook:?}");
    assert_eq!(outlook.verdict, "converging", "{outlook:?}");
}

#[test]
fn a_device_that_changes_faster_than_it_is_read_does_not() {
    let mut source = Source::new(20 * MIB, MIB, MIB + MIB / 4);
    source.run(1_600);
    assert_eq!(source.outlook().verdict, "not_converging", "{:?}", source.outlook());
    assert!(source.reasons().contains(&"dirty_rate_above_throughput".to_owned()));
    let explanation = &source.outlook().blocked[0].explanation;
    assert!(explanation.contains("MiB/s"), "{explanation}");
}

#[test]
fn memory_that_nobody_tells_apart_is_left_as_a_whole() {
    let mut source = Source::new(20 * MIB, MIB, 0);
    source.queries(1, Outcome::Bitmap);
    source.run(10);
    assert!(source.reasons().is_empty(), "{:?}", source.outlook());

    let mut source = Source::new(20 * MIB, MIB, 0);
    source.queries(1, Outcome::All);
    source.run(10);
    assert_eq!(source.reasons(), ["no_dirty_tracking"]);
    assert_eq!(source.outlook().verdict, "not_converging");
}

#[test]
fn one_who_did_not_see_everything_says_so() {
    let mut source = Source::new(200 * MIB, MIB, 0);
    source.run(20);
    assert!(source.reasons().is_empty());
    source.observer.losses(Losses { told: [7, 0, 0, 0], skipped: Some(0) }, source.now_ns);
    source.run(2);
    assert_eq!(source.reasons(), ["agent_blind"]);
    assert_eq!(source.outlook().verdict, "unknown", "blind is not stuck");
}

#[test]
fn what_nothing_is_known_of_has_no_outlook() {
    let mut source = Source::new(200 * MIB, MIB, 0);
    source.sums.pending_reads = 0;
    source.read();
    let report = source.report();
    assert_eq!(report.figures.pending_bytes, None);
    let outlook = report.outlook.expect("it was read");
    assert_eq!((&*outlook.verdict, outlook.remaining, outlook.downtime), ("unknown", None, None));
}

#[test]
fn an_earlier_migration_of_a_like_device_tells_the_fixed_part() {
    use migscope::metrics::Info;
    let mut source = Source::new(20 * MIB, MIB, 0);
    let info = Info { driver: "mlx5_vfio_pci".into(), ..Info::default() };
    source.observer.described(SOURCE, info);
    source.run(10);
    assert_eq!(source.outlook().downtime_fixed_from.as_deref(), Some("assumed"));
    source.change(State::PreCopy, State::StopAndCopy);
    source.change(State::StopAndCopy, State::Stopped);
    source.change(State::Stopped, State::Running);
    source.change(State::Running, State::PreCopy);
    source.sums.pending_reads += 1;
    source.run(10);
    assert_eq!(source.outlook().downtime_fixed_from.as_deref(), Some("partly"));
}

#[test]
fn a_destination_that_becomes_slow_is_blamed_while_it_is() {
    let mut source = Source::new(10_000 * MIB, MIB, 0);
    source.arrives();
    // A minute in which it takes everything in with a tenth of its time.
    source.run_into(1_200, STEP_NS / 10, MIB);
    assert!(source.reasons().is_empty(), "{:?}", source.outlook());
    // Now it takes in a quarter of it, with all of its time; 15 of 20 MiB a second stay behind, and 6 fit into the downtime.
    source.run_into(100, STEP_NS, MIB / 4);
    assert_eq!(source.reasons(), ["destination_slow"]);
    assert!(source.outlook().blocked[0].explanation.contains("busy 100 % of the time"));
    // It has most of its time to itself again; what waits still does.
    source.run_into(100, STEP_NS / 2, MIB);
    assert!(source.reasons().is_empty(), "{:?}", source.outlook());
}

#[test]
fn what_a_device_does_not_give_while_it_runs_is_for_the_stop() {
    let mut source = Source::new(4279, MIB, 0);
    source.run_dry(1, 4224);
    assert_eq!(source.outlook().verdict, "unknown", "it may have nothing yet");
    source.run_dry(2, 4224);
    let near = |source: &Source| {
        let outlook = source.outlook();
        assert_eq!((&*outlook.verdict, outlook.blocked.len()), ("converging", 0), "{outlook:?}");
        assert!(outlook.dirty_bytes_per_second.is_some_and(|rate| rate < 10.0), "next to nothing");
        let downtime = outlook.downtime.expect("it was seen to give").expected_ns;
        let (moving, fixed) = (4224 * STEP_NS / MIB, outlook.downtime_fixed_ns.expect("assumed"));
        assert!(downtime.abs_diff(moving + fixed) < 1_000_000, "{outlook:?}");
        let remaining = outlook.remaining.expect("the VMM can stop it");
        assert!((downtime..downtime + 2 * STEP_NS).contains(&remaining.expected_ns), "{outlook:?}");
        assert_eq!(remaining.high_ns, None, "but when it does is not seen");
    };
    near(&source);
    // What becomes stale meanwhile moves meanwhile, and a minute of waiting is no fault of the device.
    source.sums.pending_bytes += 1000;
    source.run_dry(300, 4224);
    near(&source);
}

#[test]
fn a_device_that_gives_later_what_it_did_not_give_at_first_is_only_slow() {
    let mut source = Source::new(101 * MIB, MIB, 0);
    source.run_dry(2, 100 * MIB);
    for held in [99, 98, 97, 96, 95, 94, 93, 92, 91, 90] {
        source.run_dry(4, held * MIB);
        assert_eq!(source.reasons(), Vec::<String>::new(), "{held}: {:?}", source.outlook());
    }
    // It gives 1 MiB in 0.8 s.
    let remaining = source.outlook().remaining.expect("a pace was seen");
    assert!(
        remaining.expected_ns > 20_000_000_000,
        "90 MiB are to come before the stop, or during it: {remaining:?}"
    );
}

#[test]
fn a_stop_part_that_a_device_never_told_may_be_too_large_all_the_same() {
    let mut source = Source::new(101 * MIB, MIB, 0);
    source.run_dry(40, 100 * MIB);
    assert_eq!(source.reasons(), ["stop_copy_above_budget"], "6 MiB fit: {:?}", source.outlook());
    let mut source = Source::new(5 * MIB, MIB, 0);
    source.run_dry(40, 4 * MIB);
    assert_eq!(source.reasons(), Vec::<String>::new(), "{:?}", source.outlook());
}
