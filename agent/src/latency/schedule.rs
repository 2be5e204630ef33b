// SPDX-License-Identifier: Apache-2.0 OR MIT
//! When the intervals of the latency log end: by the clock while the agent runs, and once more when it stops.

use super::interval_log::{IntervalLog, LIMIT_BYTES, LogError, Moment, tag};
use crate::{clock::monotonic_ns, metrics::Metrics, probes::attach::chain};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tracing::error;

/// Where and how often latencies are written.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file.
    pub path: PathBuf,
    /// Length of an interval; not zero.
    pub interval: Duration,
}

/// A log that is written by the clock.
pub struct Logger {
    log: IntervalLog,
    metrics: Arc<Metrics>,
}

impl Logger {
    /// Begins the log of the histograms of `metrics`.
    ///
    /// # Errors
    ///
    /// [`LogError`]: the file cannot be made.
    pub fn begin(path: &Path, metrics: Arc<Metrics>) -> Result<Self, LogError> {
        Ok(Self { log: IntervalLog::begin(path, LIMIT_BYTES, now())?, metrics })
    }

    /// Ends an interval each `length`, until `stop` changes. Gives itself back, for the last one to be ended when all is read.
    pub async fn run(mut self, length: Duration, mut stop: watch::Receiver<bool>) -> Option<Self> {
        let mut ticks = interval(length);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await; // the first is due at once
        loop {
            tokio::select! {
                _ = stop.changed() => return Some(self),
                _ = ticks.tick() => {}
            }
            // A disk may take its time; nobody else shall wait for it.
            let ended = spawn_blocking(move || {
                self.end_interval();
                self
            });
            self = ended.await.inspect_err(|error| error!(%error, "the latency log ends")).ok()?;
        }
    }

    /// Ends the interval under way.
    pub fn end_interval(&mut self) {
        let series = self.metrics.latencies();
        let series = series.map(|(family, labels, latency)| (tag(family.name, &labels), latency));
        if let Err(error) = self.log.end_interval(series, now()) {
            error!(error = chain(&error), "latencies are not logged");
        }
    }
}

fn now() -> Moment {
    Moment { wall: SystemTime::now(), monotonic_ns: monotonic_ns() }
}
