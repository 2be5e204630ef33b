// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sessions: how many ended how, how long they took, and what of it was downtime.

use super::family::{Latencies, Numbers};
use crate::{
    latency::MIGRATION,
    session::{End, Role, Session},
};
use prometheus::Registry;

/// Families of sessions.
pub struct SessionFamilies {
    sessions: Numbers<2>,
    duration: Latencies<1>,
    downtime: Latencies<1>,
}

impl SessionFamilies {
    pub(super) fn register(registry: &Registry) -> Self {
        Self {
            sessions: Numbers::counters(
                registry,
                "vfio_migration_sessions_total",
                "Migrations of one device that ended, by its role; unknown means that the record of the end was lost.",
                ["role", "result"],
            ),
            duration: Latencies::histograms(
                registry,
                "vfio_migration_session_duration_seconds",
                "How long migrations of one device took from their beginning to their end.",
                ["role"],
                MIGRATION,
            ),
            downtime: Latencies::histograms(
                registry,
                "vfio_migration_downtime_seconds",
                "Downtime by part: stop (the write that stops the source), final_dirty, final_data (the source's last queries \
                 and data), source (all of these), load (the destination's driver takes data in), start (the write that starts \
                 it), destination (resuming until running), transfer_gap (last data out until start), total (source stops \
                 until destination runs); the last two where both ends are seen.",
                ["part"],
                MIGRATION,
            ),
        }
    }

    /// From now on every session is seen: those that were not there yet are known to be none.
    pub fn start(&self) {
        for role in Role::ALL {
            for end in End::ALL {
                self.sessions.add([role.name(), end.name()], 0.0);
            }
        }
    }

    /// Counts a session that has ended.
    pub fn ended(&self, session: &Session) {
        let Some((end, at_ns)) = session.end else {
            return;
        };
        self.sessions.add([session.role.name(), end.name()], 1.0);
        if end == End::Unknown {
            return; // when it ended is not known either
        }
        self.duration.update([session.role.name()], |latency| {
            latency.record(at_ns.saturating_sub(session.began_ns));
        });
        for (part, ns) in session.downtime.parts() {
            if let Some(ns) = ns {
                self.downtime.update([part], |latency| latency.record(ns));
            }
        }
    }

    /// Counts what is known of the downtime of a migration only where its two ends were seen, in nanoseconds.
    pub fn downtime_between(&self, total_ns: u64, transfer_gap_ns: Option<u64>) {
        self.downtime.update(["total"], |latency| latency.record(total_ns));
        if let Some(ns) = transfer_gap_ns {
            self.downtime.update(["transfer_gap"], |latency| latency.record(ns));
        }
    }
}
