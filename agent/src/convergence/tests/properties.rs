// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What holds for any readings, however absurd.

use super::*;
use proptest::prelude::*;
use proptest::sample::select;

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 0..8 * GIB,
        1 => select(vec![0, 1, u64::MAX, u64::MAX - 1, 1 << 63]),
        1 => any::<u64>(),
    ]
}

fn maybe() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![4 => number().prop_map(Some), 1 => Just(None)]
}

prop_compose! {
    fn reading()(
        at_ns in prop_oneof![4 => 0..200 * TENTH_NS, 1 => number()],
        phase in select(vec![Phase::PreCopy, Phase::PreCopy, Phase::PreCopy, Phase::Stopped]),
        numbers in (maybe(), maybe(), maybe(), maybe(), maybe(), maybe()),
        iteration in prop_oneof![4 => 0_u64..20, 1 => number()],
        busy_ns in maybe(),
        empty_answers in prop_oneof![4 => 0_u64..20, 1 => number()],
    ) -> Reading {
        let (moved_bytes, remaining_bytes, stop_copy_bytes, initial_bytes, dirtied_bytes, last_sync_bytes) = numbers;
        Reading {
            at_ns, phase, moved_bytes, remaining_bytes, stop_copy_bytes, initial_bytes, dirtied_bytes, last_sync_bytes, iteration,
            busy_ns, empty_answers,
        }
    }
}

prop_compose! {
    fn facts()(
        flags in any::<[bool; 3]>(),
        tracking in select(vec![Tracking::PerPage, Tracking::AllDirty, Tracking::Unknown]),
        seen in proptest::option::of((number(), number(), maybe(), maybe())),
        transitions_ns in maybe(),
        downtime_budget_ns in number(),
        reinits in number(),
    ) -> Facts {
        let [size_query_failed, device_error, blind] = flags;
        let destination = seen.map(|(busy_ns, window_ns, backlog_bytes, load_ns)| {
            DestinationFacts { busy_ns, window_ns, backlog_bytes, load_ns }
        });
        Facts {
            size_query_failed, tracking, device_error, blind, destination, transitions_ns, downtime_budget_ns, reinits,
        }
    }
}

/// Finite and not negative, in their order; JSON has no other numbers, and would write `null`.
fn sound(assessment: &Assessment) -> Result<(), TestCaseError> {
    let rates = [assessment.throughput, assessment.dirty].into_iter().flatten();
    for number in rates.map(|rate| rate.bytes_per_second).chain(assessment.ratio) {
        prop_assert!(number.is_finite() && number >= 0.0, "{assessment:?}");
    }
    if let Some(Remaining { expected_ns, low_ns, high_ns, .. }) = assessment.remaining {
        prop_assert!(low_ns <= expected_ns, "{assessment:?}");
        prop_assert!(high_ns.is_none_or(|high_ns| expected_ns <= high_ns), "{assessment:?}");
    }
    if let Some(Downtime { expected_ns, low_ns, high_ns, .. }) = assessment.downtime {
        prop_assert!(low_ns <= expected_ns && expected_ns <= high_ns, "{assessment:?}");
    }
    prop_assert!(
        assessment.evidence.destination_busy.is_none_or(|share| (0.0..=1.0).contains(&share))
    );
    prop_assert!(assessment.blocked.is_sorted());
    for reason in Reason::ALL {
        let said = assessment.explain(reason);
        prop_assert!(!said.contains("NaN") && !said.contains("inf"), "{said}");
    }
    Ok(())
}

proptest! {
    #[test]
    fn whatever_is_read_nothing_panics_and_every_number_is_one(
        readings in proptest::collection::vec(reading(), 1..60),
        facts in facts(),
    ) {
        let mut estimator = Estimator::default();
        for reading in &readings {
            estimator.observe(reading);
            let assessment = estimator.assess(&facts);
            prop_assert!(assessment.is_some());
            if let Some(assessment) = assessment {
                sound(&assessment)?;
            }
        }
    }

    #[test]
    fn readings_in_order_are_sound_too(
        mut readings in proptest::collection::vec(reading(), 1..60),
        facts in facts(),
    ) {
        readings.sort_by_key(|reading| reading.at_ns);
        let mut moved: Vec<_> = readings.iter().map(|reading| reading.moved_bytes).collect();
        moved.sort_unstable();
        let mut estimator = Estimator::default();
        for (reading, (moved, at)) in readings.iter().zip(moved.into_iter().zip(0..)) {
            estimator.observe(&Reading { moved_bytes: moved, iteration: at / 3, ..reading.clone() });
            if let Some(assessment) = estimator.assess(&facts) {
                sound(&assessment)?;
            }
        }
    }

    #[test]
    fn a_faster_link_is_never_said_to_take_longer(
        memory in GIB..16 * GIB,
        link in 64 * MIB..GIB,
        ratio in 0.0_f64..0.8,
        at in 1_u64..60,
    ) {
        let left = |factor: u64| {
            let mut source = Source::new(memory, link * factor);
            // The same share of the first pass, so that the two stand where the same bytes are left.
            let pass = memory as f64 / (link * factor) as f64;
            let steps = nanoseconds(pass * at as f64 / 60.0 / 1e9 * 10.0).max(3);
            (0..steps).for_each(|_| drop(source.step(ratio * link as f64)));
            source.assess().remaining.map(|remaining| remaining.expected_ns)
        };
        let (slow, fast) = (left(1), left(4));
        prop_assert!(slow.is_some() && fast.is_some());
        prop_assert!(fast <= slow, "{fast:?} {slow:?}");
    }

    #[test]
    fn what_is_not_known_is_not_made_up(moved in number(), at in 1_u64..50) {
        let mut estimator = Estimator::default();
        for step in 0..=at {
            let moved_bytes = Some(moved.saturating_add(step * MIB));
            estimator.observe(&Reading { moved_bytes, ..Reading::unknown(step * TENTH_NS, Phase::PreCopy) });
        }
        let assessment = estimator.assess(&Facts::default());
        prop_assert!(assessment.is_some());
        if let Some(assessment) = assessment {
            prop_assert_eq!(assessment.remaining, None);
            prop_assert_eq!(assessment.downtime, None);
            prop_assert_eq!(assessment.dirty, None);
            prop_assert_eq!(assessment.verdict, Verdict::Unknown);
        }
    }
}
