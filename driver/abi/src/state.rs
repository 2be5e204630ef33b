// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The states of a device and the arcs between them.
//!
//! ```text
//!             ┌────────────── 1 running ◀─────────────┐
//!             │ ▲   ▲            │ ▲                  │
//!     pause   ▼ │   │ cancel     ▼ │ cancel           │ commit
//!          0 stopped│         3 pre_copy              │
//!             │ ▲   │            │                    │
//!             ▼ │   │            ▼                    │
//!          2 stop_and_copy ◀─────┘        0 or 1 ──▶ 4 resuming
//!
//!          6 error: the state is lost; only a reset leaves it, to running
//! ```
//!
//! Sources: RFC `device_state`; the arcs are those of the text that followed it in `include/uapi/linux/vfio.h` (5.8 to 5.17)
//! and those that QEMU 5.2 to 7.2 writes (`hw/vfio/migration.c`): it writes the state that already holds (1→1, 2→2), migrates a
//! paused machine (0→2) and loads into one (0→4).

use super::rule::Rule;

/// Bit 0 of `device_state`.
pub const RUNNING: u32 = 1 << 0;
/// Bit 1 of `device_state`.
pub const SAVING: u32 = 1 << 1;
/// Bit 2 of `device_state`.
pub const RESUMING: u32 = 1 << 2;
/// The bits that have a meaning; the others are reserved.
pub const MASK: u32 = RUNNING | SAVING | RESUMING;

/// A state that a device can be in, numbered as `device_state` reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum State {
    /// Neither runs nor migrates.
    Stopped = 0,
    /// Runs; the state after open and after reset.
    Running = 1,
    /// Stands still while the rest of its state is saved.
    StopAndCopy = 2,
    /// Runs while state is saved.
    PreCopy = 3,
    /// Takes state in.
    Resuming = 4,
    /// The device's state is lost; only a reset leaves it.
    Error = 6,
}

impl State {
    /// How many states there are.
    pub const COUNT: usize = 6;
    /// All states, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Stopped,
        Self::Running,
        Self::StopAndCopy,
        Self::PreCopy,
        Self::Resuming,
        Self::Error,
    ];

    /// The value of the label `state`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Running => "running",
            Self::StopAndCopy => "stop_and_copy",
            Self::PreCopy => "pre_copy",
            Self::Resuming => "resuming",
            Self::Error => "error",
        }
    }

    /// Whether the device runs.
    pub const fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::PreCopy)
    }

    /// Whether state is being saved, and so dirty pages are logged.
    pub const fn is_saving(self) -> bool {
        matches!(self, Self::PreCopy | Self::StopAndCopy)
    }

    /// Decides on a write of `requested` to `device_state` while the device is in `self`.
    ///
    /// # Errors
    ///
    /// The first rule that the write breaks; the state stays what it was.
    pub fn next(self, requested: u32) -> Result<Self, Rule> {
        use State::{Error, PreCopy, Resuming, Running, StopAndCopy, Stopped};

        if requested & !MASK != 0 {
            return Err(Rule::ReservedBits);
        }
        let to = match Self::try_from(requested) {
            Ok(Error) | Err(_) => return Err(Rule::InvalidState),
            Ok(to) => to,
        };
        match (self, to) {
            (Error, _) => Err(Rule::DeviceInError),
            (Stopped, PreCopy) => Err(Rule::ForbiddenArc),
            (StopAndCopy, PreCopy | Resuming) => Err(Rule::ForbiddenArc),
            (PreCopy, Resuming) => Err(Rule::ForbiddenArc),
            (Resuming, StopAndCopy | PreCopy) => Err(Rule::ForbiddenArc),
            (Stopped, Stopped | Running | StopAndCopy | Resuming)
            | (Running, _)
            | (StopAndCopy, Stopped | Running | StopAndCopy)
            | (PreCopy, Stopped | Running | StopAndCopy | PreCopy)
            | (Resuming, Stopped | Running | Resuming) => Ok(to),
            // `to` is never Error: refused above.
            (_, Error) => Err(Rule::InvalidState),
        }
    }
}

impl TryFrom<u32> for State {
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        Self::ALL.into_iter().find(|state| *state as u32 == number).ok_or(number)
    }
}

/// What moved a device from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Cause {
    /// User space wrote `device_state`.
    Write = 0,
    /// User space opened the device: it starts in running.
    Open = 1,
    /// User space closed the device: whatever was under way has ended.
    Close = 2,
    /// `VFIO_DEVICE_RESET`: back to running.
    Reset = 3,
    /// The device failed: error.
    Failure = 4,
}

impl Cause {
    /// All causes, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Write, Self::Open, Self::Close, Self::Reset, Self::Failure];

    /// The name that logs and traces use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Open => "open",
            Self::Close => "close",
            Self::Reset => "reset",
            Self::Failure => "failure",
        }
    }
}

impl TryFrom<u32> for Cause {
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        Self::ALL.into_iter().find(|cause| *cause as u32 == number).ok_or(number)
    }
}
