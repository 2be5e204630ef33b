// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The agent as a service of systemd: what it tells the service manager (`sd_notify(3)`). Without one, nobody is told.
//!
//! `READY=1` comes when the listeners are up and the probes were tried, not when all are attached: a module that is loaded later
//! must not keep a boot waiting. The watchdog is fed by the sampler: an agent that answers but no longer reads its probes is hung.

use sd_notify::NotifyState;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tracing::{debug, warn};

/// Counts the rounds of the sampler.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// One more round.
    pub fn beat(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The service manager.
#[derive(Debug)]
pub struct Manager {
    told: String,
    pulse: Pulse,
    fed: u64,
}

impl Manager {
    /// The one that the environment names, if it does.
    pub fn new(pulse: Pulse) -> Self {
        Self { told: String::new(), fed: pulse.count(), pulse }
    }

    /// How often [`Manager::feed`] is to be called: twice as often as it is to be fed.
    pub fn feeding_time() -> Option<Duration> {
        sd_notify::watchdog_enabled().map(|time| time / 2).filter(|time| !time.is_zero())
    }

    /// The agent serves, and the probes were tried.
    pub fn ready(&mut self, status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
        self.told = status.into();
    }

    /// The configuration is being read again. [`Manager::ready`] has to follow.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => warn!(%error, "the service manager was not told of the reload"),
        }
    }

    /// The agent is about to end.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    /// One line for `systemctl status`, told when it has changed.
    pub fn status(&mut self, status: String) {
        if self.told != status {
            tell(&[NotifyState::Status(&status)]);
            self.told = status;
        }
    }

    /// Feeds the watchdog, if the sampler has done something since.
    pub fn feed(&mut self) {
        let count = self.pulse.count();
        if count == self.fed {
            warn!("the probes were not read since the watchdog was last fed: it is not fed now");
            return;
        }
        self.fed = count;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "the service manager was not told");
    }
}
