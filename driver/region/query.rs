// SPDX-License-Identifier: GPL-2.0
//! Dirty queries: what a read of `copied_pfns` answers, and when a reported page is clean.
//!
//! Source: RFC, "Steps to get dirty page bitmap". The three registers keep their values from query to query; each must have
//! been written since SAVING was set. The answer is NONE if nothing in the range is dirty, ALL if every page of it is or if
//! the log was lost, and else a bitmap for as many pages as the bitmap window has bits for. So a clean chunk in the middle of a
//! range is a bitmap of zeros: NONE would say that the whole rest is clean.
//!
//! # When a bitmap has arrived
//!
//! Its pages stay in the log until then. A bitmap that is read by system calls has arrived when it was read to its end. What
//! user space reads from a mapping is not seen; but it cannot fail, and who does so has to ask for `data_offset` first. So a
//! bitmap in a window that was mapped has arrived when `data_offset` has reached the user and the next query comes: who maps
//! that window is taken to read it there. A query that is cut off before that loses nothing.
//!
//! One attempt to read the bitmap by a system call, even one that fails, says that this bitmap is not read from the mapping:
//! then it has to be read to its end. Who reads a part in each way gets the pages reported once more.

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
    dirty::{
        Extent,
        Log, //
    },
    trace,
    vfio::{
        Access,
        Device,
        Window, //
    },
};
/// A bitmap in the bitmap window.
pub(super) struct Report {
    /// Bytes in which there are bits.
    bytes: usize,
    /// How far it was read without a gap, by system calls; at `bytes` it has arrived.
    read_to: usize,
    /// User space has tried to read it by a system call.
    trapped: bool,
    /// `data_offset` has reached user space, which so knows where the bitmap is.
    located: bool,
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

/// Puts the bitmap for the first `pages` pages of the query into the window, each byte once, and gives the number of bits set.
/// No byte that the answer does not cover is touched, so a query of a few pages is cheap however large the window is.
fn put_bitmap(window: &Window, log: &mut Log, query: &Query, pages: u64) -> Result<u64, Rule> {
    let (mut done, mut outcome) = (0, Ok(()));
    let set = log.report(query, pages, |at, words| {
        // What the log leaves out is zero.
        outcome = outcome
            .and_then(|()| window.zero(done, at - done))
            .and_then(|()| window.put(at, words));
        done = at + words.len();
    });
    outcome?;
    // Clients read whole words.
    let end = usize::try_from(pages.div_ceil(64) * 8).map_err(|_| Rule::NoMemory)?;
    window.zero(done, end - done)?;
    Ok(set)
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
        self.settle_mapped_report();
        let Session::Saving(saving) = &mut self.session else { return Err(Rule::NotSaving) };
        saving.drop_report();

        let (outcome, copied_pfns, dirty_pages) = if saving.log.is_lost() {
            (Outcome::All, PFNS_ALL, query.pages)
        } else {
            match saving.log.extent(&query) {
                Extent::Nothing => (Outcome::None, PFNS_NONE, 0),
                Extent::Everything => (Outcome::All, PFNS_ALL, query.pages),
                Extent::Part => {
                    let pages = query.pages.min(usize_as_u64(self.windows.bitmap.bytes()) * 8);
                    let bytes = usize::try_from(pages.div_ceil(8)).map_err(|_| Rule::NoMemory)?;
                    let set = put_bitmap(&self.windows.bitmap, &mut saving.log, &query, pages)
                        .inspect_err(|_| saving.log.take_back())?;
                    saving.report =
                        Some(Report { bytes, read_to: 0, trapped: false, located: false });
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
        if at.checked_add(access.bytes).is_none_or(|end| end > report.readable()) {
            return Err(Rule::NotStaged);
        }
        report.trapped = true;
        self.windows.bitmap.give(at, access)?;
        if report.read(at, access.bytes) {
            saving.log.forget();
        }
        Ok(())
    }

    /// `data_offset` has reached user space.
    pub(super) fn locate_report(&mut self) {
        let Session::Saving(saving) = &mut self.session else { return };
        if let (true, Some(report)) = (saving.bitmap_is_current, &mut saving.report) {
            report.located = true;
        }
    }

    /// The next query comes: a bitmap that user space has in a mapping has arrived.
    fn settle_mapped_report(&mut self) {
        let mapped = self.windows.bitmap.was_mapped();
        let Session::Saving(saving) = &mut self.session else { return };
        let arrived = |report: &Report| mapped && report.located && !report.trapped;
        if saving.report.as_ref().is_some_and(arrived) {
            saving.log.forget();
        }
    }
}
