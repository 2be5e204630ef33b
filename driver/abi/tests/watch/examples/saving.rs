// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Device data on its way out: how much is pending, where the buffer is, how large, and whether it was read.

use super::Example;
use crate::scene::DATA;
use migscope_abi::region::Field::{CopiedPfns, Data, DataOffset, DataSize, PendingBytes};
use migscope_abi::region::Op;
use migscope_abi::state::{Cause, State};
use migscope_abi::watch::conduct::Conduct;

pub(super) const EXAMPLES: &[Example] = &[
    (
        Conduct::LeftWithPending,
        |s| {
            s.go(State::StopAndCopy);
            s.stage(100, 100);
            s.data(0, 100);
            s.go(State::Stopped);
        },
        |s| {
            s.go(State::StopAndCopy);
            s.stage(100, 100);
            s.data(0, 100);
            s.go(State::Running); // cancelled
        },
    ),
    (
        Conduct::LeftWithPending,
        |s| {
            s.go(State::PreCopy);
            s.get(PendingBytes, 0); // of a device that ran
            s.go(State::StopAndCopy);
            s.go(State::Stopped);
        },
        |s| {
            s.go(State::StopAndCopy);
            s.get(PendingBytes, 0);
            s.go(State::StopAndCopy); // as QEMU does
            s.go(State::Stopped);
        },
    ),
    (Conduct::PendingOutsideSaving, |s| s.get(PendingBytes, 1), |s| s.get(PendingBytes, 0)),
    (
        Conduct::PendingGrew,
        |s| {
            s.go(State::StopAndCopy);
            s.get(PendingBytes, 5);
            s.get(PendingBytes, 6);
        },
        |s| {
            s.go(State::PreCopy);
            s.get(PendingBytes, 5);
            s.get(PendingBytes, 6); // it runs
            s.go(State::StopAndCopy);
            s.stage(7, 1);
            s.get(PendingBytes, 8); // what it staged was larger than what it had counted
        },
    ),
    (
        Conduct::PendingWithoutData,
        |s| {
            s.go(State::StopAndCopy);
            s.stage(5, 0);
            s.go(State::Stopped); // as QEMU does, which is not to blame
        },
        |s| {
            s.go(State::PreCopy);
            s.stage(5, 0);
        },
    ),
    (
        Conduct::OffsetBeforePending,
        |s| {
            s.go(State::PreCopy);
            s.get(DataOffset, DATA);
        },
        |s| {
            s.go(State::PreCopy);
            s.get(PendingBytes, 1);
            s.go(State::StopAndCopy);
            s.get(DataOffset, DATA);
        },
    ),
    (
        Conduct::OffsetWithoutPending,
        |s| {
            s.go(State::PreCopy);
            s.get(PendingBytes, 0);
            s.get(DataOffset, DATA);
        },
        |s| {
            s.get(DataOffset, DATA); // where the window is can be asked at any time
            s.go(State::Resuming);
            s.get(DataOffset, DATA);
        },
    ),
    (
        Conduct::OffsetInStruct,
        |s| {
            s.go(State::Resuming);
            s.get(DataOffset, 63);
        },
        |s| {
            s.go(State::Resuming);
            s.get(DataOffset, 64);
        },
    ),
    (
        Conduct::SizeBeforeOffset,
        |s| {
            s.go(State::PreCopy);
            s.get(PendingBytes, 9);
            s.get(DataSize, 9);
            s.data(0, 9);
        },
        |s| {
            s.go(State::PreCopy);
            s.stage(9, 9);
            s.get(DataSize, 9);
            s.ask(64);
            s.get(CopiedPfns, 64);
            s.get(DataSize, 8); // of the bitmap
        },
    ),
    (
        Conduct::BufferChanged,
        |s| {
            s.go(State::PreCopy);
            s.stage(9, 9);
            s.get(DataSize, 8);
        },
        |s| {
            s.go(State::PreCopy);
            s.stage(9, 0);
            s.get(DataOffset, DATA + 64);
            s.get(DataSize, 8); // now there is something
            s.get(DataOffset, DATA + 64);
        },
    ),
    (
        Conduct::BufferChanged,
        |s| {
            s.go(State::PreCopy);
            s.stage(9, 9);
            s.get(DataOffset, DATA + 64);
        },
        |s| {
            s.go(State::PreCopy);
            s.stage(9, 9);
            s.stage(9, 9);
            s.get(DataOffset, DATA);
        },
    ),
    (
        Conduct::DataOutsideSaving,
        |s| s.refused(Data, Op::Read, DATA, 8),
        |s| {
            s.go(State::PreCopy);
            s.stage(8, 8);
            s.go(State::Running); // a cancel overtakes the thread that reads
            s.refused(Data, Op::Read, DATA, 8);
        },
    ),
    (
        Conduct::DataOutsideSaving,
        |s| {
            s.go(State::PreCopy);
            s.stage(8, 8);
            s.go(State::Running);
            s.get(PendingBytes, 0); // by now it has found out
            s.refused(Data, Op::Read, DATA, 8);
        },
        |s| {
            s.tell(6, 6, Cause::Failure, -5);
            s.refused(Data, Op::Read, DATA, 8);
        },
    ),
    (
        Conduct::DataBeforeOffset,
        |s| {
            s.go(State::PreCopy);
            s.get(PendingBytes, 9);
            s.refused(Data, Op::Read, DATA, 8);
            s.refused(Data, Op::Read, DATA + 8, 8);
        },
        |s| {
            s.go(State::PreCopy);
            s.stage(9, 9);
            s.data(0, 4);
            s.data(0, 9);
        },
    ),
    (
        Conduct::DataBeforeSize,
        |s| {
            s.go(State::PreCopy);
            s.get(PendingBytes, 9);
            s.get(DataOffset, DATA);
            s.data(0, 8);
        },
        |s| {
            s.go(State::PreCopy);
            s.stage(9, 9);
            s.get(DataOffset, DATA);
            s.data(0, 8);
            s.data(8, 1);
        },
    ),
    (
        Conduct::DataPastSize,
        |s| {
            s.go(State::PreCopy);
            s.stage(9, 9);
            s.refused(Data, Op::Read, DATA + 8, 2);
        },
        |s| {
            s.go(State::PreCopy);
            s.stage(9, 9);
            s.data(8, 1);
        },
    ),
    (
        Conduct::DataUnread,
        |s| {
            s.go(State::PreCopy);
            s.stage(5000, 5000);
            s.data(0, 4999);
            s.get(PendingBytes, 0);
        },
        |s| {
            s.go(State::PreCopy);
            s.stage(5000, 5000);
            s.data(0, 4096); // the rest may be in a mapping
            s.stage(5000, 5000);
            s.get(PendingBytes, 5000); // all of it may be in a mapping
            s.stage(9, 9);
            s.data(0, 4);
            s.refused(Data, Op::Read, DATA + 4, 5); // it has tried
            s.get(PendingBytes, 0);
        },
    ),
];
