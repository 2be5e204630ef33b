// SPDX-License-Identifier: Apache-2.0 OR MIT
//! When a bitmap in a window that is mapped has arrived: what the driver does not see must lose no page.

use cases::fault::NoMemory;
use cases::session::{PAGES, Session, offset_of};
use migrator::PAGE_BYTES;
use migrator::dirty::{Answer, PageSet};
use migrator::region::DataAccess;
use migscope_abi::dirty::Query;
use migscope_abi::region::Field;
use migscope_abi::rule::Rule;
use migscope_abi::state::State;

use super::{KIB, MAPPED, PARTITIONED, TRAPPED, areas, ask, reload, whole};

const DIRTY: [u64; 2] = [3, 8];

/// A session with two dirty pages and a bitmap that says so, and everything mapped.
fn answered() -> Session {
    let mut session = Session::first_in(State::PreCopy);
    session.region.set_data_access(DataAccess::Auto).expect("what is offered can be mapped");
    for page in DIRTY {
        session.store(page, 16);
    }
    assert_eq!(ask(&mut session), Answer::Bitmap(PAGES));
    session
}

/// Reads the bitmap from the mapping, which takes one system call: that of `data_offset`.
fn read_mapped(session: &mut Session) {
    let (first, mut set) = (session.pfn(0), PageSet::default());
    session.region.read_bitmap(&mut set, first, PAGE_BYTES, PAGES).expect("the bitmap");
    assert_eq!(set.iter().map(|pfn| pfn - first).collect::<Vec<_>>(), DIRTY);
    assert_eq!(session.region.account().bitmap_window.trapped_bytes, 0);
}

pub(crate) fn arrived() {
    for mode in [MAPPED, PARTITIONED] {
        reload(mode, 8 * KIB, 4 * KIB);
        // The next query.
        let mut session = answered();
        read_mapped(&mut session);
        assert!(session.dirty().is_empty());
        drop(session);
        // The data's sequence.
        let mut session = answered();
        read_mapped(&mut session);
        session.get(Field::PendingBytes).expect("pending_bytes");
        assert!(session.dirty().is_empty());
        drop(session);
        // After the device has stopped.
        let mut session = answered();
        read_mapped(&mut session);
        session.region.set_state(State::StopAndCopy).expect("the device stops");
        assert!(session.dirty().is_empty());
    }
}

pub(crate) fn not_located() {
    reload(MAPPED, 8 * KIB, 4 * KIB);
    let mut session = answered();
    assert_eq!(session.dirty(), DIRTY, "nobody has looked");
    drop(session);

    // The user did not learn where the bitmap is.
    let nowhere = NoMemory::map().expect("a page without permissions");
    let mut session = answered();
    session.refuses(Rule::BadAddress, "data_offset", |session| {
        nowhere.read(&session.device, offset_of(Field::DataOffset), 8)
    });
    assert_eq!(session.dirty(), DIRTY, "data_offset did not arrive");
    drop(session);

    // Located, and then another answer: the first one is not read any more.
    let mut session = answered();
    session.get(Field::PendingBytes).expect("pending_bytes");
    session.get(Field::DataOffset).expect("of the data");
    assert_eq!(session.dirty(), DIRTY, "that was not the bitmap's place");
    drop(session);

    // Without a mapping nothing is read unseen.
    let mut session = Session::first_in(State::PreCopy);
    for page in DIRTY {
        session.store(page, 16);
    }
    ask(&mut session);
    session.get(Field::DataOffset).expect("data_offset");
    assert_eq!(session.dirty(), DIRTY, "nothing is mapped");
}

pub(crate) fn by_calls() {
    reload(MAPPED, 8 * KIB, 4 * KIB);
    let nowhere = NoMemory::map().expect("a page without permissions");
    for (what, from, bytes) in [("the start", 0, 4), ("the end", 4, 4)] {
        let mut session = answered();
        let at = session.get(Field::DataOffset).expect("data_offset");
        session.read(at + from, bytes).expect("a part of the bitmap");
        assert_eq!(session.dirty(), DIRTY, "only {what} was read");
    }
    let mut session = answered();
    let at = session.get(Field::DataOffset).expect("data_offset");
    session.refuses(Rule::BadAddress, "the bitmap", |session| nowhere.read(&session.device, at, 8));
    assert_eq!(session.dirty(), DIRTY, "the user's memory was not there");
    drop(session);

    // A part in each way: reported once more, and not lost.
    let mut session = answered();
    let at = session.get(Field::DataOffset).expect("data_offset");
    session.read(at, 1).expect("a byte by a system call");
    read_mapped_unchecked(&mut session);
    assert_eq!(session.dirty(), DIRTY);
    assert!(session.dirty().is_empty());
    drop(session);

    let mut session = answered();
    let at = session.get(Field::DataOffset).expect("data_offset");
    session.read(at, 8).expect("all of the bitmap");
    assert!(session.dirty().is_empty());
}

fn read_mapped_unchecked(session: &mut Session) {
    let first = session.pfn(0);
    let mut set = PageSet::default();
    session.region.read_bitmap(&mut set, first, PAGE_BYTES, PAGES).expect("the bitmap");
}

pub(crate) fn written_meanwhile() {
    reload(MAPPED, 8 * KIB, 4 * KIB);
    let mut session = answered();
    // One page that is in the bitmap, one that is not.
    session.store(DIRTY[0], 16);
    session.store(40, 16);
    read_mapped(&mut session);
    assert_eq!(session.dirty(), [DIRTY[0], 40]);
    assert!(session.dirty().is_empty());
}

/// The smallest window has bits for 128 MiB. A query for more takes several bitmaps, in every mode and way.
pub(crate) fn longer_than_the_window() {
    let per_window = u64::from(4 * KIB) * 8;
    for mode in [TRAPPED, MAPPED] {
        for access in [DataAccess::Trapped, DataAccess::Auto] {
            let layout = reload(mode, 8 * KIB, 4 * KIB);
            let mut session = Session::first_in(State::PreCopy);
            session.region.set_data_access(access).expect("what is offered can be mapped");
            // What an earlier user of the mapping left there is no part of an answer.
            for area in areas(mode, layout) {
                let mapping = whole(&session, area);
                (0..mapping.bytes()).for_each(|at| mapping.put(at, 0xff));
            }
            session.store(DIRTY[1], 16);
            let last = session.pfn(DIRTY[1]);
            // The dirty page is the first of the second window.
            let query = Query::new(last - per_window.min(last), PAGE_BYTES, per_window + 9);
            let start = last - per_window.min(last);
            let set = session.region.dirty_pages(query.expect("a query")).expect("an answer");
            assert_eq!(set, PageSet::from_iter([last]), "from {start:#x}");
            assert!(session.dirty().is_empty());
        }
    }
}
