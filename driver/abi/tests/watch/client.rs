// SPDX-License-Identifier: GPL-2.0 OR MIT
//! A client and a driver that obey the protocol, in whatever order it allows; on request with one breach.
//!
//! What they do next is decided by a row of numbers, so that proptest can make it shorter. The breach happens in the place where
//! the right thing would have been done, and all that follows is right again: so the traces with one are near those without.

use migscope_abi::region::Field::{
    Bitmap, CopiedPfns, Data, DataOffset, DataSize, DeviceState, PageSize, PendingBytes, Reserved,
    StartPfn, TotalPfns,
};
use migscope_abi::region::{Op, PFNS_ALL, PFNS_NONE};
use migscope_abi::state::{Cause, State};
use migscope_abi::watch::conduct::Conduct;

use crate::scene::{Scene, BITMAP, DATA};

/// The breaches that it can be asked for: all that happen in a place. A state that cannot be has no trace that goes on.
pub(crate) const BREACHES: &[Conduct] = &[
    Conduct::ArcAsked,
    Conduct::StateAsked,
    Conduct::StateMisread,
    Conduct::LeftWithPending,
    Conduct::PendingOutsideSaving,
    Conduct::PendingGrew,
    Conduct::PendingWithoutData,
    Conduct::OffsetBeforePending,
    Conduct::OffsetWithoutPending,
    Conduct::OffsetInStruct,
    Conduct::SizeBeforeOffset,
    Conduct::BufferChanged,
    Conduct::DataOutsideSaving,
    Conduct::DataBeforeOffset,
    Conduct::DataBeforeSize,
    Conduct::DataPastSize,
    Conduct::DataUnread,
    Conduct::LoadOutsideResuming,
    Conduct::LoadBeforeOffset,
    Conduct::CommitBeforeOffset,
    Conduct::DataUnwritten,
    Conduct::QueryOutsideSaving,
    Conduct::QueryOrder,
    Conduct::QueryUnasked,
    Conduct::CopiedTooMany,
    Conduct::BitmapUnasked,
    Conduct::BitmapBeforeOffset,
    Conduct::BitmapPastAnswer,
    Conduct::BitmapUnread,
    Conduct::ReservedWritten,
    Conduct::ReservedNotZero,
];

/// Plays a trace with one breach, in the place after `skip` others where it was possible, or none. Gives what the watch said,
/// and whether the breach was done.
pub(crate) fn play(choices: &[u16], breach: Option<(Conduct, u32)>) -> (Vec<Conduct>, bool) {
    let mut client = Client { scene: Scene::opened(), choices, at: 0, breach };
    client.live();
    (client.scene.broken, breach.is_some() && client.breach.is_none())
}

/// Plays a trace without a breach to a watch that comes after some records of it.
pub(crate) fn play_from(choices: &[u16], missed: usize) -> Vec<Conduct> {
    let mut scene = Scene::opened();
    scene.miss(missed);
    let mut client = Client { scene, choices, at: 0, breach: None };
    client.live();
    client.scene.broken
}

struct Client<'a> {
    scene: Scene,
    choices: &'a [u16],
    at: usize,
    breach: Option<(Conduct, u32)>,
}

impl Client<'_> {
    fn over(&self) -> bool {
        self.at >= self.choices.len()
    }

    /// A number below `below`; 0 when the row is at its end.
    fn choose(&mut self, below: u64) -> u64 {
        let choice = self.choices.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        u64::from(choice) % below
    }

    fn sometimes(&mut self) -> bool {
        self.choose(5) == 1
    }

    /// Whether this is the place for `breach`.
    fn breaks(&mut self, breach: Conduct) -> bool {
        match &mut self.breach {
            Some((asked, skip)) if *asked == breach => {
                if *skip > 0 {
                    *skip -= 1;
                    return false;
                }
                self.breach = None;
                true
            }
            _ => false,
        }
    }

    fn state(&self) -> State {
        State::try_from(self.scene.state).expect("it obeys")
    }

    fn live(&mut self) {
        while !self.over() {
            match self.choose(8) {
                0 => self.scene.change(1, Cause::Reset, 0),
                1 => {
                    self.scene.change(1, Cause::Close, 0);
                    self.scene.change(1, Cause::Open, 0);
                }
                2 => {
                    self.scene.go(State::Stopped);
                    self.idle();
                }
                3 => self.scene.go(State::Running),
                4 | 5 => self.save(),
                6 => self.load(),
                _ => self.idle(),
            }
        }
    }

    /// Accesses that are no step of anything.
    fn aside(&mut self) {
        let state = u64::from(self.scene.state);
        match self.choose(7) {
            0 => {
                let wrong = u64::from(self.breaks(Conduct::StateMisread)) * 8;
                self.scene.get(DeviceState, state | wrong);
            }
            1 => {
                let wrong = u64::from(self.breaks(Conduct::ReservedNotZero));
                self.scene.get(Reserved, wrong);
            }
            2 => {
                let wrong = u64::from(self.breaks(Conduct::ReservedWritten));
                self.scene.put(Reserved, wrong);
            }
            3 => {
                // The device is too slow to stop, say.
                let wrong = match self.state() {
                    State::Resuming => Some(State::StopAndCopy),
                    State::PreCopy | State::StopAndCopy => Some(State::Resuming),
                    _ => None,
                };
                match wrong {
                    Some(wrong) if self.breaks(Conduct::ArcAsked) => {
                        self.scene.denied(wrong as u32);
                    }
                    _ if self.breaks(Conduct::StateAsked) => self.scene.denied(6),
                    _ => self.scene.denied(State::Stopped as u32),
                }
            }
            _ => {}
        }
    }

    /// Accesses outside of a session.
    fn idle(&mut self) {
        self.aside();
        let wrong = u64::from(self.breaks(Conduct::PendingOutsideSaving));
        self.scene.get(PendingBytes, wrong);
        if self.sometimes() {
            self.scene.get(DataOffset, DATA);
            self.scene.get(DataSize, 0);
        }
        if self.breaks(Conduct::DataOutsideSaving) {
            self.scene.refused(Data, Op::Read, DATA, 8);
        }
        if self.breaks(Conduct::LoadOutsideResuming) {
            self.scene.refused(Data, Op::Write, DATA, 8);
        }
        if self.breaks(Conduct::QueryOutsideSaving) {
            self.scene.refused(StartPfn, Op::Write, 0x20, 8);
        }
    }

    /// A source, from its beginning to its end, a cancel or a reset.
    fn save(&mut self) {
        let mut looked = false;
        let mut asked = false;
        if self.state() == State::Running && self.choose(3) > 0 {
            self.scene.go(State::PreCopy);
            for _ in 0..self.choose(4) {
                self.iteration(&mut looked, None);
                self.query(&mut asked);
                if self.sometimes() {
                    return self.cancel();
                }
            }
        }
        self.scene.go(State::StopAndCopy);
        if self.sometimes() {
            self.scene.go(State::StopAndCopy);
        }
        let mut pending = self.choose(4) * 3000;
        while pending > 0 {
            pending = self.iteration(&mut looked, Some(pending));
            self.query(&mut asked);
            if self.sometimes() {
                return self.cancel();
            }
        }
        if !self.breaks(Conduct::LeftWithPending) {
            self.scene.get(PendingBytes, 0);
        }
        self.query(&mut asked);
        self.scene.go(State::Stopped);
    }

    /// It may come in the middle of an iteration of another thread, which then goes on.
    fn cancel(&mut self) {
        let overtaken = self.state() == State::PreCopy && self.sometimes();
        if overtaken {
            self.scene.get(PendingBytes, 1);
        }
        match self.choose(3) {
            // From stop-and-copy it would say that all was saved.
            0 if self.state() == State::PreCopy => self.scene.go(State::Stopped),
            1 => self.scene.change(1, Cause::Reset, 0),
            _ => self.scene.go(State::Running),
        }
        if overtaken {
            self.scene.get(DataOffset, DATA);
            self.scene.get(DataSize, 0);
            self.scene.refused(Data, Op::Read, DATA, 8);
            self.scene.get(PendingBytes, 0);
        }
    }

    /// Steps a to d of saving. `pending` is what a device that stands still has left; gives what it has left then.
    fn iteration(&mut self, looked: &mut bool, pending: Option<u64>) -> u64 {
        let at_rest = pending.is_some();
        let pending = pending.unwrap_or_else(|| 1 + self.choose(9000));
        let mut told = pending;
        if !at_rest && self.breaks(Conduct::OffsetWithoutPending) {
            told = 0;
        }
        if *looked || !self.breaks(Conduct::OffsetBeforePending) {
            self.scene.get(PendingBytes, told);
            if self.sometimes() {
                self.scene.get(PendingBytes, told);
            }
            if at_rest && self.breaks(Conduct::PendingGrew) {
                self.scene.get(PendingBytes, told + 1);
            }
            *looked = true;
        }
        self.aside();
        let mut bytes = pending.min(1 + self.choose(9000));
        if !at_rest && self.sometimes() {
            bytes = 0;
        }
        if at_rest && self.breaks(Conduct::PendingWithoutData) {
            bytes = 0;
        }
        if self.breaks(Conduct::DataBeforeOffset) {
            self.scene.refused(Data, Op::Read, DATA, bytes.max(1));
            return pending;
        }
        if !self.breaks(Conduct::SizeBeforeOffset) {
            let wrong = self.breaks(Conduct::OffsetInStruct);
            self.scene.get(DataOffset, if wrong { 32 } else { DATA });
            if wrong {
                // What the client makes of it is not its fault; it gives up.
                return pending;
            }
            if self.sometimes() {
                self.scene.get(DataOffset, DATA);
            }
        }
        if self.breaks(Conduct::DataBeforeSize) {
            self.scene.data(0, 1);
            return pending;
        }
        self.scene.get(DataSize, bytes);
        if self.sometimes() {
            self.scene.get(DataSize, bytes);
        }
        if bytes > 0 && self.breaks(Conduct::BufferChanged) {
            self.scene.get(DataSize, bytes + 1);
            return pending;
        }
        self.read_data(bytes, pending - bytes);
        pending - bytes
    }

    /// Step d; `left` is what is pending after it.
    fn read_data(&mut self, bytes: u64, left: u64) {
        if bytes > 0 && self.breaks(Conduct::DataPastSize) {
            self.scene.refused(Data, Op::Read, DATA, bytes + 1);
            return;
        }
        // All, nothing, or the first page by system calls; the rest in a mapping.
        let by_calls = match self.choose(4) {
            0 => 0,
            1 => bytes.min(4096),
            _ => bytes,
        };
        let cut = by_calls == bytes && bytes > 1 && bytes != 4097;
        if cut && self.breaks(Conduct::DataUnread) {
            self.scene.data(0, if bytes > 5000 { bytes / 2 } else { 1 });
            if bytes > 5000 && bytes / 2 == 4096 {
                self.scene.data(4096, 1);
            }
            // The next iteration follows at once.
            self.scene.get(PendingBytes, left);
            return;
        }
        let mut at = 0;
        while at < by_calls {
            let step = (by_calls - at).min(1 + self.choose(5000));
            if self.sometimes() {
                self.scene.refused(Data, Op::Read, DATA + at, step);
            }
            self.scene.data(at, step);
            at += step;
            if self.sometimes() {
                self.scene.data(0, at); // once more
            }
        }
    }

    /// A dirty query, in as many answers as it takes.
    fn query(&mut self, asked: &mut bool) {
        let mut left = self.choose(40_000);
        let mut first = true;
        while left > 0 {
            if !*asked && self.breaks(Conduct::QueryUnasked) {
                self.scene.put(StartPfn, 16);
                self.scene.put(PageSize, 4096);
                self.scene.refused(CopiedPfns, Op::Read, 0x38, 8);
            }
            if self.breaks(Conduct::QueryOrder) {
                self.scene.put(TotalPfns, left);
                self.scene.put(StartPfn, 16);
                self.scene.put(PageSize, 4096);
            } else {
                self.registers(first, left);
            }
            (*asked, first) = (true, false);
            if self.sometimes() {
                self.scene.refused(CopiedPfns, Op::Read, 0x38, 8);
                self.registers(true, left);
            }
            match self.choose(4) {
                0 => {
                    self.scene.get(CopiedPfns, PFNS_NONE);
                    if self.breaks(Conduct::BitmapUnasked) {
                        self.scene.refused(Bitmap, Op::Read, BITMAP, 8);
                    }
                    return;
                }
                1 => return self.scene.get(CopiedPfns, PFNS_ALL),
                _ => {}
            }
            if self.breaks(Conduct::CopiedTooMany) {
                return self.scene.get(CopiedPfns, left + 1);
            }
            let pages = left.min(1 + self.choose(40_000));
            self.scene.get(CopiedPfns, pages);
            left -= pages;
            if !self.read_bitmap(pages) {
                return;
            }
            self.aside();
        }
    }

    fn registers(&mut self, all: bool, left: u64) {
        if self.sometimes() {
            self.scene.refused(StartPfn, Op::Write, 0x20, 8);
        }
        // They keep their values from query to query.
        if all {
            self.scene.put(PageSize, 4096);
        }
        self.scene.put(StartPfn, 16);
        self.scene.put(TotalPfns, left);
    }

    /// Steps c and d. Says whether the query goes on.
    fn read_bitmap(&mut self, pages: u64) -> bool {
        if self.breaks(Conduct::BitmapBeforeOffset) {
            self.scene.bitmap(0, 1);
            return false;
        }
        self.scene.get(DataOffset, BITMAP);
        let bytes = pages.div_ceil(8);
        if self.breaks(Conduct::BitmapPastAnswer) {
            self.scene.refused(Bitmap, Op::Read, BITMAP, bytes.next_multiple_of(8) + 1);
            return false;
        }
        if bytes > 1 && self.breaks(Conduct::BitmapUnread) {
            self.scene.bitmap(0, 1);
            self.registers(true, 5);
            self.scene.get(CopiedPfns, PFNS_NONE);
            return false;
        }
        if self.sometimes() {
            return true; // in a mapping
        }
        let end = if self.sometimes() { bytes.next_multiple_of(8) } else { bytes };
        let mut at = 0;
        while at < end {
            let step = (end - at).min(1 + self.choose(2000));
            self.scene.bitmap(at, step);
            at += step;
        }
        true
    }

    /// A destination, to its end or a cancel.
    fn load(&mut self) {
        self.scene.go(State::Resuming);
        for _ in 0..self.choose(5) {
            self.aside();
            let bytes = 1 + self.choose(9000);
            let by_calls = match self.choose(3) {
                0 => 0,
                1 => bytes.min(4096),
                _ => bytes,
            };
            let unlocated = if by_calls > 0 {
                self.breaks(Conduct::LoadBeforeOffset)
            } else {
                self.breaks(Conduct::CommitBeforeOffset)
            };
            if !unlocated {
                self.scene.get(DataOffset, DATA);
            }
            let mut at = 0;
            while at < by_calls {
                let step = (by_calls - at).min(1 + self.choose(5000));
                self.scene.load(at, step);
                at += step;
            }
            if self.sometimes() && !unlocated {
                self.scene.refused(DataSize, Op::Write, 0x18, 8);
            }
            let more = at == bytes
                && !bytes.is_multiple_of(4096)
                && !unlocated
                && self.breaks(Conduct::DataUnwritten);
            self.scene.put(DataSize, bytes + u64::from(more));
        }
        if self.sometimes() {
            self.scene.go(State::Resuming);
        }
        let end = if self.sometimes() { State::Stopped } else { State::Running };
        self.scene.go(end);
    }
}
