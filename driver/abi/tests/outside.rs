// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What is concluded from a client's accesses: a whole migration, step by step, and anything at all.

use migscope_abi::dirty::Outcome;
use migscope_abi::outside::{Change, Meaning, Outside, StateWord, CLOSED};
use migscope_abi::region::{Field, Layout, Op, PFNS_ALL, PFNS_NONE};
use migscope_abi::state::State;
use migscope_abi::trace::{self, DataDirection};
use migscope_abi::v2::NO_STATE;
use proptest::prelude::*;

const POSITION: u64 = 9 << 40;
const LAYOUT: Layout = Layout { data_bytes: 0x10000, bitmap_bytes: 0x2000 };
const DATA_AT: u64 = 0x1000;
const BITMAP_AT: u64 = 0x11000;
const TOOK_NS: u64 = 70;

/// A client and what is seen of it.
struct Scene(Outside);

impl Scene {
    fn new(state: State) -> Self {
        Self(Outside::new(POSITION, 0, state as u32, 1))
    }

    fn access(&mut self, op: Op, offset: u64, bytes: u64, value: u64, result: i64) -> Meaning {
        let field = self.0.field(offset) as u32;
        self.0.access(&trace::RegionAccess {
            device: 7,
            offset,
            bytes,
            value: if result < 0 { 0 } else { value },
            duration_ns: TOOK_NS,
            result,
            field,
            op: op as u32,
            state: self.0.state,
            reserved: 0,
        })
    }

    fn get(&mut self, field: Field, value: u64) -> Meaning {
        let (offset, bytes) = field.register().expect("a register");
        self.access(Op::Read, offset, bytes, value, 8)
    }

    fn put(&mut self, field: Field, value: u64) -> Meaning {
        let (offset, bytes) = field.register().expect("a register");
        self.access(Op::Write, offset, bytes, value, 8)
    }

    fn window(&mut self, op: Op, offset: u64, bytes: u64) -> Meaning {
        self.access(op, offset, bytes, 0, i64::try_from(bytes).expect("short"))
    }

    fn state(&mut self, state: State) {
        let change = self.0.state_written(state as u32, 0).expect("a state");
        assert_eq!(change.now, state as u32);
    }
}

fn moved(bytes: u64, direction: DataDirection) -> Meaning {
    Meaning {
        moved_bytes: bytes,
        moved_ns: TOOK_NS,
        direction: direction as u32,
        ..Meaning::default()
    }
}

#[test]
fn a_buffer_is_moved_when_pending_bytes_is_read_next() {
    let mut scene = Scene::new(State::Running);
    scene.state(State::PreCopy);
    assert_eq!(scene.get(Field::PendingBytes, 100), Meaning::default());
    assert_eq!(scene.get(Field::DataOffset, DATA_AT).data_asked, 1);
    assert_eq!(scene.get(Field::DataSize, 60), Meaning::default());
    assert_eq!(scene.window(Op::Read, DATA_AT, 60), Meaning::default());
    assert_eq!(scene.get(Field::PendingBytes, 40), moved(60, DataDirection::Save));
    assert_eq!(scene.get(Field::PendingBytes, 40), Meaning::default(), "once");
    // Nothing to send is no buffer.
    scene.get(Field::DataOffset, DATA_AT);
    scene.get(Field::DataSize, 0);
    assert_eq!(scene.get(Field::PendingBytes, 40), Meaning::default());
}

#[test]
fn what_is_staged_outlives_the_stop_and_no_other_change() {
    for (next, kept) in [(State::StopAndCopy, true), (State::Running, false)] {
        let mut scene = Scene::new(State::PreCopy);
        scene.get(Field::PendingBytes, 9);
        scene.get(Field::DataOffset, DATA_AT);
        scene.get(Field::DataSize, 9);
        scene.state(next);
        let bytes = scene.get(Field::PendingBytes, 0).moved_bytes;
        assert_eq!(bytes, if kept { 9 } else { 0 }, "{next:?}");
    }
}

#[test]
fn a_destination_takes_in_what_data_size_says() {
    let mut scene = Scene::new(State::Resuming);
    scene.get(Field::DataOffset, DATA_AT);
    scene.window(Op::Write, DATA_AT, 16);
    assert_eq!(scene.put(Field::DataSize, 16), moved(16, DataDirection::Resume));
    assert_eq!(scene.put(Field::DataSize, 0), Meaning::default());
    let refused = scene.access(Op::Write, 0x18, 8, 16, -22);
    assert_eq!(refused, Meaning::default());
    scene.state(State::Running);
    assert_eq!(scene.put(Field::DataSize, 16), Meaning::default(), "not resuming");
}

fn ask(scene: &mut Scene, pages: u64) {
    scene.put(Field::StartPfn, 0x100);
    scene.put(Field::PageSize, 4096);
    scene.put(Field::TotalPfns, pages);
}

#[test]
fn an_answer_that_names_no_page_or_all_is_whole_at_once() {
    let mut scene = Scene::new(State::PreCopy);
    ask(&mut scene, 64);
    let none = scene.get(Field::CopiedPfns, PFNS_NONE);
    assert_eq!((none.outcome_plus_one, none.dirty_pages), (Outcome::None as u32 + 1, 0));
    let all = scene.get(Field::CopiedPfns, PFNS_ALL);
    assert_eq!((all.outcome_plus_one, all.dirty_pages), (Outcome::All as u32 + 1, 64));
    let refused = scene.access(Op::Read, 0x38, 8, 0, -22);
    assert_eq!((refused.outcome_plus_one, refused.dirty_pages), (Outcome::Error as u32 + 1, 0));
    let query = scene.0.query_record(7, Outcome::All, (PFNS_ALL, 64), (5, 0));
    assert_eq!((query.start_pfn, query.page_bytes, query.total_pfns), (0x100, 4096, 64));
}

#[test]
fn a_bitmap_counts_once_it_was_read_each_byte_once() {
    let mut scene = Scene::new(State::PreCopy);
    scene.get(Field::DataOffset, DATA_AT);
    ask(&mut scene, 100);
    let answer = scene.get(Field::CopiedPfns, 100);
    assert_eq!(answer.outcome_plus_one, Outcome::Bitmap as u32 + 1);
    assert_eq!(scene.get(Field::DataOffset, BITMAP_AT).data_asked, 0, "it is the bitmap's");
    assert_eq!(scene.get(Field::DataSize, 16), Meaning::default(), "and this, too");
    let first = scene.window(Op::Read, BITMAP_AT, 8);
    assert_eq!((first.bits_at, first.bits), (0, 64));
    assert!(scene.0.bits_counted(7, 3).is_none(), "there is more");
    assert_eq!(scene.window(Op::Read, BITMAP_AT, 8).bits, 0, "the same again");
    let rest = scene.window(Op::Read, BITMAP_AT + 4, 12);
    assert_eq!((rest.bits_at, rest.bits), (4, 36));
    let query = scene.0.bits_counted(7, 2).expect("read to its end");
    assert_eq!((query.dirty_pages, query.copied_pfns, query.duration_ns), (5, 100, TOOK_NS));
    assert_eq!(query.outcome, Outcome::Bitmap as u32);
    // The data window is current again.
    scene.get(Field::PendingBytes, 8);
    assert_eq!(scene.get(Field::DataOffset, DATA_AT).data_asked, 1);
    assert!(!scene.0.gave_up_bitmap());
}

#[test]
fn a_bitmap_that_nobody_was_seen_to_read_is_told_as_such() {
    let asked = |scene: &mut Scene| {
        ask(scene, 64);
        let meaning = scene.get(Field::CopiedPfns, 64);
        scene.get(Field::DataOffset, BITMAP_AT);
        meaning.unseen
    };
    let mut scene = Scene::new(State::PreCopy);
    assert_eq!(asked(&mut scene), 0);
    scene.window(Op::Read, BITMAP_AT, 4);
    assert!(scene.0.bits_counted(7, 1).is_none());
    assert_eq!(asked(&mut scene), 1, "half of it was read");
    scene.state(State::StopAndCopy);
    assert!(!scene.0.gave_up_bitmap(), "it can still be read");
    scene.window(Op::Read, BITMAP_AT + 4, 4);
    scene.state(State::Stopped);
    assert!(scene.0.gave_up_bitmap(), "with a gap");
    assert!(!scene.0.gave_up_bitmap(), "once");
}

#[test]
fn data_and_bitmaps_may_share_a_window() {
    let mut scene = Scene::new(State::PreCopy);
    scene.get(Field::DataOffset, DATA_AT);
    assert_eq!(scene.0.field(DATA_AT), Field::Data);
    ask(&mut scene, 8);
    scene.get(Field::CopiedPfns, 8);
    scene.get(Field::DataOffset, DATA_AT);
    assert_eq!(scene.0.field(DATA_AT), Field::Bitmap);
    assert_eq!(scene.window(Op::Read, DATA_AT, 1).bits, 8);
    assert!(scene.0.bits_counted(7, 8).is_some());
    assert_eq!(scene.0.field(DATA_AT), Field::Data);
}

#[test]
fn a_driver_of_the_shorter_struct_keeps_its_data_behind_it() {
    let mut scene = Scene::new(State::StopAndCopy);
    assert_eq!(scene.0.field(0x20), Field::StartPfn);
    scene.get(Field::PendingBytes, 64);
    scene.get(Field::DataOffset, 0x20);
    scene.get(Field::DataSize, 64);
    assert_eq!(scene.0.field(0x20), Field::Data);
    assert_eq!(scene.0.field(0x1f), Field::DataSize);
    // What stands where copied_pfns would is no answer to a query.
    assert_eq!(scene.window(Op::Read, 0x38, 8), Meaning::default());
    assert_eq!(scene.get(Field::PendingBytes, 0).moved_bytes, 64);
}

#[test]
fn once_both_windows_are_told_every_offset_is_what_it_is() {
    let mut scene = Scene::new(State::PreCopy);
    scene.get(Field::DataOffset, DATA_AT);
    ask(&mut scene, 64);
    scene.get(Field::CopiedPfns, 64);
    scene.get(Field::DataOffset, BITMAP_AT);
    scene.0.bytes = LAYOUT.region_bytes();
    for offset in (0..LAYOUT.region_bytes() + 64).step_by(3) {
        assert_eq!(scene.0.field(offset), LAYOUT.field_at(offset), "{offset:#x}");
    }
}

#[test]
fn a_state_is_what_was_written_and_not_refused_or_what_was_read() {
    let (running, pre_copy) = (State::Running as u32, State::PreCopy as u32);
    let mut outside = Outside::new(POSITION, 0, NO_STATE, 0);
    assert_eq!(outside.state_written(pre_copy, -22), None, "in which state, nobody has said");
    assert_eq!(outside.state_told(1), None, "the first that is known is no change");
    assert_eq!(outside.state, running);
    assert_eq!(outside.state_written(5, -22), Some(Change { from: running, now: running }));
    // Bits that mean nothing are written as they were read.
    assert_eq!(
        outside.state_written(0xff00 | pre_copy, 0),
        Some(Change { from: running, now: pre_copy })
    );
    assert_eq!(outside.state_told(6), Some(Change { from: pre_copy, now: State::Error as u32 }));
    outside.reset();
    assert_eq!(outside.state, running);
    assert_eq!(outside.state_written(7, 0), None, "it took what is no state");
    assert_eq!(outside.state, NO_STATE);
    outside.state_told(3);
    outside.rejoin(4);
    assert_eq!((outside.state, outside.joined), (NO_STATE, 4));
}

#[test]
fn only_what_lies_in_the_region_is_in_it() {
    let outside = Outside::new(POSITION, 0, NO_STATE, 0);
    assert_eq!(outside.offset(POSITION + 0x18), Some(0x18));
    assert_eq!(outside.offset(POSITION - 1), None);
    assert_eq!(outside.offset((10 << 40) + 0x18), None, "the next region");
    assert_eq!(outside.offset(0x18), None);
}

#[test]
fn a_word_of_state_says_what_was_put_into_it() {
    for state in [0, 6, CLOSED, NO_STATE] {
        for unseen in [0, 1, 255] {
            let word = StateWord { state, unseen };
            assert_eq!(StateWord::of(word.word()), Some(word));
        }
    }
    for other in [0, 3, u64::MAX, u64::MAX - 1, 1 << 32, 1 << 32 | 2] {
        assert_eq!(StateWord::of(other), None, "{other:x}");
    }
}

fn any_access() -> impl Strategy<Value = (bool, u64, u64, u64, i64)> {
    let offset = prop_oneof![0..0x50_u64, 0xff0..0x12000_u64, any::<u64>()];
    let value = prop_oneof![0..0x20000_u64, Just(PFNS_ALL), any::<u64>()];
    let result = prop_oneof![Just(-22_i64), 0..100_i64, any::<i64>()];
    (any::<bool>(), offset, prop_oneof![Just(4_u64), Just(8), any::<u64>()], value, result)
}

proptest! {
    /// Whatever a client does, nothing is counted twice and nothing that was not told.
    #[test]
    fn any_accesses_are_taken_in(accesses in prop::collection::vec(any_access(), 0..if cfg!(miri) { 20 } else { 200 })) {
        let mut scene = Scene::new(State::PreCopy);
        for (write, offset, bytes, value, result) in accesses {
            let op = if write { Op::Write } else { Op::Read };
            if offset == 0 && bytes == 4 {
                let low = u32::try_from(value & 0xffff_ffff).expect("masked");
                if write {
                    scene.0.state_written(low, if result < 0 { -22 } else { 0 });
                } else if result >= 0 {
                    scene.0.state_told(value);
                }
                scene.0.gave_up_bitmap();
            }
            let meaning = scene.access(op, offset, bytes, value, result);
            prop_assert!(meaning.bits <= result.max(0).unsigned_abs().saturating_mul(8));
            prop_assert!(result >= 0 || meaning.moved_bytes == 0);
            if meaning.bits != 0 {
                prop_assert!(meaning.bits_at + meaning.bits.div_ceil(8) <= result.unsigned_abs());
                if let Some(query) = scene.0.bits_counted(7, meaning.bits) {
                    prop_assert!(query.dirty_pages <= query.copied_pfns);
                }
            }
        }
    }
}
