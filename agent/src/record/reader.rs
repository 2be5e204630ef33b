// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reading a recording: blocks in, inputs out.

use super::{
    block::{HEAD_BYTES, Head, MARK},
    bytes::Bytes,
    error::RecordError,
    header::{HEADER_BYTES, Header},
    input::Decoder,
};
use crate::feed::Input;
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Read at a time, in bytes.
const CHUNK_BYTES: u64 = 64 << 10;

/// Opens a recording.
///
/// # Errors
///
/// [`RecordError`]: the file cannot be opened, is no recording, or has no whole header.
pub fn open(path: &Path) -> Result<Reader<File>, RecordError> {
    let file =
        File::open(path).map_err(|source| RecordError::Open { path: path.to_owned(), source })?;
    Reader::new(file)
}

/// The inputs of a recording, in their order. An error is followed by more, except [`RecordError::CutOff`] and
/// [`RecordError::Read`], which are the last.
#[derive(Debug)]
pub struct Reader<R> {
    header: Header,
    source: Source<R>,
    decoder: Decoder,
    payload: Vec<u8>,
    /// How much of the payload was read.
    done: usize,
    /// What comes before the payload's records.
    ahead: VecDeque<Result<Input, RecordError>>,
    /// Number of the block that is expected next.
    number: u32,
    /// Number of the block that is being read.
    block: u32,
    /// The latest moment that was read; `None` before the first block.
    latest_ns: Option<u64>,
    /// Something was lost, and no [`Input::Lost`] has said so yet.
    lost: bool,
    over: bool,
}

impl<R: Read> Reader<R> {
    /// Reads a recording from its first byte on.
    ///
    /// # Errors
    ///
    /// [`RecordError`]: no recording, or no whole header.
    pub fn new(inner: R) -> Result<Self, RecordError> {
        let mut source = Source { inner, held: Vec::new(), start: 0, at: 0, drained: false };
        let begin = source.fill(HEADER_BYTES).map_err(RecordError::Read)?;
        let (header, length) = Header::read(begin)?;
        source.pass(length);
        Ok(Self {
            header,
            source,
            decoder: Decoder::default(),
            payload: Vec::new(),
            done: 0,
            ahead: VecDeque::new(),
            number: 0,
            block: 0,
            latest_ns: None,
            lost: false,
            over: false,
        })
    }

    /// Where and when it was made.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next record of the block that is being read, if there is one.
    fn record(&mut self) -> Option<Result<Input, RecordError>> {
        loop {
            let mut rest = Bytes(self.payload.get(self.done..).unwrap_or_default());
            if rest.is_empty() {
                return None;
            }
            let taken = self.decoder.take(&mut rest);
            self.done = self.payload.len() - rest.0.len();
            match taken {
                Ok(Some(input)) => {
                    self.latest_ns = self.latest_ns.max(Some(self.decoder.time_ns()));
                    return Some(Ok(input));
                }
                Ok(None) => {}
                Err(why) => {
                    self.payload.clear();
                    self.decoder.lose();
                    self.lost = true;
                    return Some(Err(RecordError::Malformed { block: self.block, why }));
                }
            }
        }
    }

    /// Reads the next block, or finds out that there is none.
    fn advance(&mut self) -> io::Result<()> {
        match self.source.block()? {
            Found::Block(head, payload) => {
                if head.number != self.number && !self.lost {
                    // Whole blocks are missing.
                    let whole = (HEAD_BYTES + payload.len()) as u64;
                    self.damaged(self.source.at.saturating_sub(whole));
                }
                (self.block, self.number) = (head.number, head.number.wrapping_add(1));
                if self.lost {
                    self.lost = false;
                    let known_ns = self.latest_ns.unwrap_or(0);
                    self.ahead.push_back(Ok(Input::Lost(head.base_ns.max(known_ns))));
                }
                self.latest_ns = self.latest_ns.max(Some(head.base_ns));
                self.decoder.begin(head.base_ns, head.key);
                (self.payload, self.done, self.over) = (payload, 0, head.end);
            }
            Found::Damage(at) => self.damaged(at),
            Found::Nothing(at) => {
                if self.lost {
                    self.ahead.push_back(Ok(Input::Lost(self.latest_ns.unwrap_or(0))));
                }
                let after_ns = self.latest_ns;
                self.ahead.push_back(Err(RecordError::CutOff { at, after_ns }));
                self.over = true;
            }
        }
        Ok(())
    }

    fn damaged(&mut self, at: u64) {
        self.decoder.lose();
        self.lost = true;
        self.ahead.push_back(Err(RecordError::Damaged { block: self.number, at }));
        self.number = self.number.wrapping_add(1);
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Input, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.ahead.pop_front().or_else(|| self.record()) {
                return Some(item);
            }
            if self.over {
                return None;
            }
            if let Err(error) = self.advance() {
                self.over = true;
                return Some(Err(RecordError::Read(error)));
            }
        }
    }
}

/// What comes next in a file.
enum Found {
    /// A whole block.
    Block(Head, Vec<u8>),
    /// Something that is none, from this byte on; it was passed.
    Damage(u64),
    /// No whole block any more; the last ended at this byte.
    Nothing(u64),
}

/// A file, and what of it was read ahead.
#[derive(Debug)]
struct Source<R> {
    inner: R,
    held: Vec<u8>,
    /// Where in `held` the bytes begin that are still to be used.
    start: usize,
    /// Where in the file that is, in bytes.
    at: u64,
    drained: bool,
}

impl<R: Read> Source<R> {
    /// At least the next `wanted` bytes, or all that there are. Holds no more than that and a chunk.
    fn fill(&mut self, wanted: usize) -> io::Result<&[u8]> {
        while self.held.len() - self.start < wanted && !self.drained {
            self.held.drain(..self.start);
            self.start = 0;
            let chunk = self.inner.by_ref().take(CHUNK_BYTES).read_to_end(&mut self.held)?;
            self.drained = chunk == 0;
        }
        Ok(self.held.get(self.start..).unwrap_or_default())
    }

    /// Passes bytes that [`Source::fill`] gave.
    fn pass(&mut self, length: usize) {
        self.start += length;
        self.at += length as u64;
    }

    fn block(&mut self) -> io::Result<Found> {
        let at = self.at;
        let Some(head) = self.fill(HEAD_BYTES)?.first_chunk().copied() else {
            return Ok(Found::Nothing(at));
        };
        let Some(head) = Head::read(&head) else {
            self.find_mark()?;
            return Ok(Found::Damage(at));
        };
        let length = usize::try_from(head.length).unwrap_or(usize::MAX);
        let whole = HEAD_BYTES.saturating_add(length);
        let Some(payload) = self.fill(whole)?.get(HEAD_BYTES..whole) else {
            return Ok(Found::Nothing(at));
        };
        let found = if crc32fast::hash(payload) == head.crc {
            Found::Block(head, payload.to_vec())
        } else {
            Found::Damage(at)
        };
        self.pass(whole);
        Ok(found)
    }

    /// Passes everything up to the next sound head, or to where none can be any more.
    fn find_mark(&mut self) -> io::Result<()> {
        loop {
            self.pass(1);
            let bytes = self.fill(HEAD_BYTES)?;
            let places = bytes.windows(HEAD_BYTES);
            let is_head = |place: &[u8]| {
                place.starts_with(&MARK)
                    && place.first_chunk().is_some_and(|head| Head::read(head).is_some())
            };
            let searched = places.len();
            if let Some(found) = places.into_iter().position(is_head) {
                self.pass(found);
                return Ok(());
            }
            if searched == 0 {
                return Ok(());
            }
            self.pass(searched - 1);
        }
    }
}
