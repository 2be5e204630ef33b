// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was told of dirty pages of the whole machine while a session ran: by type 1, iommufd and KVM.
//!
//! ```text
//!   record before the change that begins it ──▶ base ┐
//!   samples ──▶ last, rates                          ├─▶ what was told in the session, by source
//!   record before the change that ends it ────▶ last ┘
//! ```
//!
//! All devices of a machine have the same account: it is the machine's. Two sources may tell of the same page, and which pages it were is not kept:
//! what they told together is between the most that one told and the sum of all ([`Bounds`]).

use crate::{
    convergence::{Rate, Tracking},
    dirty::{Account, Source, Told},
};
use migscope_abi::machine::{MachineSums, Tracker};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap, time::Duration};

/// How long a burst of reports may last until it is cut, in nanoseconds: a ring is harvested all the time.
const LONGEST_BURST_NS: u64 = 2_000_000_000;

/// What each source told in a session; a source that no probe follows is not in it.
pub type BySource = BTreeMap<Cow<'static, str>, MachineAccount>;

/// What one source told of a machine in a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineAccount {
    /// Pages and queries.
    #[serde(flatten)]
    pub account: Account,
    /// Time that the kernel was busy answering, in nanoseconds.
    pub query_busy_ns: u64,
}

/// How much memory was told dirty by all of them together, where a page counts once however many told it in a round. Not known exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// What the one told that told most: the others may have told the same pages. In bytes.
    pub at_least_bytes: u64,
    /// What all told: they may have told other pages each. In bytes.
    pub at_most_bytes: u64,
}

impl Bounds {
    /// The bounds of what was told in `by_source`.
    pub fn of(by_source: &BySource) -> Self {
        let told = || by_source.values().map(|told| told.account.bytes);
        Self {
            at_least_bytes: told().max().unwrap_or(0),
            at_most_bytes: told().fold(0, u64::saturating_add),
        }
    }
}

/// Follows the machine of one session.
#[derive(Clone, Debug, Default)]
pub struct Trackers {
    /// `None` while the beginning is not known.
    base: Option<Told>,
    last: Option<Told>,
    rates: [Bursts; Tracker::COUNT],
}

impl Trackers {
    /// The session has begun, and this was told before.
    pub fn begin(&mut self, told: Told) {
        *self = Self { base: Some(told), last: Some(told), ..Self::default() };
    }

    /// This was told up to `at_ns` (`CLOCK_MONOTONIC`, nanoseconds).
    pub fn read(&mut self, told: Told, at_ns: u64) {
        let before = self.last.unwrap_or_default();
        for ((rate, sums), before) in self.rates.iter_mut().zip(&told).zip(&before) {
            // What a record tells may be older than the last sample.
            if sums.last_seen_ns >= before.last_seen_ns {
                rate.read(sums.bytes, at_ns);
            }
        }
        self.last = Some(told);
    }

    /// Takes over what another session of the same machine knows last.
    pub fn follow(&mut self, other: &Self) {
        self.last = other.last.or(self.last);
    }

    /// What `tracker` told in the session; `None` where its beginning was not seen or the account started anew.
    pub fn account(&self, tracker: Tracker) -> Option<MachineAccount> {
        let (base, last) = (of(self.base.as_ref()?, tracker), of(self.last.as_ref()?, tracker));
        Some(MachineAccount {
            account: Account::from(last).since(&base.into())?,
            query_busy_ns: last.query_busy_ns.checked_sub(base.query_busy_ns)?,
        })
    }

    /// What all of them told, as far as they are `covered`; `None` where that is not known.
    pub fn by_source(&self, covered: [bool; Tracker::COUNT]) -> Option<BySource> {
        let followed = Tracker::ALL.into_iter().zip(covered).filter(|(_, covered)| *covered);
        followed
            .map(|(tracker, _)| Some((Source::from(tracker).name().into(), self.account(tracker)?)))
            .collect()
    }

    /// How fast memory became dirty, as each of them told last.
    pub fn rates(&self) -> impl Iterator<Item = (Source, Rate)> {
        let sources = Tracker::ALL.into_iter().map(Source::from);
        sources.zip(&self.rates).filter_map(|(source, bursts)| Some((source, bursts.rate?)))
    }

    /// Whether the machine's memory is told page by page, and how much of it, in bytes, has to be taken for dirty as a whole.
    ///
    /// A VMM puts together what its sources tell, so one that tells nothing apart is enough for all to be dirty.
    pub fn tracking(&self) -> (Tracking, u64) {
        let all = self.account(Tracker::Type1).is_some_and(|told| told.account.queries.all > 0);
        let all_bytes = self.last.as_ref().map_or(0, |last| of(last, Tracker::Type1).all_bytes);
        if all && all_bytes > 0 {
            return (Tracking::AllDirty, all_bytes);
        }
        let mut told = Tracker::ALL.into_iter().filter_map(|tracker| self.account(tracker));
        let per_page = told.any(|told| told.account.queries.none + told.account.queries.bitmap > 0);
        (if per_page { Tracking::PerPage } else { Tracking::Unknown }, 0)
    }
}

/// What `tracker` told.
pub fn of(told: &Told, tracker: Tracker) -> &MachineSums {
    let [type1, iommufd, kvm] = told;
    match tracker {
        Tracker::Type1 => type1,
        Tracker::Iommufd => iommufd,
        Tracker::Kvm => kvm,
    }
}

/// Reports come in bursts, one for each time that a VMM looks at all of its memory. What a burst tells became dirty since the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Bursts {
    last_bytes: Option<u64>,
    /// The burst under way, or the last one.
    burst: Option<Burst>,
    under_way: bool,
    rate: Option<Rate>,
}

#[derive(Clone, Copy, Debug)]
struct Burst {
    began_ns: u64,
    /// When the one before began.
    since_ns: Option<u64>,
    /// What was told before it, in bytes.
    bytes_before: u64,
}

impl Bursts {
    fn read(&mut self, bytes: u64, at_ns: u64) {
        let Some(last) = self.last_bytes.replace(bytes).filter(|last| *last <= bytes) else {
            // The first reading, or an account that started anew.
            *self = Self { last_bytes: Some(bytes), ..Self::default() };
            return;
        };
        let grew = bytes > last;
        if let Some(burst) = self.burst.filter(|_| self.under_way) {
            let too_long = at_ns.saturating_sub(burst.began_ns) >= LONGEST_BURST_NS;
            if grew && !too_long {
                return;
            }
            self.rate = burst.rate(last).or(self.rate);
            self.under_way = false;
        }
        if grew {
            let since_ns = self.burst.map(|burst| burst.began_ns);
            self.burst = Some(Burst { began_ns: at_ns, since_ns, bytes_before: last });
            self.under_way = true;
        }
    }
}

impl Burst {
    fn rate(&self, bytes: u64) -> Option<Rate> {
        let window_ns = self.began_ns.checked_sub(self.since_ns?).filter(|ns| *ns > 0)?;
        let told = bytes.saturating_sub(self.bytes_before) as f64;
        let window = Duration::from_nanos(window_ns).as_secs_f64();
        Some(Rate { bytes_per_second: told / window, window_ns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn told(tracker: Tracker, sums: MachineSums) -> Told {
        let mut told = Told::default();
        told[tracker as usize] = sums;
        told
    }

    fn kvm(bytes: u64) -> Told {
        told(Tracker::Kvm, MachineSums { bytes, queries: [0, 0, 1, 0], ..MachineSums::default() })
    }

    #[test]
    fn what_was_told_before_the_session_is_not_of_it() {
        let mut trackers = Trackers::default();
        assert_eq!(trackers.account(Tracker::Kvm), None, "nothing is known of its beginning");
        trackers.begin(kvm(4096));
        trackers.read(kvm(12288), 5);
        let account = trackers.account(Tracker::Kvm).expect("it grew").account;
        assert_eq!((account.bytes, account.queries.bitmap), (8192, 0));
        let by_source = trackers.by_source([false, false, true]).expect("known");
        assert_eq!(by_source.keys().collect::<Vec<_>>(), ["kvm"]);
        trackers.read(kvm(0), 6);
        assert_eq!(trackers.by_source([false, false, true]), None, "it started anew");
    }

    #[test]
    fn two_that_told_the_same_pages_and_two_that_told_others_have_the_same_bounds() {
        let account = |bytes| MachineAccount {
            account: Account { bytes, ..Account::default() },
            ..MachineAccount::default()
        };
        let mut by_source = BySource::from([("kvm".into(), account(5))]);
        assert_eq!(Bounds::of(&by_source), Bounds { at_least_bytes: 5, at_most_bytes: 5 });
        by_source.insert("type1".into(), account(7));
        assert_eq!(Bounds::of(&by_source), Bounds { at_least_bytes: 7, at_most_bytes: 12 });
        by_source.insert("iommufd".into(), account(u64::MAX));
        assert_eq!(Bounds::of(&by_source).at_most_bytes, u64::MAX);
    }

    #[test]
    fn a_rate_is_what_a_burst_told_over_the_time_since_the_one_before() {
        let mut trackers = Trackers::default();
        trackers.begin(kvm(0));
        let readings =
            [(0, 0), (1, 1000), (2, 1000), (10, 1000), (11, 3000), (12, 4000), (13, 4000)];
        for (tenths, bytes) in readings {
            trackers.read(kvm(bytes), tenths * SECOND_NS / 10);
        }
        let rates: Vec<_> = trackers.rates().collect();
        let [(Source::Kvm, rate)] = rates[..] else { panic!("{rates:?}") };
        assert_eq!((rate.bytes_per_second, rate.window_ns), (3000.0, SECOND_NS));
    }

    #[test]
    fn a_burst_without_end_is_cut() {
        let mut trackers = Trackers::default();
        trackers.begin(kvm(0));
        for tenths in 0..100 {
            trackers.read(kvm(tenths * 100), tenths * SECOND_NS / 10);
        }
        let rates: Vec<_> = trackers.rates().map(|(_, rate)| rate.bytes_per_second).collect();
        assert_eq!(rates.len(), 1);
        assert!((900.0..=1100.0).contains(&rates[0]), "{rates:?}");
    }

    #[test]
    fn one_source_that_tells_nothing_apart_is_enough() {
        let mut trackers = Trackers::default();
        trackers.begin(Told::default());
        assert_eq!(trackers.tracking(), (Tracking::Unknown, 0));
        trackers.read(kvm(4096), 1);
        assert_eq!(trackers.tracking(), (Tracking::PerPage, 0));
        let mut both = kvm(4096);
        both[Tracker::Type1 as usize] =
            MachineSums { queries: [0, 2, 0, 0], all_bytes: 1 << 30, ..MachineSums::default() };
        trackers.read(both, 2);
        assert_eq!(trackers.tracking(), (Tracking::AllDirty, 1 << 30));
        // The same in a session that nobody asked in: it is of the one before.
        trackers.begin(both);
        assert_eq!(trackers.tracking(), (Tracking::Unknown, 0));
    }
}
