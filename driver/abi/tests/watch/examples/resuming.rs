// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Device data on its way in.

use super::Example;
use crate::scene::DATA;
use migscope_abi::region::Field::{Data, DataOffset, DataSize};
use migscope_abi::region::Op;
use migscope_abi::state::{Cause, State};
use migscope_abi::watch::conduct::Conduct;

pub(super) const EXAMPLES: &[Example] = &[
    (
        Conduct::LoadOutsideResuming,
        |s| s.refused(DataSize, Op::Write, 0x18, 8),
        |s| {
            s.go(State::Resuming);
            s.tell(6, 6, Cause::Failure, -5);
            s.refused(DataSize, Op::Write, 0x18, 8);
        },
    ),
    (
        Conduct::LoadOutsideResuming,
        |s| {
            s.go(State::StopAndCopy);
            s.refused(Data, Op::Write, DATA, 8);
        },
        |s| {
            s.go(State::Resuming);
            s.get(DataOffset, DATA);
            s.load(0, 8);
        },
    ),
    (
        Conduct::LoadBeforeOffset,
        |s| {
            s.go(State::Resuming);
            s.load(0, 8);
            s.put(DataSize, 8);
        },
        |s| {
            s.go(State::Resuming);
            s.get(DataOffset, DATA);
            s.load(0, 8);
            s.go(State::Resuming);
            s.put(DataSize, 8);
        },
    ),
    (
        Conduct::CommitBeforeOffset,
        |s| {
            s.go(State::Resuming);
            s.get(DataOffset, DATA);
            s.put(DataSize, 8);
            s.put(DataSize, 8);
        },
        |s| {
            s.go(State::Resuming);
            s.get(DataOffset, DATA);
            s.refused(DataSize, Op::Write, 0x18, 8);
            s.put(DataSize, 8); // tried again
        },
    ),
    (
        Conduct::DataUnwritten,
        |s| {
            s.go(State::Resuming);
            s.get(DataOffset, DATA);
            s.load(0, 8);
            s.put(DataSize, 9);
        },
        |s| {
            s.go(State::Resuming);
            s.get(DataOffset, DATA);
            s.put(DataSize, 9); // from a mapping
            s.get(DataOffset, DATA);
            s.load(0, 4096);
            s.put(DataSize, 8192); // the second part from a mapping
            s.get(DataOffset, DATA);
            s.load(8, 8);
            s.put(DataSize, 24); // the first part too
            s.get(DataOffset, DATA);
            s.load(0, 8);
            s.load(0, 24);
            s.put(DataSize, 9);
        },
    ),
];
