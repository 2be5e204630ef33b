// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A report as text: the verdict first, then why, then the figures.
//!
//! The text has escape sequences for colour in it; who prints it takes them out where they do not belong (`anstream`).

mod layout;
mod session;

use super::{
    compare::{Comparison, Judgement},
    model::{Document, Move, Tone, Verdict},
    units::{UNKNOWN, count, counted, moment, percent, time},
    verdict::who,
};
use layout::{BAD, BOLD, DIM, GOOD, OPEN, Side, Table, clean, cut, put, span, styled, wrapped};

/// Widest that a summary gets: longer lines are hard to read, and bars need no more.
const WIDEST: usize = 120;
/// Narrowest: below that the terminal breaks the lines.
const NARROWEST: usize = 40;

/// The summary of `document`, for a terminal of `columns`.
pub fn summary(document: &Document, columns: usize) -> String {
    let columns = columns.clamp(NARROWEST, WIDEST);
    let mut text = String::new();
    verdict(&mut text, &document.verdict, columns);
    put(&mut text, [String::new()]);
    recording(&mut text, document, columns);
    machines(&mut text, document, columns);
    for this in &document.moves {
        if document.moves.len() > 1 {
            put(&mut text, [String::new()]);
            verdict(&mut text, &this.verdict, columns);
        }
        downtime(&mut text, this, columns);
        for id in [this.source, this.destination].into_iter().flatten() {
            if let Some(detail) = document.session(id) {
                session::session(&mut text, detail, columns);
            }
        }
    }
    heading(&mut text, "Not known");
    if document.unknown.is_empty() {
        put(&mut text, ["  nothing that belongs into this report is missing".to_owned()]);
    }
    for sentence in &document.unknown {
        bullet(&mut text, sentence, columns);
    }
    text
}

/// The sessions of `document`, one a line.
pub fn list(document: &Document, columns: usize) -> String {
    use Side::{Left, Right};
    let mut text = String::new();
    let mut table = Table::new(&[Right, Left, Left, Left, Left, Right, Right, Left]);
    let titles =
        ["session", "began", "device", "role", "result", "duration", "other end", "machine"];
    table.styled_row(DIM, titles);
    for detail in &document.sessions {
        let report = &detail.report;
        table.row([
            report.id.to_string(),
            detail.began_unix_ns.map_or_else(|| UNKNOWN.to_owned(), moment),
            clean(&report.device),
            clean(&report.role),
            clean(report.result.as_deref().unwrap_or("under way")),
            time(report.duration_ns),
            report.peer.map_or_else(|| "-".to_owned(), |peer| peer.to_string()),
            clean(&detail.info.vm),
        ]);
    }
    if document.sessions.is_empty() {
        put(&mut text, [clean(&document.verdict.headline)]);
    } else {
        put(&mut text, table.lines(0, columns.max(NARROWEST)));
    }
    text
}

/// Two migrations side by side.
pub fn comparison(comparison: &Comparison, columns: usize) -> String {
    use Side::{Left, Right};
    let columns = columns.clamp(NARROWEST, WIDEST);
    let mut text = String::new();
    verdict(&mut text, &comparison.verdict, columns);
    put(&mut text, [String::new()]);
    for (name, side) in [("A", &comparison.a), ("B", &comparison.b)] {
        let line = format!("  {name}  {}: {}", clean(&side.file), clean(&side.headline));
        put(&mut text, [cut(&line, columns)]);
    }
    for group in &comparison.groups {
        heading(&mut text, group.name);
        let mut table = Table::new(&[Left, Right, Right, Right, Right, Left]);
        table.styled_row(DIM, ["", "A", "B", "B - A", "B / A", ""]);
        for row in &group.rows {
            let (style, mark) = match row.judgement {
                Judgement::Worse => (BAD, "worse"),
                Judgement::Better => (GOOD, "better"),
                Judgement::Same | Judgement::Neutral | Judgement::Unknown => Default::default(),
            };
            table.styled_row(
                style,
                [
                    clean(&row.name),
                    row.unit.show(row.a),
                    row.unit.show(row.b),
                    row.shown_difference(),
                    row.shown_ratio(),
                    mark.to_owned(),
                ],
            );
        }
        put(&mut text, table.lines(2, columns));
    }
    put(&mut text, [String::new()]);
    for line in wrapped(&comparison.rule, columns.saturating_sub(2)) {
        put(&mut text, [format!("  {}", styled(DIM, &line))]);
    }
    text
}

fn verdict(text: &mut String, verdict: &Verdict, columns: usize) {
    let (style, sign) = match verdict.tone {
        Tone::Good => (GOOD, "✔"),
        Tone::Open => (OPEN, "●"),
        Tone::Bad => (BAD, "✘"),
    };
    let style = style.bold();
    let lines = wrapped(&clean(&verdict.headline), columns.saturating_sub(2));
    for (number, line) in lines.into_iter().enumerate() {
        let sign = if number == 0 { sign } else { " " };
        put(text, [format!("{} {}", styled(style, sign), styled(BOLD, &line))]);
    }
    for sentence in &verdict.why {
        bullet(text, sentence, columns);
    }
}

fn bullet(text: &mut String, sentence: &str, columns: usize) {
    let lines = wrapped(&clean(sentence), columns.saturating_sub(4));
    for (number, line) in lines.into_iter().enumerate() {
        let sign = if number == 0 { "-" } else { " " };
        put(text, [format!("  {sign} {line}")]);
    }
}

fn heading(text: &mut String, title: &str) {
    put(text, [String::new(), styled(BOLD, title)]);
}

fn recording(text: &mut String, document: &Document, columns: usize) {
    let recording = &document.recording;
    let known = |what: &Option<String>| what.as_deref().map_or_else(|| UNKNOWN.to_owned(), clean);
    let ends = recording.began_monotonic_ns.zip(recording.ended_monotonic_ns);
    let length = ends.map_or_else(|| UNKNOWN.to_owned(), |(a, b)| time(b.saturating_sub(a)));
    let began = recording.began_monotonic_ns.and_then(|ns| document.unix_ns(ns));
    let mut table = Table::new(&[Side::Left, Side::Left]);
    table.row(["recording", &format!("{}, {length}", clean(&recording.file))]);
    table.row(["began", &began.map_or_else(|| UNKNOWN.to_owned(), moment)]);
    table.row(["host", &format!("{}, Linux {}", known(&recording.host), known(&recording.kernel))]);
    table.row(["recorded by", &format!("migscope {}", known(&recording.version))]);
    put(text, table.lines(2, columns));
}

fn machines(text: &mut String, document: &Document, columns: usize) {
    use Side::{Left, Right};
    if document.migrations.is_empty() {
        return;
    }
    heading(text, "Machines");
    let mut table = Table::new(&[Left, Right, Left, Left, Right, Right, Right]);
    table.styled_row(DIM, ["machine", "pid", "role", "result", "devices", "took", "devices stood"]);
    for machine in &document.migrations {
        let took = machine
            .ended_monotonic_ns
            .map(|end_ns| end_ns.saturating_sub(machine.began_monotonic_ns));
        table.row([
            machine.vm.as_deref().map_or_else(|| "-".to_owned(), clean),
            machine.pid.to_string(),
            clean(&machine.role),
            clean(machine.result.as_deref().unwrap_or("under way")),
            count(machine.sessions.len() as u64),
            shown_time(took),
            if machine.ran_before() { shown_time(machine.downtime_ns) } else { "-".to_owned() },
        ]);
    }
    put(text, table.lines(2, columns));
}

fn downtime(text: &mut String, this: &Move, columns: usize) {
    let Some(waterfall) = &this.waterfall else { return };
    let whole_ns = waterfall.to_ns.saturating_sub(waterfall.from_ns);
    let title = if waterfall.whole { "Downtime" } else { "Downtime, as far as this end tells" };
    heading(text, &format!("{title}: {}", time(whole_ns)));
    let label =
        |what: &str, ns: u64| format!("{what:<38} {:>9} {:>7}", time(ns), percent(ns, whole_ns));
    let narrow = columns < 90;
    let rest = if narrow { columns.saturating_sub(4) } else { columns.saturating_sub(61) };
    for bar in &waterfall.bars {
        let ns = bar.to_ns.saturating_sub(bar.from_ns);
        // The destination's driver works while other parts pass.
        let block = if bar.part == "load" { '░' } else { '█' };
        let begin = bar.from_ns.saturating_sub(waterfall.from_ns);
        let line = span(begin, begin.saturating_add(ns), whole_ns, rest, block);
        if narrow {
            put(text, [format!("  {}", cut(&label(bar.what, ns), columns.saturating_sub(2)))]);
            put(text, [format!("    {line}")]);
        } else {
            put(text, [format!("  {}  {line}", label(bar.what, ns))]);
        }
    }
    if let Some(other_ns) = waterfall.other_ns {
        let line = label("none of these: the VMM's own", other_ns);
        put(text, [format!("  {}", cut(&line, columns.saturating_sub(2)))]);
    }
    for busy_ns in waterfall.bars.iter().filter_map(|bar| bar.busy_ns) {
        let note = format!(
            "  ░ overlaps the others; the driver was busy for {}, pre-copy included",
            time(busy_ns)
        );
        put(text, [styled(DIM, &cut(&note, columns))]);
    }
}

fn shown_time(ns: Option<u64>) -> String {
    ns.map_or_else(|| UNKNOWN.to_owned(), time)
}

/// What stands above a session.
fn title(detail: &super::model::Detail) -> String {
    let report = &detail.report;
    let machine = match who(detail) {
        name if name == report.device => String::new(),
        name => format!(" of {}", clean(name)),
    };
    let result = report.result.as_deref().unwrap_or("under way");
    let exact = if report.exact { "exact" } else { "not exact" };
    let kept = counted(report.transitions.len() as u64, "change of state", "changes of state");
    format!(
        "{}{machine}: {}, {} after {}  (session {}, pid {}, {exact}, {kept})",
        clean(&report.device),
        clean(&report.role),
        clean(result),
        time(report.duration_ns),
        report.id,
        report.pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string())
    )
}
