// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether something has been so lately, and not only for a moment: links dip, loads swing, and a fit jumps with every sync.
//!
//! ```text
//!   share = Σ so·e^(−age/T) / Σ e^(−age/T)        said from nine tenths on, once 2.3 T have gone by
//! ```
//!
//! A moment of the contrary does not begin the wait anew, as it would with "for T without a break", where what is nearly always
//! so would never be said.

use super::rate::{Fading, seconds};

/// Share of the time, and of the longest window, from which it counts: 1 − e^(−2.3).
const MOSTLY: f64 = 0.9;
/// Longest time that one look speaks for, in seconds.
const LONGEST_LOOK_S: f64 = 1.0;

/// A condition, and how much of the time it held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lately {
    time_constant: f64,
    held: Fading,
    looked_ns: Option<u64>,
}

impl Lately {
    /// Not looked at yet; what is `time_constant` seconds old will have lost 63 % of its weight.
    pub(super) fn new(time_constant: f64) -> Self {
        Self { time_constant, held: Fading::new(time_constant), looked_ns: None }
    }

    /// It holds at `now_ns`, or not.
    pub(super) fn look(&mut self, holds: bool, now_ns: u64) {
        let looked_ns = self.looked_ns.replace(now_ns).unwrap_or(now_ns);
        let elapsed = seconds(now_ns.saturating_sub(looked_ns)).min(LONGEST_LOOK_S);
        self.held.add(if holds { elapsed } else { 0.0 }, elapsed);
    }

    /// Whether it held nearly all of the time, and for long enough to say so.
    pub(super) fn mostly(&self) -> bool {
        self.held.window() >= MOSTLY * self.time_constant
            && self.held.rate().is_some_and(|share| share >= MOSTLY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When it is said first, in tenths of a second, if it holds by `holds`.
    fn said(holds: impl Fn(u64) -> bool) -> Option<u64> {
        let mut lately = Lately::new(10.0);
        (0..1000).find(|tenth| {
            lately.look(holds(*tenth), tenth * 100_000_000);
            lately.mostly()
        })
    }

    #[test]
    fn what_holds_is_said_after_two_time_constants_and_a_bit() {
        assert!(said(|_| true).is_some_and(|tenths| (225..240).contains(&tenths)));
    }

    #[test]
    fn a_break_delays_it_and_does_not_begin_it_anew() {
        let whole = said(|_| true);
        let broken = said(|tenth| tenth != 200);
        assert!(broken >= whole && broken < whole.map(|tenths| tenths + 30), "{broken:?}");
        assert_eq!(said(|tenth| tenth % 5 != 0), None, "four fifths of the time are not mostly");
        assert_eq!(said(|tenth| tenth % 100 < 75), None);
    }

    #[test]
    fn one_look_after_a_long_time_is_no_long_time() {
        let mut lately = Lately::new(10.0);
        for minute in 0..5 {
            lately.look(true, minute * 60_000_000_000);
            assert!(!lately.mostly(), "{minute}");
        }
        lately.look(true, 0);
        assert!(!lately.mostly(), "time went back");
    }
}
