// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Recordings: the feed of an observer ([`crate::feed`]) in a file.
//!
//! ```text
//!   observer ──tap──▶ Writer ══queue══▶ thread: Files ──▶ Stream ──▶ FILE, FILE.1, …
//!                                                                      │
//!   another observer ◀──────────── play ◀──────── Reader ◀────────────┘
//!
//!   file     header, block, block, …, end block
//!   header   "migscope" │ major u16 │ minor u16 │ length u32 │ fields │ crc u32 (of all before it)
//!   block    mark 3 bytes │ flags u8 │ number u32 │ length u32 │ base_ns u64 │ crc u32 of the payload │ crc u32 of the head │ payload
//!   payload  record, record, …
//!   record   kind │ time, against base_ns or the record before │ length │ body
//!   field    tag │ length │ body
//! ```
//!
//! Fixed numbers are little endian; all others are varints of seven bits a byte (LEB128), signed ones zigzag. The sums are CRC-32 as
//! in IEEE 802.3. A block's flags: 1, it is a *key* block; 2, it is the *end* block, which has no records.
//!
//! **Sums** (the kinds `sample` and `sums`) are written as differences from the last ones, in whichever block those are. A key block
//! starts over from zero, so it needs nothing that came before it; the first block is one, and then one every thirty seconds. All other
//! records stand alone.
//!
//! **A cut** is where the file ends without an end block: all whole blocks are read, then [`RecordError::CutOff`] says where and when.
//! A block is written at least every second, and after each change of state.
//!
//! **Damage**: a block whose checksum does not fit is left out, whole. [`RecordError::Damaged`] names it, an [`Input::Lost`] takes its
//! place, for what was in it is unknown and not nothing; then the next block is read, and sums from the next key block on. The length
//! of a block is trusted when its head is sound; else the next mark with a sound head is looked for.
//!
//! **Versions**: a reader skips records of kinds, header fields and ends of bodies that it does not know, so a *minor* version may add
//! them; [`input`] is the one place to do that. Whatever else changes makes a new *major* version, which an older reader refuses.
//!
//! **Size**, as measured with two devices: a migration of some seconds takes 3 to 4 KB, and an idle host 9 KB a minute, most of it for
//! readings that found nothing new, so that a gap is told from silence. Blocks are not compressed: deflate at its best takes a fifth off
//! them, since each is small and what is left in it are times.
//!
//! A reader takes nothing for granted: what it allocates is bounded by what was read, and by the limits of [`block`] and [`sums`].

mod block;
mod bytes;
mod error;
mod event;
mod files;
mod header;
mod holding;
mod input;
pub mod live;
mod reader;
mod recorder;
mod sample;
mod stream;
mod sums;
mod writer;

pub use bytes::Bad;
pub use error::RecordError;
pub use files::{Existing, LEAST_BYTES, Options};
pub use header::Header;
pub use reader::{Reader, open};
pub use recorder::Recorder;
pub use stream::Stream;
pub use writer::Summary;

#[cfg(test)]
mod arbitrary;
#[cfg(test)]
mod tests;

#[cfg(doc)]
use crate::feed::Input;
