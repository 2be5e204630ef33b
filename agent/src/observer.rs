// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The observer: what came from the probes, put together into devices, sessions and metrics.
//!
//! ```text
//!  ring ──▶ events ──▶ ┌──────────┐ ──▶ devices  ──▶ /api/v1/devices
//!                      │ observer │ ──▶ sessions ──▶ /api/v1/sessions
//!  maps ──▶ sample ──▶ └──────────┘ ──▶ metrics  ──▶ /metrics
//! ```
//!
//! It knows neither BPF nor HTTP, and gets the time from outside: everything it does can be played to it.
//!
//! **Losses.** A record that was lost is counted by the probe, but nobody knows which it was. The counters are read after each
//! reading of the ring; if one has grown, something was lost between this reading and the one before, and every session that
//! was under way in that window is no longer exact. That includes sessions whose records are still to come: so the window is
//! kept and each new session compared with it. The states of all devices become unknown, until a record or their sums tell them.
//!
//! For lack of room for another device only that device is lost: its records come without sums, so its sessions are not exact and
//! their figures unknown. All others have their entries.

use crate::device_key::DeviceKey;
use crate::{
    convergence::{DEFAULT_DOWNTIME_BUDGET_NS, DestinationFacts, Reason, Verdict},
    device::{Device, Standing as DeviceStanding},
    dirty::{Source, Told},
    event::{BadRecord, Event, Machine, StateChange},
    feed::{Describe, Input, Tap},
    metrics::{Convergence, ConvergenceFamilies, DeviceFamilies, Info, Metrics},
    probes::{Standing, stats::ProgramCost},
    sample::{Losses, Sample},
    session::{
        Coverages, Role, Session, Tracker,
        conduct::Violations,
        experience::Experience,
        machine::{Machines, Migration},
        outlook::Surroundings,
        pairing::{Pair, Pairing},
        report::Report,
    },
    state::{Seen, State},
};
use migscope_abi::{
    ring::{DeviceSums, Kind},
    trace,
};
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};
use tracing::{info, warn};

/// Over what time the throughput of a destination is taken, which nothing is estimated of.
const RATE_WINDOW_NS: u64 = 2_000_000_000;

/// Ended sessions that are kept for `/api/v1/sessions`.
const HISTORY: usize = 128;

/// Everything that is known.
pub struct Observer {
    host: Box<dyn Describe>,
    tap: Option<Box<dyn Tap>>,
    metrics: Arc<Metrics>,
    devices: BTreeMap<DeviceKey, Watched>,
    history: VecDeque<Session>,
    pairing: Pairing,
    machines: Machines,
    experience: Experience,
    downtime_budget_ns: u64,
    next_session: u64,
    /// What was told of the machine that changes a device's state next, by device: records of devices of several machines mix.
    told: BTreeMap<DeviceKey, Machine>,
    coverage: Coverages,
    standing: Standing,
    losses: Losses,
    /// When the loss counters were last read, and the window of the last loss.
    losses_read_ns: u64,
    /// Up to when all records were taken in.
    settled_ns: u64,
    loss_window: Option<RangeInclusive<u64>>,
    /// Whether it was said that there is no room for another device.
    told_full: bool,
    /// The sample that the metrics show, as far as the probes were there that it tells of.
    shown: Option<(Sample, Coverages)>,
}

struct Watched {
    device: Device,
    tracker: Tracker,
    info: Info,
    /// Whether how its migration goes is shown.
    convergence_shown: bool,
    /// How it stands, as it is shown.
    standing_shown: Option<DeviceStanding>,
    /// What is shown as told of its machine, and which process that is.
    told_shown: Option<(u32, Told)>,
}

impl Watched {
    fn new(key: DeviceKey) -> Self {
        Self {
            device: Device::new(key),
            tracker: Tracker::default(),
            info: Info::default(),
            convergence_shown: false,
            standing_shown: None,
            told_shown: None,
        }
    }

    /// Shows how it stands; when that is shown already, only what goes on meanwhile.
    fn show(&mut self, families: &DeviceFamilies) {
        let standing = Some(self.device.standing());
        if self.standing_shown == standing {
            families.show_progress(&self.device);
        } else {
            families.show(&self.device);
            self.standing_shown = standing;
        }
    }
}

/// A device as `/api/v1/devices` gives it; what is unknown is `null`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceReport {
    /// The device, as sysfs writes it.
    pub device: String,
    /// The state that it is in; `null` while unknown, `closed` while nobody has it open.
    pub state: Option<Cow<'static, str>>,
    /// Since when, `CLOCK_MONOTONIC` in nanoseconds.
    pub since_monotonic_ns: Option<u64>,
    /// What it is and who has it open.
    #[serde(flatten)]
    pub info: Info,
    /// Process that last changed its state.
    pub pid: Option<u32>,
    /// What `pending_bytes` last read as.
    pub pending_bytes: Option<u64>,
    /// Known time in each state, in nanoseconds.
    pub states_ns: BTreeMap<Cow<'static, str>, u64>,
    /// The session that is under way.
    pub session: Option<Report>,
}

impl Observer {
    /// One that has seen nothing yet and asks `host` what devices are.
    pub fn new(host: impl Describe + 'static, metrics: Arc<Metrics>) -> Self {
        Self {
            host: Box::new(host),
            tap: None,
            metrics,
            devices: BTreeMap::new(),
            history: VecDeque::new(),
            pairing: Pairing::default(),
            machines: Machines::default(),
            experience: Experience::default(),
            downtime_budget_ns: DEFAULT_DOWNTIME_BUDGET_NS,
            next_session: 1,
            told: BTreeMap::new(),
            coverage: Coverages::default(),
            standing: Standing::new(),
            losses: Losses::default(),
            losses_read_ns: 0,
            settled_ns: 0,
            loss_window: None,
            told_full: false,
            shown: None,
        }
    }

    /// Gives `tap` a copy of everything that is taken in from now on, beginning with what holds now.
    pub fn tap(&mut self, mut tap: Box<dyn Tap>) {
        if !self.standing.is_empty() {
            tap.take(&Input::Probes(self.standing.clone()));
        }
        tap.take(&Input::Losses(self.losses, self.losses_read_ns));
        for key in self.devices.keys().filter(|key| key.is_named() && key.is_known()) {
            tap.take(&Input::Named(key.to_string()));
        }
        let sums = |(key, watched): (&DeviceKey, &Watched)| Some((*key, *watched.device.sums()?));
        let sums: BTreeMap<_, _> = self.devices.iter().filter_map(sums).collect();
        if !sums.is_empty() {
            tap.take(&Input::Sums(self.losses_read_ns, sums));
        }
        for (key, watched) in &self.devices {
            tap.take(&Input::Info(*key, watched.info.clone()));
        }
        self.tap = Some(tap);
    }

    /// Takes the tap away and gives it back.
    pub fn untap(&mut self) -> Option<Box<dyn Tap>> {
        self.tap.take()
    }

    fn feed(&mut self, input: impl FnOnce() -> Input) {
        if let Some(tap) = &mut self.tap {
            tap.take(&input());
        }
    }

    /// Takes `downtime_budget_ns` for what VMMs allow; QEMU's default holds otherwise.
    pub fn set_downtime_budget(&mut self, downtime_budget_ns: u64) {
        self.downtime_budget_ns = downtime_budget_ns;
    }

    /// Takes in which probes are there.
    pub fn probes(&mut self, standing: Standing) {
        self.feed(|| Input::Probes(standing.clone()));
        let sees_states = |all: &Coverages| all.region.state || all.outside.state || all.v2.state;
        let state_before = sees_states(&self.coverage);
        self.coverage = Coverages::of_probes(&standing);
        if sees_states(&self.coverage) && !state_before {
            self.metrics.session.start();
        }
        self.metrics.own.probes(&standing);
        self.standing = standing;
    }

    /// Which probes are there; empty until they were tried.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Takes in the loss counters, read at `now_ns`. Comes between the reading of the ring and [`Observer::events`].
    pub fn losses(&mut self, losses: Losses, now_ns: u64) {
        self.feed(|| Input::Losses(losses, now_ns));
        self.metrics.own.lost(&losses);
        if losses.of_any_device() != self.losses.of_any_device() {
            self.forget_states(now_ns, "events were lost");
        } else if losses.told != self.losses.told && !self.told_full {
            self.told_full = true;
            warn!(
                "the probes have no room for another device: of it nothing is added up, of the others all is known"
            );
        }
        self.losses = losses;
        self.losses_read_ns = now_ns;
    }

    /// Something was lost between the last reading of the losses and `now_ns`; `what` is for the log.
    pub fn lose(&mut self, now_ns: u64, what: &str) {
        self.feed(|| Input::Lost(now_ns));
        self.forget_states(now_ns, what);
    }

    fn forget_states(&mut self, now_ns: u64, what: &str) {
        warn!("{what}: running sessions are not exact, states are unknown until told again");
        let window = self.losses_read_ns..=now_ns;
        for watched in self.devices.values_mut() {
            watched.device.lost();
            watched.show(&self.metrics.device);
            if let Some(session) = watched.tracker.current_mut() {
                session.lost(&window);
            }
        }
        for session in &mut self.history {
            session.lost(&window);
        }
        self.loss_window = Some(window);
    }

    /// Takes in records that made no sense.
    pub fn bad_records(&mut self, bad: &[BadRecord], now_ns: u64) {
        for record in bad {
            warn!(%record, "a record of the probes makes no sense");
            self.metrics.own.malformed();
        }
        if !bad.is_empty() {
            self.lose(now_ns, "the probes and the agent do not understand each other");
        }
    }

    /// Takes in records, in their order.
    pub fn events(&mut self, events: &[Event]) {
        let mut kinds = [0_u64; Kind::COUNT];
        // How a device stands is shown once, after all: a third of the time that changes of state took went into that.
        let mut changed = BTreeSet::new();
        for event in events {
            self.introduce(event.device());
            for (kind, count) in Kind::ALL.into_iter().zip(&mut kinds) {
                *count += u64::from(kind == event.kind());
            }
            self.feed(|| Input::Event(event.clone()));
            match event {
                Event::State(change) => {
                    self.state_changed(change);
                    changed.insert(change.device);
                }
                Event::DirtyQuery(query) => {
                    self.metrics.dirty.queried(query);
                    if let Some(session) = self.watched(query.device).tracker.current_mut() {
                        session.outlook.queried(query);
                    }
                }
                Event::Violation(violation) => {
                    self.broken(violation.device, |broken| broken.refused(violation));
                }
                Event::Conduct(conduct) => {
                    self.broken(conduct.device, |broken| broken.observed(conduct));
                }
                Event::ConductCounts(counts) => {
                    self.broken(counts.device, |broken| broken.counted(counts));
                }
                Event::Machine(machine) => {
                    self.told.insert(machine.device, *machine);
                }
            }
        }
        for device in changed {
            self.show_device(device);
        }
        self.metrics.own.taken(kinds);
    }

    /// Notes a broken rule in the session that is under way.
    fn broken(&mut self, device: DeviceKey, note: impl FnOnce(&mut Violations)) {
        if let Some(session) = self.watched(device).tracker.current_mut() {
            note(&mut session.violations);
        }
    }

    fn state_changed(&mut self, change: &StateChange) {
        self.metrics.device.changed(change);
        if !change.refused() && change.now.is_running() {
            self.pairing.runs(change.device);
        }
        let first_new = self.next_session;
        let mut next_session = first_new;
        let coverage = self.coverage.of_change(change);
        let loss_window = self.loss_window.clone();
        // A machine of which there is no record was told nothing yet.
        let told = self.told.remove(&change.device).filter(|told| told.tgid == change.tgid);
        let told = told.map_or_else(Told::default, |machine| machine.told);
        let watched = self.watched(change.device);
        let other_process = watched.device.tgid() != Some(change.tgid);
        watched.device.changed(change);
        let nameless = watched.tracker.current().filter(|s| s.tgid.is_none()).map(|s| s.id);
        let mut ended = watched.tracker.advance(change, &mut next_session, coverage);
        for session in &mut ended {
            session.trackers.read(told, change.at_ns);
        }
        if let Some(session) = watched.tracker.current_mut() {
            if session.id >= first_new && session.seen_from_start {
                session.trackers.begin(told);
            } else {
                session.trackers.read(told, change.at_ns);
            }
        }
        let begun = watched
            .tracker
            .current()
            .filter(|session| session.id >= first_new || Some(session.id) == nameless)
            .cloned();
        if let (Some(session), Some(window)) = (watched.tracker.current_mut(), &loss_window) {
            session.lost(window);
        }
        // What ended may be of the machine that had the device before this one.
        let former = (other_process && !ended.is_empty()).then(|| watched.info.clone());
        self.next_session = next_session;
        if other_process {
            self.describe(change.device);
        }
        for mut session in ended {
            if let Some(window) = &loss_window {
                session.lost(window);
            }
            let former = former.as_ref().filter(|_| session.tgid != Some(change.tgid));
            self.session_ended(session, former);
        }
        if let Some(session) = begun {
            self.session_began(&session);
        }
    }

    fn show_device(&mut self, key: DeviceKey) {
        if let Some(watched) = self.devices.get_mut(&key) {
            watched.show(&self.metrics.device);
        }
    }

    fn session_began(&mut self, session: &Session) {
        self.machines.began(session);
        if let Some(watched) = self.devices.get(&session.device) {
            self.machines.described(session, &watched.info);
        }
    }

    /// A session has ended; of the machine that has the device, unless it was of a former one.
    fn session_ended(&mut self, session: Session, former: Option<&Info>) {
        if let Some(watched) = self.devices.get(&session.device) {
            self.metrics.session.ended(&session, former.unwrap_or(&watched.info));
            self.experience.learn(&watched.info.driver, &session);
        }
        info!(
            device = %session.device,
            role = session.role.name(),
            result = session.end.map(|(end, _)| end.name()),
            exact = session.exact,
            "a session has ended"
        );
        let under_way = self.devices.values().filter_map(|watched| watched.tracker.current());
        if let Some(migration) = self.machines.ended(&session) {
            info!(
                vm = migration.vm,
                role = %migration.role,
                result = migration.result.as_deref(),
                devices = migration.sessions.len(),
                "the migration of a machine has ended"
            );
        }
        let pairs = self.pairing.ended(&session, under_way);
        self.history.push_back(session);
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
        for Pair { source, destination, total_ns, transfer_gap_ns } in pairs {
            self.metrics.session.downtime_between(total_ns, transfer_gap_ns, source);
            for session in &mut self.history {
                let peer = match session.id {
                    id if id == source => destination,
                    id if id == destination => source,
                    _ => continue,
                };
                session.peer = Some(peer);
                session.downtime.total_ns = Some(total_ns);
                session.downtime.transfer_gap_ns = transfer_gap_ns;
            }
        }
    }

    /// All records up to `now_ns` (`CLOCK_MONOTONIC`, nanoseconds) have been taken in: until then the devices stand as they do. The
    /// time in their states is shown with the next sample: after each reading of the ring would be fifty times a second, for all.
    pub fn settled(&mut self, now_ns: u64) {
        self.feed(|| Input::Settled(now_ns));
        self.settled_ns = now_ns;
        for watched in self.devices.values_mut() {
            watched.device.settle(now_ns);
        }
    }

    /// Takes in what the probes have added up.
    pub fn sampled(&mut self, sample: &Sample) {
        for device in sample.devices.keys() {
            self.introduce(*device);
        }
        self.feed(|| Input::Sample(sample.clone()));
        self.metrics.own.sampled(sample, &self.standing);
        self.show_sums(sample);
        for (device, sums) in &sample.devices {
            self.device_sampled(*device, *sums, sample.at_ns);
        }
        self.machines_sampled(sample);
        self.look_ahead(sample.at_ns);
        self.show_convergence();
        for watched in self.devices.values_mut() {
            watched.show(&self.metrics.device);
        }
    }

    /// Shows what the probes have added up. Most devices of a host do not migrate, and what is shown of them need not be shown again.
    fn show_sums(&mut self, sample: &Sample) {
        let earlier = self.shown.take().filter(|(_, coverage)| *coverage == self.coverage);
        let news = earlier.map(|(earlier, _)| sample.news_since(&earlier));
        let news = news.as_ref().unwrap_or(sample);
        self.metrics.region.show(news, &self.coverage);
        self.metrics.dirty.show(news, &self.coverage);
        self.shown = Some((sample.clone(), self.coverage));
    }

    /// Shows what was told of each machine under the devices that it has, and takes it into their sessions.
    fn machines_sampled(&mut self, sample: &Sample) {
        let covered = self.coverage.v2.trackers;
        for watched in self.devices.values_mut() {
            let Some(tgid) = watched.device.tgid() else {
                continue;
            };
            let told = sample.machines.get(&tgid).copied();
            if let Some(session) = watched.tracker.current_mut().filter(|s| s.tgid == Some(tgid)) {
                session.trackers.read(told.unwrap_or_default(), sample.at_ns);
            }
            // Of a device that was closed what was told last stays, as long as it is kept.
            let shown = told.map(|told| (tgid, told)).or(watched.told_shown);
            if shown != watched.told_shown
                && let Some((_, told)) = shown
            {
                let another = watched.told_shown.is_some_and(|(before, _)| before != tgid);
                let device = watched.device.key().to_string();
                self.metrics.dirty.show_machine(&device, &told, covered, another);
                watched.told_shown = shown;
            }
        }
        self.metrics.dirty.answered(&sample.query_latencies);
    }

    /// Takes in the sums of the devices alone, read at `at_ns`: what is read more often while a session runs.
    pub fn sums_read(&mut self, at_ns: u64, devices: &BTreeMap<DeviceKey, DeviceSums>) {
        for device in devices.keys() {
            self.introduce(*device);
        }
        self.feed(|| Input::Sums(at_ns, devices.clone()));
        for (device, sums) in devices {
            self.device_sampled(*device, *sums, at_ns);
        }
        self.look_ahead(at_ns);
    }

    /// Follows from what is known at `at_ns` what is to come of the sources under way.
    fn look_ahead(&mut self, at_ns: u64) {
        let loading = self.loading(at_ns);
        let Self { devices, experience, downtime_budget_ns, .. } = self;
        let sources = devices.values().filter_map(|watched| watched.tracker.current());
        let alone = sources.filter(|session| session.role == Role::Source).count() == 1;
        for Watched { tracker, info, .. } in devices.values_mut() {
            let Some(session) = tracker.current_mut() else {
                continue;
            };
            let seen = experience.of(&info.driver);
            let destination = loading.filter(|_| alone).map(|(busy_ns, window_ns, loaded)| {
                let sent = session.figures().data_bytes;
                let backlog_bytes =
                    sent.zip(loaded).map(|(sent, loaded)| sent.saturating_sub(loaded));
                DestinationFacts { busy_ns, window_ns, backlog_bytes, load_ns: seen.start_ns }
            });
            let around = Surroundings {
                downtime_budget_ns: *downtime_budget_ns,
                transitions_ns: seen.transitions_ns,
                // Without a destination in sight, what an earlier one took to start is still worth something.
                destination: destination.or(seen.start_ns.map(|load_ns| DestinationFacts {
                    load_ns: Some(load_ns),
                    ..DestinationFacts::default()
                })),
            };
            session.look_ahead(at_ns, &around);
        }
    }

    /// Shows how the migrations under way go; of those that have ended, what is to come is nothing.
    fn show_convergence(&mut self) {
        for watched in self.devices.values_mut() {
            let in_error = matches!(watched.device.standing(), DeviceStanding::In(State::Error, _));
            let goes = in_error || watched.tracker.current().is_some();
            // Most devices of a host do not migrate: what is not there need not be taken away four times a second.
            if !goes && !watched.convergence_shown {
                continue;
            }
            watched.convergence_shown = goes;
            let device = watched.device.key().to_string();
            let Some(session) = watched.tracker.current() else {
                let blocked = in_error.then_some(&[Reason::DeviceError][..]);
                let shown = Convergence { blocked, ..Convergence::default() };
                self.metrics.convergence.show(&device, &shown);
                continue;
            };
            show_session(&self.metrics.convergence, &device, session);
        }
    }

    /// Of the only destination under way on this host, if there is just one: how long its driver was busy, of how long, and what it has
    /// taken in. With one source as well they belong together as far as anybody can tell.
    fn loading(&self, at_ns: u64) -> Option<(u64, u64, Option<u64>)> {
        let running = self.devices.values().filter_map(|watched| watched.tracker.current());
        let mut destinations = running.filter(|session| session.role == Role::Destination);
        let session = destinations.next().filter(|_| destinations.next().is_none())?;
        let window_ns = at_ns.saturating_sub(session.began_ns);
        let figures = session.figures();
        Some((figures.data_busy_ns?, window_ns, figures.data_bytes))
    }

    /// Whether a session is under way.
    pub fn is_busy(&self) -> bool {
        self.devices.values().any(|watched| watched.tracker.current().is_some())
    }

    fn device_sampled(&mut self, device: DeviceKey, sums: DeviceSums, at_ns: u64) {
        let (settled_ns, coverage) = (self.settled_ns, self.coverage.of(Seen::of(&sums)));
        let mut next_session = self.next_session;
        let watched = self.watched(device);
        watched.device.sampled(sums);
        if let Some(session) = watched.tracker.current_mut() {
            session.sampled(sums, at_ns);
            return;
        }
        // The sums tell of a migration, and whatever record began it would have been taken in by now: it began before the probes.
        if let DeviceStanding::In(state, since_ns) = watched.device.standing()
            && since_ns < settled_ns
            && coverage.state
            && watched.tracker.found(device, state, sums, at_ns, &mut next_session, coverage)
        {
            info!(%device, state = state.name(), "a migration was found under way");
        }
        self.next_session = next_session;
    }

    /// Gives the name of a device on, if it has no address and nothing was heard of it before.
    fn introduce(&mut self, device: DeviceKey) {
        if device.is_named() && device.is_known() && !self.devices.contains_key(&device) {
            self.feed(|| Input::Named(device.to_string()));
        }
    }

    /// Takes in the name of a device that has no address, from a feed; the probes' names are known already.
    pub fn named(&mut self, name: &str) {
        // What cannot be a name is shown by its key.
        let _ = DeviceKey::named(name);
    }

    /// Takes in what the probes cost.
    pub fn costs(&self, costs: &[ProgramCost]) {
        self.metrics.own.costs(costs);
    }

    /// Drops devices that were closed for longer than `keep`, with their series. Gives their names, so that the probes' maps can
    /// drop them too: an entry that is made anew in between would lose its first counts, so nothing is dropped before its time.
    pub fn retire(&mut self, keep: Duration, now_ns: u64) -> Vec<DeviceKey> {
        let keep_ns = u64::try_from(keep.as_nanos()).unwrap_or(u64::MAX);
        let mut retired = Vec::new();
        for (key, watched) in &mut self.devices {
            if !self.host.is_present(*key) {
                watched.device.gone(now_ns);
            }
            if let DeviceStanding::Closed(since_ns) = watched.device.standing()
                && now_ns.saturating_sub(since_ns) >= keep_ns
            {
                retired.push(*key);
            }
        }
        for key in &retired {
            info!(device = %key, "the device was closed long ago: its series end");
            self.devices.remove(key);
            self.metrics.forget(*key);
        }
        if !retired.is_empty() {
            // Another that was refused for lack of room has room now, and one that comes back begins anew.
            self.shown = None;
            for watched in self.devices.values_mut() {
                watched.standing_shown = None;
                watched.told_shown = None;
            }
        }
        retired
    }

    /// How many devices were seen, and how many of them migrate.
    pub fn counts(&self) -> (usize, usize) {
        let migrating = self.devices.values().filter(|watched| watched.tracker.current().is_some());
        (self.devices.len(), migrating.count())
    }

    /// The devices, as they stand at `now_ns`.
    pub fn device_reports(&self, now_ns: u64) -> Vec<DeviceReport> {
        let report = |watched: &Watched| {
            let Watched { device, tracker, info, .. } = watched;
            let (state, since_ns) = match device.standing() {
                DeviceStanding::Unknown => (None, None),
                DeviceStanding::In(state, since_ns) => (Some(state.name().into()), Some(since_ns)),
                DeviceStanding::Closed(since_ns) => (Some("closed".into()), Some(since_ns)),
            };
            DeviceReport {
                device: device.key().to_string(),
                state,
                since_monotonic_ns: since_ns,
                info: info.clone(),
                pid: device.tgid(),
                pending_bytes: device
                    .pending_bytes()
                    .filter(|_| self.coverage.of(device.seen()).access),
                states_ns: device
                    .stayed_ns()
                    .map(|(state, ns)| (state.name().into(), ns))
                    .collect(),
                session: tracker.current().map(|session| Report::new(session, now_ns)),
            }
        };
        self.devices.values().map(report).collect()
    }

    /// The ended sessions that are kept and those under way, by their numbers.
    pub fn session_reports(&self, now_ns: u64) -> Vec<Report> {
        let mut reports: Vec<_> = self.sessions().map(|s| Report::new(s, now_ns)).collect();
        reports.sort_by_key(|report| report.id);
        reports
    }

    /// The migrations of machines that are kept and those under way, by their numbers.
    pub fn migrations(&self) -> Vec<Migration> {
        self.machines.all()
    }

    /// What was lost so far, as last read.
    pub fn losses_so_far(&self) -> Losses {
        self.losses
    }

    /// The sessions that have ended and are kept, and those under way.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        let running = self.devices.values().filter_map(|watched| watched.tracker.current());
        self.history.iter().chain(running)
    }

    /// The metrics that it keeps.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    fn watched(&mut self, key: DeviceKey) -> &mut Watched {
        let known = self.devices.contains_key(&key);
        if !known {
            self.devices.insert(key, Watched::new(key));
            self.describe(key);
        }
        self.devices.get_mut(&key).expect("inserted above")
    }

    /// Looks up what the device is and who has it open.
    fn describe(&mut self, key: DeviceKey) {
        let tgid = self.devices.get(&key).and_then(|watched| watched.device.tgid());
        if let Some(info) = self.host.describe(key, tgid) {
            self.described(key, info);
        }
    }

    /// Takes in what a device is and who has it open. In a feed that begins in the middle this is the first that is heard of it.
    pub fn described(&mut self, key: DeviceKey, info: Info) {
        self.feed(|| Input::Info(key, info.clone()));
        let watched = self.devices.entry(key).or_insert_with(|| Watched::new(key));
        if let Some(session) = watched.tracker.current() {
            self.machines.described(session, &info);
        }
        let protocol = watched.device.protocol();
        self.metrics.device.describe(&key.to_string(), protocol, &info);
        watched.info = info;
    }
}

/// Shows how a session under way goes.
fn show_session(families: &ConvergenceFamilies, device: &str, session: &Session) {
    let memory_dirty = session.outlook.memory_dirty();
    let of_device = memory_dirty.map(|rate| (Source::of(session.protocol), rate));
    let dirty_rates: Vec<_> = of_device
        .into_iter()
        .chain(session.trackers.rates())
        .map(|(source, rate)| (source, rate.bytes_per_second, Duration::from_nanos(rate.window_ns)))
        .collect();
    let Some(assessment) = session.outlook.assessment() else {
        let direction = match session.role {
            Role::Source => trace::DataDirection::Save,
            Role::Destination => trace::DataDirection::Resume,
        };
        let rate = session.timeline.data_rate(RATE_WINDOW_NS).map(|rate| (direction, rate));
        let shown = Convergence {
            throughput: rate.as_slice(),
            dirty_rates: &dirty_rates,
            ..Convergence::default()
        };
        families.show(device, &shown);
        return;
    };
    let throughput =
        assessment.throughput.map(|rate| (trace::DataDirection::Save, rate.bytes_per_second));
    let shown = Convergence {
        throughput: throughput.as_slice(),
        dirty_rates: &dirty_rates,
        converging: match assessment.verdict {
            Verdict::Converging => Some(true),
            Verdict::NotConverging => Some(false),
            Verdict::Unknown => None,
        },
        ratio: assessment.ratio,
        blocked: Some(&assessment.blocked),
        remaining: assessment.remaining.map(|band| Duration::from_nanos(band.expected_ns)),
        downtime: assessment.downtime.map(|band| Duration::from_nanos(band.expected_ns)),
    };
    families.show(device, &shown);
}
