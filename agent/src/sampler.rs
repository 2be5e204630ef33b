// SPDX-License-Identifier: Apache-2.0 OR MIT
//! When the probes are loaded, attached and read.
//!
//! ```text
//!            every 2 s                 every 2 s, while one is missing
//!   nothing ──load──▶ loaded ──attach──▶ ring readable ──▶ read the ring: losses, events
//!      ▲ why not │                       every 250 ms ───▶ the same, then the maps
//!      │         │                       every 50 ms ────▶ the sums of the devices, while a session runs
//!      └─────────┘                       every 5 s ──────▶ retire devices that are gone
//!
//!   a device with a migration region is opened or closed ── within 250 ms ──▶ probes of accesses attached or detached
//! ```
//!
//! The maps are read by the clock alone: that takes a hundred system calls, which a busy ring must not multiply. What is exact in
//! a session comes with the records of the ring.

use crate::{
    clock::monotonic_ns,
    device_key::RawKey,
    host::Paths,
    observer::Observer,
    privilege::{Holder, Mode, PrivilegeError},
    probes::{
        Standing, all_missing,
        attach::{Attacher, Missing, OwnDriver, chain},
        load::{Loaded, load},
        logs::Logs,
        losses::{LossLog, by_reason},
        maps::Maps,
        ring::Reader,
        stats::{RunStats, skipped_runs},
    },
    sample::Losses,
    service::Pulse,
};
use aya::Ebpf;
use migscope_abi::probe::Probe;
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    time::Duration,
};
use tokio::{
    io::unix::AsyncFd,
    runtime::{Handle, RuntimeFlavor},
    sync::watch,
    task::block_in_place,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::{debug, error, info, warn};

/// How often the maps are read. Counters in Prometheus need no more: it scrapes every few seconds.
const SAMPLE: Duration = Duration::from_millis(250);
/// How often the sums of the devices are read while a session runs: the resolution of its timeline.
const FOLLOW: Duration = Duration::from_millis(50);
/// How often what is missing is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// How often devices are looked for that are gone.
const RETIRE: Duration = Duration::from_secs(5);
/// For how long at most the entries of a closed device are kept when there is room for few others: some scrapes.
const CROWDED_KEEP: Duration = Duration::from_secs(60);
/// The least time between two readings of the ring: a process that makes errors in a loop shall not keep the agent busy. The ring
/// holds the records of 150,000 errors a second for that long.
const PAUSE: Duration = Duration::from_millis(20);
/// Batches read of the ring at a time, so that one who fills it faster than it is read does not hold up everything else.
const BATCHES: usize = 16;

/// What is known, shared between the sampler and those who show it.
pub type Shared = Arc<Mutex<Observer>>;

/// Access to what is known.
///
/// Who waits here waits with a whole thread, and that thread may be the one that looks for requests. So it hands its other duties
/// on first: a scrape, which does not need the observer, is not to stand behind a page that does.
pub fn lock(observer: &Shared) -> MutexGuard<'_, Observer> {
    // A thread that died in between may have left a count short; to show nothing any more would be worse.
    let wait = || observer.lock().unwrap_or_else(PoisonError::into_inner);
    let hands_on = Handle::try_current()
        .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    match observer.try_lock() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) if hands_on => block_in_place(wait),
        Err(TryLockError::WouldBlock) => wait(),
    }
}

/// Loads, attaches and reads the probes.
pub struct Sampler {
    observer: Shared,
    object: Option<&'static [u8]>,
    paths: Paths,
    own_driver: OwnDriver,
    keep: watch::Receiver<Duration>,
    privileges: Holder,
    pulse: Pulse,
    probes: Option<Probes>,
    /// Why the probes could not be loaded, when that was last tried.
    missing: Option<Missing>,
}

struct Probes {
    ebpf: Ebpf,
    maps: Maps,
    ring: AsyncFd<Reader>,
    loss_log: LossLog,
    logs: Option<Logs>,
    stats: Option<RunStats>,
    attacher: Attacher,
    standing: Standing,
    /// Not before this the ring is read again.
    resume_at: Instant,
}

impl Sampler {
    /// A sampler for the probes in `object`. Series of closed devices are kept for `keep`.
    pub fn new(
        observer: Shared,
        object: Option<&'static [u8]>,
        paths: Paths,
        keep: watch::Receiver<Duration>,
        privileges: Holder,
        pulse: Pulse,
    ) -> Self {
        let own_driver = OwnDriver::default();
        Self {
            observer,
            object,
            paths,
            own_driver,
            keep,
            privileges,
            pulse,
            probes: None,
            missing: None,
        }
    }

    /// The same, which sees devices of our own driver in this way.
    pub fn with_own_driver(self, own_driver: OwnDriver) -> Self {
        Self { own_driver, ..self }
    }

    /// The same for a command that keeps its privileges until it ends, and serves nobody.
    pub fn keeping_privileges(
        observer: Shared,
        object: Option<&'static [u8]>,
        paths: Paths,
        keep: Duration,
    ) -> Self {
        let (_, keep) = watch::channel(keep);
        Self::new(observer, object, paths, keep, Holder::new(Mode::Keep), Pulse::default())
    }

    /// Runs until `stop` changes, then reads what is left and detaches. All on the calling thread, which has the privileges.
    ///
    /// # Errors
    ///
    /// [`PrivilegeError`], when they could not be given up.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), PrivilegeError> {
        let mut sample = interval(SAMPLE);
        let mut follow = interval(FOLLOW);
        let mut retry = interval(RETRY);
        let mut retire = interval(RETIRE);
        for ticks in [&mut sample, &mut follow, &mut retry, &mut retire] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                _ = stop.changed() => break,
                _ = retry.tick() => {
                    if self.privileges.may_attach() {
                        self.connect();
                        self.settle()?;
                    }
                }
                _ = sample.tick() => self.read_all(),
                _ = follow.tick() => self.follow(),
                _ = retire.tick() => self.retire(),
                () = readable(self.probes.as_mut()) => {
                    self.read_ring();
                }
            }
        }
        self.read_all();
        Ok(())
    }

    /// Gives up the privileges that are no longer needed.
    fn settle(&mut self) -> Result<(), PrivilegeError> {
        let probes = self.probes.as_ref();
        // Probes that come and go with devices are never all there for good.
        let complete = probes.is_some_and(|probes| {
            !probes.attacher.waits_for_devices() && probes.standing.values().all(Result::is_ok)
        });
        self.privileges.settle(complete, || probes.is_none_or(|probes| probes.maps.lost().is_ok()))
    }

    /// Loads what is not loaded and attaches what is not attached.
    fn connect(&mut self) {
        if self.probes.is_none() {
            match self.load() {
                Ok(probes) => {
                    self.probes = Some(probes);
                    self.missing = None;
                }
                Err(missing) => {
                    if self.missing.as_ref() != Some(&missing) {
                        warn!(why = %missing.why, remedy = %missing.remedy, "no probes");
                        lock(&self.observer).probes(all_missing(&missing));
                        self.missing = Some(missing);
                    }
                    return;
                }
            }
        }
        let Some(probes) = &mut self.probes else {
            return;
        };
        let Probes { ebpf, maps, attacher, standing, .. } = probes;
        if attacher.attach(ebpf, maps, standing) {
            for (event, attached) in &probes.standing {
                match attached {
                    Ok(()) => info!(probe = event.name(), "attached"),
                    Err(Missing { why, remedy, dormant: true }) => {
                        info!(probe = event.name(), %why, %remedy, "a probe has nothing to do");
                    }
                    Err(Missing { why, remedy, dormant: false }) => {
                        warn!(probe = event.name(), %why, %remedy, "a probe is missing");
                    }
                }
            }
            lock(&self.observer).probes(probes.standing.clone());
        }
    }

    fn load(&self) -> Result<Probes, Missing> {
        let Loaded { ebpf, maps, reader, logs, refused } =
            load(self.object).map_err(|error| error.missing())?;
        let ring = reader.into_async().map_err(|error| {
            Missing::new(
                format!("the probes' ring cannot be waited for: {error}"),
                "raise the limit of open files (ulimit -n)",
            )
        })?;
        let stats = RunStats::enable();
        let resume_at = Instant::now();
        let attacher = Attacher::new(self.paths.clone(), self.own_driver, refused);
        let standing = Standing::new();
        let loss_log = LossLog::default();
        Ok(Probes { ebpf, maps, ring, loss_log, logs, stats, attacher, standing, resume_at })
    }

    /// Reads the ring, and the losses after it; see [`crate::observer`].
    fn read_ring(&mut self) {
        let Some(probes) = &mut self.probes else {
            return;
        };
        for _ in 0..BATCHES {
            let before_ns = monotonic_ns();
            let batch = probes.ring.get_mut().drain();
            let lost = probes.maps.lost();
            let skipped = skipped_runs(&probes.ebpf);
            let now_ns = monotonic_ns();
            let mut events = batch.events;
            for event in &mut events {
                let device = probes.maps.device(RawKey(event.device().0));
                event.set_device(device);
            }
            if let Ok(lost) = &lost {
                probes.loss_log.log(lost);
            }
            let mut observer = lock(&self.observer);
            match lost.as_ref().map(by_reason) {
                Ok(told) => observer.losses(Losses { told, skipped }, now_ns),
                Err(error) => {
                    error!(error = chain(&error), "losses are unknown");
                    observer.lose(now_ns, "events may have been lost");
                }
            }
            observer.bad_records(&batch.bad, now_ns);
            observer.events(&events);
            if batch.emptied {
                observer.settled(before_ns);
                break;
            }
        }
        probes.resume_at = Instant::now() + PAUSE;
    }

    /// Reads the ring, then the maps.
    fn read_all(&mut self) {
        self.pulse.beat();
        self.read_ring();
        let Some(probes) = &mut self.probes else {
            return;
        };
        match probes.maps.sample() {
            Ok(sample) => {
                let mut observer = lock(&self.observer);
                observer.sampled(&sample);
                if let Some(stats) = &probes.stats {
                    observer.costs(&stats.read(&probes.ebpf));
                }
            }
            Err(error) => {
                error!(error = chain(&error), "the probes' sums are unknown");
            }
        }
        if let Some(logs) = &mut probes.logs {
            logs.flush();
        }
        if self.privileges.may_attach() {
            self.follow_data_files();
        }
        self.follow_regions();
    }

    /// Attaches to accesses to migration regions while there is a device that has one.
    fn follow_regions(&mut self) {
        let may_attach = self.privileges.may_attach();
        let Some(probes) = &mut self.probes else {
            return;
        };
        let Probes { ebpf, maps, attacher, standing, .. } = probes;
        if attacher.follow_regions(ebpf, maps, standing, may_attach) {
            let attached = standing.get(&Probe::RegionReturn).is_some_and(Result::is_ok);
            info!(attached, "accesses to migration regions");
            lock(&self.observer).probes(standing.clone());
        }
    }

    /// Attaches to the operations of files that a driver handed out for the first time.
    fn follow_data_files(&mut self) {
        let Some(probes) = &mut self.probes else {
            return;
        };
        let Probes { ebpf, maps, attacher, standing, .. } = probes;
        if attacher.follow_data_files(ebpf, maps, standing) {
            lock(&self.observer).probes(standing.clone());
        }
    }

    /// Reads the sums of the devices, while a session runs.
    fn follow(&mut self) {
        let Some(probes) = &self.probes else {
            return;
        };
        if !lock(&self.observer).is_busy() {
            return;
        }
        let at_ns = monotonic_ns();
        match probes.maps.device_sums() {
            Ok(devices) => lock(&self.observer).sums_read(at_ns, &devices),
            Err(error) => debug!(error = chain(&error), "no sums this time"),
        }
    }

    fn retire(&mut self) {
        let mut keep = *self.keep.borrow();
        let room = self.probes.as_ref().and_then(|probes| probes.maps.room_for_devices());
        let mut observer = lock(&self.observer);
        // From seven eighths on.
        if room.is_some_and(|room| observer.counts().0 >= room - room / 8) {
            keep = keep.min(CROWDED_KEEP);
        }
        let now_ns = monotonic_ns();
        let retired = observer.retire(keep, now_ns);
        drop(observer);
        if let Some(probes) = &mut self.probes {
            let keep_ns = u64::try_from(keep.as_nanos()).unwrap_or(u64::MAX);
            let lives = |tgid: u32| self.paths.procfs.join(tgid.to_string()).is_dir();
            probes.maps.retire_machines(now_ns.saturating_sub(keep_ns), lives);
            for device in retired {
                debug!(%device, "its entries in the probes' maps are removed");
                probes.maps.forget(device);
            }
        }
    }
}

/// Waits until there is something in the ring and it is time to read it.
async fn readable(probes: Option<&mut Probes>) {
    let Some(probes) = probes else {
        return std::future::pending().await;
    };
    sleep_until(probes.resume_at).await;
    let ready: io::Result<_> = probes.ring.readable_mut().await;
    match ready {
        // Cleared before the ring is read: what comes meanwhile makes it ready again.
        Ok(mut ready) => ready.clear_ready(),
        Err(error) => {
            error!(%error, "the probes' ring cannot be waited for; it is read every {SAMPLE:?}");
            std::future::pending().await
        }
    }
}
