// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The driver without memory: each allocation of each call fails once, and nothing is lost by it.
//!
//! A call whose allocation failed says ENOMEM and leaves the device in the state it was in, or it did without. Then the same
//! call is made again and works. This needs a kernel with fault injection: the debug kernel has it.
//!
//! Opening a device is not among the calls: it enables the PCI device, and Linux 7.3's ACPI does not survive a failing allocation
//! there (KASAN: slab-use-after-free in `acpi_ns_get_attached_object()`).

use std::io;
use std::process::ExitCode;

use cases::session::Session;
use cases::{guest, starve};
use libtest_mimic::{Arguments, Trial};
use migrator::PAGE_BYTES;
use migscope_abi::region::{Field, HEADER_BYTES};
use migscope_abi::state::State::{self, PreCopy, Resuming, Running, StopAndCopy};

const ENOMEM: i32 = 12;

const CASES: [guest::Case; 4] = [
    ("a_state_that_cannot_be_entered_is_not_entered", states),
    ("a_part_that_cannot_be_staged_is_staged_later", staging),
    ("a_buffer_that_cannot_be_taken_is_taken_later", taking),
    ("a_page_that_cannot_be_logged_is_not_forgotten", logging),
];

fn main() -> ExitCode {
    let Some(why) = starve::why_not() else { return guest::run(&CASES) };
    eprintln!("not run: {why}");
    let trials = CASES.map(|(name, _)| {
        let why = why.clone();
        Trial::test(name, move || Err(why.into())).with_ignored_flag(true)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

/// Asserts that a call worked or said that there is no memory; gives whether it worked.
fn worked<T: std::fmt::Debug>(what: &str, result: &io::Result<T>) -> bool {
    match result {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(ENOMEM), "{what}: {result:?}");
            false
        }
    }
}

fn states() {
    let mut tried = 0;
    for to in [PreCopy, StopAndCopy, Resuming] {
        let allocations = starve::each_allocation(|nth| {
            let session = Session::first();
            let bits = (to as u32).to_ne_bytes();
            let starved = starve::starved(nth, || session.write(0, &bits));
            if !worked(to.name(), &starved.result) {
                assert_eq!(session.state(), Running, "{}, allocation {nth}", to.name());
                session.write(0, &bits).expect("there is memory now");
            }
            assert_eq!(session.state(), to);
            starved.hungry
        });
        tried += allocations;
    }
    assert!(tried > 0, "no state needs memory");
}

/// The whole image, staged under starvation at the `nth` allocation of the call that stages the buffer `at`.
fn staging() {
    let whole = Session::first().image().concat();
    let mut tried = 0;
    for at in 0..3 {
        tried += starve::each_allocation(|nth| {
            let session = Session::first_in(StopAndCopy);
            let (mut image, mut hungry) = (Vec::new(), false);
            for buffer in 0.. {
                if session.get(Field::PendingBytes).expect("it can be read") == 0 {
                    break;
                }
                if buffer == at {
                    let starved = starve::starved(nth, || session.get(Field::DataOffset));
                    worked("data_offset", &starved.result);
                    hungry = starved.hungry;
                }
                session.get(Field::DataOffset).expect("there is memory now");
                let bytes = session.get(Field::DataSize).expect("a length");
                let bytes = usize::try_from(bytes).expect("small");
                image.extend(session.read(HEADER_BYTES, bytes).expect("data"));
            }
            assert_eq!(image, whole, "buffer {at}, allocation {nth}");
            hungry
        });
    }
    assert!(tried > 0, "staging needs no memory");
}

fn taking() {
    let buffers = Session::first().image();
    let mut tried = 0;
    for at in 0..buffers.len() {
        tried += starve::each_allocation(|nth| {
            let (mut session, mut hungry) = (Session::first_in(Resuming), false);
            for (number, buffer) in buffers.iter().enumerate() {
                session.write(HEADER_BYTES, buffer).expect("the window takes it");
                let bytes = u64::try_from(buffer.len()).expect("small");
                if number == at {
                    let starved = starve::starved(nth, || session.put(Field::DataSize, bytes));
                    hungry = starved.hungry;
                    if worked("data_size", &starved.result) {
                        continue;
                    }
                    assert_eq!(session.state(), Resuming);
                }
                session.put(Field::DataSize, bytes).expect("there is memory now");
            }
            session.region.set_state(Running).expect("the image is complete");
            hungry
        });
    }
    assert!(tried > 0, "taking needs no memory");
}

fn logging() {
    let allocations = starve::each_allocation(|nth| {
        let mut session = Session::first_in(PreCopy);
        session.device.edu().start(session.store_to(9, 100)).expect("a transfer starts");
        std::thread::sleep(std::time::Duration::from_millis(150));
        // The device is looked at in this call, and the page is logged.
        let starved = starve::starved(nth, || session.device.edu().read_u32(0x98));
        assert_eq!(starved.result.expect("it can be read") & 1, 0, "the transfer is over");
        let dirty = session.dirty();
        assert!(dirty.contains(&9), "allocation {nth}: page 9 is not among {dirty:?}");
        // A log that is lost stays lost until saving ends, and says that all is dirty.
        let pages = u64::try_from(dirty.len()).expect("small");
        assert!(pages == 1 || pages == session.everything().pages, "{dirty:?}");
        session.region.set_state(State::Running).expect("saving ends");
        session.region.set_state(PreCopy).expect("saving begins");
        session.region.ask_dirty(session.pfn(0), PAGE_BYTES, 1).expect("a query is answered");
        assert!(session.dirty().is_empty(), "the new log has pages");
        starved.hungry
    });
    assert!(allocations > 0, "logging needs no memory");
}
