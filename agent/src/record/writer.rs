// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Recording beside an observer: the tap takes, a thread writes.
//!
//! ```text
//!   observer ──take──▶ Writer ──batches──▶ queue, bounded ──▶ thread ──▶ files
//!                         └── no room: count, and say so with an Input::Lost
//! ```
//!
//! The observer waits for its tap, and the probes' ring for the observer; so the tap never waits for a disk. What finds no room in the
//! queue is dropped and counted, and the recording says when.

use super::{
    error::RecordError,
    files::{Files, Options},
    holding::Holding,
    input::at_ns,
};
use crate::{
    event::Event,
    feed::{Input, Tap},
    probes::Standing,
};
use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tracing::error;

/// Events that travel together: a flood of them comes by the thousand, and each message wakes a thread.
const BATCH: usize = 256;
/// Batches that wait at most: the sums of a minute, or 65,536 events.
const QUEUE: usize = 256;
/// How long something waits for its block to be written, at most.
const FLUSH: Duration = Duration::from_secs(1);

enum Message {
    Inputs(Vec<Input>),
    Stop,
}

/// The tap of a recording.
pub(super) struct Writer {
    queue: SyncSender<Message>,
    batch: Vec<Input>,
    /// The latest moment of all inputs.
    latest_ns: u64,
    /// Something was dropped, and the recording does not say so yet.
    lossy: bool,
    /// The probes' standing that was among it: what is counted at all must not be guessed.
    standing: Option<Standing>,
    dropped: Arc<AtomicU64>,
}

/// A recording that is under way.
pub(super) struct Recording {
    queue: SyncSender<Message>,
    thread: JoinHandle<Result<Summary, RecordError>>,
    dropped: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

/// What became of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The file that was written last.
    pub path: PathBuf,
    /// Bytes of all files, those that are no longer kept included.
    pub written_bytes: u64,
    /// How often it was rotated.
    pub rotated: u64,
    /// Inputs that are in no file: the disk was too slow, or they were too long.
    pub dropped: u64,
    /// Whether it ended because its file was full.
    pub full: bool,
}

/// Begins a recording: the tap for an observer, and what it is ended with.
///
/// # Errors
///
/// [`RecordError`], when the file cannot be made.
pub(super) fn start(options: Options) -> Result<(Writer, Recording), RecordError> {
    let files = Files::open(options.clone())?;
    let (queue, messages) = sync_channel(QUEUE);
    let over = Arc::new(AtomicBool::new(false));
    let dropped = Arc::new(AtomicU64::new(0));
    let ended = Arc::clone(&over);
    let thread = thread::Builder::new()
        .name("record".into())
        .spawn(move || {
            let done = write(files, &messages, options.path);
            if let Err(error) = &done {
                error!(error = error as &dyn std::error::Error, "the recording has ended");
            }
            ended.store(true, Ordering::Release);
            done
        })
        .map_err(RecordError::Thread)?;
    let writer = Writer {
        queue: queue.clone(),
        batch: Vec::new(),
        latest_ns: 0,
        lossy: false,
        standing: None,
        dropped: Arc::clone(&dropped),
    };
    Ok((writer, Recording { queue, thread, dropped, over }))
}

impl Tap for Writer {
    fn take(&mut self, input: &Input) {
        self.latest_ns = self.latest_ns.max(at_ns(input).unwrap_or(0));
        self.batch.push(input.clone());
        // Whatever is no event ends a reading of the ring, or comes by the clock.
        if !matches!(input, Input::Event(_)) || self.batch.len() >= BATCH {
            self.send();
        }
    }
}

impl Writer {
    fn send(&mut self) {
        let inputs = std::mem::take(&mut self.batch);
        let count = inputs.len() as u64;
        let standing = inputs.iter().rev().find_map(|input| match input {
            Input::Probes(standing) => Some(standing.clone()),
            _ => None,
        });
        let batch = if self.lossy {
            // Everything that was dropped is older than what is sent now.
            let told = std::iter::once(Input::Lost(self.latest_ns));
            told.chain(self.standing.clone().map(Input::Probes)).chain(inputs).collect()
        } else {
            inputs
        };
        match self.queue.try_send(Message::Inputs(batch)) {
            Ok(()) => (self.lossy, self.standing) = (false, None),
            Err(TrySendError::Full(_)) => {
                self.lossy = true;
                self.standing = standing.or(self.standing.take());
                self.dropped.fetch_add(count, Ordering::Relaxed);
            }
            // The thread has said why it ended.
            Err(TrySendError::Disconnected(_)) => {}
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.lossy || !self.batch.is_empty() {
            self.send();
        }
    }
}

impl Recording {
    /// Whether it has ended by itself: the file is full, or could not be written.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Ends the recording: what was taken is written. Drop the [`Writer`] first, what it takes after this is not written.
    ///
    /// # Errors
    ///
    /// [`RecordError`], with which the writing ended.
    pub(super) fn finish(self) -> Result<Summary, RecordError> {
        // An error means that the thread has ended already.
        let _ = self.queue.send(Message::Stop);
        let ended = self.thread.join().unwrap_or_else(|_panic| {
            Err(RecordError::Thread(io::Error::other("it panicked; its last words are in the log")))
        });
        let mut summary = ended?;
        summary.dropped = summary.dropped.saturating_add(self.dropped.load(Ordering::Relaxed));
        Ok(summary)
    }
}

/// The thread.
fn write(
    mut files: Files,
    messages: &Receiver<Message>,
    path: PathBuf,
) -> Result<Summary, RecordError> {
    let mut holding = Holding::default();
    let mut flush_at = Instant::now();
    let mut full = false;
    while !full {
        let wait = if files.is_pending() {
            flush_at.saturating_duration_since(Instant::now())
        } else {
            Duration::MAX
        };
        match messages.recv_timeout(wait) {
            Ok(Message::Inputs(inputs)) => {
                if !files.is_pending() {
                    flush_at = Instant::now() + FLUSH;
                }
                full = !take(&mut files, &mut holding, &inputs)?;
            }
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if Instant::now() >= flush_at {
            files.flush()?;
        }
    }
    files.finish()?;
    Ok(Summary {
        path,
        written_bytes: files.written_bytes(),
        rotated: files.part(),
        dropped: files.dropped(),
        full,
    })
}

/// Writes a batch. Tells whether there is room for more.
fn take(files: &mut Files, holding: &mut Holding, inputs: &[Input]) -> Result<bool, RecordError> {
    let mut changed = false;
    for input in inputs {
        if !files.push(input, holding)? {
            return Ok(false);
        }
        holding.take(input);
        changed |= matches!(input, Input::Event(Event::State(_)));
    }
    // Each of them may be the end of a session.
    if changed {
        files.flush()?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_key::DeviceKey;
    use crate::{
        event::Violation,
        host::Paths,
        record::{Existing, open},
        state::State,
    };
    use migscope_abi::rule::Rule;

    fn violation(at_ns: u64) -> Input {
        let (device, rule, state) = (DeviceKey(8), Rule::ReadOnly, State::Running);
        Input::Event(Event::Violation(Violation {
            device,
            at_ns,
            rule,
            state,
            field: None,
            value: 0,
        }))
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told_before_what_comes_next() {
        let (queue, messages) = sync_channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&dropped);
        let (batch, standing) = (Vec::new(), None);
        let mut writer = Writer { queue, batch, latest_ns: 0, lossy: false, standing, dropped };
        let received = || match messages.try_recv() {
            Ok(Message::Inputs(inputs)) => {
                inputs.iter().map(|input| format!("{input:?}")).collect()
            }
            _ => Vec::new(),
        };
        writer.take(&Input::Settled(1));
        writer.take(&violation(2));
        writer.take(&Input::Settled(3));
        writer.take(&Input::Probes(Standing::new()));
        writer.take(&Input::Settled(4));
        assert_eq!(count.load(Ordering::Relaxed), 4);
        assert_eq!(received(), ["Settled(1)"]);
        writer.take(&Input::Settled(5));
        // Which probes there are holds on, so that is not lost.
        assert_eq!(received(), ["Lost(5)", "Probes({})", "Settled(5)"]);
        writer.take(&Input::Settled(6));
        writer.take(&Input::Settled(7));
        assert_eq!((count.load(Ordering::Relaxed), received()), (5, vec!["Settled(6)".to_owned()]));
        // The last that was dropped is told too, when the writer goes.
        drop(writer);
        assert_eq!(received(), ["Lost(7)"]);
    }

    #[test]
    fn a_flood_of_events_is_in_the_file_to_the_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.migscope");
        let options = Options {
            path: path.clone(),
            max_bytes: 100 << 20,
            older: 0,
            existing: Existing::Refuse,
            paths: Paths::default(),
        };
        let (mut writer, recording) = start(options).expect("started");
        // As many as there is room for in the queue, however slow the thread.
        let events = (BATCH * (QUEUE - 1)) as u64 + 7;
        for at_ns in 0..events {
            writer.take(&violation(at_ns));
        }
        drop(writer);
        let summary = recording.finish().expect("written");
        assert_eq!((summary.dropped, summary.rotated, summary.full), (0, 0, false));
        let inputs = open(&path).expect("a recording").map(|input| input.expect("all is well"));
        assert_eq!(inputs.count() as u64, events);
        let length = std::fs::metadata(&path).expect("there").len();
        assert_eq!(length, summary.written_bytes);
        assert!(length < events * 10, "{length}");
    }
}
