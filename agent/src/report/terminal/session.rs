// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One session as text.

use super::layout::{
    BAD, BOLD, DIM, OPEN, Side, Table, clean, cut, put, span, sparkline, styled, width, wrapped,
};
use super::title;
use crate::report::{
    model::{Detail, RateWindow, outcomes},
    prediction::shown_error,
    units::{UNKNOWN, bytes, count, per_second, percent, rate, time},
};
use crate::session::timeline::Point;

/// Columns of the names on the left.
const NAMES: usize = 11;
/// Columns that the figures beside a sparkline take.
const FIGURES: usize = 44;
/// Changes of state and broken rules that are shown; the rest is counted. JSON has them all.
const SHOWN: usize = 12;

pub(super) fn session(text: &mut String, detail: &Detail, columns: usize) {
    put(text, [String::new()]);
    for line in wrapped(&title(detail), columns) {
        put(text, [styled(BOLD, &line)]);
    }
    states(text, detail, columns);
    series(text, detail, columns);
    queries(text, detail, columns);
    prediction(text, detail, columns);
    transitions(text, detail, columns);
    broken(text, detail, columns);
    // Accesses are counted for the host: those of a destination that found its source are told there.
    if detail.report.role == "source" || detail.report.peer.is_none() {
        latencies(text, detail, columns);
    }
}

fn named(name: &str, rest: &str) -> String {
    format!("  {name:<NAMES$}{rest}")
}

fn states(text: &mut String, detail: &Detail, columns: usize) {
    use Side::{Left, Right};
    let ends = detail.states.first().zip(detail.states.last());
    let Some((from_ns, to_ns)) = ends.map(|(first, last)| (first.from_ns, last.to_ns)) else {
        return;
    };
    let whole_ns = to_ns.saturating_sub(from_ns);
    let mut table = Table::new(&[Left, Right, Right, Right, Right, Right, Right, Left]);
    table.styled_row(DIM, ["state", "time", "data", "buffers", "speed", "dirty", "pending", ""]);
    let rest = columns.saturating_sub(78);
    for stay in &detail.states {
        let begin = stay.from_ns.saturating_sub(from_ns);
        let line = span(begin, begin.saturating_add(stay.ns()), whole_ns, rest, '█');
        let speed = stay.data_bytes.and_then(|bytes| per_second(bytes, stay.ns()));
        table.row([
            stay.state.to_owned(),
            time(stay.ns()),
            known(stay.data_bytes, bytes),
            known(stay.iterations, count),
            known(speed, rate),
            known(stay.dirty_bytes, bytes),
            known(stay.pending_bytes, bytes),
            if rest > 10 { line } else { String::new() },
        ]);
    }
    put(text, table.lines(2, columns));
}

fn known(value: Option<u64>, show: fn(u64) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

fn series(text: &mut String, detail: &Detail, columns: usize) {
    let points = &detail.timeline;
    let rest = columns.saturating_sub(2 + NAMES + FIGURES).clamp(8, 60);
    let line = |name: &str, values: &[Option<u64>], figures: String| {
        let line = named(name, &format!("{}  {figures}", sparkline(values)));
        cut(line.trim_end(), columns)
    };
    let pending = sampled(points, rest, |point| point.pending_bytes);
    if let Some(most) = pending.iter().flatten().max() {
        let last = points.iter().rev().find_map(|point| point.pending_bytes);
        let figures = format!("most {}, last {}", bytes(*most), known(last, bytes));
        put(text, [line("pending", &pending, figures)]);
    }
    let sent = sampled(points, rest, |point| point.data_bytes);
    if sent.iter().any(Option::is_some) {
        let all = known(detail.report.figures.data_bytes, bytes);
        let name = if detail.report.role == "source" { "sent" } else { "taken in" };
        put(text, [line(name, &sent, format!("{all} in all"))]);
    }
    let windows = &detail.rates.windows;
    for (name, of) in [
        ("throughput", (|window| window.throughput_bytes_per_second) as fn(&RateWindow) -> _),
        ("dirty rate", |window| window.dirty_bytes_per_second),
    ] {
        let values = rates(windows, rest, of);
        if let Some(most) = values.iter().flatten().max().filter(|most| **most > 0) {
            let window = time(detail.rates.window_ns);
            put(text, [line(name, &values, format!("most {}, over {window}", rate(*most)))]);
        }
    }
}

/// The values at `columns` moments, each the last one that was known then.
fn sampled(points: &[Point], columns: usize, of: fn(&Point) -> Option<u64>) -> Vec<Option<u64>> {
    let ends = points.first().zip(points.last());
    let Some((from_ns, to_ns)) = ends.map(|(a, b)| (a.at_monotonic_ns, b.at_monotonic_ns)) else {
        return Vec::new();
    };
    moments(from_ns, to_ns, columns)
        .map(|at_ns| {
            let known = points.partition_point(|point| point.at_monotonic_ns <= at_ns);
            of(points.get(known.checked_sub(1)?)?)
        })
        .collect()
}

fn rates(
    windows: &[RateWindow],
    columns: usize,
    of: fn(&RateWindow) -> Option<u64>,
) -> Vec<Option<u64>> {
    let ends = windows.first().zip(windows.last());
    let Some((from_ns, to_ns)) = ends.map(|(a, b)| (a.from_ns, b.to_ns)) else {
        return Vec::new();
    };
    moments(from_ns, to_ns, columns)
        .map(|at_ns| {
            let place = windows.partition_point(|window| window.to_ns < at_ns);
            of(windows.get(place)?)
        })
        .collect()
}

/// Moments that divide the time evenly; the last one is its end.
fn moments(from_ns: u64, to_ns: u64, columns: usize) -> impl Iterator<Item = u64> {
    let columns = u64::try_from(columns).unwrap_or(1).max(1);
    let whole = u128::from(to_ns.saturating_sub(from_ns));
    (1..=columns).map(move |column| {
        let passed = whole * u128::from(column) / u128::from(columns);
        from_ns.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    })
}

fn queries(text: &mut String, detail: &Detail, columns: usize) {
    let Some(account) = detail.report.figures.dirty else { return };
    let told: Vec<_> = outcomes(&account.queries)
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(outcome, number)| format!("{} {outcome}", count(number)))
        .collect();
    if !told.is_empty() {
        let pages = format!("; {} pages, {}", count(account.pages), bytes(account.bytes));
        let line = named("queries", &(told.join(", ") + &pages));
        put(text, [cut(&line, columns)]);
    }
}

fn prediction(text: &mut String, detail: &Detail, columns: usize) {
    let Some(said) = detail.prediction.as_ref().and_then(|prediction| prediction.half_way) else {
        return;
    };
    let truth = said.truth_ns.map_or_else(|| UNKNOWN.to_owned(), time);
    let mut told = Vec::new();
    for (who, ns) in [
        ("foretold", said.expected_ns),
        ("QEMU's formula", said.qemu_ns),
        ("KubeVirt's", said.kubevirt_ns),
        ("geometric", said.geometric_ns),
    ] {
        let off = said.error(ns, detail.report.duration_ns);
        told.extend(
            ns.zip(off).map(|(ns, off)| format!("{who} {} ({})", time(ns), shown_error(off))),
        );
    }
    if told.is_empty() {
        told.push("nothing was foretold".to_owned());
    }
    let told = format!("half-way, {truth} were left; {}", told.join("; "));
    let lines = wrapped(&told, columns.saturating_sub(2 + NAMES));
    for (number, line) in lines.into_iter().enumerate() {
        put(text, [named(if number == 0 { "forecast" } else { "" }, &line)]);
    }
}

fn transitions(text: &mut String, detail: &Detail, columns: usize) {
    use Side::{Left, Right};
    let report = &detail.report;
    let mut table = Table::new(&[Right, Left, Right, Left, Left]);
    table.styled_row(DIM, ["at", "change of state", "took", "by", "result"]);
    for change in report.transitions.iter().take(SHOWN) {
        let at_ns = change.at_monotonic_ns.saturating_sub(report.began_monotonic_ns);
        let style = if change.result == "ok" { Default::default() } else { OPEN };
        table.styled_row(
            style,
            [
                format!("+{}", time(at_ns)),
                clean(&format!("{} → {}", change.from, change.to)),
                time(change.duration_ns),
                clean(&change.cause),
                clean(&change.result),
            ],
        );
    }
    put(text, table.lines(2, columns));
    more(text, report.transitions.len());
}

fn broken(text: &mut String, detail: &Detail, columns: usize) {
    use Side::{Left, Right};
    if detail.report.violations.is_empty() {
        return;
    }
    let mut table = Table::new(&[Right, Left, Left]);
    table.styled_row(DIM, ["at", "broken rule", "in state"]);
    for broken in detail.report.violations.iter().take(SHOWN) {
        let at_ns = broken.at_monotonic_ns.saturating_sub(detail.report.began_monotonic_ns);
        let state = broken.state.as_deref().unwrap_or("no state");
        let cells = [format!("+{}", time(at_ns)), clean(&broken.rule), clean(state)];
        table.styled_row(BAD, cells);
    }
    put(text, table.lines(2, columns));
    more(text, detail.report.violations.len());
}

fn more(text: &mut String, there_are: usize) {
    if let Some(more) = there_are.checked_sub(SHOWN).filter(|more| *more > 0) {
        put(text, [styled(DIM, &format!("  and {more} more, in --json"))]);
    }
}

fn latencies(text: &mut String, detail: &Detail, columns: usize) {
    use Side::{Left, Right};
    let series = &detail.latencies.series;
    let Some(widest) = series.iter().map(|series| width(&series.what)).max() else { return };
    let mut table = Table::new(&[Left, Right, Right, Right, Right, Right, Right, Right]);
    let what = format!("{:<widest$}", "latency");
    table.styled_row(DIM, [&what, "count", "p50", "p90", "p99", "p99.9", "max", "error"]);
    for series in series {
        let of = &series.quantiles;
        let times = [Some(of.p50_ns), of.p90_ns, of.p99_ns, of.p999_ns, Some(of.max_ns)]
            .map(|ns| ns.map_or_else(|| "-".to_owned(), time));
        let error = per_mille(series.relative_error);
        let cells = [clean(&series.what), count(series.count)];
        table.row(cells.into_iter().chain(times).chain([format!("±{}", percent(error, 1000))]));
    }
    put(text, table.lines(2, columns));
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from float saturates; an error is between 0 and 1"
)]
fn per_mille(share: f64) -> u64 {
    (share * 1000.0).round() as u64
}
