// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The device: its DMA is checked before it reaches the device, and a device that stands takes no writes.

use std::process::ExitCode;

use cases::guest;
use cases::session::{PATIENCE, Session};
use migrator::PAGE_BYTES;
use migrator::memory::DmaMemory;
use migscope_abi::region::Field;
use migscope_abi::rule::Rule;
use migscope_abi::state::State;
use workload::edu::{
    ADDRESS_LIMIT, BUFFER_ADDRESS, BUFFER_BYTES, CMD_RUN, CMD_TO_MEMORY, DMA_CMD, DMA_COUNT,
    DMA_DST, DMA_SRC, FACTORIAL, ID, IRQ_ACK, IRQ_RAISE, IRQ_STATUS, LIVENESS, STATUS, Transfer,
};

fn main() -> ExitCode {
    guest::run(&[
        ("the_registers_are_those_of_the_device", registers),
        ("a_transfer_moves_the_buffer_in_and_out", moves_the_buffer),
        ("a_transfer_out_of_range_is_refused_and_not_done", out_of_range),
        ("a_command_while_a_transfer_is_under_way_is_ignored", ignored_while_under_way),
        ("a_stopped_device_takes_no_writes_and_can_be_read", stopped),
        ("a_stopped_device_goes_on_as_it_was", goes_on),
        ("a_client_that_maps_all_addresses_leaves_no_room_to_save_and_is_told_so", no_room),
    ])
}

fn registers() {
    let session = Session::first();
    let edu = session.device.edu();
    assert_eq!(edu.read_u32(ID).expect("a register") & 0xffff, 0x00ed);
    edu.write_u32(LIVENESS, 0xdead_beef).expect("a register");
    assert_eq!(edu.read_u32(LIVENESS).expect("a register"), !0xdead_beef);
    assert_eq!(edu.factorial(10, PATIENCE).expect("a factorial"), 3_628_800);
    edu.write_u32(IRQ_RAISE, 0x30).expect("a register");
    assert_eq!(edu.read_u32(IRQ_STATUS).expect("a register"), 0x30);
    edu.write_u32(IRQ_ACK, 0x10).expect("a register");
    assert_eq!(edu.read_u32(IRQ_STATUS).expect("a register"), 0x20);
}

fn moves_the_buffer() {
    let session = Session::first();
    let (edu, memory) = (session.device.edu(), session.device.memory());
    memory.write(memory.iova(), b"migscope").expect("memory");
    let load = Transfer { memory: memory.iova(), buffer_at: 100, bytes: 8, to_memory: false };
    edu.transfer(load, PATIENCE).expect("in");
    let away = memory.iova() + 5 * PAGE_BYTES;
    edu.transfer(Transfer { memory: away, to_memory: true, ..load }, PATIENCE).expect("out");
    let mut came = [0; 8];
    memory.read(away, &mut came).expect("memory");
    assert_eq!(&came, b"migscope");
}

/// Each of these would end the whole machine in QEMU 7.2, or write where the user has nothing mapped.
fn out_of_range() {
    let mut session = Session::first_in(State::PreCopy);
    let memory = session.device.memory().iova();
    let buffer_bytes = u64::from(BUFFER_BYTES);
    for (what, device, memory, bytes) in [
        ("no bytes", BUFFER_ADDRESS, memory, 0),
        ("to the buffer's last byte", BUFFER_ADDRESS, memory, buffer_bytes + 1),
        ("past the buffer", BUFFER_ADDRESS + 1, memory, buffer_bytes),
        ("before the buffer", BUFFER_ADDRESS - 1, memory, 16),
        ("nowhere near the buffer", 0, memory, 16),
        ("beyond the addresses that it drives", BUFFER_ADDRESS, ADDRESS_LIMIT, 16),
        ("over their end", BUFFER_ADDRESS, ADDRESS_LIMIT - 8, 16),
        ("an address that overflows", BUFFER_ADDRESS, u64::MAX, 16),
        ("a buffer address that overflows", u64::MAX, memory, 16),
        ("a count that overflows", BUFFER_ADDRESS, memory, u64::MAX),
    ] {
        let edu = session.device.edu();
        for command in [CMD_RUN, CMD_RUN | CMD_TO_MEMORY] {
            let (src, dst) =
                if command & CMD_TO_MEMORY != 0 { (device, memory) } else { (memory, device) };
            edu.write_u64(DMA_SRC, src).expect("a register");
            edu.write_u64(DMA_DST, dst).expect("a register");
            edu.write_u64(DMA_COUNT, bytes).expect("a register");
            session.refuses(Rule::DmaRange, what, |_| edu.write_u64(DMA_CMD, command));
            assert!(!edu.is_transferring().expect("a register"), "{what}");
        }
    }
    assert!(session.dirty().is_empty());
    session.store(4, 16);
    assert_eq!(session.dirty(), [4]);
}

fn ignored_while_under_way() {
    let mut session = Session::first_in(State::PreCopy);
    let edu = session.device.edu();
    edu.start(session.store_to(6, 16)).expect("a transfer starts");
    edu.write_u64(DMA_DST, session.pfn(8) * PAGE_BYTES).expect("ignored by the device");
    edu.write_u64(DMA_CMD, CMD_RUN | CMD_TO_MEMORY).expect("ignored");
    edu.wait_for_transfer(PATIENCE).expect("it ends");
    assert_eq!(session.dirty(), [6]);
}

fn stopped() {
    for state in [State::Stopped, State::StopAndCopy, State::Resuming] {
        let session = Session::first_in(state);
        let edu = session.device.edu();
        edu.snapshot().expect("every register can be read");
        for offset in [LIVENESS, FACTORIAL, STATUS, IRQ_RAISE, IRQ_ACK, DMA_CMD] {
            let what = format!("{offset:#x} while {}", state.name());
            session.refuses(Rule::DeviceStopped, &what, |_| edu.write_u32(offset, 1));
        }
    }
}

fn goes_on() {
    let mut session = Session::first();
    let edu = session.device.edu();
    edu.write_u32(LIVENESS, 77).expect("a register");
    edu.factorial(7, PATIENCE).expect("a factorial");
    edu.write_u32(IRQ_RAISE, 0x100).expect("a register");
    session.store(2, 33);
    let before = edu.snapshot().expect("registers");
    for pause in [State::Stopped, State::StopAndCopy] {
        session.region.set_state(pause).expect("it stops");
        assert_eq!(edu.snapshot().expect("registers"), before, "{}", pause.name());
        session.region.set_state(State::Running).expect("it goes on");
        assert_eq!(edu.snapshot().expect("registers"), before, "after {}", pause.name());
    }
    assert_eq!(edu.factorial(5, PATIENCE).expect("it works"), 120);
}

/// The driver moves the device's buffer through a page of its own, for which it takes an address that the client does not use.
fn no_room() {
    let everything = DmaMemory::new(0, ADDRESS_LIMIT).expect("there is memory");
    let mut session = Session::open_with(0, everything);
    session.store(2, 16);
    let load = Transfer { to_memory: false, ..session.store_to(2, 16) };
    session.device.edu().transfer(load, PATIENCE).expect("the buffer is used");
    session.bring_to(State::StopAndCopy);
    // What is before the buffer can be saved; how many records that is, is the driver's affair.
    for _ in 0..8 {
        session.get(Field::PendingBytes).expect("pending_bytes");
        if session.get(Field::DataOffset).is_err() {
            break;
        }
    }
    session.refuses(Rule::NoIova, "stage the buffer", |session| session.get(Field::DataOffset));
    session.region.set_state(State::Running).expect("the migration is cancelled");
    session.store(3, 16);
}
