// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The reasons for which a migration may not come to its end, and the runbook of each.

use anyhow::Result;

use super::field::Override;
use super::runbooks::Runbooks;

/// All of them, as `vfio_migration_blocked` has them; the first are the ones that nothing but a change of something else ends.
pub(super) const REASONS: [&str; 9] = [
    "device_error",
    "size_query_failed",
    "no_dirty_tracking",
    "stop_copy_above_budget",
    "initial_bytes_not_drained",
    "dirty_rate_above_throughput",
    "destination_slow",
    "no_progress",
    "agent_blind",
];

/// The link of each series whose name begins with a reason.
pub(super) fn links(runbooks: &Runbooks) -> Result<Vec<Override>> {
    REASONS
        .iter()
        .map(|reason| {
            let link = runbooks.link(&format!("VfioMigrationBlocked-{reason}"))?;
            Ok(Override::beginning_with(reason).links(&[link]))
        })
        .collect()
}
