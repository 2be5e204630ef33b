// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A thread that writes a device's memory as a guest would, until it is paused, and knows then what the memory holds.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::content::{Content, Write};
use crate::ivshmem::Words;
use crate::pattern::{Step, Strokes};

/// The longest that the writer sleeps without looking whether it is paused.
const NAP: Duration = Duration::from_millis(5);

/// Why the writer ended before it was paused.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// The memory was not to be written.
    #[error("the workload could not write ({write:?})")]
    Memory {
        /// What it was writing.
        write: Write,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// A bug in this crate.
    #[error("the workload's thread panicked")]
    Panicked,
}

/// What a paused writer leaves.
#[derive(Debug)]
pub struct Rest {
    /// What the memory holds, as far as this writer writes it.
    pub content: Content,
    /// How many words were written.
    pub writes: u64,
    /// What would be written next.
    pub strokes: Strokes,
}

/// The running thread; it ends with the value, since what it writes keeps a device open.
#[derive(Debug)]
pub struct Writer {
    paused: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<Rest, WriterError>>>,
}

impl Writer {
    /// Starts to write `memory`, which must hold what `content` says.
    pub fn spawn<W: Words + Send + 'static>(memory: W, strokes: Strokes, content: Content) -> Self {
        let (paused, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (paused, writes) = (Arc::clone(&paused), Arc::clone(&writes));
            move || write(&memory, strokes, content, &paused, &writes)
        });
        Self { paused, writes, thread: Some(thread) }
    }

    /// How many words were written so far.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Pauses between two writes.
    ///
    /// # Errors
    ///
    /// [`WriterError`] when the memory failed the writer before.
    pub fn pause(mut self) -> Result<Rest, WriterError> {
        self.join().unwrap_or(Err(WriterError::Panicked))
    }

    /// Ends the thread, if it was not ended before; `None` also when it panicked.
    fn join(&mut self) -> Option<Result<Rest, WriterError>> {
        self.paused.store(true, Ordering::Release);
        self.thread.take()?.join().ok()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.join());
    }
}

fn write<W: Words>(
    memory: &W,
    mut strokes: Strokes,
    mut content: Content,
    paused: &AtomicBool,
    writes: &AtomicU64,
) -> Result<Rest, WriterError> {
    let interval = Duration::from_secs(1).checked_div(strokes.load().per_second);
    let is_paused = || paused.load(Ordering::Acquire);
    let mut due = Instant::now();
    while !is_paused() {
        match strokes.step() {
            Step::Write(write) => {
                memory.write(write).map_err(|source| WriterError::Memory { write, source })?;
                content.apply(write);
                writes.fetch_add(1, Ordering::Relaxed);
                due += interval.unwrap_or_default();
            }
            Step::Pause(pause) => due = due.max(Instant::now()) + pause,
        }
        while let Some(left) = due.checked_duration_since(Instant::now())
            && !left.is_zero()
            && !is_paused()
        {
            std::thread::sleep(left.min(NAP));
        }
    }
    Ok(Rest { content, writes: writes.load(Ordering::Relaxed), strokes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Ground;
    use crate::mapping::Mapping;
    use crate::pattern::{Load, Pattern};

    fn run(per_second: u32, pattern: Pattern) -> (Arc<Mapping>, Rest) {
        let memory = Arc::new(Mapping::anonymous(64 * 4096).unwrap());
        let load = Load { pattern, range: 3..64, per_second, seed: 8 };
        let content = Content::new(Ground::Fill(0), 64);
        let writer = Writer::spawn(Arc::clone(&memory), Strokes::new(load), content);
        std::thread::sleep(Duration::from_millis(200));
        assert!(writer.writes() > 0);
        (memory, writer.pause().unwrap())
    }

    #[test]
    fn memory_holds_what_the_writer_says() {
        let bursts = Pattern::Bursts { pages: 5, pause: Duration::from_millis(1) };
        for pattern in [Pattern::Uniform, Pattern::Sequential, bursts] {
            let (memory, rest) = run(0, pattern);
            let read = |at, into: &mut [u8]| {
                memory.read(usize::try_from(at).unwrap(), into);
                Ok(())
            };
            assert_eq!(rest.content.difference(read).unwrap(), None);
            assert!(rest.content.written().all(|page| page >= 3));
        }
    }

    #[test]
    fn a_rate_is_kept() {
        let (_, rest) = run(100, Pattern::Uniform);
        assert!((1..60).contains(&rest.writes), "{} writes in a fifth of a second", rest.writes);
    }
}
