// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What can be wrong with a recording, and with writing one.

use super::bytes::Bad;
use std::{io, path::PathBuf};

/// Why a recording, or a part of it, could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file could not be opened.
    #[error("failed to open the recording {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// There is no folder to make the file in.
    #[error("there is no folder {}: make it, or name another", .0.display())]
    NoFolder(PathBuf),
    /// The file could not be made, or there was no room for its header. Nothing of it stays, and what was there before is untouched.
    #[error(
        "failed to begin the recording {}: there must be room, and leave to make files in its folder",
        path.display()
    )]
    Create {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is there already, and was not to be replaced.
    #[error("{} is there already: choose another name, or replace it with --force", .0.display())]
    Exists(PathBuf),
    /// What has this name is no file that could be renamed when it is full.
    #[error("{} is no regular file", .0.display())]
    Irregular(PathBuf),
    /// The system failed to read.
    #[error("failed to read the recording")]
    Read(#[source] io::Error),
    /// The system failed to write; what was written before stays readable.
    #[error("failed to write the recording {}; what is in it so far can be read", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The bytes do not begin as a recording does.
    #[error("this is no recording of migscope")]
    NotARecording,
    /// The recording is of a format that this migscope does not know.
    #[error(
        "the recording has format {found}, and this migscope reads format {known}: use the migscope that wrote it, or a newer one"
    )]
    Version {
        /// The major version in the file.
        found: u16,
        /// The one that is read.
        known: u16,
    },
    /// The header does not match its checksum or makes no sense.
    #[error("the header of the recording is damaged")]
    Header,
    /// A block does not match its checksum, or is missing; reading goes on behind it.
    #[error("block {block} of the recording, at byte {at}, is damaged: what was in it is lost")]
    Damaged {
        /// Number of the block, from 0.
        block: u32,
        /// Where in the file, in bytes.
        at: u64,
    },
    /// A block is whole, but a record in it makes no sense; the rest of the block is left out, and reading goes on behind it.
    #[error("block {block} of the recording has a record that makes no sense")]
    Malformed {
        /// Number of the block, from 0.
        block: u32,
        /// What is wrong with it.
        #[source]
        why: Bad,
    },
    /// The recording has no end: it is still being written, or was cut off. This is the last that comes of it.
    #[error("the recording is cut off at byte {at}")]
    CutOff {
        /// Where the last whole block ends, in bytes.
        at: u64,
        /// `CLOCK_MONOTONIC` up to which everything was read, in nanoseconds; `None` when there was no whole block.
        after_ns: Option<u64>,
    },
    /// The thread that writes could not be started, or died.
    #[error("the thread that writes the recording failed")]
    Thread(#[source] io::Error),
}
