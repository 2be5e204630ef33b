// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--latency.log`: what the agent knew of latencies when it stopped is in the file, for HdrHistogram's own reader.

use base64::Engine as _;
use hdrhistogram::{
    Histogram,
    serialization::{
        Deserializer,
        interval_log::{IntervalLogIterator, LogEntry},
    },
};
use migscope::{latency::schedule::Logger, metrics::Metrics};
use prometheus::Registry;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// Tags and histograms of a log, and how many times a start is told.
fn read(path: &Path) -> (usize, Vec<(String, Histogram<u64>)>) {
    let log = fs::read(path).expect("a log");
    let (mut starts, mut lines) = (0, Vec::new());
    for entry in IntervalLogIterator::new(&log) {
        match entry.expect("a sound line") {
            LogEntry::StartTime(_) => starts += 1,
            LogEntry::BaseTime(_) => panic!("no base time is written"),
            LogEntry::Interval(interval) => {
                let encoded = base64::engine::general_purpose::STANDARD
                    .decode(interval.encoded_histogram())
                    .expect("base64");
                let histogram = Deserializer::new().deserialize(&mut encoded.as_slice());
                let tag = interval.tag().expect("a tag").to_string();
                lines.push((tag, histogram.expect("a histogram")));
            }
        }
    }
    (starts, lines)
}

#[test]
fn every_histogram_of_the_metrics_is_logged_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("latency.hlog");
    let metrics = Arc::new(Metrics::new(Registry::new()));
    let mut logger = Logger::begin(&path, Arc::clone(&metrics)).expect("begun");
    for ns in [1_000_000, 2_000_000] {
        metrics.session.downtime_part("total", ns, 1);
    }
    metrics.session.downtime_part("load", 7, 2);
    logger.end_interval();
    metrics.session.downtime_part("total", 3_000_000, 3);
    logger.end_interval();
    let (starts, lines) = read(&path);
    let told: Vec<_> = lines.iter().map(|(tag, it)| (tag.as_str(), it.len(), it.max())).collect();
    let [load, total] = ["vfio_migration_downtime:load", "vfio_migration_downtime:total"];
    let upper = |ns| lines[1].1.highest_equivalent(ns);
    let wanted = [(load, 1, 7), (total, 2, upper(2_000_000)), (total, 1, upper(3_000_000))];
    assert_eq!((starts, told), (1, wanted.into()));
}

#[test]
fn intervals_end_by_the_clock_and_the_logger_comes_back_when_it_is_told_to_stop() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("latency.hlog");
    let metrics = Arc::new(Metrics::new(Registry::new()));
    let logger = Logger::begin(&path, Arc::clone(&metrics)).expect("begun");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(async {
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(logger.run(Duration::from_millis(1), stopped));
        metrics.session.downtime_part("stop", 1, 1);
        while read(&path).1.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stop.send_replace(true);
        let mut logger = running.await.expect("no panic").expect("no failure");
        metrics.session.downtime_part("stop", 1, 2);
        logger.end_interval();
    });
    let counts: Vec<_> = read(&path).1.iter().map(|(_, histogram)| histogram.len()).collect();
    assert_eq!(counts, [1, 1]);
}

#[test]
fn the_agent_begins_a_log_and_says_so_if_it_cannot() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("latency.hlog");
    let agent = |log: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_migscope"));
        command.args(["agent", "--web.listen-address", "127.0.0.1:0", "--latency.log"]);
        command.arg(log).args(["--latency.log-interval", "1h"]).stderr(Stdio::piped());
        command
    };
    let mut child = agent(&path).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let listens = lines.any(|line| line.expect("text").contains("listening"));
    assert!(listens, "it ended before it listened");
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process");
    kill_process(pid, Signal::TERM).expect("it runs");
    assert!(child.wait().expect("it ends").success());
    assert_eq!(read(&path).0, 1);

    let output = agent(folder.path()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("not an ordinary file") && error.contains("--latency.log"), "{error}");
}

#[test]
fn a_wrong_interval_is_refused() {
    for (words, why) in [
        (&["--latency.log", "x", "--latency.log-interval", "0s"], "1s or more"),
        (&["--latency.log", "x", "--latency.log-interval", "soon"], "soon"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_migscope"));
        let output = command.arg("agent").args(words).output().expect("it runs");
        assert_eq!(output.status.code(), Some(64), "{words:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(why), "{words:?}: {error}");
    }
}
