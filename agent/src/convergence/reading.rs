// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What goes in: one source at one moment, in words that all protocols share.

use serde::{Deserialize, Serialize};

/// Downtime that QEMU allows unless it is told otherwise (`migrate_set_parameter downtime-limit`, 300 ms).
pub const DEFAULT_DOWNTIME_BUDGET_NS: u64 = 300_000_000;

/// Whether the guest still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The device runs and is being copied.
    PreCopy,
    /// The device has stopped: what is left moves now, or never.
    Stopped,
}

/// What was known of one source at one moment. `None` is unknown, never zero.
///
/// The counters count from the beginning of the session. One that goes back, or a time that does, begins a new account:
/// no rate is made across it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub at_ns: u64,
    /// Whether the guest still runs.
    pub phase: Phase,
    /// Everything seen moved: device data, and memory where it is seen.
    pub moved_bytes: Option<u64>,
    /// Everything known to be left: what devices say is pending, and memory known to be dirty where it is seen. What was
    /// dirtied since the last sync and is not known to the VMM is not in it.
    pub remaining_bytes: Option<u64>,
    /// The part of `remaining_bytes` that can move only once the device has stopped.
    pub stop_copy_bytes: Option<u64>,
    /// Protocol v2: `initial_bytes` of the pre-copy information, which a VMM wants to be 0 before it stops the device.
    pub initial_bytes: Option<u64>,
    /// Bytes reported dirty, by queries of any kind. A page counts each time it is reported.
    pub dirtied_bytes: Option<u64>,
    /// Dirty bytes that the last complete sync found: QEMU's `dirty_bytes_last_sync`.
    pub last_sync_bytes: Option<u64>,
    /// Complete syncs so far: it counts up when `last_sync_bytes` is made anew, and only then. A pass lies between two.
    /// (Not the buffers that a device hands out, which the session calls iterations.)
    pub iteration: u64,
    /// How long the source's driver was busy giving what was moved, in nanoseconds.
    #[serde(default)]
    pub busy_ns: Option<u64>,
    /// How often the source was asked and had nothing to give, though it runs and told something to be left.
    #[serde(default)]
    pub empty_answers: u64,
}

impl Reading {
    /// A reading of which nothing is known but the moment and the phase.
    pub fn unknown(at_ns: u64, phase: Phase) -> Self {
        Self {
            at_ns,
            phase,
            moved_bytes: None,
            remaining_bytes: None,
            stop_copy_bytes: None,
            initial_bytes: None,
            dirtied_bytes: None,
            last_sync_bytes: None,
            iteration: 0,
            busy_ns: None,
            empty_answers: 0,
        }
    }
}

/// Who keeps account of dirty pages, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tracking {
    /// Somebody tells page by page.
    PerPage,
    /// Nobody does: the answer is that all pages are dirty.
    AllDirty,
    /// Nothing has been asked yet, or it was not seen.
    #[default]
    Unknown,
}

/// How the destination keeps up, where it is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationFacts {
    /// How long it was busy loading in the last `window_ns`.
    pub busy_ns: u64,
    /// The time that `busy_ns` is a part of.
    pub window_ns: u64,
    /// Bytes sent to it that it has not loaded.
    pub backlog_bytes: Option<u64>,
    /// How long it works after the last byte came: resources, RESUMING to RUNNING. As seen in an earlier migration of a
    /// like device.
    pub load_ns: Option<u64>,
}

/// What is known beside the numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The question for the stop-copy size was refused; a VMM then assumes a size of its own (QEMU: 100 GiB).
    pub size_query_failed: bool,
    /// Who tells which pages are dirty.
    pub tracking: Tracking,
    /// A device is in its error state.
    pub device_error: bool,
    /// Records were lost or a probe is missing: the numbers may be too small.
    pub blind: bool,
    /// The destination, where it is seen.
    pub destination: Option<DestinationFacts>,
    /// How long the source's changes of state take that lie in the downtime, as seen in an earlier migration of a like
    /// device.
    pub transitions_ns: Option<u64>,
    /// Downtime that the VMM allows.
    pub downtime_budget_ns: u64,
    /// How often the device began its initial data anew (`VFIO_PRECOPY_INFO_REINIT`).
    pub reinits: u64,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            size_query_failed: false,
            tracking: Tracking::default(),
            device_error: false,
            blind: false,
            destination: None,
            transitions_ns: None,
            downtime_budget_ns: DEFAULT_DOWNTIME_BUDGET_NS,
            reinits: 0,
        }
    }
}
