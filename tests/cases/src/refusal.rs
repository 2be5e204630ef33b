// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the driver refused, as its tracepoint `error` says it in tracefs.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use migscope_abi::device::DeviceKey;
use migscope_abi::rule::Rule;
use migscope_abi::trace;
use rustix::fs::{Mode, OFlags};

const TRACEFS: &str = "/sys/kernel/tracing";

/// One record of the tracepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which device.
    pub device: String,
    /// The rule that was broken.
    pub rule: Rule,
    /// The errno, negative.
    pub errno: i32,
    /// The field that the access began in, by its name.
    pub field: String,
    /// The state that the device is in, by its name.
    pub state: String,
}

/// The trace of this process: an instance of its own, so that others who trace are not disturbed. It ends with the guest.
static TRACE: OnceLock<Mutex<File>> = OnceLock::new();

/// Forgets what was refused so far.
///
/// # Errors
///
/// What tracefs refused with.
pub fn forget() -> io::Result<()> {
    drain().map(drop)
}

/// What a device refused since [`forget`].
///
/// # Errors
///
/// What tracefs refused with, or a line that is not of the form that `driver/trace.h` gives it.
pub fn of(device: DeviceKey) -> io::Result<Vec<Refusal>> {
    let mut refusals = Vec::new();
    for line in drain()?.lines() {
        let refusal = parse(line).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("no refusal: {line}"))
        })?;
        if refusal.device == device.to_string() {
            refusals.push(refusal);
        }
    }
    Ok(refusals)
}

/// The driver was loaded anew: its events are new ones, which nobody traces yet.
///
/// # Errors
///
/// What tracefs refused with.
pub fn resume() -> io::Result<()> {
    if TRACE.get().is_some() { enable(&instance()) } else { Ok(()) }
}

fn instance() -> PathBuf {
    let name = format!("migscope-cases-{}", std::process::id());
    Path::new(TRACEFS).join("instances").join(name)
}

fn enable(instance: &Path) -> io::Result<()> {
    fs::write(instance.join("events/vfio_mediate").join(trace::ERROR).join("enable"), "1")
}

/// Starts to trace; gives the end of the pipe.
fn watch() -> io::Result<Mutex<File>> {
    let instance = instance();
    fs::create_dir(&instance)?;
    enable(&instance)?;
    let nonblocking = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let pipe = rustix::fs::open(instance.join("trace_pipe"), nonblocking, Mode::empty())?;
    Ok(Mutex::new(pipe.into()))
}

/// Reads what is in the pipe.
fn drain() -> io::Result<String> {
    let pipe = match TRACE.get() {
        Some(pipe) => pipe,
        None => {
            let pipe = watch()?;
            TRACE.get_or_init(|| pipe)
        }
    };
    // A test that failed while it held the pipe did the pipe no harm.
    let mut pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner);
    let mut text = Vec::new();
    match pipe.read_to_end(&mut text) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        // What was read before the pipe was empty is in `text`.
        _ => Ok(String::from_utf8_lossy(&text).into_owned()),
    }
}

fn parse(line: &str) -> Option<Refusal> {
    let (_, record) = line.split_once(&format!("{}: ", trace::ERROR))?;
    let mut words = record.split_whitespace();
    let device = words.next()?.to_owned();
    let value = |key: &str| {
        record.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    };
    let rule: u32 = value("rule")?.parse().ok()?;
    Some(Refusal {
        device,
        rule: Rule::try_from(rule).ok()?,
        errno: value("errno")?.parse().ok()?,
        // `write start_pfn offset=0x20`, for people.
        field: record.split_once(" offset=")?.0.rsplit(' ').next()?.to_owned(),
        state: value("state")?.to_owned(),
    })
}
