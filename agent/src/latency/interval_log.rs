// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The latencies in HdrHistogram's interval log, for its own tools (HistogramLogProcessor, HistogramLogAnalyzer, hdr-plot).
//!
//! ```text
//! #[Histogram log format version 1.3]
//! #[StartTime: 1700000000.000 (seconds since epoch)]
//! "StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"
//! Tag=vfio_migration_downtime:total,60.000,60.000,10027007.000,HISTFAAAA…
//! ```
//!
//! One line for each series in which something came in the interval: what came *in it*, so the lines of a series can be added up.
//! Timestamps are seconds since StartTime, values nanoseconds. The tag is the family's name without `_seconds`, then the values
//! of its labels.
//!
//! A file has a bound. When the next interval would not fit, it becomes `FILE.1`, in place of an older one, and a new one begins;
//! the log of an earlier run does the same at the start.

use super::Latency;
use hdrhistogram::serialization::{
    V2DeflateSerializeError, V2DeflateSerializer,
    interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError, Tag},
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// A file becomes no larger than this, in bytes; with the one before it, twice that. A minute of a migration takes some kB.
pub const LIMIT_BYTES: u64 = 16 << 20;

/// The line that names the columns, as the tools write it.
const COLUMNS: &str =
    "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Time of day.
    pub wall: SystemTime,
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub monotonic_ns: u64,
}

/// Why an interval could not be written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It is a folder, a pipe or a device: it could not be rotated.
    #[error("the latency log {0} is not an ordinary file")]
    NotAFile(PathBuf),
    /// It could not be made.
    #[error("failed to create the latency log {0}")]
    Create(PathBuf, #[source] io::Error),
    /// The one before could not be put aside.
    #[error("failed to rename the latency log {0}")]
    Rotate(PathBuf, #[source] io::Error),
    /// The disk is full, or gone.
    #[error("failed to write to the latency log {0}")]
    Write(PathBuf, #[source] io::Error),
    /// A histogram that cannot be compressed.
    #[error("failed to encode a histogram")]
    Encode(#[source] IntervalLogWriterError<V2DeflateSerializeError>),
}

/// The log, and what it has told already.
pub struct IntervalLog {
    path: PathBuf,
    limit_bytes: u64,
    file: File,
    bytes: u64,
    /// StartTime of the file.
    start: Moment,
    /// When the interval under way began, in nanoseconds of `CLOCK_MONOTONIC`.
    interval_ns: u64,
    serializer: V2DeflateSerializer,
    /// Each series as it was at the end of the last interval that was written.
    told: BTreeMap<String, Latency>,
}

impl IntervalLog {
    /// Begins the log at `path`, with an interval that begins `now`. No file becomes larger than `limit_bytes`, unless a single
    /// interval is.
    ///
    /// # Errors
    ///
    /// [`LogError`]: the file cannot be made, or one that is there cannot be put aside.
    pub fn begin(path: &Path, limit_bytes: u64, now: Moment) -> Result<Self, LogError> {
        let (file, bytes) = begin_file(path, now)?;
        Ok(Self {
            path: path.to_owned(),
            limit_bytes,
            file,
            bytes,
            start: now,
            interval_ns: now.monotonic_ns,
            serializer: V2DeflateSerializer::new(),
            told: BTreeMap::new(),
        })
    }

    /// Ends the interval under way: writes what came in it, and begins the next. `series` are all distributions as they stand.
    ///
    /// # Errors
    ///
    /// [`LogError`]; then the interval goes on, and what came in it is written with the next.
    pub fn end_interval(
        &mut self,
        series: impl IntoIterator<Item = (String, Latency)>,
        now: Moment,
    ) -> Result<(), LogError> {
        let series: BTreeMap<_, _> = series.into_iter().collect();
        let mut lines = self.encode(&series, now)?;
        let length = |lines: &[u8]| u64::try_from(lines.len()).unwrap_or(u64::MAX);
        let header_only = self.interval_ns == self.start.monotonic_ns;
        if !header_only && self.bytes.saturating_add(length(&lines)) > self.limit_bytes {
            let past = Duration::from_nanos(now.monotonic_ns.saturating_sub(self.interval_ns));
            let start = Moment {
                wall: now.wall.checked_sub(past).unwrap_or(SystemTime::UNIX_EPOCH),
                monotonic_ns: self.interval_ns,
            };
            (self.file, self.bytes) = begin_file(&self.path, start)?;
            self.start = start;
            lines = self.encode(&series, now)?; // its timestamps count from another start
        }
        if let Err(error) = self.file.write_all(&lines) {
            self.take_back();
            return Err(LogError::Write(self.path.clone(), error));
        }
        self.bytes = self.bytes.saturating_add(length(&lines));
        self.told = series;
        self.interval_ns = now.monotonic_ns;
        Ok(())
    }

    /// Cuts off what was written in part: half a line would make the rest unreadable. If that fails too, the disk has other troubles.
    fn take_back(&mut self) {
        let _ = self.file.set_len(self.bytes);
    }

    /// The lines of the interval that ends `now`.
    fn encode(
        &mut self,
        series: &BTreeMap<String, Latency>,
        now: Moment,
    ) -> Result<Vec<u8>, LogError> {
        let mut lines = Vec::new();
        let mut writer = IntervalLogWriterBuilder::new()
            .begin_log_with(&mut lines, &mut self.serializer)
            .map_err(|error| LogError::Encode(error.into()))?;
        let between = |from: u64, to: u64| Duration::from_nanos(to.saturating_sub(from));
        let begins = between(self.start.monotonic_ns, self.interval_ns);
        let length = between(self.interval_ns, now.monotonic_ns);
        for (tag, latency) in series {
            let new = self.told.get(tag).and_then(|told| latency.since(told));
            let new = &new.as_ref().unwrap_or(latency).histogram;
            if !new.is_empty() {
                writer
                    .write_histogram(new, begins, length, Tag::new(tag))
                    .map_err(LogError::Encode)?;
            }
        }
        Ok(lines)
    }
}

/// The tag of a series: the family's name without `_seconds`, for the log counts nanoseconds, and the values of its labels.
pub fn tag(family: &str, labels: &[String]) -> String {
    let mut tag = family.strip_suffix("_seconds").unwrap_or(family).to_owned();
    for label in labels {
        tag.push(':');
        tag.push_str(label);
    }
    // What a tag may not hold. Labels of histograms are names of ours and hold none of it.
    tag.replace([',', ' ', '\r', '\n'], "_")
}

/// Puts a file that is there aside and begins a new one; gives it with its length.
fn begin_file(path: &Path, start: Moment) -> Result<(File, u64), LogError> {
    match fs::metadata(path) {
        Ok(there) if !there.is_file() => return Err(LogError::NotAFile(path.to_owned())),
        Ok(there) if there.len() > 0 => {
            let mut aside = OsString::from(path);
            aside.push(".1");
            fs::rename(path, aside).map_err(|error| LogError::Rotate(path.to_owned(), error))?;
        }
        // Empty, or not there. Another reason for which it cannot be looked at is told when it is made.
        Ok(_) | Err(_) => {}
    }
    // To be appended to: what is written after a part was cut off stands where that part stood.
    let mut file = File::options()
        .append(true)
        .create(true)
        .open(path)
        .map_err(|error| LogError::Create(path.to_owned(), error))?;
    let mut header = Vec::new();
    IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment("[Latencies of migscope, in nanoseconds]")
        .with_start_time(start.wall)
        .begin_log_with(&mut header, &mut V2DeflateSerializer::new())
        .map_err(|error| LogError::Encode(error.into()))?;
    header.extend_from_slice(COLUMNS.as_bytes());
    file.write_all(&header).map_err(|error| LogError::Write(path.to_owned(), error))?;
    Ok((file, u64::try_from(header.len()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests;
