// SPDX-License-Identifier: Apache-2.0 OR MIT
//! When each part of a downtime was; what the parts are is said in [`crate::session::downtime`].

use super::model::{Bar, Waterfall};
use crate::{
    session::{Downtime, Session},
    state::State,
};

/// What a part is, for people.
pub(crate) fn what(part: &str) -> &'static str {
    match part {
        "stop" => "stop the source's device",
        "final_dirty" => "ask for the last dirty pages",
        "final_data" => "read the last device data",
        "transfer_gap" => "send, and take in the rest",
        "load" => "the destination's driver takes data in",
        "start" => "start the destination's device",
        "source" => "all of it at the source",
        "destination" => "all of it at the destination",
        _ => "all of it",
    }
}

/// The parts of both ends, each from the end that tells it.
pub(super) fn parts(source: Option<&Session>, destination: Option<&Session>) -> Downtime {
    let of =
        |session: Option<&Session>| session.map(|session| session.downtime).unwrap_or_default();
    let (source, destination) = (of(source), of(destination));
    Downtime {
        load_ns: destination.load_ns,
        start_ns: destination.start_ns,
        destination_ns: destination.destination_ns,
        total_ns: source.total_ns.or(destination.total_ns),
        transfer_gap_ns: source.transfer_gap_ns.or(destination.transfer_gap_ns),
        ..source
    }
}

/// The downtime as far as it was seen; `None` where it has no known beginning or end.
pub(super) fn waterfall(
    source: Option<&Session>,
    destination: Option<&Session>,
    downtime: &Downtime,
) -> Option<Waterfall> {
    let whole = downtime.total_ns.is_some();
    let (from_ns, to_ns) = match (source, destination) {
        (Some(source), Some(destination)) if whole => (source.stop_began_ns()?, destination.end?.1),
        (Some(source), _) => (downtime.source_ns.and(source.stop_began_ns())?, source.end?.1),
        (None, Some(destination)) => {
            downtime.destination_ns?;
            (destination.transitions.first()?.at_ns, destination.end?.1)
        }
        (None, None) => return None,
    };
    let mut bars = Vec::new();
    bars.extend(source.map(at_source).unwrap_or_default());
    bars.extend(destination.map(at_destination).unwrap_or_default());
    if let (Some(source), Some(destination)) = (source, destination)
        && let Some((out_ns, start_ns)) =
            source.stamps().last_buffer_ns.zip(destination.stamps().start_began_ns)
    {
        bars.push(bar("transfer_gap", out_ns, start_ns));
    }
    for bar in &mut bars {
        bar.from_ns = bar.from_ns.clamp(from_ns, to_ns);
        bar.to_ns = bar.to_ns.clamp(from_ns, to_ns);
    }
    bars.retain(|bar| bar.to_ns > bar.from_ns);
    bars.sort_by_key(|bar| (bar.from_ns, bar.to_ns));
    let covered = source.is_none_or(|source| source.coverage.data && source.coverage.dirty)
        && destination.is_none_or(|destination| destination.coverage.data);
    let other_ns =
        covered.then(|| to_ns.saturating_sub(from_ns).saturating_sub(length_of_all(&bars)));
    Some(Waterfall { from_ns, to_ns, whole, bars, other_ns })
}

fn bar(part: &'static str, from_ns: u64, to_ns: u64) -> Bar {
    Bar { part, what: what(part), from_ns, to_ns, busy_ns: None }
}

fn at_source(session: &Session) -> Vec<Bar> {
    let mut bars = Vec::new();
    if let Some((began_ns, stop_ns)) = session.stop_began_ns().zip(session.downtime.stop_ns) {
        bars.push(bar("stop", began_ns, began_ns.saturating_add(stop_ns)));
    }
    let stood = session.transitions.iter().find(|change| {
        !change.refused() && change.from == State::StopAndCopy && change.now != State::StopAndCopy
    });
    // Zeros are "did not happen"; what no probe saw is zero as well, and makes no bar either.
    if let Some(stay) = stood.and_then(|change| change.sums).map(|sums| sums.stay) {
        for (part, from_ns, to_ns) in [
            ("final_dirty", stay.query_began_ns, stay.query_ended_ns),
            ("final_data", stay.data_began_ns, stay.data_ended_ns),
        ] {
            if from_ns > 0 && to_ns > from_ns {
                bars.push(bar(part, from_ns, to_ns));
            }
        }
    }
    bars
}

fn at_destination(session: &Session) -> Vec<Bar> {
    let mut bars = Vec::new();
    let ran = session.transitions.iter().find(|change| {
        !change.refused() && change.from == State::Resuming && change.now == State::Running
    });
    if let Some(ran) = ran {
        bars.push(bar("start", ran.began_ns(), ran.at_ns));
        if let Some(stay) = ran.sums.map(|sums| sums.stay)
            && stay.data_began_ns > 0
            && stay.data_ended_ns > stay.data_began_ns
        {
            let load = bar("load", stay.data_began_ns, stay.data_ended_ns);
            bars.push(Bar { busy_ns: session.downtime.load_ns, ..load });
        }
    }
    bars
}

/// The time that lies in at least one of them, which are in the order of their beginnings. Between its first buffer and its last the
/// destination's driver mostly waits, so that bar accounts for no time.
fn length_of_all(bars: &[Bar]) -> u64 {
    let (mut length, mut until_ns) = (0_u64, 0_u64);
    for bar in bars.iter().filter(|bar| bar.part != "load") {
        let from_ns = bar.from_ns.max(until_ns);
        length = length.saturating_add(bar.to_ns.saturating_sub(from_ns));
        until_ns = until_ns.max(bar.to_ns);
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_overlap_count_once() {
        let parts = [("stop", 10, 20), ("final_data", 15, 50), ("load", 15, 90), ("start", 60, 70)];
        let bars = parts.map(|(part, from_ns, to_ns)| bar(part, from_ns, to_ns));
        assert_eq!(length_of_all(&bars), 40 + 10);
        assert_eq!(length_of_all(&[]), 0);
    }
}
