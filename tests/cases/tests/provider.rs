// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Mediate ops: a vendor's module (`tests/vm/provider`) stands before a device that the driver has no model of, and nothing
//! that it does wrong harms the driver's own devices.
//!
//! The code of the RFC had ten defects. What would catch each of them here:
//!
//! | | Defect | |
//! | --- | --- | --- |
//! | a | unregistering removes only what was opened exactly once; the count is never lowered | `unregistering_takes_a_provider_away_however_often_it_was_opened` |
//! | b | the release of a region is skipped, or NULL is called | `each_open_is_released_once`, `what_a_provider_leaves_out_is_passed_through` |
//! | c | the migration region keeps length 0 | `the_migration_region_is_as_the_provider_describes_it` |
//! | d | the errors of a handler are dropped | `the_error_of_a_handler_is_the_users`; for states `state.rs` |
//! | e | `device_state` cannot be read | not the ops' affair: `region.rs` and `state.rs` read it in every state |
//! | f | a failed open leaks the module's reference | `a_failed_open_leaves_no_reference` |
//! | g | a register is copied with the length of another | `a_register_is_accessed_as_a_whole`; for the migration region `region.rs` |
//! | h | a provider that does not match spoils the open of other devices | `a_provider_that_fails_spoils_no_other_device` |
//! | i | sparse areas overlap and are not whole pages | `sparse_areas_are_whole_pages_and_do_not_overlap` |
//! | j | unregistering does not wait for open devices | `unregistering_waits_for_the_open_device`, `a_module_without_owner_waits_for_its_device_when_it_goes` |

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cases::guest;
use cases::vendor::{self, Vendor};
use cases::vfio::{CAPS, CONFIG_REGION, MMAP, OFFSET_BITS, PCI_REGIONS, READ_WRITE, Vfio};
use migrator::device::bound_devices;
use migscope_abi::device::DeviceKey;

fn main() -> ExitCode {
    guest::run(&[
        ("a_device_that_no_provider_takes_cannot_be_opened", nobody_takes_it),
        ("the_migration_region_is_as_the_provider_describes_it", described),
        ("sparse_areas_are_whole_pages_and_do_not_overlap", sparse_areas),
        ("the_provider_handles_its_region", handles),
        ("a_register_is_accessed_as_a_whole", whole_registers),
        ("the_error_of_a_handler_is_the_users", handlers_error),
        ("what_is_passed_through_reaches_the_device", passed_through),
        ("a_page_of_the_provider_is_mapped", maps),
        ("a_mapping_that_the_provider_refuses_is_refused", refuses_to_map),
        ("a_position_outside_of_all_regions_does_not_reach_the_provider", misdirected),
        ("a_reset_is_passed_through", reset),
        ("what_a_provider_leaves_out_is_passed_through", leaves_out),
        ("a_provider_cannot_redirect_the_user_nor_claim_more_than_was_asked", lies),
        ("each_open_is_released_once", released_once),
        ("two_descriptors_are_one_open", two_descriptors),
        ("unbinding_waits_for_the_user_and_releases_the_device", unbinds),
        ("modules_are_held_while_a_device_is_open", references),
        ("a_module_is_not_unloaded_while_its_device_is_open", unload_refused),
        ("a_failed_open_leaves_no_reference", failed_open),
        ("a_provider_that_fails_spoils_no_other_device", spoils_nothing),
        ("the_provider_that_registered_last_is_asked_first", order),
        ("a_provider_that_registers_late_gets_a_device_when_it_is_opened_again", late),
        ("a_name_is_needed_and_is_nobody_elses", names),
        ("unregistering_takes_a_provider_away_however_often_it_was_opened", unregisters),
        ("unregistering_waits_for_the_open_device", waits),
        ("a_module_without_owner_waits_for_its_device_when_it_goes", goes_without_owner),
        ("a_provider_may_go_between_two_opens", between_opens),
        ("registering_and_opening_at_once_loses_nothing", all_at_once),
    ])
}

const EIO: i32 = libc::EIO;
const EINVAL: i32 = libc::EINVAL;
const ENODEV: i32 = libc::ENODEV;
const EBUSY: i32 = libc::EBUSY;
const EPERM: i32 = libc::EPERM;

const PAGE: usize = 4096;
/// What the vendor's module has in its region.
const MIGRATION: u64 = (PCI_REGIONS as u64) << OFFSET_BITS;
const TAKER: u64 = MIGRATION;
const ACCESSES: u64 = MIGRATION + 0x4;
const SCRATCH: u64 = MIGRATION + 0x8;
const FAIL: u64 = MIGRATION + 0xc;
const SHARED: u64 = MIGRATION + PAGE as u64;
const CONFIG: u64 = (CONFIG_REGION as u64) << OFFSET_BITS;

/// QEMU's ids of pci-testdev, as configuration space has them.
const TESTDEV_IDS: [u8; 4] = [0x36, 0x1b, 0x05, 0x00];
/// How long something must not happen for the test to believe that it waits.
const A_WHILE: Duration = Duration::from_millis(500);
/// How long something may take that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// The driver's own device and the vendor's: the machine of this test binary has one of each.
fn devices() -> [DeviceKey; 2] {
    let devices = bound_devices().expect("the module vfio_mediate is loaded");
    let [edu, testdev] = devices[..] else {
        panic!("edu and pci-testdev must be bound to vfio_mediate; found {devices:?}");
    };
    [edu, testdev]
}

fn open() -> io::Result<Vfio> {
    let [_, testdev] = devices();
    Vfio::open(testdev)
}

/// The driver's own device opens, and has its migration region.
fn assert_edu_is_well() {
    let [edu, _] = devices();
    let edu = Vfio::open(edu).expect("edu opens");
    assert_eq!(edu.region(PCI_REGIONS).expect("its region").kind, Some((3, 1)));
    let mut state = [0; 4];
    assert_eq!(edu.read(MIGRATION, &mut state).expect("device_state"), 4);
    assert_eq!(u32::from_ne_bytes(state), 1, "it runs");
}

fn load(parameters: &str) -> Vendor {
    Vendor::load(parameters)
        .unwrap_or_else(|error| panic!("the module with `{parameters}`: {error}"))
}

fn read(device: &Vfio, position: u64) -> io::Result<u32> {
    let mut word = [0; 4];
    assert_eq!(device.read(position, &mut word)?, 4);
    Ok(u32::from_ne_bytes(word))
}

fn write(device: &Vfio, position: u64, value: u32) -> io::Result<()> {
    assert_eq!(device.write(position, &value.to_ne_bytes())?, 4);
    Ok(())
}

#[track_caller]
fn fails<T: std::fmt::Debug>(result: io::Result<T>, errno: i32, what: &str) {
    let error = result.expect_err(what);
    assert_eq!(error.raw_os_error(), Some(errno), "{what}: {error}");
}

/// The device answers in its BARs: memory and ports.
fn let_it_decode(device: &Vfio) {
    let command = CONFIG + 4;
    assert_eq!(device.write(command, &3_u16.to_le_bytes()).expect("the command register"), 2);
}

fn nobody_takes_it() {
    fails(open(), ENODEV, "no provider");
    assert_edu_is_well();
    fails(open(), ENODEV, "no provider, still");
}

fn described() {
    let _vendor = load("");
    let device = open().expect("it opens");
    let info = device.region(PCI_REGIONS).expect("a region");
    assert_eq!(info.kind, Some((3, 1)));
    assert_eq!(info.flags, READ_WRITE | MMAP | CAPS);
    assert_eq!((info.index, info.position, info.bytes), (PCI_REGIONS, MIGRATION, 2 * PAGE as u64));
    assert_eq!(info.areas, [(PAGE as u64, PAGE as u64)]);
    fails(device.region(PCI_REGIONS + 1), EINVAL, "the region after it");
}

fn sparse_areas() {
    let _vendor = load("");
    for key in devices() {
        let device = Vfio::open(key).expect("it opens");
        let info = device.region(PCI_REGIONS).expect("a region");
        let mut end = 0;
        assert!(!info.areas.is_empty(), "{key}");
        for (offset, bytes) in info.areas {
            assert!(offset >= end && bytes > 0, "{key}: {offset:#x} begins before {end:#x}");
            assert_eq!((offset % PAGE as u64, bytes % PAGE as u64), (0, 0), "{key}");
            end = offset + bytes;
        }
        assert!(end <= info.bytes, "{key}");
    }
}

fn handles() {
    let _vendor = load("");
    let device = open().expect("it opens");
    assert_eq!(read(&device, TAKER).expect("a register"), 0);
    assert_eq!(read(&device, SCRATCH).expect("a register"), 0);
    write(&device, SCRATCH, 0x1234_5678).expect("a register");
    assert_eq!(read(&device, SCRATCH).expect("a register"), 0x1234_5678);
    drop(device);
    // Another open is another handle.
    let device = open().expect("it opens");
    assert_eq!(read(&device, SCRATCH).expect("a register"), 0);
}

fn whole_registers() {
    let _vendor = load("");
    let device = open().expect("it opens");
    for bytes in [1, 2, 3, 5, 8, 16] {
        let mut buffer = vec![0xa5; bytes];
        for position in [TAKER, ACCESSES, SCRATCH] {
            fails(device.read(position, &mut buffer), EINVAL, "a read of another width");
            assert!(buffer.iter().all(|byte| *byte == 0xa5), "and nothing came");
        }
        fails(device.write(SCRATCH, &buffer), EINVAL, "a write of another width");
    }
    for (position, what) in [
        (TAKER + 1, "between two registers"),
        (MIGRATION + 0x10, "after the registers"),
        (SHARED - 4, "before the page"),
        (SHARED + PAGE as u64, "after the region"),
        (MIGRATION + (1 << OFFSET_BITS) - 4, "at the last offset that there is"),
    ] {
        fails(read(&device, position), EINVAL, what);
        fails(write(&device, position, 1), EINVAL, what);
    }
    fails(write(&device, TAKER, 1), EINVAL, "a write of what is read only");
    fails(read(&device, FAIL), EINVAL, "a read of what is write only");
    assert_eq!(read(&device, SCRATCH).expect("a register"), 0, "nothing was written");

    // The page takes any length, and gives what there is of it.
    let mut long = vec![0; 1 << 20];
    assert_eq!(device.read(SHARED, &mut long).expect("the page"), PAGE);
    assert_eq!(device.read(SHARED + 4000, &mut long).expect("its end"), PAGE - 4000);
    assert_eq!(device.write(SHARED + 4095, &[1, 2, 3]).expect("its last byte"), 1);
    assert_eq!(device.read(SHARED, &mut []).expect("nothing is asked for"), 0);
}

fn handlers_error() {
    let _vendor = load("");
    let device = open().expect("it opens");
    // Beyond these are the kernel's own, such as ERESTARTSYS, which is no answer for a program.
    for errno in 1..=133_u32 {
        let number = i32::try_from(errno).expect("a small number");
        fails(write(&device, FAIL, errno), number, "the handler's error");
    }
    assert_eq!(read(&device, TAKER).expect("it goes on"), 0);
}

fn passed_through() {
    let _vendor = load("");
    let device = open().expect("it opens");
    let mut ids = [0; 4];
    assert_eq!(device.read(CONFIG, &mut ids).expect("configuration space"), 4);
    assert_eq!(ids, TESTDEV_IDS);
    let bar0 = device.region(0).expect("a BAR");
    assert_eq!((bar0.bytes, bar0.flags), (PAGE as u64, READ_WRITE | MMAP));
    assert_eq!(read(&device, ACCESSES).expect("a register"), 0);

    let mut byte = [0];
    assert_eq!(device.write(CONFIG + 4, &[0, 0]).expect("the command register"), 2);
    fails(device.read(0, &mut byte), EIO, "the device does not decode its memory");
    assert_eq!(read(&device, ACCESSES).expect("a register"), 1);
    let_it_decode(&device);
    // The first byte of BAR 0 chooses a test, and then reads as its number.
    for test in [1_u8, 0, 2] {
        assert_eq!(device.write(0, &[test]).expect("a write"), 1);
        assert_eq!(device.read(0, &mut byte).expect("a read"), 1);
        assert_eq!(byte, [test], "the device answers");
    }
    assert_eq!(read(&device, ACCESSES).expect("a register"), 7);
    // Ports in BAR 1: its tests count on.
    assert_eq!(device.write(1 << OFFSET_BITS, &[0]).expect("a write"), 1);
    assert_eq!(read(&device, ACCESSES).expect("a register"), 8);
}

fn maps() {
    let _vendor = load("");
    let device = open().expect("it opens");
    let mapping = device.map(SHARED, PAGE, true).expect("the page");
    assert_eq!(mapping.get(0), 0, "it is zero at first");
    mapping.set(1, 0xdead_beef);
    assert_eq!(read(&device, SHARED + 4).expect("the page"), 0xdead_beef);
    write(&device, SHARED + 4092, 77).expect("the page");
    assert_eq!(mapping.get(1023), 77);

    // The BAR's mapping is vfio-pci-core's.
    let_it_decode(&device);
    let bar = device.map(0, PAGE, true).expect("BAR 0");
    assert_eq!(device.write(0, &[1]).expect("a write"), 1);
    assert_eq!(bar.get(0) & 0xff, 1, "the device answers");

    // A mapping keeps the file, and the device open with it.
    drop(device);
    mapping.set(2, 5);
    assert_eq!(mapping.get(2), 5);
    assert_eq!(vendor::references(vendor::NAME), 1);
}

fn refuses_to_map() {
    let _vendor = load("");
    let device = open().expect("it opens");
    for (position, bytes, shared, what) in [
        (MIGRATION, PAGE, true, "the registers"),
        (MIGRATION, 2 * PAGE, true, "the registers and the page"),
        (SHARED, 2 * PAGE, true, "more than the page"),
        (SHARED + PAGE as u64, PAGE, true, "after the page"),
        (SHARED, PAGE, false, "the page, private"),
        (MIGRATION + (1 << OFFSET_BITS) - PAGE as u64, PAGE, true, "the last page that there is"),
        (CONFIG, PAGE, true, "configuration space"),
        (0, 2 * PAGE, true, "more than BAR 0"),
        (0, PAGE, false, "BAR 0, private"),
    ] {
        fails(device.map(position, bytes, shared), EINVAL, what);
    }
}

fn misdirected() {
    let _vendor = load("");
    let device = open().expect("it opens");
    for index in [u64::from(PCI_REGIONS) + 1, 255, 256, (1 << 23) - 1] {
        let position = index << OFFSET_BITS;
        fails(read(&device, position), EINVAL, "no region");
        fails(write(&device, position + 8, 1), EINVAL, "no region");
        fails(device.map(position, PAGE, true), EINVAL, "no region");
    }
    fails(read(&device, 1 << 63), EINVAL, "a negative position");
    assert_eq!(read(&device, SCRATCH).expect("a register"), 0);
    assert_eq!(read(&device, ACCESSES).expect("a register"), 0);
}

fn reset() {
    let _vendor = load("");
    let [edu, _] = devices();
    let device = open().expect("it opens");
    // pci-testdev has no way to be reset, and its provider none to do it.
    assert!(!device.offers_reset().expect("the device's description"));
    fails(device.reset(), EINVAL, "vfio-pci-core's answer");
    let edu = Vfio::open(edu).expect("it opens");
    assert!(edu.offers_reset().expect("the device's description"));
    edu.reset().expect("the model does it");
}

fn leaves_out() {
    let without = |members: &str| {
        let vendor = load(&format!("omit={members}"));
        let device = open().expect("it opens");
        let_it_decode(&device);
        assert_eq!(device.write(0, &[1]).expect("the BAR"), 1, "without {members}");
        (device, vendor)
    };

    let (device, vendor) = without("rw");
    for position in [TAKER, SCRATCH, SHARED] {
        fails(read(&device, position), EINVAL, "no handler");
        fails(write(&device, position, 1), EINVAL, "no handler");
    }
    device.map(SHARED, PAGE, true).expect("it can be mapped");
    drop((device, vendor));

    let (device, vendor) = without("mmap");
    fails(device.map(SHARED, PAGE, true), EINVAL, "no handler");
    device.map(0, PAGE, true).expect("BAR 0 can be mapped");
    assert_eq!(read(&device, SCRATCH).expect("a register"), 0);
    drop((device, vendor));

    // The default region of the RFC.
    let (device, vendor) = without("get_region_info,rw,mmap");
    let info = device.region(PCI_REGIONS).expect("a region");
    assert_eq!((info.bytes, info.flags, info.kind), (0, READ_WRITE | CAPS, Some((3, 1))));
    assert_eq!(info.areas, []);
    fails(read(&device, MIGRATION), EINVAL, "no handler");
    fails(write(&device, MIGRATION, 1), EINVAL, "no handler");
    fails(device.map(MIGRATION, PAGE, true), EINVAL, "no handler");
    drop((device, vendor));

    let (device, vendor) = without("release");
    drop(device);
    assert_eq!((vendor.count("opens"), vendor.count("releases")), (1, 0));
    assert_eq!(vendor::references(vendor::NAME), 0, "the reference does not hang on it");
    drop(vendor);

    let vendor = load("caps=0");
    let device = open().expect("it opens");
    fails(device.region(PCI_REGIONS), EINVAL, "no such region");
    fails(read(&device, MIGRATION), EINVAL, "no such region");
    drop((device, vendor));
    assert_edu_is_well();
}

fn lies() {
    let vendor = load("");
    vendor.set("lie", "1");
    let device = open().expect("it opens");
    fails(write(&device, SCRATCH, 1), EIO, "more than was asked");
    for index in [0, CONFIG_REGION, PCI_REGIONS] {
        let info = device.region(index).expect("a region");
        assert_eq!(info.index, index);
        assert_eq!(info.position, u64::from(index) << OFFSET_BITS);
        assert!(info.argsz > 0);
    }
}

fn released_once() {
    let vendor = load("");
    for count in 1..=5 {
        let device = open().expect("it opens");
        assert_eq!((vendor.count("opens"), vendor.count("releases")), (count, count - 1));
        drop(device);
        assert_eq!((vendor.count("opens"), vendor.count("releases")), (count, count));
    }
}

fn two_descriptors() {
    let vendor = load("");
    let first = open().expect("it opens");
    write(&first, SCRATCH, 4).expect("a register");
    let second = first.again().expect("it opens again");
    assert_eq!(read(&second, SCRATCH).expect("a register"), 4);
    drop(first);
    assert_eq!((vendor.count("opens"), vendor.count("releases")), (1, 0));
    assert_eq!(read(&second, SCRATCH).expect("a register"), 4);
    drop(second);
    assert_eq!((vendor.count("opens"), vendor.count("releases")), (1, 1));
}

fn unbinds() {
    let [_, testdev] = devices();
    let driver = Path::new("/sys/bus/pci/drivers/vfio_mediate");
    let vendor = load("");
    let device = open().expect("it opens");
    let unbind = thread::spawn(move || fs::write(driver.join("unbind"), testdev.to_string()));
    thread::sleep(A_WHILE);
    assert!(!unbind.is_finished(), "it must wait");
    write(&device, SCRATCH, 6).expect("the user is served");
    assert_eq!(read(&device, SCRATCH).expect("a register"), 6);
    drop(device);
    join(unbind, "unbinding").expect("the device is unbound");
    assert_eq!((vendor.count("opens"), vendor.count("releases")), (1, 1));
    assert_eq!(vendor::references(vendor::NAME), 0);
    fs::write(driver.join("bind"), testdev.to_string()).expect("it is bound again");
    open().expect("it opens");
}

fn references() {
    let driver = || vendor::references("vfio_mediate");
    let before = driver();
    let vendor = load("");
    let loaded = driver();
    assert_eq!(loaded, before + 1, "the vendor's module uses the driver");
    assert_eq!(vendor::references(vendor::NAME), 0, "registering takes none");
    for _ in 0..2 {
        let device = open().expect("it opens");
        assert_eq!((vendor::references(vendor::NAME), driver()), (1, loaded + 1));
        drop(device);
        assert_eq!((vendor::references(vendor::NAME), driver()), (0, loaded));
    }
    // A device of another provider is none of the vendor's.
    let [edu, _] = devices();
    let edu = Vfio::open(edu).expect("it opens");
    assert_eq!((vendor::references(vendor::NAME), driver()), (0, loaded + 1));
    drop((edu, vendor));
    assert_eq!(driver(), before);
}

fn unload_refused() {
    let vendor = load("");
    let device = open().expect("it opens");
    let (vendor, error) = vendor.unload().expect_err("it is in use");
    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "{error}");
    write(&device, SCRATCH, 3).expect("the device is as it was");
    assert_eq!(read(&device, SCRATCH).expect("a register"), 3);
    drop(device);
    vendor.unload().map_err(|(_, error)| error).expect("now it goes");
}

fn failed_open() {
    let driver = || vendor::references("vfio_mediate");
    let vendor = load("");
    let loaded = driver();
    let assert_nothing_held = |what: &str| {
        assert_eq!((vendor::references(vendor::NAME), driver()), (0, loaded), "{what}");
        assert_eq!(vendor.count("opens"), vendor.count("releases"), "{what}");
    };
    for errno in [EPERM, ENODEV, EBUSY] {
        vendor.set("open_error", &format!("{errno},0"));
        fails(open(), errno, "the provider's error");
        assert_nothing_held("after an error");
    }
    vendor.set("open_error", "-5,0");
    fails(open(), EIO, "neither 0 nor an errno");
    assert_nothing_held("after a result that is none");
    vendor.set("open_error", "0,0");
    // The provider took the device, and cannot have it.
    for caps in ["0x2", "0x3", "0x8000000000000001"] {
        let before = vendor.count("opens");
        vendor.set("caps", caps);
        fails(open(), EINVAL, "a capability that is unknown");
        assert_eq!(vendor.count("opens"), before + 1);
        assert_nothing_held("after an unknown capability");
    }
    vendor.set("caps", "1");
    open().expect("nothing is left of the failures");
}

fn spoils_nothing() {
    let vendor = load("");
    for errno in 1..=133 {
        vendor.set("open_error", &format!("{errno},0"));
        assert_edu_is_well();
        fails(open(), errno, "nobody else takes the device");
    }
    vendor.set("open_error", "-1,0");
    assert_edu_is_well();
    vendor.set("open_error", "0,0");
    open().expect("the provider is well again");
}

fn order() {
    let vendor = load("second=other");
    let taker = || read(&open()?, TAKER);
    assert_eq!(taker().expect("the last is asked first"), 1);
    for (errors, expected) in [
        ("0,19", Ok(0)),
        ("0,16", Ok(0)),
        ("0,0", Ok(1)),
        ("16,0", Ok(1)),
        // The first error in the order of asking, but for "not mine".
        ("1,16", Err(EBUSY)),
        ("1,19", Err(EPERM)),
        ("19,16", Err(EBUSY)),
        ("19,19", Err(ENODEV)),
    ] {
        vendor.set("open_error", errors);
        assert_edu_is_well();
        let got = taker().map_err(|error| error.raw_os_error().unwrap_or_default());
        assert_eq!(got, expected, "{errors}");
    }
    vendor.set("open_error", "0,0");
    vendor.set("registered", "1");
    assert_eq!(taker().expect("the first is left"), 0);
    vendor.set("registered", "2");
    assert_eq!(taker().expect("the last is there again"), 1);
    assert_eq!(vendor.count("opens"), vendor.count("releases"));
}

fn late() {
    let vendor = load("second=other");
    vendor.set("registered", "1");
    let device = open().expect("it opens");
    write(&device, SCRATCH, 9).expect("a register");
    vendor.set("registered", "2");
    assert_eq!(read(&device, TAKER).expect("a register"), 0);
    assert_eq!(read(&device, SCRATCH).expect("a register"), 9);
    // Nobody has a device open with this one, so there is nothing to wait for.
    vendor.set("registered", "1");
    vendor.set("registered", "2");
    assert_eq!(read(&device, SCRATCH).expect("a register"), 9);
    drop(device);
    assert_eq!(read(&open().expect("it opens"), TAKER).expect("a register"), 1);
}

fn names() {
    for (parameters, taken_by, errno) in [
        ("name=models", 0, libc::EEXIST),
        ("second=testdev", 1, libc::EEXIST),
        ("second=models", 1, libc::EEXIST),
        ("name=", 0, EINVAL),
        ("omit=name", 0, EINVAL),
        ("omit=open", 0, EINVAL),
    ] {
        let vendor = load(&format!("lazy=1 {parameters}"));
        fails(vendor.try_set("registered", "2"), errno, parameters);
        // The module has unregistered what was refused, too; who has the name must not have noticed.
        assert_eq!(vendor.count("registered"), taken_by, "{parameters}");
        assert_edu_is_well();
        match taken_by {
            0 => fails(open(), ENODEV, parameters),
            _ => assert_eq!(read(&open().expect(parameters), TAKER).expect("a register"), 0),
        }
    }
    // The same, when a module does not care to be loaded without its provider.
    fails(Vendor::load("omit=open"), EINVAL, "no open");
    fails(open(), ENODEV, "it is not loaded");
    let _vendor = load("name=edu second=Models");
    open().expect("other names are free");
}

fn unregisters() {
    let vendor = load("");
    for opens in 0..4 {
        for _ in 0..opens {
            open().expect("it opens");
        }
        vendor.set("registered", "0");
        fails(open(), ENODEV, "the provider is gone");
        assert_edu_is_well();
        vendor.set("registered", "1");
        open().expect("it is there again");
    }
    vendor.set("registered", "0");
    // It is not registered, so there is nothing to do when it goes.
    drop(vendor);
    assert_edu_is_well();
}

/// Waits for a thread, but not for ever.
fn join<T>(thread: thread::JoinHandle<T>, what: &str) -> T {
    let end = Instant::now() + PATIENCE;
    while !thread.is_finished() {
        assert!(Instant::now() < end, "{what} did not come to an end");
        thread::sleep(Duration::from_millis(5));
    }
    thread.join().expect("the thread does not panic")
}

fn waits() {
    let vendor = load("");
    let device = open().expect("it opens");
    let unregister = thread::spawn(move || {
        vendor.set("registered", "0");
        vendor
    });
    thread::sleep(A_WHILE);
    assert!(!unregister.is_finished(), "it must wait");
    // Meanwhile the device is served, and no other is disturbed.
    write(&device, SCRATCH, 21).expect("a register");
    assert_eq!(read(&device, SCRATCH).expect("a register"), 21);
    assert_edu_is_well();
    drop(device);
    let vendor = join(unregister, "unregistering");
    assert_eq!((vendor.count("opens"), vendor.count("releases")), (1, 1));
    fails(open(), ENODEV, "the provider is gone");
    vendor.set("registered", "1");
    open().expect("it is there again");
}

fn goes_without_owner() {
    let vendor = load("omit=owner");
    let device = open().expect("it opens");
    assert_eq!(vendor::references(vendor::NAME), 0, "nobody knows whose code it is");
    let unload = thread::spawn(|| vendor.unload());
    thread::sleep(A_WHILE);
    assert!(!unload.is_finished(), "the module's exit must wait");
    write(&device, SCRATCH, 22).expect("a register");
    assert_eq!(read(&device, SCRATCH).expect("a register"), 22);
    drop(device);
    join(unload, "unloading").map_err(|(_, error)| error).expect("it goes");
    fails(open(), ENODEV, "the provider is gone");
    assert_edu_is_well();
}

fn between_opens() {
    for _ in 0..3 {
        let vendor = load("");
        let device = open().expect("it opens");
        write(&device, SCRATCH, 1).expect("a register");
        drop((device, vendor));
        fails(open(), ENODEV, "the module is gone");
        assert_edu_is_well();
    }
}

fn all_at_once() {
    let vendor = load("second=other");
    let stop = AtomicBool::new(false);
    let [edu, _] = devices();
    let mut taken = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0_u32..400 {
                vendor.set("registered", &((round % 3).to_string()));
            }
            vendor.set("registered", "2");
            stop.store(true, Ordering::Relaxed);
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                drop(Vfio::open(edu).expect("edu opens"));
            }
        });
        while !stop.load(Ordering::Relaxed) {
            match open() {
                Ok(device) => {
                    write(&device, SCRATCH, 5).expect("a register");
                    assert_eq!(read(&device, SCRATCH).expect("a register"), 5);
                    taken += 1;
                }
                Err(error) => assert_eq!(error.raw_os_error(), Some(ENODEV), "{error}"),
            }
        }
    });
    assert_eq!((vendor.count("opens"), vendor.count("releases")), (taken, taken));
    assert!(taken > 0, "the device was never open");
    assert_eq!(vendor::references(vendor::NAME), 0);
    assert_eq!(read(&open().expect("it opens"), TAKER).expect("a register"), 1);
}
