// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What there is to say about a session in lines.

use super::super::{marks::bar, theme::Theme};
use crate::{
    session::report::{Report, TransitionReport},
    top::{
        printable::printable,
        row::{Phase, Row},
        units::{bytes_in_words, duration},
    },
};
use ratatui::{
    style::Style,
    text::{Line, Span},
};

/// Width of the bars of a downtime.
const BAR: usize = 14;
/// Longest word from outside.
const WORD: usize = 16;

/// The course of the session: its changes of state, one a line.
pub(super) fn course(session: &Report, theme: Theme) -> Vec<Line<'static>> {
    let mut lines = vec![head("Transitions", theme)];
    for change in &session.transitions {
        lines.push(transition(change, session.began_monotonic_ns, theme));
    }
    if session.transitions_left_out > 0 {
        let text = format!("and {} more", session.transitions_left_out);
        lines.push(Line::styled(text, theme.dim()));
    }
    lines.push(Line::default());
    lines.push(head("Time in states", theme));
    for (state, ns) in &session.states_ns {
        let share = share(*ns, session.duration_ns);
        lines.push(measured(state, share, duration(*ns), theme.state(state), theme));
    }
    lines
}

fn transition(change: &TransitionReport, began_ns: u64, theme: Theme) -> Line<'static> {
    let refused = change.result == "refused";
    let at = duration(change.at_monotonic_ns.saturating_sub(began_ns));
    let (mark, style) = if refused { ("✗", theme.bad()) } else { ("→", theme.dim()) };
    let to = printable(&change.to, WORD);
    let mut spans = vec![
        Span::styled(format!("{at:>6} "), theme.label()),
        Span::styled(format!("{} ", printable(&change.from, WORD)), theme.data()),
        Span::styled(format!("{mark} "), style),
        Span::styled(format!("{to} "), theme.state(&change.to)),
    ];
    spans.push(match refused {
        true => Span::styled("refused", theme.bad()),
        false => Span::styled(duration(change.duration_ns), theme.dim()),
    });
    if !refused && change.cause != "write" {
        spans
            .push(Span::styled(format!(" by {}", printable(&change.cause, WORD)), theme.warning()));
    }
    Line::from(spans)
}

/// The account of the session: downtime, dirty pages, latencies.
pub(super) fn account(row: &Row, session: &Report, theme: Theme) -> Vec<Line<'static>> {
    let mut lines = vec![head("Downtime", theme)];
    lines.extend(downtime(row, session, theme));
    lines.push(Line::default());
    lines.push(head("Dirty pages", theme));
    lines.extend(dirty(session, theme));
    lines.push(Line::default());
    lines.push(head("Data and latency", theme));
    lines.extend(latency(session, theme));
    lines.push(violations(session, theme));
    if !session.exact {
        lines.push(Line::styled("not all of it was seen: figures may be too low", theme.warning()));
    }
    if let Some(peer) = session.peer {
        lines.push(fact("other end", format!("session {peer}"), theme.data(), theme));
    }
    lines
}

/// The parts that this end of the migration has, as bars beside the longest.
fn downtime(row: &Row, session: &Report, theme: Theme) -> Vec<Line<'static>> {
    let here: &[&str] = match &*session.role {
        "destination" => &["load", "start", "destination", "transfer_gap", "total"],
        _ => &["stop", "final_dirty", "final_data", "source", "transfer_gap", "total"],
    };
    // What was found out about the other end is shown as well.
    let parts: Vec<_> = session
        .downtime
        .parts()
        .into_iter()
        .filter(|(name, ns)| ns.is_some() || here.contains(name))
        .collect();
    if row.phase() == Phase::Migrating && parts.iter().all(|(_, ns)| ns.is_none()) {
        return vec![Line::styled("known once the session is over", theme.dim())];
    }
    let longest = parts.iter().filter_map(|(_, ns)| *ns).max().unwrap_or(0);
    let line = |(name, ns): (&str, Option<u64>)| {
        let name = name.replace('_', " ");
        let text = ns.map_or_else(|| "?".into(), duration);
        let share = ns.and_then(|ns| share(ns, longest));
        let style = if name == "total" { theme.warning() } else { theme.sent() };
        measured(&name, share, text, style, theme)
    };
    parts.into_iter().map(line).collect()
}

fn dirty(session: &Report, theme: Theme) -> Vec<Line<'static>> {
    let Some(account) = session.figures.dirty else {
        return vec![Line::styled("? nobody watched", theme.dim())];
    };
    let queries = account.queries;
    let told = format!("{} in {} pages", bytes_in_words(account.bytes), account.pages);
    let outcome = format!("{} bitmap, {} none, {} all", queries.bitmap, queries.none, queries.all);
    let failed = if queries.error > 0 { theme.bad() } else { theme.data() };
    vec![
        fact("told", told, theme.data(), theme),
        fact("queries", outcome, theme.data(), theme),
        fact("failed", queries.error.to_string(), failed, theme),
        fact("each took", mean(session.figures.query_busy_ns, asked(session)), theme.data(), theme),
    ]
}

fn asked(session: &Report) -> Option<u64> {
    let queries = session.figures.dirty?.queries;
    let asked = [queries.none, queries.all, queries.bitmap, queries.error];
    Some(asked.into_iter().fold(0, u64::saturating_add))
}

fn latency(session: &Report, theme: Theme) -> Vec<Line<'static>> {
    let figures = &session.figures;
    let amount = |bytes: Option<u64>| bytes.map_or_else(|| "?".into(), bytes_in_words);
    let buffers = figures.iterations.map_or_else(|| "?".into(), |buffers| buffers.to_string());
    let busy = figures.data_busy_ns.and_then(|ns| share(ns, session.duration_ns));
    let busy =
        busy.map_or_else(|| "?".into(), |share| format!("{:.1} % of the time", share * 100.0));
    vec![
        fact(
            "moved",
            format!("{} in {buffers} buffers", amount(figures.data_bytes)),
            theme.data(),
            theme,
        ),
        fact("each took", mean(figures.data_busy_ns, figures.iterations), theme.data(), theme),
        fact("driver busy", busy, theme.data(), theme),
        fact("DMA wrote", amount(figures.dma_to_memory_bytes), theme.data(), theme),
    ]
}

/// How often the protocol was broken.
fn violations(session: &Report, theme: Theme) -> Line<'static> {
    let (text, style) = match session.broken_rules() {
        Some(0) => ("0".into(), theme.good()),
        Some(count) => (count.to_string(), theme.bad()),
        None => ("?".into(), theme.dim()),
    };
    fact("violations", text, style, theme)
}

/// Time for each of `count`, on average.
fn mean(busy_ns: Option<u64>, count: Option<u64>) -> String {
    match (busy_ns, count) {
        (Some(_), Some(0)) => "-".into(),
        (Some(busy_ns), Some(count)) => format!("{} on average", duration(busy_ns / count)),
        _ => "?".into(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share is shown in cells and tenths")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (part as f64 / whole as f64).min(1.0))
}

fn head(text: &'static str, theme: Theme) -> Line<'static> {
    Line::styled(text, theme.strong())
}

fn fact(label: &str, text: String, style: Style, theme: Theme) -> Line<'static> {
    Line::from(vec![Span::styled(format!("{label:<13}"), theme.label()), Span::styled(text, style)])
}

fn measured(
    label: &str,
    share: Option<f64>,
    text: String,
    style: Style,
    theme: Theme,
) -> Line<'static> {
    Line::from(vec![
        Span::styled(format!("{:<13} ", printable(label, 13)), theme.label()),
        Span::styled(bar(share, BAR), if share.is_some() { style } else { theme.dim() }),
        Span::styled(format!(" {text:>6}"), theme.data()),
    ])
}
