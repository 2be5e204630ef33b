// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why a migration may be blocked: a closed set, so that it can be a label, and each with a page that says what to do.

use super::assessment::Assessment;
use serde::{Serialize, Serializer};

/// What stands in the way. The order is that in which to look: what was told outright, what follows from numbers that
/// were told, what is estimated, and last what keeps the others from being seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The device is in its error state.
    DeviceError,
    /// The stop-copy size could not be had, and the VMM assumes 100 GiB (QEMU, `VFIO_MIG_STOP_COPY_SIZE`).
    SizeQueryFailed,
    /// Nobody tells pages apart, so every page is dirty in every pass.
    NoDirtyTracking,
    /// What must move after the stop does not fit into the downtime: S > B·L, however idle the guest.
    StopCopyAboveBudget,
    /// The device's initial data, which must be gone before the stop, does not become less.
    InitialBytesNotDrained,
    /// Memory is dirtied as fast as it is moved, or faster.
    DirtyRateAboveThroughput,
    /// The destination takes data in more slowly than it comes.
    DestinationSlow,
    /// Nothing moves, or passes do not become smaller, or not small enough ever to fit.
    NoProgress,
    /// Records were lost or a probe is missing: there may be more than is seen.
    AgentBlind,
}

impl Reason {
    /// All of them, in their order.
    pub const ALL: [Self; 9] = [
        Self::DeviceError,
        Self::SizeQueryFailed,
        Self::NoDirtyTracking,
        Self::StopCopyAboveBudget,
        Self::InitialBytesNotDrained,
        Self::DirtyRateAboveThroughput,
        Self::DestinationSlow,
        Self::NoProgress,
        Self::AgentBlind,
    ];

    /// The value of the label `reason`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeviceError => "device_error",
            Self::SizeQueryFailed => "size_query_failed",
            Self::NoDirtyTracking => "no_dirty_tracking",
            Self::StopCopyAboveBudget => "stop_copy_above_budget",
            Self::InitialBytesNotDrained => "initial_bytes_not_drained",
            Self::DirtyRateAboveThroughput => "dirty_rate_above_throughput",
            Self::DestinationSlow => "destination_slow",
            Self::NoProgress => "no_progress",
            Self::AgentBlind => "agent_blind",
        }
    }

    /// The name of its page in `dashboards/runbooks`.
    pub fn runbook(self) -> &'static str {
        match self {
            Self::DeviceError => "VfioMigrationBlocked-device_error.md",
            Self::SizeQueryFailed => "VfioMigrationBlocked-size_query_failed.md",
            Self::NoDirtyTracking => "VfioMigrationBlocked-no_dirty_tracking.md",
            Self::StopCopyAboveBudget => "VfioMigrationBlocked-stop_copy_above_budget.md",
            Self::InitialBytesNotDrained => "VfioMigrationBlocked-initial_bytes_not_drained.md",
            Self::DirtyRateAboveThroughput => "VfioMigrationBlocked-dirty_rate_above_throughput.md",
            Self::DestinationSlow => "VfioMigrationBlocked-destination_slow.md",
            Self::NoProgress => "VfioMigrationBlocked-no_progress.md",
            Self::AgentBlind => "VfioMigrationBlocked-agent_blind.md",
        }
    }

    pub(super) fn explain(self, assessment: &Assessment) -> String {
        let evidence = &assessment.evidence;
        let throughput = assessment.throughput.map(|rate| rate.bytes_per_second);
        let budget = time(Some(evidence.downtime_budget_ns));
        match self {
            Self::DeviceError => {
                "the device is in its error state; only a reset brings it back".to_owned()
            }
            Self::SizeQueryFailed => format!(
                "the device did not say how much it has to move after the stop; QEMU assumes 100 GiB then, which never fits into \
                 the {budget} of downtime that are allowed"
            ),
            Self::NoDirtyTracking => format!(
                "nobody tells which pages the device writes, so every page counts as dirty: {} are left after each pass, and {} \
                 fit into the downtime",
                bytes(evidence.remaining_bytes.map(|left| left as f64)),
                bytes(throughput.map(|rate| fitting(rate, evidence.downtime_budget_ns))),
            ),
            Self::StopCopyAboveBudget => format!(
                "{} must move after the device has stopped, and at {}/s no more than {} fit into the {budget} of downtime that are \
                 allowed",
                bytes(evidence.stop_copy_bytes.map(|size| size as f64)),
                bytes(throughput),
                bytes(throughput.map(|rate| fitting(rate, evidence.downtime_budget_ns))),
            ),
            Self::InitialBytesNotDrained => format!(
                "{} of the device's initial data are left, no less since {} (it began anew {} times)",
                bytes(evidence.initial_bytes.map(|left| left as f64)),
                time(evidence.undrained_ns),
                evidence.reinits,
            ),
            Self::DirtyRateAboveThroughput => format!(
                "memory is dirtied at {}/s in windows of {}, and data moves at {}/s",
                bytes(assessment.dirty.map(|rate| rate.bytes_per_second)),
                time(assessment.dirty.map(|rate| rate.window_ns)),
                bytes(throughput),
            ),
            Self::DestinationSlow => format!(
                "the destination is busy {} of the time, with {} sent to it and not yet loaded",
                evidence
                    .destination_busy
                    .map_or_else(|| "an unknown part".to_owned(), |share| format!("{:.0} %", share * 100.0)),
                bytes(evidence.destination_backlog_bytes.map(|backlog| backlog as f64)),
            ),
            Self::NoProgress => {
                let passes = if evidence.no_end_in_sight {
                    "at this rate passes never come to leave what fits into the downtime".to_owned()
                } else {
                    let stuck = time(evidence.stuck_ns);
                    format!("since {stuck} no pass has left less than the one before")
                };
                format!(
                    "nothing has moved for {}; {passes} ({} are left)",
                    time(evidence.still_ns),
                    bytes(evidence.remaining_bytes.map(|left| left as f64)),
                )
            }
            Self::AgentBlind => "records were lost or a probe is missing, so there may be more dirty pages and bytes than these"
                .to_owned(),
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What fits into the downtime, in bytes.
fn fitting(rate: f64, budget_ns: u64) -> f64 {
    rate * super::rate::seconds(budget_ns)
}

/// Bytes for people.
fn bytes(number: Option<f64>) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let Some(mut value) = number else { return "an unknown number of bytes".to_owned() };
    let mut shown = "B";
    for unit in UNITS {
        shown = unit;
        if value < 1024.0 || unit == "TiB" {
            break;
        }
        value /= 1024.0;
    }
    if shown == "B" { format!("{value:.0} B") } else { format!("{value:.1} {shown}") }
}

/// A length of time for people.
fn time(ns: Option<u64>) -> String {
    match ns {
        None => "an unknown time".to_owned(),
        Some(ns) if ns < 1_000_000_000 => format!("{} ms", ns / 1_000_000),
        Some(ns) => format!("{:.1} s", super::rate::seconds(ns)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn every_reason_has_its_page_with_every_heading() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards/runbooks");
        for reason in Reason::ALL {
            let path = folder.join(reason.runbook());
            let text = std::fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(
                text.starts_with(&format!("# VfioMigrationBlocked: {}\n", reason.name())),
                "{path:?}"
            );
            for heading in ["**Meaning.**", "**Impact.**", "**Diagnosis.**", "**Mitigation.**"] {
                assert_eq!(text.matches(heading).count(), 1, "{path:?}: {heading}");
            }
            let label = format!("vfio_migration_blocked{{reason=\"{}\"}}", reason.name());
            assert!(text.contains(&label), "{path:?}: {label}");
        }
    }

    #[test]
    fn every_page_has_its_reason() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards/runbooks");
        let names: BTreeSet<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("VfioMigrationBlocked-"))
            .collect();
        assert_eq!(names, Reason::ALL.iter().map(|reason| reason.runbook().to_owned()).collect());
    }

    #[test]
    fn the_order_of_the_list_is_that_of_the_type_and_names_are_one_of_a_kind() {
        assert!(Reason::ALL.is_sorted());
        let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(reason.runbook(), format!("VfioMigrationBlocked-{}.md", reason.name()));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.name());
        }
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(bytes(Some(1536.0)), "1.5 KiB");
        assert_eq!(bytes(Some(12.0)), "12 B");
        assert_eq!(bytes(Some(1e30)), "909494701772928256.0 TiB");
        assert_eq!(time(Some(300_000_000)), "300 ms");
        assert_eq!(time(Some(61_500_000_000)), "61.5 s");
        assert_eq!(bytes(None), "an unknown number of bytes");
    }
}
