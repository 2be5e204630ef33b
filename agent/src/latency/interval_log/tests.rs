// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The log, read by the reader that comes with HdrHistogram.

use super::*;
use crate::latency::CALL;
use base64::Engine as _;
use hdrhistogram::{
    Histogram,
    serialization::{
        Deserializer,
        interval_log::{IntervalLogIterator, LogEntry},
    },
};
use migscope_abi::latency::{BUCKETS, bucket};
use proptest::prelude::*;

const MINUTE_NS: u64 = 60_000_000_000;

fn moment(minutes: u64) -> Moment {
    let monotonic_ns = 5 * MINUTE_NS + minutes * MINUTE_NS;
    let wall = Duration::from_secs(1_700_000_000) + Duration::from_nanos(minutes * MINUTE_NS);
    Moment { wall: SystemTime::UNIX_EPOCH + wall, monotonic_ns }
}

/// One line: its tag, when the interval began since the epoch, its length, and the histogram.
struct Line {
    tag: String,
    begins: Duration,
    length: Duration,
    histogram: Histogram<u64>,
}

fn read(path: &Path) -> Vec<Line> {
    let log = fs::read(path).expect("a log");
    assert!(log.starts_with(b"#[Histogram log format version 1.3]\n"));
    let mut start = None;
    let mut lines = Vec::new();
    for entry in IntervalLogIterator::new(&log) {
        match entry.expect("a sound line") {
            LogEntry::StartTime(time) => start = Some(time),
            LogEntry::BaseTime(_) => panic!("no base time is written"),
            LogEntry::Interval(interval) => {
                let encoded = interval.encoded_histogram();
                let encoded = base64::engine::general_purpose::STANDARD.decode(encoded);
                let encoded = encoded.expect("base64");
                let histogram = Deserializer::new().deserialize(&mut encoded.as_slice());
                lines.push(Line {
                    tag: interval.tag().expect("a tag").to_string(),
                    begins: start.expect("a start") + interval.start_timestamp(),
                    length: interval.duration(),
                    histogram: histogram.expect("a histogram"),
                });
            }
        }
    }
    lines
}

fn begin(limit_bytes: u64) -> (tempfile::TempDir, PathBuf, IntervalLog) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("latency.hlog");
    let log = IntervalLog::begin(&path, limit_bytes, moment(0)).expect("begun");
    (folder, path, log)
}

fn of(durations_ns: &[u64]) -> Latency {
    let mut latency = Latency::default();
    for ns in durations_ns {
        latency.record(*ns);
    }
    latency
}

#[test]
fn an_interval_has_a_line_for_each_series_in_which_something_came() {
    let (_folder, path, mut log) = begin(LIMIT_BYTES);
    let series = |a: &[u64], b: &[u64]| [("a:x".into(), of(a)), ("b".into(), of(b))];
    log.end_interval(series(&[100, 200], &[]), moment(1)).expect("written");
    log.end_interval(series(&[100, 200], &[7]), moment(2)).expect("written");
    log.end_interval(series(&[100, 200], &[7]), moment(3)).expect("written");
    log.end_interval(series(&[100, 200, 100], &[7, 7]), moment(5)).expect("written");
    let lines = read(&path);
    let told = |line: &Line| {
        let begins = line.begins.as_secs() - 1_700_000_000;
        (line.tag.clone(), begins, line.length.as_secs(), line.histogram.len())
    };
    let told: Vec<_> = lines.iter().map(told).collect();
    let wanted = [("a:x", 0, 60, 2), ("b", 60, 60, 1), ("a:x", 180, 120, 1), ("b", 180, 120, 1)];
    let wanted = wanted.map(|(tag, begins, length, count)| (tag.into(), begins, length, count));
    assert_eq!(told, wanted);
    assert_eq!(lines[0].histogram.count_at(100), 1);
    assert_eq!(lines[0].histogram.max(), lines[0].histogram.highest_equivalent(200));
}

#[test]
fn the_log_of_an_earlier_run_is_put_aside() {
    let (folder, path, mut log) = begin(LIMIT_BYTES);
    log.end_interval([("a".into(), of(&[1]))], moment(1)).expect("written");
    drop(log);
    let _log = IntervalLog::begin(&path, LIMIT_BYTES, moment(2)).expect("begun");
    assert_eq!(read(&path).len(), 0);
    assert_eq!(read(&folder.path().join("latency.hlog.1")).len(), 1);
}

#[test]
fn the_log_has_a_bound_and_each_file_is_whole() {
    let limit = 1000;
    let (folder, path, mut log) = begin(limit);
    let mut latency = Latency::default();
    for minute in 1..=50 {
        latency.record(minute * 1000);
        log.end_interval([("a".into(), latency.clone())], moment(minute)).expect("written");
        assert!(fs::metadata(&path).expect("there").len() <= limit);
    }
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .expect("a folder")
        .map(|item| item.expect("an item").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    assert_eq!(names, ["latency.hlog", "latency.hlog.1"]);
    let lines = read(&folder.path().join("latency.hlog.1")).into_iter().chain(read(&path));
    let begins: Vec<_> = lines.map(|line| line.begins.as_secs() - 1_700_000_000).collect();
    assert_eq!(begins.last(), Some(&(49 * 60)), "timestamps go on in a new file");
    assert!(
        begins.len() > 3 && begins.windows(2).all(|pair| pair[1] == pair[0] + 60),
        "{begins:?}"
    );
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let begun = IntervalLog::begin(folder.path(), LIMIT_BYTES, moment(0));
    assert!(matches!(begun, Err(LogError::NotAFile(_))));
    let begun = IntervalLog::begin(Path::new("/dev/null"), LIMIT_BYTES, moment(0));
    assert!(matches!(begun, Err(LogError::NotAFile(_))));
    let nowhere = folder.path().join("missing/latency.hlog");
    let begun = IntervalLog::begin(&nowhere, LIMIT_BYTES, moment(0));
    assert!(matches!(begun, Err(LogError::Create(..))));
}

#[test]
fn what_could_not_be_written_comes_with_the_next_interval() {
    let (_folder, path, mut log) = begin(LIMIT_BYTES);
    let writable = std::mem::replace(&mut log.file, File::open(&path).expect("for reading"));
    let failed = log.end_interval([("a".into(), of(&[1]))], moment(1));
    assert!(matches!(failed, Err(LogError::Write(..))));
    log.file = writable;
    log.end_interval([("a".into(), of(&[1, 2]))], moment(2)).expect("written");
    let [line] = &read(&path)[..] else { panic!("one line") };
    assert_eq!((line.histogram.len(), line.length.as_secs()), (2, 120));
}

#[test]
fn half_a_line_is_taken_back() {
    let (_folder, path, mut log) = begin(LIMIT_BYTES);
    log.end_interval([("a".into(), of(&[1]))], moment(1)).expect("written");
    log.file.write_all(b"Tag=a,60.000,").expect("written");
    log.take_back();
    log.end_interval([("a".into(), of(&[1, 1, 1]))], moment(2)).expect("written");
    let lengths: Vec<_> = read(&path).iter().map(|line| line.histogram.len()).collect();
    assert_eq!(lengths, [1, 2]);
    assert_eq!(fs::metadata(&path).expect("there").len(), log.bytes);
}

#[test]
fn a_tag_is_the_family_and_its_labels() {
    assert_eq!(tag("x_duration_seconds", &["a".into(), "b".into()]), "x_duration:a:b");
    assert_eq!(tag("x", &["a, b".into()]), "x:a__b");
}

proptest! {
    /// Readings of the probes' buckets, each with more in it than the one before: the lines add up to the last one.
    #[test]
    fn the_lines_of_a_series_add_up_to_all_that_came(
        readings in proptest::collection::vec(
            proptest::collection::vec(0_u64..1 << 36, 0..20), 1..10),
    ) {
        let (_folder, path, mut log) = begin(LIMIT_BYTES);
        let mut buckets = vec![0_u64; BUCKETS];
        let (mut sum_ns, mut latency) = (0_u64, Latency::default());
        for (minute, durations) in (1..).zip(&readings) {
            for ns in durations {
                buckets[usize::try_from(bucket(*ns)).expect("small")] += 1;
                sum_ns += ns;
            }
            latency.fold(&buckets, sum_ns);
            log.end_interval([("a".into(), latency.clone())], moment(minute)).expect("written");
        }
        let mut all = Latency::default();
        let lines = read(&path);
        for line in &lines {
            all.histogram.add(&line.histogram).expect("the same range");
        }
        let filled: Vec<_> = readings.iter().filter(|durations| !durations.is_empty()).collect();
        let lengths: Vec<_> = lines.iter().map(|line| line.histogram.len()).collect();
        let wanted: Vec<_> = filled.iter().map(|durations| durations.len() as u64).collect();
        prop_assert_eq!(lengths, wanted);
        prop_assert_eq!(&all.histogram, &latency.histogram);
        prop_assert_eq!(all.cumulative(CALL).buckets, latency.cumulative(CALL).buckets);
    }
}
