// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMU's trace events, as its log backend writes them to a file.
//!
//! ```text
//!   4745@1795864456.638500:vfio_save_block  (6d696773-…) data_size 24
//!   │    │                 │                 │           └ the rest, of the form that hw/vfio/trace-events gives it
//!   │    │                 │                 └ the device, by the name of its folder in sysfs
//!   │    │                 └ the event
//!   │    └ CLOCK_REALTIME, to the microsecond
//!   └ the thread
//!
//!   2026-11-28T16:01:50.650359Z vfio_save_block  (6d696773-…) data_size 24      since QEMU 11
//! ```

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use migscope_abi::v2::MigState;

/// What QEMU traced, in its order.
#[derive(Debug, Default)]
pub struct Trace(Vec<Event>);

/// One trace event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `CLOCK_REALTIME`, in nanoseconds; the last three digits were cut off.
    pub at_ns: u64,
    /// Its name.
    pub name: String,
    /// What it tells, the device included.
    pub text: String,
}

/// A change of state that QEMU asked a device for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The state that the device came to.
    pub state: MigState,
    /// When QEMU began to ask for it, `CLOCK_REALTIME` in nanoseconds.
    pub asked_ns: u64,
    /// When it knew the answer.
    pub answered_ns: u64,
}

impl Trace {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string(path)?))
    }

    /// QEMU's own messages are in the file as well; they are left out.
    fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(event).collect())
    }

    /// The events of this name.
    pub fn events<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Event> {
        self.0.iter().filter(move |event| event.name == name)
    }

    /// The events of this name that are about a device.
    pub fn of<'a>(&'a self, device: &str, name: &'a str) -> Vec<&'a Event> {
        let mark = format!("({device})");
        self.events(name).filter(|event| event.text.starts_with(&mark)).collect()
    }

    /// The sum of a number over the events of this name that are about a device; `before` are the words in front of it.
    ///
    /// # Panics
    ///
    /// When an event does not have the number.
    pub fn sum(&self, device: &str, name: &str, before: &str) -> u64 {
        self.of(device, name).into_iter().map(|event| event.number(before)).sum()
    }

    /// The changes of state of a device, in their order. Those to the state that QEMU knew it in already were asked of nobody.
    ///
    /// # Panics
    ///
    /// When QEMU's words for a state are not known.
    pub fn changes(&self, device: &str) -> Vec<Change> {
        let mark = format!("({device})");
        let mut asked_ns = 0;
        let mut changes = Vec::new();
        for event in self.0.iter().filter(|event| event.text.starts_with(&mark)) {
            match event.name.as_str() {
                "vfio_migration_set_state" => asked_ns = event.at_ns,
                "vfio_migration_set_device_state" => {
                    let word = event.text.rsplit(' ').next().unwrap_or_default();
                    let state = state(word).unwrap_or_else(|| panic!("no state: {event:?}"));
                    changes.push(Change { state, asked_ns, answered_ns: event.at_ns });
                }
                _ => {}
            }
        }
        changes
    }

    /// The sizes of the stop-copy part that QEMU was told when it asked for them, in their order. A `final` one, of QEMU 11, is of a
    /// device that stands, which it does not ask.
    ///
    /// # Panics
    ///
    /// When an event does not have the number.
    pub fn exact_sizes(&self, device: &str) -> Vec<u64> {
        let before_11 = self.of(device, "vfio_state_pending_exact");
        let since_11 = self.of(device, "vfio_state_pending").into_iter();
        let exact = since_11.filter(|event| event.text.contains("exact 1, final 0"));
        let sizes = before_11.into_iter().chain(exact);
        sizes.map(|event| event.number("stopcopy size ")).collect()
    }

    /// When the migration came to a state (`MigrationStatus` in QEMU's `qapi/migration.json`), `CLOCK_REALTIME` in nanoseconds.
    pub fn migration_came_to(&self, status: &str) -> Option<u64> {
        let mut all = self.events("migrate_set_state");
        all.find(|event| event.text.strip_prefix("new state ") == Some(status)).map(|it| it.at_ns)
    }

    /// When one of QEMU's checkpoints of the downtime was passed, `CLOCK_REALTIME` in nanoseconds.
    pub fn checkpoint(&self, name: &str) -> Option<u64> {
        let mut all = self.events("vmstate_downtime_checkpoint");
        all.find(|event| event.text == name).map(|event| event.at_ns)
    }
}

impl Event {
    /// The number behind these words.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn number(&self, before: &str) -> u64 {
        let number = self.text.split_once(before).and_then(|(_, rest)| {
            let end = rest.find(|it: char| !it.is_ascii_digit()).unwrap_or(rest.len());
            rest[..end].parse().ok()
        });
        number.unwrap_or_else(|| panic!("no number behind {before:?} in {self:?}"))
    }
}

fn event(line: &str) -> Option<Event> {
    let (at_ns, rest) = by_thread(line).or_else(|| by_time(line))?;
    let (name, text) = rest.split_once(' ')?;
    Some(Event { at_ns, name: name.to_owned(), text: text.trim().to_owned() })
}

/// The form until QEMU 10.
fn by_thread(line: &str) -> Option<(u64, &str)> {
    let (head, rest) = line.split_once(':')?;
    let (thread, at) = head.split_once('@')?;
    let _thread: u32 = thread.parse().ok()?;
    let (seconds, microseconds) = at.split_once('.')?;
    let (seconds, microseconds): (u64, u64) = (seconds.parse().ok()?, microseconds.parse().ok()?);
    Some((seconds * 1_000_000_000 + microseconds * 1000, rest))
}

/// The form since QEMU 11, of events and messages alike.
fn by_time(line: &str) -> Option<(u64, &str)> {
    let (at, rest) = line.split_once(' ')?;
    let at = humantime::parse_rfc3339(at).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some((u64::try_from(at.as_nanos()).ok()?, rest))
}

/// A state in the words of `mig_state_to_str()` in QEMU's `hw/vfio/migration.c`.
fn state(word: &str) -> Option<MigState> {
    Some(match word {
        "ERROR" => MigState::Error,
        "STOP" => MigState::Stop,
        "RUNNING" => MigState::Running,
        "STOP_COPY" => MigState::StopCopy,
        "RESUMING" => MigState::Resuming,
        "RUNNING_P2P" => MigState::RunningP2p,
        "PRE_COPY" => MigState::PreCopy,
        "PRE_COPY_P2P" => MigState::PreCopyP2p,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
7@10.000001:vfio_migration_set_state  (a) new state PRE_COPY, recover state RUNNING
7@10.000009:vfio_migration_set_device_state  (a) state PRE_COPY
qemu-system-x86_64: warning: something: else
7@10.000010:vfio_save_block  (a) data_size 24
8@10.000011:vfio_save_block  (b) data_size 1
7@10.000012:vfio_save_block  (a) data_size 300
7@11.500000:vmstate_downtime_checkpoint src-downtime-start
7@11.600000:vfio_state_pending_exact  (a) precopy 300 postcopy 0 stopcopy size 300 precopy initial size 0 precopy dirty size 0
";

    #[test]
    fn each_device_has_its_own_events() {
        let trace = Trace::parse(TEXT);
        assert_eq!(trace.sum("a", "vfio_save_block", "data_size "), 324);
        assert_eq!(trace.sum("c", "vfio_save_block", "data_size "), 0);
        assert_eq!(trace.exact_sizes("a"), [300]);
        assert_eq!(trace.checkpoint("src-downtime-start"), Some(11_500_000_000));
        assert_eq!(trace.checkpoint("src-downtime-end"), None);
    }

    #[test]
    fn newer_traces_say_the_time_of_day() {
        const TEXT: &str = "\
2026-11-28T16:01:50.650359Z vfio_save_block  (a) data_size 24
2026-11-28T16:01:51.000000Z qemu-system-x86_64: warning: something: else
2026-11-28T16:01:51.000001Z vfio_state_pending  (a) stopcopy size 9, precopy initial size 0, precopy dirty size 0, request switchover ack 0, exact 0, final 0
2026-11-28T16:01:51.000002Z vfio_state_pending  (a) stopcopy size 8, precopy initial size 0, precopy dirty size 0, request switchover ack 0, exact 1, final 0
";
        let trace = Trace::parse(TEXT);
        assert_eq!(trace.of("a", "vfio_save_block")[0].at_ns, 1_795_881_710_650_359_000);
        assert_eq!(trace.exact_sizes("a"), [8]);
    }

    #[test]
    fn a_change_of_state_is_asked_for_and_answered() {
        let change = Change {
            state: MigState::PreCopy,
            asked_ns: 10_000_001_000,
            answered_ns: 10_000_009_000,
        };
        assert_eq!(Trace::parse(TEXT).changes("a"), [change]);
    }
}
