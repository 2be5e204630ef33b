// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The model against short stories, right ones and wrong ones.

use migscope_abi::region::{Field, PFNS_ALL, PFNS_NONE};
use proptest::prelude::*;

use super::*;
use crate::call::{read, write};

const LAYOUT: Layout = Layout { data_bytes: 0x1000, bitmap_bytes: 0x1000 };

pub(crate) fn setup() -> Setup {
    Setup {
        kind: Kind::Edu,
        layout: LAYOUT,
        areas: Vec::new(),
        bar_bytes: 0x10_0000,
        bar_mappable: false,
        regions: 10,
        memory: (0x10_0000, 0x13_ffff),
    }
}

/// A call and its outcome, in short.
type Step = (Call, Outcome);

fn place(field: Field) -> (u64, usize) {
    let (offset, width) = field.register().unwrap();
    (offset, usize::try_from(width).unwrap())
}

/// A register reads as `value`.
fn says(field: Field, value: u64) -> Step {
    let (offset, width) = place(field);
    let bytes = value.to_le_bytes()[..width].to_vec();
    (read(0, offset, width), Outcome::Done { value: u64::try_from(width).unwrap(), bytes })
}

fn put(field: Field, value: u64) -> Call {
    let (offset, width) = place(field);
    write(0, offset, value.to_le_bytes()[..width].to_vec())
}

/// A register takes `value`.
fn takes(field: Field, value: u64) -> Step {
    (put(field, value), Outcome::done(u64::try_from(place(field).1).unwrap()))
}

fn goes(state: State) -> Step {
    takes(Field::DeviceState, u64::from(state as u32))
}

/// The data window reads as these bytes.
fn data(bytes: &[u8]) -> Step {
    window(LAYOUT.data_offset(), bytes)
}

fn window(offset: u64, bytes: &[u8]) -> Step {
    let value = u64::try_from(bytes.len()).unwrap();
    (read(0, offset, bytes.len()), Outcome::Done { value, bytes: bytes.to_vec() })
}

fn bar(offset: u64, value: u64) -> Step {
    let (data, pointer) = (value.to_le_bytes().to_vec(), Pointer::Good);
    (Call::Write { slot: 0, region: Region::Bar0, offset, data, pointer }, Outcome::done(8))
}

/// A transfer of one byte to page `page`, which is taken.
fn transfer(page: u64) -> Vec<Step> {
    vec![
        bar(edu::DMA[0], edu::BUFFER),
        bar(edu::DMA[1], page << 12),
        bar(edu::DMA[2], 1),
        bar(edu::DMA_COMMAND, 1 | edu::TO_MEMORY),
    ]
}

/// The registers of a query over 4 KiB pages.
fn asks(start: u64, pages: u64) -> Vec<Step> {
    vec![
        takes(Field::StartPfn, start),
        takes(Field::PageSize, 4096),
        takes(Field::TotalPfns, pages),
    ]
}

fn refused(call: Call, rule: Rule) -> Step {
    (call, Outcome::Failed(rule.errno()))
}

/// Follows a story; the error is that of the first step that cannot be.
fn follow(steps: impl IntoIterator<Item = Step>) -> Result<Vec<Model>, String> {
    follow_in(&setup(), steps)
}

fn follow_in(setup: &Setup, steps: impl IntoIterator<Item = Step>) -> Result<Vec<Model>, String> {
    let mut states = vec![Model::opened()];
    for (number, (call, outcome)) in steps.into_iter().enumerate() {
        let verdicts = states.iter().map(|state| state.step(setup, &call, &outcome));
        let verdicts: Vec<Verdict> = verdicts.collect();
        let next: Vec<Model> = verdicts.iter().flatten().flatten().cloned().collect();
        if next.is_empty() {
            return Err(format!("step {number}, {call}: {}", verdicts[0].clone().unwrap_err()));
        }
        states = next;
    }
    Ok(states)
}

#[track_caller]
fn right(steps: impl IntoIterator<Item = Step>) {
    follow(steps).unwrap();
}

/// All but the last step are right, and the last is wrong.
#[track_caller]
fn wrong(steps: impl IntoIterator<Item = Step>) {
    let mut steps: Vec<Step> = steps.into_iter().collect();
    let last = steps.pop().unwrap();
    follow(steps.clone()).unwrap();
    steps.push(last);
    follow(steps).unwrap_err();
}

#[test]
fn a_state_is_what_was_written_last_and_arcs_are_the_tables() {
    use State::{PreCopy, Running, Stopped};
    right([goes(PreCopy), says(Field::DeviceState, 3), goes(Running), says(Field::DeviceState, 1)]);
    wrong([goes(PreCopy), says(Field::DeviceState, 1)]);
    right([goes(Stopped), refused(put(Field::DeviceState, 3), Rule::ForbiddenArc)]);
    wrong([goes(Stopped), takes(Field::DeviceState, 3)]);
    wrong([refused(put(Field::DeviceState, 3), Rule::ForbiddenArc)]);
    wrong([refused(put(Field::DeviceState, 9), Rule::ReadOnly)]);
}

#[test]
fn a_standing_device_has_no_more_than_it_says_and_what_it_says() {
    let stands = || goes(State::StopAndCopy);
    let pending = |bytes| says(Field::PendingBytes, bytes);
    let staged = || says(Field::DataOffset, LAYOUT.data_offset());
    let size = |bytes| says(Field::DataSize, bytes);
    right([stands(), pending(100), staged(), size(60), data(&[7; 60]), pending(40)]);
    // The first answer is a bound: less may be to come, not more.
    right([stands(), pending(100), staged(), size(60), pending(30)]);
    wrong([stands(), pending(100), staged(), size(60), pending(41)]);
    // Twice in a row it is the same.
    wrong([stands(), pending(100), pending(99)]);
    // Something is pending, so there is something; nothing is, so there is nothing.
    wrong([stands(), pending(100), staged(), size(0)]);
    wrong([stands(), pending(0), staged(), size(1)]);
    wrong([stands(), pending(100), staged(), size(101)]);
    // A buffer stays what it is until it is ended.
    wrong([stands(), pending(100), staged(), size(2), data(&[1, 2]), staged(), data(&[1, 3])]);
    wrong([stands(), pending(100), staged(), size(2), staged(), size(3)]);
    let past = || read(0, LAYOUT.data_offset(), 3);
    right([stands(), staged(), size(2), refused(past(), Rule::NotStaged)]);
    wrong([stands(), staged(), size(2), data(&[1, 2, 3])]);
    wrong([stands(), data(&[1])]);
    // Without a session there is no buffer.
    wrong([data(&[1])]);
    right([pending(0), size(0), staged(), refused(past(), Rule::NotSaving)]);
}

#[test]
fn a_page_that_was_written_is_reported_until_the_report_was_read() {
    let start = || [vec![goes(State::PreCopy)], transfer(0x101), vec![goes(State::StopAndCopy)]];
    let story =
        |rest: Vec<Vec<Step>>| start().into_iter().chain(rest).flatten().collect::<Vec<Step>>();
    let copied = |pages| vec![says(Field::CopiedPfns, pages)];
    let bitmap = |bytes: &[u8]| vec![window(LAYOUT.bitmap_offset(), bytes)];
    let right_bits = [2, 0, 0, 0, 0, 0, 0, 0];
    wrong(story(vec![asks(0x100, 4), copied(PFNS_NONE)]));
    wrong(story(vec![asks(0x100, 4), copied(PFNS_ALL)]));
    wrong(story(vec![asks(0x100, 4), copied(5)]));
    right(story(vec![asks(0x101, 1), copied(PFNS_ALL), asks(0x100, 4), copied(PFNS_NONE)]));
    right(story(vec![asks(0x102, 4), copied(PFNS_NONE)]));
    wrong(story(vec![asks(0x102, 4), copied(PFNS_ALL)]));
    wrong(story(vec![asks(0x100, 4), copied(4), bitmap(&[1, 0, 0, 0, 0, 0, 0, 0])]));
    let read = || vec![asks(0x100, 4), copied(4), bitmap(&right_bits)];
    right(story([read(), vec![copied(PFNS_NONE)]].concat()));
    wrong(story([read(), vec![copied(4), bitmap(&right_bits)]].concat()));
    // A report that nobody read is made again.
    let unread = || vec![asks(0x100, 4), copied(4)];
    right(story([unread(), vec![copied(4), bitmap(&right_bits)]].concat()));
    wrong(story([unread(), vec![copied(PFNS_NONE)]].concat()));
    // While there is a bitmap its window is the current one, until data are asked for.
    let offset = |at| vec![says(Field::DataOffset, at)];
    right(story([unread(), vec![offset(LAYOUT.bitmap_offset())]].concat()));
    wrong(story([unread(), vec![offset(LAYOUT.data_offset())]].concat()));
    // Unless it may have been read in a mapping, where nobody sees that.
    let areas = vec![(LAYOUT.bitmap_offset(), 0x1000)];
    let window = Call::Map { slot: 0, region: Region::Migration, offset: areas[0].0, bytes: 1 };
    let mapped = vec![vec![(window, Outcome::done(1))]];
    let located = || [unread(), vec![offset(LAYOUT.bitmap_offset())]].concat();
    let offered = Setup { areas, ..setup() };
    let lost = [mapped, located(), vec![copied(PFNS_NONE)]].concat();
    follow_in(&offered, story(lost)).unwrap();
    wrong(story([located(), vec![copied(PFNS_NONE)]].concat()));
    let pending = || vec![says(Field::PendingBytes, 9)];
    right(story([unread(), vec![pending(), offset(LAYOUT.data_offset())]].concat()));
    wrong(story([unread(), vec![pending(), offset(LAYOUT.bitmap_offset())]].concat()));
}

#[test]
fn a_transfer_that_nobody_has_seen_end_may_be_dirty_or_not() {
    let story =
        |last| [vec![goes(State::PreCopy)], transfer(0x100), asks(0x100, 1), vec![last]].concat();
    right(story(says(Field::CopiedPfns, PFNS_NONE)));
    right(story(says(Field::CopiedPfns, PFNS_ALL)));
    // What is over when saving begins does not count, and what stopping waits for does.
    let before = [transfer(0x100), vec![goes(State::PreCopy)], asks(0x100, 1)].concat();
    right([before.clone(), vec![says(Field::CopiedPfns, PFNS_NONE)]].concat());
    right([before, vec![says(Field::CopiedPfns, PFNS_ALL)]].concat());
}

#[test]
fn a_query_needs_its_registers_and_they_stay() {
    let pre_copy = || vec![goes(State::PreCopy)];
    let (offset, width) = place(Field::CopiedPfns);
    let copied = || read(0, offset, width);
    right([pre_copy(), vec![refused(copied(), Rule::QueryIncomplete)]].concat());
    wrong([pre_copy(), vec![says(Field::CopiedPfns, PFNS_NONE)]].concat());
    right(vec![refused(copied(), Rule::NotSaving)]);
    let twice = vec![says(Field::CopiedPfns, PFNS_NONE), says(Field::CopiedPfns, PFNS_NONE)];
    right([pre_copy(), asks(0, 1), twice].concat());
    right([pre_copy(), asks(0, 0), vec![refused(copied(), Rule::EmptyRange)]].concat());
}

/// Saves two buffers to the end.
fn saves(first: &[u8], second: &[u8]) -> Vec<Step> {
    let size = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap();
    let buffer = |bytes: &[u8]| {
        [
            says(Field::DataOffset, LAYOUT.data_offset()),
            says(Field::DataSize, size(bytes)),
            data(bytes),
        ]
    };
    let mut steps = vec![goes(State::StopAndCopy), says(Field::PendingBytes, 500)];
    steps.extend(buffer(first));
    steps.push(says(Field::PendingBytes, size(second)));
    steps.extend(buffer(second));
    steps.extend([says(Field::PendingBytes, 0), goes(State::Running)]);
    steps
}

fn feeds(bytes: &[u8]) -> Vec<Step> {
    let length = u64::try_from(bytes.len()).unwrap();
    vec![
        (write(0, LAYOUT.data_offset(), bytes.to_vec()), Outcome::done(length)),
        takes(Field::DataSize, length),
    ]
}

#[test]
fn an_image_that_was_saved_is_taken_in_any_pieces_and_no_other_way() {
    let story = |rest: &[Vec<Step>]| {
        let (first, second) = ([1; 10], [2; 10]);
        [saves(&first, &second), vec![goes(State::Resuming)], rest.concat()].concat()
    };
    let pieces = || [feeds(&[1; 4]), feeds(&[1; 6]), feeds(&[2; 10])].concat();
    let incomplete = || vec![refused(put(Field::DeviceState, 1), Rule::ImageIncomplete)];
    let run = || vec![goes(State::Running)];
    right(story(&[pieces(), run()]));
    wrong(story(&[pieces(), incomplete()]));
    // Not before its end.
    right(story(&[feeds(&[1; 4]), incomplete(), feeds(&[1; 6])]));
    wrong(story(&[feeds(&[1; 4]), run()]));
    wrong(story(&[run()]));
    // A good piece must be taken; nothing after the end, and nothing damaged, may be.
    let mut refuses = feeds(&[1; 4]);
    refuses[1].1 = Outcome::Failed(Rule::ImageRecord.errno());
    wrong(story(&[refuses]));
    wrong(story(&[pieces(), feeds(&[3])]));
    let damaged = [[1; 10].as_slice(), &[2; 9], &[3]].concat();
    wrong(story(&[feeds(&damaged)]));
    wrong(story(&[feeds(&[1; 4]), feeds(&[1, 1, 9, 1, 1, 1]), feeds(&[2; 10])]));
    // Of what the model has never seen it judges nothing.
    right(story(&[feeds(b"?"), run()]));
    right(story(&[feeds(b"?"), incomplete()]));
}

#[test]
fn what_was_not_done_has_no_effect() {
    let (offset, bytes) = place(Field::PendingBytes);
    let bad =
        Call::Read { slot: 0, region: Region::Migration, offset, bytes, pointer: Pointer::Null };
    let fault = || (bad.clone(), Outcome::Failed(libc::EFAULT));
    let buffer = || {
        vec![
            goes(State::StopAndCopy),
            says(Field::PendingBytes, 100),
            says(Field::DataOffset, LAYOUT.data_offset()),
            says(Field::DataSize, 60),
            fault(),
        ]
    };
    // The buffer is still there.
    right([buffer(), vec![data(&[1; 60]), says(Field::PendingBytes, 40)]].concat());
    wrong([buffer(), vec![refused(read(0, LAYOUT.data_offset(), 1), Rule::NotStaged)]].concat());
    wrong(vec![(bad.clone(), Outcome::done(8))]);
}

#[test]
fn a_device_is_new_when_all_have_closed_it() {
    let slot = |slot| (Call::Open { slot }, Outcome::done(0));
    let close = |slot| (Call::Close { slot }, Outcome::done(0));
    let state = |state| says(Field::DeviceState, state);
    right([goes(State::Resuming), close(0), slot(0), state(1)]);
    right([goes(State::Resuming), slot(1), close(0), slot(0), state(4)]);
    wrong([goes(State::Resuming), slot(1), close(0), slot(0), state(1)]);
    wrong([close(0), state(1)]);
    right([close(0), (read(0, 0, 4), Outcome::NotMade)]);
    right([goes(State::Stopped), (Call::Reset { slot: 0 }, Outcome::done(0)), state(1)]);
}

#[test]
fn only_what_is_offered_can_be_mapped() {
    let call = Call::Map { slot: 0, region: Region::Migration, offset: 0x1000, bytes: 4096 };
    let maps = |setup: &Setup, outcome| Model::opened().step(setup, &call, &outcome).is_ok();
    let refused = || Outcome::Failed(libc::EINVAL);
    assert!(maps(&setup(), refused()));
    assert!(!maps(&setup(), Outcome::done(1)));
    let offered = Setup { areas: vec![(0x1000, 0x1000)], ..setup() };
    assert!(maps(&offered, Outcome::done(1)));
    // The driver may still refuse, as it may at any time.
    assert!(maps(&offered, refused()));
    let beside = Setup { areas: vec![(0x2000, 0x1000)], ..setup() };
    assert!(!maps(&beside, Outcome::done(1)));
}

proptest! {
    /// Whatever is done, something is right: the model never gets stuck with every outcome wrong.
    #[test]
    fn every_access_to_a_register_has_an_outcome(
        writes in proptest::collection::vec((0..9_usize, 0..6_u64), 0..12),
        field in 0..9_usize,
    ) {
        let mut state = Model::opened();
        let outcomes = || {
            [22, 13, 61, 74].map(Outcome::Failed).into_iter().chain([4, 8].map(Outcome::done))
        };
        for (field, value) in writes {
            let call = put(Field::ALL[field], value);
            let next = outcomes().find_map(|it| state.step(&setup(), &call, &it).ok());
            prop_assert!(next.is_some(), "{state}: {call}");
            state = next.unwrap_or_default().swap_remove(0);
        }
        let field = Field::ALL[field];
        let (offset, width) = place(field);
        let values = [0, 1, 2, 3, 4, 0x1000, u64::MAX].map(|value| says(field, value).1);
        let call = read(0, offset, width);
        let some = outcomes().chain(values).any(|it| state.step(&setup(), &call, &it).is_ok());
        prop_assert!(some, "{state}: {call}");
    }

    /// The state that a device says is never free: exactly one number is right.
    #[test]
    fn a_state_is_one_number(writes in proptest::collection::vec(0..8_u64, 0..12)) {
        let mut state = Model::opened();
        for value in writes {
            let call = put(Field::DeviceState, value);
            let done = state.step(&setup(), &call, &Outcome::done(4));
            state = done.map_or(state, |mut next| next.swap_remove(0));
        }
        let says = |value| {
            let (call, outcome) = says(Field::DeviceState, value);
            state.step(&setup(), &call, &outcome).is_ok()
        };
        prop_assert_eq!((0..16).filter(|value| says(*value)).count(), 1);
    }
}
