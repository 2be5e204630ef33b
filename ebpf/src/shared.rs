// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The sums of a device of any driver. Nothing keeps its threads apart, so each number is changed atomically and alone.
//!
//! A copy of the sums in a record may have one number from before and one from after what another thread does at the same time; that
//! thread's call was under way when the state changed, so either is true of that moment.
#![expect(unsafe_code, reason = "map values are reached through raw pointers")]

use crate::{emit::now_ns, maps::DEVICE_SUMS, sums};
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::mem::offset_of;
use migscope_abi::{
    outside::StateWord,
    probe::Probe,
    ring::{DeviceSums, STATE_UNKNOWN, STATE_V2},
    v2::{MigState, NO_STATE},
};

#[expect(clippy::cast_possible_truncation, reason = "there are eight")]
const STATES: u32 = MigState::COUNT as u32;

/// The sums of one device.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut DeviceSums);

impl Shared {
    /// The sums of `device`, which are made if there are none; or counts the loss.
    #[inline(always)]
    pub(crate) fn of(probe: Probe, device: u64) -> Option<Self> {
        sums::entry(probe, device).map(Self)
    }

    /// The sums of `device`, if it has any.
    #[inline(always)]
    pub(crate) fn found(device: u64) -> Option<Self> {
        DEVICE_SUMS.get_ptr_mut(device).map(Self)
    }

    /// All of them, to be copied.
    #[inline(always)]
    pub(crate) fn whole(self) -> *const DeviceSums {
        self.0
    }

    /// The number at `offset` in [`DeviceSums`], in bytes.
    ///
    /// What is done with it is one access of the whole number. BPF's instruction set has no other atomic load and store; and core offers
    /// the addition on this target, which has no compare-and-swap, as an intrinsic only.
    #[inline(always)]
    fn number(self, offset: usize) -> *mut u64 {
        self.0.cast::<u8>().wrapping_add(offset).cast()
    }

    #[inline(always)]
    fn get(self, offset: usize) -> u64 {
        // SAFETY: `self.0` is a value of the map, aligned to eight bytes and alive while the program runs. `DeviceSums` is made of
        // nothing but `u64`, and `offset` is that of one of its fields, from `offset_of!`.
        unsafe { self.number(offset).read_volatile() }
    }

    /// Sets the number at `offset`.
    #[inline(always)]
    pub(crate) fn set(self, offset: usize, value: u64) {
        // SAFETY: as in `get`.
        unsafe { self.number(offset).write_volatile(value) };
    }

    /// Sets the number at `offset` if it is 0.
    #[inline(always)]
    pub(crate) fn set_first(self, offset: usize, value: u64) {
        if self.get(offset) == 0 {
            self.set(offset, value);
        }
    }

    /// Adds to the number at `offset`.
    #[inline(always)]
    pub(crate) fn add(self, offset: usize, amount: u64) {
        // SAFETY: as in `get`.
        unsafe { add(self.number(offset), amount) };
    }

    /// Something was seen of the device now.
    #[inline(always)]
    pub(crate) fn touch(self) {
        self.set(offset_of!(DeviceSums, last_seen_ns), now_ns());
    }

    /// The state that it is known to be in, as a number of [`MigState`], or [`NO_STATE`].
    #[inline(always)]
    pub(crate) fn state(self) -> u32 {
        let state = self.get(offset_of!(DeviceSums, state));
        let number = state.wrapping_sub(STATE_V2);
        u32::try_from(number).ok().filter(|number| *number < STATES).unwrap_or(NO_STATE)
    }

    /// It is in this state now.
    #[inline(always)]
    pub(crate) fn set_state(self, state: u32) {
        self.set(offset_of!(DeviceSums, state), STATE_V2 | u64::from(state));
    }

    /// It is of the v2 protocol, whatever its state: a VMM may log its DMA before it asks for any.
    #[inline(always)]
    pub(crate) fn speaks_v2(self) {
        if self.get(offset_of!(DeviceSums, state)) == STATE_UNKNOWN {
            self.set_state(NO_STATE);
        }
    }

    /// It is seen from outside, and in this state now.
    #[inline(always)]
    pub(crate) fn set_region_state(self, state: u32) {
        let unseen = self.unseen_bitmaps();
        self.set(offset_of!(DeviceSums, state), StateWord { state, unseen }.word());
    }

    /// A bitmap of it was asked for and will not be seen.
    #[inline(always)]
    pub(crate) fn bitmap_unseen(self, state: u32) {
        let unseen = self.unseen_bitmaps().saturating_add(1);
        self.set(offset_of!(DeviceSums, state), StateWord { state, unseen }.word());
    }

    #[inline(always)]
    fn unseen_bitmaps(self) -> u8 {
        StateWord::of(self.get(offset_of!(DeviceSums, state))).map_or(0, |word| word.unseen)
    }

    /// Another stay in a state begins.
    #[inline(always)]
    pub(crate) fn begin_stay(self) {
        for number in 0..4 {
            self.set(offset_of!(DeviceSums, stay) + 8 * number, 0);
        }
    }
}

/// Adds to a number that other CPUs may change at the same time. Without the result it is one instruction.
///
/// # Safety
///
/// `number` is one of a live value of a map, aligned to eight bytes.
#[inline(always)]
pub(crate) unsafe fn add(number: *mut u64, amount: u64) {
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(number, amount) };
}
