// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Probes of this process: what `migscope agent` does, without the server.

use super::{Source, SourceError};
use crate::{
    clock::monotonic_ns,
    host::{Paths, kernel},
    metrics::Metrics,
    observer::Observer,
    privilege::PrivilegeError,
    probes::object,
    sampler::{Sampler, Shared, lock},
    session::timeline::Point,
    snapshot::Snapshot,
};
use prometheus::Registry;
use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{runtime::Runtime, sync::watch, task::JoinHandle};

/// How long a closed device is shown, as by an agent's default.
const KEEP: Duration = Duration::from_secs(600);
/// How long loading may take; the verifier is slow on an emulated CPU.
const START: Duration = Duration::from_secs(60);
/// How long the last reading may take.
const STOP: Duration = Duration::from_secs(2);
/// How often it is looked whether the probes were tried.
const LOOK: Duration = Duration::from_millis(20);

/// Why this process cannot watch by itself; `None` when it can try.
pub fn why_not(paths: &Paths) -> Option<&'static str> {
    if object::EMBEDDED.is_none() {
        return Some("this program was built without probes");
    }
    match kernel::may_load(paths) {
        Some(true) => None,
        Some(false) => Some("it may not load BPF programs"),
        None => {
            Some("nobody can tell whether it may load BPF programs, since /proc cannot be read")
        }
    }
}

/// Probes, and the observer of what they tell.
pub struct Probes {
    observer: Shared,
    stop: watch::Sender<bool>,
    /// Both are taken when this is dropped.
    running: Option<(Runtime, JoinHandle<Result<(), PrivilegeError>>)>,
}

impl Probes {
    /// Starts to load them, which takes a while; [`Source::snapshot`] waits for it.
    ///
    /// # Errors
    ///
    /// When there is no thread for it.
    pub fn start(paths: Paths) -> io::Result<Self> {
        let metrics = Arc::new(Metrics::new(Registry::new()));
        let observer: Shared = Arc::new(Mutex::new(Observer::new(paths.clone(), metrics)));
        let (stop, stopped) = watch::channel(false);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let sampler =
            Sampler::keeping_privileges(Arc::clone(&observer), object::EMBEDDED, paths, KEEP);
        let sampler = runtime.spawn(sampler.run(stopped));
        Ok(Self { observer, stop, running: Some((runtime, sampler)) })
    }
}

impl Source for Probes {
    fn name(&self) -> String {
        "own probes, no agent".into()
    }

    fn snapshot(&mut self) -> Result<Snapshot, SourceError> {
        let deadline = Instant::now() + START;
        while lock(&self.observer).standing().is_empty() {
            if Instant::now() >= deadline {
                return Err(SourceError::Slow(START.as_secs()));
            }
            std::thread::sleep(LOOK);
        }
        Ok(Snapshot::of(&lock(&self.observer), monotonic_ns()))
    }

    fn timeline(&mut self, session: u64) -> Result<Vec<Point>, SourceError> {
        let observer = lock(&self.observer);
        let found = observer.sessions().find(|known| known.id == session);
        Ok(found.map(|session| session.timeline.points().to_vec()).unwrap_or_default())
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some((runtime, sampler)) = self.running.take() {
            // The kernel detaches what is left when the process ends.
            let _ = runtime.block_on(async { tokio::time::timeout(STOP, sampler).await });
            runtime.shutdown_background();
        }
    }
}
