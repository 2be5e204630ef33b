// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What happens around a device while somebody uses it: its driver is unbound, the module is to go, it sleeps, everything is
//! frozen, it does DMA. Resets and closes in each state, and two openers, are in `state`.
//!
//! Here everything is frozen (`pm_test`, the level *freezer*); the level at which the devices are suspended too is in
//! `cases::suspend`, for its guest does not outlive it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cases::session::{PATIENCE, Session, memory};
use cases::{guest, low_power};
use migrator::PAGE_BYTES;
use migrator::device::Device;
use migrator::region::RegionIo as _;
use migscope_abi::device::DeviceKey;
use migscope_abi::state::State::{self, PreCopy, Resuming, Running, StopAndCopy, Stopped};

fn main() -> ExitCode {
    guest::run(&[
        ("a_driver_is_unbound_when_the_user_is_gone_and_not_before", unbind),
        ("the_module_stays_as_long_as_a_device_is_open", module_in_use),
        ("a_sleeping_device_answers_and_keeps_its_state", low_power_in_every_state),
        ("a_device_that_fell_asleep_under_a_migration_is_saved", low_power_while_saving),
        ("a_sleeping_device_is_closed_and_opened_anew", low_power_and_close),
        ("everything_can_be_frozen_while_a_device_is_waited_for", frozen_in_a_state_write),
        ("dma_under_way_is_waited_for_by_all_that_ends_it", dma_under_way),
    ])
}

const STATES: [State; 5] = [Stopped, Running, StopAndCopy, PreCopy, Resuming];
/// How long it is watched that a thing does not happen.
const A_WHILE: Duration = Duration::from_millis(700);
/// A transfer of edu takes this long (`hw/misc/edu.c`, `edu_dma_timer`).
const TRANSFER: Duration = Duration::from_millis(100);

fn driver() -> PathBuf {
    PathBuf::from("/sys/bus/pci/drivers/vfio_mediate")
}

/// Unbinds or binds a device; comes back when it is done.
fn rebind(what: &str, key: DeviceKey) -> io::Result<()> {
    fs::write(driver().join(what), key.to_string())
}

fn unbind() {
    let session = Session::first_in(PreCopy);
    let key = session.device.key();
    let done = Arc::new(AtomicBool::new(false));
    let unbinding = {
        let done = Arc::clone(&done);
        thread::spawn(move || {
            rebind("unbind", key).expect("the device is unbound");
            done.store(true, Ordering::SeqCst);
        })
    };
    thread::sleep(A_WHILE);
    assert!(!done.load(Ordering::SeqCst), "the driver left a device that is in use");
    // Its user goes on as if nothing was.
    session.store(3, 100);
    assert_eq!(session.state(), PreCopy);
    drop(session);
    unbinding.join().expect("the device is unbound");
    let sysfs = PathBuf::from("/sys/bus/pci/devices").join(key.to_string());
    assert!(!sysfs.join("driver").exists());
    assert!(Device::open(key, memory()).is_err(), "nobody drives the device");
    rebind("bind", key).expect("the driver takes the device again");
    let mut session = Session::first();
    assert_eq!(session.state(), Running);
    session.bring_to(PreCopy);
    assert!(session.dirty().is_empty(), "an earlier user has left pages");
}

fn module_in_use() {
    let refused = || {
        let removed = Command::new("rmmod").arg("vfio_mediate").output().expect("rmmod starts");
        assert!(!removed.status.success(), "the module went");
        let says = String::from_utf8_lossy(&removed.stderr).into_owned();
        assert!(says.contains("in use"), "{says}");
    };
    for state in STATES {
        let session = Session::first_in(state);
        refused();
        assert_eq!(session.state(), state);
        let references = fs::read_to_string("/sys/module/vfio_mediate/refcnt").expect("a count");
        assert_eq!(references.trim(), "1", "in {}", state.name());
    }
    let references = fs::read_to_string("/sys/module/vfio_mediate/refcnt").expect("a count");
    assert_eq!(references.trim(), "0", "a reference leaked");
}

/// Waits until the PCI device is suspended, as the kernel says.
fn asleep(key: DeviceKey) {
    let status = format!("/sys/bus/pci/devices/{key}/power/runtime_status");
    let began = Instant::now();
    loop {
        let is = fs::read_to_string(&status).expect("runtime power management");
        if is.trim() == "suspended" {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{key} does not fall asleep: {is}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn low_power_in_every_state() {
    for state in STATES {
        let session = Session::first_in(state);
        low_power::enter(&session.device).expect("it may sleep");
        asleep(session.device.key());
        // Each access wakes it, and it falls asleep again.
        assert_eq!(session.state(), state);
        asleep(session.device.key());
        low_power::exit(&session.device).expect("it may be awake");
        assert_eq!(session.state(), state);
    }
}

fn low_power_while_saving() {
    let mut source = Session::first();
    source.store(2, 1000);
    let before = source.device.edu().snapshot().expect("registers");
    source.bring_to(PreCopy);
    low_power::enter(&source.device).expect("it may sleep");
    asleep(source.device.key());
    let image = source.image();
    low_power::exit(&source.device).expect("it may be awake");
    assert_eq!(source.device.edu().snapshot().expect("registers"), before);

    let mut target = Session::open(1);
    target.bring_to(Resuming);
    low_power::enter(&target.device).expect("it may sleep");
    for buffer in &image {
        target.region.load_buffer(buffer).expect("the image is good");
    }
    target.region.set_state(Running).expect("the image is complete");
    low_power::exit(&target.device).expect("it may be awake");
    assert_eq!(target.device.edu().snapshot().expect("registers"), before);
}

fn low_power_and_close() {
    for state in STATES {
        let session = Session::first_in(state);
        low_power::enter(&session.device).expect("it may sleep");
        asleep(session.device.key());
        drop(session);
        assert_eq!(Session::first().state(), Running, "after {}", state.name());
    }
}

fn frozen_in_a_state_write() {
    let level = "/sys/power/pm_test";
    fs::write("/sys/module/suspend/parameters/pm_test_delay", "1").expect("a delay");
    fs::write(level, "freezer").expect("a level");
    let mut session = Session::first_in(PreCopy);
    session.device.edu().start(session.store_to(5, 64)).expect("a transfer starts");
    let writer = thread::spawn(move || {
        session.region.set_state(StopAndCopy).expect("the device stops");
        session
    });
    fs::write("/sys/power/state", "freeze").expect("everything is frozen, and goes on");
    let mut session = writer.join().expect("the writer ends");
    assert_eq!(session.state(), StopAndCopy);
    assert_eq!(session.dirty(), [5]);
    fs::write(level, "none").expect("a level");
}

fn dma_under_way() {
    // (what ends it, whether the page must be in the log afterwards)
    type End = fn(&mut Session);
    let ends: [(&str, End, bool); 3] = [
        (
            "stop",
            |session| {
                session.region.set_state(StopAndCopy).expect("it stops");
            },
            true,
        ),
        ("reset", |session| session.region.io().reset().expect("it is reset"), false),
        (
            "stop without saving",
            |session| {
                session.region.set_state(Stopped).expect("it stops");
            },
            false,
        ),
    ];
    for (what, end, logged) in ends {
        let mut session = Session::first_in(PreCopy);
        let began = Instant::now();
        session.device.edu().start(session.store_to(7, 4000)).expect("a transfer starts");
        end(&mut session);
        let took = began.elapsed();
        assert!(took >= TRANSFER / 2, "{what} came back after {took:?}, with DMA under way");
        // Nothing lands afterwards.
        let memory = session.device.memory();
        let at = memory.iova() + 7 * PAGE_BYTES;
        memory.write(at, &[0xee; 4000]).expect("memory");
        thread::sleep(2 * TRANSFER);
        let mut bytes = [0; 4000];
        memory.read(at, &mut bytes).expect("memory");
        assert!(bytes.iter().all(|byte| *byte == 0xee), "{what}: DMA landed late");
        if logged {
            assert_eq!(session.dirty(), [7], "{what}");
        }
    }
    // A close waits as well: the next user's memory is not written.
    let session = Session::first();
    session.device.edu().start(session.store_to(7, 4000)).expect("a transfer starts");
    let began = Instant::now();
    drop(session);
    assert!(began.elapsed() >= TRANSFER / 2, "it was closed with DMA under way");
    let session = Session::first();
    thread::sleep(2 * TRANSFER);
    assert!(
        session.device.memory().contents().expect("memory").iter().all(|byte| *byte == 0),
        "an earlier user's DMA landed"
    );
}
