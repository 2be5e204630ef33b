// SPDX-License-Identifier: GPL-2.0
//! Device memory, sent while it is written, and taken in by the other end.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::abi::rule::Rule;
use crate::ffi::crc32;
use crate::image::{Identity, Kind, Part, Reader, Taker, Writer};
use crate::memory::{Content, Copier, PageSet, Receiver, Sender, MIN_WINDOW_BYTES, PAGE_LENGTH};

/// Under Miri everything takes hundreds of times as long.
const FEW: bool = cfg!(miri);

const PARTS: [Part; 1] = [Part { kind: Kind(1), max_bytes: 8 }];
const PART: [u8; 8] = *b"register";

fn identity(pages: usize) -> Identity {
    Identity::new(0x1af4, 0x1110, 1).with_memory(u64::try_from(pages).expect("few"))
}

/// A page: one word everywhere, but for the last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    word: u64,
    last: u64,
}

impl Page {
    fn bytes(self) -> Vec<u8> {
        let mut bytes = self.word.to_le_bytes().repeat(PAGE_LENGTH / 8);
        bytes[PAGE_LENGTH - 8..].copy_from_slice(&self.last.to_le_bytes());
        bytes
    }
}

fn page() -> impl Strategy<Value = Page> {
    // Few words, so that neighbours are often alike.
    (0..3_u64, 0..3_u64, prop::bool::weighted(0.6))
        .prop_map(|(word, other, alike)| Page { word, last: if alike { word } else { other } })
}

/// The device's end: memory that is written between the buffers, and what was written since the last pass.
struct Source {
    pages: Vec<Page>,
    written: BTreeSet<usize>,
    window: Vec<u8>,
}

impl Source {
    fn write(&mut self, at: usize, page: Page) {
        self.pages[at] = page;
        self.written.insert(at);
    }

    fn pending_bytes(&self, sender: &Sender) -> u64 {
        sender.pending_bytes(u64::try_from(self.written.len()).expect("few"))
    }
}

impl Copier for Source {
    fn collect(&mut self, into: &mut PageSet) {
        for page in std::mem::take(&mut self.written) {
            into.words_mut()[page / 64] |= 1 << (page % 64);
        }
    }

    fn copy_page(&mut self, page: u64, at: usize) -> Result<Option<u64>, Rule> {
        let page = usize::try_from(page).ok().and_then(|page| self.pages.get(page));
        let page = page.ok_or(Rule::OutOfBounds)?;
        self.window[at..at + PAGE_LENGTH].copy_from_slice(&page.bytes());
        Ok((page.word == page.last).then_some(page.word))
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> Result<(), Rule> {
        self.window[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn crc(&self, seed: u32, at: usize, bytes: usize) -> u32 {
        crc32(seed, &self.window[at..at + bytes])
    }
}

/// The other device's end.
struct Target {
    receiver: Receiver,
    memory: Vec<u8>,
}

impl Target {
    fn new(pages: usize) -> Self {
        let receiver = Receiver::new(u64::try_from(pages).expect("few")).expect("there is memory");
        Self { receiver, memory: vec![0xa5; pages * PAGE_LENGTH] }
    }
}

impl Taker for Target {
    fn check(&self, _kind: Kind, payload: &[u8]) -> Result<(), Rule> {
        (payload == PART).then_some(()).ok_or(Rule::ImageRecord)
    }

    fn begin_anew(&mut self) -> Result<(), Rule> {
        self.receiver.begin_anew()
    }

    fn settle(&mut self, taken: bool) {
        self.receiver.settle(taken);
    }

    fn memory(&mut self, payload: &[u8]) -> Result<(), Rule> {
        let memory = &mut self.memory;
        self.receiver.take(payload, |first, pages, content| {
            let start = usize::try_from(first).expect("few") * PAGE_LENGTH;
            let bytes = usize::try_from(pages).expect("few") * PAGE_LENGTH;
            match content {
                Content::Data(data) => memory[start..start + bytes].copy_from_slice(data),
                Content::Fill(word) => {
                    let filled = word.to_le_bytes().repeat(bytes / 8);
                    memory[start..start + bytes].copy_from_slice(&filled);
                }
            }
            Ok(())
        })
    }

    fn all_memory_is_here(&self) -> Result<(), Rule> {
        if self.receiver.is_complete() {
            Ok(())
        } else {
            Err(Rule::ImageIncomplete)
        }
    }
}

/// Both ends of a migration.
struct Migration {
    source: Source,
    writer: Writer,
    sender: Sender,
    stream: Vec<Vec<u8>>,
}

impl Migration {
    fn new(pages: &[Page], window: usize) -> Self {
        let source = Source {
            pages: pages.to_vec(),
            written: (0..pages.len()).collect(),
            window: vec![0; window],
        };
        let count = u64::try_from(pages.len()).expect("few");
        let mut writer = Writer::new(&identity(pages.len())).expect("there is memory");
        let header = writer.next(window).to_vec();
        writer.sent(header.len());
        let sender = Sender::new(count).expect("there is memory");
        Self { source, writer, sender, stream: vec![header] }
    }

    /// Stages a buffer of memory; gives its length.
    fn stage(&mut self, stands_still: bool) -> usize {
        let window = self.source.window.len();
        let bytes = self.sender.stage(&mut self.writer, window, stands_still, &mut self.source);
        let bytes = bytes.expect("the window is long enough");
        assert!(bytes <= window);
        if bytes > 0 {
            self.stream.push(self.source.window[..bytes].to_vec());
        }
        bytes
    }

    fn finish(&mut self) {
        while self.stage(true) > 0 {}
        loop {
            let made = self.writer.refill(&PARTS, |_, out| {
                out.extend_from_slice(&PART, kernel::prelude::GFP_KERNEL)
                    .map_err(|_full| Rule::NoMemory)
            });
            made.expect("there is memory");
            let next = self.writer.next(self.source.window.len()).to_vec();
            if next.is_empty() {
                return;
            }
            self.writer.sent(next.len());
            self.stream.push(next);
        }
    }
}

fn feed(reader: &mut Reader, target: &mut Target, piece: &[u8]) -> Result<(), Rule> {
    let pages = target.memory.len() / PAGE_LENGTH;
    let read = |into: &mut [u8]| {
        into.copy_from_slice(piece);
        Ok(())
    };
    reader.feed(piece.len(), read, &identity(pages), &PARTS, target)
}

proptest! {
    #[test]
    fn what_arrives_is_what_the_device_holds_at_the_end(
        pages in prop::collection::vec(page(), 1..if FEW { 5 } else { 150 }),
        window in MIN_WINDOW_BYTES..40_000,
        writes in prop::collection::vec(
            (any::<prop::sample::Index>(), page()),
            0..if FEW { 5 } else { 60 },
        ),
        every in 1..4_usize,
    ) {
        let mut migration = Migration::new(&pages, window);
        let mut writes = writes.into_iter();
        loop {
            for (at, page) in writes.by_ref().take(every) {
                let at = at.index(pages.len());
                migration.source.write(at, page);
            }
            // What is told to be pending is never less than what comes if nothing more is written.
            let told = migration.source.pending_bytes(&migration.sender);
            let bytes = migration.stage(false);
            let left = migration.source.pending_bytes(&migration.sender);
            prop_assert!(u64::try_from(bytes).expect("small") + left <= told);
            prop_assert_eq!(bytes == 0, told == 0, "nothing comes exactly when nothing is pending");
            if bytes == 0 && writes.len() == 0 {
                break;
            }
        }
        migration.finish();
        let (mut reader, mut target) = (Reader::new(), Target::new(pages.len()));
        for piece in &migration.stream {
            feed(&mut reader, &mut target, piece).expect("the image is good");
        }
        prop_assert!(reader.complete().is_some());
        let holds: Vec<u8> =
            migration.source.pages.iter().flat_map(|page| page.bytes()).collect();
        prop_assert!(target.memory == holds, "the memory differs");
    }

    #[test]
    fn a_device_that_is_all_alike_takes_few_bytes(count in 1..if FEW { 8 } else { 5000_usize }, word in any::<u64>()) {
        let pages = vec![Page { word, last: word }; count];
        let mut migration = Migration::new(&pages, 2 * PAGE_LENGTH);
        migration.finish();
        let sent: usize = migration.stream.iter().map(Vec::len).sum();
        prop_assert!(sent < 300, "{} bytes", sent);
    }

    #[test]
    fn a_damaged_stream_is_refused(
        pages in prop::collection::vec(page(), 1..if FEW { 3 } else { 20 }),
        at in any::<prop::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        let mut migration = Migration::new(&pages, 20_000);
        migration.finish();
        let mut stream = migration.stream.concat();
        let at = at.index(stream.len());
        stream[at] ^= flip;
        let (mut reader, mut target) = (Reader::new(), Target::new(pages.len()));
        let fed = feed(&mut reader, &mut target, &stream);
        prop_assert!(fed.is_err() || reader.complete().is_none(), "byte {} was not missed", at);
    }

    #[test]
    fn a_record_that_cannot_be_is_refused(
        first in any::<u64>(),
        pages in any::<u32>(),
        encoding in 0..4_u32,
        rest in 0..3_usize,
    ) {
        let mut payload = Vec::new();
        payload.extend(first.to_le_bytes());
        payload.extend(pages.to_le_bytes());
        payload.extend(encoding.to_le_bytes());
        payload.extend(vec![0; [0, 8, PAGE_LENGTH][rest]]);
        let mut target = Target::new(4);
        let inside = first.checked_add(pages.into()).is_some_and(|end| end <= 4) && pages > 0;
        let fits = encoding == 1 && rest == 1 || encoding == 0 && rest == 2 && pages == 1;
        let taken = target.memory(&payload);
        prop_assert_eq!(taken.is_ok(), inside && fits);
        prop_assert!(taken.is_ok() || taken == Err(Rule::ImageRecord));
    }
}

#[test]
fn a_page_that_never_came_is_missed_at_the_end() {
    let pages = [Page { word: 1, last: 2 }; 3];
    let mut migration = Migration::new(&pages, MIN_WINDOW_BYTES);
    migration.source.written.remove(&1);
    migration.finish();
    let (mut reader, mut target) = (Reader::new(), Target::new(pages.len()));
    let fed: Result<Vec<()>, Rule> =
        migration.stream.iter().map(|piece| feed(&mut reader, &mut target, piece)).collect();
    assert_eq!(fed, Err(Rule::ImageIncomplete));
    assert!(reader.complete().is_none());
}

#[test]
fn a_page_is_sent_once_when_the_device_stands_still() {
    let pages = [Page { word: 1, last: 2 }; 40];
    let mut migration = Migration::new(&pages, 20_000);
    migration.stage(false);
    // Written while they are left of the pass, and after they were sent.
    for at in [0, 1, 38, 39] {
        migration.source.write(at, Page { word: 3, last: 4 });
    }
    let sent: usize = std::iter::from_fn(|| Some(migration.stage(true)).filter(|it| *it > 0)).sum();
    // Four pages went with the first buffer, two of them have to go again.
    assert!((38 * PAGE_LENGTH..39 * PAGE_LENGTH).contains(&sent), "{sent} bytes");
}

#[test]
fn a_piece_that_is_refused_takes_nothing_back() {
    let pages = [Page { word: 1, last: 2 }; 3];
    let mut migration = Migration::new(&pages, 20_000);
    migration.finish();
    let [header, rest @ ..] = migration.stream.as_slice() else { panic!("there is a header") };
    let (mut reader, mut target) = (Reader::new(), Target::new(pages.len()));
    let [memory, rest @ ..] = rest else { panic!("there is memory") };
    for piece in [header, memory] {
        feed(&mut reader, &mut target, piece).expect("so far it is good");
    }
    let damaged = [header.as_slice(), &[0; 24]].concat();
    assert_eq!(feed(&mut reader, &mut target, &damaged), Err(Rule::ImageMagic));
    for piece in rest {
        feed(&mut reader, &mut target, piece).expect("the image is good");
    }
    assert!(reader.complete().is_some());
}

#[test]
fn a_source_that_was_reset_begins_anew() {
    let (before, after) = ([Page { word: 7, last: 8 }; 5], [Page { word: 9, last: 9 }; 5]);
    let (mut reader, mut target) = (Reader::new(), Target::new(5));
    let mut first = Migration::new(&before, 10_000);
    while first.stage(false) > 0 {}
    let mut second = Migration::new(&after, 10_000);
    second.finish();
    for piece in first.stream.iter().chain(&second.stream) {
        feed(&mut reader, &mut target, piece).expect("the image is good");
    }
    assert!(reader.complete().is_some());
    assert!(target.memory == after.iter().flat_map(|page| page.bytes()).collect::<Vec<_>>());
}
