// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The devices of the guest, as one: what they hand out before the stop and after it, and what they take time for.

#[derive(Clone, Debug, Default)]
pub(crate) struct Device {
    /// Handed out first, once.
    pub(crate) initial_bytes: u64,
    /// What becomes stale of it a second.
    pub(crate) stale_bytes_per_s: f64,
    /// Handed out after the stop.
    pub(crate) stop_copy_bytes: u64,
    /// Whether anybody is told how much that is.
    pub(crate) size_told: bool,
    /// Changes of state of the source in the downtime.
    pub(crate) transitions_s: f64,
    /// Work of the destination after the last byte.
    pub(crate) load_s: f64,
    /// Whether an earlier migration told the two, and by how much that one was off.
    pub(crate) seen_before: Option<f64>,
}
