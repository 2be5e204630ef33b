// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The messages: what each holds, how long it may be, and what makes its payload nonsense.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::StreamError;
use crate::PAGE_BYTES;
use crate::verify::{Expected, Verification};

/// The most pages in one frame.
pub const MAX_PAGES: usize = 256;
/// The most bytes of device data in one frame.
pub const MAX_DEVICE_DATA_BYTES: u32 = 64 << 20;
/// The most bytes of text in one frame.
const MAX_TEXT_BYTES: u32 = 4096;
/// The most bytes of JSON in one frame.
const MAX_JSON_BYTES: u32 = 16 << 20;

/// What is coming.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Hello {
    /// First I/O address of the memory.
    pub iova: U64,
    /// Length of the memory, in bytes.
    pub memory_bytes: U64,
    /// Length of a page, in bytes.
    pub page_bytes: U64,
}

/// The destination's device runs. Times are those of the destination's `CLOCK_MONOTONIC`, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Which boot's clock it is; ends with the same one can compare times.
    pub boot_id: Option<String>,
    /// When the frame `End` came.
    pub end_at_ns: u64,
    /// How long the preparations took after that.
    pub load_ns: u64,
    /// How long the write took that started the device.
    pub start_ns: u64,
    /// When it returned.
    pub running_at_ns: u64,
}

/// Pages that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pages {
    /// Frame number of the first one.
    pub first_pfn: u64,
    /// Their bytes: one page at least, [`MAX_PAGES`] at most.
    pub content: Vec<u8>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The source begins.
    Hello(Hello),
    /// The destination's device takes state in.
    Ready,
    /// Memory.
    Pages(Pages),
    /// A buffer of device data, with the length in which the source's driver gave it.
    DeviceData(Vec<u8>),
    /// A pass over memory is over.
    PassEnd,
    /// Everything was sent.
    End,
    /// The destination's device runs.
    Running(Running),
    /// What the destination must find.
    Expected(Box<Expected>),
    /// What the destination found.
    Report(Box<Verification>),
    /// The sender gave up, and why.
    Failed(String),
}

/// The kinds of frames: number, name, longest payload.
const KINDS: [(u16, &str, u32); 10] = [
    (1, "hello", 24),
    (2, "ready", 0),
    (3, "pages", 8 + 256 * 4096),
    (4, "device data", MAX_DEVICE_DATA_BYTES),
    (5, "pass end", 0),
    (6, "end", 0),
    (7, "running", MAX_TEXT_BYTES),
    (8, "expected", MAX_JSON_BYTES),
    (9, "report", MAX_JSON_BYTES),
    (10, "failed", MAX_TEXT_BYTES),
];

impl Frame {
    pub(super) fn kind(&self) -> u16 {
        match self {
            Self::Hello(_) => 1,
            Self::Ready => 2,
            Self::Pages(_) => 3,
            Self::DeviceData(_) => 4,
            Self::PassEnd => 5,
            Self::End => 6,
            Self::Running(_) => 7,
            Self::Expected(_) => 8,
            Self::Report(_) => 9,
            Self::Failed(_) => 10,
        }
    }

    /// The name that messages use.
    pub fn name(&self) -> &'static str {
        limits(self.kind()).map_or("unknown", |(name, _)| name)
    }

    pub(super) fn payload(&self) -> Result<Vec<u8>, StreamError> {
        let json = |problem: serde_json::Error| StreamError::Payload {
            kind: self.name(),
            problem: problem.to_string(),
        };
        Ok(match self {
            Self::Hello(hello) => hello.as_bytes().to_vec(),
            Self::Ready | Self::PassEnd | Self::End => Vec::new(),
            Self::Pages(pages) => {
                let mut payload = pages.first_pfn.to_le_bytes().to_vec();
                payload.extend_from_slice(&pages.content);
                payload
            }
            Self::DeviceData(data) => data.clone(),
            Self::Running(running) => serde_json::to_vec(running).map_err(json)?,
            Self::Expected(expected) => serde_json::to_vec(expected).map_err(json)?,
            Self::Report(report) => serde_json::to_vec(report).map_err(json)?,
            Self::Failed(why) => {
                let limit = usize::try_from(MAX_TEXT_BYTES).unwrap_or(usize::MAX);
                why.as_bytes().iter().copied().take(limit).collect()
            }
        })
    }

    pub(super) fn parse(kind: u16, payload: Vec<u8>) -> Result<Self, StreamError> {
        let name = limits(kind).map_or("unknown", |(name, _)| name);
        let wrong = |problem: String| StreamError::Payload { kind: name, problem };
        let length = payload.len();
        Ok(match kind {
            1 => Self::Hello(Hello::read_from_bytes(&payload).map_err(|_size| {
                wrong(format!("{length} bytes instead of {}", size_of::<Hello>()))
            })?),
            2 | 5 | 6 if length > 0 => {
                return Err(wrong(format!("{length} bytes instead of none")));
            }
            2 => Self::Ready,
            3 => Self::Pages(parse_pages(payload).map_err(wrong)?),
            4 => Self::DeviceData(payload),
            5 => Self::PassEnd,
            6 => Self::End,
            7 => Self::Running(parse_json(&payload).map_err(wrong)?),
            8 => Self::Expected(Box::new(parse_json(&payload).map_err(wrong)?)),
            9 => Self::Report(Box::new(parse_json(&payload).map_err(wrong)?)),
            10 => Self::Failed(String::from_utf8_lossy(&payload).into_owned()),
            _ => return Err(StreamError::Kind(kind)),
        })
    }
}

fn parse_pages(payload: Vec<u8>) -> Result<Pages, String> {
    let page_bytes = usize::try_from(PAGE_BYTES).expect("a page fits");
    let Some((pfn, content)) = payload.split_first_chunk::<8>() else {
        return Err(format!("{} bytes hold no page", payload.len()));
    };
    if content.is_empty() || !content.len().is_multiple_of(page_bytes) {
        return Err(format!("{} bytes are no whole number of pages, at least one", content.len()));
    }
    Ok(Pages { first_pfn: u64::from_le_bytes(*pfn), content: content.to_vec() })
}

fn parse_json<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|error| error.to_string())
}

pub(super) fn limits(kind: u16) -> Option<(&'static str, u32)> {
    KINDS.iter().find(|(number, ..)| *number == kind).map(|(_, name, limit)| (*name, *limit))
}
