// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A machine: QEMU 10 or later with mtty devices passed through to it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Qmp, Trace, connect, wait};
use crate::mdev::Mtty;

/// Names QEMU; `cargo xtask` sets it.
const PROGRAM: &str = "MIGSCOPE_QEMU10";
/// The first version whose account tells what is compared: `VFIO_MIGRATION` events, 9.1, and `migrate_*` of 10.0.
const FIRST_VERSION: u32 = 10;
/// Memory of a machine unless it is said, in MiB. A PC's firmware wants no more.
const MEMORY_MIB: u32 = 16;
/// The firmware of a machine that has nothing to do, in bytes: what QEMU takes at least.
const IMAGE_BYTES: usize = 65_536;
/// Where a PC's processor begins, from the end of its firmware.
const RESET_VECTOR: usize = 16;
/// `hlt`, and a jump back to it. After a reset interrupts are off, so nothing wakes it.
const HALT: [u8; 3] = [0xf4, 0xeb, 0xfd];
/// What is traced.
const TRACED: [&str; 7] = [
    "migrate_set_state",
    "vfio_migration_*",
    "vfio_save_*",
    "vfio_load_*",
    "vfio_state_pending*",
    "vmstate_downtime_checkpoint",
    "migrate_pending_*",
];

/// What runs the machine's processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// QEMU itself.
    Tcg,
    /// The kernel, and its log says which pages were written.
    Kvm,
    /// The kernel, with a dirty ring of this many pages for each processor.
    KvmDirtyRing(u32),
}

/// What the machine's processor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// It halts at once, for ever.
    Halt,
    /// SeaBIOS, which finds nothing to boot.
    SeaBios,
}

/// What a machine is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its UUID.
    pub uuid: &'a str,
    /// Its devices.
    pub devices: &'a [&'a Mtty],
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// What runs it.
    pub accelerator: Accelerator,
    /// What it does.
    pub firmware: Firmware,
    /// Where it waits for another one's state, if it does.
    pub incoming: Option<&'a str>,
    /// Whether devices send their state over several connections.
    pub multifd: bool,
}

impl<'a> Plan<'a> {
    /// A machine that halts, with these devices.
    pub fn new(name: &'a str, uuid: &'a str, devices: &'a [&'a Mtty]) -> Self {
        Self {
            name,
            uuid,
            devices,
            memory_mib: MEMORY_MIB,
            accelerator: Accelerator::Tcg,
            firmware: Firmware::Halt,
            incoming: None,
            multifd: false,
        }
    }
}

/// Why there is no QEMU that can run such machines.
pub fn why_not() -> Option<String> {
    let Some(program) = env::var_os(PROGRAM) else {
        return Some(format!("{PROGRAM} names no QEMU"));
    };
    let program = Path::new(&program);
    match Command::new(program).arg("--version").output() {
        Err(error) => Some(format!("{}: {error}", program.display())),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            match major(&text) {
                Some(FIRST_VERSION..) => None,
                _ => Some(format!("{} is {text:?}, not QEMU 10 or later", program.display())),
            }
        }
    }
}

/// The major number in `QEMU emulator version 10.0.2 (…)`.
fn major(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once(" version ")?;
    rest.split(|it: char| !it.is_ascii_digit()).next()?.parse().ok()
}

/// A running QEMU, which is killed when it goes out of scope.
#[derive(Debug)]
pub struct Machine {
    process: Child,
    qmp: Qmp,
    files: Files,
}

/// What a machine has in the file system.
#[derive(Debug)]
struct Files {
    qmp: PathBuf,
    trace: PathBuf,
    firmware: PathBuf,
}

impl Files {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = |kind| {
            PathBuf::from(format!("/tmp/migscope-vmm-{}-{count}.{kind}", std::process::id()))
        };
        Self { qmp: path("qmp"), trace: path("trace"), firmware: path("firmware") }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for file in [&self.qmp, &self.trace, &self.firmware] {
            // QEMU removes its socket itself, unless it was killed; the others may never have been made.
            drop(fs::remove_file(file));
        }
    }
}

impl Machine {
    /// Starts one; it runs when this returns, or waits for another one's state.
    ///
    /// # Errors
    ///
    /// When QEMU is not there, or does not start.
    pub fn start(plan: &Plan<'_>) -> Result<Self> {
        let files = Files::new();
        let mut command = command(plan, &files)?;
        let mut process =
            command.spawn().with_context(|| format!("failed to start {command:?}"))?;
        match connect(&mut process, &files.qmp).and_then(Qmp::new) {
            Ok(qmp) => Ok(Self { process, qmp, files }),
            Err(error) => {
                // Both fail for one that has ended and was waited for.
                drop(process.kill());
                drop(process.wait());
                Err(error.context(format!("{command:?}")))
            }
        }
    }

    /// Runs a command of QMP.
    ///
    /// # Panics
    ///
    /// When QEMU refuses it.
    pub fn execute(&self, command: &str, arguments: Value) -> Value {
        self.qmp.execute(command, arguments).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// The states of devices that QEMU told of in its events: `device-id` and `device-state`. Since QEMU 11 it also tells what it is
    /// about to ask for (`pre-copy-p2p-prepare`), which is no state of the device, and left out.
    pub fn told_states(&self, device_id: &str) -> Vec<String> {
        let events = self.qmp.events("VFIO_MIGRATION");
        let of_device = events.iter().filter(|event| event["device-id"] == device_id);
        let states = of_device.map(|event| text(&event["device-state"]));
        states.filter(|state| !state.ends_with("-prepare")).collect()
    }

    /// What the machine is doing (`RunState` in QEMU's `qapi/run-state.json`).
    pub fn status(&self) -> String {
        text(&self.execute("query-status", json!({}))["status"])
    }

    /// QEMU's account of the migration.
    pub fn migration(&self) -> Value {
        self.execute("query-migrate", json!({}))
    }

    /// Sets capabilities of the migration.
    pub fn enable(&self, capabilities: &[&str]) {
        let all = capabilities.iter().map(|it| json!({ "capability": it, "state": true }));
        let all: Vec<Value> = all.collect();
        self.execute("migrate-set-capabilities", json!({ "capabilities": all }));
    }

    /// Sets parameters of the migration.
    pub fn set(&self, parameters: Value) {
        self.execute("migrate-set-parameters", parameters);
    }

    /// Begins to migrate.
    pub fn migrate(&self, uri: &str) {
        self.execute("migrate", json!({ "uri": uri }));
    }

    /// Waits for a status of the machine.
    pub fn wait_for_status(&self, status: &str) {
        wait(&format!("the machine to be {status}"), || self.status() == status);
    }

    /// Waits for a status of the migration (`MigrationStatus` in QEMU's `qapi/migration.json`), and gives QEMU's account of it.
    ///
    /// # Panics
    ///
    /// When it does not come; at once when the migration fails, unless that is waited for.
    pub fn wait_for_migration(&self, status: &str) -> Value {
        let mut account = Value::Null;
        wait(&format!("the migration to be {status}"), || {
            account = self.migration();
            assert!(status == "failed" || account["status"] != "failed", "{account}");
            account["status"] == status
        });
        account
    }

    /// Waits for the end of a migration to elsewhere, and gives QEMU's account of it.
    pub fn wait_for_departure(&self) -> Value {
        let account = self.wait_for_migration("completed");
        self.wait_for_status("postmigrate");
        account
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it has traced so far.
    ///
    /// # Panics
    ///
    /// When the file cannot be read.
    pub fn trace(&self) -> Trace {
        Trace::read(&self.files.trace).expect("QEMU writes its trace")
    }

    /// Ends QEMU, and gives its trace.
    ///
    /// # Panics
    ///
    /// When it does not end, or not well.
    pub fn quit(mut self) -> Trace {
        self.execute("quit", json!({}));
        let status = self.ended();
        assert!(status.success(), "QEMU ended with {status}");
        self.trace()
    }

    /// Ends QEMU as a host that fails does, and gives its trace.
    ///
    /// # Panics
    ///
    /// When it cannot be killed.
    pub fn kill(mut self) -> Trace {
        self.process.kill().expect("a child can be killed");
        self.ended();
        self.trace()
    }

    /// Waits until QEMU gives up by itself, and gives its trace.
    ///
    /// # Panics
    ///
    /// When it does not, or ends as if all were well.
    pub fn gives_up(mut self) -> Trace {
        let status = self.ended();
        assert!(!status.success(), "QEMU ended with {status}");
        self.trace()
    }

    fn ended(&mut self) -> std::process::ExitStatus {
        let mut status = None;
        wait("QEMU to end", || {
            status = self.process.try_wait().expect("QEMU is a child");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail for a process that has ended and was waited for, as after `quit()`.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn command(plan: &Plan<'_>, files: &Files) -> Result<Command> {
    let program = env::var_os(PROGRAM).with_context(|| format!("{PROGRAM} names no QEMU"))?;
    let mut qemu = Command::new(&program);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"]);
    qemu.args(["-m", &format!("{}M", plan.memory_mib)]);
    // As libvirt names its machines.
    qemu.args(["-name", &format!("guest={},debug-threads=on", plan.name), "-uuid", plan.uuid]);
    // `split`: the guest's KVM emulates no I/O APIC (`CONFIG_KVM_IOAPIC`).
    let (accelerator, machine) = match plan.accelerator {
        Accelerator::Tcg => ("tcg".to_owned(), "pc"),
        Accelerator::Kvm => ("kvm".to_owned(), "pc,kernel-irqchip=split"),
        Accelerator::KvmDirtyRing(pages) => {
            (format!("kvm,dirty-ring-size={pages}"), "pc,kernel-irqchip=split")
        }
    };
    qemu.args(["-accel", &accelerator, "-machine", machine]);
    // One that is unpacked somewhere has its firmware beside it.
    if let Some(usr) = Path::new(&program).parent().and_then(Path::parent) {
        for folder in ["share/qemu", "share/seabios"] {
            qemu.arg("-L").arg(usr.join(folder));
        }
    }
    if plan.firmware == Firmware::Halt {
        let mut image = vec![0; IMAGE_BYTES];
        image[IMAGE_BYTES - RESET_VECTOR..][..HALT.len()].copy_from_slice(&HALT);
        fs::write(&files.firmware, image).context("failed to write a machine's firmware")?;
        qemu.arg("-bios").arg(&files.firmware);
    }
    for (number, device) in plan.devices.iter().enumerate() {
        // `on`: mtty is trusted to tell which pages it dirties, and says that it dirties none.
        let mut options = format!(
            "vfio-pci,id={},sysfsdev={},enable-migration=on,migration-events=on",
            device_id(number),
            device.sysfs().display()
        );
        if plan.multifd {
            options += ",x-migration-multifd-transfer=on";
        }
        qemu.args(["-device", &options]);
    }
    if let Some(uri) = plan.incoming {
        qemu.args(["-incoming", uri]);
    }
    qemu.args(["-qmp", &format!("unix:{},server=on,wait=off", files.qmp.display())]);
    for events in TRACED {
        qemu.args(["-trace", events]);
    }
    // Without it a trace has neither threads nor times.
    qemu.args(["-msg", "timestamp=on"]).arg("-D").arg(&files.trace);
    qemu.stdin(Stdio::null());
    Ok(qemu)
}

/// How QMP knows a machine's device.
pub fn device_id(number: usize) -> String {
    format!("device{number}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_a_major_number() {
        assert_eq!(major("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\n"), Some(10));
        assert_eq!(major("no QEMU"), None);
    }
}
