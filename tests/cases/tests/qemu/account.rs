// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The driver's own account of a migration, as tracefs has it: the arcs that were written, the data that moved, and what was
//! refused.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use migscope_abi::device::DeviceKey;
use migscope_abi::region::Field;
use migscope_abi::state::{Cause, State};
use migscope_abi::trace;

const INSTANCES: &str = "/sys/kernel/tracing/instances";

/// Kept from the moment on that it is made, in a trace instance of its own, which goes away with it.
#[derive(Debug)]
pub(crate) struct Account(PathBuf);

impl Account {
    /// Starts to trace.
    ///
    /// # Errors
    ///
    /// What tracefs refused with.
    pub(crate) fn watch() -> io::Result<Self> {
        Self::of(&[trace::STATE, trace::DATA, trace::ERROR])
    }

    /// The same, with every access to the region: for a short migration only, or the trace does not hold them all.
    ///
    /// # Errors
    ///
    /// What tracefs refused with.
    pub(crate) fn watch_accesses() -> io::Result<Self> {
        Self::of(&[trace::STATE, trace::DATA, trace::ERROR, trace::REGION_ACCESS])
    }

    fn of(events: &[&str]) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("migscope-account-{}-{count}", std::process::id());
        let instance = Path::new(INSTANCES).join(name);
        fs::create_dir(&instance)?;
        let account = Self(instance);
        for event in events {
            fs::write(account.0.join("events/vfio_mediate").join(event).join("enable"), "1")?;
        }
        Ok(account)
    }

    /// The arcs that were written to a device's `device_state` so far, in their order.
    ///
    /// # Panics
    ///
    /// When the driver refused one, or a record is not of the form that `driver/trace.h` gives it.
    pub(crate) fn arcs(&self, device: DeviceKey) -> Vec<(State, State)> {
        let by_write = format!(" by {} ", Cause::Write.name());
        let records = self.records(trace::STATE, device);
        let written = records.iter().filter(|record| record.contains(&by_write));
        let arcs = written.map(|record| {
            assert!(record.contains(" result=0 "), "an arc was refused: {record}");
            arc(record).unwrap_or_else(|| panic!("not an arc: {record}"))
        });
        arcs.collect()
    }

    /// The bytes of device data that were moved out of a device, or into it.
    ///
    /// # Panics
    ///
    /// When a record is not of the form that `driver/trace.h` gives it.
    pub(crate) fn data_bytes(&self, device: DeviceKey) -> u64 {
        self.records(trace::DATA, device).iter().map(|record| bytes(record)).sum()
    }

    /// The bytes that went through the data window by system calls, as the region's accesses say.
    ///
    /// # Panics
    ///
    /// When a record is not of the form that `driver/trace.h` gives it.
    pub(crate) fn trapped_bytes(&self, device: DeviceKey) -> u64 {
        let records = self.records(trace::REGION_ACCESS, device);
        assert!(!records.is_empty(), "no access was traced");
        let data = records.iter().filter(|it| it.split(' ').nth(1) == Some(Field::Data.name()));
        data.map(|record| bytes(record)).sum()
    }

    /// What the driver refused, for a failure's reader.
    ///
    /// # Panics
    ///
    /// When tracefs cannot be read.
    pub(crate) fn refusals(&self, device: DeviceKey) -> Vec<String> {
        self.records(trace::ERROR, device)
    }

    /// A device's records, without what tracefs puts before them.
    fn records(&self, event: &str, device: DeviceKey) -> Vec<String> {
        let text = fs::read_to_string(self.0.join("trace")).expect("tracefs has the trace");
        let mark = format!(" {event}: {device} ");
        let record = |line: &str| line.split_once(&mark).map(|(_, record)| record.to_owned());
        text.lines().filter_map(record).collect()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // The guest is thrown away after the tests, so an instance that stays does no harm.
        drop(fs::remove_dir(&self.0));
    }
}

/// `… bytes=NUMBER …`
fn bytes(record: &str) -> u64 {
    let value = record.split_whitespace().find_map(|word| word.strip_prefix("bytes="));
    let bytes = value.and_then(|value| value.parse().ok());
    bytes.unwrap_or_else(|| panic!("no number of bytes is in {record}"))
}

/// `FROM -> TO by …`
fn arc(record: &str) -> Option<(State, State)> {
    let mut words = record.split_whitespace();
    let from = words.next()?;
    let to = words.nth(1)?;
    let state = |name: &str| State::ALL.into_iter().find(|state| state.name() == name);
    Some((state(from)?, state(to)?))
}
