// SPDX-License-Identifier: Apache-2.0 OR MIT
//! User space writes whatever it likes into its mappings, at every moment.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use cases::mapping::RawMapping;
use cases::session::Session;
use migrator::region::{DataAccess, RegionError};
use migscope_abi::region::{Field, HEADER_BYTES};
use migscope_abi::rule::Rule;
use migscope_abi::state::State;

use super::{
    KIB, MAPPED, PARTITIONED, WAYS, areas, ask, check, filled, image, reload, spoil, whole,
};

/// Rounds of each kind: an emulated machine makes few, and one core is the scribbler's.
const ROUNDS: u32 = 6;
/// If the scribbler was never in time, it gets so many.
const MANY_ROUNDS: u32 = 200;

/// What a damaged image breaks: mostly the checksum, unless the head that says where it is was hit.
const IMAGE_RULES: [Rule; 6] = [
    Rule::ImageMagic,
    Rule::ImageVersion,
    Rule::ImageDevice,
    Rule::ImageRecord,
    Rule::ImageChecksum,
    Rule::ImageIncomplete,
];

/// Runs `work` while another thread writes garbage into the mappings.
fn scribbled<T>(mappings: &[RawMapping], seed: u64, work: impl FnOnce() -> T) -> T {
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = fastrand::Rng::with_seed(seed);
            while !stop.load(Ordering::Relaxed) {
                for mapping in mappings {
                    // Mostly where the bytes are that somebody looks at.
                    let within = if random.bool() { 512 } else { mapping.bytes() };
                    mapping.put(random.usize(..within), random.u8(..));
                }
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
        while written.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        let result = work();
        stop.store(true, Ordering::Relaxed);
        result
    })
}

/// The data window and the bitmap window.
fn mapped(session: &Session, mode: u32, layout: migscope_abi::region::Layout) -> Vec<RawMapping> {
    areas(mode, layout).into_iter().map(|area| whole(session, area)).collect()
}

/// Saves the device as [`image`] does, and leaves each buffer in its window for a while.
fn image_slowly(session: &mut Session, access: DataAccess) -> Vec<Vec<u8>> {
    session.region.set_data_access(access).expect("what is offered can be mapped");
    session.region.set_state(State::StopAndCopy).expect("the device stops");
    let mut buffers = Vec::new();
    while session.region.pending_bytes().expect("pending_bytes") > 0 {
        session.get(Field::DataOffset).expect("data is staged");
        thread::sleep(Duration::from_millis(1));
        buffers.push(session.region.save_buffer().expect("data comes"));
    }
    session.region.set_state(State::Running).expect("saving can be cancelled");
    buffers
}

/// Loads an image. Says by which errno it was refused, if it was; then the device runs on as it was.
fn load(session: &mut Session, image: &[Vec<u8>]) -> Result<(), i32> {
    session.bring_to(State::Resuming);
    let loaded = image.iter().try_for_each(|buffer| session.region.load_buffer(buffer));
    match loaded.and_then(|()| session.region.set_state(State::Running)) {
        Ok(_) => Ok(()),
        Err(RegionError::Window { .. }) => panic!("a buffer is longer than its window"),
        Err(error) => {
            assert_eq!(session.state(), State::Resuming);
            session.region.set_state(State::Stopped).expect("an image can be dropped");
            session.region.set_state(State::Running).expect("the device goes on");
            Err(error.errno().expect("the driver refused it"))
        }
    }
}

pub(crate) fn while_saving() {
    for mode in [MAPPED, PARTITIONED] {
        let layout = reload(mode, 8 * KIB, 4 * KIB);
        let mut session = filled();
        let good = image(&mut session, DataAccess::Trapped);
        let mappings = mapped(&session, mode, layout);
        let mut spoilt = 0;
        for round in 0..ROUNDS {
            let access = WAYS[usize::from(round % 2 == 0)];
            let bad = scribbled(&mappings, round.into(), || image_slowly(&mut session, access));
            let lengths = |image: &[Vec<u8>]| image.iter().map(Vec::len).collect::<Vec<_>>();
            assert_eq!(lengths(&bad), lengths(&good), "lengths come from registers");
            match load(&mut session, &bad) {
                Ok(()) => assert!(bad == good, "garbage was taken for an image"),
                Err(errno) => {
                    assert!(bad != good, "a good image was refused");
                    assert!(IMAGE_RULES.iter().any(|rule| rule.errno() == errno), "{errno}");
                    spoilt += 1;
                }
            }
            assert!(image(&mut session, access) == good, "the device's state has suffered");
        }
        assert!(spoilt > 0, "the scribbler never came in time, so nothing was tested");
        check(&session);
    }
}

pub(crate) fn while_loading() {
    for mode in [MAPPED, PARTITIONED] {
        let layout = reload(mode, 8 * KIB, 4 * KIB);
        let mut session = filled();
        let good = image(&mut session, DataAccess::Auto);
        spoil(&session);
        let other = image(&mut session, DataAccess::Auto);
        assert!(good != other, "two images are the same");
        let mappings = mapped(&session, mode, layout);
        let mut refused = 0;
        for round in 0..MANY_ROUNDS {
            if round >= ROUNDS && refused > 0 {
                break;
            }
            let access = WAYS[usize::from(round % 2 == 0)];
            session.region.set_data_access(access).expect("what is offered can be mapped");
            match scribbled(&mappings, round.into(), || load(&mut session, &good)) {
                Ok(()) => {
                    assert!(image(&mut session, access) == good, "taken in is not what was sent");
                    assert_eq!(load(&mut session, &other), Ok(()));
                }
                Err(_) => {
                    refused += 1;
                    assert!(image(&mut session, access) == other, "a refused image left traces");
                }
            }
        }
        assert!(refused > 0, "the scribbler never came in time, so nothing was tested");
        assert_eq!(load(&mut session, &good), Ok(()));
        check(&session);
    }
}

pub(crate) fn after_data_size() {
    let layout = reload(MAPPED, 8 * KIB, 4 * KIB);
    let mut session = filled();
    let good = image(&mut session, DataAccess::Auto);
    spoil(&session);
    let mappings = mapped(&session, MAPPED, layout);
    session.bring_to(State::Resuming);
    for buffer in &good {
        session.region.load_buffer(buffer).expect("a good piece");
        mappings.iter().for_each(|mapping| {
            (0..mapping.bytes()).for_each(|at| mapping.put(at, 0xcc));
        });
    }
    session.region.set_state(State::Running).expect("the image is complete");
    check(&session);

    let good = image(&mut session, DataAccess::Trapped);
    // What was staged may be changed by who reads it, and is staged anew for the next.
    session.bring_to(State::StopAndCopy);
    let first = session.region.next_buffer(State::StopAndCopy).expect("data").expect("data");
    mappings[0].put(0, !first[0]);
    assert_eq!(session.read(HEADER_BYTES, 1).expect("the window"), [!first[0]]);
    session.region.set_state(State::Running).expect("saving can be cancelled");
    assert!(image(&mut session, DataAccess::Trapped) == good, "a staged byte came back");
}

pub(crate) fn in_the_bitmap() {
    let layout = reload(MAPPED, 8 * KIB, 4 * KIB);
    let mut session = Session::first_in(State::PreCopy);
    session.region.set_data_access(DataAccess::Auto).expect("what is offered can be mapped");
    let mappings = mapped(&session, MAPPED, layout);
    for round in 0..ROUNDS {
        // Which pages garbage says are dirty is the user's own affair; here they are not even read.
        session.store(5, 16);
        session.store(9, 16);
        scribbled(&mappings, round.into(), || {
            for _ in 0..50 {
                ask(&mut session);
                session.get(Field::DataOffset).expect("data_offset");
                session.read(layout.bitmap_offset(), 4).expect("a part, so it has not arrived");
            }
        });
        assert_eq!(session.dirty(), [5, 9]);
        assert!(session.dirty().is_empty());
    }
}
