// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which transfers a workload makes, in which order.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::PAGE_BYTES;
use crate::edu::{BUFFER_BYTES, Transfer};

/// What the device is to do, written as `key=value` pairs: `hot=16,reload=4,bytes=4095,rate=10,seed=1`.
///
/// The device cycles: it loads its buffer from a page that nothing ever writes, then stores the buffer `reload` times to hot pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// `hot`: how many pages are written again and again.
    pub hot_pages: u64,
    /// `reload`: stores between two loads.
    pub stores_per_load: u32,
    /// `bytes`: the largest store, in bytes; at most [`BUFFER_BYTES`].
    pub max_bytes: u32,
    /// `rate`: operations that start in a second, at most; 0 for as many as the device takes. The device itself takes ten.
    pub per_second: u32,
    /// `seed`: of the choice of pages, lengths and contents.
    pub seed: u64,
}

impl Default for Spec {
    fn default() -> Self {
        Self { hot_pages: 16, stores_per_load: 4, max_bytes: BUFFER_BYTES, per_second: 0, seed: 1 }
    }
}

impl Spec {
    /// The shortest time between the starts of two operations.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(1).checked_div(self.per_second).unwrap_or(Duration::ZERO)
    }
}

/// Why a [`Spec`] could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    /// Not `key=value`.
    #[error("`{0}` is not of the form key=value")]
    NotAPair(String),
    /// A key that is none.
    #[error("`{0}` is no key of a workload; the keys are hot, reload, bytes, rate and seed")]
    UnknownKey(String),
    /// Not a number, or not in its range.
    #[error("`{value}` is no value for `{key}`: {expected}")]
    Value {
        /// The key.
        key: String,
        /// What was given.
        value: String,
        /// What would do.
        expected: &'static str,
    },
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut spec = Self::default();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| SpecError::NotAPair(pair.to_owned()))?;
            let wrong = |expected| SpecError::Value {
                key: key.to_owned(),
                value: value.to_owned(),
                expected,
            };
            match key {
                "hot" => {
                    spec.hot_pages = parse(value, 1..=1 << 16)
                        .ok_or_else(|| wrong("a number of pages from 1 to 65536"))?;
                }
                "reload" => {
                    spec.stores_per_load = parse(value, 1..=1 << 16)
                        .ok_or_else(|| wrong("a number of stores from 1 to 65536"))?;
                }
                "bytes" => {
                    spec.max_bytes = parse(value, 1..=BUFFER_BYTES)
                        .ok_or_else(|| wrong("a number of bytes from 1 to 4095"))?;
                }
                "rate" => {
                    spec.per_second = parse(value, 0..=1000)
                        .ok_or_else(|| wrong("operations per second, from 0 to 1000"))?;
                }
                "seed" => {
                    spec.seed = parse(value, 0..=u64::MAX).ok_or_else(|| wrong("a number"))?;
                }
                _ => return Err(SpecError::UnknownKey(key.to_owned())),
            }
        }
        Ok(spec)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "hot={},reload={},bytes={},rate={},seed={}",
            self.hot_pages, self.stores_per_load, self.max_bytes, self.per_second, self.seed
        )
    }
}

fn parse<T: FromStr + PartialOrd>(text: &str, range: std::ops::RangeInclusive<T>) -> Option<T> {
    text.parse().ok().filter(|value| range.contains(value))
}

/// One DMA transfer between memory and the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Memory to buffer: dirties nothing.
    Load {
        /// First address in memory.
        iova: u64,
        /// Length, in bytes.
        bytes: u32,
    },
    /// Buffer to memory: dirties the pages it touches.
    Store {
        /// First address in memory.
        iova: u64,
        /// Length, in bytes.
        bytes: u32,
    },
}

impl Operation {
    /// What to program the device with; every operation starts at the buffer's first byte.
    pub fn transfer(self) -> Transfer {
        match self {
            Self::Load { iova, bytes } => {
                Transfer { memory: iova, buffer_at: 0, bytes, to_memory: false }
            }
            Self::Store { iova, bytes } => {
                Transfer { memory: iova, buffer_at: 0, bytes, to_memory: true }
            }
        }
    }
}

/// The operations of a workload, without end.
#[derive(Clone, Debug)]
pub struct Plan {
    spec: Spec,
    random: fastrand::Rng,
    /// First address of the memory.
    iova: u64,
    /// Pages of the memory.
    pages: u64,
    until_load: u32,
}

impl Plan {
    /// Pages at the start of the memory which the device only reads.
    pub const SOURCE_PAGES: u64 = 8;
    /// The least memory a plan works in, in pages: the sources, and two that can be written.
    pub const MIN_PAGES: u64 = Self::SOURCE_PAGES + 2;

    /// Plans for a memory of `pages` pages at `iova`; `None` when that is less than [`Self::MIN_PAGES`].
    pub fn new(spec: Spec, iova: u64, pages: u64) -> Option<Self> {
        if pages < Self::MIN_PAGES {
            return None;
        }
        let random = fastrand::Rng::with_seed(spec.seed);
        Some(Self { spec, random, iova, pages, until_load: 0 })
    }

    /// What the plan was made from.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The next operation.
    pub fn step(&mut self) -> Operation {
        if self.until_load == 0 {
            self.until_load = self.spec.stores_per_load;
            let page = self.random.u64(..Self::SOURCE_PAGES);
            return Operation::Load { iova: self.iova + page * PAGE_BYTES, bytes: BUFFER_BYTES };
        }
        self.until_load -= 1;
        let bytes = self.random.u32(1..=self.spec.max_bytes);
        // A store may start anywhere in its page and so reach into the next one: the last page is only ever reached into.
        let hot = self.spec.hot_pages.min(self.pages - Self::SOURCE_PAGES - 1);
        let page = Self::SOURCE_PAGES + self.random.u64(..hot);
        let at = self.random.u64(..PAGE_BYTES);
        Operation::Store { iova: self.iova + page * PAGE_BYTES + at, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_operations() {
        let operations = || {
            let mut plan = Plan::new(Spec::default(), 0x10_0000, 64).unwrap();
            std::iter::repeat_with(move || plan.step()).take(500).collect::<Vec<_>>()
        };
        assert_eq!(operations(), operations());
    }

    #[test]
    fn operations_stay_in_memory_and_never_write_their_sources() {
        let (iova, pages) = (0x10_0000, Plan::MIN_PAGES);
        let mut plan = Plan::new(Spec { hot_pages: 1000, ..Spec::default() }, iova, pages).unwrap();
        let end = iova + pages * PAGE_BYTES;
        for _ in 0..10_000 {
            match plan.step() {
                Operation::Load { iova: at, bytes } => {
                    assert!(at >= iova && at + u64::from(bytes) <= end);
                }
                Operation::Store { iova: at, bytes } => {
                    assert!(at >= iova + Plan::SOURCE_PAGES * PAGE_BYTES);
                    assert!(at + u64::from(bytes) <= end);
                }
            }
        }
    }

    #[test]
    fn a_spec_reads_what_it_writes_and_names_what_it_does_not_know() {
        let spec = Spec { hot_pages: 3, per_second: 7, seed: 99, ..Spec::default() };
        assert_eq!(spec.to_string().parse(), Ok(spec));
        assert_eq!("hto=3".parse::<Spec>(), Err(SpecError::UnknownKey("hto".to_owned())));
        assert!(matches!("bytes=4096".parse::<Spec>(), Err(SpecError::Value { .. })));
    }
}
