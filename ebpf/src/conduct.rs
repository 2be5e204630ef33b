// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The protocol watch: each record of a device is shown to its [`Watch`], and what was broken is counted and told.
//!
//! A rule that is broken in a loop must not fill the ring: it is told at the 1st, 2nd, 4th, 8th … time of a session, and the counts of
//! the rest once, before the state record by which the session may end.
#![expect(unsafe_code, reason = "map values and ring entries are reached through raw pointers")]

use crate::{
    emit::{header, lost, submit},
    maps::CONDUCT,
    sums,
};
use aya_ebpf::bindings::BPF_NOEXIST;
use core::hint::black_box;
use migscope_abi::{
    probe::Probe,
    region::{Field, Op},
    ring::{ConductCounts, ConductRecord, Conducted, Kind, Lost},
    trace,
    watch::{Watch, conduct::Conduct},
};

/// What a device starts with. Too large for a program's stack of 512 bytes.
static START: Conducted = Conducted {
    watch: Watch::START,
    total: [0; Conduct::COUNT],
    session: [0; Conduct::COUNT],
    untold: 0,
};

/// Shows the watch an access; gives what is pending if the device said that it has none of it to give.
#[inline(always)]
pub(crate) fn accessed(probe: Probe, event: &trace::RegionAccess) -> Option<u64> {
    let conducted = conducted(probe, event.device)?;
    if let Some(rule) = conducted.watch.access(event) {
        let moment = Moment {
            device: event.device,
            offset: event.offset,
            value: event.value,
            state: event.state,
            field: event.field,
            op: event.op,
        };
        broken(probe, conducted, rule, &moment);
    }
    conducted.watch.withheld()
}

/// Shows the watch a change of state, before the record of it is in the ring.
#[inline(always)]
pub(crate) fn state_changed(probe: Probe, event: &trace::State) {
    let Some(conducted) = conducted(probe, event.device) else {
        return;
    };
    let change = conducted.watch.state_changed(event);
    if let Some(rule) = change.broken {
        let moment = Moment {
            device: event.device,
            offset: 0,
            value: u64::from(event.requested),
            state: event.now,
            field: Field::DeviceState as u32,
            op: Op::Write as u32,
        };
        broken(probe, conducted, rule, &moment);
    }
    if event.result >= 0 && conducted.untold != 0 {
        tell_counts(probe, event.device, conducted);
    }
    if change.begins {
        conducted.session = [0; Conduct::COUNT];
        conducted.untold = 0;
    }
}

/// What happened to a device is not known in its order: its watch begins anew, and is silent until it knows where it is.
#[inline(always)]
pub(crate) fn lose_track(device: u64) {
    if let Some(entry) = CONDUCT.get_ptr_mut(device) {
        // SAFETY: a live value of the map; what another call on the device writes meanwhile is a watch that knows no more than it should.
        unsafe { (&raw mut (*entry).watch).write(Watch::START) };
    }
}

/// What of an access or of a change goes into a record.
struct Moment {
    device: u64,
    offset: u64,
    value: u64,
    state: u32,
    field: u32,
    op: u32,
}

#[inline(always)]
fn conducted(probe: Probe, device: u64) -> Option<&'static mut Conducted> {
    let entry = CONDUCT.get_ptr_mut(device).or_else(|| {
        #[expect(
            clippy::needless_borrows_for_generic_args,
            reason = "by value it would be copied to the stack"
        )]
        let _ = CONDUCT.insert(device, &START, u64::from(BPF_NOEXIST));
        CONDUCT.get_ptr_mut(device)
    });
    let Some(entry) = entry else {
        lost(probe, Lost::MapFull);
        return None;
    };
    // SAFETY: `entry` is a value of the map, aligned to eight bytes and alive while the program runs, which does not keep the
    // reference. Our driver emits all records of a device under that device's lock, so no other program changes this value; user
    // space gets copies. Of a device of another driver nothing comes here while two calls on it are under way (`probes::outside`).
    Some(unsafe { &mut *entry })
}

/// Counts a broken rule, and tells of it now and then.
#[inline(always)]
fn broken(probe: Probe, conducted: &mut Conducted, rule: Conduct, moment: &Moment) {
    // Once, so that the verifier sees one number that is checked, and not a proof of the compiler's.
    let index = black_box(rule.index());
    sums::add(&mut conducted.total, index, 1);
    sums::add(&mut conducted.session, index, 1);
    let index = black_box(index as usize);
    let Some(count) = conducted.session.get(index).copied() else {
        return;
    };
    if count & count.wrapping_sub(1) != 0 {
        conducted.untold = conducted.untold.wrapping_add(1);
        return;
    }
    submit::<ConductRecord>(probe, Kind::Conduct, |entry| {
        // SAFETY: `entry` is the reserved room for one record, aligned to eight bytes, and all of it is written.
        unsafe {
            entry.write(ConductRecord {
                header: header(Kind::Conduct),
                device: moment.device,
                offset: moment.offset,
                value: moment.value,
                count,
                rule: rule as u32,
                state: moment.state,
                field: moment.field,
                op: moment.op,
            });
        }
    });
}

/// Tells how often each rule was broken in this session.
#[inline(always)]
fn tell_counts(probe: Probe, device: u64, conducted: &mut Conducted) {
    submit::<ConductCounts>(probe, Kind::ConductCounts, |entry| {
        // SAFETY: `entry` is the reserved room for one record, aligned to eight bytes, and all three fields of it are written.
        unsafe {
            (&raw mut (*entry).header).write(header(Kind::ConductCounts));
            (&raw mut (*entry).device).write(device);
            (&raw mut (*entry).counts).write(conducted.session);
        }
    });
    conducted.untold = 0;
}
