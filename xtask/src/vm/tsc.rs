// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How fast the guest's time stamp counter runs.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "the instruction that reads the counter")
)]

/// The counter's frequency in kHz, where it is known.
///
/// The guest's kernel measures it at boot, against a timer, in some milliseconds. Where the thread that emulates a CPU is put
/// aside in between, it finds a fraction of the frequency, its clock runs many times too fast, and it complains of stalls. QEMU's
/// emulation passes the host's own counter on (`cpu_get_host_ticks`), so the host can say.
#[cfg(target_arch = "x86_64")]
pub(super) fn khz() -> Option<u64> {
    use std::arch::x86_64::_rdtsc;
    use std::time::{Duration, Instant};

    // Long enough for a thousandth, with some microseconds of delay at either end.
    const MEASURED: Duration = Duration::from_millis(20);
    // SAFETY: Every x86-64 processor has the instruction, and Linux leaves it to user space.
    let counter = || unsafe { _rdtsc() };
    // Put aside between the two reads of an end: what was read first is then too early, so the shortest of several is taken.
    let moment = || {
        let read = || {
            let before = Instant::now();
            let ticks = counter();
            (before.elapsed(), before, ticks)
        };
        let best = (0..5).map(|_| read()).min_by_key(|(took, ..)| *took);
        best.map(|(_, at, ticks)| (at, ticks))
    };
    let (start, from) = moment()?;
    std::thread::sleep(MEASURED);
    let (end, to) = moment()?;
    let ticks = u128::from(to.checked_sub(from)?);
    u64::try_from(ticks * 1_000_000 / end.duration_since(start).as_nanos().max(1)).ok()
}

/// What QEMU passes on elsewhere is its own affair.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn khz() -> Option<u64> {
    None
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn a_frequency_is_that_of_a_processor_and_the_same_again() {
        let [first, second] = [khz(), khz()].map(|khz| khz.expect("there is a counter"));
        assert!((500_000..20_000_000).contains(&first), "{first} kHz");
        assert!(first.abs_diff(second) < first / 100, "{first} and {second} kHz");
    }
}
