// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the probes say that they lost: by reason for those who count, and by probe, too, for those who look for a fault.

use migscope_abi::{
    probe::Probe,
    ring::{Losses, Lost},
};
use tracing::debug;

/// What was lost when somebody looked last.
#[derive(Default)]
pub struct LossLog {
    last: Losses,
}

impl LossLog {
    /// Logs what came since the last time.
    pub fn log(&mut self, losses: &Losses) {
        for (probe, reason, lost) in since(&self.last, losses) {
            debug!(
                probe = probe.name(),
                reason = reason.name(),
                lost,
                "a probe has lost something"
            );
        }
        self.last = *losses;
    }
}

/// By reason, from all probes.
pub fn by_reason(losses: &Losses) -> [u64; Lost::COUNT] {
    let mut sums = [0_u64; Lost::COUNT];
    for row in losses {
        for (sum, count) in sums.iter_mut().zip(row) {
            *sum = sum.wrapping_add(*count);
        }
    }
    sums
}

/// What of `now` came after `before`.
fn since(before: &Losses, now: &Losses) -> impl Iterator<Item = (Probe, Lost, u64)> {
    let rows = Probe::ALL.into_iter().zip(before.iter().zip(now));
    let numbers = rows.flat_map(|(probe, (before, now))| {
        let reasons = Lost::ALL.into_iter().zip(before.iter().zip(now));
        reasons.map(move |(reason, (before, now))| (probe, reason, now.wrapping_sub(*before)))
    });
    numbers.filter(|(.., lost)| *lost != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(probe: Probe, reason: Lost, count: u64) -> Losses {
        let mut losses = Losses::default();
        losses[probe as usize][reason as usize] = count;
        losses
    }

    #[test]
    fn what_two_probes_lost_for_one_reason_is_added_up() {
        let mut losses = of(Probe::State, Lost::RingFull, 2);
        losses[Probe::RegionBitmap as usize][Lost::RingFull as usize] = 3;
        losses[Probe::Kvm as usize][Lost::Unfinished as usize] = 7;
        assert_eq!(by_reason(&losses), [5, 0, 0, 7]);
    }

    #[test]
    fn only_what_came_is_told_and_of_whom_it_is() {
        let before = of(Probe::Dma, Lost::MapFull, 4);
        let mut now = before;
        now[Probe::Dma as usize][Lost::MapFull as usize] = 6;
        now[Probe::Type1 as usize][Lost::Unreadable as usize] = 1;
        let told: Vec<_> = since(&before, &now).collect();
        assert_eq!(told, [(Probe::Dma, Lost::MapFull, 2), (Probe::Type1, Lost::Unreadable, 1)]);
        assert_eq!(since(&now, &now).count(), 0);
    }
}
