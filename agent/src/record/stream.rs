// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writing one file of a recording: inputs in, blocks out.

use super::{
    block::{FULL_BYTES, HEAD_BYTES, Head},
    header::Header,
    input::{Encoder, at_ns},
};
use crate::feed::Input;
use std::io::{self, Write};

/// How far key blocks are apart, in nanoseconds: what a reader that lost a block waits for sums at most.
const KEY_NS: u64 = 30_000_000_000;

/// One file of a recording, on its way to `out`. Nothing is written by itself: see [`Stream::flush`].
#[derive(Debug)]
pub struct Stream<W> {
    out: W,
    written_bytes: u64,
    encoder: Encoder,
    payload: Vec<u8>,
    /// The block under way.
    number: u32,
    base_ns: u64,
    key: bool,
    /// The latest moment of all inputs.
    latest_ns: u64,
    /// When the last key block began; `None` when the next block has to be one.
    key_ns: Option<u64>,
    dropped: u64,
}

impl<W: Write> Stream<W> {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// What `out` refuses with.
    pub fn new(mut out: W, header: &Header) -> io::Result<Self> {
        let head = header.write();
        out.write_all(&head)?;
        Ok(Self {
            out,
            written_bytes: head.len() as u64,
            encoder: Encoder::default(),
            payload: Vec::new(),
            number: 0,
            base_ns: 0,
            key: true,
            latest_ns: header.created_monotonic_ns,
            key_ns: None,
            dropped: 0,
        })
    }

    /// Takes in one input; writes the block when it is full. An input that has more of something than a recording may have is
    /// left out, and the file says that something was lost.
    ///
    /// # Errors
    ///
    /// What `out` refuses with. Then the file ends behind the last block that was written whole.
    pub fn push(&mut self, input: &Input) -> io::Result<()> {
        if self.payload.is_empty() {
            self.begin();
        }
        self.latest_ns = self.latest_ns.max(at_ns(input).unwrap_or(0));
        if self.encoder.put(&mut self.payload, input).is_err() {
            self.dropped = self.dropped.saturating_add(1);
            self.key_ns = None;
            let lost = Input::Lost(self.latest_ns);
            self.encoder
                .put(&mut self.payload, &lost)
                .expect("a moment has nothing to have too much of");
            return self.flush();
        }
        if self.payload.len() >= FULL_BYTES { self.flush() } else { Ok(()) }
    }

    fn begin(&mut self) {
        self.base_ns = self.latest_ns;
        let old = self.key_ns.is_none_or(|key_ns| self.base_ns.saturating_sub(key_ns) >= KEY_NS);
        self.key = old;
        if old {
            self.key_ns = Some(self.base_ns);
        }
        self.encoder.begin(self.base_ns, self.key);
    }

    /// Writes the block under way, if there is something in it.
    ///
    /// # Errors
    ///
    /// What `out` refuses with.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.payload.is_empty() {
            return Ok(());
        }
        self.write(false)?;
        self.payload.clear();
        Ok(())
    }

    /// Writes what is left and the end block, and gives `out` back.
    ///
    /// # Errors
    ///
    /// What `out` refuses with.
    pub fn finish(mut self) -> io::Result<W> {
        self.end()?;
        Ok(self.out)
    }

    /// Writes what is left and the end block.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.flush()?;
        (self.base_ns, self.key) = (self.latest_ns, false);
        self.write(true)?;
        self.out.flush()
    }

    fn write(&mut self, end: bool) -> io::Result<()> {
        let head = Head {
            key: self.key,
            end,
            number: self.number,
            length: u32::try_from(self.payload.len()).expect("a block is full long before"),
            base_ns: self.base_ns,
            crc: crc32fast::hash(&self.payload),
        };
        // One call, so that a block is in the file whole or, when the disk is full, not at all.
        let mut block = Vec::with_capacity(HEAD_BYTES + self.payload.len());
        block.extend_from_slice(&head.write());
        block.extend_from_slice(&self.payload);
        self.out.write_all(&block)?;
        self.written_bytes = self.written_bytes.saturating_add(block.len() as u64);
        self.number = self.number.wrapping_add(1);
        Ok(())
    }

    /// Bytes that were written, of header and whole blocks.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// What the file will have when it is ended now, in bytes.
    pub(super) fn ended_bytes(&self) -> u64 {
        let payload = match self.payload.len() {
            0 => 0,
            length => length + HEAD_BYTES,
        };
        self.written_bytes.saturating_add((payload + HEAD_BYTES) as u64)
    }

    /// Inputs that were left out because they have more of something than a recording may have.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether there is something that [`Stream::flush`] would write.
    pub(super) fn is_pending(&self) -> bool {
        !self.payload.is_empty()
    }

    pub(super) fn out(&self) -> &W {
        &self.out
    }
}
