// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The demo's result, as it travels from the guest to `cargo xtask demo` and to scripts.

use std::collections::BTreeMap;

use migrator::live::Outcome;
use serde::{Deserialize, Serialize};

/// Everything that the demo has to say.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Demo {
    /// What the client counted at both ends, and whether everything that it checked holds.
    pub migrator: Outcome,
    /// What the agent told.
    pub agent: AgentAccount,
    /// The two side by side, one row for each number.
    pub comparison: Vec<Row>,
    /// What the agent foretold, beside what came. It is shown and not judged.
    pub forecast: Vec<Forecast>,
    /// What watching costs; unknown before it was measured.
    pub cost: Option<Cost>,
    /// Whether every row agrees and the migration lost nothing.
    pub agree: bool,
}

/// The agent's account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentAccount {
    /// By device: each number that the comparison takes from it.
    pub devices: BTreeMap<String, BTreeMap<String, f64>>,
    /// What `/metrics` said while the migration ran.
    pub seen: Vec<Seen>,
    /// How many samples the last scrape had.
    pub samples: usize,
}

/// One glance at `/metrics` during the migration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// Since the migration was started, in milliseconds.
    pub at_ms: u64,
    /// By device; a device that the agent does not know yet is missing.
    pub devices: BTreeMap<String, Glance>,
}

/// A device at one moment. What the agent did not tell is missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Glance {
    /// Name of its state.
    pub state: Option<String>,
    /// Bytes yet to be migrated, as last told.
    pub pending_bytes: Option<f64>,
    /// Bytes moved so far, in both directions.
    pub data_bytes: Option<f64>,
    /// Pages reported dirty so far.
    pub dirty_pages: Option<f64>,
}

/// One number, counted twice.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// The device, or nothing for what belongs to the migration as a whole.
    pub device: Option<String>,
    /// What was counted.
    pub what: String,
    /// `1`, `bytes`, `pages` or `seconds`.
    pub unit: String,
    /// The client's number.
    pub migrator: f64,
    /// The agent's number; nothing when it did not tell.
    pub agent: Option<f64>,
    /// How far apart the two may be; nothing when they must be equal.
    pub bound: Option<f64>,
    /// Whether they agree.
    pub agrees: bool,
}

/// A time that the agent foretold when it last looked during pre-copy, beside what it came to by the client's clock.
///
/// Nothing is judged by it, for the demo is no fair question. `edu` gives 40 of its 4,279 bytes in pre-copy and the rest only once it
/// stands, which the region protocol has no word for; so the agent sees a rest that does not move, its verdict is `unknown`, its band has no
/// upper end, and what it expects to remain is far too long. Pre-copy ends when the client has had enough of it, which no model can know.
/// And this agent saw no migration of such a device before: what its changes of state take is assumed. How good the estimates are is
/// for many migrations to say: `cargo xtask bench prediction`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Forecast {
    /// `remaining time` or `downtime`.
    pub what: String,
    /// What it came to, in seconds: from that look to the end of the source's part; from the stop to the start at the other end.
    pub came_seconds: f64,
    /// What was foretold, in seconds; nothing when nothing was.
    pub foretold_seconds: Option<f64>,
}

/// What one read of a register costs, in nanoseconds: the smallest mean of several batches.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// Before the agent was started.
    pub access_ns_without_probes: f64,
    /// While it ran.
    pub access_ns_with_probes: f64,
}
