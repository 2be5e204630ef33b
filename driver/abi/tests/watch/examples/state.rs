// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The state, and registers that have nothing to do with data: what is asked for, and what reads back.

use super::Example;
use migscope_abi::region::Field::{DeviceState, Reserved};
use migscope_abi::state::{Cause, State};
use migscope_abi::watch::conduct::Conduct;

pub(super) const EXAMPLES: &[Example] = &[
    (
        Conduct::ArcAsked,
        |s| {
            s.go(State::PreCopy);
            s.denied(4);
        },
        |s| {
            s.tell(6, 6, Cause::Failure, -5);
            s.denied(1); // how else to know that it takes none
        },
    ),
    (Conduct::StateAsked, |s| s.denied(1 | 1 << 7), |s| s.denied(4)),
    (
        Conduct::ArcAccepted,
        |s| {
            s.go(State::Stopped);
            s.go(State::PreCopy);
        },
        |s| {
            s.go(State::Stopped);
            s.go(State::StopAndCopy); // a machine that is paused is migrated
        },
    ),
    (Conduct::StateAccepted, |s| s.go_to(5), |s| s.go_to(4)),
    (
        Conduct::StateMisplaced,
        |s| s.tell(3, 1, Cause::Write, 0),
        |s| s.tell(3, 6, Cause::Write, 0), // it failed on the way
    ),
    (
        Conduct::StateMisplaced,
        |s| s.tell(3, 0, Cause::Write, -5),
        |s| s.tell(3, 6, Cause::Write, -5),
    ),
    (Conduct::StateMisread, |s| s.get(DeviceState, 3), |s| s.get(DeviceState, 1)),
    (Conduct::ReservedWritten, |s| s.put(Reserved, 1), |s| s.put(Reserved, 0)),
    (Conduct::ReservedNotZero, |s| s.get(Reserved, 1), |s| s.get(Reserved, 0)),
];
