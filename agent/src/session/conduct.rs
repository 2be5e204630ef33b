// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was done against the protocol in a session: how often each rule was broken, and the first moments.
//!
//! Refusals come one by one. Rules of conduct are told at the 1st, 2nd, 4th, 8th … time and, if there were more, once more before
//! the session's end (`migscope_abi::ring::ConductRecord`); so while a session runs its counts may lag behind, by less than a half, and
//! when it has ended they are exact.

use crate::event::{Conduct, ConductCounts, Violation};
use migscope_abi::{rule::Rule, watch::conduct::Conduct as ConductRule};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap};

/// Moments kept of one session: the first ones say what went wrong first.
pub const MOMENTS: usize = 64;

/// The rules that were broken in a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations {
    /// How often the driver refused, by the rule's name.
    pub refusals: BTreeMap<&'static str, u64>,
    /// How often a rule of conduct was broken, by its name.
    pub conduct: BTreeMap<&'static str, u64>,
    /// The first moments, in their order.
    pub moments: Vec<Moment>,
    /// Moments that were told and are not kept.
    pub left_out: u64,
}

/// A moment at which a rule was broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// When, by `CLOCK_MONOTONIC` in nanoseconds.
    pub at_monotonic_ns: u64,
    /// The rule.
    pub rule: Cow<'static, str>,
    /// Who broke it, `client` or `driver`; `null` where that cannot be told from the rule.
    pub who: Option<Cow<'static, str>>,
    /// The device's state then; `null` if it was none.
    pub state: Option<Cow<'static, str>>,
    /// What was accessed; `null` if this agent does not know it.
    pub field: Option<Cow<'static, str>>,
    /// The register's value, or the state that was asked for; 0 for a window.
    pub value: u64,
}

impl Violations {
    /// Takes in a refusal.
    pub fn refused(&mut self, violation: &Violation) {
        let count = self.refusals.entry(violation.rule.name()).or_default();
        *count = count.saturating_add(1);
        self.push(Moment {
            at_monotonic_ns: violation.at_ns,
            rule: violation.rule.name().into(),
            who: is_clients(violation.rule).then_some("client".into()),
            state: Some(violation.state.name().into()),
            field: violation.field.map(|field| field.name().into()),
            value: violation.value,
        });
    }

    /// Takes in a broken rule of conduct.
    pub fn observed(&mut self, conduct: &Conduct) {
        self.at_least(conduct.rule, conduct.count);
        self.push(Moment {
            at_monotonic_ns: conduct.at_ns,
            rule: conduct.rule.name().into(),
            who: Some(conduct.rule.party().name().into()),
            state: conduct.state.map(|state| state.name().into()),
            field: conduct.field.map(|field| field.name().into()),
            value: conduct.value,
        });
    }

    /// Takes in the counts before the end.
    pub fn counted(&mut self, counts: &ConductCounts) {
        for (rule, count) in ConductRule::ALL.into_iter().zip(counts.counts) {
            if count > 0 {
                self.at_least(rule, count);
            }
        }
    }

    fn at_least(&mut self, rule: ConductRule, count: u64) {
        let known = self.conduct.entry(rule.name()).or_default();
        *known = count.max(*known);
    }

    fn push(&mut self, moment: Moment) {
        if self.moments.len() < MOMENTS {
            self.moments.push(moment);
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }
}

/// Whether the one who was refused could have known. The others are the fault of a device, of a host, or of whoever made an image.
fn is_clients(rule: Rule) -> bool {
    match rule {
        Rule::OutOfBounds
        | Rule::Misaligned
        | Rule::FieldWidth
        | Rule::ReadOnly
        | Rule::WriteOnly
        | Rule::ReservedBits
        | Rule::InvalidState
        | Rule::ForbiddenArc
        | Rule::DeviceInError
        | Rule::NotSaving
        | Rule::NotResuming
        | Rule::NotStaged
        | Rule::DataSize
        | Rule::PageSize
        | Rule::EmptyRange
        | Rule::RangeOverflow
        | Rule::QueryIncomplete
        | Rule::BadAddress => true,
        Rule::ImageMagic
        | Rule::ImageVersion
        | Rule::ImageDevice
        | Rule::ImageRecord
        | Rule::ImageChecksum
        | Rule::ImageIncomplete
        | Rule::DmaRange
        | Rule::DeviceStopped
        | Rule::QuiesceTimeout
        | Rule::NoIova
        | Rule::NotAttached
        | Rule::NoMemory
        | Rule::DeviceFailed => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_key::DeviceKey;
    use crate::state::State;
    use migscope_abi::region::Field;

    const DEVICE: DeviceKey = DeviceKey::pci(0, 0, 8);

    fn conduct(rule: ConductRule, count: u64) -> Conduct {
        Conduct {
            device: DEVICE,
            at_ns: count,
            rule,
            count,
            state: Some(State::StopAndCopy),
            field: Some(Field::DataSize),
            value: 0,
        }
    }

    fn refusal(rule: Rule) -> Violation {
        let (state, field) = (State::Running, Some(Field::Data));
        Violation { device: DEVICE, at_ns: 5, rule, state, field, value: 7 }
    }

    #[test]
    fn counts_come_with_the_records_and_are_whole_at_the_end() {
        let mut violations = Violations::default();
        for count in [1, 2, 4] {
            violations.observed(&conduct(ConductRule::QueryOrder, count));
        }
        assert_eq!(violations.conduct["query_order"], 4);
        let mut counts = [0; ConductRule::COUNT];
        counts[ConductRule::QueryOrder as usize - 1] = 7;
        violations.counted(&ConductCounts { device: DEVICE, counts });
        assert_eq!(violations.conduct, BTreeMap::from([("query_order", 7)]));
        assert_eq!(violations.moments.len(), 3);
    }

    #[test]
    fn a_moment_says_who_broke_what_where() {
        let mut violations = Violations::default();
        violations.observed(&conduct(ConductRule::PendingWithoutData, 1));
        violations.refused(&refusal(Rule::NotSaving));
        violations.refused(&refusal(Rule::DeviceFailed));
        let who: Vec<_> = violations.moments.iter().map(|m| (&*m.rule, m.who.as_deref())).collect();
        assert_eq!(
            who,
            [
                ("pending_without_data", Some("driver")),
                ("not_saving", Some("client")),
                ("device_failed", None)
            ]
        );
        let [first, second, _] = &violations.moments[..] else { panic!("three moments") };
        assert_eq!(
            (first.state.as_deref(), first.field.as_deref()),
            (Some("stop_and_copy"), Some("data_size"))
        );
        assert_eq!((second.at_monotonic_ns, second.value), (5, 7));
    }

    #[test]
    fn every_rule_is_in_the_runbook_with_who_breaks_it() {
        let page = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../dashboards/runbooks/VfioMigrationProtocolViolation.md"
        );
        let page = std::fs::read_to_string(page).expect("the page is there");
        for rule in ConductRule::ALL {
            let heading = format!("\n## `{}`\n\n**{:?}.** ", rule.name(), rule.party());
            assert_eq!(page.matches(&heading).count(), 1, "{heading}");
        }
        for rule in Rule::ALL {
            let row = format!("\n| `{}` | ", rule.name());
            assert_eq!(page.matches(&row).count(), 1, "{row}");
        }
        assert_eq!(page.matches("\n## ").count(), ConductRule::COUNT);
    }

    #[test]
    fn a_client_that_goes_on_and_on_fills_no_memory() {
        let mut violations = Violations::default();
        for _ in 0..1000 {
            violations.refused(&refusal(Rule::NotSaving));
        }
        assert_eq!(violations.refusals, BTreeMap::from([("not_saving", 1000)]));
        assert_eq!((violations.moments.len(), violations.left_out), (MOMENTS, 936));
    }
}
