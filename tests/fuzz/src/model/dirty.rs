// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which pages are dirty, which of them are reported, and what a report has to say.

use std::collections::BTreeSet;

use migscope_abi::dirty::{MIN_PAGE_BYTES, Query};
use migscope_abi::region::{PFNS_ALL, PFNS_NONE};

use super::edu::Transfer;
use super::{Kind, Setup};

/// A bitmap in the bitmap window.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Report {
    /// Pages that it covers.
    pages: u64,
    /// The bits that are set; `None` if that is not known.
    set: Option<BTreeSet<u64>>,
    /// How far it was read without a gap, in bytes.
    read_to: u64,
    /// The user knows where it is.
    located: bool,
}

/// Pages of 4096 bytes, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Log {
    dirty: BTreeSet<u64>,
    /// Reported, and not yet known to have arrived.
    reported: BTreeSet<u64>,
    report: Option<Report>,
    /// Something was written, one does not know where.
    unknown: bool,
}

impl Report {
    fn bytes(&self) -> u64 {
        self.pages.div_ceil(8)
    }
}

impl Log {
    /// A transfer is over.
    pub(super) fn mark(&mut self, transfer: &Transfer) {
        match &transfer.writes {
            Some(pages) => self.dirty.extend(pages),
            None => self.unknown = true,
        }
    }

    /// What was reported and did not arrive is dirty again.
    pub(super) fn take_back(&mut self) {
        self.dirty.append(&mut self.reported);
        self.report = None;
    }

    /// `data_offset` was read and said where the bitmap is.
    pub(super) fn locate(&mut self) {
        if let Some(report) = &mut self.report {
            report.located = true;
        }
    }

    /// The log if a bitmap that the user has in a mapping, where nobody sees it read, is taken to have arrived.
    pub(super) fn arrived(&self) -> Option<Self> {
        let located = self.report.as_ref().is_some_and(|report| report.located);
        (located && !self.reported.is_empty())
            .then(|| Self { reported: BTreeSet::new(), ..self.clone() })
    }

    /// The fewest and most bytes of the bitmap that can be read: clients read whole words.
    pub(super) fn reported_bytes(&self) -> Option<(u64, u64)> {
        let bytes = self.report.as_ref()?.bytes();
        Some((bytes, bytes.next_multiple_of(8)))
    }

    /// `copied_pfns` says `copied`. Gives whether there is a bitmap.
    pub(super) fn answer(
        &mut self,
        setup: &Setup,
        query: &Query,
        copied: u64,
    ) -> Result<bool, String> {
        self.take_back();
        let shift = query.page_shift - MIN_PAGE_BYTES.trailing_zeros();
        let known = !self.unknown && setup.kind == Kind::Edu;
        // By their place in the query.
        let place = |page: &u64| {
            (page >> shift).checked_sub(query.start_pfn).filter(|at| *at < query.pages)
        };
        let dirty: BTreeSet<u64> = self.dirty.iter().filter_map(place).collect();
        let all = u64::try_from(dirty.len()).is_ok_and(|count| count == query.pages);
        match copied {
            PFNS_NONE if dirty.is_empty() || !known => Ok(false),
            PFNS_NONE => Err(format!("NONE, but these pages of the query are dirty: {dirty:x?}")),
            PFNS_ALL if all || !known => {
                self.dirty.retain(|page| place(page).is_none());
                Ok(false)
            }
            PFNS_ALL => {
                Err(format!("ALL, but only these pages of the query are dirty: {dirty:x?}"))
            }
            pages => {
                let room = u64::from(setup.layout.bitmap_bytes) * 8;
                if pages > query.pages || pages > room {
                    return Err(format!("{pages:#x} pages of {:#x} in a bitmap", query.pages));
                }
                let in_bitmap = |page: &u64| place(page).is_some_and(|at| at < pages);
                let reported = self.dirty.iter().copied().filter(|page| in_bitmap(page));
                self.reported = reported.collect();
                self.dirty.retain(|page| !self.reported.contains(page));
                let set = dirty.into_iter().filter(|at| *at < pages).collect();
                self.report =
                    Some(Report { pages, set: known.then_some(set), read_to: 0, located: false });
                Ok(true)
            }
        }
    }

    /// `bytes` were read at `at` in the bitmap window.
    pub(super) fn read(&mut self, at: u64, bytes: &[u8]) -> Result<(), String> {
        let Some(report) = &mut self.report else {
            return Err("a bitmap was read, and there is none".to_owned());
        };
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let end = at.saturating_add(length);
        if end > report.bytes().next_multiple_of(8) {
            return Err(format!("{end:#x} bytes were read of a bitmap of {} pages", report.pages));
        }
        if let Some(set) = &report.set {
            for (byte, offset) in bytes.iter().zip(at..) {
                let wanted = (0..8).filter(|bit| set.contains(&(offset * 8 + bit)));
                let wanted = wanted.fold(0_u8, |byte, bit| byte | 1 << bit);
                if *byte != wanted {
                    return Err(format!(
                        "byte {offset:#x} of the bitmap is {byte:#x}, not {wanted:#x}"
                    ));
                }
            }
        }
        if at <= report.read_to {
            report.read_to = report.read_to.max(end);
        }
        if report.read_to >= report.bytes() {
            self.reported.clear();
        }
        Ok(())
    }
}
