// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The two windows, trapped, mapped and partitioned, of every length: what the region says of them, what of them can be
//! mapped, that bytes arrive in every way, and that nothing that user space does in a mapping hurts anybody but itself.
//!
//! The module's parameters decide, so the module is loaded anew for each of them.

use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::Duration;

use cases::guest;
use cases::mapping::{RawMapping, Sharing};
use cases::module::{self, Log};
use cases::session::{PAGES, Session};
use migrator::PAGE_BYTES;
use migrator::device::Placed;
use migrator::live::{self, Options};
use migrator::region::DataAccess;
use migrator::region_info::RegionInfo;
use migrator::source::PreCopy;
use migscope_abi::region::{HEADER_BYTES, Layout, REGION_SUBTYPE, REGION_TYPE};
use migscope_abi::state::State;
use workload::Spec;
use workload::edu::{BUFFER_BYTES, LIVENESS, Transfer};

#[path = "windows/bitmap.rs"]
mod bitmap;
#[path = "windows/garbage.rs"]
mod garbage;
#[path = "windows/mapping.rs"]
mod mapping;

fn main() -> ExitCode {
    guest::run(&[
        ("a_region_says_what_of_it_can_be_mapped", says_what),
        ("a_parameter_that_cannot_be_is_refused_with_einval_and_a_line_in_the_log", refused),
        ("an_image_is_the_same_whichever_way_it_goes", same_image),
        ("a_buffer_that_spans_both_parts_goes_in_both_ways", spans_both),
        ("a_device_migrates_live_with_every_kind_of_window", live_with_every_kind),
        ("what_is_offered_can_be_mapped_in_any_part_and_nothing_else", mapping::parts),
        ("a_trapped_region_cannot_be_mapped_at_all", mapping::trapped),
        ("a_mapping_neither_grows_nor_leaves_its_window", mapping::resized),
        ("a_mapping_keeps_the_device_open_until_it_goes", mapping::outlives_close),
        ("a_child_shares_a_mapping", mapping::child),
        ("a_mapping_without_pages_or_permission_hurts_who_touches_it", mapping::no_pages),
        ("a_new_user_finds_nothing_of_the_last_ones", mapping::new_user),
        ("a_bitmap_read_from_a_mapping_is_clean_at_the_next_step", bitmap::arrived),
        ("a_bitmap_that_was_never_located_is_reported_again", bitmap::not_located),
        ("a_bitmap_read_by_system_calls_arrives_when_it_is_read_to_its_end", bitmap::by_calls),
        ("a_page_written_behind_a_mapped_bitmap_is_reported_again", bitmap::written_meanwhile),
        ("a_bitmap_fills_its_window_and_goes_on_with_the_next", bitmap::longer_than_the_window),
        ("garbage_while_saving_spoils_nothing_but_its_own_image", garbage::while_saving),
        ("garbage_while_loading_is_refused_or_was_too_late", garbage::while_loading),
        ("what_was_taken_in_cannot_be_changed_any_more", garbage::after_data_size),
        ("garbage_in_the_bitmap_does_not_reach_the_log", garbage::in_the_bitmap),
    ])
}

/// How the device data is reached: the values of `data_section`.
const TRAPPED: u32 = 0;
const MAPPED: u32 = 1;
const PARTITIONED: u32 = 2;
const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;
/// Mode, length of the data window, length of the bitmap window.
const WINDOWS: [(u32, u32, u32); 11] = [
    (TRAPPED, 4 * KIB, 4 * KIB),
    (TRAPPED, 64 * KIB, MIB),
    (TRAPPED, 16 * MIB, 16 * MIB),
    (MAPPED, 4 * KIB, 4 * KIB),
    (MAPPED, 64 * KIB, 64 * KIB),
    (MAPPED, MIB, 4 * KIB),
    (MAPPED, 16 * MIB, 16 * MIB),
    (PARTITIONED, 8 * KIB, 4 * KIB),
    (PARTITIONED, 64 * KIB, 16 * MIB),
    (PARTITIONED, MIB, 64 * KIB),
    (PARTITIONED, 16 * MIB, MIB),
];

fn reload(data_section: u32, data_window: u32, bitmap_window: u32) -> Layout {
    module::reload(&[
        ("data_section", data_section),
        ("data_window", data_window),
        ("bitmap_window", bitmap_window),
    ]);
    Layout { data_bytes: data_window, bitmap_bytes: bitmap_window }
}

/// The parts that can be mapped.
fn areas(data_section: u32, layout: Layout) -> Vec<Placed> {
    let trapped = match data_section {
        TRAPPED => return Vec::new(),
        PARTITIONED => PAGE_BYTES,
        _ => 0,
    };
    let data_bytes = u64::from(layout.data_bytes) - trapped;
    vec![
        Placed { offset: layout.data_offset() + trapped, bytes: data_bytes },
        Placed { offset: layout.bitmap_offset(), bytes: layout.bitmap_bytes.into() },
    ]
}

fn says_what() {
    // `include/uapi/linux/vfio.h`: READ, WRITE, MMAP, CAPS.
    let (read_write, mmap, capabilities) = (1 | 2, 4, 8);
    for (mode, data, bitmap) in WINDOWS {
        let layout = reload(mode, data, bitmap);
        let mut session = Session::first();
        assert_eq!(session.layout(), layout, "the places of the windows");
        let placed = session.device.migration_region();
        assert_eq!(placed.bytes, layout.region_bytes());
        let index = u32::try_from(placed.offset >> 40).expect("an index");
        let info = RegionInfo::ask(session.device.as_fd(), index).expect("a description");
        assert_eq!(info.kind, Some((REGION_TYPE, REGION_SUBTYPE)));
        let offered = areas(mode, layout);
        let offers = if mode == TRAPPED { 0 } else { mmap };
        assert_eq!(info.flags, read_write | capabilities | offers);
        assert_eq!(info.areas, (mode != TRAPPED).then_some(offered.clone()));
        assert_eq!(session.device.mappable_areas(), offered);
    }
}

fn refused() {
    let too_long = 16 * MIB + 4 * KIB;
    for wrong in [0, 1, 4095, 4097, 64 * KIB - 1, too_long, 32 * MIB, u32::MAX] {
        for parameter in ["data_window", "bitmap_window"] {
            refuses(&[(parameter, wrong)]);
        }
    }
    refuses(&[("data_section", 3)]);
    refuses(&[("data_section", u32::MAX)]);
    // There is no second page to be mapped.
    refuses(&[("data_section", PARTITIONED), ("data_window", 4 * KIB)]);
    module::reload(&[]);
}

fn refuses(parameters: &[(&str, u32)]) {
    const EINVAL: i32 = 22;
    module::unload();
    let mut log = Log::from_now().expect("the kernel's log");
    let error = module::load(parameters).expect_err("such a parameter cannot be");
    assert_eq!(error.raw_os_error(), Some(EINVAL), "{parameters:?}");
    let text = log.text().expect("the kernel's log");
    let line = "vfio_mediate: data_window and bitmap_window must be multiples of the page size";
    assert!(text.contains(line), "{parameters:?}: {text}");
}

const LIVENESS_BEFORE: u32 = 0x1357_9bdf;

/// A device with something in every part of its state, whose image takes more than a page.
fn filled() -> Session {
    let session = Session::first();
    let edu = session.device.edu();
    edu.write_u32(LIVENESS, LIVENESS_BEFORE).expect("a register");
    let memory = session.device.memory();
    let pattern: Vec<u8> = (0..BUFFER_BYTES).map(|at| (at % 251).to_le_bytes()[0]).collect();
    memory.write(memory.iova(), &pattern).expect("memory");
    let load =
        Transfer { memory: memory.iova(), buffer_at: 0, bytes: BUFFER_BYTES, to_memory: false };
    edu.transfer(load, cases::session::PATIENCE).expect("the buffer is loaded");
    session
}

/// Saves the device in a way.
fn image(session: &mut Session, access: DataAccess) -> Vec<Vec<u8>> {
    session.region.set_data_access(access).expect("what is offered can be mapped");
    session.image()
}

/// Brings the device to another state, so that what is loaded is seen to come from an image.
fn spoil(session: &Session) {
    session.device.edu().write_u32(LIVENESS, 0).expect("a register");
}

/// Asserts that the device is in the state that [`filled`] gave it.
fn check(session: &Session) {
    let edu = session.device.edu();
    assert_eq!(edu.read_u32(LIVENESS).expect("a register"), !LIVENESS_BEFORE);
    session.store(20, BUFFER_BYTES);
    let mut buffer = vec![0; usize::try_from(BUFFER_BYTES).expect("fits")];
    session.device.memory().read(session.pfn(20) * PAGE_BYTES, &mut buffer).expect("memory");
    assert!(buffer.iter().zip(0_u32..).all(|(byte, at)| *byte == (at % 251).to_le_bytes()[0]));
}

const WAYS: [DataAccess; 2] = [DataAccess::Trapped, DataAccess::Auto];

fn same_image() {
    for (mode, data, bitmap) in WINDOWS {
        reload(mode, data, bitmap);
        let mut session = filled();
        let trapped = image(&mut session, DataAccess::Trapped);
        let auto = image(&mut session, DataAccess::Auto);
        assert!(auto == trapped, "{mode}: an image of {data} bytes at most in a buffer");
        let longest = usize::try_from(data).expect("fits");
        assert!(trapped.iter().all(|buffer| buffer.len() <= longest));
        assert!(trapped.concat().len() > usize::try_from(BUFFER_BYTES).expect("fits"));
        for (access, image) in WAYS.into_iter().zip([&auto, &trapped]) {
            spoil(&session);
            session.region.set_data_access(access).expect("what is offered can be mapped");
            session.bring_to(State::Resuming);
            for buffer in image {
                session.region.load_buffer(buffer).expect("a good piece");
            }
            session.region.set_state(State::Running).expect("the image is complete");
            check(&session);
        }
    }
}

fn spans_both() {
    let layout = reload(PARTITIONED, 8 * KIB, 4 * KIB);
    let mut session = filled();
    let buffers = image(&mut session, DataAccess::Auto);
    let longest = buffers.iter().map(Vec::len).max().expect("there is data");
    assert!(longest > usize::try_from(PAGE_BYTES).expect("fits"), "{longest} bytes fit one page");
    let trapped = |bytes: usize| u64::try_from(bytes).expect("fits").min(PAGE_BYTES);
    let by_calls: u64 = buffers.iter().map(|buffer| trapped(buffer.len())).sum();
    let all: u64 = u64::try_from(buffers.concat().len()).expect("fits");
    let moved = session.region.account().data_window;
    assert_eq!((moved.trapped_bytes, moved.mapped_bytes), (by_calls, all - by_calls));

    // System calls reach both parts, and one access goes over the border.
    session.bring_to(State::StopAndCopy);
    let buffer = session.region.next_buffer(State::StopAndCopy).expect("data").expect("data");
    let again = session.read(HEADER_BYTES, buffer.len()).expect("both parts");
    assert!(again == buffer, "system calls read something else");
    let part = Placed { offset: HEADER_BYTES + PAGE_BYTES, bytes: PAGE_BYTES };
    let second = session.device.map(part).expect("the second part");
    let mut rest = vec![0; buffer.len().saturating_sub(4096)];
    second.read(0, &mut rest);
    assert!(rest == buffer[buffer.len().min(4096)..], "the mapping holds something else");
    assert_eq!(layout.data_bytes, 8 * KIB);
}

/// The whole way, dirty pages included.
fn live_with_every_kind() {
    for mode in [TRAPPED, MAPPED, PARTITIONED] {
        reload(mode, 8 * KIB, 4 * KIB);
        let (from, to) = (Session::open(0), Session::open(1));
        let options = Options {
            pre_copy: PreCopy {
                min_passes: 2,
                min_time: Duration::from_millis(600),
                interval: Duration::from_millis(200),
            },
            workload: Spec { hot_pages: 12, ..Spec::default() },
            data_access: DataAccess::Auto,
            ..Options::default()
        };
        let outcome = live::migrate(&from.device, &to.device, &options).expect("a migration");
        let (source, destination) = (&outcome.source, &outcome.destination);
        assert!(outcome.verified, "{:?}\n{:?}", source.verification, destination.verification);
        for end in [source, destination] {
            let moved = end.region.data_window;
            assert_eq!(moved.mapped_bytes + moved.trapped_bytes, end.region.data_bytes);
            assert_eq!(moved.trapped_bytes > 0, mode != MAPPED, "{mode}: {moved:?}");
            assert_eq!(moved.mapped_bytes > 0, mode != TRAPPED, "{mode}: {moved:?}");
        }
        let bitmaps = source.region.bitmap_window;
        assert!(bitmaps.mapped_bytes + bitmaps.trapped_bytes > 0, "no bitmap was read");
        assert_eq!(bitmaps.trapped_bytes > 0, mode == TRAPPED, "{mode}: {bitmaps:?}");
    }
}

/// A mapping of all of an area.
fn whole(session: &Session, area: Placed) -> RawMapping {
    let bytes = usize::try_from(area.bytes).expect("fits");
    RawMapping::new(&session.device, area.offset, bytes, Sharing::Shared).expect("it is offered")
}

/// A query for all of the test's memory, up to the answer.
fn ask(session: &mut Session) -> migrator::dirty::Answer {
    session.region.ask_dirty(session.pfn(0), PAGE_BYTES, PAGES).expect("an answer")
}
