// SPDX-License-Identifier: GPL-2.0
//! Device memory in the image: which pages are sent when, and in how few bytes.
//!
//! ```text
//!   written since ──collect()──▶ pass ──next()──▶ records in the window ──▶ the user
//!        ▲  writes: BarMemory      │
//!        └── re-armed at the start of each pass
//!
//!   record's payload: first page 8 │ pages 4 │ encoding 4 │ 0 data: the pages │ 1 fill: one word of 8 bytes
//! ```
//!
//! The first pass is all of the memory. Each later pass is what was written since the one before began, and begins when that
//! one is sent: so pre-copy converges if pages are written more slowly than they are sent. A page of which all words are the
//! same is sent as that word, and a run of such pages as one record: a device that nobody has used is a few bytes.
//!
//! Pages may come more than once, and the last one wins. So one that is written while it is being copied does no harm: it is
//! in the next pass.

use kernel::{
    num::casts::usize_as_u64,
    prelude::*, //
};
use zerocopy::byteorder::little_endian::{
    U32,
    U64, //
};
use zerocopy_derive::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned, //
};

use crate::{
    abi::{
        dirty::MIN_PAGE_BYTES,
        rule::Rule, //
    },
    image::{
        Writer,
        HEAD_BYTES,
        MAX_MEMORY_BYTES, //
    },
};

/// The unit of device memory, in bytes.
pub(crate) const PAGE_BYTES: u64 = MIN_PAGE_BYTES;
/// The same, as a length.
pub(crate) const PAGE_LENGTH: usize = 1 << PAGE_BYTES.trailing_zeros();
/// Pages in a word of a [`PageSet`].
const WORD_PAGES: u64 = 64;

/// What begins the payload of a record of device memory.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Run {
    first: U64,
    pages: U32,
    encoding: U32,
}

/// [`Run::encoding`]: the pages follow.
const DATA: u32 = 0;
/// [`Run::encoding`]: a word follows that fills the pages.
const FILL: u32 = 1;

const RUN_BYTES: usize = size_of::<Run>();
const WORD_BYTES: usize = size_of::<u64>();
/// What a page costs at most: a record of its own.
const PAGE_COST_BYTES: u64 = PAGE_BYTES + usize_as_u64(HEAD_BYTES + RUN_BYTES);
/// The shortest window that a page can be sent in, in bytes.
pub(crate) const MIN_WINDOW_BYTES: usize = HEAD_BYTES + RUN_BYTES + PAGE_LENGTH;

/// A set of pages: a bit for each.
pub(crate) struct PageSet {
    words: KVVec<u64>,
    pages: u64,
}

impl PageSet {
    /// The empty set, in so many pages.
    ///
    /// # Errors
    ///
    /// [`Rule::NoMemory`].
    pub(crate) fn new(pages: u64) -> Result<Self, Rule> {
        let words = usize::try_from(pages.div_ceil(WORD_PAGES)).map_err(|_| Rule::NoMemory)?;
        let words = KVVec::from_elem(0, words, GFP_KERNEL_ACCOUNT).map_err(|_| Rule::NoMemory)?;
        Ok(Self { words, pages })
    }

    /// Its words, 64 pages each, the first page in the lowest bit.
    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// The first page of the set at `from` or after it.
    fn next(&self, from: u64) -> Option<u64> {
        let start = usize::try_from(from / WORD_PAGES).ok()?;
        let words = self.words.get(start..)?.iter().zip(usize_as_u64(start)..);
        let mut mask = u64::MAX << (from % WORD_PAGES);
        for (word, at) in words {
            let word = word & mask;
            mask = u64::MAX;
            if word != 0 {
                return Some(at * WORD_PAGES + u64::from(word.trailing_zeros()));
            }
        }
        None
    }

    fn remove(&mut self, page: u64) {
        let word = usize::try_from(page / WORD_PAGES).ok().and_then(|at| self.words.get_mut(at));
        if let Some(word) = word {
            *word &= !(1 << (page % WORD_PAGES));
        }
    }

    /// Adds a range, which lies inside.
    fn add(&mut self, first: u64, pages: u64) {
        for page in first..first + pages {
            let word =
                usize::try_from(page / WORD_PAGES).ok().and_then(|at| self.words.get_mut(at));
            if let Some(word) = word {
                *word |= 1 << (page % WORD_PAGES);
            }
        }
    }

    /// How many pages are in it.
    fn len(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// The memory and the window, as the sender needs them.
pub(crate) trait Copier {
    /// Moves what was written since the last time into the set, and starts to watch anew.
    fn collect(&mut self, into: &mut PageSet);

    /// Copies a page of the memory to `at` in the window. Gives the word if all its words are the same.
    ///
    /// # Errors
    ///
    /// [`Rule::OutOfBounds`] if either is not there.
    fn copy_page(&mut self, page: u64, at: usize) -> Result<Option<u64>, Rule>;

    /// Copies to the window.
    ///
    /// # Errors
    ///
    /// [`Rule::OutOfBounds`].
    fn put(&mut self, at: usize, bytes: &[u8]) -> Result<(), Rule>;

    /// A CRC-32 of a part of the window, going on from `seed`.
    fn crc(&self, seed: u32, at: usize, bytes: usize) -> u32;
}

/// Sends device memory.
pub(crate) struct Sender {
    /// What is left of this pass.
    pass: PageSet,
    /// No page of the pass lies before it.
    next: u64,
}

/// A record that is being made in the window.
#[derive(Clone, Copy)]
struct Open {
    at: usize,
    first: u64,
    pages: u32,
    /// The word, if it is a fill.
    fill: Option<u64>,
}

impl Open {
    /// Length, with the head.
    fn bytes(&self) -> usize {
        let content = match self.fill {
            Some(_) => WORD_BYTES,
            None => usize::try_from(self.pages).unwrap_or(0) * PAGE_LENGTH,
        };
        HEAD_BYTES + RUN_BYTES + content
    }

    /// Whether the page after its last can be part of it.
    fn takes(&self, page: u64, fill: Option<u64>) -> bool {
        let longer = RUN_BYTES + PAGE_LENGTH * (usize::try_from(self.pages).unwrap_or(0) + 1);
        self.first + u64::from(self.pages) == page
            && self.fill == fill
            && (fill.is_some() || longer <= MAX_MEMORY_BYTES)
            && self.pages < u32::MAX
    }
}

impl Sender {
    /// A sender for so many pages, none of which is to be sent.
    ///
    /// # Errors
    ///
    /// [`Rule::NoMemory`].
    pub(crate) fn new(pages: u64) -> Result<Self, Rule> {
        Ok(Self { pass: PageSet::new(pages)?, next: 0 })
    }

    /// The most that is left to be sent, in bytes, if so many pages were written since the pass began. A page that was written
    /// again before its turn in the pass counts twice, for it is sent twice.
    pub(crate) fn pending_bytes(&self, written_pages: u64) -> u64 {
        (self.pass.len() + written_pages) * PAGE_COST_BYTES
    }

    /// Makes records in a window of `window_bytes` bytes, at least [`MIN_WINDOW_BYTES`], as many as fit, and gives their
    /// length. It is 0 only if nothing is left to be sent.
    ///
    /// If the device stands still there are no more passes: what was written belongs to this one, and each page is sent once.
    ///
    /// # Errors
    ///
    /// Those of `copier`: the window or the memory is not as long as was said.
    pub(crate) fn stage(
        &mut self,
        writer: &mut Writer,
        window_bytes: usize,
        stands_still: bool,
        copier: &mut dyn Copier,
    ) -> Result<usize, Rule> {
        if stands_still {
            copier.collect(&mut self.pass);
            self.next = 0;
        }
        let mut open: Option<Open> = None;
        let mut end = 0;
        let mut passes = 0;
        loop {
            let Some(page) = self.pass.next(self.next) else {
                // A pass ends a buffer: what the next one collects must not have been sent by then.
                if end > 0 || open.is_some() || passes > 0 {
                    break;
                }
                passes += 1;
                // The pass is empty: each page was taken out when it was sent.
                self.next = 0;
                copier.collect(&mut self.pass);
                continue;
            };
            // The page is copied to where it lies if it goes on with the record that is open, or where it would lie in a record
            // of its own; there it stays if it is no fill.
            let going_on = open.filter(|it| it.takes(page, None));
            let place = going_on.map_or_else(
                || open.map_or(end, |it| it.at + it.bytes()) + HEAD_BYTES + RUN_BYTES,
                |it| it.at + it.bytes(),
            );
            if place + PAGE_LENGTH > window_bytes {
                break;
            }
            let fill = copier.copy_page(page, place)?;
            open = match open {
                Some(it) if it.takes(page, fill) => Some(Open { pages: it.pages + 1, ..it }),
                before => {
                    if let Some(before) = before {
                        end = close(&before, writer, copier)?;
                    }
                    // Data lies where its record has it: `place` was chosen for either case.
                    Some(Open { at: end, first: page, pages: 1, fill })
                }
            };
            self.pass.remove(page);
            self.next = page + 1;
        }
        match open {
            Some(open) => close(&open, writer, copier),
            None => Ok(end),
        }
    }
}

/// Completes a record, and gives its end.
fn close(record: &Open, writer: &mut Writer, copier: &mut dyn Copier) -> Result<usize, Rule> {
    let run = Run {
        first: U64::new(record.first),
        pages: U32::new(record.pages),
        encoding: U32::new(if record.fill.is_some() { FILL } else { DATA }),
    };
    let at = record.at + HEAD_BYTES;
    copier.put(at, run.as_bytes())?;
    if let Some(word) = record.fill {
        copier.put(at + RUN_BYTES, &word.to_le_bytes())?;
    }
    let length = record.bytes() - HEAD_BYTES;
    let head = writer.memory_record(length, |seed| copier.crc(seed, at, length))?;
    copier.put(record.at, &head)?;
    Ok(at + length)
}

/// What a record says.
pub(crate) enum Content<'a> {
    /// The pages themselves.
    Data(&'a [u8]),
    /// The word that fills them.
    Fill(u64),
}

/// Takes device memory in.
pub(crate) struct Receiver {
    /// What has come in pieces of the stream that were taken.
    arrived: PageSet,
    /// What has come in the piece that is being looked at.
    fresh: PageSet,
    /// First and last page of it, at most.
    fresh_range: Option<(u64, u64)>,
    /// What had arrived when a header came, until that piece is taken or refused.
    before: Option<PageSet>,
}

impl Receiver {
    /// A receiver for so many pages.
    ///
    /// # Errors
    ///
    /// [`Rule::NoMemory`].
    pub(crate) fn new(pages: u64) -> Result<Self, Rule> {
        Ok(Self {
            arrived: PageSet::new(pages)?,
            fresh: PageSet::new(pages)?,
            fresh_range: None,
            before: None,
        })
    }

    /// A header came: what has come before does not count.
    ///
    /// # Errors
    ///
    /// [`Rule::NoMemory`].
    pub(crate) fn begin_anew(&mut self) -> Result<(), Rule> {
        let none = PageSet::new(self.arrived.pages)?;
        let before = core::mem::replace(&mut self.arrived, none);
        self.before.get_or_insert(before);
        self.drain_fresh(|_, _| {});
        Ok(())
    }

    /// The piece of the stream was taken, or it was refused, with all that is in it.
    pub(crate) fn settle(&mut self, taken: bool) {
        match self.before.take() {
            Some(before) if !taken => self.arrived = before,
            _ => {}
        }
        self.drain_fresh(|arrived, fresh| {
            if taken {
                *arrived |= fresh;
            }
        });
    }

    /// Empties `fresh`; `each` gets the words of it, and those of `arrived`.
    fn drain_fresh(&mut self, each: impl Fn(&mut u64, u64)) {
        let Some((first, last)) = self.fresh_range.take() else { return };
        let words = usize::try_from(first / WORD_PAGES)
            .ok()
            .zip(usize::try_from(last / WORD_PAGES).ok())
            .and_then(|(from, to)| {
                let arrived = self.arrived.words.get_mut(from..=to)?;
                Some(arrived.iter_mut().zip(self.fresh.words.get_mut(from..=to)?))
            });
        for (arrived, fresh) in words.into_iter().flatten() {
            each(arrived, core::mem::take(fresh));
        }
    }

    /// Takes a record's payload; `write` puts the content from a page on, so many pages.
    ///
    /// # Errors
    ///
    /// [`Rule::ImageRecord`] if it says what cannot be; those of `write`.
    pub(crate) fn take(
        &mut self,
        payload: &[u8],
        write: impl FnOnce(u64, u64, Content<'_>) -> Result<(), Rule>,
    ) -> Result<(), Rule> {
        let (run, content) = Run::read_from_prefix(payload).map_err(|_| Rule::ImageRecord)?;
        let (first, pages) = (run.first.get(), u64::from(run.pages.get()));
        let inside = first.checked_add(pages).is_some_and(|end| end <= self.arrived.pages);
        if pages == 0 || !inside {
            return Err(Rule::ImageRecord);
        }
        let content = match run.encoding.get() {
            DATA if usize_as_u64(content.len()) == pages * PAGE_BYTES => Content::Data(content),
            FILL => {
                let word = content.try_into().map_err(|_| Rule::ImageRecord)?;
                Content::Fill(u64::from_le_bytes(word))
            }
            _ => return Err(Rule::ImageRecord),
        };
        write(first, pages, content)?;
        self.fresh.add(first, pages);
        let last = first + (pages - 1);
        let (from, to) = self.fresh_range.unwrap_or((first, last));
        self.fresh_range = Some((from.min(first), to.max(last)));
        Ok(())
    }

    /// Whether every page has come.
    pub(crate) fn is_complete(&self) -> bool {
        let words = self.arrived.words.iter().zip(self.fresh.words.iter());
        let come: u64 = words.map(|(a, b)| u64::from((a | b).count_ones())).sum();
        come == self.arrived.pages
    }
}

#[kunit_tests(vfio_mediate_memory)]
mod tests {
    use super::*;

    const PAGES: u64 = 130;

    /// The payload of a record that fills pages with a word.
    fn fill(first: u64, pages: u32) -> [u8; RUN_BYTES + WORD_BYTES] {
        let mut payload = [0; RUN_BYTES + WORD_BYTES];
        let run = Run { first: U64::new(first), pages: U32::new(pages), encoding: U32::new(FILL) };
        for (to, from) in payload.iter_mut().zip(run.as_bytes()) {
            *to = *from;
        }
        payload
    }

    fn take(receiver: &mut Receiver, first: u64, pages: u32) -> Result<(), Rule> {
        receiver.take(&fill(first, pages), |_, _, _| Ok(()))
    }

    #[test]
    fn a_run_lies_inside_or_is_refused() -> Result<(), Rule> {
        let mut receiver = Receiver::new(PAGES)?;
        for (first, pages) in [(0, 0), (PAGES, 1), (PAGES - 1, 2), (u64::MAX, 1), (1, u32::MAX)] {
            assert_eq!(take(&mut receiver, first, pages), Err(Rule::ImageRecord));
        }
        assert_eq!(take(&mut receiver, PAGES - 1, 1), Ok(()));
        Ok(())
    }

    #[test]
    fn pages_count_when_their_piece_is_taken() -> Result<(), Rule> {
        let mut receiver = Receiver::new(PAGES)?;
        take(&mut receiver, 0, 100)?;
        receiver.settle(true);
        take(&mut receiver, 100, 30)?;
        assert!(receiver.is_complete());
        receiver.settle(false);
        assert!(!receiver.is_complete());
        take(&mut receiver, 100, 30)?;
        receiver.settle(true);
        assert!(receiver.is_complete());
        Ok(())
    }

    #[test]
    fn a_header_that_is_refused_takes_nothing_back() -> Result<(), Rule> {
        let mut receiver = Receiver::new(PAGES)?;
        take(&mut receiver, 0, 130)?;
        receiver.settle(true);
        receiver.begin_anew()?;
        assert!(!receiver.is_complete());
        receiver.settle(false);
        assert!(receiver.is_complete());
        receiver.begin_anew()?;
        receiver.settle(true);
        assert!(!receiver.is_complete());
        Ok(())
    }
}
