// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Durations: the probes' buckets as the maps hold them, and the log for HdrHistogram's tools that is written of them. The input is
//! readings: a tag of one byte, how many buckets u8, (bucket u16, count u64) …, sum u64.
//!
//! Held against it: however the counts go, what is shown adds up; each interval of the log is read by the reader that comes with
//! HdrHistogram, and all intervals together have as many durations as came.

use crate::{Seed, pieces::Pieces, scratch::Scratch};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{
        Deserializer,
        interval_log::{IntervalLogIterator, LogEntry},
    },
};
use migscope::latency::{
    CALL, Latency, MIGRATION,
    interval_log::{IntervalLog, LIMIT_BYTES, Moment, tag},
};
use std::{
    fs,
    time::{Duration, SystemTime},
};

/// Readings that are taken: a histogram is compressed at each.
const READINGS: u64 = 24;
const MINUTE_NS: u64 = 60_000_000_000;

/// Takes readings in and writes the log.
///
/// # Panics
///
/// When something is wrong.
pub fn run(input: &[u8]) {
    let scratch = Scratch::new().expect("a folder");
    let path = scratch.path().join("latency.hlog");
    let moment = |minute: u64| Moment {
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + minute * 60),
        monotonic_ns: minute * MINUTE_NS,
    };
    let mut log = IntervalLog::begin(&path, LIMIT_BYTES, moment(0)).expect("a new file");
    let mut pieces = Pieces(input);
    let (mut latency, mut one_by_one) = (Latency::default(), Latency::default());
    for minute in 1..=READINGS {
        if pieces.is_empty() {
            break;
        }
        take(&mut pieces, &mut latency, &mut one_by_one);
        for latency in [&latency, &one_by_one] {
            adds_up(latency);
        }
        let series = [("folded".into(), latency.clone()), ("recorded".into(), one_by_one.clone())];
        log.end_interval(series, moment(minute)).expect("written");
    }
    drop(log);
    let text = fs::read(&path).expect("the log");
    for (name, latency) in [("folded", &latency), ("recorded", &one_by_one)] {
        assert_eq!(count(&text, name), latency.count(), "{name}");
    }
    let name = tag("x_seconds", &[String::from_utf8_lossy(input).into_owned()]);
    assert!(!name.contains([',', ' ', '\r', '\n']), "{name:?}");
}

/// One reading: odd ones are of one duration each, and a bit of the others says whether there are more buckets than we know.
fn take(pieces: &mut Pieces<'_>, folded: &mut Latency, one_by_one: &mut Latency) {
    let kind = pieces.u8();
    if kind % 2 == 1 {
        one_by_one.record(pieces.u64());
        return;
    }
    let mut buckets = vec![0_u64; 512 * usize::from(kind % 4 / 2) + 272];
    for _ in 0..pieces.u8() {
        let place = usize::from(pieces.u16()) % buckets.len();
        let count = pieces.u64();
        if let Some(bucket) = buckets.get_mut(place) {
            *bucket = count;
        }
        if pieces.is_empty() {
            break;
        }
    }
    folded.fold(&buckets, pieces.u64());
}

fn adds_up(latency: &Latency) {
    for bounds in [CALL, MIGRATION] {
        let shown = latency.cumulative(bounds);
        let counts = shown.buckets.iter().map(|(_, count)| *count);
        assert!(counts.clone().is_sorted(), "{:?}", shown.buckets);
        assert!(counts.max().unwrap_or(0) <= shown.count);
        assert!(shown.buckets.is_sorted_by_key(|(bound, _)| *bound));
    }
    let quantiles = [0.0, 0.5, 0.99, 1.0].map(|quantile| latency.quantile_ns(quantile));
    assert!(quantiles.is_sorted(), "{quantiles:?}");
    assert_eq!(quantiles.map(|ns| ns.is_some()), [latency.count() > 0; 4]);
}

/// Durations of all intervals of one series.
fn count(log: &[u8], series: &str) -> u64 {
    let mut sum = 0;
    for entry in IntervalLogIterator::new(log) {
        let LogEntry::Interval(interval) = entry.expect("a sound line") else { continue };
        if interval.tag().is_some_and(|tag| tag.as_str() == series) {
            let encoded = BASE64_STANDARD.decode(interval.encoded_histogram()).expect("base64");
            let histogram: Histogram<u64> =
                Deserializer::new().deserialize(&mut encoded.as_slice()).expect("a histogram");
            sum += histogram.len();
        }
    }
    sum
}

/// Counts that grow, that go back, that are all there can be, and those of probes that have more buckets.
pub fn seeds() -> Vec<Seed> {
    let reading_of = |kind: u8, buckets: &[(u16, u64)], sum: u64| {
        let mut bytes = vec![kind, u8::try_from(buckets.len()).expect("few")];
        for (place, count) in buckets {
            bytes.extend(place.to_le_bytes());
            bytes.extend(count.to_le_bytes());
        }
        bytes.extend(sum.to_le_bytes());
        bytes
    };
    let reading = |buckets: &[(u16, u64)], sum| reading_of(0, buckets, sum);
    let growing =
        [reading(&[(40, 5), (64, 1)], 9_000), reading(&[(40, 9), (64, 1), (200, 2)], 90_000)];
    let back = [reading(&[(40, 5)], 9_000), reading(&[(40, 2)], 900), reading(&[(40, 7)], 950)];
    let most = [reading(&[(271, u64::MAX >> 8), (0, 1 << 40)], u64::MAX), reading(&[], 0)];
    let one = [1_u64, 300, 1 << 41, u64::MAX].map(|ns| {
        let mut bytes = vec![1];
        bytes.extend(ns.to_le_bytes());
        bytes
    });
    vec![
        Seed::new("growing", growing.concat()),
        Seed::new("going-back", back.concat()),
        Seed::new("most", most.concat()),
        Seed::new("more-buckets", reading_of(2, &[(271, 5), (272, 5), (768, 5)], 10_000)),
        Seed::new("one-by-one", one.concat()),
    ]
}
