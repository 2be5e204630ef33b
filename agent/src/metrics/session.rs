// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sessions: how many ended how, how long they took, what of it was downtime; and of each device the last one, which stays to be
//! scraped until the device's series age out: a migration that took 200 ms between two scrapes is there in the next.
//!
//! What was observed of a session is its exemplar in OpenMetrics, by the session's number in `/api/v1/sessions`.

use super::{
    catalog::Catalog,
    description::Label,
    device::Info,
    exemplar::Exemplar,
    family::{About, Latencies, Numbers},
    number, seconds,
};
use crate::{
    latency::MIGRATION,
    session::{Downtime, End, Role, Session},
};
use std::time::Duration;

/// Families of sessions.
pub struct SessionFamilies {
    /// When `CLOCK_MONOTONIC` was zero, since the Unix epoch.
    monotonic_zero: fn() -> Duration,
    sessions: Numbers<2>,
    duration: Latencies<1>,
    downtime: Latencies<1>,
    last: LastSession,
}

/// The last session of each device.
struct LastSession {
    info: Numbers<3>,
    end_time: Numbers<1>,
    duration: Numbers<1>,
    downtime: Numbers<1>,
    data_bytes: Numbers<1>,
    iterations: Numbers<1>,
    dirty_bytes: Numbers<1>,
    result: Numbers<3>,
    exact: Numbers<1>,
}

impl SessionFamilies {
    /// `monotonic_zero` tells when `CLOCK_MONOTONIC` was zero, since the Unix epoch.
    pub(super) fn register(catalog: &mut Catalog, monotonic_zero: fn() -> Duration) -> Self {
        let catalog = catalog.area("Sessions");
        let role = || Label::one_of("role", Role::ALL.map(Role::name));
        let result = || Label::one_of("result", End::ALL.map(End::name));
        Self {
            monotonic_zero,
            sessions: Numbers::counters(
                catalog,
                About {
                    name: "vfio_migration_sessions_total",
                    help: "Migrations of one device that ended, by its role; unknown means that the record of the end was lost.",
                    labels: [role(), result()],
                    absent: "while the probe state was never attached",
                },
            ),
            duration: Latencies::histograms(
                catalog,
                MIGRATION,
                About {
                    name: "vfio_migration_session_duration_seconds",
                    help: "How long migrations of one device took from their beginning to their end.",
                    labels: [role()],
                    absent: "before the first one ended",
                },
            ),
            downtime: Latencies::histograms(
                catalog,
                MIGRATION,
                About {
                    name: "vfio_migration_downtime_seconds",
                    help: "Downtime by part: stop (the write that stops the source), final_data and final_dirty (what is saved \
                           and asked after it), transfer_gap (between the two ends), load and start (the destination's data and \
                           the write that starts it); source (stopped until saved), destination (resuming until running), total \
                           (source stops until destination runs, where both are seen).",
                    labels: [Label::one_of(
                        "part",
                        Downtime::default().parts().map(|(part, _)| part),
                    )],
                    absent: "before the part was seen, and for parts of which the protocol shows nothing",
                },
            ),
            last: LastSession::register(catalog),
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

    /// Counts a session that has ended, and that was of `machine`.
    pub fn ended(&self, session: &Session, machine: &Info) {
        let Some((end, at_ns)) = session.end else {
            return;
        };
        self.sessions.add([session.role.name(), end.name()], 1.0);
        let at = (self.monotonic_zero)().saturating_add(Duration::from_nanos(at_ns));
        self.last.describe(session, machine);
        self.last.show(session, end, (end != End::Unknown).then_some((at, at_ns)));
        if end == End::Unknown {
            return; // when it ended is not known either
        }
        let exemplar =
            |ns| Exemplar { session: session.id, value: Duration::from_nanos(ns), at: Some(at) };
        let took_ns = at_ns.saturating_sub(session.began_ns);
        self.duration.observe([session.role.name()], exemplar(took_ns));
        for (part, ns) in session.downtime.parts() {
            if let Some(ns) = ns {
                self.downtime.observe([part], exemplar(ns));
            }
        }
    }

    /// Counts what is known of a downtime only where both ends were seen, in nanoseconds. `source` is the source's session.
    pub fn downtime_between(&self, total_ns: u64, transfer_gap_ns: Option<u64>, source: u64) {
        self.downtime_part("total", total_ns, source);
        if let Some(ns) = transfer_gap_ns {
            self.downtime_part("transfer_gap", ns, source);
        }
    }

    /// Counts a part of a downtime, by the value of the label, in nanoseconds; `session` is one of its ends.
    pub fn downtime_part(&self, part: &'static str, ns: u64, session: u64) {
        let exemplar = Exemplar { session, value: Duration::from_nanos(ns), at: None };
        self.downtime.observe([part], exemplar);
    }
}

impl LastSession {
    fn register(catalog: &mut Catalog) -> Self {
        let info = Numbers::infos(
            catalog,
            About {
                name: "vfio_migration_last_session_info",
                help: "Which machine the device's last session was of; another may have the device by now. Always 1.",
                labels: [Label::device(), Label::follows("vm"), Label::follows("vm_uuid")],
                absent: "before a session of the device ended",
            },
        );
        let mut gauge = |name, help, absent| {
            Numbers::gauges(catalog, About { name, help, labels: [Label::device()], absent })
        };
        let unseen = "before a session of the device ended";
        let unknown =
            "before a session of the device ended, and where the record of the end was lost";
        Self {
            info,
            end_time: gauge(
                "vfio_migration_last_session_end_time_seconds",
                "When the device's last session ended, in seconds since the Unix epoch.",
                unknown,
            ),
            duration: gauge(
                "vfio_migration_last_session_duration_seconds",
                "How long the device's last session took.",
                unknown,
            ),
            downtime: gauge(
                "vfio_migration_last_session_downtime_seconds",
                "The device's own downtime in its last session: a source from its stop until it was saved or went back, a \
                 destination from resuming to running.",
                "before a session of the device ended, and where it did not stop, or stayed down beyond the session",
            ),
            data_bytes: gauge(
                "vfio_migration_last_session_data_bytes",
                "Device data moved in the device's last session.",
                "before a session of the device ended, and where that is unknown: the probe data was missing, or a record lost",
            ),
            iterations: gauge(
                "vfio_migration_last_session_iterations",
                "Buffers of device data moved in the device's last session.",
                "before a session of the device ended, and where that is unknown: the probe data was missing, or a record lost",
            ),
            dirty_bytes: gauge(
                "vfio_migration_last_session_dirty_bytes",
                "Memory reported dirty in the device's last session.",
                "before a session of the device ended, and where that is unknown: the probe dirty_query was missing, or a record lost",
            ),
            exact: gauge(
                "vfio_migration_last_session_exact",
                "1 if all of the device's last session was seen, 0 if something of it was lost or it had begun before the agent.",
                unseen,
            ),
            result: Numbers::gauges(
                catalog,
                About {
                    name: "vfio_migration_last_session_result",
                    help: "1 for the result of the device's last session, 0 for the others; role is that of that session.",
                    labels: [
                        Label::device(),
                        Label::one_of("role", Role::ALL.map(Role::name)),
                        Label::one_of("result", End::ALL.map(End::name)),
                    ],
                    absent: "before a session of the device ended, and for the role that it did not have in that session",
                },
            ),
        }
    }

    /// Shows which machine a session was of that ended.
    fn describe(&self, session: &Session, machine: &Info) {
        let device = session.device.to_string();
        self.info.forget(|[known, ..]| *known == device);
        self.info.set([&device, &machine.vm, &machine.vm_uuid], 1.0);
    }

    /// Shows a session that ended. `at`: since the Unix epoch and in nanoseconds of `CLOCK_MONOTONIC`, if it is known when.
    fn show(&self, session: &Session, end: End, at: Option<(Duration, u64)>) {
        let device = session.device.to_string();
        let device = device.as_str();
        let figures = session.figures();
        let downtime_ns = match session.role {
            Role::Source => session.downtime.source_ns,
            Role::Destination => session.downtime.destination_ns,
        };
        let took = at.map(|(_, at_ns)| seconds(at_ns.saturating_sub(session.began_ns)));
        self.end_time.set_known([device], at.map(|(at, _)| at.as_secs_f64()));
        self.duration.set_known([device], took);
        self.downtime.set_known([device], downtime_ns.map(seconds));
        self.data_bytes.set_known([device], figures.data_bytes.map(number));
        self.iterations.set_known([device], figures.iterations.map(number));
        self.dirty_bytes.set_known([device], figures.dirty.map(|dirty| number(dirty.bytes)));
        self.exact.set([device], if session.exact { 1.0 } else { 0.0 });
        self.result.forget(|[known, role, _]| known == device && role != session.role.name());
        for each in End::ALL {
            let value = if each == end { 1.0 } else { 0.0 };
            self.result.set([device, session.role.name(), each.name()], value);
        }
    }
}
