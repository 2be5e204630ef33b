// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A device that does not run takes no writes, a reset leads out of every state, and no user finds what another one wrote.

use std::sync::Arc;

use cases::child::{Child, End, Rounds};
use cases::guest::Case;
use cases::ivshmem::Ivshmem;
use migrator::region::RegionIo as _;
use migscope_abi::rule::Rule;
use migscope_abi::state::State;
use workload::content::{Content, Ground, PAGE, Write};
use workload::edu::Registers as _;
use workload::ivshmem::{MASK, STATUS};
use workload::mapping::Mapping;

use crate::SMALL;

pub(crate) const CASES: &[Case] = &[
    ("a_device_that_does_not_run_refuses_writes_by_system_call", refuses_calls),
    ("a_device_that_does_not_run_refuses_writes_through_a_mapping", refuses_stores),
    ("a_device_in_any_state_can_be_read", can_be_read),
    ("a_reset_clears_the_registers_and_keeps_the_memory", reset),
    ("a_reset_while_resuming_lets_a_new_image_in", reset_while_resuming),
    ("a_reset_in_pre_copy_ends_the_tracking", reset_in_pre_copy),
    ("the_next_user_finds_zeros", next_user),
    ("the_next_user_finds_zeros_after_an_image_that_was_dropped", next_user_after_image),
    ("a_mapping_keeps_the_device_open", mapping_outlives),
    ("accesses_past_the_memory_are_refused", outside),
];

/// The states in which it does not run.
const AT_REST: [State; 3] = [State::Stopped, State::StopAndCopy, State::Resuming];
/// Those in which it does.
const AT_WORK: [State; 2] = [State::Running, State::PreCopy];

/// A device with noise in it, in a state.
fn device_in(state: State) -> (Ivshmem, Content) {
    let mut device = Ivshmem::open(SMALL, 0);
    let content = device.fill(Ground::Noise { seed: 31 });
    device.session.bring_to(state);
    (device, content)
}

fn refuses_calls() {
    for state in AT_REST {
        let (mut device, content) = device_in(state);
        for (what, at, bytes) in
            [("a word", 8, 8), ("a byte at the end", SMALL - 1, 1), ("many pages", 0, 10 * PAGE)]
        {
            let what = format!("{what}, {}", state.name());
            device
                .session
                .refuses(Rule::DeviceStopped, &what, |_| device.write(at, &vec![1; bytes]));
        }
        device.session.refuses(Rule::DeviceStopped, "a register", |_| {
            device.registers().write(MASK, &1_u32.to_le_bytes())
        });
        device.assert_holds(state.name(), &content);
        device.session.region.set_state(State::Stopped).expect("from each of them");
        device.cancel();
        device.write(8, &[1; 8]).expect("a device that runs takes writes");
    }
}

/// Lets another process write a word through a mapping.
fn store(mapping: &Mapping, page: u64, word: u64) -> End {
    let progress = Mapping::anonymous(PAGE).expect("memory");
    let write = Write { page, slot: 1, word };
    let child = Child::writing(mapping, &[write], Rounds::One, &progress).expect("a child");
    let end = child.wait().expect("it ends");
    assert_eq!(progress.load(0), u64::from(end == End::Done));
    end
}

fn refuses_stores() {
    for state in AT_REST {
        let mut device = Ivshmem::open(SMALL, 0);
        let content = device.fill(Ground::Noise { seed: 32 });
        let before = device.map();
        // Pages that are mapped for writing, for reading, and not at all.
        before.store(PAGE + 8, before.load(PAGE + 8));
        let _read = before.load(2 * PAGE);
        assert_eq!(store(&before, 0, before.load(8)), End::Done, "a device that runs");
        device.session.bring_to(state);
        let after = device.map();
        for (what, mapping) in [("before", &before), ("after", &after)] {
            for page in [0, 1, 2, 3, device.pages() - 1] {
                let what = format!("page {page}, mapped {what} it was {}", state.name());
                assert_eq!(store(mapping, page, 99), End::BusError, "{what}");
            }
        }
        device.assert_holds(state.name(), &content);
        device.session.region.set_state(State::Stopped).expect("from each of them");
        device.cancel();
        for mapping in [&before, &after] {
            assert_eq!(store(mapping, 3, 100), End::Done, "it runs again");
            assert_eq!(mapping.load(3 * PAGE + 8), 100);
        }
    }
}

fn can_be_read() {
    for state in AT_REST.into_iter().chain(AT_WORK) {
        let (device, content) = device_in(state);
        device.assert_holds(state.name(), &content);
        let mut page = vec![0; PAGE];
        let mut expected = page.clone();
        for number in [0, 77, device.pages() - 1] {
            device.read(number * PAGE as u64, &mut page).expect("a read");
            content.page(number, &mut expected);
            assert!(page == expected, "page {number}, {}", state.name());
        }
        assert_eq!(device.register(MASK), 0);
    }
}

fn write_registers(device: &Ivshmem) {
    for register in [MASK, STATUS] {
        device.registers().write(register, &0x55_u32.to_le_bytes()).expect("a register");
    }
}

fn reset() {
    for state in [State::Running, State::PreCopy, State::Stopped, State::StopAndCopy] {
        let mut device = Ivshmem::open(SMALL, 0);
        let mut content = device.fill(Ground::Noise { seed: 33 });
        write_registers(&device);
        let mapping = device.map();
        device.session.bring_to(state);
        if state.is_saving() {
            device.step();
        }
        device.session.region.io().reset().expect("a reset works in every state");
        assert_eq!(device.session.state(), State::Running, "from {}", state.name());
        assert_eq!((device.register(MASK), device.register(STATUS)), (0, 0), "{}", state.name());
        device.assert_holds(state.name(), &content);
        mapping.store(0, 5);
        content.apply(Write { page: 0, slot: 0, word: 5 });
        device.write(8, &6_u64.to_le_bytes()).expect("it runs");
        content.apply(Write { page: 0, slot: 1, word: 6 });
        device.assert_holds("after writes", &content);
        device.session.bring_to(State::PreCopy);
        device.drain().assert_pages("it is saved from the start", 0..device.pages());
    }
}

/// An image of a device full of noise.
fn image() -> Vec<u8> {
    let mut from = Ivshmem::open(SMALL, 1);
    from.fill(Ground::Noise { seed: 34 });
    from.stop_and_drain().image()
}

fn reset_while_resuming() {
    let image = image();
    for share in [3, 1] {
        let mut device = Ivshmem::open(SMALL, 0);
        device.resume();
        device.take_image(&image[..image.len() / share]);
        device.session.region.io().reset().expect("a reset works in every state");
        assert_eq!(device.session.state(), State::Running);
        // What has come of the image may stay for this user, who has it anyway; nothing else may be there.
        let (zeros, noise) =
            (vec![0; PAGE], Content::new(Ground::Noise { seed: 34 }, device.pages()));
        let (mapping, mut found, mut expected) = (device.map(), zeros.clone(), zeros.clone());
        for page in 0..device.pages() {
            mapping.read(usize::try_from(page).expect("fits") * PAGE, &mut found);
            noise.page(page, &mut expected);
            assert!(found == zeros || found == expected, "page {page} after the reset");
        }
        device.resume();
        device.take_image(&image);
        device.commit();
        device.assert_holds("a whole image", &noise);
        drop((mapping, device));
        assert_clean("after an image, a reset and another image");
    }
}

fn reset_in_pre_copy() {
    let mut device = Ivshmem::open(SMALL, 0);
    let mapping = device.map();
    device.session.bring_to(State::PreCopy);
    device.drain();
    mapping.store(0, 1);
    device.session.region.io().reset().expect("a reset");
    // A stream that goes on after a reset begins with a header again, which the destination takes.
    device.session.bring_to(State::PreCopy);
    device.drain().assert_pages("all of it", 0..device.pages());
    mapping.store(PAGE, 1);
    device.drain().assert_pages("what was written", [1]);
}

fn assert_clean(what: &str) {
    let device = Ivshmem::open(SMALL, 0);
    device.assert_holds(what, &Content::new(Ground::Fill(0), device.pages()));
    assert_eq!((device.register(MASK), device.register(STATUS)), (0, 0), "{what}");
}

fn next_user() {
    for state in [State::Running, State::PreCopy, State::Stopped, State::StopAndCopy] {
        let (device, _) = device_in(state);
        drop(device);
        assert_clean(state.name());
    }
    let device = Ivshmem::open(SMALL, 0);
    write_registers(&device);
    device.write(5 * PAGE as u64 - 1, &[7; 2]).expect("it runs");
    drop(device);
    assert_clean("after system calls");
    let device = Ivshmem::open(SMALL, 0);
    let mapping = device.map();
    assert_eq!(store(&mapping, 9, 9), End::Done);
    let _read_first = mapping.load(11 * PAGE);
    mapping.store(11 * PAGE, 1);
    drop(device);
    drop(mapping);
    assert_clean("after single stores");
}

fn next_user_after_image() {
    let image = image();
    for (what, share) in [("half of it", 2), ("all of it", 1)] {
        let mut device = Ivshmem::open(SMALL, 0);
        device.resume();
        device.take_image(&image[..image.len() / share]);
        drop(device);
        assert_clean(what);
    }
    let mut device = Ivshmem::open(SMALL, 0);
    device.resume();
    device.take_image(&image);
    device.commit();
    drop(device);
    assert_clean("an image that was committed");
}

fn mapping_outlives() {
    let device = Ivshmem::open(SMALL, 0);
    let mapping = device.map();
    mapping.store(0, 1);
    let weak = Arc::downgrade(&device.session.device);
    drop(device);
    assert!(weak.upgrade().is_none(), "the descriptor is closed");
    mapping.store(8, 2);
    assert_eq!((mapping.load(0), mapping.load(8)), (1, 2));
    drop(mapping);
    assert_clean("after the last mapping");
}

fn outside() {
    let device = Ivshmem::open(SMALL, 0);
    let place = device.session.device.bar(workload::ivshmem::MEMORY_BAR).placed().offset;
    let bytes = usize::try_from(SMALL).expect("fits");
    let file = &device.session.device;
    Mapping::of(file, place, bytes + PAGE).expect_err("longer than the memory");
    Mapping::of(file, place + PAGE as u64, bytes).expect_err("beyond its end");
    Mapping::of(file, place + SMALL, PAGE).expect_err("after its end");
    Mapping::of(file, place + SMALL - PAGE as u64, PAGE).expect("its last page").store(0, 1);
    device.write(SMALL, &[1; 8]).expect_err("after its end");
    device.read(SMALL, &mut [0; 8]).expect_err("after its end");
    // The registers are trapped.
    let registers = device.registers().placed().offset;
    Mapping::of(file, registers, PAGE).expect_err("the registers");
}
