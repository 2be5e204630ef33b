// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The order of accesses is the protocol, so it is pinned here access by access against a scripted driver.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::AsFd as _;

use migscope_abi::dirty::Query;
use migscope_abi::region::{PFNS_ALL, PFNS_NONE};

use super::*;
use crate::dirty::Answer;
use crate::mapping::Mapping;

const REGION_BYTES: u64 = 0x3000;
const DATA: u64 = 0x1000;
const BITMAP: u64 = 0x2000;
const EINVAL: i32 = 22;

/// What the client must do next, and what it gets.
#[derive(Debug)]
enum Step {
    Read(u64, Result<Vec<u8>, i32>),
    Write(u64, Vec<u8>, Result<(), i32>),
    Reset(Result<(), i32>),
}

/// A driver that expects exactly these accesses, and may have some of its region mapped.
struct Script(RefCell<VecDeque<Step>>, Vec<MappedArea>);

impl Script {
    fn step(&self) -> Step {
        self.0.borrow_mut().pop_front().expect("no further access")
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(
                self.0.borrow().is_empty(),
                "accesses that were not made: {:?}",
                self.0.borrow()
            );
        }
    }
}

impl RegionIo for Script {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        match self.step() {
            Step::Read(at, reply) => {
                assert_eq!(offset, at, "read");
                let reply = reply.map_err(io::Error::from_raw_os_error)?;
                assert!(reply.len() <= into.len(), "read of {} at {offset:#x}", into.len());
                into[..reply.len()].copy_from_slice(&reply);
                Ok(reply.len())
            }
            other => panic!("read of {} at {offset:#x} instead of {other:x?}", into.len()),
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        match self.step() {
            Step::Write(at, expected, reply) => {
                assert_eq!((offset, bytes), (at, expected.as_slice()), "write");
                reply.map(|()| bytes.len()).map_err(io::Error::from_raw_os_error)
            }
            other => panic!("write of {bytes:x?} at {offset:#x} instead of {other:x?}"),
        }
    }

    fn reset(&self) -> io::Result<()> {
        match self.step() {
            Step::Reset(reply) => reply.map_err(io::Error::from_raw_os_error),
            other => panic!("reset instead of {other:x?}"),
        }
    }

    fn mapped_areas(&self) -> &[MappedArea] {
        &self.1
    }
}

fn region(steps: impl IntoIterator<Item = Step>) -> Region<Script> {
    mapped_region(steps, Vec::new())
}

fn mapped_region(steps: impl IntoIterator<Item = Step>, areas: Vec<MappedArea>) -> Region<Script> {
    Region::new(Script(RefCell::new(steps.into_iter().collect()), areas), REGION_BYTES)
}

/// A part of the region that is memory, which holds its own offsets, modulo 251.
fn area(offset: u64, bytes: usize) -> MappedArea {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let file = rustix::fs::memfd_create("area", flags).unwrap();
    rustix::fs::ftruncate(&file, bytes.try_into().unwrap()).unwrap();
    let area = MappedArea::new(offset, Mapping::new(file.as_fd(), 0, bytes).unwrap());
    area.write(offset, &offsets(offset, bytes));
    area
}

fn offsets(offset: u64, bytes: usize) -> Vec<u8> {
    (offset..).take(bytes).map(|at| (at % 251).to_le_bytes()[0]).collect()
}

fn get32(offset: u64, value: u32) -> Step {
    Step::Read(offset, Ok(value.to_ne_bytes().to_vec()))
}

fn get64(offset: u64, value: u64) -> Step {
    Step::Read(offset, Ok(value.to_ne_bytes().to_vec()))
}

fn put32(offset: u64, value: u32) -> Step {
    Step::Write(offset, value.to_ne_bytes().to_vec(), Ok(()))
}

fn put64(offset: u64, value: u64) -> Step {
    Step::Write(offset, value.to_ne_bytes().to_vec(), Ok(()))
}

fn pages(start_pfn: u64, pages: u64) -> Query {
    Query { start_pfn, page_shift: 12, pages }
}

#[test]
fn a_state_is_read_changed_and_written_and_reserved_bits_are_kept() {
    let mut region = region([get32(0, 0x8000_0001), put32(0, 0x8000_0003)]);
    assert_eq!(region.set_state(State::PreCopy).unwrap(), State::Running);
    let transition = &region.account().transitions[0];
    assert_eq!((transition.from.as_str(), transition.to.as_str()), ("running", "pre_copy"));
    assert_eq!((transition.result, transition.requested), (0, 0x8000_0003));
}

#[test]
fn a_refused_state_is_followed_by_a_look_at_what_holds() {
    let refused = Step::Write(0, 4_u32.to_ne_bytes().to_vec(), Err(EINVAL));
    let mut region = region([get32(0, 3), refused, get32(0, 3)]);
    let error = region.set_state(State::Resuming).unwrap_err();
    assert_eq!(error.errno(), Some(EINVAL));
    assert_eq!(
        error.to_string(),
        "the device does not go from pre_copy to resuming; it is now in pre_copy"
    );
    let transition = &region.account().transitions[0];
    assert_eq!((transition.to.as_str(), transition.result), ("pre_copy", -EINVAL));
}

#[test]
fn saving_is_pending_offset_size_data_until_nothing_is_pending() {
    for state in [State::PreCopy, State::StopAndCopy] {
        let mut region = region([
            get64(0x08, 6),
            get64(0x10, DATA),
            get64(0x18, 4),
            Step::Read(DATA, Ok(b"abcd".to_vec())),
            get64(0x08, 2),
            get64(0x10, DATA),
            get64(0x18, 2),
            Step::Read(DATA, Ok(b"ef".to_vec())),
            get64(0x08, 0),
        ]);
        assert_eq!(region.next_buffer(state).unwrap().unwrap(), b"abcd");
        assert_eq!(region.account().iterations, 0, "only the next pending_bytes ends a buffer");
        assert_eq!(region.next_buffer(state).unwrap().unwrap(), b"ef");
        assert_eq!(region.next_buffer(state).unwrap(), None);
        let account = region.account();
        assert_eq!((account.iterations, account.data_bytes, account.chunks), (2, 6, 2));
        assert_eq!(account.pending_bytes, Some(0));
        let count = |field: &str| {
            account.accesses.iter().find(|access| access.field == field).map(|access| access.count)
        };
        assert_eq!(count("pending_bytes"), Some(3));
        assert_eq!(count("data"), Some(2));
        assert_eq!(count("start_pfn"), None);
    }
}

#[test]
fn data_is_read_in_the_pieces_that_were_asked_for_and_from_where_a_short_read_ended() {
    let mut region = region([
        get64(0x10, DATA),
        get64(0x18, 7),
        Step::Read(DATA, Ok(b"abc".to_vec())),
        Step::Read(DATA + 3, Ok(b"d".to_vec())),
        Step::Read(DATA + 4, Ok(b"efg".to_vec())),
    ]);
    region.set_chunk_bytes(3);
    assert_eq!(region.save_buffer().unwrap(), b"abcdefg");
    assert_eq!(region.account().chunks, 3);
}

#[test]
fn a_running_device_may_have_nothing_now_but_a_stopped_one_may_not() {
    let script = || [get64(0x08, 9), get64(0x10, DATA), get64(0x18, 0)];
    assert_eq!(region(script()).next_buffer(State::PreCopy).unwrap(), None);
    let error = region(script()).next_buffer(State::StopAndCopy).unwrap_err();
    assert!(matches!(error, RegionError::Withheld { pending_bytes: 9 }));
}

#[test]
fn a_window_outside_of_the_region_is_refused_before_it_is_read() {
    for (offset, bytes) in
        [(DATA, REGION_BYTES), (0, 4), (REGION_BYTES, 1), (u64::MAX, 2), (DATA, u64::MAX)]
    {
        let mut region = region([get64(0x10, offset), get64(0x18, bytes)]);
        assert!(matches!(region.save_buffer(), Err(RegionError::Window { .. })), "{offset:#x}");
    }
}

#[test]
fn resuming_is_offset_data_size() {
    let mut region = region([
        get64(0x10, DATA),
        Step::Write(DATA, b"abcd".to_vec(), Ok(())),
        put64(0x18, 4),
        get64(0x10, DATA),
        Step::Write(DATA, b"e".to_vec(), Ok(())),
        put64(0x18, 1),
    ]);
    region.load_buffer(b"abcd").unwrap();
    region.load_buffer(b"e").unwrap();
    let account = region.account();
    assert_eq!((account.iterations, account.data_bytes, account.chunks), (2, 5, 2));
}

#[test]
fn a_buffer_that_the_driver_refuses_is_no_iteration() {
    let refused = Step::Write(0x18, 2_u64.to_ne_bytes().to_vec(), Err(EINVAL));
    let mut region =
        region([get64(0x10, DATA), Step::Write(DATA, b"xx".to_vec(), Ok(())), refused]);
    assert_eq!(region.load_buffer(b"xx").unwrap_err().errno(), Some(EINVAL));
    assert_eq!(region.account().iterations, 0);
}

/// Steps a: all three registers, each time.
fn asked(start_pfn: u64, pages: u64) -> [Step; 3] {
    [put64(0x20, start_pfn), put64(0x28, 4096), put64(0x30, pages)]
}

#[test]
fn a_dirty_query_goes_on_with_the_rest_until_all_pages_are_covered() {
    let mut steps = Vec::from(asked(0x100, 20));
    steps.extend([get64(0x38, 16), get64(0x10, BITMAP), Step::Read(BITMAP, Ok(vec![0b11, 0x80]))]);
    steps.extend(asked(0x110, 4));
    steps.extend([get64(0x38, 4), get64(0x10, BITMAP), Step::Read(BITMAP, Ok(vec![0b0001]))]);
    let mut region = region(steps);
    let set = region.dirty_pages(pages(0x100, 20)).unwrap();
    assert_eq!(set.runs(), [0x100..0x102, 0x10f..0x111]);
    let dirty = region.account().dirty;
    assert_eq!((dirty.pages, dirty.bytes, dirty.queries["bitmap"]), (4, 4 * 4096, 2));
}

#[test]
fn none_ends_a_query_and_all_takes_the_rest() {
    let mut region_none = region(asked(0, 1 << 40).into_iter().chain([get64(0x38, PFNS_NONE)]));
    assert!(region_none.dirty_pages(pages(0, 1 << 40)).unwrap().is_empty());
    assert_eq!(region_none.account().dirty.queries["none"], 1);

    let mut region_all = region(asked(7, 1 << 40).into_iter().chain([get64(0x38, PFNS_ALL)]));
    assert_eq!(region_all.dirty_pages(pages(7, 1 << 40)).unwrap().len(), 1 << 40);
    assert_eq!(region_all.account().dirty.pages, 1 << 40);
}

#[test]
fn a_failed_query_is_an_error_and_never_an_empty_set() {
    let refused = Step::Read(0x38, Err(EINVAL));
    let mut region = region(asked(0, 8).into_iter().chain([refused]));
    assert_eq!(region.dirty_pages(pages(0, 8)).unwrap_err().errno(), Some(EINVAL));
    assert_eq!(region.account().dirty.queries["error"], 1);
}

#[test]
fn a_driver_that_reports_more_than_it_was_asked_for_is_not_believed() {
    let mut too_many = region(asked(0, 8).into_iter().chain([get64(0x38, 9)]));
    assert!(matches!(
        too_many.ask_dirty(0, 4096, 8),
        Err(RegionError::TooManyPages { copied: 9, asked: 8 })
    ));
    let stray = [get64(0x38, 3), get64(0x10, BITMAP), Step::Read(BITMAP, Ok(vec![0b1000]))];
    let mut stray = region(asked(0, 3).into_iter().chain(stray));
    assert!(matches!(stray.dirty_pages(pages(0, 3)), Err(RegionError::StrayBits { copied: 3 })));
}

#[test]
fn an_answer_can_be_taken_apart_from_its_bitmap() {
    let mut region = region(asked(0, 8).into_iter().chain([get64(0x38, 8)]));
    assert_eq!(region.ask_dirty(0, 4096, 8).unwrap(), Answer::Bitmap(8));
}

#[test]
fn a_reset_is_a_transition_of_its_own_kind() {
    let mut region = region([get32(0, 4), Step::Reset(Ok(()))]);
    region.reset().unwrap();
    let transition = &region.account().transitions[0];
    assert_eq!((transition.from.as_str(), transition.to.as_str()), ("resuming", "running"));
    assert_eq!(transition.cause, Cause::Reset);
}

/// Each part of a window in its own way, in the order of the offsets; and nothing by mapping unless that was asked for.
#[test]
fn a_buffer_goes_by_mapping_where_there_is_one_and_by_calls_where_not() {
    let before = offsets(DATA, 0x100);
    let after = offsets(DATA + 0x1100, 0x40);
    let begin = || [get64(0x10, DATA), get64(0x18, 0x1140)];
    let calls = [
        Step::Read(DATA, Ok(before[..0x80].to_vec())),
        Step::Read(DATA + 0x80, Ok(before[0x80..].to_vec())),
        Step::Read(DATA + 0x1100, Ok(after)),
    ];
    let steps = begin().into_iter().chain(calls);
    let mut mapped = mapped_region(steps, vec![area(DATA + 0x100, 0x1000)]);
    mapped.set_chunk_bytes(0x80);
    mapped.set_data_access(DataAccess::Auto).unwrap();
    assert!(mapped.save_buffer().unwrap() == offsets(DATA, 0x1140));
    let account = mapped.account();
    let moved = account.data_window;
    assert_eq!((moved.mapped_bytes, moved.trapped_bytes), (0x1000, 0x140));
    assert_eq!(account.chunks, 3);

    let whole = Step::Read(DATA, Ok(vec![1; 0x1140]));
    let areas = vec![area(DATA + 0x100, 0x1000)];
    let mut trapped = mapped_region(begin().into_iter().chain([whole]), areas);
    assert!(trapped.save_buffer().unwrap() == [1; 0x1140]);
    assert_eq!(trapped.account().data_window.mapped_bytes, 0);
}

#[test]
fn a_buffer_is_loaded_in_the_way_of_each_part() {
    let buffer = vec![7; 0x1010];
    let steps =
        [get64(0x10, DATA), Step::Write(DATA + 0x1000, vec![7; 0x10], Ok(())), put64(0x18, 0x1010)];
    let mut region = mapped_region(steps, vec![area(DATA, 0x1000)]);
    region.set_data_access(DataAccess::Auto).unwrap();
    region.load_buffer(&buffer).unwrap();
    let mut inside = vec![0; 0x1000];
    region.io().mapped_areas()[0].read(DATA, &mut inside);
    assert!(inside == [7; 0x1000]);
    let moved = region.account().data_window;
    assert_eq!((moved.mapped_bytes, moved.trapped_bytes), (0x1000, 0x10));
}

#[test]
fn a_bitmap_is_read_from_its_mapping() {
    let steps = asked(0, 16).into_iter().chain([get64(0x38, 16), get64(0x10, BITMAP)]);
    let bitmap = area(BITMAP, 0x1000);
    bitmap.write(BITMAP, &[0b101, 0x80]);
    let mut region = mapped_region(steps, vec![bitmap]);
    region.set_data_access(DataAccess::Auto).unwrap();
    let set = region.dirty_pages(pages(0, 16)).unwrap();
    assert_eq!(set.iter().collect::<Vec<_>>(), [0, 2, 15]);
    assert_eq!(region.account().bitmap_window.mapped_bytes, 2);
}
