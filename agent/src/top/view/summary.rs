// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The selected device in a few lines: what the table has no columns for.

use super::{canvas::Canvas, marks::sparkline, theme::Theme};
use crate::top::{
    model::{Contact, Model},
    printable::printable,
    rate::HISTORY,
    row::{Phase, Row},
    units::{bytes_in_words, duration, whole},
};
use ratatui::{
    style::Style,
    text::{Line, Span},
};

/// Lines that it takes.
pub(super) const HEIGHT: u16 = 6;
/// Width of the names at the left.
const LABEL: usize = 9;
/// Longest text from outside.
const TEXT: usize = 200;

pub(super) fn draw(model: &Model, theme: Theme, canvas: &mut Canvas<'_>) {
    let theme = Theme { stale: matches!(model.contact(), Contact::Gone { .. }), ..theme };
    let width = canvas.width();
    canvas.text(0, 0, width, &"─".repeat(usize::from(width)), theme.dim());
    let Some(row) = model.selected() else {
        return;
    };
    canvas.styled(2, 0, &title(row, theme));
    for (y, line) in (1..).zip(lines(row, usize::from(width), theme)) {
        canvas.styled(1, y, &line);
    }
}

/// ` 0000:00:10.0 · web · source · session 3 `
pub(super) fn title(row: &Row, theme: Theme) -> Line<'static> {
    let mut spans =
        vec![Span::styled(format!(" {} ", printable(&row.device.device, 40)), theme.strong())];
    let mut say = |text: &str, style: Style| {
        spans.push(Span::styled("· ", theme.dim()));
        spans.push(Span::styled(format!("{} ", printable(text, 32)), style));
    };
    if let Some(vm) = row.vm() {
        say(vm, theme.data());
    }
    say(row.state(), theme.state(row.state()));
    if let Some(session) = &row.session {
        say(&session.role, theme.data());
        say(&format!("session {}", session.id), theme.data());
        if let Some(result) = &session.result {
            say(result, theme.verdict(result));
        }
    }
    Line::from(spans)
}

fn lines(row: &Row, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let device = labelled("device", device(row), theme.data(), theme);
    let Some(session) = &row.session else {
        let none = labelled("session", "none is known of this device".into(), theme.dim(), theme);
        return vec![device, none, why(row, theme)];
    };
    let figures = &session.figures;
    let amount = |bytes: Option<u64>| bytes.map_or_else(|| "?".into(), bytes_in_words);
    let count = |count: Option<u64>| count.map_or_else(|| "?".into(), |count| count.to_string());
    let data = format!(
        "{} moved, {} pending, {} buffers in {}",
        amount(figures.data_bytes),
        amount(figures.pending_bytes),
        count(figures.iterations),
        duration(session.duration_ns),
    );
    let dirty = match figures.dirty {
        None => "?".into(),
        Some(account) => {
            let queries = account.queries;
            let asked = [queries.none, queries.all, queries.bitmap, queries.error];
            let asked = asked.into_iter().fold(0, u64::saturating_add);
            let rate = match row.phase() {
                Phase::Migrating => {
                    format!("{}/s, ", per_second(row.dirty.map(|rate| rate.bytes_per_second)))
                }
                Phase::Ended | Phase::Idle => String::new(),
            };
            format!("{rate}{} told in {asked} queries", bytes_in_words(account.bytes))
        }
    };
    vec![
        device,
        labelled("data", data, theme.data(), theme),
        labelled("dirty", dirty, theme.data(), theme),
        speed(row, width, theme),
        end(row, theme),
    ]
}

fn device(row: &Row) -> String {
    let info = &row.device.info;
    let mut parts = Vec::new();
    let mut say = |what: &str, text: &str| {
        if !text.is_empty() {
            parts.push(format!("{what}{}", printable(text, TEXT)));
        }
    };
    say("", &info.driver);
    say("IOMMU group ", &info.iommu_group);
    if let Some(pid) = row.device.pid {
        say("process ", &pid.to_string());
    }
    say("", &info.vm_uuid);
    if parts.is_empty() { "?".into() } else { parts.join(", ") }
}

fn speed(row: &Row, width: usize, theme: Theme) -> Line<'static> {
    let known = || row.history.iter().flatten();
    let text = match row.phase() {
        Phase::Migrating => match row.throughput {
            Some(rate) => {
                let now = bytes_in_words(whole(rate.bytes_per_second));
                format!("{now}/s over {}", duration(rate.window_ns))
            }
            None => "?".into(),
        },
        Phase::Ended | Phase::Idle => String::new(),
    };
    let most = known().map(|rate| rate.bytes_per_second).reduce(f64::max);
    let most = most.map(|most| format!(", most {}/s", per_second(Some(most)))).unwrap_or_default();
    let text = format!("{text}{most}");
    let text = text.trim_start_matches(", ").to_owned();
    let room =
        width.saturating_sub(LABEL + text.chars().count() + 4).min(row.history.len().min(HISTORY));
    if room == 0 {
        let text = if text.is_empty() { "?".into() } else { text };
        return labelled("speed", text, theme.data(), theme);
    }
    let mut line = labelled("speed", sparkline(&row.history, room), theme.sent(), theme);
    line.spans.push(Span::styled(format!("  {text}"), theme.data()));
    line
}

/// How it ended, or how it will.
fn end(row: &Row, theme: Theme) -> Line<'static> {
    match row.phase() {
        Phase::Ended => {
            let session = row.session.as_ref();
            let parts = session.map(|session| session.downtime.parts()).unwrap_or_default();
            let part = |(name, ns): (&str, Option<u64>)| {
                let name = name.replace('_', " ");
                ns.map(|ns| format!("{name} {}", duration(ns)))
            };
            let (total, rest): (Vec<_>, Vec<_>) =
                parts.into_iter().partition(|(name, _)| *name == "total");
            let shown: Vec<_> = total.into_iter().chain(rest).filter_map(part).collect();
            let text = if shown.is_empty() { "?".into() } else { shown.join(", ") };
            labelled("downtime", text, theme.data(), theme)
        }
        Phase::Migrating | Phase::Idle => why(row, theme),
    }
}

fn why(row: &Row, theme: Theme) -> Line<'static> {
    let outlook = &row.outlook;
    if let Some(reason) = outlook.explanation.as_deref().or(outlook.reason.as_deref()) {
        return labelled("why", printable(reason, TEXT), theme.warning(), theme);
    }
    if row.phase() == Phase::Idle {
        return Line::default();
    }
    if (&outlook.verdict, outlook.remaining_ns, outlook.downtime_ns) == (&None, None, None) {
        return labelled("outlook", "?".into(), theme.dim(), theme);
    }
    let time = |ns: Option<u64>| ns.map_or_else(|| "?".into(), duration);
    let verdict =
        outlook.verdict.as_deref().map_or_else(|| "?".into(), |verdict| printable(verdict, TEXT));
    let text = format!(
        "{verdict}, {} to go, downtime then {}",
        time(outlook.remaining_ns),
        time(outlook.downtime_ns)
    );
    labelled("outlook", text, theme.data(), theme)
}

fn per_second(rate: Option<f64>) -> String {
    rate.map_or_else(|| "?".into(), |rate| bytes_in_words(whole(rate)))
}

/// A name and what there is to say.
pub(super) fn labelled(label: &str, text: String, style: Style, theme: Theme) -> Line<'static> {
    Line::from(vec![
        Span::styled(format!("{label:<LABEL$}"), theme.label()),
        Span::styled(text, style),
    ])
}
