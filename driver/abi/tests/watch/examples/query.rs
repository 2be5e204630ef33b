// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Dirty queries, and the bitmaps that answer them.

use super::Example;
use crate::scene::BITMAP;
use migscope_abi::region::Field::{Bitmap, CopiedPfns, DataOffset, PageSize, StartPfn, TotalPfns};
use migscope_abi::region::{Op, PFNS_ALL, PFNS_NONE};
use migscope_abi::state::State;
use migscope_abi::watch::conduct::Conduct;

pub(super) const EXAMPLES: &[Example] = &[
    (
        Conduct::QueryOutsideSaving,
        |s| s.refused(TotalPfns, Op::Write, 0x30, 8),
        |s| s.refused(TotalPfns, Op::Read, 0x30, 8), // a direction that it has not
    ),
    (
        Conduct::QueryOrder,
        |s| {
            s.go(State::PreCopy);
            s.put(TotalPfns, 9);
            s.put(StartPfn, 9);
            s.put(PageSize, 4096);
            s.get(CopiedPfns, PFNS_NONE);
        },
        |s| {
            s.go(State::PreCopy);
            s.ask(9);
            s.refused(CopiedPfns, Op::Read, 0x38, 8);
            s.put(PageSize, 4096);
            s.put(StartPfn, 9);
            s.put(TotalPfns, 9);
            s.get(CopiedPfns, PFNS_NONE);
            s.put(StartPfn, 18); // the others keep their values
            s.get(CopiedPfns, PFNS_ALL);
        },
    ),
    (
        Conduct::QueryUnasked,
        |s| {
            s.go(State::PreCopy);
            s.ask(9);
            s.go(State::Running);
            s.go(State::PreCopy);
            s.refused(CopiedPfns, Op::Read, 0x38, 8);
        },
        |s| {
            s.go(State::PreCopy);
            s.ask(9);
            s.go(State::StopAndCopy);
            s.get(CopiedPfns, PFNS_NONE);
        },
    ),
    (
        Conduct::CopiedTooMany,
        |s| {
            s.go(State::PreCopy);
            s.ask(9);
            s.get(CopiedPfns, 10);
        },
        |s| {
            s.go(State::PreCopy);
            s.ask(9);
            s.get(CopiedPfns, 9);
            s.get(CopiedPfns, PFNS_ALL);
        },
    ),
    (
        Conduct::BitmapUnasked,
        |s| {
            s.go(State::PreCopy);
            s.ask(64);
            s.get(CopiedPfns, PFNS_NONE);
            s.refused(Bitmap, Op::Read, BITMAP, 8);
        },
        |s| {
            s.go(State::PreCopy);
            s.ask(64);
            s.get(CopiedPfns, 64);
            s.get(DataOffset, BITMAP);
            s.go(State::StopAndCopy);
            s.bitmap(0, 8);
        },
    ),
    (
        Conduct::BitmapBeforeOffset,
        |s| {
            s.go(State::PreCopy);
            s.ask(128);
            s.get(CopiedPfns, 128);
            s.bitmap(0, 8);
            s.bitmap(8, 8);
        },
        |s| {
            s.go(State::PreCopy);
            s.ask(128);
            s.get(CopiedPfns, 128);
            s.get(DataOffset, BITMAP);
            s.bitmap(8, 8);
        },
    ),
    (
        Conduct::BitmapPastAnswer,
        |s| {
            s.go(State::PreCopy);
            s.ask(65);
            s.get(CopiedPfns, 64);
            s.get(DataOffset, BITMAP);
            s.refused(Bitmap, Op::Read, BITMAP + 8, 8);
        },
        |s| {
            s.go(State::PreCopy);
            s.ask(65);
            s.get(CopiedPfns, 65);
            s.get(DataOffset, BITMAP);
            s.bitmap(8, 8); // whole words
        },
    ),
    (
        Conduct::BitmapUnread,
        |s| {
            s.go(State::PreCopy);
            s.ask(128);
            s.get(CopiedPfns, 128);
            s.get(DataOffset, BITMAP);
            s.bitmap(0, 8);
            s.ask(128);
            s.get(CopiedPfns, 128);
        },
        |s| {
            s.go(State::PreCopy);
            for _ in 0..2 {
                s.ask(128);
                s.get(CopiedPfns, 128);
                s.get(DataOffset, BITMAP); // it may be in a mapping
            }
            s.bitmap(0, 8);
            s.refused(Bitmap, Op::Read, BITMAP + 8, 8); // it has tried
            s.get(CopiedPfns, PFNS_NONE);
        },
    ),
];
