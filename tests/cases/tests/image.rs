// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Images: a destination takes in what a source of its kind gave out, whole and in order, and nothing else.
//!
//! The framing is `driver/image.rs`: records of magic 4, version 2, kind 2, sequence 4, length 4, checksum 4, reserved 4 and
//! payload; a header, the device's parts, an end.

use std::ops::Range;
use std::process::ExitCode;

use cases::guest;
use cases::session::{PATIENCE, Session};
use migscope_abi::rule::Rule;
use migscope_abi::state::State;
use workload::edu::{BUFFER_BYTES, LIVENESS, Transfer};

fn main() -> ExitCode {
    guest::run(&[
        ("an_image_is_taken_in_as_it_was_given_out", taken_in),
        ("an_image_is_taken_in_whatever_its_pieces", any_pieces),
        ("a_truncated_image_is_not_committed", truncated),
        ("an_image_with_any_byte_changed_is_refused", damaged),
        ("an_image_of_another_device_is_refused", foreign),
        ("an_image_of_another_version_is_refused", version),
        ("noise_is_no_image", noise),
        ("records_out_of_order_are_refused", reordered),
        ("a_record_too_many_or_too_few_is_refused", miscounted),
        ("a_header_that_comes_again_starts_the_image_anew", header_again),
        ("a_record_that_is_sound_and_says_what_cannot_be_is_refused", impossible),
        ("bytes_after_the_end_are_refused", after_the_end),
        ("an_end_with_other_totals_is_refused", other_totals),
        ("a_dropped_image_changes_nothing", dropped),
    ])
}

const HEAD_BYTES: usize = 24;
const SOURCE_LIVENESS: u32 = 0x1357_9bdf;

/// A device with something in every part of its state, and the image of it.
fn saved() -> (Session, Vec<u8>) {
    let mut session = Session::first();
    let edu = session.device.edu();
    edu.write_u32(LIVENESS, SOURCE_LIVENESS).expect("a register");
    let memory = session.device.memory();
    let pattern: Vec<u8> = (0..BUFFER_BYTES).map(|at| (at % 251).to_le_bytes()[0]).collect();
    memory.write(memory.iova(), &pattern).expect("memory");
    let load =
        Transfer { memory: memory.iova(), buffer_at: 0, bytes: BUFFER_BYTES, to_memory: false };
    edu.transfer(load, PATIENCE).expect("the buffer is loaded");
    let image = session.image().concat();
    // What is loaded must be seen to come from the image.
    edu.write_u32(LIVENESS, 0).expect("a register");
    (session, image)
}

/// A destination, and an image that it would take.
fn destination() -> (Session, Vec<u8>) {
    let (mut session, image) = saved();
    session.bring_to(State::Resuming);
    (session, image)
}

fn records(image: &[u8]) -> Vec<Range<usize>> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < image.len() {
        let length: [u8; 4] = image[at + 12..at + 16].try_into().expect("four bytes");
        let end = at + HEAD_BYTES + usize::try_from(u32::from_le_bytes(length)).expect("fits");
        records.push(at..end);
        at = end;
    }
    assert_eq!(records.len(), 4, "header, registers, buffer, end");
    records
}

/// Gives a record whose payload was changed its right checksum.
fn reseal(record: &mut [u8]) {
    record[16..20].fill(0);
    let checksum = crc32fast::hash(record);
    record[16..20].copy_from_slice(&checksum.to_le_bytes());
}

fn feed(session: &mut Session, piece: &[u8]) -> std::io::Result<()> {
    session.region.load_buffer(piece).map_err(|error| {
        std::io::Error::from_raw_os_error(error.errno().expect("the driver refused it"))
    })
}

fn feed_refused(session: &mut Session, rule: Rule, what: &str, piece: &[u8]) {
    let got = feed_refusal(session, what, piece);
    assert_eq!(got, rule, "{what}");
}

/// Writes a piece and then its length, which is what must be refused.
fn feed_refusal(session: &mut Session, what: &str, piece: &[u8]) -> Rule {
    use migscope_abi::region::{Field, HEADER_BYTES};
    assert_eq!(session.write(HEADER_BYTES, piece).expect("the window takes it"), piece.len());
    let bytes = u64::try_from(piece.len()).expect("fits");
    session.refusal(what, |session| session.put(Field::DataSize, bytes)).rule
}

/// The image is complete: the device runs with the state that it holds.
fn commit(session: &mut Session) {
    session.region.set_state(State::Running).expect("the image is complete");
    let edu = session.device.edu();
    assert_eq!(edu.read_u32(LIVENESS).expect("a register"), !SOURCE_LIVENESS);
    session.store(20, BUFFER_BYTES);
    let memory = session.device.memory();
    let mut buffer = vec![0; usize::try_from(BUFFER_BYTES).expect("fits")];
    memory.read(session.pfn(20) * migrator::PAGE_BYTES, &mut buffer).expect("memory");
    assert!(buffer.iter().zip(0_u32..).all(|(byte, at)| *byte == (at % 251).to_le_bytes()[0]));
}

fn taken_in() {
    let (mut session, _) = saved();
    session.device.edu().write_u32(LIVENESS, SOURCE_LIVENESS).expect("a register");
    let buffers = session.image();
    session.device.edu().write_u32(LIVENESS, 0).expect("a register");
    session.bring_to(State::Resuming);
    for buffer in &buffers {
        feed(&mut session, buffer).expect("a good piece");
    }
    commit(&mut session);
}

fn any_pieces() {
    let mut random = fastrand::Rng::with_seed(7);
    for longest in [1, 30, 5000] {
        let (mut session, image) = destination();
        let mut rest = image.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.usize(1..=longest).min(rest.len()));
            feed(&mut session, piece).expect("a good piece");
            rest = after;
        }
        commit(&mut session);
    }
}

fn truncated() {
    let (mut session, image) = destination();
    let borders: Vec<usize> = records(&image).iter().map(|record| record.start).collect();
    let mut fed = 0;
    for end in borders.iter().flat_map(|at| [*at, at + 1, at + HEAD_BYTES]).chain([image.len() - 1])
    {
        feed(&mut session, &image[fed..end]).expect("a good piece");
        fed = end;
        session.refuses(Rule::ImageIncomplete, &format!("commit after {end} bytes"), |session| {
            session.write(0, &1_u32.to_ne_bytes())
        });
    }
    feed(&mut session, &image[fed..]).expect("the rest");
    commit(&mut session);
}

fn damaged() {
    let (mut session, image) = destination();
    let records = records(&image);
    let is_image_rule = |rule| {
        matches!(
            rule,
            Rule::ImageMagic
                | Rule::ImageVersion
                | Rule::ImageDevice
                | Rule::ImageRecord
                | Rule::ImageChecksum
        )
    };
    // Every byte of every head, and of the payloads enough to hit each part.
    let is_head = |at: usize| {
        let record = records.iter().find(|record| record.contains(&at)).expect("in a record");
        at - record.start < HEAD_BYTES
    };
    for at in (0..image.len()).filter(|at| is_head(*at) || at % 61 == 0) {
        let mut image = image.clone();
        image[at] ^= 0x40;
        let rule = feed_refusal(&mut session, &format!("byte {at} changed"), &image);
        assert!(is_image_rule(rule), "byte {at}: {rule:?}");
        let record = records.iter().find(|record| record.contains(&at)).expect("in a record");
        match at - record.start {
            0..4 => assert_eq!(rule, Rule::ImageMagic),
            4..6 => assert_eq!(rule, Rule::ImageVersion),
            HEAD_BYTES.. => assert_eq!(rule, Rule::ImageChecksum),
            _ => {}
        }
    }
    // Nothing of them stuck.
    feed(&mut session, &image).expect("the good image");
    commit(&mut session);
}

fn foreign() {
    let (mut session, mut image) = destination();
    let header = records(&image)[0].clone();
    image[header.start + HEAD_BYTES + 2] ^= 1;
    reseal(&mut image[header]);
    feed_refused(&mut session, Rule::ImageDevice, "another PCI device", &image);
}

fn version() {
    let (mut session, image) = destination();
    let header = records(&image)[0].clone();
    let mut other = image.clone();
    other[header.start + HEAD_BYTES + 4] += 1;
    reseal(&mut other[header.clone()]);
    feed_refused(&mut session, Rule::ImageVersion, "another version of the parts", &other);
    let mut other = image.clone();
    other[header.start + 4] += 1;
    reseal(&mut other[header]);
    feed_refused(&mut session, Rule::ImageVersion, "another version of the framing", &other);
    feed(&mut session, &image).expect("the good image");
    commit(&mut session);
}

fn noise() {
    let (mut session, image) = destination();
    let mut random = fastrand::Rng::with_seed(3);
    for bytes in [24, 100, 4096] {
        let mut noise = vec![0; bytes];
        random.fill(&mut noise);
        feed_refused(&mut session, Rule::ImageMagic, "noise", &noise);
    }
    feed_refused(&mut session, Rule::ImageMagic, "zeros", &[0; 64]);
    feed(&mut session, &image).expect("the good image");
    commit(&mut session);
}

fn joined(image: &[u8], order: &[usize]) -> Vec<u8> {
    let records = records(image);
    order.iter().flat_map(|at| image[records[*at].clone()].to_vec()).collect()
}

fn reordered() {
    let (mut session, image) = destination();
    for order in [[1, 0, 2, 3], [0, 2, 1, 3], [0, 1, 3, 2], [3, 2, 1, 0]] {
        let image = joined(&image, &order);
        feed_refused(&mut session, Rule::ImageRecord, &format!("{order:?}"), &image);
    }
    feed(&mut session, &image).expect("the good image");
    commit(&mut session);
}

fn miscounted() {
    let (mut session, image) = destination();
    for order in [vec![0, 1, 1, 2, 3], vec![0, 1, 3], vec![1, 2, 3], vec![0, 1, 0, 1, 2, 3]] {
        let image = joined(&image, &order);
        feed_refused(&mut session, Rule::ImageRecord, &format!("{order:?}"), &image);
    }
}

/// A device that was reset in pre-copy is saved from the start again, and its stream goes on.
fn header_again() {
    let (mut session, image) = destination();
    let twice = joined(&image, &[0, 0, 1, 2, 3]);
    feed(&mut session, &twice).expect("only a header had come");
    commit(&mut session);
}

fn impossible() {
    let (mut session, image) = destination();
    let registers = records(&image)[1].clone();
    let payload = registers.start + HEAD_BYTES;
    for (what, at, value) in [
        ("a factorial of no number", payload + 4, 7),
        ("a computation that is neither on nor off", payload + 8, 2),
        ("a status bit that does not exist", payload + 12, 0x40),
        ("a transfer that is still under way", payload + 48, 1),
    ] {
        let mut image = image.clone();
        image[at] = value;
        reseal(&mut image[registers.clone()]);
        feed_refused(&mut session, Rule::ImageRecord, what, &image);
    }
}

fn after_the_end() {
    let (mut session, image) = destination();
    feed(&mut session, &image).expect("the good image");
    feed_refused(&mut session, Rule::ImageRecord, "one byte more", &[0]);
    commit(&mut session);
}

fn other_totals() {
    let (mut session, image) = destination();
    // A change that every record's own checksum agrees with.
    let registers = records(&image)[1].clone();
    let mut other = image.clone();
    other[registers.start + HEAD_BYTES] ^= 1;
    reseal(&mut other[registers]);
    feed_refused(&mut session, Rule::ImageRecord, "another CRC of the whole", &other);
    feed(&mut session, &image).expect("the good image");
    commit(&mut session);
}

fn dropped() {
    let (mut session, image) = destination();
    feed(&mut session, &image[..image.len() / 2]).expect("a good piece");
    session.region.set_state(State::Stopped).expect("the image is dropped");
    session.region.set_state(State::Running).expect("the device goes on");
    assert_eq!(session.device.edu().read_u32(LIVENESS).expect("a register"), !0, "as it was");
    session.bring_to(State::Resuming);
    feed(&mut session, &image).expect("a new image starts at its start");
    commit(&mut session);
}
