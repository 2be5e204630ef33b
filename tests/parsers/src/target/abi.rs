// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What user space claims, as the driver and the probes take it: offsets and lengths, dirty queries, states, addresses of devices,
//! and any sequence of records for the protocol watch.
//!
//! Held against it: the same decisions made once more, in numbers of 128 bits that do not overflow, from what the documents say.

use crate::{Seed, pieces::Pieces};
use migscope::device_key::DeviceKey;
use migscope_abi::{
    dirty::{MIN_PAGE_BYTES, Query},
    latency::{BUCKETS, bucket, lower_bound_ns},
    region::{Direction, Field, HEADER_BYTES, Layout, Op, STRUCT_BYTES},
    rule::Rule,
    state::State,
    trace,
    watch::{Watch, conduct::Conduct},
};
use zerocopy::{FromBytes as _, IntoBytes as _};

/// Decides on what user space claims. The first byte chooses what.
///
/// # Panics
///
/// When something is wrong.
pub fn run(input: &[u8]) {
    let mut pieces = Pieces(input);
    match pieces.u8() % 6 {
        0 => locate(&mut pieces),
        1 => query(&mut pieces),
        2 => next(&mut pieces),
        3 => device(pieces.0),
        4 => duration(pieces.u64()),
        _ => watch(&mut pieces),
    }
}

fn locate(pieces: &mut Pieces<'_>) {
    // The driver chooses these, in whole pages.
    let pages = |number: u16| u32::from(number) * 4096;
    let layout = Layout { data_bytes: pages(pieces.u16()), bitmap_bytes: pages(pieces.u16()) };
    let op = if pieces.u8().is_multiple_of(2) { Op::Read } else { Op::Write };
    let (offset, bytes) = (pieces.u64(), pieces.u64());
    let located = layout.locate(offset, bytes, op);
    let (begin, end) = (u128::from(offset), u128::from(offset) + u128::from(bytes));
    let data = u128::from(HEADER_BYTES);
    let bitmap = data + u128::from(layout.data_bytes);
    let whole = bitmap + u128::from(layout.bitmap_bytes);
    let inside = |from: u128, to: u128| begin >= from && end <= to && bytes > 0;
    let window = inside(data, bitmap) || inside(bitmap, whole);
    let registers = inside(0, u128::from(STRUCT_BYTES));
    if !window && !registers {
        assert_eq!(located, Err(Rule::OutOfBounds), "{layout:?} {offset:#x} {bytes:#x}");
        return;
    }
    let field = layout.field_at(offset);
    let fits = field.register().is_none_or(|register| register == (offset, bytes));
    let allowed = match field.direction() {
        Direction::ReadWrite => true,
        Direction::ReadOnly => op == Op::Read,
        Direction::WriteOnly => op == Op::Write,
    };
    match located {
        Ok(place) => {
            assert!(fits && allowed && place.field == field, "{place:?} {offset:#x} {bytes:#x}");
            let start = match field {
                Field::Data => data,
                Field::Bitmap => bitmap,
                _ => begin,
            };
            assert_eq!(u128::from(place.at), begin - start);
            assert_eq!(layout.field_at(offset + bytes - 1), field);
        }
        Err(Rule::Misaligned | Rule::FieldWidth) => assert!(!fits, "{offset:#x} {bytes:#x}"),
        Err(Rule::ReadOnly | Rule::WriteOnly) => assert!(fits && !allowed),
        Err(rule) => panic!("{rule:?} for {offset:#x} {bytes:#x}"),
    }
}

fn query(pieces: &mut Pieces<'_>) {
    let (start_pfn, page_bytes, total_pfns) = (pieces.u64(), pieces.u64(), pieces.u64());
    let end_pfn = u128::from(start_pfn) + u128::from(total_pfns);
    let end = end_pfn.saturating_mul(page_bytes.into());
    let sound = page_bytes.is_power_of_two()
        && page_bytes >= MIN_PAGE_BYTES
        && total_pfns > 0
        && end <= 1 << 64;
    match Query::new(start_pfn, page_bytes, total_pfns) {
        Ok(query) => {
            assert!(sound, "{query:?}");
            let told = (query.start_pfn, 1 << query.page_shift, query.pages);
            assert_eq!(told, (start_pfn, page_bytes, total_pfns));
        }
        Err(rule) => {
            assert!(!sound && rule.errno() != 0, "{rule:?} {start_pfn} {page_bytes} {total_pfns}");
        }
    }
}

fn next(pieces: &mut Pieces<'_>) {
    let (from, requested) = (pieces.u8(), pieces.u32());
    let Ok(from) = State::try_from(u32::from(from)) else { return };
    match from.next(requested) {
        Ok(to) => assert!(to as u32 == requested && from != State::Error && to != State::Error),
        Err(rule) => assert!(rule.errno() != 0),
    }
}

/// The input is an address as text.
fn device(text: &[u8]) {
    if let Ok(text) = std::str::from_utf8(text)
        && let Some(key) = DeviceKey::parse(text)
    {
        assert_eq!(DeviceKey::parse(&key.to_string()), Some(key), "{text}");
        assert_eq!(key.0 >> 63, 0, "{text}");
    }
}

fn duration(ns: u64) {
    let place = bucket(ns);
    let last = u32::try_from(BUCKETS).expect("few") - 1;
    assert!(place <= last && lower_bound_ns(place) <= ns);
    assert!(place == last || ns < lower_bound_ns(place + 1), "{ns} in {place}");
}

/// Records of accesses and states, as they stand in memory.
fn watch(pieces: &mut Pieces<'_>) {
    let mut watch = Watch::START;
    while !pieces.is_empty() {
        let broken = if pieces.u8().is_multiple_of(2) {
            let record: [u8; size_of::<trace::RegionAccess>()] = pieces.array();
            let access = trace::RegionAccess::read_from_bytes(&record).expect("as long as one");
            watch.access(&access)
        } else {
            let record: [u8; size_of::<trace::State>()] = pieces.array();
            let state = trace::State::read_from_bytes(&record).expect("as long as one");
            let mut again = watch;
            let change = watch.state_changed(&state);
            assert_eq!((again.state_changed(&state), again), (change, watch), "total, and no more");
            change.broken
        };
        if let Some(broken) = broken {
            assert_eq!(Conduct::try_from(broken as u32), Ok(broken));
            assert!(usize::try_from(broken.index()).is_ok_and(|index| index < Conduct::COUNT));
        }
    }
}

/// One of each kind, and a whole pre-copy for the watch.
pub fn seeds() -> Vec<Seed> {
    let numbers = |kind: u8, numbers: &[u64]| {
        let mut bytes = vec![kind];
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        bytes
    };
    let access = |layout: [u16; 2], op: u8, at: u64, length: u64| {
        let mut bytes = vec![0];
        bytes.extend(layout.iter().flat_map(|pages| pages.to_le_bytes()));
        bytes.push(op);
        bytes.extend([at, length].iter().flat_map(|number| number.to_le_bytes()));
        bytes
    };
    vec![
        Seed::new("register", access([16, 1], 1, 0, 4)),
        Seed::new("window", access([16, 1], 0, 0x1ff0, 0x20)),
        Seed::new("bitmap", access([16, 1], 0, 0x1_1000, 0x1000)),
        Seed::new("query", numbers(1, &[0, 4096, 1 << 18])),
        Seed::new("query-of-all", numbers(1, &[0, 4096, 1 << 52])),
        Seed::new("arc", [2, 1, 3, 0, 0, 0]),
        Seed::new("address", *b"\x030000:00:03.0"),
        Seed::new("duration", numbers(4, &[1_234_567])),
        Seed::new("pre-copy", pre_copy()),
    ]
}

/// running, pre_copy, an iteration, stop_and_copy, another one, stopped: as a client does it that keeps to the rules.
fn pre_copy() -> Vec<u8> {
    use State::{PreCopy, Running, StopAndCopy, Stopped};
    let mut bytes = vec![5];
    let change = |bytes: &mut Vec<u8>, from: State, to: State| {
        let state = trace::State {
            device: 24,
            duration_ns: 1,
            from: from as u32,
            requested: to as u32,
            now: to as u32,
            cause: 0,
            result: 0,
            reserved: 0,
        };
        bytes.push(1);
        bytes.extend(state.as_bytes());
        access(bytes, Field::DeviceState, Op::Write, to, to as u64);
    };
    change(&mut bytes, Running, PreCopy);
    for (state, next) in [(PreCopy, StopAndCopy), (StopAndCopy, Stopped)] {
        access(&mut bytes, Field::PendingBytes, Op::Read, state, 64);
        access(&mut bytes, Field::DataOffset, Op::Read, state, HEADER_BYTES);
        access(&mut bytes, Field::DataSize, Op::Read, state, 64);
        access(&mut bytes, Field::Data, Op::Read, state, 0);
        access(&mut bytes, Field::PendingBytes, Op::Read, state, 0);
        change(&mut bytes, state, next);
    }
    bytes
}

fn access(bytes: &mut Vec<u8>, field: Field, op: Op, state: State, value: u64) {
    let (offset, length) = field.register().unwrap_or((HEADER_BYTES, 64));
    let access = trace::RegionAccess {
        device: 24,
        offset,
        bytes: length,
        value,
        duration_ns: 1,
        result: i64::try_from(length).expect("short"),
        field: field as u32,
        op: op as u32,
        state: state as u32,
        reserved: 0,
    };
    bytes.push(0);
    bytes.extend(access.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else the watch would be fed with nothing but noise.
    #[test]
    fn the_client_of_the_seed_keeps_to_the_rules() {
        let seed = pre_copy();
        let mut pieces = Pieces(seed.get(1..).expect("a script"));
        let (mut watch, mut records) = (Watch::START, 0);
        while !pieces.is_empty() {
            records += 1;
            let broken = if pieces.u8() == 0 {
                let record: [u8; 64] = pieces.array();
                watch.access(&trace::RegionAccess::read_from_bytes(&record).expect("whole"))
            } else {
                let record: [u8; 40] = pieces.array();
                watch.state_changed(&trace::State::read_from_bytes(&record).expect("whole")).broken
            };
            assert_eq!(broken, None, "record {records}");
        }
        assert_eq!(records, 16);
    }
}
