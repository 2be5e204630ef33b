// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The first lines: which agent this is from, how it stands with it, and whether what is shown is all there is.

use super::{canvas::Canvas, theme::Theme};
use crate::top::{
    model::{Contact, Model},
    printable::{cells, printable},
    units::duration,
};
use ratatui::text::{Line, Span};
use std::time::SystemTime;

/// Lines that it takes.
pub(super) const HEIGHT: u16 = 2;
/// Names of missing probes that are listed.
const LISTED: usize = 3;

pub(super) fn draw(model: &Model, clock: SystemTime, theme: Theme, canvas: &mut Canvas<'_>) {
    canvas.line_style(0, theme.bar());
    let width = canvas.width();
    let version = model.snapshot().map_or("", |snapshot| &snapshot.version);
    let up =
        model.snapshot().map(|snapshot| format!("host up {}", duration(snapshot.monotonic_ns)));
    let time = time_of_day(clock);
    let right = match up.filter(|_| width >= 72) {
        Some(up) => format!("{up}  {time} "),
        None => format!("{time} "),
    };
    let right_width = u16::try_from(cells(&right)).unwrap_or(0);
    let left = format!(" migscope {version}  {}", model.source());
    canvas.text(0, 0, width.saturating_sub(right_width + 1), &left, theme.bar());
    canvas.text_right(0, 0, width, &right, theme.bar());
    canvas.styled(1, 1, &standing(model, clock, theme));
}

/// The second line: what is not as it should be comes first.
fn standing(model: &Model, clock: SystemTime, theme: Theme) -> Line<'static> {
    let mut spans: Vec<Span<'static>> = Vec::new();
    let mut say = |text: String, style| {
        if !spans.is_empty() {
            spans.push(Span::styled(" │ ", theme.dim()));
        }
        spans.push(Span::styled(text, style));
    };
    // What follows the news that the agent is gone is old.
    let stale = matches!(model.contact(), Contact::Gone { .. });
    match model.contact() {
        Contact::Waiting => say("waiting for the first answer".into(), theme.dim()),
        Contact::Live => {}
        Contact::Gone { since, why } => {
            let ago = clock.duration_since(*since).unwrap_or_default();
            let ago = duration(ago.as_secs().saturating_mul(1_000_000_000));
            let text = format!("agent gone since {} ({ago})", time_of_day(*since));
            say(text, theme.bad());
            say(printable(why, 80), theme.warning());
        }
    }
    let theme = Theme { stale, ..theme };
    if model.is_paused() {
        say("PAUSED".into(), theme.warning());
    }
    if let Some(snapshot) = model.snapshot() {
        let missing: Vec<_> = snapshot.probes.iter().filter(|probe| !probe.attached).collect();
        let (all, there) = (snapshot.probes.len(), snapshot.probes.len() - missing.len());
        if all == 0 {
            say("probes not tried yet".into(), theme.warning());
        } else if missing.is_empty() {
            say(format!("probes {there}/{all}"), theme.good());
        } else {
            let names = missing.iter().take(LISTED).map(|probe| printable(&probe.name, 20));
            let names = names.collect::<Vec<_>>().join(", ");
            let more = if missing.len() > LISTED { ", …" } else { "" };
            say(format!("probes {there}/{all}, missing: {names}{more}"), theme.warning());
        }
        match snapshot.lost {
            Some(0) => say("lost 0".into(), theme.good()),
            Some(lost) => say(format!("lost {lost}"), theme.warning()),
            None => say("lost ?".into(), theme.warning()),
        }
        let (devices, migrating) = (model.rows().len(), model.migrating());
        say(format!("{devices} devices, {migrating} migrating"), theme.data());
    }
    if !model.filter().is_empty() {
        say(format!("filter: {}", printable(model.filter(), 20)), theme.label());
    }
    Line::from(spans)
}

/// `23:02:48Z`: the date is of no use beside it.
fn time_of_day(at: SystemTime) -> String {
    // A clock that stands before 1970 has no such form.
    let Ok(since) = at.duration_since(SystemTime::UNIX_EPOCH) else {
        return "--:--:--Z".into();
    };
    let seconds = since.as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}
