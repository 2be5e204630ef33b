// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether a migration converges: rates, ratio, estimates, and what may be in its way. Made elsewhere, shown here.

use super::{
    catalog::Catalog,
    description::Label,
    family::{About, Numbers},
};
use crate::{convergence::Reason, dirty::Source};
use migscope_abi::trace::DataDirection;
use std::time::Duration;

/// What may keep a migration from its end: the values of the label `reason`. Each has a runbook.
pub const REASONS: [&str; Reason::ALL.len()] = {
    let mut names = [""; Reason::ALL.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = Reason::ALL[index].name();
        index += 1;
    }
    names
};

/// How the migration of one device goes; what is not known is `None`, or not in the list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Convergence<'a> {
    /// Device data moved, in bytes per second, by direction.
    pub throughput: &'a [(DataDirection, f64)],
    /// Memory that becomes dirty, by who says so: bytes per second, and over what window.
    pub dirty_rates: &'a [(Source, f64, Duration)],
    /// Whether less becomes dirty than is moved.
    pub converging: Option<bool>,
    /// Dirty rate over throughput.
    pub ratio: Option<f64>,
    /// What may be in the way. `None` unless a session of a source runs; then a reason that is not listed is none.
    pub blocked: Option<&'a [Reason]>,
    /// Time until the end of the migration.
    pub remaining: Option<Duration>,
    /// Time that the machine will stand still.
    pub downtime: Option<Duration>,
}

/// Families of convergence.
pub struct ConvergenceFamilies {
    throughput: Numbers<2>,
    dirty_rate: Numbers<2>,
    dirty_window: Numbers<2>,
    converging: Numbers<1>,
    ratio: Numbers<1>,
    blocked: Numbers<2>,
    remaining: Numbers<1>,
    downtime: Numbers<1>,
}

impl ConvergenceFamilies {
    pub(super) fn register(catalog: &mut Catalog) -> Self {
        let catalog = catalog.area("Convergence");
        let while_unknown = "outside of a session, and while not enough is known for an estimate";
        Self {
            throughput: Numbers::gauges(
                catalog,
                About {
                    name: "vfio_migration_throughput_bytes_per_second",
                    help: "How fast device data moves, out of the device (save) or into it (resume).",
                    labels: [
                        Label::device(),
                        Label::one_of("direction", DataDirection::ALL.map(DataDirection::name)),
                    ],
                    absent: while_unknown,
                },
            ),
            dirty_rate: Numbers::gauges(
                catalog,
                About {
                    name: "vfio_migration_dirty_rate_bytes_per_second",
                    help: "How fast memory becomes dirty, by who reports it: what the last round of queries told, over the time since the round before.",
                    labels: [
                        Label::device(),
                        Label::one_of("source", Source::ALL.map(Source::name)),
                    ],
                    absent: while_unknown,
                },
            ),
            dirty_window: Numbers::gauges(
                catalog,
                About {
                    name: "vfio_migration_dirty_rate_window_seconds",
                    help: "The time over which the dirty rate was taken. A page that becomes dirty twice in it counts once, so a longer one gives a smaller rate.",
                    labels: [
                        Label::device(),
                        Label::one_of("source", Source::ALL.map(Source::name)),
                    ],
                    absent: while_unknown,
                },
            ),
            converging: Numbers::gauges(
                catalog,
                About {
                    name: "vfio_migration_converging",
                    help: "1 while what is left is expected to fit into the downtime that is allowed, 0 while it is not.",
                    labels: [Label::device()],
                    absent: while_unknown,
                },
            ),
            ratio: Numbers::gauges(
                catalog,
                About {
                    name: "vfio_migration_convergence_ratio",
                    help: "How fast device data becomes stale over how fast it moves: below 1 each pass is shorter than the one before.",
                    labels: [Label::device()],
                    absent: while_unknown,
                },
            ),
            blocked: Numbers::gauges(
                catalog,
                About {
                    name: "vfio_migration_blocked",
                    help: "1 for each reason for which the migration may not come to its end, 0 for the others.",
                    labels: [Label::device(), Label::one_of("reason", REASONS)],
                    absent: "unless the device is the source of a session that runs, or in its error state",
                },
            ),
            remaining: Numbers::gauges(
                catalog,
                About {
                    name: "vfio_migration_estimated_remaining_seconds",
                    help: "Estimated time until the migration ends.",
                    labels: [Label::device()],
                    absent: while_unknown,
                },
            ),
            downtime: Numbers::gauges(
                catalog,
                About {
                    name: "vfio_migration_estimated_downtime_seconds",
                    help: "Estimated downtime, with the part of the device that can only move once it is stopped.",
                    labels: [Label::device()],
                    absent: while_unknown,
                },
            ),
        }
    }

    /// Shows how the migration of `device` goes. What `outlook` does not know has no series afterwards.
    pub fn show(&self, device: &str, outlook: &Convergence<'_>) {
        let Convergence {
            throughput,
            dirty_rates,
            converging,
            ratio,
            blocked,
            remaining,
            downtime,
        } = outlook;
        for direction in DataDirection::ALL {
            let rate = throughput.iter().find(|(of, _)| *of == direction).map(|(_, rate)| *rate);
            self.throughput.set_known([device, direction.name()], rate);
        }
        for source in Source::ALL {
            let told = dirty_rates.iter().find(|(of, ..)| *of == source);
            let labels = [device, source.name()];
            self.dirty_rate.set_known(labels, told.map(|(_, rate, _)| *rate));
            self.dirty_window.set_known(labels, told.map(|(.., window)| window.as_secs_f64()));
        }
        self.converging.set_known([device], converging.map(|yes| if yes { 1.0 } else { 0.0 }));
        self.ratio.set_known([device], *ratio);
        self.show_blocked(device, *blocked);
        self.remaining.set_known([device], remaining.map(|time| time.as_secs_f64()));
        self.downtime.set_known([device], downtime.map(|time| time.as_secs_f64()));
    }

    fn show_blocked(&self, device: &str, blocked: Option<&[Reason]>) {
        let Some(blocked) = blocked else {
            self.blocked.forget(|[known, _]| known == device);
            return;
        };
        for reason in Reason::ALL {
            let value = if blocked.contains(&reason) { 1.0 } else { 0.0 };
            self.blocked.set([device, reason.name()], value);
        }
    }

    /// Nothing is to be estimated of `device` any more.
    pub fn forget(&self, device: &str) {
        self.show(device, &Convergence::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use prometheus::Registry;

    const DEVICE: &str = "0000:00:10.0";

    fn shown(metrics: &Metrics) -> Vec<String> {
        let text = String::from_utf8(metrics.encode().expect("encodes")).expect("text");
        let own = text.lines().filter(|line| line.starts_with("vfio_migration_"));
        own.map(str::to_owned).collect()
    }

    #[test]
    fn what_is_known_is_shown_and_nothing_else() {
        let metrics = Metrics::new(Registry::new());
        let outlook = Convergence {
            throughput: &[(DataDirection::Save, 2e6)],
            dirty_rates: &[(Source::Region, 1e6, Duration::from_millis(250))],
            converging: Some(true),
            ratio: Some(0.5),
            remaining: Some(Duration::from_millis(1500)),
            ..Convergence::default()
        };
        metrics.convergence.show(DEVICE, &outlook);
        assert_eq!(
            shown(&metrics),
            [
                "vfio_migration_convergence_ratio{device=\"0000:00:10.0\"} 0.5",
                "vfio_migration_converging{device=\"0000:00:10.0\"} 1",
                "vfio_migration_dirty_rate_bytes_per_second{device=\"0000:00:10.0\",source=\"region\"} 1000000",
                "vfio_migration_dirty_rate_window_seconds{device=\"0000:00:10.0\",source=\"region\"} 0.25",
                "vfio_migration_estimated_remaining_seconds{device=\"0000:00:10.0\"} 1.5",
                "vfio_migration_throughput_bytes_per_second{device=\"0000:00:10.0\",direction=\"save\"} 2000000",
            ]
        );
        metrics.convergence.show("0000:00:11.0", &Convergence { ratio: Some(2.0), ..outlook });
        metrics.convergence.forget(DEVICE);
        assert_eq!(shown(&metrics).len(), 6);
        assert!(shown(&metrics).iter().all(|line| !line.contains(DEVICE)));
    }

    #[test]
    fn a_rate_over_nothing_is_unknown_and_not_zero() {
        let metrics = Metrics::new(Registry::new());
        let outlook = Convergence { ratio: Some(f64::INFINITY), ..Convergence::default() };
        metrics.convergence.show(DEVICE, &outlook);
        assert_eq!(shown(&metrics), [""; 0]);
    }

    #[test]
    fn every_reason_has_a_series_while_a_source_migrates() {
        let metrics = Metrics::new(Registry::new());
        let blocked = [Reason::NoProgress, Reason::AgentBlind];
        let running = Convergence { blocked: Some(&blocked), ..Convergence::default() };
        metrics.convergence.show(DEVICE, &running);
        let lines = shown(&metrics);
        assert_eq!(lines.len(), REASONS.len());
        for reason in Reason::ALL {
            let value = u8::from(blocked.contains(&reason));
            let name = reason.name();
            let line =
                format!("vfio_migration_blocked{{device=\"{DEVICE}\",reason=\"{name}\"}} {value}");
            assert!(lines.contains(&line), "{line}: {lines:?}");
        }
        metrics
            .convergence
            .show(DEVICE, &Convergence { blocked: Some(&[]), ..Convergence::default() });
        assert!(shown(&metrics).iter().all(|line| line.ends_with(" 0")));
        metrics.convergence.forget(DEVICE);
        assert_eq!(shown(&metrics), [""; 0]);
    }
}
