// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every figure against what follows from the script by hand.

use crate::feed::{
    DESTINATION, MS, SOURCE, Script, ZERO_NS, attached, change, losses, migration, told,
};
use migscope::{
    event::Event,
    feed::Input,
    probes::{all_missing, attach::Missing},
    report::{
        Document,
        compare::{Judgement, Unit, compare},
        model::{Detail, Tone},
    },
    state::State,
};
use migscope_abi::{ring::DeviceSums, state::Cause};

fn scripted() -> Document {
    told(migration(&Script::default()))
}

fn source(document: &Document) -> &Detail {
    document.sessions.iter().find(|detail| detail.report.role == "source").expect("one")
}

fn near(told_ns: u64, truth_ns: u64, relative_error: f64) -> bool {
    told_ns.abs_diff(truth_ns) as f64 <= relative_error * truth_ns as f64
}

#[test]
fn the_parts_of_the_downtime_are_where_the_script_has_them() {
    let document = scripted();
    let [this] = &document.moves[..] else { panic!("one move: {:?}", document.moves) };
    assert_eq!(this.duration_ns, Some(2_395_200_000)); // 4.8 ms to 2400 ms
    let waterfall = this.waterfall.as_ref().expect("both ends were seen");
    assert!(waterfall.whole);
    assert_eq!(waterfall.to_ns - waterfall.from_ns, 389_400_000); // 2010.6 ms to 2400 ms
    let bars: Vec<_> = waterfall
        .bars
        .iter()
        .map(|bar| (bar.part, (bar.from_ns - ZERO_NS) / 100_000, (bar.to_ns - ZERO_NS) / 100_000))
        .collect();
    let tenths_of_ms = [
        ("stop", 20_106, 20_450),
        ("load", 20_106, 22_920),
        ("final_dirty", 20_600, 20_700),
        ("final_data", 20_800, 22_900),
        ("transfer_gap", 22_900, 22_940),
        ("start", 22_940, 24_000),
    ];
    assert_eq!(bars, tenths_of_ms);
    // 2045 to 2060 ms and 2070 to 2080 ms.
    assert_eq!(waterfall.other_ns, Some(25 * MS));
    assert_eq!(this.downtime.load_ns, Some(120 * MS));
    assert_eq!(document.verdict.tone, Tone::Good);
    assert_eq!(document.verdict.headline, "web migrated in 2.40 s, downtime 389 ms");
    assert_eq!(
        document.verdict.why.first().map(String::as_str),
        Some(
            "the downtime went 210 ms (54 %) to read the last device data, 106 ms (27 %) to start the destination's device, \
             34.4 ms (8.8 %) to stop the source's device"
        )
    );
}

#[test]
fn states_hold_what_was_moved_in_them() {
    let document = scripted();
    let stays: Vec<_> = source(&document)
        .states
        .iter()
        .map(|stay| {
            (stay.state, stay.ns() / MS, stay.data_bytes, stay.iterations, stay.dirty_bytes)
        })
        .collect();
    let pre_copy = ("pre_copy", 2_035, Some(40 << 20), Some(40), Some(8 * 8192));
    let stopped = ("stop_and_copy", 249, Some(16 << 20), Some(40), Some(8192));
    assert_eq!(stays, [pre_copy, stopped]);
    // 10 ms after 22:00.
    let entered = source(&document).states.first().and_then(|stay| stay.from_unix_ns);
    assert_eq!(entered, Some(1_795_384_800_010_000_000));
}

#[test]
fn rates_are_those_of_the_script() {
    let document = scripted();
    let rates = &source(&document).rates;
    assert_eq!(rates.window_ns, 200 * MS);
    let first: Vec<_> = rates
        .windows
        .iter()
        .take(2)
        .map(|w| {
            ((w.to_ns - w.from_ns) / MS, w.throughput_bytes_per_second, w.dirty_bytes_per_second)
        })
        .collect();
    // A buffer of 1 MiB each 50 ms; the first query is answered 250 ms after the beginning.
    let per_second = Some(20 << 20);
    assert_eq!(first, [(200, per_second, Some(0)), (200, per_second, Some(8192 * 5))]);
}

#[test]
fn latencies_are_those_of_the_session_and_within_their_error() {
    let document = scripted();
    let latencies = &source(&document).latencies;
    assert_eq!(latencies.from_ns, Some(ZERO_NS + MS));
    assert_eq!(latencies.to_ns, Some(ZERO_NS + 2_450 * MS));
    let reads = latencies.series.iter().find(|series| series.what == "read pending_bytes");
    let reads = reads.expect("they were sampled");
    // A thousand more came before the session, and took 900 ns.
    assert_eq!(reads.count, 10_000);
    let of = reads.quantiles;
    let told = [Some(of.p50_ns), of.p90_ns, of.p999_ns, Some(of.max_ns)];
    for (told_ns, truth_ns) in told.into_iter().zip([1_900, 1_900, 76_000, 76_000]) {
        let told_ns = told_ns.expect("there are enough of them");
        assert!(near(told_ns, truth_ns, reads.relative_error), "{told_ns} {truth_ns}");
    }
    let queries = latencies.series.iter().find(|series| series.what == "dirty query");
    let queries = queries.expect("they were recorded");
    assert_eq!((queries.count, queries.quantiles.p90_ns), (9, None));
    assert!(near(queries.quantiles.max_ns, 10 * MS, queries.relative_error));
}

#[test]
fn forecasts_stand_beside_what_came() {
    let document = scripted();
    let prediction = source(&document).prediction.as_ref().expect("a source with many points");
    let half = prediction.half_way.expect("it was completed");
    // Half of 9.5 to 2294 ms is 1151.75 ms; the next reading is at 1160 ms.
    assert_eq!((half.at_ns, half.truth_ns), (ZERO_NS + 1_160 * MS, Some(1_134 * MS)));
    assert_eq!(half.error(Some(1_234 * MS), 1_000 * MS), Some(0.1));
    assert!(prediction.said.iter().all(|said| said.at_ns < ZERO_NS + 2_294 * MS));
    let of_destination =
        document.sessions.iter().find(|detail| detail.report.role == "destination");
    assert_eq!(of_destination.and_then(|detail| detail.prediction.clone()), None);
}

#[test]
fn refusals_have_their_moment_and_their_rule() {
    let document = scripted();
    let [broken] = &source(&document).report.violations[..] else { panic!("one") };
    assert_eq!((&*broken.rule, broken.state.as_deref()), ("reserved_bits", Some("pre_copy")));
    assert_eq!(broken.at_monotonic_ns, ZERO_NS + 711 * MS);
    assert!(
        document
            .verdict
            .why
            .iter()
            .any(|why| why == "the source broke the protocol 1 time: reserved_bits")
    );
    assert_eq!(document.unknown, Vec::<String>::new());
}

#[test]
fn one_end_alone_says_what_it_knows_and_that_it_is_alone() {
    for (kept, headline) in [
        (
            SOURCE,
            "web was given away in 2.28 s, its device stood 283 ms of it; the destination was not seen",
        ),
        (DESTINATION, "web was taken in and runs after 2.40 s; the source was not seen"),
    ] {
        let other = if kept == SOURCE { DESTINATION } else { SOURCE };
        let mut feed = migration(&Script::default());
        feed.retain_mut(|input| match input {
            Input::Event(Event::State(change)) => change.device == kept,
            Input::Info(device, _) => *device == kept,
            Input::Sums(_, devices) => {
                devices.remove(&other);
                true
            }
            Input::Event(_) => kept == SOURCE,
            _ => true,
        });
        let document = told(feed);
        assert_eq!(document.verdict.headline, headline);
        let waterfall = document.moves.first().and_then(|this| this.waterfall.clone());
        assert!(!waterfall.expect("it was completed").whole);
        assert!(
            document.unknown.iter().any(|s| s.contains("its other end was not seen")),
            "{:?}",
            document.unknown
        );
    }
}

#[test]
fn a_migration_that_the_recording_does_not_see_the_end_of_is_under_way() {
    let mut feed = migration(&Script::default());
    feed.truncate(30);
    let document = told(feed);
    assert_eq!(document.verdict.tone, Tone::Open);
    assert!(
        document.verdict.headline.contains("2 migrations: 2 called off or without a known end"),
        "{:?}",
        document.verdict
    );
    let headlines: Vec<_> = document.moves.iter().map(|this| &this.verdict.headline).collect();
    assert!(
        headlines.iter().all(|line| line.contains("was under way when the recording ended")),
        "{headlines:?}"
    );
    assert!(
        document.moves.iter().all(|this| this.waterfall.is_none() && this.duration_ns.is_none())
    );
}

#[test]
fn a_device_that_fails_is_the_verdict() {
    let start = DeviceSums::default();
    let mut failed = change(SOURCE, (State::StopAndCopy, State::Error), (30 * MS, 1_000), start);
    failed.cause = Cause::Failure;
    let feed = vec![
        attached(),
        losses(0, 0),
        Input::Event(Event::State(change(
            SOURCE,
            (State::Running, State::StopAndCopy),
            (10 * MS, 1_000),
            start,
        ))),
        Input::Event(Event::State(failed)),
    ];
    let document = told(feed);
    assert_eq!(document.verdict.tone, Tone::Bad);
    assert_eq!(
        document.verdict.headline,
        "the migration of 0000:00:10.0 failed after 20.0 ms as source in stop_and_copy"
    );
}

#[test]
fn an_empty_recording_says_so() {
    let document = told(vec![attached(), losses(0, 0)]);
    assert_eq!(document.verdict.headline, "no migration in this recording");
    assert!(document.moves.is_empty() && document.sessions.is_empty());
}

#[test]
fn what_was_lost_and_what_was_not_watched_is_said() {
    let missing = Missing::new("the module is not loaded", "load it");
    let mut feed = migration(&Script::default());
    feed.insert(10, losses(3, 200));
    feed.push(Input::Lost(ZERO_NS + 2_500 * MS));
    feed.push(Input::Probes(all_missing(&missing)));
    // The last reading of the script says that nothing was lost: that is older.
    let place = feed
        .iter()
        .rposition(|input| matches!(input, Input::Losses(losses, _) if losses.told[0] == 0));
    feed.remove(place.expect("it is there"));
    let document = told(feed);
    let all = document.unknown.join("\n");
    for sentence in [
        "3 records were lost (ring_full)",
        "1 time records were lost of which nobody kept count",
        "the probe state was missing: the module is not loaded",
        "session 2 (source of 0000:00:10.0) is not exact",
    ] {
        assert!(all.contains(sentence), "{sentence}: {all}");
    }
    assert!(!source(&document).report.exact);
}

#[test]
fn a_sum_that_no_probe_feeds_is_unknown_in_every_view() {
    let mut feed = migration(&Script::default());
    let missing = Missing::new("not there", "none");
    if let Some(Input::Probes(standing)) = feed.first_mut() {
        for event in [migscope_abi::probe::Probe::Data, migscope_abi::probe::Probe::DirtyQuery] {
            standing.insert(event, Err(missing.clone()));
        }
    }
    let document = told(feed);
    let detail = source(&document);
    assert_eq!(detail.states.first().and_then(|stay| stay.data_bytes), None);
    assert_eq!(detail.report.figures.dirty, None);
    assert!(detail.rates.windows.iter().all(|w| w.throughput_bytes_per_second.is_none()));
    let waterfall = document.moves.first().and_then(|this| this.waterfall.clone());
    assert_eq!(waterfall.expect("stops and starts were seen").other_ns, None);
    let text = migscope::report::terminal::summary(&document, 100);
    assert!(!text.contains("throughput") && !text.contains("dirty rate"), "{text}");
    let page = migscope::report::html::page(&document);
    assert!(!page.contains("<strong>Dirty rate"), "an empty plot is none");
}

#[test]
fn one_session_can_be_told_alone() {
    let mut feed = migration(&Script::default());
    let start = DeviceSums::default();
    for (from, now, at_ms) in
        [(State::Running, State::PreCopy, 3_000), (State::PreCopy, State::Running, 3_100)]
    {
        let mut later = change(DESTINATION, (from, now), (at_ms * MS, 1_000), start);
        later.tgid = 99;
        feed.push(Input::Event(Event::State(later)));
    }
    let whole = told(feed);
    assert_eq!(whole.moves.len(), 2);
    assert_eq!(
        whole.verdict.headline,
        "2 migrations: 1 completed, 1 called off or without a known end"
    );
    let mut one = whole.clone();
    assert!(one.keep_only(1));
    let kept: Vec<_> = one.sessions.iter().map(|detail| detail.report.id).collect();
    assert_eq!((kept, one.moves.len(), one.migrations.len()), (vec![1, 2], 1, 2));
    assert_eq!(one.verdict.headline, "web migrated in 2.40 s, downtime 389 ms");
    let mut three = whole.clone();
    assert!(three.keep_only(3) && three.unknown.iter().all(|s| !s.contains("session 1")));
    assert!(!three.keep_only(1), "it is gone");
}

#[test]
fn a_comparison_marks_what_got_worse_and_nothing_else() {
    let slower =
        Script { stop_ns: 20 * MS, dirty_bytes: 20_480, read_ns: 4_000, ..Script::default() };
    let comparison = compare(&scripted(), &told(migration(&slower))).expect("both have one");
    let row = |name: &str| {
        let mut rows = comparison.groups.iter().flat_map(|group| &group.rows);
        rows.find(|row| row.name == name).unwrap_or_else(|| panic!("{name}"))
    };
    let stop = row("stop");
    assert_eq!(
        (stop.a, stop.b, stop.judgement),
        (Some(34_400_000), Some(20 * MS), Judgement::Better)
    );
    assert_eq!(stop.difference, Some(-14_400_000));
    let dirty = row("dirty bytes");
    assert_eq!((dirty.difference, dirty.ratio), (Some(9 * 12_288), Some(2.5)));
    assert_eq!((dirty.judgement, dirty.unit), (Judgement::Worse, Unit::Bytes));
    assert_eq!(row("read pending_bytes, p50").judgement, Judgement::Worse);
    assert_eq!(row("dirty query, p50").judgement, Judgement::Same);
    assert_eq!(row("device data").judgement, Judgement::Neutral);
    // 3.7 % less downtime are as good as equal.
    assert_eq!(row("total").judgement, Judgement::Same);
    assert_eq!(comparison.verdict.tone, Tone::Open);
    let same = compare(&scripted(), &scripted()).expect("both have one");
    assert_eq!(same.verdict.headline, "the two migrations are as good as equal");
}

/// What the migrator said of that migration is in no file; these are the figures that the recording's own notes give, and what must hold
/// of any migration.
#[test]
fn the_recording_of_a_real_migration_is_told() {
    let file =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/edu-live.migscope");
    let document = migscope::report::load::load(&file).expect("a whole recording");
    assert_eq!((&document.recording.faults, &document.unknown), (&Vec::new(), &Vec::new()));
    assert_eq!(document.recording.host.as_deref(), Some("migscope-guest"));
    let [this] = &document.moves[..] else { panic!("one move: {:?}", document.moves) };
    assert_eq!(this.verdict.tone, Tone::Good);
    let waterfall = this.waterfall.as_ref().expect("both ends were seen");
    let whole_ns = waterfall.to_ns - waterfall.from_ns;
    assert_eq!(Some(whole_ns), this.downtime.total_ns);
    assert!(
        waterfall
            .bars
            .iter()
            .all(|bar| waterfall.from_ns <= bar.from_ns && bar.to_ns <= waterfall.to_ns)
    );
    assert!(waterfall.other_ns.expect("all was watched") < whole_ns);
    for detail in &document.sessions {
        let figures = detail.report.figures;
        assert!(detail.report.exact);
        assert_eq!((figures.data_bytes, figures.iterations), (Some(4279), Some(4)));
        let in_states: Option<u64> = detail.states.iter().map(|stay| stay.data_bytes).sum();
        assert_eq!(in_states, Some(4279));
        let ns: u64 = detail.states.iter().map(migscope::report::model::Stay::ns).sum();
        let told_ns: u64 = detail.report.states_ns.values().sum();
        assert_eq!(ns, told_ns);
    }
    let queries =
        source(&document).latencies.series.iter().find(|series| series.what == "dirty query");
    assert_eq!(queries.map(|series| series.count), Some(4));
}
