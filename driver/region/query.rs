// SPDX-License-Identifier: GPL-2.0
//! Dirty queries: what a read of `copied_pfns` answers, and when a reported page is clean.
//!
//! Source: RFC, "Steps to get dirty page bitmap". The three registers keep their values from query to query; each must have
//! been written since SAVING was set. The answer is NONE if nothing in the range is dirty, ALL if every page of it is or if
//! the log was lost, and else a bitmap for as many pages as the bitmap window has bits for. So a clean chunk in the middle of a
//! range is a bitmap of zeros: NONE would say that the whole rest is clean.

use kernel::{
    num::casts::usize_as_u64,
    prelude::*, //
};

use super::{
    give_register,
    Migration,
    Session, //
};
use crate::{
    abi::{
        dirty::{
            Outcome,
            Query, //
        },
        region::{
            PFNS_ALL,
            PFNS_NONE, //
        },
        rule::Rule,
        trace as record, //
    },
    trace,
    vfio::{
        Access,
        Device, //
    },
};
/// A bitmap in the bitmap window.
pub(super) struct Report {
    /// Bytes in which there are bits.
    bytes: usize,
    /// How far it was read without a gap; at `bytes` it has arrived.
    read_to: usize,
}

impl Report {
    /// Bytes that can be read: clients read whole words of 64 bits.
    pub(super) fn readable(&self) -> usize {
        self.bytes.next_multiple_of(size_of::<u64>())
    }

    /// The user has read `bytes` bytes from `at` on. Says whether the bitmap has arrived.
    fn read(&mut self, at: usize, bytes: usize) -> bool {
        if at <= self.read_to {
            self.read_to = self.read_to.max(at + bytes);
        }
        self.read_to >= self.bytes
    }
}

/// How a query was answered.
struct Answer {
    query: Query,
    outcome: Outcome,
    copied_pfns: u64,
    dirty_pages: u64,
}

impl Migration {
    /// `copied_pfns` is read.
    pub(super) fn answer_query(&mut self, device: &Device, access: &Access) -> Result<u64, Rule> {
        let watch = trace::time_dirty_query();
        let [start_pfn, page_bytes, total_pfns] = match &self.session {
            Session::Saving(saving) => saving.query.map(|register| register.unwrap_or(0)),
            _ => [0; 3],
        };
        let answer = self.query(device).and_then(|answer| {
            let given = give_register(access, answer.copied_pfns);
            if let Session::Saving(saving) = &mut self.session {
                match given {
                    // Only now does the user know that these pages are dirty.
                    Ok(()) if answer.outcome == Outcome::All => saving.log.clear(&answer.query),
                    Ok(()) => {}
                    Err(_) => saving.drop_report(),
                }
            }
            given.map(|()| answer)
        });
        trace::dirty_query(|| {
            let (outcome, copied_pfns, dirty_pages, result) = match &answer {
                Ok(it) => (it.outcome, it.copied_pfns, it.dirty_pages, 0),
                Err(rule) => (Outcome::Error, 0, 0, -rule.errno()),
            };
            record::DirtyQuery {
                device: self.key.0,
                start_pfn,
                page_bytes,
                total_pfns,
                copied_pfns,
                dirty_pages,
                duration_ns: watch.elapsed_ns(),
                outcome: outcome as u32,
                result,
            }
        });
        answer.map(|answer| answer.copied_pfns)
    }

    fn query(&mut self, device: &Device) -> Result<Answer, Rule> {
        let Session::Saving(saving) = &self.session else { return Err(Rule::NotSaving) };
        let [Some(start_pfn), Some(page_bytes), Some(total_pfns)] = saving.query else {
            return Err(Rule::QueryIncomplete);
        };
        let query = Query::new(start_pfn, page_bytes, total_pfns)?;

        // A transfer that has ended since anybody looked belongs into this answer.
        self.poll(device);
        let Session::Saving(saving) = &mut self.session else { return Err(Rule::NotSaving) };
        saving.drop_report();

        let (outcome, copied_pfns, dirty_pages) = if saving.log.is_lost() {
            (Outcome::All, PFNS_ALL, query.pages)
        } else {
            match saving.log.count(&query) {
                0 => (Outcome::None, PFNS_NONE, 0),
                dirty if dirty == query.pages => (Outcome::All, PFNS_ALL, dirty),
                _ => {
                    let pages = query.pages.min(usize_as_u64(self.bitmap.len()) * 8);
                    let bytes = usize::try_from(pages.div_ceil(8)).map_err(|_| Rule::NoMemory)?;
                    self.bitmap.fill(0);
                    let set = saving.log.report(&query, pages, &mut self.bitmap);
                    saving.report = Some(Report { bytes, read_to: 0 });
                    saving.bitmap_is_current = true;
                    (Outcome::Bitmap, pages, set)
                }
            }
        };
        Ok(Answer { query, outcome, copied_pfns, dirty_pages })
    }

    /// The bitmap window is read.
    pub(super) fn read_bitmap(&mut self, access: &Access, at: usize) -> Result<(), Rule> {
        let Session::Saving(saving) = &mut self.session else { return Err(Rule::NotSaving) };
        let report = saving.report.as_mut().ok_or(Rule::NotStaged)?;
        let bytes = self
            .bitmap
            .get(..report.readable())
            .and_then(|bitmap| bitmap.get(at..)?.get(..access.bytes))
            .ok_or(Rule::NotStaged)?;
        access.give(0, bytes)?;
        if report.read(at, access.bytes) {
            saving.log.forget();
        }
        Ok(())
    }
}
