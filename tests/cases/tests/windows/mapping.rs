// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What can be mapped, and how long a mapping is what it was.

use cases::mapping::{Protection, RawMapping, Sharing};
use cases::session::{Session, memory};
use migrator::device::Device;
use migscope_abi::region::{Field, HEADER_BYTES, Layout};
use migscope_abi::state::State;

use super::{KIB, MAPPED, PARTITIONED, TRAPPED, WINDOWS, areas, ask, reload, whole};

const PAGE: u64 = 4096;
const EFAULT: i32 = 14;
const EINVAL: i32 = 22;
const SIGSEGV: i32 = 11;
const SIGBUS: i32 = 7;

fn map(session: &Session, offset: u64, bytes: u64, sharing: Sharing) -> Result<RawMapping, i32> {
    let bytes = usize::try_from(bytes).expect("fits");
    RawMapping::new(&session.device, offset, bytes, sharing)
        .map_err(|error| error.raw_os_error().expect("the kernel refused"))
}

/// Places where a mapping could begin or end, as pages of the region: around every border.
fn places(layout: Layout) -> Vec<u64> {
    let mut places = vec![0, 1, 2, 3];
    for border in [layout.bitmap_offset() / PAGE, layout.region_bytes() / PAGE] {
        places.extend(border.saturating_sub(2)..=border + 2);
    }
    places.sort_unstable();
    places.dedup();
    places
}

/// Every mapping between two of the places: it is made if it lies in one area and is shared, and else refused.
pub(crate) fn parts() {
    for (mode, data, bitmap) in WINDOWS {
        if mode == TRAPPED {
            continue;
        }
        let layout = reload(mode, data, bitmap);
        let session = Session::first();
        let (areas, places) = (areas(mode, layout), places(layout));
        let mut made = 0;
        for from in &places {
            for to in places.iter().filter(|to| *to > from) {
                let (offset, bytes) = (from * PAGE, (to - from) * PAGE);
                let end = offset + bytes;
                let fits =
                    areas.iter().any(|it| it.offset <= offset && end <= it.offset + it.bytes);
                let what = format!("{bytes:#x} bytes at {offset:#x} of {layout:?}, mode {mode}");
                let shared = map(&session, offset, bytes, Sharing::Shared);
                assert_eq!(shared.as_ref().err().copied(), (!fits).then_some(EINVAL), "{what}");
                if let Ok(mapping) = shared {
                    made += 1;
                    // Its first byte and its last can be reached.
                    mapping.put(0, 0x5a);
                    mapping.put(mapping.bytes() - 1, 0xa5);
                    let last = mapping.get(mapping.bytes() - 1);
                    assert_eq!((mapping.get(0), last), (0x5a, 0xa5), "{what}");
                }
                let private = map(&session, offset, bytes, Sharing::Private);
                assert_eq!(private.err(), Some(EINVAL), "private: {what}");
            }
        }
        assert!(made >= areas.len(), "only {made} of the mappings lie in an area");
        // Far out, where the region's number would change and the offset would wrap around.
        for offset in [1 << 30, 1 << 39, (1 << 40) - PAGE] {
            assert_eq!(map(&session, offset, PAGE, Sharing::Shared).err(), Some(EINVAL));
        }
        assert_eq!(map(&session, 0, layout.region_bytes(), Sharing::Shared).err(), Some(EINVAL));
    }
}

pub(crate) fn trapped() {
    let layout = reload(TRAPPED, 64 * KIB, 64 * KIB);
    let session = Session::first();
    for from in places(layout) {
        for pages in [1, 2, 16] {
            for sharing in [Sharing::Shared, Sharing::Private] {
                let mapped = map(&session, from * PAGE, pages * PAGE, sharing);
                assert_eq!(mapped.err(), Some(EINVAL), "{pages} pages at page {from}");
            }
        }
    }
}

pub(crate) fn resized() {
    let layout = reload(MAPPED, 16 * KIB, 16 * KIB);
    let session = Session::first();
    let mut mapping = map(&session, layout.data_offset(), 2 * PAGE, Sharing::Shared).expect("two");
    mapping.put(0, 1);
    for pages in [3, 4, 5, 1024] {
        // Not even into the rest of its own window: the kernel asks nobody when a mapping grows.
        let bytes = usize::try_from(pages * PAGE).expect("fits");
        let error = mapping.resize(bytes).expect_err("a mapping grows");
        assert_eq!(error.raw_os_error(), Some(EFAULT), "{pages} pages");
    }
    assert_eq!((mapping.bytes(), mapping.get(0)), (8192, 1));
    mapping.resize(4096).expect("a mapping shrinks");
    assert_eq!(mapping.get(0), 1);
}

pub(crate) fn outlives_close() {
    let layout = reload(MAPPED, 8 * KIB, 4 * KIB);
    let session = Session::first_in(State::Resuming);
    let key = session.device.key();
    let mapping = map(&session, layout.data_offset(), 2 * PAGE, Sharing::Shared).expect("the data");
    session.write(HEADER_BYTES + 5, b"by a system call").expect("the window takes it");
    drop(session);
    // The file is closed. The mapping has it open, and with it the device.
    assert_eq!(mapping.contents()[5..21], *b"by a system call");
    mapping.put(8191, 7);
    assert_eq!(mapping.get(8191), 7);
    Device::open(key, memory()).expect_err("the device is in use as long as the mapping is");
    drop(mapping);
    let session = Session::first();
    assert_eq!(session.state(), State::Running);
}

pub(crate) fn child() {
    let layout = reload(MAPPED, 8 * KIB, 4 * KIB);
    let session = Session::first_in(State::Resuming);
    let mapping = map(&session, layout.data_offset(), 2 * PAGE, Sharing::Shared).expect("the data");
    assert_eq!(mapping.put_in_child(4097, 0x77).expect("a child"), None);
    assert_eq!(mapping.get(4097), 0x77);
    // The driver sees it, too: nothing that begins so is an image.
    let bytes = mapping.bytes().try_into().expect("fits");
    session.refusal("garbage", |session| session.put(Field::DataSize, bytes));
}

/// Nobody has anything of it but a signal.
pub(crate) fn no_pages() {
    let layout = reload(MAPPED, 8 * KIB, 4 * KIB);
    let session = Session::first_in(State::Resuming);
    let mapping = map(&session, layout.data_offset(), 2 * PAGE, Sharing::Shared).expect("the data");
    mapping.put(0, 9);
    mapping.protect(Protection::Read).expect("a right is given up");
    assert_eq!(mapping.put_in_child(0, 1).expect("a child"), Some(SIGSEGV));
    mapping.protect(Protection::None).expect("a right is given up");
    assert_eq!(mapping.put_in_child(0, 1).expect("a child"), Some(SIGSEGV));
    mapping.protect(Protection::ReadWrite).expect("a right is taken back");
    assert_eq!(mapping.put_in_child(1, 1).expect("a child"), None);
    assert_eq!((mapping.get(0), mapping.get(1)), (9, 1));
    mapping.forget_pages().expect("pages are given up");
    assert_eq!(mapping.put_in_child(0, 1).expect("a child"), Some(SIGBUS));
    // The window has its pages still.
    let again = map(&session, layout.data_offset(), 2 * PAGE, Sharing::Shared).expect("the data");
    assert_eq!((again.get(0), again.get(1)), (9, 1));
    assert_eq!(session.state(), State::Resuming);
}

pub(crate) fn new_user() {
    for mode in [MAPPED, PARTITIONED] {
        let layout = reload(mode, 8 * KIB, 8 * KIB);
        for _ in 0..2 {
            let mut session = Session::first_in(State::PreCopy);
            session.store(1, 16);
            ask(&mut session);
            for area in areas(mode, layout) {
                let mapping = whole(&session, area);
                for at in (0..mapping.bytes()).step_by(509) {
                    mapping.put(at, 0xee);
                }
            }
        }
        let session = Session::first();
        for area in areas(mode, layout) {
            assert!(whole(&session, area).contents().iter().all(|byte| *byte == 0), "{area:?}");
        }
    }
}
