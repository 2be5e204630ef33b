// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whole files: written, cut, damaged, made up.

use super::{
    arbitrary::{header, input, longest},
    block::HEAD_BYTES,
    *,
};
use crate::device_key::DeviceKey;
use crate::{feed::Input, sample::Sample};
use migscope_abi::ring::DeviceSums;
use proptest::{collection::vec, prelude::*, sample::Index};
use std::{
    collections::BTreeMap,
    io::{self, Write},
};

/// The inputs as text: they have no equality, and their `Debug` says all that is in them.
fn texts<'a>(inputs: impl IntoIterator<Item = &'a Input>) -> Vec<String> {
    inputs.into_iter().map(|input| format!("{input:?}")).collect()
}

/// A file of these inputs, a block for each of the parts, and where each block ends.
fn file(parts: &[Vec<Input>]) -> (Vec<u8>, Vec<u64>) {
    let mut stream = Stream::new(Vec::new(), &header()).expect("a vector takes all");
    let mut ends = vec![stream.written_bytes()];
    for part in parts {
        for input in part {
            stream.push(input).expect("a vector takes all");
        }
        stream.flush().expect("a vector takes all");
        ends.push(stream.written_bytes());
    }
    (stream.finish().expect("a vector takes all"), ends)
}

/// What can be read of a file, errors as text.
fn read(file: &[u8]) -> Vec<Result<String, RecordError>> {
    let reader = Reader::new(file).expect("a header");
    reader.map(|item| item.map(|input| format!("{input:?}"))).collect()
}

fn parts() -> impl Strategy<Value = Vec<Vec<Input>>> {
    vec(vec(input(), 1..6), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(parts in parts()) {
        let (file, _) = file(&parts);
        let items: Vec<_> = read(&file).into_iter().map(|item| item.expect("all is well")).collect();
        prop_assert_eq!(items, texts(parts.iter().flatten()));
    }

    #[test]
    fn of_a_cut_file_everything_before_the_cut_is_read(parts in parts(), cut: Index) {
        let (file, ends) = file(&parts);
        let cut = cut.index(file.len());
        let Some(whole) = ends.iter().rposition(|end| *end <= cut as u64) else {
            let refusal = Reader::new(&file[..cut]).map(drop).expect_err("no header");
            let told = matches!(refusal, RecordError::CutOff { at: 0, .. } | RecordError::NotARecording);
            prop_assert!(told, "{}", refusal);
            return Ok(());
        };
        let mut items = read(&file[..cut]);
        let last = items.pop().expect("the cut is told").expect_err("the cut is told last");
        let at_end = matches!(last, RecordError::CutOff { at, .. } if at == ends[whole]);
        prop_assert!(at_end, "{:?} {}", last, ends[whole]);
        let items: Vec<_> = items.into_iter().map(|item| item.expect("no damage")).collect();
        prop_assert_eq!(items, texts(parts[..whole].iter().flatten()));
    }

    #[test]
    fn a_flipped_bit_costs_one_block_and_is_told(parts in parts(), place: Index, bit in 0_u32..8) {
        let (mut file, ends) = file(&parts);
        let begin = usize::try_from(ends[0]).expect("small");
        let at = begin + place.index(file.len() - begin);
        file[at] ^= 1_u8 << bit;
        let hit = ends[1..].iter().filter(|end| **end <= at as u64).count();
        let items = read(&file);
        let errors: Vec<_> = items.iter().filter_map(|item| item.as_ref().err()).collect();
        let wanted = texts(parts.iter().flatten());
        let got: Vec<_> = items.iter().filter_map(|item| item.as_ref().ok()).collect();
        if hit == parts.len() {
            // The end block: nothing but the end is lost.
            let told = matches!(
                errors[..],
                [RecordError::Damaged { .. }, RecordError::CutOff { .. }] | [RecordError::CutOff { .. }]
            );
            prop_assert!(told, "{:?}", errors);
        } else {
            let told = matches!(errors[0], RecordError::Damaged { block, at: began }
                if *block as usize == hit && *began == ends[hit]);
            prop_assert!(told, "block {}: {:?}", hit, errors);
            let lost = got.iter().filter(|text| text.starts_with("Lost(")).count();
            prop_assert!(lost > wanted.iter().filter(|text| text.starts_with("Lost(")).count()
                - texts(&parts[hit]).iter().filter(|text| text.starts_with("Lost(")).count());
        }
        // Whatever is given is something that was put in, or says that something is lost; and what stands alone is all there.
        for text in &got {
            prop_assert!(wanted.contains(text) || text.starts_with("Lost("), "{}", text);
        }
        let others = parts.iter().enumerate().filter(|(number, _)| *number != hit);
        for input in others.flat_map(|(_, part)| part) {
            if !matches!(input, Input::Sample(_) | Input::Sums(..)) {
                prop_assert!(got.contains(&&format!("{input:?}")), "{:?}", input);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..600), heads in vec(any::<Index>(), 0..4)) {
        let mut file = header().write();
        file.extend(&bytes);
        // Behind sound heads too, or hardly any of it would be looked at.
        for place in heads {
            let payload = &bytes[..place.index(bytes.len() + 1)];
            let head = super::block::Head {
                key: payload.len() % 2 == 0,
                end: false,
                number: 0,
                length: u32::try_from(payload.len()).expect("short"),
                base_ns: 7,
                crc: crc32fast::hash(payload),
            };
            file.extend(head.write());
            file.extend(payload);
        }
        let items = Reader::new(&*file).expect("a header").count();
        prop_assert!(items <= 2 * file.len() + 3);
    }

    #[test]
    fn a_record_that_was_changed_makes_no_panic_behind_a_sound_checksum(
        parts in parts(),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let (mut file, ends) = file(&parts);
        let begin = usize::try_from(ends[0]).expect("small");
        let end = usize::try_from(ends[1]).expect("small");
        let mut head: [u8; HEAD_BYTES] = file[begin..begin + HEAD_BYTES].try_into().expect("a head");
        let payload = &mut file[begin + HEAD_BYTES..end];
        for (place, byte) in changes {
            payload[place.index(payload.len())] = byte;
        }
        let mut sound = super::block::Head::read(&head).expect("a head");
        sound.crc = crc32fast::hash(payload);
        head = sound.write();
        file[begin..begin + HEAD_BYTES].copy_from_slice(&head);
        prop_assert!(read(&file).len() <= file.len());
    }
}

#[test]
fn sums_come_back_at_the_next_key_block() {
    let sums = |at_ns: u64| {
        let sums = DeviceSums { dirty_pages: at_ns, ..DeviceSums::default() };
        Input::Sums(at_ns, BTreeMap::from([(DeviceKey(8), sums)]))
    };
    let second = 3_000_000_000;
    let parts: Vec<_> =
        (1..=30).map(|at| vec![sums(at * second), Input::Settled(at * second)]).collect();
    let (mut file, ends) = file(&parts);
    let at = usize::try_from(ends[3]).expect("small") + HEAD_BYTES + 1;
    file[at] ^= 0x40;
    let read = read(&file);
    let good: Vec<_> = read.iter().filter_map(|item| item.as_ref().ok()).collect();
    let count = |begin: &str| good.iter().filter(|text| text.starts_with(begin)).count();
    assert_eq!((count("Lost("), count("Settled(")), (1, 29));
    assert!((20..29).contains(&count("Sums(")), "{}", count("Sums("));
    assert_eq!(good.last().map(|text| text.starts_with("Settled(")), Some(true));
}

#[test]
fn blocks_that_are_missing_are_seen_by_their_numbers() {
    let parts: Vec<_> = (1..=4).map(|at| vec![Input::Settled(at)]).collect();
    let (file, ends) = file(&parts);
    let ends: Vec<_> = ends.into_iter().map(|end| usize::try_from(end).expect("small")).collect();
    let spliced = [&file[..ends[1]], &file[ends[3]..]].concat();
    let read = read(&spliced);
    assert!(
        matches!(&read[..], [Ok(_), Err(RecordError::Damaged { block: 1, .. }), Ok(lost), Ok(last)]
            if lost.starts_with("Lost(") && last == "Settled(4)"),
        "{read:?}"
    );
}

#[test]
fn what_is_too_long_is_dropped_counted_and_told() {
    let (too_long, most) = longest();
    let mut stream = Stream::new(Vec::new(), &header()).expect("a vector takes all");
    let after = Input::Sample(Sample { at_ns: 9, ..Sample::default() });
    stream.push(&Input::Settled(1)).expect("a vector takes all");
    for input in &too_long {
        stream.push(input).expect("a vector takes all");
    }
    for input in [&most, &after] {
        stream.push(input).expect("a vector takes all");
    }
    assert_eq!(stream.dropped(), too_long.len() as u64);
    let read = read(&stream.finish().expect("a vector takes all"));
    let read: Vec<_> = read.into_iter().map(|item| item.expect("all is well")).collect();
    let (lost, others): (Vec<_>, Vec<_>) = read.iter().partition(|text| text.starts_with("Lost("));
    assert_eq!(lost.len(), too_long.len());
    assert!(others.into_iter().eq(&texts([&Input::Settled(1), &most, &after])));
}

/// A disk with this much room left.
struct Disk {
    written: Vec<u8>,
    room: usize,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fits = bytes.len().min(self.room - self.written.len());
        if fits == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.written.extend_from_slice(&bytes[..fits]);
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn of_a_disk_that_got_full_everything_is_read_that_was_written_whole() {
    let inputs: Vec<_> = (1..=20).map(Input::Settled).collect();
    for room in 100..600 {
        let disk = Disk { written: Vec::new(), room };
        let mut stream = Stream::new(disk, &header()).expect("room for a header");
        let mut whole = 0;
        let refusal = inputs.iter().enumerate().find_map(|(place, input)| {
            stream.push(input).expect("one is not written alone");
            let refusal = stream.flush().err();
            whole += usize::from(refusal.is_none());
            refusal.map(|refusal| (place, refusal))
        });
        let (place, refusal) = refusal.expect("it gets full");
        assert_eq!((place, refusal.kind()), (whole, io::ErrorKind::StorageFull));
        let mut items = read(&stream.out().written);
        let last = items.pop().expect("the cut");
        assert!(matches!(last, Err(RecordError::CutOff { .. })), "{last:?}");
        let items: Vec<_> = items.into_iter().map(|item| item.expect("no damage")).collect();
        assert_eq!(items, texts(&inputs[..whole]));
    }
}
