// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A trace for ui.perfetto.dev: machines as processes, devices as threads.
//!
//! ```text
//!   machine "web" (pid 4711)
//!     device 0000:00:10.0, source    ├──────────── session ─────────────┤     slices
//!       its states                     ├──pre_copy──┤├─stop_and_copy─┤       slices
//!       its dirty queries                ▪  ▪  ▪  ▪     ▪                    slices
//!       pending, sent, dirty         ╲___                                    counters
//!       refusals                           ▼                                 instants
//! ```
//!
//! It is written in Chrome's JSON trace format ("Trace Event Format", Google, 2016), not in Perfetto's protobuf: the format needs no
//! schema to be compiled in, every trace viewer reads it (Perfetto, chrome://tracing, speedscope), and a person can. The protobuf would
//! be smaller; a migration has some thousands of events.
//!
//! Timestamps are microseconds with three decimals, counted from the first moment of the recording, so that no nanosecond is lost in a
//! JSON number. Slices of one thread must nest: queries and the parts of a downtime, which overlap what is beside them, are threads of
//! their own.

use super::{
    model::{Detail, Document, Move},
    units::moment,
    verdict::who,
};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Threads that one session takes: states, queries, and one for each part of its downtime.
const THREADS: u64 = 16;

/// A trace as a whole.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    trace_events: Vec<TraceEvent>,
    display_time_unit: &'static str,
    other_data: Map<String, Value>,
}

/// One event; which fields it has depends on `ph`.
#[derive(Debug, Serialize)]
struct TraceEvent {
    name: String,
    /// `X`: a slice with its length. `C`: a counter. `i`: an instant. `M`: what a process or a thread is called.
    ph: &'static str,
    pid: u64,
    tid: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<Value>,
    /// Of an instant: `t`, it belongs to its thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cat: Option<&'static str>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    args: Map<String, Value>,
}

/// The trace of `document`.
pub fn trace(document: &Document) -> Trace {
    let zero_ns = document
        .sessions
        .iter()
        .map(|detail| detail.report.began_monotonic_ns)
        .chain(document.recording.began_monotonic_ns)
        .min()
        .unwrap_or(0);
    let mut writer = Writer { zero_ns, events: Vec::new() };
    for detail in &document.sessions {
        writer.session(detail);
    }
    for this in &document.moves {
        if let Some(detail) = this.source.or(this.destination).and_then(|id| document.session(id)) {
            writer.downtime(this, detail);
        }
    }
    let mut other_data = Map::new();
    let recording = &document.recording;
    for (name, value) in [
        ("file", Some(recording.file.clone())),
        ("host", recording.host.clone()),
        ("kernel", recording.kernel.clone()),
        ("zero", document.unix_ns(zero_ns).map(moment)),
        ("faults", Some(recording.faults.join("; ")).filter(|faults| !faults.is_empty())),
    ] {
        other_data.extend(value.map(|value| (name.to_owned(), Value::from(value))));
    }
    Trace { trace_events: writer.events, display_time_unit: "ns", other_data }
}

struct Writer {
    zero_ns: u64,
    events: Vec<TraceEvent>,
}

impl Writer {
    fn session(&mut self, detail: &Detail) {
        let report = &detail.report;
        let (pid, tid) = (u64::from(report.pid.unwrap_or(0)), thread(report.id));
        self.name("process_name", pid, tid, format!("{} (pid {pid})", who(detail)));
        let device = format!("{} {}", report.device, report.role);
        self.name("thread_name", pid, tid, device.clone());
        self.name("thread_name", pid, tid + 1, format!("{device}: dirty queries"));
        let result = report.result.as_deref().unwrap_or("under way");
        let ended_ns = report.began_monotonic_ns.saturating_add(report.duration_ns);
        let args = [
            ("session", json!(report.id)),
            ("result", json!(result)),
            ("exact", json!(report.exact)),
            ("data_bytes", json!(report.figures.data_bytes)),
        ];
        let name = format!("migration, {result}");
        self.slice(name, "session", (pid, tid), (report.began_monotonic_ns, ended_ns), args);
        for stay in &detail.states {
            let args = [
                ("data_bytes", json!(stay.data_bytes)),
                ("iterations", json!(stay.iterations)),
                ("dirty_bytes", json!(stay.dirty_bytes)),
            ];
            self.slice(stay.state, "state", (pid, tid), (stay.from_ns, stay.to_ns), args);
        }
        for change in &report.transitions {
            if change.result != "ok" {
                let name = format!("refused: {} to {}", change.from, change.to);
                self.instant(name, "refusal", (pid, tid), change.at_monotonic_ns, []);
            }
        }
        for broken in &report.violations {
            let args = [("state", json!(broken.state))];
            let name = format!("broken rule: {}", broken.rule);
            self.instant(name, "violation", (pid, tid), broken.at_monotonic_ns, args);
        }
        for query in &detail.queries {
            let times = (query.at_ns.saturating_sub(query.duration_ns), query.at_ns);
            let args = [
                ("range_bytes", json!(query.range_bytes)),
                ("dirty_bytes", json!(query.dirty_bytes)),
            ];
            self.slice(query.outcome, "dirty_query", (pid, tid + 1), times, args);
        }
        for point in &detail.timeline {
            for (what, value) in [
                ("pending", point.pending_bytes),
                ("moved", point.data_bytes),
                ("dirty", point.dirty_bytes),
            ] {
                // What is not known is no zero: the counter keeps its last value.
                let Some(value) = value else { continue };
                let mut event = self.event(format!("{device}: {what} bytes"), "C", (pid, tid));
                event.ts = Some(self.microseconds(point.at_monotonic_ns));
                event.args.insert("bytes".to_owned(), json!(value));
                self.events.push(event);
            }
        }
    }

    fn downtime(&mut self, this: &Move, detail: &Detail) {
        let Some(waterfall) = &this.waterfall else { return };
        let pid = u64::from(detail.report.pid.unwrap_or(0));
        for (bar, tid) in waterfall.bars.iter().zip(thread(detail.report.id) + 2..) {
            let name = format!("{} downtime: {}", detail.report.device, bar.part);
            self.name("thread_name", pid, tid, name);
            let args = [("what", json!(bar.what)), ("busy_ns", json!(bar.busy_ns))];
            self.slice(bar.part, "downtime", (pid, tid), (bar.from_ns, bar.to_ns), args);
        }
    }

    fn event(&self, name: String, ph: &'static str, (pid, tid): (u64, u64)) -> TraceEvent {
        let args = Map::new();
        TraceEvent { name, ph, pid, tid, ts: None, dur: None, s: None, cat: None, args }
    }

    fn name(&mut self, what: &str, pid: u64, tid: u64, name: String) {
        let mut event = self.event(what.to_owned(), "M", (pid, tid));
        event.args.insert("name".to_owned(), name.into());
        self.events.push(event);
    }

    fn slice<const N: usize>(
        &mut self,
        name: impl Into<String>,
        category: &'static str,
        place: (u64, u64),
        (from_ns, to_ns): (u64, u64),
        args: [(&str, Value); N],
    ) {
        let mut event = self.event(name.into(), "X", place);
        event.cat = Some(category);
        event.ts = Some(self.microseconds(from_ns));
        event.dur = Some(micros(to_ns.saturating_sub(from_ns)));
        event.args = known(args);
        self.events.push(event);
    }

    fn instant<const N: usize>(
        &mut self,
        name: String,
        category: &'static str,
        place: (u64, u64),
        at_ns: u64,
        args: [(&str, Value); N],
    ) {
        let mut event = self.event(name, "i", place);
        event.cat = Some(category);
        event.s = Some("t");
        event.ts = Some(self.microseconds(at_ns));
        event.args = known(args);
        self.events.push(event);
    }

    fn microseconds(&self, at_ns: u64) -> Value {
        micros(at_ns.saturating_sub(self.zero_ns))
    }
}

/// A number of its own for each thread of a session; the first is that of its states.
fn thread(session: u64) -> u64 {
    session.saturating_mul(THREADS)
}

/// A double holds a nanosecond in microseconds for 52 days, and a recording is shorter.
fn micros(ns: u64) -> Value {
    json!(ns as f64 / 1000.0)
}

fn known<const N: usize>(args: [(&str, Value); N]) -> Map<String, Value> {
    let known = args.into_iter().filter(|(_, value)| !value.is_null());
    known.map(|(name, value)| (name.to_owned(), value)).collect()
}
