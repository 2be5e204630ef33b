// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Dirty queries: the range that three registers ask for, and the four ways to answer.
//!
//! Source: RFC, `start_pfn` to `copied_pfns` and "Steps to get dirty page bitmap". Addresses are IOVAs ("GFNs relative to
//! device address space"); bit *n* of the bitmap, little-endian bytes with bit 0 first, is the page `start_pfn + n`.

use super::rule::Rule;

/// The smallest page that a query may count in, in bytes.
pub const MIN_PAGE_BYTES: u64 = 4096;

/// A query that obeys the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// First page, counted in pages of the query.
    pub start_pfn: u64,
    /// Size of a page, as a power of two: 12 is 4096 bytes.
    pub page_shift: u32,
    /// Number of pages, at least one.
    pub pages: u64,
}

impl Query {
    /// Checks what user space wrote.
    ///
    /// # Errors
    ///
    /// [`Rule::PageSize`], [`Rule::EmptyRange`] or [`Rule::RangeOverflow`]: the range's last byte must have an address below
    /// 2^64.
    pub fn new(start_pfn: u64, page_bytes: u64, total_pfns: u64) -> Result<Self, Rule> {
        if !page_bytes.is_power_of_two() || page_bytes < MIN_PAGE_BYTES {
            return Err(Rule::PageSize);
        }
        let Some(last) = total_pfns.checked_sub(1) else {
            return Err(Rule::EmptyRange);
        };
        let page_shift = page_bytes.trailing_zeros();
        let last_pfn = start_pfn.checked_add(last).ok_or(Rule::RangeOverflow)?;
        if last_pfn > u64::MAX >> page_shift {
            return Err(Rule::RangeOverflow);
        }
        Ok(Self { start_pfn, page_shift, pages: total_pfns })
    }
}

/// How a query was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Outcome {
    /// `copied_pfns` is [`PFNS_NONE`](super::region::PFNS_NONE).
    None = 0,
    /// `copied_pfns` is [`PFNS_ALL`](super::region::PFNS_ALL).
    All = 1,
    /// `copied_pfns` pages are in the bitmap.
    Bitmap = 2,
    /// The query was refused or failed: what is dirty is unknown.
    Error = 3,
}

impl Outcome {
    /// How many outcomes there are.
    pub const COUNT: usize = 4;
    /// All outcomes, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::None, Self::All, Self::Bitmap, Self::Error];

    /// The value of the label `outcome`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::All => "all",
            Self::Bitmap => "bitmap",
            Self::Error => "error",
        }
    }
}

impl TryFrom<u32> for Outcome {
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        Self::ALL.into_iter().find(|outcome| *outcome as u32 == number).ok_or(number)
    }
}
