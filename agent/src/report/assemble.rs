// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From what was played to the document.

use super::{
    latencies::latencies,
    model::{Clock, Detail, Document, Losses, Move, Query, Recording},
    play::{Lost, Player},
    prediction::predict,
    rates::{rates, stays},
    units::counted,
    verdict, waterfall,
};
use crate::device_key::DeviceKey;
use crate::{
    event::DirtyQuery,
    sample,
    session::{Role, Session, report::Report},
    snapshot::Snapshot,
};
use migscope_abi::ring;
use std::collections::BTreeMap;

impl Player {
    /// Tells what was played. `recording` says where it comes from; the moments in it are filled in here.
    pub fn tell(self, recording: Recording) -> Document {
        let (began_ns, ended_ns) = self.moments_ns.unzip();
        let now_ns = ended_ns.unwrap_or(0);
        let clock = recording.clock;
        let mut sessions: Vec<&Session> = self.observer.sessions().collect();
        sessions.sort_by_key(|session| session.id);
        let details: BTreeMap<u64, Detail> = sessions
            .iter()
            .map(|session| (session.id, self.detail(session, now_ns, clock)))
            .collect();
        let moves: Vec<_> = moves(&sessions, &details);
        let snapshot = Snapshot::of(&self.observer, now_ns);
        let mut migrations = snapshot.migrations;
        for machine in &mut migrations {
            // The machine may have been described before it began to migrate.
            let known = |name: &dyn Fn(&Detail) -> &str| {
                let mut names = machine.sessions.iter().filter_map(|id| details.get(id)).map(name);
                names.find(|name| !name.is_empty()).map(str::to_owned)
            };
            let (vm, vm_uuid) =
                (known(&|detail| &detail.info.vm), known(&|detail| &detail.info.vm_uuid));
            machine.vm = machine.vm.take().or(vm);
            machine.vm_uuid = machine.vm_uuid.take().or(vm_uuid);
        }
        let losses = losses(&self, sessions.len());
        let mut document = Document {
            migscope: env!("CARGO_PKG_VERSION").into(),
            recording: Recording {
                began_monotonic_ns: began_ns,
                ended_monotonic_ns: ended_ns,
                ..recording
            },
            verdict: verdict::overall(&moves),
            moves,
            migrations,
            sessions: details.into_values().collect(),
            probes: snapshot.probes,
            losses,
            unknown: Vec::new(),
        };
        document.unknown = unknown(&document);
        document
    }

    fn detail(&self, session: &Session, now_ns: u64, clock: Option<Clock>) -> Detail {
        let until_ns = session.end.map_or(now_ns, |(_, at_ns)| at_ns);
        let is_in = |device: DeviceKey, at_ns: u64| {
            device == session.device && (session.began_ns..=until_ns).contains(&at_ns)
        };
        let queries = || self.queries.iter().filter(|query| is_in(query.device, query.at_ns));
        let beside = self.beside.get(&session.id).cloned().unwrap_or_default();
        let points = session.timeline.points();
        Detail {
            report: Report::new(session, now_ns),
            began_unix_ns: clock.map(|clock| clock.unix_ns(session.began_ns)),
            states: stays(points, until_ns, clock),
            timeline: points.to_vec(),
            rates: rates(points),
            queries: queries().map(Query::from).collect(),
            latencies: latencies(&beside, queries()),
            prediction: predict(session, &beside.foretold),
            info: beside.info,
        }
    }
}

impl From<&DirtyQuery> for Query {
    fn from(query: &DirtyQuery) -> Self {
        Self {
            at_ns: query.at_ns,
            duration_ns: query.duration_ns,
            outcome: query.outcome.name(),
            start_bytes: query.start_bytes,
            range_bytes: query.range_bytes,
            dirty_bytes: query.dirty_bytes,
        }
    }
}

/// A source and its destination, where they found each other, are one.
fn moves(sessions: &[&Session], details: &BTreeMap<u64, Detail>) -> Vec<Move> {
    let find = |id: Option<u64>| sessions.iter().copied().find(|session| Some(session.id) == id);
    let mut moves = Vec::new();
    for session in sessions {
        let peer = find(session.peer);
        let (source, destination) = match session.role {
            Role::Source => (Some(*session), peer),
            // Told with its source.
            Role::Destination if peer.is_some() => continue,
            Role::Destination => (None, Some(*session)),
        };
        let ends = || [source, destination].into_iter().flatten();
        let began_ns = ends().map(|end| end.began_ns).min();
        let ended_ns: Option<Vec<u64>> = ends().map(|end| Some(end.end?.1)).collect();
        let ended_ns = ended_ns.and_then(|all| all.into_iter().max());
        let duration_ns = ended_ns.zip(began_ns).map(|(end, began)| end.saturating_sub(began));
        let downtime = waterfall::parts(source, destination);
        let waterfall = waterfall::waterfall(source, destination, &downtime);
        let detail = |end: Option<&Session>| details.get(&end?.id);
        let other_ns = waterfall.as_ref().and_then(|waterfall| waterfall.other_ns);
        let verdict =
            verdict::verdict(detail(source), detail(destination), duration_ns, &downtime, other_ns);
        moves.push(Move {
            source: source.map(|end| end.id),
            destination: destination.map(|end| end.id),
            verdict,
            duration_ns,
            downtime,
            waterfall,
        });
    }
    moves
}

fn losses(player: &Player, kept: usize) -> Losses {
    let Lost { first, last, uncounted } = player.lost;
    let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
    let sample::Losses { told, skipped } = last;
    let records = ring::Lost::ALL
        .into_iter()
        .zip(told.into_iter().zip(first.told))
        // Counters that went back were begun anew: all of what they say now is new.
        .map(|(why, (now, then))| (why.name().into(), now.checked_sub(then).unwrap_or(now)))
        .collect();
    let kept = u64::try_from(kept).unwrap_or(u64::MAX);
    Losses {
        records,
        skipped: skipped.map(|now| now.checked_sub(first.skipped.unwrap_or(0)).unwrap_or(now)),
        uncounted,
        sessions_left_out: player.newest.saturating_sub(kept),
        events_left_out: player.queries.left_out(),
    }
}

/// What is missing in the document, a sentence each.
pub(super) fn unknown(document: &Document) -> Vec<String> {
    let Document { recording, losses, sessions, .. } = document;
    let mut told = Vec::new();
    told.extend(recording.faults.iter().cloned());
    if recording.clock.is_none() {
        told.push("the recording says no time of day".to_owned());
    }
    for (why, count) in losses.records.iter().filter(|(_, count)| *count > 0) {
        told.push(format!("{} lost ({why})", counted(*count, "record was", "records were")));
    }
    match losses.skipped {
        None => {
            told.push("the kernel does not say whether it left out runs of the probes".to_owned())
        }
        Some(0) => {}
        Some(count) => {
            told.push(format!(
                "the kernel left out {}",
                counted(count, "run of a probe", "runs of probes")
            ));
        }
    }
    if losses.uncounted > 0 {
        let times = counted(losses.uncounted, "time", "times");
        told.push(format!("{times} records were lost of which nobody kept count"));
    }
    for probe in document.probes.iter().filter(|probe| !probe.attached) {
        let why = probe.why.as_deref().unwrap_or("for a reason that was not told");
        told.push(format!("the probe {} was missing: {why}", probe.name));
    }
    if document.probes.is_empty() {
        told.push("the recording says nothing of the probes".to_owned());
    }
    if losses.sessions_left_out > 0 {
        let sessions = counted(losses.sessions_left_out, "older session is", "older sessions are");
        told.push(format!("{sessions} not told: only the newest are kept"));
    }
    if losses.events_left_out > 0 {
        let events =
            counted(losses.events_left_out, "query or refusal is", "queries and refusals are");
        told.push(format!("{events} not told one by one: only the newest are kept"));
    }
    for detail in sessions {
        told.extend(unknown_of(detail));
    }
    told
}

fn unknown_of(detail: &Detail) -> Vec<String> {
    let Detail { report, latencies, .. } = detail;
    let which = format!("session {} ({} of {})", report.id, report.role, report.device);
    let mut told = Vec::new();
    if !report.exact {
        told.push(format!(
            "{which} is not exact: something of it was lost, or it began before the recording"
        ));
    }
    if report.result.as_deref() == Some("completed") && report.peer.is_none() {
        told.push(format!(
            "{which}: its other end was not seen, so the whole downtime is not known"
        ));
    }
    if report.transitions_left_out > 0 {
        let changes = counted(report.transitions_left_out, "change", "changes");
        told.push(format!("{which}: {changes} of state are not told"));
    }
    if report.broken_rules().is_none() {
        told.push(format!("{which}: nobody watched for broken rules"));
    }
    if latencies.to_ns.is_none() {
        told.push(format!("{which}: how long accesses took was not read while it lasted"));
    } else if latencies.from_ns.is_none() {
        told.push(format!("{which}: the latencies count from the loading of the probes"));
    }
    told
}
