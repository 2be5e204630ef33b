// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The ring: records of what is rare and exact.
#![expect(
    unsafe_code,
    reason = "tokio asks for a promise about the file descriptor that it waits for"
)]

use super::maps::{MapError, take};
use crate::event::{self, BadRecord, Event};
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use std::{
    io,
    os::fd::{AsRawFd, RawFd},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Records taken at once; the rest waits in the ring, where its room is bounded.
pub const BATCH: usize = 1024;

/// Reads the ring. Its file descriptor is readable while there are records.
pub struct Reader {
    ring: RingBuf<MapData>,
}

/// What one reading of the ring gave.
#[derive(Debug, Default)]
pub struct Batch {
    /// The records, in the order in which the probes made them.
    pub events: Vec<Event>,
    /// Records that could not be understood.
    pub bad: Vec<BadRecord>,
    /// Whether the ring was read to its end.
    pub emptied: bool,
}

impl Batch {
    /// Takes in the bytes of one record.
    pub fn take(&mut self, record: &[u8]) {
        match event::parse(record) {
            Ok(event) => self.events.push(event),
            Err(bad) => self.bad.push(bad),
        }
    }
}

impl Reader {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, MapError> {
        Ok(Self { ring: take(ebpf, "EVENTS")? })
    }

    /// The same reader, to be waited for.
    ///
    /// # Errors
    ///
    /// The reactor's refusal.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn into_async(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: `as_raw_fd` gives the descriptor of the map that `ring` owns: open, and the same one until the reader is
        // dropped, since nothing in this module replaces `ring` and nothing outside can. `AsyncFd` drops its registration first.
        unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }.map_err(Into::into)
    }

    /// Takes what is there, at most a thousand records at a time.
    pub fn drain(&mut self) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..BATCH {
            let Some(record) = self.ring.next() else {
                batch.emptied = true;
                break;
            };
            batch.take(&record);
        }
        batch
    }
}

impl AsRawFd for Reader {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}
