// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the ends say to each other, and how it is framed. A saved device is the source's half of the same bytes in a file.
//!
//! ```text
//!   source                              destination
//!     Hello ───────────────────────────▶            what is coming: memory, page size
//!           ◀─────────────────────────── Ready       the device takes state in
//!     Pages, DeviceData, PassEnd … ────▶            pre-copy passes, then the last one
//!     End ─────────────────────────────▶            nothing more: start the device
//!           ◀─────────────────────────── Running     it runs, and when
//!     Expected ────────────────────────▶            what must be found
//!           ◀─────────────────────────── Report      what was found
//!           ◀─── Failed, instead of any of these, by either side
//! ```
//!
//! A frame is a header of 16 bytes, little-endian, and a payload: magic, version, kind, length, CRC-32 of kind and payload. No
//! length is believed before it is below its kind's limit, and no memory is taken for bytes that have not come.

use std::io::{self, Read, Write};

use zerocopy::IntoBytes as _;
use zerocopy::little_endian::{U16, U32};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

mod frame;

use self::frame::limits;
pub use self::frame::{Frame, Hello, MAX_DEVICE_DATA_BYTES, MAX_PAGES, Pages, Running};

/// First bytes of every frame.
const MAGIC: [u8; 4] = *b"mgsC";
/// The version that this client speaks; there is no other yet.
pub const VERSION: u16 = 1;
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    version: U16,
    kind: U16,
    payload_bytes: U32,
    crc32: U32,
}

/// What can go wrong with a stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The transport failed.
    #[error("could not {doing} the migration stream")]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The other end is gone, or the file is too short.
    #[error("the migration stream ends in the middle")]
    Truncated,
    /// Not a stream of this client.
    #[error("this is no migration stream: a frame begins with {0:02x?}")]
    Magic([u8; 4]),
    /// Another version.
    #[error("the migration stream has version {0}; this client speaks version {VERSION}")]
    Version(u16),
    /// A kind of frame that is none.
    #[error("the migration stream has a frame of unknown kind {0}")]
    Kind(u16),
    /// A length beyond its limit.
    #[error("a {kind} frame of {bytes} bytes is longer than its limit of {limit} bytes")]
    TooLong {
        /// Which kind.
        kind: &'static str,
        /// What it claims.
        bytes: u32,
        /// What it may.
        limit: u32,
    },
    /// Damaged on the way.
    #[error("a {kind} frame does not match its checksum")]
    Checksum {
        /// Which kind.
        kind: &'static str,
    },
    /// Undamaged and still nonsense.
    #[error("a {kind} frame does not hold what it should: {problem}")]
    Payload {
        /// Which kind.
        kind: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A frame out of order.
    #[error("expected a {expected} frame, got a {got} frame")]
    Unexpected {
        /// What should come.
        expected: &'static str,
        /// What came.
        got: &'static str,
    },
    /// The other end gave up.
    #[error("the other end gave up: {0}")]
    Peer(String),
    /// One-way streams have no answers.
    #[error("a file does not answer")]
    OneWay,
}

fn checksum(kind: U16, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(kind.as_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Writes one frame.
///
/// # Errors
///
/// [`StreamError::Io`], or [`StreamError::TooLong`].
pub fn write_frame(to: &mut impl Write, frame: &Frame) -> Result<(), StreamError> {
    let payload = frame.payload()?;
    let (kind, limit) = limits(frame.kind()).expect("every frame has its kind");
    let bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    if bytes > limit {
        return Err(StreamError::TooLong { kind, bytes, limit });
    }
    let number = U16::new(frame.kind());
    let header = Header {
        magic: MAGIC,
        version: U16::new(VERSION),
        kind: number,
        payload_bytes: U32::new(bytes),
        crc32: U32::new(checksum(number, &payload)),
    };
    let failed = |source| StreamError::Io { doing: "write", source };
    to.write_all(header.as_bytes()).map_err(failed)?;
    to.write_all(&payload).map_err(failed)
}

/// Reads one frame.
///
/// # Errors
///
/// [`StreamError`]; [`StreamError::Peer`] when the frame is the other end's farewell.
pub fn read_frame(from: &mut impl Read) -> Result<Frame, StreamError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::UnexpectedEof => StreamError::Truncated,
        _ => StreamError::Io { doing: "read", source },
    };
    let mut header = [0; size_of::<Header>()];
    from.read_exact(&mut header).map_err(failed)?;
    let header: Header = zerocopy::transmute!(header);
    if header.magic != MAGIC {
        return Err(StreamError::Magic(header.magic));
    }
    if header.version.get() != VERSION {
        return Err(StreamError::Version(header.version.get()));
    }
    let number = header.kind.get();
    let (kind, limit) = limits(number).ok_or(StreamError::Kind(number))?;
    let bytes = header.payload_bytes.get();
    if bytes > limit {
        return Err(StreamError::TooLong { kind, bytes, limit });
    }
    // `take` and not a buffer of the announced length: a lie costs the liar the bytes.
    let mut payload = Vec::new();
    from.by_ref().take(u64::from(bytes)).read_to_end(&mut payload).map_err(failed)?;
    if u32::try_from(payload.len()) != Ok(bytes) {
        return Err(StreamError::Truncated);
    }
    if checksum(header.kind, &payload) != header.crc32.get() {
        return Err(StreamError::Checksum { kind });
    }
    match Frame::parse(number, payload)? {
        Frame::Failed(why) => Err(StreamError::Peer(why)),
        frame => Ok(frame),
    }
}

/// The two directions between the ends; a file has one.
pub struct Stream {
    from: Option<Box<dyn Read + Send>>,
    to: Option<Box<dyn Write + Send>>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (from, to) = (self.from.is_some(), self.to.is_some());
        f.debug_struct("Stream").field("from", &from).field("to", &to).finish()
    }
}

impl Stream {
    /// A stream with answers.
    pub fn two_way(from: impl Read + Send + 'static, to: impl Write + Send + 'static) -> Self {
        Self { from: Some(Box::new(from)), to: Some(Box::new(to)) }
    }

    /// The source's side of a file.
    pub fn to_file(to: impl Write + Send + 'static) -> Self {
        Self { from: None, to: Some(Box::new(to)) }
    }

    /// The destination's side of a file.
    pub fn from_file(from: impl Read + Send + 'static) -> Self {
        Self { from: Some(Box::new(from)), to: None }
    }

    /// Whether there is another end that answers.
    pub fn is_two_way(&self) -> bool {
        self.from.is_some() && self.to.is_some()
    }

    /// Sends a frame; the destination of a file has nobody to send to, and sends nothing.
    ///
    /// # Errors
    ///
    /// Those of [`write_frame`], or [`StreamError::Peer`] when the other end said why it no longer listens.
    pub fn send(&mut self, frame: &Frame) -> Result<(), StreamError> {
        let sent = self.to.as_mut().map_or(Ok(()), |to| write_frame(to, frame));
        sent.map_err(|error| self.farewell().unwrap_or(error))
    }

    /// What the other end said before it went away.
    fn farewell(&mut self) -> Option<StreamError> {
        match read_frame(self.from.as_mut()?) {
            Err(farewell @ StreamError::Peer(_)) => Some(farewell),
            _ => None,
        }
    }

    /// Sends what is still in a buffer.
    ///
    /// # Errors
    ///
    /// [`StreamError::Io`], or [`StreamError::Peer`] when the other end said why it no longer listens.
    pub fn flush(&mut self) -> Result<(), StreamError> {
        let flushed = self.to.as_mut().map_or(Ok(()), |to| to.flush());
        flushed
            .map_err(|source| self.farewell().unwrap_or(StreamError::Io { doing: "write", source }))
    }

    /// Receives a frame.
    ///
    /// # Errors
    ///
    /// Those of [`read_frame`], and [`StreamError::OneWay`] at the source of a file.
    pub fn receive(&mut self) -> Result<Frame, StreamError> {
        read_frame(self.from.as_mut().ok_or(StreamError::OneWay)?)
    }
}

#[cfg(test)]
mod tests;
