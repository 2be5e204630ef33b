// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files of `migscope record`, and `migscope report` of them. The input is the file. It is read as it is, which after a mutation ends
//! at a checksum, and once more with its checksums [mended](mend), to get behind them.
//!
//! Held against it:
//!
//! - a file that is cut reads as the whole one does, up to the cut, and says that it is cut
//! - what is read without a fault and written again reads the same
//! - the report is JSON, HTML, and text for a terminal, and none of them obeys what a machine is called

use crate::{Seed, printed, scratch::Scratch, target::ring};
use migscope::{
    feed::Input,
    harmless::acts,
    record::{Reader, RecordError, Stream},
    report::{self, Document},
};
use std::hash::Hasher as _;

/// Length of a block's head, and where in it the length of its payload stands.
const HEAD_BYTES: usize = 28;
/// Magic, versions and length of a header.
const FIXED_BYTES: usize = 16;
const MARK: [u8; 3] = [0xf5, 0x4d, 0xc1];
thread_local! {
    static SCRATCH: Scratch = Scratch::new().expect("a folder");
}

/// Reads a file, whole and cut, and reports of it.
///
/// # Panics
///
/// When something is wrong.
pub fn run(input: &[u8]) {
    file(input);
    let mended = mend(input);
    if mended != input {
        file(&mended);
    }
}

fn file(bytes: &[u8]) {
    let Ok(reader) = Reader::new(bytes) else {
        return;
    };
    let header = reader.header().clone();
    let items: Vec<_> = reader.collect();
    // A record has three bytes at least; behind damage at most two things are told for each byte.
    assert!(items.len() <= 2 * bytes.len() + 3, "{} items", items.len());
    let texts: Vec<_> = items.iter().map(told).collect();
    cut(bytes, &texts);
    if items.iter().all(Result::is_ok) {
        let mut stream = Stream::new(Vec::new(), &header).expect("a vector takes all");
        for input in items.iter().flatten() {
            stream.push(input).expect("a vector takes all");
        }
        if stream.dropped() == 0 {
            let again = stream.finish().expect("a vector takes all");
            let again = Reader::new(&*again).expect("our own header");
            assert_eq!(again.header(), &header);
            assert!(again.map(|item| told(&item)).eq(texts), "written again it is another");
        }
    }
    tell(bytes);
}

/// Inputs have no equality, and their `Debug` says all that is in them.
fn told(item: &Result<Input, RecordError>) -> String {
    format!("{item:?}")
}

/// Reads the file cut at a place that its own bytes decide on, so that the input needs none beside them.
fn cut(bytes: &[u8], whole: &[String]) {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(bytes);
    let places = u64::try_from(bytes.len()).unwrap_or(u64::MAX).max(1);
    let at = usize::try_from(hasher.finish() % places).unwrap_or(0);
    let Some(begin) = bytes.get(..at) else { return };
    let reader = match Reader::new(begin) {
        Ok(reader) => reader,
        Err(error) => {
            let expected =
                matches!(error, RecordError::CutOff { at: 0, .. } | RecordError::NotARecording);
            assert!(expected, "{error:?}");
            return;
        }
    };
    let mut read: Vec<_> = reader.collect();
    if matches!(read.last(), Some(Err(RecordError::CutOff { .. }))) {
        read.pop();
    } else {
        assert_eq!(read.len(), whole.len(), "a cut behind the end is none");
    }
    for (place, item) in read.iter().enumerate() {
        let same = whole.get(place).is_some_and(|whole| *whole == told(item));
        // What is lost is told with the next block, and here there is none.
        let lost = place + 1 == read.len() && matches!(item, Ok(Input::Lost(_)));
        assert!(same || lost, "item {place} of a file cut at {at}: {item:?}");
    }
}

/// The file with each checksum that covers what is there.
fn mend(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    let number = |bytes: &[u8], at: usize| -> usize {
        let four = bytes.get(at..).and_then(|rest| rest.first_chunk());
        four.map_or(0, |four| u32::from_le_bytes(*four)).try_into().unwrap_or(usize::MAX)
    };
    let put = |bytes: &mut [u8], at: usize, value: u32| {
        for (to, from) in bytes.iter_mut().skip(at).zip(value.to_le_bytes()) {
            *to = from;
        }
    };
    let covered = FIXED_BYTES.saturating_add(number(&bytes, FIXED_BYTES - 4));
    let Some(sum) = bytes.get(..covered).map(crc32fast::hash) else { return bytes };
    put(&mut bytes, covered, sum);
    let mut at = covered + 4;
    while let Some(payload) = bytes.get(at + HEAD_BYTES..) {
        let length = number(&bytes, at + 8).min(payload.len());
        let sum = crc32fast::hash(payload.get(..length).unwrap_or_default());
        for (to, from) in bytes.iter_mut().skip(at).zip(MARK) {
            *to = from;
        }
        put(&mut bytes, at + 8, u32::try_from(length).unwrap_or(u32::MAX));
        put(&mut bytes, at + 20, sum);
        let head = bytes.get(at..at + HEAD_BYTES - 4).map(crc32fast::hash);
        put(&mut bytes, at + HEAD_BYTES - 4, head.unwrap_or(0));
        at += HEAD_BYTES + length;
    }
    bytes
}

/// The report in every form.
fn tell(bytes: &[u8]) {
    let document = SCRATCH.with(|scratch| {
        let path = scratch.write("input.migscope", bytes).expect("a file");
        report::load::load(&path).expect("its header was read before")
    });
    let json = serde_json::to_string(&document).expect("a document is JSON");
    serde_json::from_str::<serde_json::Value>(&json).expect("and is read as such");
    serde_json::to_string(&report::perfetto::trace(&document)).expect("a trace is JSON");
    for columns in [40, 100] {
        printed::hold(&report::terminal::summary(&document, columns));
        printed::hold(&report::terminal::list(&document, columns));
    }
    hold_page(&report::html::page(&document), &document);
    if let Ok(comparison) = report::compare::compare(&document, &document) {
        printed::hold(&report::terminal::comparison(&comparison, 80));
        hold_page(&report::html::comparison(&comparison), &document);
    }
}

/// Nothing that a machine or a host is called stands in the page as it is, if a browser would take it for more than text, or turn it around.
fn hold_page(page: &str, document: &Document) {
    let bad = page.chars().find(|letter| acts(*letter) && *letter != '\n');
    assert!(bad.is_none(), "a character that acts, {bad:?}, in the page");
    let mut names: Vec<&str> = Vec::new();
    names.extend(document.recording.host.as_deref());
    names.extend(document.recording.kernel.as_deref());
    names.extend(document.probes.iter().filter_map(|probe| probe.why.as_deref()));
    for session in &document.sessions {
        let info = &session.info;
        names.extend([&*info.vm, &info.vm_uuid, &info.driver, &info.iommu_group]);
    }
    // Shorter ones may be in the page by themselves.
    let markup = |name: &&str| name.len() >= 8 && name.contains(['<', '"']) && name.is_ascii();
    for name in names.into_iter().filter(markup) {
        assert!(!page.contains(name), "{name:?} stands in the page as it is");
    }
}

/// What is recorded of the scripts of `ring`, and a recording from the guest.
pub fn seeds() -> Vec<Seed> {
    let mut seeds: Vec<_> = ring::seeds()
        .into_iter()
        .map(|seed| Seed::new(seed.name, ring::Played::of(&seed.bytes).recording()))
        .collect();
    let edu: &[u8] = include_bytes!("../../../../agent/tests/recordings/edu-live.migscope");
    seeds.push(Seed::new("edu-live", edu));
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a fuzzer would never get past the first checksum.
    #[test]
    fn a_mended_file_is_read_behind_what_was_changed() {
        for Seed { name, bytes } in seeds() {
            assert!(mend(&bytes) == bytes, "{name}: a sound file stays as it is");
            let mut changed = bytes;
            let last = changed.len() - HEAD_BYTES - 3;
            changed[last] ^= 1;
            let faults = |bytes: &[u8]| {
                let reader = Reader::new(bytes).expect("a header");
                reader.filter(|item| matches!(item, Err(RecordError::Damaged { .. }))).count()
            };
            assert_eq!((faults(&changed), faults(&mend(&changed))), (1, 0), "{name}");
        }
    }

    #[test]
    fn a_page_that_takes_a_name_as_it_is_is_found() {
        let mut document = SCRATCH.with(|scratch| {
            let [seed, ..] = &seeds()[..] else { panic!("no seeds") };
            let path = scratch.write("x.migscope", &seed.bytes).expect("a file");
            report::load::load(&path).expect("a recording")
        });
        document.recording.host = Some("<script>alert(1)</script>".into());
        hold_page(&report::html::page(&document), &document);
        let bad = std::panic::catch_unwind(|| hold_page("<b><script>alert(1)</script>", &document));
        assert!(bad.is_err());
    }
}
