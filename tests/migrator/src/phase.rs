// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The phases of each end, and what an end can fail with.

use std::io;

use workload::WorkerError;

use crate::account;
use crate::clock;
use crate::memory::MemoryError;
use crate::region::RegionError;
use crate::stream::{Frame, StreamError};

/// A step of one end; they run in the order in which they stand here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Source and destination agree on what is coming; the destination's device goes to resuming.
    Hello,
    /// Source: the device runs, is saved, and its memory is sent pass by pass.
    PreCopy,
    /// Destination: memory and device data come in.
    Receive,
    /// Source: the device stops.
    Stop,
    /// Source: the rest of the device data.
    FinalData,
    /// Source: the last dirty report and its pages.
    FinalDirty,
    /// Source: waits until the destination's device runs.
    HandOver,
    /// Destination: the device runs.
    Start,
    /// Source: the device's part is over.
    GiveUp,
    /// Both: nothing was lost.
    Verify,
}

impl Phase {
    /// The name that the account and the log use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::PreCopy => "pre_copy",
            Self::Receive => "receive",
            Self::Stop => "stop",
            Self::FinalData => "final_data",
            Self::FinalDirty => "final_dirty",
            Self::HandOver => "hand_over",
            Self::Start => "start",
            Self::GiveUp => "give_up",
            Self::Verify => "verify",
        }
    }
}

/// A phase that runs: told in the log when it begins, and timed.
#[derive(Debug)]
pub(crate) struct UnderWay {
    phase: Phase,
    at_monotonic_ns: u64,
}

impl UnderWay {
    /// `phase` of the `end` of the migration that `device` is begins.
    pub(crate) fn begin(phase: Phase, end: &str, device: &str) -> Self {
        let at_monotonic_ns = clock::monotonic_ns();
        tracing::info!(device, phase = phase.name(), "{end}: begins");
        Self { phase, at_monotonic_ns }
    }

    /// It has ended, well or not: what the account says of it.
    pub(crate) fn end(self) -> account::Phase {
        let Self { phase, at_monotonic_ns } = self;
        let duration_ns = clock::monotonic_ns().saturating_sub(at_monotonic_ns);
        account::Phase { name: phase.name().to_owned(), at_monotonic_ns, duration_ns }
    }
}

/// What an end failed with.
#[derive(Debug, thiserror::Error)]
pub enum PhaseError {
    /// The device or its driver.
    #[error("the migration region failed")]
    Region(#[from] RegionError),
    /// The other end, or the way to it.
    #[error("the migration stream failed")]
    Stream(#[from] StreamError),
    /// The device's memory.
    #[error("the device's memory could not be reached")]
    Memory(#[from] MemoryError),
    /// The workload.
    #[error("the workload failed")]
    Workload(#[from] WorkerError),
    /// The device's registers or configuration space.
    #[error("could not {doing}")]
    Device {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The ends do not fit together.
    #[error("the source's {what} is {theirs:#x}, this end's is {ours:#x}: give both ends the same")]
    Mismatch {
        /// In what.
        what: &'static str,
        /// The source's.
        theirs: u64,
        /// The destination's.
        ours: u64,
    },
    /// The driver said that the device stands still, and it does not.
    #[error("the device was stopped and still has a DMA transfer under way")]
    NotQuiescent,
}

impl PhaseError {
    /// The other end said something out of order.
    pub(crate) fn unexpected(expected: &'static str, got: &Frame) -> Self {
        Self::Stream(StreamError::Unexpected { expected, got: got.name() })
    }
}

/// A phase that failed.
#[derive(Debug, thiserror::Error)]
#[error("the migration failed in phase {}; {aftermath}", .phase.name())]
pub struct MigrationError {
    /// Which one.
    pub phase: Phase,
    /// What became of the device.
    pub aftermath: &'static str,
    /// Why.
    #[source]
    pub source: PhaseError,
}
