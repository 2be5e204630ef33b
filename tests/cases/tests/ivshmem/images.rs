// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A destination takes its own kind of image, whole and in order; whatever else comes is refused by its rule, and does no harm.

use cases::guest::{self, Case};
use cases::ivshmem::Ivshmem;
use cases::records::{self, END, HEAD_BYTES, HEADER, IDENTITY_BYTES, MEMORY, RUN_BYTES, Record};
use cases::session::{self, Session};
use migrator::region::RegionIo as _;
use migscope_abi::region::{Field, HEADER_BYTES};
use migscope_abi::rule::Rule;
use migscope_abi::state::State;
use workload::content::{Content, Ground, PAGE, Write};

use crate::{LARGE, SMALL};

pub(crate) const CASES: &[Case] = &[
    ("an_image_is_taken_whatever_its_pieces", any_pieces),
    ("the_last_record_of_a_page_wins", last_wins),
    ("an_image_with_any_byte_changed_is_refused", damaged),
    ("a_truncated_image_is_not_committed", truncated),
    ("an_image_that_leaves_a_page_out_is_refused", incomplete),
    ("records_out_of_order_are_refused", reordered),
    ("a_record_that_says_what_cannot_be_is_refused", impossible),
    ("an_image_of_another_length_is_refused", other_length),
    ("an_image_of_another_kind_of_device_is_refused", other_kind),
    ("two_images_do_not_mix", mixed),
    ("a_header_that_comes_again_starts_the_image_anew", header_again),
    ("a_piece_that_is_refused_takes_nothing_back", refused_piece),
    ("pages_of_a_piece_that_was_refused_do_not_count", refused_pages),
];

const PAGES: u64 = SMALL / PAGE as u64;
/// The registers' kind.
const REGISTERS: u16 = 1;

/// Where a head has the length of its payload.
const LENGTH_AT: usize = 12;

/// What a small image holds: one word everywhere, but for two pages.
fn content() -> Content {
    let mut content = Content::new(Ground::Fill(0x1111), PAGES);
    content.apply(Write { page: 10, slot: 3, word: 5 });
    content.apply(Write { page: PAGES - 1, slot: 511, word: 6 });
    content
}

/// An image of it, from a driver: header, memory, registers, end.
fn image() -> Vec<u8> {
    let mut from = Ivshmem::open(SMALL, 1);
    let mapping = from.map();
    let put = content().put(|at, bytes| {
        mapping.write(usize::try_from(at).expect("fits"), bytes);
        Ok(())
    });
    put.expect("a mapping is written");
    let image = from.stop_and_drain().image();
    let (records, first) = records::split(&image);
    let kinds: Vec<u16> = records.iter().map(|record| record.kind).collect();
    let (last, memory) = (kinds.len() - 2, vec![MEMORY; kinds.len() - 3]);
    assert_eq!(kinds[..1], [HEADER]);
    assert_eq!(kinds[1..last], memory);
    assert_eq!(kinds[last..], [REGISTERS, END]);
    assert_eq!(first, Some(0));
    assert_eq!(records::join(&records[..kinds.len() - 1]), image, "the format is another one");
    image
}

/// The records of [`image`], without the end.
fn parts() -> Vec<Record> {
    let (mut records, _) = records::split(&image());
    records.pop();
    records
}

/// A destination that waits for an image.
fn destination() -> Ivshmem {
    let mut to = Ivshmem::open(SMALL, 0);
    to.resume();
    to
}

/// Writes a piece and its length, which must be refused; gives the rule.
fn refusal(to: &mut Ivshmem, what: &str, piece: &[u8]) -> Rule {
    assert_eq!(to.session.write(HEADER_BYTES, piece).expect("the window takes it"), piece.len());
    let bytes = u64::try_from(piece.len()).expect("fits");
    to.session.refusal(what, |session| session.put(Field::DataSize, bytes)).rule
}

/// What was refused did no harm: the device can be reset, used, and takes a good image.
fn still_good(mut to: Ivshmem, image: &[u8]) {
    to.session.region.io().reset().expect("a reset works in every state");
    assert_eq!(to.session.state(), State::Running);
    to.write(0, &[1; 8]).expect("it can be used");
    to.resume();
    takes(to, image);
}

/// A destination takes the good image, and then holds it.
fn takes(mut to: Ivshmem, image: &[u8]) {
    to.take_image(image);
    to.commit();
    to.assert_holds("the destination", &content());
}

/// Asserts that an image is refused by this rule.
fn refused(rule: Rule, what: &str, bad: &[u8], good: &[u8]) {
    let mut to = destination();
    assert_eq!(refusal(&mut to, what, bad), rule, "{what}");
    still_good(to, good);
}

fn any_pieces() {
    let image = image();
    let mut random = fastrand::Rng::with_seed(5);
    for longest in [1, 100, 9000] {
        let mut to = destination();
        let mut rest = image.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.usize(1..=longest).min(rest.len()));
            to.session.region.load_buffer(piece).expect("a good piece");
            rest = after;
        }
        to.commit();
        to.assert_holds("the destination", &content());
    }
}

/// Everything but the memory, and the memory as these records say.
fn with_memory(memory: &[Record]) -> Vec<u8> {
    let parts = parts();
    let (header, registers) = (parts[0].clone(), parts[parts.len() - 1].clone());
    records::join(&[&[header], memory, &[registers]].concat())
}

/// [`content`], in other records than a driver makes.
fn memory() -> Vec<Record> {
    let all = u32::try_from(PAGES).expect("fits");
    let page = |number| {
        let mut page = [0; PAGE];
        content().page(number, &mut page);
        Record::data(number, &page)
    };
    vec![Record::fill(0, all, 0x1111), page(10), page(PAGES - 1)]
}

fn last_wins() {
    takes(destination(), &with_memory(&memory()));
    let all = u32::try_from(PAGES).expect("fits");
    let noise: Vec<u8> = (0..20 * PAGE).map(|at| (at % 251).to_le_bytes()[0]).collect();
    // Overlaps of every kind, and each page three times at least.
    let before = [
        Record::fill(0, all, 7),
        Record::data(5, &noise[..10 * PAGE]),
        Record::fill(8, 3, 9),
        Record::data(0, &noise[..PAGE]),
        Record::data(PAGES - 2, &noise[..2 * PAGE]),
    ];
    let image = with_memory(&[&before[..], &memory()].concat());
    let mut to = destination();
    to.take_image(&image);
    to.commit();
    to.assert_holds("the destination", &content());
}

fn damaged() {
    let image = image();
    let mut borders = vec![0];
    let (records, _) = records::split(&image);
    for record in &records {
        borders.push(borders[borders.len() - 1] + HEAD_BYTES + record.payload.len());
    }
    let in_record = |at: usize| {
        let record = borders.iter().rposition(|border| *border <= at).expect("in a record");
        at - borders[record]
    };
    let mut to = destination();
    // Every byte of every head and of what memory records begin with, and enough of the rest.
    let chosen = |at: &usize| in_record(*at) < HEAD_BYTES + RUN_BYTES || at.is_multiple_of(613);
    for at in (0..image.len()).filter(chosen) {
        let mut bad = image.clone();
        bad[at] ^= 0x20;
        let what = format!("byte {at} changed");
        if in_record(at) == LENGTH_AT + 1 && to.session.region.load_buffer(&bad).is_ok() {
            // The record is longer than what came: it may go on in the next piece, but the image has no end.
            to.session.refuses(Rule::ImageIncomplete, &what, |session| {
                session.write(0, &(State::Running as u32).to_ne_bytes())
            });
            to.session.region.set_state(State::Stopped).expect("the image is dropped");
            to.resume();
            continue;
        }
        let rule = refusal(&mut to, &what, &bad);
        match in_record(at) {
            0..4 => assert_eq!(rule, Rule::ImageMagic, "byte {at}"),
            4..6 => assert_eq!(rule, Rule::ImageVersion, "byte {at}"),
            6..HEAD_BYTES => {
                let rules = [Rule::ImageRecord, Rule::ImageChecksum];
                assert!(rules.contains(&rule), "byte {at}: {rule:?}");
            }
            _ => assert_eq!(rule, Rule::ImageChecksum, "byte {at}"),
        }
    }
    still_good(to, &image);
}

fn truncated() {
    let image = image();
    let mut to = destination();
    let mut fed = 0;
    for end in [0, 1, HEAD_BYTES, 200, image.len() / 2, image.len() - 41, image.len() - 1] {
        if end > fed {
            to.take_image(&image[fed..end]);
            fed = end;
        }
        let what = format!("a commit after {end} of {} bytes", image.len());
        to.session.refuses(Rule::ImageIncomplete, &what, |session| {
            session.write(0, &(State::Running as u32).to_ne_bytes())
        });
    }
    to.take_image(&image[fed..]);
    to.commit();
    to.assert_holds("the destination", &content());
    drop(to);
    let mut to = destination();
    to.take_image(&image[..image.len() / 2]);
    still_good(to, &image);
}

fn incomplete() {
    let image = image();
    let all = u32::try_from(PAGES).expect("fits");
    let last = PAGES - 1;
    for (what, memory) in [
        ("no memory", vec![]),
        ("the first page", vec![Record::fill(1, all - 1, 3)]),
        ("the last page", vec![Record::fill(0, all - 1, 3)]),
        ("a page inside", vec![Record::fill(0, 100, 3), Record::fill(101, all - 101, 3)]),
        ("all but the last, twice", vec![Record::fill(0, all - 1, 3), Record::fill(0, all - 1, 4)]),
    ] {
        let bad = with_memory(&memory);
        refused(Rule::ImageIncomplete, what, &bad, &image);
    }
    // The same, and the page that is missing.
    let mut to = destination();
    to.take_image(&with_memory(&[Record::fill(0, all - 1, 3), Record::fill(last, 1, 4)]));
    to.commit();
}

fn reordered() {
    let image = image();
    let parts = parts();
    let (header, registers) = (&parts[0], &parts[parts.len() - 1]);
    let memory = memory();
    let all = |order: &[&[Record]]| records::join(&order.concat());
    let (header, registers) = ([header.clone()], [registers.clone()]);
    let orders: [(&str, Vec<u8>); 4] = [
        ("memory before the header", all(&[&memory, &header, &registers])),
        ("registers before memory", all(&[&header, &registers, &memory])),
        ("registers twice", all(&[&header, &memory, &registers, &registers])),
        ("a header after the registers", all(&[&header, &memory, &registers, &header])),
    ];
    for (what, bad) in orders {
        refused(Rule::ImageRecord, what, &bad, &image);
    }
    // Two records of memory change places, with their sequence numbers.
    let (records, _) = records::split(&image);
    let lengths = records.iter().map(|record| HEAD_BYTES + record.payload.len());
    let mut rest = image.as_slice();
    let mut pieces: Vec<&[u8]> = Vec::new();
    for length in lengths {
        let (piece, after) = rest.split_at(length);
        pieces.push(piece);
        rest = after;
    }
    pieces.swap(1, 2);
    refused(Rule::ImageRecord, "two records swapped", &pieces.concat(), &image);
    pieces.swap(1, 2);
    let without = [&pieces[..2], &pieces[3..]].concat().concat();
    refused(Rule::ImageRecord, "a record left out", &without, &image);
    let twice = [&pieces[..2], &pieces[1..]].concat().concat();
    refused(Rule::ImageRecord, "a record twice", &twice, &image);
    let mut to = destination();
    to.take_image(&image);
    assert_eq!(refusal(&mut to, "a byte after the end", &[0]), Rule::ImageRecord);
    to.commit();
    to.assert_holds("the destination", &content());
}

fn impossible() {
    let image = image();
    let page = [7; PAGE];
    let word = 7_u64.to_le_bytes();
    let all = u32::try_from(PAGES).expect("fits");
    for (what, record) in [
        ("no pages", Record::run(0, 0, 1, &word)),
        ("no pages of data", Record::run(0, 0, 0, &[])),
        ("a page after the last", Record::run(PAGES, 1, 1, &word)),
        ("a run past the last", Record::run(1, all, 1, &word)),
        ("the last address", Record::run(u64::MAX, 1, 1, &word)),
        ("a run past the last address", Record::run(u64::MAX - 1, 2, 1, &word)),
        ("a run round the address space", Record::run(u64::MAX, u32::MAX, 1, &word)),
        ("an encoding that is none", Record::run(0, 1, 2, &word)),
        ("a page and a bit", Record::run(0, 1, 0, &[&page[..], &[0]].concat())),
        ("less than a page", Record::run(0, 1, 0, &page[1..])),
        ("one page of two", Record::run(0, 2, 0, &page)),
        ("half a word", Record::run(0, 1, 1, &word[..4])),
        ("two words", Record::run(0, 1, 1, &[word, word].concat())),
        ("nothing", Record { kind: MEMORY, payload: Vec::new() }),
        ("half of it", Record { kind: MEMORY, payload: vec![0; RUN_BYTES - 1] }),
        ("a kind that is none", Record { kind: MEMORY + 1, payload: vec![0; 24] }),
    ] {
        let mut memory = memory();
        memory.insert(1, record);
        refused(Rule::ImageRecord, what, &with_memory(&memory), &image);
    }
}

/// The image of a device with other memory, or no memory at all.
fn other_length() {
    let image = image();
    let mut large = Ivshmem::open(LARGE, 0);
    let other = large.stop_and_drain().image();
    refused(Rule::ImageDevice, "a larger memory", &other, &image);
    large.session.region.set_state(State::Stopped).expect("it was saved");
    large.resume();
    assert_eq!(refusal(&mut large, "a smaller memory", &image), Rule::ImageDevice);
    large.session.region.io().reset().expect("a reset");
    large.resume();
    large.take_image(&other);
    large.commit();
}

fn other_kind() {
    let image = image();
    let edu = guest::devices_of((0x1234, 0x11e8))[0];
    let mut edu = Session::open_device(edu, session::memory());
    let other = edu.image().concat();
    refused(Rule::ImageDevice, "an edu device", &other, &image);
    edu.bring_to(State::Resuming);
    edu.write(HEADER_BYTES, &image[..HEAD_BYTES + IDENTITY_BYTES]).expect("the window takes it");
    let bytes = u64::try_from(HEAD_BYTES + IDENTITY_BYTES).expect("fits");
    edu.refuses(Rule::ImageDevice, "a memory", |session| session.put(Field::DataSize, bytes));
    let mut parts = parts();
    parts[0].payload[4] += 1;
    refused(Rule::ImageVersion, "another version", &records::join(&parts), &image);
}

/// Records with the right sequence numbers and checksums, from two images.
fn mixed() {
    let image = image();
    let mut parts = parts();
    parts[1] = match parts[1].memory() {
        Some(run) => Record::fill(run.first, u32::try_from(run.pages).expect("fits"), 0xbad),
        None => panic!("no memory after the header"),
    };
    let mut other = records::join(&parts);
    let end = HEAD_BYTES + 16;
    let good_end = &image[image.len() - end..];
    let at = other.len() - end;
    other[at..].copy_from_slice(good_end);
    refused(Rule::ImageRecord, "the end of another image", &other, &image);
}

/// A source that was reset in pre-copy is saved from the start again, in the same stream.
fn header_again() {
    let image = image();
    let parts = parts();
    let all = u32::try_from(PAGES).expect("fits");
    let begun = records::join(&[parts[0].clone(), Record::fill(0, all, 3)]);
    // Without its end.
    let begun = &begun[..begun.len() - HEAD_BYTES - 16];
    takes(destination(), &[begun, &image].concat());
    // What came before the second header does not count.
    let registers = parts[parts.len() - 1].clone();
    let nothing = records::join(&[parts[0].clone(), registers]);
    let bad = [begun, &nothing].concat();
    refused(Rule::ImageIncomplete, "memory that came before the header", &bad, &image);
}

/// A piece is refused as a whole: the image goes on where it was, as if the piece had not come.
fn refused_piece() {
    let image = image();
    let (records, _) = records::split(&image);
    let mut border = 0;
    let mut to = destination();
    for record in &records {
        let record_bytes = HEAD_BYTES + record.payload.len();
        let whole = &image[border..border + record_bytes];
        // Good records, then one that is not: a header that begins anew among them.
        let header = &image[..HEAD_BYTES + IDENTITY_BYTES];
        let mut damaged = whole.to_vec();
        damaged[20] ^= 1;
        if border > 0 && record.kind == MEMORY {
            let rule = refusal(&mut to, "a header and damage", &[header, &damaged].concat());
            assert_eq!(rule, Rule::ImageRecord);
        }
        assert_eq!(refusal(&mut to, "damage", &damaged), Rule::ImageRecord);
        to.take_image(whole);
        border += record_bytes;
    }
    to.commit();
    to.assert_holds("the destination", &content());
}

/// Sound records of memory in a piece that is refused for another one are not a part of the image.
fn refused_pages() {
    let image = image();
    let parts = parts();
    let header = &image[..HEAD_BYTES + IDENTITY_BYTES];
    let memory = &image[header.len()..image.len() - 2 * HEAD_BYTES - 8 - 16];
    let mut to = destination();
    to.take_image(header);
    // The registers' record, damaged.
    let registers = &image[header.len() + memory.len()..][..HEAD_BYTES + 8];
    let mut damaged = registers.to_vec();
    damaged[HEAD_BYTES] ^= 1;
    let rule = refusal(&mut to, "memory and damage", &[memory, &damaged].concat());
    assert_eq!(rule, Rule::ImageChecksum);
    // An image without memory, from where the last good piece ended.
    let nothing = records::join(&[parts[0].clone(), parts[parts.len() - 1].clone()]);
    let rule = refusal(&mut to, "no memory", &nothing[header.len()..]);
    assert_eq!(rule, Rule::ImageIncomplete);
    still_good(to, &image);
}
