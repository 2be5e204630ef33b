// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A session of a source: buffers of device data, and dirty queries.

use std::fmt;
use std::sync::Arc;

use migscope_abi::dirty::Query;
use migscope_abi::region::Field;
use migscope_abi::rule::Rule;
use migscope_abi::state::State;

use super::dirty::Log;
use super::image::{KEPT, Window};
use super::{Setup, errno, expected};
use crate::call::Outcome;

/// What is known of the buffer in the data window.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Staged {
    /// Bounds of its length, in bytes; 0 means that no buffer was begun.
    low: u64,
    high: u64,
    bytes: Window,
}

/// A session of a source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Saving {
    staged: Option<Staged>,
    /// `pending_bytes` as it was told last, while nothing has changed it since and the device stands.
    told: Option<u64>,
    /// The most that can still come, once the device stands and has told.
    left: Option<u64>,
    /// All that has come; `None` if some of it was not read.
    stream: Option<Arc<Vec<u8>>>,
    query: [Option<u64>; 3],
    pub(super) log: Log,
    pub(super) bitmap_is_current: bool,
}

/// A session after a read of `pending_bytes`, and the image's bytes if that was the last of it.
pub(super) type Consumed = (Saving, Option<Arc<Vec<u8>>>);

impl Default for Saving {
    fn default() -> Self {
        Self {
            staged: None,
            told: None,
            left: None,
            stream: Some(Arc::default()),
            query: [None; 3],
            log: Log::default(),
            bitmap_is_current: false,
        }
    }
}

impl Saving {
    /// `device_state` was written, and the session goes on.
    pub(super) fn state_written(&self, from: State, to: State) -> Self {
        let mut next = self.clone();
        next.bitmap_is_current = false;
        if from != to {
            (next.told, next.left) = (None, None);
        }
        next
    }

    /// `pending_bytes` says `value`: the buffer that was staged is over.
    pub(super) fn pending_read(&self, value: u64, stands: bool) -> Result<Vec<Consumed>, String> {
        let mut ends = Vec::new();
        let mut why = String::new();
        for (low, high) in self.consumed() {
            match self.consumes(low, high, value, stands) {
                Ok(end) => ends.push(end),
                Err(text) => why = text,
            }
        }
        if ends.is_empty() { Err(why) } else { Ok(ends) }
    }

    /// The lengths that the buffer which ends now may have had: none, or from one number to another.
    fn consumed(&self) -> Vec<(u64, u64)> {
        match &self.staged {
            None => vec![(0, 0)],
            Some(staged) if staged.low > 0 || staged.high == 0 => vec![(staged.low, staged.high)],
            Some(staged) => vec![(0, 0), (1, staged.high)],
        }
    }

    fn consumes(&self, low: u64, high: u64, value: u64, stands: bool) -> Result<Consumed, String> {
        if let (Some(told), true, 0) = (self.told, stands, high)
            && value != told
        {
            return Err(format!(
                "pending_bytes is {value:#x} after {told:#x}, and nothing came between"
            ));
        }
        if let (Some(left), true) = (self.left, stands)
            && left.checked_sub(low).is_none_or(|left| value > left)
        {
            return Err(format!(
                "pending_bytes is {value:#x}; {low:#x} of {left:#x} bytes were taken"
            ));
        }
        let mut next = self.clone();
        next.bitmap_is_current = false;
        next.staged = None;
        if high > 0 {
            let known = self.staged.as_ref().filter(|_| low == high);
            let piece = known.and_then(|staged| staged.bytes.known(high));
            next.stream = match (self.stream.as_deref(), piece) {
                (Some(stream), Some(piece)) if stream.len() + piece.len() <= KEPT => {
                    Some(Arc::new([stream.as_slice(), &piece].concat()))
                }
                _ => None,
            };
        }
        next.told = stands.then_some(value);
        next.left = stands.then_some(value);
        let complete = (stands && value == 0).then(|| next.stream.clone()).flatten();
        Ok((next, complete))
    }

    /// `data_offset` was read for data: a buffer is staged, unless one is.
    pub(super) fn offset_read(&self, setup: &Setup) -> Self {
        if self.staged.as_ref().is_some_and(|staged| staged.low > 0) {
            return self.clone();
        }
        let window = u64::from(setup.layout.data_bytes);
        let mut next = self.clone();
        let (low, high) = match self.left {
            // The device stands: it has no more than it said, and if it said so it has something.
            Some(left) => (left.min(1), left.min(window)),
            None => (0, window),
        };
        next.told = None;
        next.staged = Some(Staged { low, high, bytes: Window::default() });
        next
    }

    /// `data_offset` was read while the bitmap window is the current one.
    pub(super) fn bitmap_located(&self) -> Self {
        let mut next = self.clone();
        next.log.locate();
        next
    }

    /// What the session may be when the next query comes, if the bitmap window has been mapped or not.
    pub(super) fn before_query(&self, mapped: bool) -> Vec<Self> {
        let arrived = self.log.arrived().filter(|_| mapped);
        let arrived = arrived.map(|log| Self { log, ..self.clone() });
        std::iter::once(self.clone()).chain(arrived).collect()
    }

    /// `data_size` says `value`.
    pub(super) fn size_read(&self, value: u64) -> Result<Self, String> {
        if self.bitmap_is_current {
            return match self.log.reported_bytes() {
                Some((fewest, most)) if (fewest..=most).contains(&value) => Ok(self.clone()),
                bounds => Err(format!("data_size is {value:#x}; the bitmap has {bounds:x?} bytes")),
            };
        }
        let Some(staged) = &self.staged else {
            return match value {
                0 => Ok(self.clone()),
                _ => Err(format!("data_size is {value:#x}, and no buffer is staged")),
            };
        };
        if !(staged.low..=staged.high).contains(&value) {
            let Staged { low, high, .. } = staged;
            return Err(format!(
                "data_size is {value:#x}; it has to be from {low:#x} to {high:#x}"
            ));
        }
        let mut next = self.clone();
        next.staged = Some(Staged { low: value, high: value, bytes: staged.bytes.clone() });
        Ok(next)
    }

    /// The data window is read.
    pub(super) fn data_read(
        &self,
        at: u64,
        length: u64,
        outcome: &Outcome,
    ) -> Result<Self, String> {
        let end = at.saturating_add(length);
        let not_staged = errno(Rule::NotStaged);
        let mut next = self.clone();
        match (outcome, &mut next.staged) {
            (Outcome::Done { bytes, .. }, Some(staged)) if end <= staged.high => {
                if !staged.bytes.agrees(at, bytes) {
                    return Err("the staged buffer has changed".to_owned());
                }
                staged.bytes.put(at, bytes);
                staged.low = staged.low.max(end);
                Ok(next)
            }
            (Outcome::Failed(got), Some(staged)) if *got == not_staged && end > staged.low => {
                staged.high = staged.high.min(end - 1);
                Ok(next)
            }
            (Outcome::Failed(got), None) if *got == not_staged => Ok(next),
            (_, staged) => {
                let bounds = staged.as_ref().map(|staged| (staged.low, staged.high));
                Err(expected(format_args!("a buffer of {bounds:x?} bytes"), outcome))
            }
        }
    }

    /// The query that the registers ask.
    pub(super) fn query(&self) -> Result<Query, Rule> {
        let [Some(start), Some(page), Some(total)] = self.query else {
            return Err(Rule::QueryIncomplete);
        };
        Query::new(start, page, total)
    }

    pub(super) fn query_written(&self, field: Field, value: u64) -> Self {
        let mut next = self.clone();
        let at = match field {
            Field::StartPfn => 0,
            Field::PageSize => 1,
            _ => 2,
        };
        next.query[at] = Some(value);
        next
    }

    /// `copied_pfns` says `copied`.
    pub(super) fn answered(
        &self,
        setup: &Setup,
        query: &Query,
        copied: u64,
    ) -> Result<Self, String> {
        let mut next = self.clone();
        next.bitmap_is_current = next.log.answer(setup, query, copied)?;
        Ok(next)
    }

    /// A query was answered, and the answer did not arrive.
    pub(super) fn query_lost(&self) -> Self {
        let mut next = self.clone();
        next.log.take_back();
        next.bitmap_is_current = false;
        next
    }

    /// The bitmap window is read.
    pub(super) fn bitmap_read(
        &self,
        at: u64,
        length: u64,
        outcome: &Outcome,
    ) -> Result<Self, String> {
        let mut next = self.clone();
        match outcome {
            Outcome::Done { bytes, .. } => next.log.read(at, bytes)?,
            // "The bitmap window is current" until data are asked for; whether it can still be read then is not said.
            Outcome::Failed(got) if *got == errno(Rule::NotStaged) => {
                let has =
                    self.log.reported_bytes().is_some_and(|(fewest, _)| at + length <= fewest);
                if has && self.bitmap_is_current {
                    return Err(expected("the bitmap", outcome));
                }
            }
            Outcome::Failed(_) | Outcome::NotMade => return Err(expected("the bitmap", outcome)),
        }
        Ok(next)
    }
}

impl fmt::Display for Saving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { staged, told, left, stream, query, log, bitmap_is_current } = self;
        let staged = staged.as_ref().map(|staged| staged.low..=staged.high);
        let stream = stream.as_ref().map(|stream| stream.len());
        write!(
            f,
            "saving: staged {staged:x?}, told {told:x?}, left {left:x?}, sent {stream:x?}, "
        )?;
        write!(f, "query {query:x?}, {log:x?}, bitmap is current: {bitmap_is_current}")
    }
}
