// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One session on the page.

use super::{
    charts::{self, Span},
    facts, known_time,
    plot::percent as place,
};
use crate::report::{
    model::{Detail, outcomes},
    prediction::{Prediction, Said, shown_error},
    units::{UNKNOWN, bytes, count, moment, per_second, percent, rate, time},
    verdict::who,
};
use maud::{Markup, html};

/// Rows of a table: a page with a hundred thousand opens in no browser. JSON has them all.
const ROWS: usize = 256;

pub(super) fn session(detail: &Detail) -> Markup {
    let report = &detail.report;
    let result = report.result.as_deref().unwrap_or("under way");
    html! {
        article id=(format!("s{}", report.id)) {
            h3 {
                (report.device) ", " (report.role) ": " (result) " after " (time(report.duration_ns))
                @if !report.exact { span.open { " (not exact)" } }
            }
            (figures(detail))
            (lane(detail))
            (charts::amounts(detail).show())
            (charts::rates(detail).show())
            (charts::dirtied(detail).show())
            (charts::iterations(detail).show())
            (states(detail))
            @if let Some(prediction) = &detail.prediction { (foretold(detail, prediction)) }
            // Accesses are counted for the host: those of a destination that found its source are told there.
            @if report.role == "source" || report.peer.is_none() { (latencies(detail)) }
            (transitions(detail))
            (broken(detail))
        }
    }
}

fn known(value: Option<u64>, show: fn(u64) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), show)
}

fn figures(detail: &Detail) -> Markup {
    let report = &detail.report;
    let of = &report.figures;
    let queries = of.dirty.map(|account| {
        let asked = outcomes(&account.queries).into_iter().filter(|(_, count)| *count > 0);
        let told: Vec<_> =
            asked.map(|(outcome, number)| format!("{} {outcome}", count(number))).collect();
        if told.is_empty() { "none asked".to_owned() } else { told.join(", ") }
    });
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| UNKNOWN.to_owned());
    let named = |text: &str| if text.is_empty() { UNKNOWN.to_owned() } else { text.to_owned() };
    facts([
        (
            "Machine",
            if who(detail) == report.device { UNKNOWN.to_owned() } else { who(detail).to_owned() },
        ),
        ("Process", known(report.pid.map(u64::from), |pid| pid.to_string())),
        ("Driver", named(&detail.info.driver)),
        ("Protocol", report.protocol.to_string()),
        ("Session", report.id.to_string()),
        ("Began", or_unknown(detail.began_unix_ns.map(moment))),
        ("Device data", known(of.data_bytes, bytes)),
        ("Buffers", known(of.iterations, count)),
        ("Pending, last", known(of.pending_bytes, bytes)),
        ("Reported dirty", known(of.dirty.map(|account| account.bytes), bytes)),
        ("Dirty queries", or_unknown(queries)),
        ("Driver busy with data", known(of.data_busy_ns, time)),
        ("Driver busy with queries", known(of.query_busy_ns, time)),
        ("DMA to memory", known(of.dma_to_memory_bytes, bytes)),
        ("Broken rules", known(report.broken_rules(), count)),
    ])
}

fn lane(detail: &Detail) -> Markup {
    let span = Span::of(detail);
    html! {
        h4 { "States" }
        div.lane {
            @for stay in &detail.states {
                @let (from, to) = (span.place(stay.from_ns), span.place(stay.to_ns));
                @let text = format!("{} {}", stay.state, time(stay.ns()));
                span class=(stay.state) title=(text) style=(format!("left:{};width:{}", place(from), place(to - from))) { b { (text) } }
            }
        }
        ul.legend.states {
            @for stay in detail.states.iter().take(ROWS) { li class=(stay.state) { i {} (stay.state) " " (time(stay.ns())) } }
        }
    }
}

fn states(detail: &Detail) -> Markup {
    html! {
        h4 { "State by state" }
        div.scroll { table {
            thead { tr {
                th { "State" } th { "Entered" } th.n { "Time" } th.n { "Data" } th.n { "Buffers" } th.n { "Bytes a buffer" }
                th.n { "Throughput" } th.n { "Reported dirty" } th.n { "Pending at its end" }
            } }
            tbody {
                @for stay in &detail.states {
                    tr {
                        td { (stay.state) }
                        td { (stay.from_unix_ns.map_or_else(|| UNKNOWN.to_owned(), moment)) }
                        td.n { (time(stay.ns())) }
                        td.n { (known(stay.data_bytes, bytes)) }
                        td.n { (known(stay.iterations, count)) }
                        td.n { (each(stay.data_bytes, stay.iterations)) }
                        td.n { (known(stay.data_bytes.and_then(|moved| per_second(moved, stay.ns())), rate)) }
                        td.n { (known(stay.dirty_bytes, bytes)) }
                        td.n { (known(stay.pending_bytes, bytes)) }
                    }
                }
            }
        } }
    }
}

fn each(moved: Option<u64>, iterations: Option<u64>) -> String {
    let each = moved.zip(iterations).and_then(|(moved, buffers)| moved.checked_div(buffers));
    each.map_or_else(|| "-".to_owned(), bytes)
}

fn foretold(detail: &Detail, prediction: &Prediction) -> Markup {
    let whole_ns = detail.report.duration_ns;
    let row = |name: &'static str, said: &Said, ns: Option<u64>| {
        let off = said.error(ns, whole_ns);
        (name, known_time(ns), off.map_or_else(|| "-".to_owned(), shown_error))
    };
    html! {
        (charts::prediction(detail, prediction).show())
        @if let Some(said) = &prediction.half_way {
            h4 { "Half-way: " (known_time(said.truth_ns)) " were left" }
            div.scroll { table {
                thead { tr { th { "Who" } th.n { "Foretold" } th.n { "Error" } } }
                tbody {
                    @for (who, foretold, off) in [
                        row("migscope", said, said.expected_ns),
                        row("QEMU's formula", said, said.qemu_ns),
                        row("KubeVirt's", said, said.kubevirt_ns),
                        row("geometric model", said, said.geometric_ns),
                    ] { tr { td { (who) } td.n { (foretold) } td.n { (off) } } }
                }
            } }
        }
        @if !prediction.blocked.is_empty() {
            h4 { "What stood in the way" }
            ul { @for blocked in &prediction.blocked { li { code { (blocked.reason) } ": " (blocked.why) } } }
        }
    }
}

fn latencies(detail: &Detail) -> Markup {
    let series = &detail.latencies.series;
    html! {
        @if !series.is_empty() {
            (charts::latencies(detail).show())
            div.scroll { table {
                thead { tr {
                    th { "Latency" } th.n { "Count" } th.n { "p50" } th.n { "p90" } th.n { "p99" } th.n { "p99.9" } th.n { "max" }
                    th.n { "Error" }
                } }
                tbody {
                    @for series in series {
                        @let of = &series.quantiles;
                        tr {
                            td { (series.what) }
                            td.n { (count(series.count)) }
                            @for ns in [Some(of.p50_ns), of.p90_ns, of.p99_ns, of.p999_ns, Some(of.max_ns)] {
                                td.n { (ns.map_or_else(|| "-".to_owned(), time)) }
                            }
                            td.n { (format!("±{:.1} %", series.relative_error * 100.0)) }
                        }
                    }
                }
            } }
            p.soft {
                "Accesses are those of all devices on the host from the last reading before the session to the first one after it. A "
                "percentile is left out where there are too few of them to tell it from the longest."
            }
        }
    }
}

fn transitions(detail: &Detail) -> Markup {
    let report = &detail.report;
    html! {
        h4 { "Changes of state" }
        div.scroll { table {
            thead { tr { th.n { "At" } th { "From" } th { "To" } th.n { "Took" } th { "By" } th { "Result" } } }
            tbody {
                @for change in report.transitions.iter().take(ROWS) {
                    tr class=[(change.result != "ok").then_some("refused")] {
                        td.n { "+" (time(change.at_monotonic_ns.saturating_sub(report.began_monotonic_ns))) }
                        td { (change.from) } td { (change.to) }
                        td.n { (time(change.duration_ns)) }
                        td { (change.cause) } td { (change.result) }
                    }
                }
            }
        } }
        (more(report.transitions.len()))
    }
}

fn broken(detail: &Detail) -> Markup {
    html! {
        h4 { "Broken rules" }
        @if detail.report.violations.is_empty() {
            p { @if detail.report.broken_rules() == Some(0) { "None." } @else { "Not known." } }
        } @else {
            div.scroll { table {
                thead { tr { th.n { "At" } th { "Rule" } th { "By" } th { "In state" } } }
                tbody {
                    @for broken in detail.report.violations.iter().take(ROWS) {
                        tr.bad {
                            td.n { "+" (time(broken.at_monotonic_ns.saturating_sub(detail.report.began_monotonic_ns))) }
                            td { (broken.rule) } td { (broken.who.as_deref().unwrap_or("unknown")) }
                            td { (broken.state.as_deref().unwrap_or("none")) }
                        }
                    }
                }
            } }
            (more(detail.report.violations.len()))
        }
    }
}

fn more(there_are: usize) -> Markup {
    let more = there_are.saturating_sub(ROWS);
    html! { @if more > 0 { p.soft { "And " (more) " more, " (percent(more as u64, there_are as u64)) " of all; --json has them." } } }
}
