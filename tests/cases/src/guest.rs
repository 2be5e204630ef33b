// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The frame of the tests: they need the guest's devices, one test at a time.
//!
//! Outside of the guest nothing is run: the tests are listed as ignored, and why, and how to run them, is printed.

use std::env;
use std::fmt::Display;
use std::fs;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};
use migrator::device::bound_devices;
use migscope_abi::device::DeviceKey;

/// Set by the guest's init.
const GUEST: &str = "MIGSCOPE_GUEST";

/// A test: its name, which says the rule, and what it does.
pub type Case = (&'static str, fn());

/// Runs a binary's tests.
pub fn run(cases: &[Case]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // All tests use the same devices.
    arguments.test_threads = Some(1);
    let absence = why_not();
    if let Some(why) = &absence {
        eprintln!("not run: {why}; `cargo xtask test` runs these tests in the guest");
    }
    let trials = cases.iter().copied().map(|(name, case)| {
        let trial = Trial::test(name, move || {
            case();
            Ok(())
        });
        trial.with_ignored_flag(absence.is_some())
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Why the tests cannot run here. In the guest a missing device is no reason to skip, but a failure of the tests.
fn why_not() -> Option<String> {
    (env::var_os(GUEST).is_none_or(|value| value != "1"))
        .then(|| format!("this is not the guest ({GUEST} is not 1)"))
}

/// The two devices that the tests use, in the order of their addresses.
///
/// # Panics
///
/// When there are fewer: the guest is not what it should be.
pub fn devices() -> [DeviceKey; 2] {
    let devices = bound_devices().expect("the module vfio_mediate is loaded");
    let [first, second, ..] = devices[..] else {
        panic!("two devices must be bound to vfio_mediate; found {devices:?}");
    };
    [first, second]
}

/// The devices with this vendor and device number that are bound to the driver, in the order of their addresses.
///
/// # Panics
///
/// When there is none: the guest is not what it should be.
pub fn devices_of(ids: (u16, u16)) -> Vec<DeviceKey> {
    let mut devices = bound_devices().expect("the module vfio_mediate is loaded");
    devices.retain(|device| ids_of(*device) == Some(ids));
    assert!(!devices.is_empty(), "no device {:04x}:{:04x} is bound to vfio_mediate", ids.0, ids.1);
    devices
}

fn ids_of(device: DeviceKey) -> Option<(u16, u16)> {
    let number = |file| {
        let text = fs::read_to_string(format!("/sys/bus/pci/devices/{device}/{file}")).ok()?;
        u16::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
    };
    Some((number("vendor")?, number("device")?))
}

/// Loads modules of the kernel, and those that they need.
///
/// # Panics
///
/// When there is one that the kernel does not have.
pub fn load_modules(modules: &[&str]) {
    let status = Command::new("modprobe").arg("-a").args(modules).status().expect("modprobe");
    assert!(status.success(), "modprobe {modules:?}: {status}");
}

/// Records a measurement in the tests' output: `measured: NAME VALUE UNIT`, on a line of its own.
pub fn measured(name: &str, value: impl Display, unit: &str) {
    println!("\nmeasured: {name} {value} {unit}");
}
