// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An unmodified QEMU migrates a device that is a memory: `ivshmem-plain`, the BAR of which it maps into its machine.
//!
//! As in `qemu.rs` the machines have no operating system, and what their processor would write is written over qtest: so each
//! write is a store of QEMU's to its mapping of the BAR, which the driver sees by a page fault. Compared are all of the memory, as
//! QEMU reads it through its own mapping, the registers, and the device data that went in and out.

use std::fs;
use std::ops::Range;
use std::process::ExitCode;

use cases::guest::{self, Case};
use cases::ivshmem;
use migscope_abi::device::DeviceKey;
use migscope_abi::state::State::{PreCopy, Running, StopAndCopy};
use serde_json::json;
use workload::content::{Content, Ground, PAGE, Write};
use workload::edu::Registers as _;
use workload::ivshmem::{MASK, MEMORY_BAR, REGISTERS_BAR};
use workload::pattern::{Load, Pattern, Step, Strokes};

use account::Account;
use course::{
    LOADED, SAVED, SAVED_PAUSED, assert_arcs, assert_data, cancel, let_converge, path, ran_on,
    start_migration, wait_before_switchover,
};
use machine::{Machine, wait};

#[path = "qemu/account.rs"]
#[expect(dead_code, reason = "a part of it is for windows of several kinds")]
mod account;
#[path = "qemu/course.rs"]
mod course;
#[path = "qemu/machine.rs"]
#[expect(dead_code, reason = "a part of it is for edu")]
mod machine;
#[path = "qemu/qtest.rs"]
#[expect(dead_code, reason = "a part of it is for devices that do DMA")]
mod qtest;

const CASES: &[Case] = &[
    ("qemu_saves_a_memory_to_a_file_and_restores_it_on_another", through_a_file),
    ("qemu_migrates_a_memory_live_with_what_was_written_meanwhile", live),
    ("a_memory_is_used_on_when_qemu_cancels_in_pre_copy", cancel_in_pre_copy),
    ("a_memory_is_used_on_when_qemu_cancels_in_stop_and_copy", cancel_in_stop_and_copy),
    ("qemu_migrates_the_memory_of_a_paused_machine", paused),
];

fn main() -> ExitCode {
    course::run(CASES)
}

/// Length of the devices' memory, in bytes.
const BYTES: u64 = 16 << 20;
const PAGES: u64 = BYTES / PAGE as u64;
/// Words that are written before a migration, and while it is under way.
const WRITES: usize = 200;
/// Pages of noise, at the end of the memory.
const NOISE_PAGES: u64 = 64;
/// Pages of one byte, at its start.
const FILLED_PAGES: u64 = 128;

fn devices() -> [DeviceKey; 2] {
    let devices = ivshmem::devices(BYTES);
    devices[..2].try_into().expect("two devices")
}

/// What a device holds.
struct Contents {
    mask: u32,
    memory: Content,
}

impl Contents {
    /// Gives a machine's device, which holds zeros, contents that no other seed gives it: pages of one byte, pages of noise, and
    /// words on many pages.
    fn fill(machine: &Machine, seed: u8) -> Self {
        let mut contents = Self { mask: 0, memory: Content::new(Ground::Fill(0), PAGES) };
        contents.put(machine, 0..FILLED_PAGES, Ground::Fill(u64::from_le_bytes([seed; 8])));
        contents.put(machine, PAGES - NOISE_PAGES..PAGES, Ground::Noise { seed: seed.into() });
        contents.write(machine, seed);
        contents
    }

    fn put(&mut self, machine: &Machine, pages: Range<u64>, ground: Ground) {
        let (memory, ground) = (machine.bar(MEMORY_BAR.into()), Content::new(ground, PAGES));
        let mut bytes = [0; PAGE];
        for page in pages {
            ground.page(page, &mut bytes);
            let at = memory.address + page * PAGE as u64;
            memory.qtest.write_memory(at, &bytes).expect("a BAR");
            for (slot, word) in (0..).zip(bytes.as_chunks().0) {
                self.memory.apply(Write { page, slot, word: u64::from_le_bytes(*word) });
            }
        }
    }

    /// Writes words to pages all over the memory, and the register.
    fn write(&mut self, machine: &Machine, seed: u8) {
        let load =
            Load { pattern: Pattern::Uniform, range: 0..PAGES, per_second: 0, seed: seed.into() };
        let mut strokes = Strokes::new(load);
        let memory = machine.bar(MEMORY_BAR.into());
        for _ in 0..WRITES {
            let Step::Write(write) = strokes.step() else { panic!("no pauses were asked for") };
            memory.write(write.at(), &write.word.to_le_bytes()).expect("a BAR");
            self.memory.apply(write);
        }
        self.mask = u32::from(seed) << 8;
        let registers = machine.bar(REGISTERS_BAR.into());
        registers.write(MASK, &self.mask.to_le_bytes()).expect("a register");
    }

    /// Asserts that a machine's device holds this, and can be written.
    fn check(&self, machine: &Machine) {
        let (registers, mut mask) = (machine.bar(REGISTERS_BAR.into()), [0; 4]);
        registers.read(MASK, &mut mask).expect("a register");
        assert_eq!(u32::from_le_bytes(mask), self.mask);
        let memory = machine.bar(MEMORY_BAR.into());
        let file = path("memory");
        let whole = json!({ "val": memory.address, "size": BYTES, "filename": file });
        machine.execute("pmemsave", whole);
        let found = fs::read(&file).expect("QEMU has written it");
        drop(fs::remove_file(&file));
        let difference = self.memory.difference(|at, into| {
            let at = usize::try_from(at).expect("fits");
            into.copy_from_slice(&found[at..at + into.len()]);
            Ok(())
        });
        assert_eq!(difference.expect("a file is read"), None);
        memory.write(0, &7_u64.to_le_bytes()).expect("a BAR");
        let mut word = [0; 8];
        memory.read(0, &mut word).expect("a BAR");
        assert_eq!(u64::from_le_bytes(word), 7);
    }
}

/// Asserts that as much device data came as went, and no more than what is in the memory: fills are sent short.
fn assert_short(driver: &Account, devices: [DeviceKey; 2], pages: u64) {
    let bytes = assert_data(driver, devices);
    let least = NOISE_PAGES * PAGE as u64;
    assert!(bytes >= least, "{bytes} bytes do not hold the pages of noise");
    let most = pages * (PAGE as u64 + 128);
    assert!(bytes < most, "{bytes} bytes for {pages} pages that are no fills");
}

fn through_a_file() {
    let [one, other] = devices();
    let (driver, image) = (Account::watch().expect("tracefs"), path("image"));
    let from = Machine::boot(one);
    let contents = Contents::fill(&from, 1);
    let_converge(&from);
    from.execute("migrate", json!({ "uri": format!("exec:cat > {image}") }));
    from.wait_for_departure();
    from.quit();
    assert_arcs(&driver, one, &SAVED);

    let to = Machine::incoming(other, &format!("exec:cat {image}"));
    to.wait_for_status("running");
    assert_eq!(to.migration(), "completed");
    contents.check(&to);
    to.quit();
    assert_arcs(&driver, other, &LOADED);
    let words = u64::try_from(WRITES).expect("fits");
    assert_short(&driver, [one, other], NOISE_PAGES + 2 * words);
}

fn live() {
    let [one, other] = devices();
    let (driver, socket) = (Account::watch().expect("tracefs"), format!("unix:{}", path("sock")));
    let from = Machine::boot(one);
    let mut contents = Contents::fill(&from, 2);
    let to = Machine::incoming(other, &socket);
    start_migration(&from, &socket);
    wait("pre-copy", || driver.arcs(one).last() == Some(&(Running, PreCopy)));
    let more = || driver.data_bytes(one);
    wait("the first pass", || more() > NOISE_PAGES * PAGE as u64);
    // Pages that were sent, as all were, are written once more, and then again: so they are mapped for writing again each time.
    for seed in [3, 4] {
        let before = more();
        contents.write(&from, seed);
        wait("what was written", || {
            more() >= before + u64::try_from(WRITES).unwrap_or(0) / 2 * 4096
        });
    }
    contents.write(&from, 5);
    assert_eq!((from.status(), from.migration()), ("running".into(), "active".into()));
    let arc = driver.arcs(one).last().copied();
    assert_eq!(arc, Some((Running, PreCopy)), "it was over before it was meant to");

    let_converge(&from);
    let account = from.wait_for_departure();
    guest::measured("qemu_ivshmem_downtime", &account["downtime"], "ms");
    to.wait_for_status("running");
    assert_eq!(to.migration(), "completed");
    contents.check(&to);
    from.quit();
    to.quit();
    assert_arcs(&driver, one, &SAVED);
    assert_arcs(&driver, other, &LOADED);
    assert_short(&driver, [one, other], 2 * PAGES);
}

fn cancel_in_pre_copy() {
    let [one, _] = devices();
    let driver = Account::watch().expect("tracefs");
    let machine = Machine::boot(one);
    let mut contents = Contents::fill(&machine, 6);
    start_migration(&machine, "exec:cat > /dev/null");
    wait("pre-copy", || driver.arcs(one).last() == Some(&(Running, PreCopy)));
    contents.write(&machine, 7);
    cancel(&machine);
    contents.check(&machine);
    assert_eq!(driver.arcs(one)[..3], [SAVED[0], SAVED[1], (PreCopy, Running)]);
    ran_on(machine, &driver, one);
}

fn cancel_in_stop_and_copy() {
    let [one, _] = devices();
    let driver = Account::watch().expect("tracefs");
    let machine = Machine::boot(one);
    let contents = Contents::fill(&machine, 8);
    wait_before_switchover(&machine);
    let_converge(&machine);
    machine.execute("migrate", json!({ "uri": "exec:cat > /dev/null" }));
    machine.wait_for_migration("pre-switchover");
    assert_eq!(driver.arcs(one), SAVED[..3]);
    cancel(&machine);
    contents.check(&machine);
    assert_eq!(driver.arcs(one)[..4], [SAVED[0], SAVED[1], SAVED[2], (StopAndCopy, Running)]);
    ran_on(machine, &driver, one);
}

fn paused() {
    let [one, other] = devices();
    let (driver, socket) = (Account::watch().expect("tracefs"), format!("unix:{}", path("sock")));
    let from = Machine::boot(one);
    let contents = Contents::fill(&from, 9);
    from.execute("stop", json!({}));
    let to = Machine::incoming(other, &socket);
    let_converge(&from);
    from.execute("migrate", json!({ "uri": socket }));
    from.wait_for_departure();
    to.wait_for_status("paused");
    assert_eq!(to.migration(), "completed");
    let arcs = driver.arcs(other);
    assert_eq!(arcs, LOADED[..1], "the device began to run while the machine is paused");
    to.execute("cont", json!({}));
    to.wait_for_status("running");
    contents.check(&to);
    from.quit();
    to.quit();
    assert_arcs(&driver, one, &SAVED_PAUSED);
    assert_arcs(&driver, other, &LOADED);
    let words = u64::try_from(WRITES).expect("fits");
    assert_short(&driver, [one, other], NOISE_PAGES + 2 * words);
}
