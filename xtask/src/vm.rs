// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask vm`: boots the guest and runs a command in it.
//!
//! ```text
//!   xtask ── spawns ──▶ QEMU ── kernel, initramfs ──▶ init ──▶ xtask guest (process 1) ──▶ CMD
//!     ▲  ▲  ▲  ▲                                                  │ │ │
//!     │  │  │  └── stdout ◀── virtio port ◀────────────────────────┘ │ │
//!     │  │  └───── stderr ◀── virtio port ◀──────────────────────────┘ │
//!     │  └──────── events ◀── virtio port (job.rs) ◀────────────────────┘
//!     └─────────── console ◀─ serial line: the kernel's own words (console.rs)
//! ```
//!
//! The guest's root is the host's, read only over 9p below a tmpfs: every program and file of the host
//! is there, and nothing that the guest writes reaches the host.

mod console;
mod device;
pub(crate) mod guest;
mod initramfs;
pub(crate) mod job;
pub(crate) mod matrix;
mod qemu;
mod session;
mod terminal;
mod tsc;
mod watch;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::build_driver;
use crate::kernel::{Bootable, Choice, Variant};
use crate::setup::packages::{self, Group};
use crate::workspace::Workspace;
pub(crate) use device::Device;
pub(crate) use job::Suite;
use job::{Job, Status};
pub(crate) use session::Streams;

/// Exit code when the time is up, as of timeout(1).
const TIMED_OUT: u8 = 124;
/// Exit code when the guest failed rather than the command, as of timeout(1), env(1) and their kin.
pub(crate) const GUEST_FAILED: u8 = 125;

/// What `vm` does.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a command as root in the guest
    ///
    /// The guest sees the host's files (what it writes is thrown away), and the command runs in the
    /// same folder, with PATH, HOME, TERM, LANG, RUST_* and MIGSCOPE_* of the caller. MIGSCOPE_GUEST=1
    /// tells it where it is, MIGSCOPE_DEVICES names the devices that the driver has (PCI addresses,
    /// comma separated), MIGSCOPE_RELEASE the kernel, MIGSCOPE_DRIVER the driver's file, MIGSCOPE_PROVIDER the vendor's module for
    /// pci-testdev. Its standard input is empty.
    ///
    /// The exit code is the command's (128 + N for signal N, 127 not found); 124: the time was up;
    /// 125: the guest failed, or its kernel complained on the console even though the command passed.
    Run(RunArgs),
    /// A shell in the guest, on this terminal
    Shell(MachineArgs),
    /// Run a command on each of several kernels, by default the tests for Debian's, and print a table
    ///
    /// As `run`, without vfio_mediate. What the command says goes to standard error, each line behind its kernel's
    /// name. Fails if it failed on any kernel, or if one could not be had.
    Matrix(matrix::MatrixArgs),
}

/// Arguments of `vm run`.
#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    machine: MachineArgs,
    /// Kill the guest after this many seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
    /// Write how long booting, loading the driver and the command took to this file, as JSON
    #[arg(long, value_name = "FILE")]
    timings: Option<PathBuf>,
    /// The command and its arguments, passed on byte for byte
    #[arg(required = true, last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What the guest looks like.
#[derive(Args)]
pub(crate) struct MachineArgs {
    /// A device under test, bound to vfio_mediate; may be repeated; SIZE is 16M, say [default: edu edu]
    #[arg(long = "device", value_name = "edu|ivshmem[=SIZE]|pci-testdev|none")]
    devices: Vec<DeviceArg>,
    /// The kernel that the guest runs: one of ours, or Debian's of that series with its own modules and mtty
    #[arg(long, value_name = Choice::VALUES, default_value_t = Choice::Built(Variant::Ours))]
    kernel: Choice,
    /// Do not build and load vfio_mediate, and leave the devices without a driver; Debian's kernels never have it
    #[arg(long)]
    no_driver: bool,
    /// Memory of the guest; half of what it does not use holds the files it writes
    #[arg(long, default_value_t = 2048, value_name = "MIB")]
    memory: u32,
    /// CPUs of the guest
    #[arg(long, default_value_t = 2, value_name = "N")]
    cpus: u32,
    /// Make a TCP port of the guest reachable on the host's loopback; may be repeated
    #[arg(long = "forward", value_name = "HOST:GUEST")]
    forwards: Vec<Forward>,
    /// One more argument for QEMU; may be repeated
    #[arg(long = "qemu-arg", value_name = "ARG", allow_hyphen_values = true)]
    qemu_args: Vec<OsString>,
}

/// A device, or `none`: that this was said, and no device asked for.
#[derive(Clone, Copy, Debug)]
struct DeviceArg(Option<Device>);

impl FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(|device| Self(Some(device))) }
    }
}

/// A TCP port of the guest on the host's loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    pub(crate) host: u16,
    pub(crate) guest: u16,
}

impl FromStr for Forward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, guest) = text.split_once(':').ok_or("expected HOSTPORT:GUESTPORT")?;
        let port = |text: &str| text.parse().map_err(|error| format!("port `{text}`: {error}"));
        Ok(Self { host: port(host)?, guest: port(guest)? })
    }
}

/// The machine to boot.
pub(crate) struct Machine {
    pub(crate) devices: Vec<Device>,
    pub(crate) memory_mib: u32,
    pub(crate) cpus: u32,
    pub(crate) forwards: Vec<Forward>,
    pub(crate) qemu_args: Vec<OsString>,
}

impl Default for Machine {
    /// Two CPUs and 2 GiB, with the two devices of a migration.
    fn default() -> Self {
        Self {
            devices: vec![Device::Edu; 2],
            memory_mib: 2048,
            cpus: 2,
            forwards: Vec::new(),
            qemu_args: Vec::new(),
        }
    }
}

/// How long things took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Timings {
    /// From the start of QEMU to the start of process 1 in the guest.
    pub(crate) boot_ns: u64,
    /// Linking and initialising the driver; none if it was not asked for.
    pub(crate) driver_load_ns: Option<u64>,
    /// Probing all devices.
    pub(crate) driver_bind_ns: Option<u64>,
    /// From the start of QEMU to the start of the command.
    pub(crate) ready_ns: u64,
    /// The command itself.
    pub(crate) command_ns: u64,
}

/// How a run in the guest ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The command ended, and the kernel had nothing to complain of.
    Ended { status: Status, timings: Timings, kunit: Vec<Suite> },
    /// The time was up.
    TimedOut { limit: Duration },
    /// The guest did not do its job, or its kernel complained; the text says all that is known.
    GuestFailed { reason: String },
}

/// A command for the guest.
pub(crate) struct Task<'a> {
    pub(crate) argv: Vec<OsString>,
    /// On top of what is passed on from the caller.
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) driver: Option<&'a Path>,
    pub(crate) timeout: Option<Duration>,
}

/// Boots the machine and runs the task in it.
pub(crate) fn boot(
    workspace: &Workspace,
    kernel: &dyn Bootable,
    machine: &Machine,
    task: Task<'_>,
    streams: Streams<'_>,
) -> Result<Outcome> {
    packages::ensure(&[Group::Vm])?;
    let Task { argv, environment, driver, timeout } = task;
    let terminal = match streams {
        Streams::Terminal => Some(terminal::Raw::enter()?),
        Streams::Separate { .. } => None,
    };
    let addresses = qemu::addresses(&machine.devices);
    let network = (!machine.forwards.is_empty()).then_some("virtio_net");
    let job = Job {
        argv,
        directory: std::env::current_dir().context("failed to find the current folder")?.into(),
        environment: passed_on()
            .chain([
                ("MIGSCOPE_GUEST".into(), "1".into()),
                ("MIGSCOPE_DEVICES".into(), addresses.join(",").into()),
                ("MIGSCOPE_RELEASE".into(), kernel.release().into()),
            ])
            // A test loads the driver anew, with other parameters.
            .chain(driver.map(|path| ("MIGSCOPE_DRIVER".into(), path.into())))
            .chain(environment)
            .collect(),
        modules: kernel.modules().into(),
        load: kernel.vfio_modules().iter().copied().chain(network).map(str::to_owned).collect(),
        driver: driver.map(|path| path.as_os_str().to_owned()),
        devices: addresses,
        watched: kernel.watches_itself() && driver.is_some() && terminal.is_none(),
        network: !machine.forwards.is_empty(),
        terminal: terminal.as_ref().map(terminal::Raw::size),
    };

    let scratch = tempfile::Builder::new()
        .prefix("migscope-vm-")
        .tempdir()
        .context("failed to make a scratch folder")?;
    let init = workspace.root.join("tests/vm/init");
    initramfs::write(
        &scratch.path().join(qemu::INITRAMFS),
        &init,
        &workspace.xtask,
        kernel.early(),
        &job,
    )?;
    let sockets = session::Sockets::listen(scratch.path(), terminal.is_some())?;
    let qemu = qemu::command(machine, kernel, scratch.path(), terminal.is_some());
    let log = workspace.output("vm")?.join(format!("console-{}.log", std::process::id()));
    session::run(qemu, sockets, scratch, &log, timeout, streams)
}

/// The caller's variables that a command in the guest sees.
fn passed_on() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| {
        name.to_str().is_some_and(|name| {
            ["PATH", "HOME", "TERM", "LANG", "TMPDIR"].contains(&name)
                || name.starts_with("RUST_")
                || name.starts_with("MIGSCOPE_")
        })
    })
}

/// The subcommand.
pub(crate) fn run(workspace: &Workspace, command: Command) -> Result<ExitCode> {
    let (arguments, argv, timeout, timings_file) = match command {
        Command::Run(RunArgs { machine, timeout, timings, command }) => {
            (machine, command, Some(Duration::from_secs(timeout)), timings)
        }
        Command::Matrix(arguments) => return matrix::run(workspace, arguments),
        Command::Shell(machine) => {
            eprintln!("booting the guest; `exit` ends it");
            (machine, vec!["/bin/bash".into()], None, None)
        }
    };
    let MachineArgs { devices, kernel, no_driver, memory, cpus, forwards, qemu_args } = arguments;
    let devices = match devices.as_slice() {
        [] => Machine::default().devices,
        chosen => chosen.iter().filter_map(|DeviceArg(device)| *device).collect(),
    };
    let machine = Machine { devices, memory_mib: memory, cpus, forwards, qemu_args };

    let kernel = kernel.ensure(workspace)?;
    let tree = kernel.driver_tree().filter(|_| !no_driver);
    let driver = tree.as_deref().map(|tree| build_driver::build(workspace, tree)).transpose()?;
    let streams = match timeout {
        None => Streams::Terminal,
        Some(_) => {
            Streams::Separate { stdout: Box::new(io::stdout()), stderr: Box::new(io::stderr()) }
        }
    };
    let mut environment = Vec::new();
    if let (Some(tree), Some(driver)) = (&tree, &driver)
        && machine.devices.contains(&Device::PciTestdev)
    {
        environment.push(build_driver::provider(workspace, tree, driver)?);
    }
    let task = Task { argv, environment, driver: driver.as_deref(), timeout };
    match boot(workspace, kernel.as_ref(), &machine, task, streams)? {
        Outcome::Ended { status, timings, kunit: _ } => {
            if let Some(path) = timings_file {
                let text = serde_json::to_string(&timings).context("failed to write timings")?;
                std::fs::write(&path, text + "\n")
                    .with_context(|| format!("failed to write {}", path.display()))?;
            }
            Ok(ExitCode::from(status.code()))
        }
        Outcome::TimedOut { limit } => {
            eprintln!("error: the command did not end within {} s (--timeout)", limit.as_secs());
            Ok(ExitCode::from(TIMED_OUT))
        }
        Outcome::GuestFailed { reason } => {
            eprintln!("error: {reason}");
            Ok(ExitCode::from(GUEST_FAILED))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_names_two_ports() {
        assert_eq!("80:8080".parse(), Ok(Forward { host: 80, guest: 8080 }));
        assert!("80".parse::<Forward>().is_err());
        assert!("80:65536".parse::<Forward>().unwrap_err().contains("65536"));
    }
}
