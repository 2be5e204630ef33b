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
    /// By how much the agent's number may be smaller; nothing when the two must be equal.
    pub bound: Option<f64>,
    /// Whether they agree.
    pub agrees: bool,
}

/// What one read of a register costs, in nanoseconds: the smallest mean of several batches.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// Before the agent was started.
    pub access_ns_without_probes: f64,
    /// While it ran.
    pub access_ns_with_probes: f64,
}
