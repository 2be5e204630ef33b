// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A report as one HTML page that needs nothing else: no network, no font, no other file.
//!
//! Everything that is shown goes through maud, which escapes it: a machine's name is chosen by whoever started it. The only text that is
//! put in as it is comes from this folder (style sheet and script) or from [`plot::json`], which cannot leave its element. What would turn the
//! order of the text around or hide in it is replaced in the whole page at once.

mod charts;
mod plot;
mod session;

use super::{
    compare::{Comparison, Judgement},
    model::{Document, Move, Tone, Verdict},
    units::{UNKNOWN, count, moment, percent, time},
};
use crate::harmless::harmless_lines;
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("html/style.css");
const SCRIPT: &str = include_str!("html/script.js");

/// The page of `document`.
pub fn page(document: &Document) -> String {
    let body = html! {
        header {
            p.soft { "migscope report of " strong { (document.recording.file) } }
            (verdict(&document.verdict, true))
            (recording(document))
        }
        @if document.moves.len() > 1 { (contents(document)) }
        (machines(document))
        @for this in &document.moves { (moved(document, this)) }
        section {
            h2 #unknown { "What is not known" }
            @if document.unknown.is_empty() { p { "Nothing that belongs into this report is missing." } }
            ul { @for sentence in &document.unknown { li { (sentence) } } }
        }
        footer { "Made by migscope " (document.migscope) ". Times are of the recording host; rates and amounts are as its driver told them." }
    };
    whole(&document.verdict.headline, &body)
}

/// The page of `comparison`.
pub fn comparison(comparison: &Comparison) -> String {
    let body = html! {
        header {
            p.soft { "migscope report, two migrations" }
            (verdict(&comparison.verdict, true))
            dl.facts {
                @for (name, side) in [("A", &comparison.a), ("B", &comparison.b)] {
                    div { dt { (name) ": " (side.file) } dd { (side.headline) @if !side.exact { " (not exact)" } } }
                }
            }
        }
        @for group in &comparison.groups {
            section {
                h2 { (group.name) }
                div.scroll { table {
                    thead { tr { th { "" } th.n { "A" } th.n { "B" } th.n { "B − A" } th.n { "B / A" } th { "" } } }
                    tbody {
                        @for row in &group.rows {
                            @let (class, mark) = judged(row.judgement);
                            tr class=[class] {
                                td { (row.name) }
                                td.n { (row.unit.show(row.a)) }
                                td.n { (row.unit.show(row.b)) }
                                td.n { (row.shown_difference()) }
                                td.n { (row.shown_ratio()) }
                                td { (mark) }
                            }
                        }
                    }
                } }
            }
        }
        footer { (comparison.rule) }
    };
    whole(&comparison.verdict.headline, &body)
}

fn judged(judgement: Judgement) -> (Option<&'static str>, &'static str) {
    match judgement {
        Judgement::Worse => (Some("worse"), "worse"),
        Judgement::Better => (Some("better"), "better"),
        Judgement::Same | Judgement::Neutral | Judgement::Unknown => (None, ""),
    }
}

fn whole(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // A page that fetches nothing has an icon, too, or the browser would ask for one.
                link rel="icon" href="data:,";
                title { (title) " - migscope" }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) script { (PreEscaped(SCRIPT)) } }
        }
    };
    // Nothing of ours acts but ends of lines: so what does came from outside.
    harmless_lines(&page.into_string()).into_owned()
}

fn verdict(verdict: &Verdict, is_title: bool) -> Markup {
    let (class, word) = match verdict.tone {
        Tone::Good => ("verdict good", "completed"),
        Tone::Open => ("verdict open", "not completed"),
        Tone::Bad => ("verdict bad", "failed"),
    };
    let word = if is_title && verdict.why.is_empty() { "" } else { word };
    html! {
        div class=(class) {
            div.tone { (word) }
            @if is_title { h1 { (verdict.headline) } } @else { h3 { (verdict.headline) } }
            @if !verdict.why.is_empty() { ul { @for sentence in &verdict.why { li { (sentence) } } } }
        }
    }
}

/// A name and a value, many of them beside each other.
fn facts<'a>(facts: impl IntoIterator<Item = (&'a str, String)>) -> Markup {
    html! { dl.facts { @for (name, value) in facts { div { dt { (name) } dd { (value) } } } } }
}

fn known_time(ns: Option<u64>) -> String {
    ns.map_or_else(|| UNKNOWN.to_owned(), time)
}

fn recording(document: &Document) -> Markup {
    let recording = &document.recording;
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| UNKNOWN.to_owned());
    let ends = recording.began_monotonic_ns.zip(recording.ended_monotonic_ns);
    let began = recording.began_monotonic_ns.and_then(|ns| document.unix_ns(ns));
    facts([
        ("Host", known(&recording.host)),
        ("Kernel", known(&recording.kernel)),
        ("Recording began", began.map_or_else(|| UNKNOWN.to_owned(), moment)),
        ("Recorded for", known_time(ends.map(|(began, ended)| ended.saturating_sub(began)))),
        ("Recorded by migscope", known(&recording.version)),
    ])
}

fn contents(document: &Document) -> Markup {
    html! {
        nav { ul {
            @for this in &document.moves {
                @if let Some(id) = this.source.or(this.destination) {
                    li { a href=(format!("#s{id}")) { (this.verdict.headline) } }
                }
            }
            li { a href="#unknown" { "What is not known" } }
        } }
    }
}

fn machines(document: &Document) -> Markup {
    html! {
        @if !document.migrations.is_empty() {
            section {
                h2 { "Machines" }
                div.scroll { table {
                    thead { tr {
                        th { "Machine" } th.n { "Process" } th { "Role" } th { "Result" } th.n { "Devices" } th.n { "Took" }
                        th.n { "Devices stood" } th { "UUID" }
                    } }
                    tbody {
                        @for machine in &document.migrations {
                            @let took = machine.ended_monotonic_ns.map(|end| end.saturating_sub(machine.began_monotonic_ns));
                            tr {
                                td { (machine.vm.as_deref().unwrap_or("-")) }
                                td.n { (machine.pid) }
                                td { (machine.role) }
                                td { (machine.result.as_deref().unwrap_or("under way")) }
                                td.n { (count(machine.sessions.len() as u64)) }
                                td.n { (known_time(took)) }
                                td.n { @if machine.ran_before() { (known_time(machine.downtime_ns)) } @else { "-" } }
                                td { (machine.vm_uuid.as_deref().unwrap_or("-")) }
                            }
                        }
                    }
                } }
            }
        }
    }
}

fn moved(document: &Document, this: &Move) -> Markup {
    let ends = || [this.source, this.destination].into_iter().flatten();
    let devices: Vec<_> = ends()
        .filter_map(|id| document.session(id))
        .map(|detail| detail.report.device.as_str())
        .collect();
    html! {
        section {
            h2 { (devices.join(" → ")) }
            @if document.moves.len() > 1 { (verdict(&this.verdict, false)) }
            (waterfall(this))
            @for detail in ends().filter_map(|id| document.session(id)) { (session::session(detail)) }
        }
    }
}

fn waterfall(this: &Move) -> Markup {
    let Some(waterfall) = &this.waterfall else { return html! {} };
    let whole_ns = waterfall.to_ns.saturating_sub(waterfall.from_ns);
    let style = |bar: &super::model::Bar| {
        let from = plot::place(bar.from_ns, waterfall.from_ns, waterfall.to_ns);
        let to = plot::place(bar.to_ns, waterfall.from_ns, waterfall.to_ns);
        format!("left:{};width:{}", plot::percent(from), plot::percent(to - from))
    };
    html! {
        figure {
            figcaption {
                strong { "Downtime " (time(whole_ns)) }
                @if !waterfall.whole { " " span.note { "as far as this end tells" } }
            }
            div.waterfall {
                @for bar in &waterfall.bars {
                    @let ns = bar.to_ns.saturating_sub(bar.from_ns);
                    div {
                        (bar.what)
                        @if let Some(busy) = bar.busy_ns { " " span.note { "(overlaps; busy " (time(busy)) ", pre-copy included)" } }
                    }
                    div.n { (time(ns)) " " span.note { (percent(ns, whole_ns)) } }
                    div.track { i class=(bar.part) style=(style(bar)) {} }
                }
                div.axis { span { "0" } span { (time(whole_ns / 2)) } span { (time(whole_ns)) } }
                @if let Some(other) = waterfall.other_ns {
                    div { "none of these: the VMM's own" }
                    div.n { (time(other)) " " span.note { (percent(other, whole_ns)) } }
                    div {}
                }
            }
        }
    }
}
