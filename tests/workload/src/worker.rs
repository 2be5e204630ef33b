// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A thread that drives the device as a guest's processor would, until it is paused.
//!
//! Like a virtual processor the worker can be paused while a transfer is under way: [`Finished::in_flight`] then says which. A
//! device that is stopped after that finishes the transfer first, so it belongs to what migrates.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::edu::{Edu, Registers};
use crate::model::Model;
use crate::plan::{Operation, Plan};

/// How long the worker sleeps between two looks at the device.
const POLL: Duration = Duration::from_millis(2);
/// How long a transfer may take; the device takes a tenth of a second, an emulated machine under load more.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why the worker ended before it was paused.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A register access failed, or the device did not finish.
    #[error("the workload could not drive the device ({operation:?})")]
    Device {
        /// What it was doing.
        operation: Operation,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// A bug in this crate.
    #[error("the workload's thread panicked")]
    Panicked,
}

/// What the device was seen to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Finished transfers from memory to the buffer.
    pub loads: u64,
    /// Finished transfers from the buffer to memory.
    pub stores: u64,
    /// Bytes that the finished stores wrote.
    pub stored_bytes: u64,
}

impl Counts {
    fn add(&mut self, operation: Operation) {
        match operation {
            Operation::Load { .. } => self.loads += 1,
            Operation::Store { bytes, .. } => {
                self.stores += 1;
                self.stored_bytes += u64::from(bytes);
            }
        }
    }
}

/// What a paused worker leaves.
#[derive(Debug)]
pub struct Finished {
    /// Memory and buffer after all operations that were seen to be over.
    pub model: Model,
    /// What was done.
    pub counts: Counts,
    /// The operation whose command was given and whose end was not seen, and when it was given.
    pub in_flight: Option<(Operation, Instant)>,
    /// What the device would do next.
    pub plan: Plan,
}

impl Finished {
    /// The device is at rest: what was in flight is over too.
    pub fn settle(&mut self) {
        if let Some((operation, started)) = self.in_flight.take() {
            self.model.apply(operation, started);
            self.counts.add(operation);
        }
    }
}

/// The running thread.
#[derive(Debug)]
pub struct Worker {
    paused: Arc<AtomicBool>,
    thread: JoinHandle<Result<Finished, WorkerError>>,
}

impl Worker {
    /// Starts to drive the device; its buffer and memory must be what `model` says.
    pub fn spawn<R: Registers + Send + 'static>(edu: Edu<R>, plan: Plan, model: Model) -> Self {
        let paused = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let paused = Arc::clone(&paused);
            move || drive(&edu, plan, model, &paused)
        });
        Self { paused, thread }
    }

    /// Pauses at the next look at the device.
    ///
    /// # Errors
    ///
    /// [`WorkerError`] when the device failed the worker before.
    pub fn pause(self) -> Result<Finished, WorkerError> {
        self.paused.store(true, Ordering::Release);
        self.thread.join().unwrap_or(Err(WorkerError::Panicked))
    }
}

fn drive<R: Registers>(
    edu: &Edu<R>,
    mut plan: Plan,
    mut model: Model,
    paused: &AtomicBool,
) -> Result<Finished, WorkerError> {
    let interval = plan.spec().interval();
    let mut counts = Counts::default();
    let mut in_flight = None;
    let is_paused = || paused.load(Ordering::Acquire);
    while !is_paused() {
        let operation = plan.step();
        let failed = |source| WorkerError::Device { operation, source };
        let started = Instant::now();
        edu.start(operation.transfer()).map_err(failed)?;
        in_flight = Some((operation, started));
        while !is_paused() {
            if !edu.is_transferring().map_err(failed)? {
                model.apply(operation, started);
                counts.add(operation);
                in_flight = None;
                break;
            }
            if started.elapsed() > PATIENCE {
                let text = format!("not over after {} s", PATIENCE.as_secs());
                return Err(failed(io::Error::new(io::ErrorKind::TimedOut, text)));
            }
            std::thread::sleep(POLL);
        }
        while started.elapsed() < interval && !is_paused() {
            std::thread::sleep(POLL);
        }
    }
    Ok(Finished { model, counts, in_flight, plan })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edu::{CMD_RUN, DMA_CMD};
    use crate::plan::Spec;

    /// A device whose transfers are over at the second look, or never.
    struct Slow(std::sync::Mutex<u32>, bool);

    impl Registers for Slow {
        fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
            assert_eq!(offset, DMA_CMD);
            let mut looks = self.0.lock().unwrap();
            *looks += 1;
            let run = if self.1 && looks.is_multiple_of(2) { 0 } else { CMD_RUN };
            bytes.copy_from_slice(&run.to_le_bytes());
            Ok(())
        }

        fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
    }

    fn worker(finishes: bool) -> Worker {
        let plan = Plan::new(Spec::default(), 0, 16).unwrap();
        Worker::spawn(Edu::new(Slow(0.into(), finishes)), plan, Model::new(1, 0, 16))
    }

    #[test]
    fn a_transfer_that_was_not_seen_to_end_is_in_flight_until_settled() {
        let worker = worker(false);
        std::thread::sleep(Duration::from_millis(20));
        let mut finished = worker.pause().unwrap();
        assert_eq!(finished.counts, Counts::default());
        assert!(finished.in_flight.is_some());
        finished.settle();
        assert_eq!(finished.counts.loads + finished.counts.stores, 1);
        assert!(finished.in_flight.is_none());
    }

    #[test]
    fn finished_transfers_are_counted_and_modelled() {
        let worker = worker(true);
        std::thread::sleep(Duration::from_millis(100));
        let finished = worker.pause().unwrap();
        assert!(finished.counts.loads > 0 && finished.counts.stores > 0);
        assert!(finished.model.dirtied().next().is_some());
    }
}
