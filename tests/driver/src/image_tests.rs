// SPDX-License-Identifier: GPL-2.0
//! The image, cut, damaged and starved of memory.

use kernel::allocator::fail_after;
use kernel::prelude::GFP_KERNEL;
use proptest::prelude::*;

use crate::abi::rule::Rule;
use crate::image::{Identity, Kind, Part, Reader, Taker, Writer};

const PARTS: [Part; 3] = [
    Part { kind: Kind(1), max_bytes: 56 },
    Part { kind: Kind(2), max_bytes: 4095 },
    Part { kind: Kind(3), max_bytes: 0 },
];
/// Under Miri each random byte costs some milliseconds.
const LONGEST_PAYLOAD: usize = if cfg!(miri) { 200 } else { 4095 };
const LONGEST_GIBBERISH: usize = if cfg!(miri) { 400 } else { 10_000 };
const OWN: Identity = Identity::new(0x1234, 0x11e8, 1);

fn payloads() -> impl Strategy<Value = [Vec<u8>; 3]> {
    let payload =
        |part: &Part| prop::collection::vec(any::<u8>(), 0..=part.max_bytes.min(LONGEST_PAYLOAD));
    [payload(&PARTS[0]), payload(&PARTS[1]), payload(&PARTS[2])]
}

fn refill(writer: &mut Writer, payloads: &[Vec<u8>; 3]) -> Result<(), Rule> {
    writer.refill(&PARTS, |kind, out| {
        let payload = &payloads[usize::from(kind.0) - 1];
        out.extend_from_slice(payload, GFP_KERNEL).map_err(|_full| Rule::NoMemory)
    })
}

fn pending(writer: &Writer) -> u64 {
    writer.ready_bytes() + writer.later_bytes(&PARTS)
}

/// The whole stream, through a window of `window` bytes.
fn stream(payloads: &[Vec<u8>; 3], window: usize) -> Vec<u8> {
    let mut writer = Writer::new(&OWN).expect("there is memory");
    let mut stream = Vec::new();
    while pending(&writer) > 0 {
        refill(&mut writer, payloads).expect("there is memory");
        let next = writer.next(window);
        stream.extend_from_slice(next);
        let bytes = next.len();
        writer.sent(bytes);
    }
    stream
}

/// A device without memory that takes any part.
struct NoMemory;

impl Taker for NoMemory {
    fn check(&self, _kind: Kind, _payload: &[u8]) -> Result<(), Rule> {
        Ok(())
    }

    fn begin_anew(&mut self) -> Result<(), Rule> {
        Ok(())
    }

    fn settle(&mut self, _taken: bool) {}

    fn memory(&mut self, _payload: &[u8]) -> Result<(), Rule> {
        Err(Rule::ImageRecord)
    }

    fn all_memory_is_here(&self) -> Result<(), Rule> {
        Ok(())
    }
}

fn feed(reader: &mut Reader, piece: &[u8]) -> Result<(), Rule> {
    let read = |into: &mut [u8]| {
        into.copy_from_slice(piece);
        Ok(())
    };
    reader.feed(piece.len(), read, &OWN, &PARTS, &mut NoMemory)
}

/// Whether the reader has the image of these payloads.
fn has(reader: &Reader, payloads: &[Vec<u8>; 3]) -> bool {
    let arrived = reader.complete().map(|records| {
        records.iter().map(|record| (record.kind, record.payload.to_vec())).collect::<Vec<_>>()
    });
    let parts = PARTS.iter().map(|part| part.kind).zip(payloads.iter().cloned());
    arrived == Some(parts.collect())
}

proptest! {
    #[test]
    fn pending_bytes_never_tells_too_little(payloads in payloads(), window in 1..6000usize) {
        let mut writer = Writer::new(&OWN).expect("there is memory");
        let mut told = pending(&writer);
        while told > 0 {
            refill(&mut writer, &payloads).expect("there is memory");
            let bytes = writer.next(window).len();
            prop_assert!(bytes > 0, "something is pending, so something is sent");
            writer.sent(bytes);
            let rest = pending(&writer);
            prop_assert!(rest + u64::try_from(bytes).expect("small") <= told);
            told = rest;
        }
        prop_assert!(writer.next(window).is_empty());
    }

    #[test]
    fn an_image_arrives_however_it_is_cut(
        payloads in payloads(),
        window in 1..6000usize,
        cuts in prop::collection::vec(1..3000usize, 1..20),
    ) {
        let stream = stream(&payloads, window);
        let mut reader = Reader::new();
        let (mut rest, mut cuts) = (&stream[..], cuts.iter().cycle());
        while !rest.is_empty() {
            prop_assert!(reader.complete().is_none());
            let (piece, more) = rest.split_at(*cuts.next().expect("a cycle").min(&rest.len()));
            feed(&mut reader, piece).expect("the image is good");
            rest = more;
        }
        prop_assert!(has(&reader, &payloads));
        prop_assert_eq!(feed(&mut reader, &[0]), Err(Rule::ImageRecord), "nothing follows the end");
    }

    #[test]
    fn a_damaged_piece_is_refused_and_the_right_one_is_taken_after_it(
        payloads in payloads(), at in any::<prop::sample::Index>(), bit in 0..8u32,
    ) {
        let stream = stream(&payloads, 4096);
        let mut damaged = stream.clone();
        damaged[at.index(stream.len())] ^= 1 << bit;
        let mut reader = Reader::new();
        match feed(&mut reader, &damaged) {
            Err(_) => {
                feed(&mut reader, &stream).expect("the reader is what it was");
                prop_assert!(has(&reader, &payloads));
            }
            // A length that has grown lets it wait for more.
            Ok(()) => prop_assert!(reader.complete().is_none()),
        }
    }

    #[test]
    fn an_image_that_is_cut_off_is_never_complete(
        payloads in payloads(), at in any::<prop::sample::Index>(),
    ) {
        let stream = stream(&payloads, 4096);
        let mut reader = Reader::new();
        feed(&mut reader, &stream[..at.index(stream.len())]).expect("so far it is good");
        prop_assert!(reader.complete().is_none());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..LONGEST_GIBBERISH)) {
        let mut reader = Reader::new();
        let _verdict = feed(&mut reader, &bytes);
        prop_assert!(reader.complete().is_none());
    }

    #[test]
    fn without_memory_nothing_is_taken_and_nothing_is_lost(
        payloads in payloads(), allocations in 0..8u32, cut in any::<prop::sample::Index>(),
    ) {
        let stream = stream(&payloads, 4096);
        let (first, second) = stream.split_at(cut.index(stream.len()));
        let mut reader = Reader::new();
        for piece in [first, second] {
            let fed = {
                let _failing = fail_after(allocations);
                feed(&mut reader, piece)
            };
            if fed.is_err() {
                prop_assert_eq!(fed, Err(Rule::NoMemory));
                feed(&mut reader, piece).expect("the reader is what it was");
            }
        }
        prop_assert!(has(&reader, &payloads));
    }

    #[test]
    fn a_record_that_could_not_be_made_is_made_later(payloads in payloads(), allocations in 0..3u32) {
        let mut writer = Writer::new(&OWN).expect("there is memory");
        let mut sent = Vec::new();
        while pending(&writer) > 0 {
            let before = pending(&writer);
            let refilled = {
                let _failing = fail_after(allocations);
                refill(&mut writer, &payloads)
            };
            if refilled.is_err() {
                prop_assert_eq!(pending(&writer), before);
                refill(&mut writer, &payloads).expect("there is memory");
            }
            let next = writer.next(5000);
            sent.extend_from_slice(next);
            let bytes = next.len();
            writer.sent(bytes);
        }
        prop_assert_eq!(sent, stream(&payloads, 5000));
    }
}

#[test]
fn another_devices_image_is_refused_by_its_first_record() {
    for (vendor, device, version, rule) in [
        (0x1af4, 0x11e8, 1, Rule::ImageDevice),
        (0x1234, 0x1000, 1, Rule::ImageDevice),
        (0x1234, 0x11e8, 2, Rule::ImageVersion),
    ] {
        let writer = Writer::new(&Identity::new(vendor, device, version)).expect("there is memory");
        assert_eq!(feed(&mut Reader::new(), writer.next(64)), Err(rule));
    }
}
