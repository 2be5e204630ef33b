// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The trace against the rules of the Trace Event Format: which fields an event of each phase must have, and that slices nest.

use crate::feed::{MS, Script, migration, told};
use migscope::report::perfetto::trace;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

fn scripted() -> Value {
    serde_json::to_value(trace(&told(migration(&Script::default())))).expect("JSON")
}

fn events(trace: &Value) -> &Vec<Value> {
    trace["traceEvents"].as_array().expect("a list")
}

fn ns(value: &Value) -> u64 {
    let microseconds = value.as_f64().expect("a number");
    assert!(microseconds >= 0.0);
    format!("{:.0}", microseconds * 1000.0).parse().expect("whole")
}

#[test]
fn each_event_has_what_its_phase_asks_for() {
    let trace = scripted();
    assert_eq!(trace["displayTimeUnit"], "ns");
    let mut phases = BTreeSet::new();
    for event in events(&trace) {
        assert!(
            event["name"].is_string() && event["pid"].is_u64() && event["tid"].is_u64(),
            "{event}"
        );
        let phase = event["ph"].as_str().expect("a phase");
        phases.insert(phase);
        match phase {
            "X" => {
                ns(&event["ts"]);
                ns(&event["dur"]);
                assert!(event["cat"].is_string());
            }
            "C" => {
                ns(&event["ts"]);
                let values = event["args"].as_object().expect("values");
                assert!(!values.is_empty() && values.values().all(Value::is_number), "{event}");
            }
            "i" => {
                ns(&event["ts"]);
                assert!(["t", "p", "g"].contains(&event["s"].as_str().expect("a scope")));
            }
            "M" => assert!(event["args"]["name"].is_string(), "{event}"),
            other => panic!("no such phase here: {other}"),
        }
    }
    assert_eq!(phases.into_iter().collect::<Vec<_>>(), ["C", "M", "X", "i"]);
}

#[test]
fn slices_of_a_thread_nest_and_no_nanosecond_is_lost() {
    let trace = scripted();
    let mut threads: BTreeMap<(u64, u64), Vec<(u64, u64)>> = BTreeMap::new();
    for event in events(&trace).iter().filter(|event| event["ph"] == "X") {
        let thread = (event["pid"].as_u64().expect("a pid"), event["tid"].as_u64().expect("a tid"));
        let begin = ns(&event["ts"]);
        threads.entry(thread).or_default().push((begin, begin + ns(&event["dur"])));
    }
    assert!(threads.len() >= 5, "{threads:?}");
    for slices in threads.values_mut() {
        slices.sort_by_key(|(begin, end)| (*begin, std::cmp::Reverse(*end)));
        let mut open: Vec<u64> = Vec::new();
        for (begin, end) in slices.iter() {
            while open.last().is_some_and(|until| until <= begin) {
                open.pop();
            }
            assert!(open.last().is_none_or(|until| end <= until), "{begin} {end} in {slices:?}");
            open.push(*end);
        }
    }
    let stop = events(&trace).iter().find(|event| event["name"] == "stop").expect("a part");
    // From 2010.6 ms, counted from the first sample at 1 ms; the loss counters were read at 0.
    assert_eq!((ns(&stop["ts"]), ns(&stop["dur"])), (2_010_600_000, 34_400_000));
}

#[test]
fn machines_are_processes_and_refusals_are_instants() {
    let trace = scripted();
    let named = |what: &str| {
        let named = events(&trace).iter().filter(|event| event["name"] == what);
        named
            .map(|event| event["args"]["name"].as_str().expect("text").to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert!(named("process_name").contains("web (pid 4711)"));
    assert!(named("thread_name").contains("0000:00:11.0 destination"));
    let instants: Vec<_> = events(&trace)
        .iter()
        .filter(|event| event["ph"] == "i")
        .map(|event| (event["name"].as_str().expect("text"), ns(&event["ts"])))
        .collect();
    assert!(instants.contains(&("broken rule: reserved_bits", 711 * MS)), "{instants:?}");
    assert!(instants.contains(&("refused: pre_copy to invalid", 711 * MS)), "{instants:?}");
}
