// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope agent`: the exporter as a whole.
//!
//! ```text
//!   with what it was started with      web configuration read, sockets bound
//!   confined                           sampler thread started, which alone keeps capabilities
//!   without capabilities               two threads that serve; signals; the service manager
//! ```
//!
//! The order is the point: see [`crate::privilege`].

use crate::{
    config::{Change, ConfigError, Settings},
    http,
    latency::{interval_log::LogError, schedule::Logger},
    logging::Logging,
    metrics::Metrics,
    observer::Observer,
    privilege::{Confined, Holder, Mode, PrivilegeError, confine, give_up_all},
    probes::{attach::chain, object, wanted},
    record::{Existing, Options, RecordError, Recorder},
    sampler::{Sampler, Shared, lock},
    service::{Manager, Pulse},
    web::{
        gate::Gate,
        listener::{self, Bound, ListenError},
        live::{Live, WebConfigError},
        serve::Server,
    },
};
use prometheus::{Registry, process_collector::ProcessCollector};
use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::{
        oneshot::{self, error::RecvError},
        watch,
    },
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{error, info, warn};

/// How long requests under way may take to end once the agent is told to stop.
const GRACE: Duration = Duration::from_secs(2);
/// How often it is looked whether the probes were tried, until they were.
const TRIED: Duration = Duration::from_millis(20);
/// How often the service manager is told how things stand, when that has changed.
const STATUS: Duration = Duration::from_secs(2);
/// As good as never, for a watchdog that is not there.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// Reads the settings again, from the same sources.
pub type Reread = Box<dyn Fn() -> Result<Settings, ConfigError> + Send>;

/// How the agent is to run.
pub struct Config {
    /// The settings.
    pub settings: Settings,
    /// For SIGHUP.
    pub reread: Reread,
    /// The log, whose level can be changed.
    pub logging: Logging,
}

/// Why the agent could not run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// There is no socket to listen on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The web configuration cannot be used.
    #[error(transparent)]
    WebConfig(#[from] WebConfigError),
    /// The latency log could not be begun.
    #[error("failed to begin the latency log; choose another file with --latency.log")]
    LatencyLog(#[source] LogError),
    /// Privileges could not be given up.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// A thread, a signal's handler or a listener could not be set up.
    #[error("failed to serve")]
    Serve(#[source] io::Error),
    /// The recording could not be begun.
    #[error(
        "failed to record into the folder of --record.dir; the agent runs without that setting, too"
    )]
    Record(#[source] RecordError),
    /// The probes are no longer read.
    #[error("the thread that reads the probes has ended; the log says why")]
    Sampler,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
///
/// [`AgentError`]. Missing probes are none: the agent runs without them and says so.
pub fn run(config: Config) -> Result<(), AgentError> {
    let Config { settings, reread, logging } = config;
    let live = Arc::new(Live::start(settings.web_config.clone())?);
    let bound = listener::bind(&settings.listen_addresses, settings.systemd_socket)?;
    if object::EMBEDDED.is_none() {
        warn!("this binary was built without probes: it will show nothing but itself");
    }
    let mode = settings.privileges;
    if mode != Mode::Keep {
        let Confined { landlock, seccomp } =
            confine(bound.iter().filter_map(Bound::folder), settings.written_folders())?;
        info!(landlock, %seccomp, "confined");
    }

    let registry = Registry::new();
    registry
        .register(Box::new(ProcessCollector::for_self()))
        .expect("nothing else is called process_*");
    let metrics = Arc::new(Metrics::new(registry));
    let latency_log = settings.latency_log.as_deref();
    let latency_log = latency_log
        .map(|path| Logger::begin(path, Arc::clone(&metrics)))
        .transpose()
        .map_err(AgentError::LatencyLog)?;
    let mut observer = Observer::new(settings.paths.clone(), metrics);
    observer.set_downtime_budget(nanoseconds(settings.downtime_budget));
    let observer: Shared = Arc::new(Mutex::new(observer));
    // From here on the recording is ended however the agent ends: the recorder sees to it.
    let recorder = settings.record_dir.as_deref();
    let recorder = recorder
        .map(|folder| Recorder::begin(&observer, recording_in(folder, &settings)))
        .transpose()
        .map_err(AgentError::Record)?;
    let (stop, stopped) = watch::channel(false);
    let (keep, kept) = watch::channel(settings.keep);
    let pulse = Pulse::default();
    let sampler = Sampler::new(
        Arc::clone(&observer),
        object::EMBEDDED,
        settings.paths.clone(),
        kept,
        Holder::new(mode),
        pulse.clone(),
    )
    .with_own_driver(settings.own_driver);
    let (tell, sampler_ended) = oneshot::channel();
    start_sampler(sampler, stopped.clone(), tell).map_err(AgentError::Serve)?;
    if mode != Mode::Keep {
        give_up_all()?;
    }

    // One thread would do; with two, an answer that is long in the making holds up no other.
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(AgentError::Serve)?;
    let agent = Agent { settings, reread, logging, live, observer, keep, pulse, stop, stopped };
    let served = runtime.block_on(agent.serve(bound, latency_log, recorder, sampler_ended));
    // What is still being verified or written then is nobody's any more.
    runtime.shutdown_background();
    served
}

/// Older files that the agent keeps of its recording.
const OLDER: u32 = 3;

/// How the agent records into `folder`.
fn recording_in(folder: &Path, settings: &Settings) -> Options {
    Options {
        path: folder.join("agent.migscope"),
        max_bytes: settings.record_max_bytes / u64::from(OLDER + 1),
        older: OLDER,
        existing: Existing::Keep,
        paths: settings.paths.clone(),
    }
}

/// The thread that has the privileges. It is started by a thread that has them, and before all others.
fn start_sampler(
    sampler: Sampler,
    stopped: watch::Receiver<bool>,
    tell: oneshot::Sender<Result<(), PrivilegeError>>,
) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("sampler".into()).spawn(move || {
        let ended = runtime.block_on(sampler.run(stopped));
        // Nobody listens when the agent has failed for another reason.
        let _ = tell.send(ended);
    })?;
    Ok(())
}

struct Agent {
    settings: Settings,
    reread: Reread,
    logging: Logging,
    live: Arc<Live>,
    observer: Shared,
    keep: watch::Sender<Duration>,
    pulse: Pulse,
    stop: watch::Sender<bool>,
    stopped: watch::Receiver<bool>,
}

/// How the sampler's thread ended.
type SamplerEnd = Result<Result<(), PrivilegeError>, RecvError>;

/// Why the agent no longer serves.
enum Over {
    Signal(&'static str),
    Sampler(SamplerEnd),
}

impl Agent {
    /// Serves until it is told to stop, or has to. Either way whoever asks gets his answer, and every file its end.
    async fn serve(
        mut self,
        bound: Vec<Bound>,
        latency_log: Option<Logger>,
        recorder: Option<Recorder>,
        mut sampler_ended: oneshot::Receiver<Result<(), PrivilegeError>>,
    ) -> Result<(), AgentError> {
        let mut signals = Signals::new().map_err(AgentError::Serve)?;
        let mut servers = self.start_servers(bound).map_err(AgentError::Serve)?;
        let every = self.settings.latency_log_interval;
        let latency_log =
            latency_log.map(|logger| tokio::spawn(logger.run(every, self.stopped.clone())));
        let mut manager = Manager::new(self.pulse.clone());
        let over = self.watch(&mut signals, &mut sampler_ended, &mut manager).await;
        if let Over::Signal(signal) = over {
            info!(signal, "stopping");
        }
        manager.stopping();
        self.stop.send_replace(true);
        let all = async { while servers.join_next().await.is_some() {} };
        if timeout(GRACE, all).await.is_err() {
            warn!("requests under way were cut off");
        }
        let ended = match over {
            Over::Signal(_) => match sampler_ended.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(AgentError::Privilege(error)),
                Err(_) => {
                    warn!("the last records were not read");
                    Ok(())
                }
            },
            Over::Sampler(Ok(Err(error))) => Err(AgentError::Privilege(error)),
            Over::Sampler(Ok(Ok(())) | Err(_)) => Err(AgentError::Sampler),
        };
        // Why a recording failed was said when it did; the agent did its work all the same.
        if let Some(Ok(summary)) = recorder.map(Recorder::finish) {
            let file = summary.path.display();
            info!(%file, dropped = summary.dropped, "the recording is complete");
        }
        if let Some(logger) = latency_log
            && let Ok(Some(mut logger)) = logger.await
        {
            logger.end_interval();
        }
        if ended.is_ok() {
            info!("stopped");
        }
        ended
    }

    /// Tells the service manager how things stand, and does what signals ask for, until there is an end to it.
    async fn watch(
        &mut self,
        signals: &mut Signals,
        sampler_ended: &mut oneshot::Receiver<Result<(), PrivilegeError>>,
        manager: &mut Manager,
    ) -> Over {
        let mut ready = false;
        let mut tried = ticks(TRIED);
        let mut status = ticks(STATUS);
        let mut feed = ticks(Manager::feeding_time().unwrap_or(NEVER));
        feed.reset();
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    "SIGHUP" => {
                        manager.reloading();
                        self.reload();
                        manager.ready(&self.status());
                    }
                    signal => return Over::Signal(signal),
                },
                _ = tried.tick(), if !ready => {
                    ready = !lock(&self.observer).standing().is_empty();
                    if ready {
                        manager.ready(&self.status());
                    }
                }
                _ = status.tick(), if ready => manager.status(self.status()),
                _ = feed.tick() => manager.feed(),
                ended = &mut *sampler_ended => return Over::Sampler(ended),
            }
        }
    }

    fn start_servers(&self, bound: Vec<Bound>) -> io::Result<JoinSet<()>> {
        let path = self.settings.telemetry_path.as_str();
        let router = http::router(Arc::clone(&self.observer), path, self.stopped.clone());
        let gate = Gate::new(Arc::clone(&self.live), router, self.settings.max_requests);
        let server = Arc::new(Server::new(Arc::clone(&self.live), gate));
        let current = self.live.current();
        let (tls, passwords) = (current.tls.is_some(), !current.users.is_empty());
        let mut servers = JoinSet::new();
        for bound in bound {
            let listener = bound.into_listener()?;
            let address = listener.address();
            let metrics = listener.origin(tls).map(|origin| format!("{origin}{path}"));
            servers.spawn(Arc::clone(&server).serve(listener, self.stopped.clone()));
            info!(address, metrics, tls, passwords, "listening");
        }
        Ok(servers)
    }

    /// Reads all configuration again. What cannot be used changes nothing; what cannot be changed while running is named.
    fn reload(&mut self) {
        info!("SIGHUP: the configuration is read again");
        match (self.reread)() {
            Ok(new) => {
                for change in self.settings.changes(&new) {
                    match change {
                        Change::Now(key) => info!(key, "a setting has changed"),
                        Change::Restart(key) => {
                            warn!(
                                key,
                                "a setting has changed that needs a restart: it does not hold yet"
                            );
                        }
                    }
                }
                self.settings.log_level = new.log_level;
                self.settings.keep = new.keep;
                self.logging.set_level(new.log_level);
                self.settings.downtime_budget = new.downtime_budget;
                self.keep.send_replace(new.keep);
                lock(&self.observer).set_downtime_budget(nanoseconds(new.downtime_budget));
            }
            Err(error) => error!(
                error = chain(&error),
                "the new configuration cannot be used: the old one goes on holding"
            ),
        }
        // It logs what it finds wrong.
        let _ = self.live.reload();
    }

    fn status(&self) -> String {
        let observer = lock(&self.observer);
        let (mut attached, mut all) = (0, 0);
        for (_, state) in wanted(observer.standing()) {
            attached += usize::from(state.is_ok());
            all += 1;
        }
        let (devices, migrating) = observer.counts();
        format!(
            "{attached} of {all} probes attached, {devices} devices seen, {migrating} migrating"
        )
    }
}

/// A duration as the observer counts; one that is longer than 584 years is that long.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}
