// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A machine inside the guest: the distribution's QEMU, emulating, with one of our devices passed through to it.
//!
//! It has no disk, so its firmware gives the device its BAR and comes to its end; from then on the machine's CPU halts and a
//! test does to the device, over qtest, what a driver in the machine would do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
pub(crate) use cases::vmm::wait;
use cases::vmm::{Qmp, connect};
use migscope_abi::device::DeviceKey;
use serde_json::{Value, json};
use workload::edu::Edu;

use crate::qtest::{Bar, Qtest};

const PROGRAM: &str = "qemu-system-x86_64";
/// The versions that speak the RFC's protocol: it came with 5.2 and went with 8.0, which took to the kernel's present one.
const VERSIONS: std::ops::RangeInclusive<(u32, u32)> = (5, 2)..=(7, 2);
/// Memory of the machine. Little: type1 reports every page that a device could reach as dirty, so each pass sends all.
const MEMORY_MIB: &str = "32";
/// The device's place on the machine's bus 0.
const SLOT: u32 = 4;
/// PCI configuration space, `PCI_COMMAND` and in it `PCI_COMMAND_MASTER`: without it the device does no DMA.
const PCI_COMMAND: (u32, u64) = (0x04, 0x0004);
/// What SeaBIOS says last.
const FIRMWARE_END: &str = "No bootable device.";

/// Why the QEMU that is there, if any, cannot run these tests.
pub(crate) fn why_not() -> Option<String> {
    let output = match Command::new(PROGRAM).arg("--version").output() {
        Ok(output) => output,
        Err(error) => return Some(format!("{PROGRAM} --version: {error}")),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    match version(&text) {
        Some(version) if VERSIONS.contains(&version) => None,
        Some((major, minor)) => Some(format!(
            "{PROGRAM} is {major}.{minor}, and the protocol is spoken by 5.2 to 7.2 only"
        )),
        None => Some(format!("{PROGRAM} does not tell its version, but {text:?}")),
    }
}

/// Major and minor number in `QEMU emulator version 7.2.22 (…)`.
fn version(text: &str) -> Option<(u32, u32)> {
    let (_, rest) = text.split_once(" version ")?;
    let mut numbers = rest.split(|it: char| !it.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A running QEMU, which is killed when it goes out of scope.
#[derive(Debug)]
pub(crate) struct Machine {
    process: Child,
    qmp: Qmp,
    qtest: Qtest,
    files: Files,
}

/// What a machine has in the file system.
#[derive(Debug)]
struct Files {
    qmp: PathBuf,
    qtest: PathBuf,
    firmware: PathBuf,
}

impl Files {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = |kind| {
            PathBuf::from(format!("/tmp/migscope-qemu-{}-{count}.{kind}", std::process::id()))
        };
        Self { qmp: path("qmp"), qtest: path("qtest"), firmware: path("firmware") }
    }

    fn connect(&self, process: &mut Child) -> Result<(Qmp, Qtest)> {
        let qmp = Qmp::new(connect(process, &self.qmp)?)?;
        Ok((qmp, Qtest::new(connect(process, &self.qtest)?)))
    }
}

impl Machine {
    /// Starts a machine with a device, waits for the end of its firmware, and lets the device do DMA.
    pub(crate) fn boot(device: DeviceKey) -> Self {
        Self::booted(Self::start(device, "", &[]))
    }

    /// The same, with an option for the device.
    pub(crate) fn boot_with(device: DeviceKey, option: &str) -> Self {
        Self::booted(Self::start(device, &format!(",{option}"), &[]))
    }

    fn booted(machine: Self) -> Self {
        wait("the end of the firmware", || {
            let said = fs::read(&machine.files.firmware).unwrap_or_default();
            String::from_utf8_lossy(&said).contains(FIRMWARE_END)
        });
        let (register, master) = PCI_COMMAND;
        machine.qtest.set_config_bits(SLOT, register, master).expect("configuration space");
        machine
    }

    /// Starts a machine that waits for another one's state.
    pub(crate) fn incoming(device: DeviceKey, uri: &str) -> Self {
        Self::start(device, "", &["-incoming", uri])
    }

    fn start(device: DeviceKey, more: &str, arguments: &[&str]) -> Self {
        let files = Files::new();
        let mut qemu = Command::new(PROGRAM);
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none"]);
        qemu.args(["-machine", "pc", "-accel", "tcg", "-m", MEMORY_MIB]);
        // Off by default, since the protocol was experimental as long as QEMU had it.
        let options = format!("vfio-pci,host={device},addr={SLOT:#x},x-enable-migration=on{more}");
        qemu.args(["-device", &options]);
        let socket = |path: &Path| format!("unix:{},server=on,wait=off", path.display());
        qemu.args(["-qmp", &socket(&files.qmp)]);
        qemu.args(["-qtest", &socket(&files.qtest), "-qtest-log", "none"]);
        // SeaBIOS tells its progress on this port.
        let log = format!("file,id=firmware,path={}", files.firmware.display());
        qemu.args(["-chardev", &log, "-device", "isa-debugcon,iobase=0x402,chardev=firmware"]);
        let mut process = qemu.args(arguments).spawn().expect("QEMU starts");
        let connected = files.connect(&mut process);
        let (qmp, qtest) = connected.unwrap_or_else(|error| {
            drop(process.kill());
            panic!("QEMU cannot be controlled: {error:#}");
        });
        Self { process, qmp, qtest, files }
    }

    /// The device, if it is edu.
    pub(crate) fn edu(&self) -> Edu<Bar<'_>> {
        Edu::new(self.bar(0))
    }

    /// A BAR of the device, as the machine's CPU reaches it.
    ///
    /// It is looked up each time: a machine that has taken in another's state has it where that one had it.
    pub(crate) fn bar(&self, number: u64) -> Bar<'_> {
        let buses = self.execute("query-pci", json!({}));
        let devices = buses[0]["devices"].as_array().expect("a bus has devices");
        let device = devices.iter().find(|device| device["slot"] == SLOT).expect("our device");
        let regions = device["regions"].as_array().expect("a device has BARs");
        let region = regions.iter().find(|region| region["bar"] == number).expect("the BAR");
        let address = region["address"].as_u64().expect("the BAR has an address");
        Bar { qtest: &self.qtest, address }
    }

    /// The machine's memory, and more.
    pub(crate) fn qtest(&self) -> &Qtest {
        &self.qtest
    }

    /// Runs a command of QMP.
    pub(crate) fn execute(&self, command: &str, arguments: Value) -> Value {
        self.qmp.execute(command, arguments).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// What the machine is doing: `running`, `paused`, `postmigrate`, … (`RunState` in QEMU's `qapi/run-state.json`).
    pub(crate) fn status(&self) -> String {
        text(&self.execute("query-status", json!({}))["status"])
    }

    /// How the migration stands (`MigrationStatus` in QEMU's `qapi/migration.json`); empty before there was one.
    pub(crate) fn migration(&self) -> String {
        text(&self.execute("query-migrate", json!({}))["status"])
    }

    /// Waits for a status of the machine.
    pub(crate) fn wait_for_status(&self, status: &str) {
        wait(&format!("the machine to be {status}"), || self.status() == status);
    }

    /// Waits for a status of the migration, and gives QEMU's account of it.
    ///
    /// # Panics
    ///
    /// When it does not come; at once when the migration fails.
    pub(crate) fn wait_for_migration(&self, status: &str) -> Value {
        let mut account = Value::Null;
        wait(&format!("the migration to be {status}"), || {
            account = self.execute("query-migrate", json!({}));
            assert_ne!(account["status"], "failed", "{account}");
            account["status"] == status
        });
        account
    }

    /// Waits for the end of a migration to elsewhere, and gives QEMU's account of it.
    pub(crate) fn wait_for_departure(&self) -> Value {
        let account = self.wait_for_migration("completed");
        // Set a moment later, when all that is left to do is to close the connection; the next command finds it closed.
        self.wait_for_status("postmigrate");
        account
    }

    /// Ends QEMU.
    pub(crate) fn quit(mut self) {
        self.execute("quit", json!({}));
        let mut status = None;
        wait("QEMU to end", || {
            status = self.process.try_wait().expect("QEMU is a child");
            status.is_some()
        });
        let status = status.expect("it has ended");
        assert!(status.success(), "QEMU ended with {status}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail for a process that has ended and was waited for, as after `quit()`.
        drop(self.process.kill());
        drop(self.process.wait());
        for file in [&self.files.qmp, &self.files.qtest, &self.files.firmware] {
            // QEMU removes its sockets itself, unless it was killed.
            drop(fs::remove_file(file));
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
