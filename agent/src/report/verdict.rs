// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What came of a migration and why, in sentences.

use super::{
    model::{Detail, Move, Tone, Verdict, outcomes},
    units::{bytes, counted, per_second, percent, rate, time},
    waterfall,
};
use crate::session::Downtime;

/// Parts of the downtime that a sentence names; the rest is in the tables.
const NAMED: usize = 3;

/// The verdict on one device's way.
pub(super) fn verdict(
    source: Option<&Detail>,
    destination: Option<&Detail>,
    duration_ns: Option<u64>,
    downtime: &Downtime,
    other_ns: Option<u64>,
) -> Verdict {
    let Some(first) = source.or(destination) else {
        return Verdict { tone: Tone::Open, headline: "nothing is known".into(), why: Vec::new() };
    };
    let worst = [source, destination].into_iter().flatten().map(tone).max().unwrap_or(Tone::Open);
    let headline = match (source, destination) {
        (Some(source), Some(_)) => both(source, duration_ns, downtime),
        _ => one(first, downtime),
    };
    let mut why = Vec::new();
    why.extend(parts(downtime, other_ns));
    why.extend(source.or(destination).and_then(data));
    why.extend(source.and_then(dirty));
    for end in [source, destination].into_iter().flatten() {
        why.extend(refusals(end));
        why.extend(end.prediction.iter().flat_map(|said| &said.blocked).map(|b| b.why.clone()));
        if !end.report.exact {
            why.push(format!(
                "the session of the {} is not exact: records of it were lost, or it began before the recording",
                end.report.role
            ));
        }
    }
    Verdict { tone: worst, headline, why }
}

/// The verdict on all of them.
pub(super) fn overall(moves: &[Move]) -> Verdict {
    let how_many = |tone| moves.iter().filter(|this| this.verdict.tone == tone).count() as u64;
    match moves {
        [] => Verdict {
            tone: Tone::Open,
            headline: "no migration in this recording".into(),
            why: vec!["no device left its ordinary life while it was recorded".into()],
        },
        [one] => one.verdict.clone(),
        _ => {
            let counts = [
                (how_many(Tone::Good), "completed"),
                (how_many(Tone::Open), "called off or without a known end"),
                (how_many(Tone::Bad), "failed"),
            ];
            let told: Vec<_> = counts
                .into_iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, what)| format!("{count} {what}"))
                .collect();
            Verdict {
                tone: moves.iter().map(|this| this.verdict.tone).max().unwrap_or(Tone::Open),
                headline: format!("{} migrations: {}", moves.len(), told.join(", ")),
                why: moves.iter().map(|this| this.verdict.headline.clone()).collect(),
            }
        }
    }
}

/// The machine's name, or the device's.
pub(crate) fn who(detail: &Detail) -> &str {
    match detail.info.vm.as_str() {
        "" => &detail.report.device,
        vm => vm,
    }
}

fn tone(detail: &Detail) -> Tone {
    match detail.report.result.as_deref() {
        Some("completed") => Tone::Good,
        Some("failed") => Tone::Bad,
        _ => Tone::Open,
    }
}

fn both(source: &Detail, duration_ns: Option<u64>, downtime: &Downtime) -> String {
    let took = duration_ns.map_or_else(String::new, |ns| format!(" in {}", time(ns)));
    let stood = match downtime.total_ns {
        Some(ns) => format!("downtime {}", time(ns)),
        None => "downtime unknown".to_owned(),
    };
    format!("{} migrated{took}, {stood}", who(source))
}

fn one(detail: &Detail, downtime: &Downtime) -> String {
    let (who, report) = (who(detail), &detail.report);
    let took = time(report.duration_ns);
    let is_source = report.role == "source";
    match (report.result.as_deref(), is_source) {
        (Some("completed"), true) => {
            let stood = downtime
                .source_ns
                .map_or_else(String::new, |ns| format!(", its device stood {} of it", time(ns)));
            format!("{who} was given away in {took}{stood}; the destination was not seen")
        }
        (Some("completed"), false) => {
            format!("{who} was taken in and runs after {took}; the source was not seen")
        }
        (Some("cancelled"), true) => match downtime.source_ns {
            Some(ns) => format!(
                "the migration of {who} was cancelled after {took}, its device stood {}",
                time(ns)
            ),
            None => {
                format!("the migration of {who} was cancelled after {took}, its device runs on")
            }
        },
        (Some("cancelled"), false) => format!("taking in {who} was called off after {took}"),
        (Some("failed"), _) => {
            let state = detail.states.last().map_or("an unknown state", |stay| stay.state);
            format!("the migration of {who} failed after {took} as {} in {state}", report.role)
        }
        (Some(_), _) => format!("{who}: the end of its migration was not seen"),
        (None, _) => {
            format!("the migration of {who} was under way when the recording ended, for {took}")
        }
    }
}

fn parts(downtime: &Downtime, other_ns: Option<u64>) -> Option<String> {
    let whole_ns = downtime.total_ns.or(downtime.source_ns)?;
    let mut parts: Vec<_> = [
        ("stop", downtime.stop_ns),
        ("final_dirty", downtime.final_dirty_ns),
        ("final_data", downtime.final_data_ns),
        ("transfer_gap", downtime.transfer_gap_ns),
        ("start", downtime.start_ns),
    ]
    .into_iter()
    .filter_map(|(part, ns)| Some((waterfall::what(part), ns?)))
    .chain(other_ns.map(|ns| ("what the VMM does in between", ns)))
    .filter(|(_, ns)| *ns > 0)
    .collect();
    parts.sort_by_key(|(_, ns)| std::cmp::Reverse(*ns));
    parts.truncate(NAMED);
    if parts.is_empty() {
        return None;
    }
    let told: Vec<_> = parts
        .into_iter()
        .map(|(what, ns)| format!("{} ({}) to {what}", time(ns), percent(ns, whole_ns)))
        .collect();
    Some(format!("the downtime went {}", told.join(", ")))
}

fn data(detail: &Detail) -> Option<String> {
    let figures = &detail.report.figures;
    let (moved, buffers) = figures.data_bytes.zip(figures.iterations)?;
    let mean = per_second(moved, detail.report.duration_ns);
    let speed = mean.map_or_else(String::new, |mean| format!(", {} on the whole", rate(mean)));
    let stopped: Option<u64> = detail
        .states
        .iter()
        .filter(|stay| stay.state == "stop_and_copy")
        .map(|stay| stay.data_bytes)
        .sum();
    let late = match stopped {
        Some(late) if late > 0 && moved > 0 => {
            format!("; {} of it while the device stood", percent(late, moved))
        }
        _ => String::new(),
    };
    let buffers = counted(buffers, "buffer", "buffers");
    Some(format!("{} of device data in {buffers}{speed}{late}", bytes(moved)))
}

fn dirty(detail: &Detail) -> Option<String> {
    let account = detail.report.figures.dirty?;
    let asked: u64 = outcomes(&account.queries).iter().map(|(_, count)| count).sum();
    if asked == 0 {
        return Some("nobody asked which memory the device had dirtied".to_owned());
    }
    let all = match account.queries.all {
        0 => String::new(),
        all => format!("; {all} were answered with \"everything\""),
    };
    let failed = match account.queries.error {
        0 => String::new(),
        failed => format!("; {failed} failed, and what was dirty then is unknown"),
    };
    Some(format!(
        "{} of memory reported dirty in {}{all}{failed}",
        bytes(account.bytes),
        counted(asked, "query", "queries")
    ))
}

fn refusals(detail: &Detail) -> Option<String> {
    let broken = detail.report.broken_rules().filter(|count| *count > 0)?;
    let mut rules: Vec<_> = detail.report.violations.iter().map(|moment| &*moment.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    let rules = if rules.is_empty() { String::new() } else { format!(": {}", rules.join(", ")) };
    Some(format!(
        "the {} broke the protocol {}{rules}",
        detail.report.role,
        counted(broken, "time", "times")
    ))
}
