// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `xtask guest`: process 1 of the guest. Sets the guest up, runs the command, powers off.
//!
//! The host's root is the guest's, so the very xtask that booted the guest is there too; host and
//! guest cannot disagree about the job's format.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{Pid, getpid, sethostname};

use super::job::{CONTROL, Event, JOB, Job, STDERR, STDOUT, Status, Terminal};
use super::watch::{self, Watch};
use crate::child;

/// The driver's name on the PCI bus.
const DRIVER: &str = "vfio_mediate";

/// What a Debian system mounts at boot, and what the probes need.
const MOUNTS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("devpts", "/dev/pts"),
    ("tmpfs", "/dev/shm"),
    ("debugfs", "/sys/kernel/debug"),
    ("tracefs", "/sys/kernel/tracing"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Where the kernel says whether it is locked down.
const SECURITY: &str = "/sys/kernel/security";

/// Does the job and powers off; returns only if this is not process 1.
pub(crate) fn run() -> Result<()> {
    if getpid() != Pid::from_raw(1) {
        bail!("`guest` is for process 1 of the virtual machine; see `cargo xtask vm run`");
    }
    mount_all()?;
    // In a shell's prompt and in logs: this is not the host.
    sethostname("migscope-guest").context("failed to set the host name")?;
    let mut control = port(CONTROL)?;
    let event =
        work(&mut control).unwrap_or_else(|error| Event::Failed { message: format!("{error:#}") });
    send(&mut control, &event)?;
    reboot(RebootMode::RB_POWER_OFF).context("failed to power off")?;
    unreachable!("the machine is off")
}

fn work(control: &mut File) -> Result<Event> {
    send(control, &Event::Booted)?;
    let job = fs::read(JOB).with_context(|| format!("failed to read {JOB}"))?;
    let job: Job = serde_json::from_slice(&job).context("failed to understand the job")?;
    // A kernel may have the network card's driver among its modules.
    modules(&job)?;
    network(job.network)?;
    let watch = job.watched.then(Watch::begin).transpose()?;
    if let Some(driver) = &job.driver {
        send(control, &load(Path::new(driver), &job.devices)?)?;
        if let Some(watch) = &watch {
            send(control, &Event::KUnit { suites: watch.new_suites()? })?;
        }
    }
    send(control, &Event::Started)?;
    let status = match job.terminal {
        Some(terminal) => on_terminal(&job, terminal)?,
        None => on_ports(&job)?,
    };
    if watch.is_some() {
        send(control, &Event::Watched { findings: watch::end(DRIVER)? })?;
    }
    let taint = fs::read_to_string("/proc/sys/kernel/tainted").context("failed to read taints")?;
    let taint = taint.trim().parse().context("the kernel's taint value is no number")?;
    Ok(Event::Ended { status, taint })
}

fn mount_all() -> Result<()> {
    for (kind, target) in MOUNTS {
        fs::create_dir_all(target).with_context(|| format!("failed to make {target}"))?;
        let options = (*kind == "devpts").then_some("mode=620,ptmxmode=666");
        mount(Some(*kind), *target, Some(*kind), MsFlags::empty(), options)
            .with_context(|| format!("failed to mount {kind} at {target}"))?;
    }
    // Of a distribution's kernel; ours is built without security modules, and has no such folder.
    if Path::new(SECURITY).is_dir() {
        mount(Some("securityfs"), SECURITY, Some("securityfs"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("failed to mount securityfs at {SECURITY}"))?;
    }
    Ok(())
}

/// Opens the virtio port of this name.
fn port(name: &str) -> Result<File> {
    let class = "/sys/class/virtio-ports";
    for item in fs::read_dir(class).with_context(|| format!("failed to list {class}"))? {
        let path = item.with_context(|| format!("failed to list {class}"))?.path();
        if fs::read_to_string(path.join("name")).is_ok_and(|it| it.trim() == name) {
            let device = Path::new("/dev").join(path.file_name().unwrap_or_default());
            return File::options()
                .write(true)
                .open(&device)
                .with_context(|| format!("failed to open {}", device.display()));
        }
    }
    bail!("there is no virtio port {name}")
}

fn send(control: &mut File, event: &Event) -> Result<()> {
    let mut line = serde_json::to_vec(event).context("failed to write an event down")?;
    line.push(b'\n');
    control.write_all(&line).context("failed to tell the host")
}

/// The addresses are those of QEMU's user network; asking its DHCP server would need a client.
fn network(outside: bool) -> Result<()> {
    let ip = |arguments: &str| {
        child::capture(Command::new("/bin/busybox").arg("ip").args(arguments.split(' ')))
    };
    ip("link set lo up")?;
    if outside {
        ip("address add 10.0.2.15/24 dev eth0")?;
        ip("link set eth0 up")?;
        ip("route add default via 10.0.2.2")?;
    }
    Ok(())
}

fn modules(job: &Job) -> Result<()> {
    let release = Path::new(&job.modules).file_name().context("the module folder has no name")?;
    let link = Path::new("/lib/modules").join(release);
    fs::create_dir_all("/lib/modules").context("failed to make /lib/modules")?;
    if link.symlink_metadata().is_err() {
        symlink(&job.modules, &link)
            .with_context(|| format!("failed to link {}", link.display()))?;
    }
    child::capture(Command::new("modprobe").arg("-a").args(&job.load))?;
    Ok(())
}

/// Loads the driver and gives it the devices.
fn load(driver: &Path, devices: &[String]) -> Result<Event> {
    let file = File::open(driver)
        .with_context(|| format!("failed to open the driver {}", driver.display()))?;
    // modprobe would load what the driver depends on; finit_module does not.
    child::capture(Command::new("modprobe").arg("vfio-pci-core"))?;
    let start = Instant::now();
    finit_module(&file, c"", ModuleInitFlags::empty())
        .with_context(|| format!("failed to load {}:\n{}", driver.display(), kernel_log()))?;
    let load = start.elapsed();
    let start = Instant::now();
    for address in devices {
        bind(address)?;
    }
    Ok(Event::DriverLoaded { load_ns: nanoseconds(load), bind_ns: nanoseconds(start.elapsed()) })
}

fn bind(address: &str) -> Result<()> {
    let device = Path::new("/sys/bus/pci/devices").join(address);
    let put = |path: &Path, text: &str| {
        fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
    };
    put(&device.join("driver_override"), DRIVER)?;
    put(Path::new("/sys/bus/pci/drivers_probe"), address)?;
    // A probe that fails is no error of the write above.
    let bound = fs::read_link(device.join("driver")).ok();
    if bound.as_deref().and_then(Path::file_name).is_none_or(|name| name != DRIVER) {
        bail!("{DRIVER} did not take the device {address}:\n{}", kernel_log());
    }
    Ok(())
}

/// The end of the kernel's log, for an error's reader.
fn kernel_log() -> String {
    let log = child::capture(&mut Command::new("dmesg")).unwrap_or_else(|error| error.to_string());
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn command(job: &Job, program: &[std::ffi::OsString]) -> Result<Command> {
    let (program, arguments) = program.split_first().context("there is no command to run")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(&job.directory)
        .env_clear()
        .envs(job.environment.iter().map(|(name, value)| (name, value)));
    Ok(command)
}

/// Runs the command with a pipe for each of its outputs.
///
/// Pipes, and not the ports themselves: a virtio port can be opened once only, so a command that
/// opens `/dev/stderr` would fail.
fn on_ports(job: &Job) -> Result<Status> {
    let (out_reader, out_writer) = io::pipe().context("failed to make a pipe")?;
    let (err_reader, err_writer) = io::pipe().context("failed to make a pipe")?;
    let out = port(STDOUT)?;
    let mut err = port(STDERR)?;
    let mut command = command(job, &job.argv)?;
    let spawned =
        command.stdin(Stdio::null()).stdout(out_writer).stderr(err_writer).process_group(0).spawn();
    // It holds the pipes' write ends.
    drop(command);
    let child = match spawned {
        Ok(child) => child,
        Err(error) => {
            let program = job.argv[0].display();
            writeln!(err, "{program}: {error}").context("failed to tell the host")?;
            // As a shell: 127 not found, 126 found and not to be run.
            return Ok(Status::Exited(if error.kind() == ErrorKind::NotFound { 127 } else { 126 }));
        }
    };
    let forward = [(out_reader, out), (err_reader, err)]
        .map(|(reader, port)| std::thread::spawn(move || copy(reader, port)));
    let status = wait_for(child.id())?;
    // Whatever it left in the background holds the pipes open, and goes now; what was written is read.
    stop_the_rest();
    for thread in forward {
        thread.join().expect("copying does not panic").context("failed to pass output on")?;
    }
    Ok(status)
}

/// Runs the command on a terminal of its own. setsid makes the virtio console its controlling one.
fn on_terminal(job: &Job, Terminal { rows, columns }: Terminal) -> Result<Status> {
    // Open throughout: a terminal forgets its size when nobody has it open.
    let console = File::options()
        .read(true)
        .write(true)
        .open("/dev/hvc0")
        .context("failed to open the virtio console")?;
    let share = || console.try_clone().context("failed to share the virtio console");
    let (rows, columns) = (rows.to_string(), columns.to_string());
    child::capture(Command::new("stty").args([
        "-F",
        "/dev/hvc0",
        "rows",
        &rows,
        "cols",
        &columns,
    ]))?;
    let mut program = vec!["setsid".into(), "--ctty".into(), "--wait".into()];
    program.extend(job.argv.iter().cloned());
    let child = command(job, &program)?
        .stdin(share()?)
        .stdout(share()?)
        .stderr(share()?)
        .spawn()
        .context("failed to start setsid")?;
    let status = wait_for(child.id())?;
    stop_the_rest();
    Ok(status)
}

/// Not io::copy, which would splice: the port takes whole buffers, one at a time.
fn copy(mut from: io::PipeReader, mut to: File) -> io::Result<()> {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            length => to.write_all(&buffer[..length])?,
        }
    }
}

/// Waits for one child, and collects whatever orphans end meanwhile: that is process 1's duty.
fn wait_for(child: u32) -> Result<Status> {
    let child = Pid::from_raw(i32::try_from(child).context("a process id is too large")?);
    loop {
        match wait().context("failed to wait for the command")? {
            WaitStatus::Exited(pid, code) if pid == child => {
                // The kernel keeps eight bits.
                return Ok(Status::Exited(code.to_le_bytes()[0]));
            }
            WaitStatus::Signaled(pid, signal, _) if pid == child => {
                let number = u8::try_from(signal as i32).context("a signal has a large number")?;
                return Ok(Status::Signaled(number));
            }
            _ => {}
        }
    }
}

fn stop_the_rest() {
    // -1 means everybody but process 1. An error means that nobody was left.
    let _nobody = kill(Pid::from_raw(-1), Signal::SIGKILL);
}
