// SPDX-License-Identifier: Apache-2.0 OR MIT
//! For each reason a trace that has it, and one near it that has not.

use super::*;

/// A trace: what it is, the reason it is about, whether it has it, and how it comes about.
struct Case {
    what: &'static str,
    reason: Reason,
    holds: bool,
    run: fn(&mut Source) -> Assessment,
}

const fn case(
    what: &'static str,
    reason: Reason,
    holds: bool,
    run: fn(&mut Source) -> Assessment,
) -> Case {
    Case { what, reason, holds, run }
}

const LINK: f64 = GIB as f64;

const CASES: &[Case] = &[
    case("the device is in error", Reason::DeviceError, true, |source| {
        source.facts.device_error = true;
        source.run(2, 0.0)
    }),
    case("the device is well", Reason::DeviceError, false, |source| source.run(2, 0.0)),
    case("the size was refused", Reason::SizeQueryFailed, true, |source| {
        source.facts.size_query_failed = true;
        source.run(20, 0.01 * LINK)
    }),
    case("the size is not known, and nobody asked", Reason::SizeQueryFailed, false, |source| {
        source.stop_copy = None;
        source.run(20, 0.01 * LINK)
    }),
    case("all pages are dirty after each pass", Reason::NoDirtyTracking, true, |source| {
        source.facts.tracking = Tracking::AllDirty;
        source.run(10, f64::MAX)
    }),
    case("all pages are dirty, and fit", Reason::NoDirtyTracking, false, |source| {
        source.facts.tracking = Tracking::AllDirty;
        (source.memory, source.left) = (FITS * 9 / 10, FITS * 9 / 10);
        source.run(10, f64::MAX)
    }),
    case("all pages were dirtied, one by one", Reason::NoDirtyTracking, false, |source| {
        source.run(10, f64::MAX)
    }),
    case("the stop part does not fit", Reason::StopCopyAboveBudget, true, |source| {
        source.stop_copy = Some(FITS * 115 / 100);
        source.run(8, 0.0)
    }),
    case("the stop part just fits", Reason::StopCopyAboveBudget, false, |source| {
        source.stop_copy = Some(FITS * 95 / 100);
        source.run(8, 0.0)
    }),
    case("the same stop part in a longer downtime", Reason::StopCopyAboveBudget, false, |source| {
        source.stop_copy = Some(FITS * 115 / 100);
        source.facts.downtime_budget_ns = 400_000_000;
        source.run(8, 0.0)
    }),
    case("it would not fit while the link dips", Reason::StopCopyAboveBudget, false, |source| {
        source.stop_copy = Some(FITS * 9 / 10);
        source.run(4, 0.0);
        source.link /= 3;
        (0..5).for_each(|_| drop(source.step(0.0)));
        source.assess()
    }),
    case("it fits when a link that swings is fast", Reason::StopCopyAboveBudget, false, |source| {
        source.stop_copy = Some(FITS * 115 / 100);
        for tenth in 0..60 {
            source.link = GIB / 20 * if tenth % 4 < 2 { 17 } else { 23 };
            source.step(0.0);
        }
        source.assess()
    }),
    case("it would not fit by the first readings", Reason::StopCopyAboveBudget, false, |source| {
        source.stop_copy = Some(FITS * 9 / 10);
        source.link /= 2;
        source.run(1, 0.0)
    }),
    case("initial data stays", Reason::InitialBytesNotDrained, true, |source| {
        source.initial = Some(MIB);
        source.run(11, 0.0)
    }),
    case("initial data goes, slowly", Reason::InitialBytesNotDrained, false, |source| {
        for left in (1..=30).rev() {
            source.initial = Some(left * MIB);
            source.run(1, 0.0);
        }
        source.assess()
    }),
    case("initial data is gone", Reason::InitialBytesNotDrained, false, |source| {
        source.initial = Some(MIB);
        source.run(5, 0.0);
        source.initial = Some(0);
        source.run(30, 0.0)
    }),
    case("initial data begins anew", Reason::InitialBytesNotDrained, false, |source| {
        source.initial = Some(MIB);
        source.run(8, 0.0);
        source.initial = Some(2 * MIB);
        source.facts.reinits = 1;
        source.run(8, 0.0)
    }),
    case("dirtier than the link is fast", Reason::DirtyRateAboveThroughput, true, |source| {
        source.run(60, 1.2 * LINK)
    }),
    case("as dirty as the link is fast", Reason::DirtyRateAboveThroughput, true, |source| {
        source.run(60, LINK)
    }),
    case("dirty, but not so much", Reason::DirtyRateAboveThroughput, false, |source| {
        source.run(10, 0.8 * LINK)
    }),
    case("dirtier only for a while", Reason::DirtyRateAboveThroughput, false, |source| {
        source.run(30, 1.2 * LINK);
        source.run(10, 0.1 * LINK)
    }),
    case("the destination is busy and data waits", Reason::DestinationSlow, true, |source| {
        source.facts.destination = busy(95, Some(2 * FITS));
        source.run(5, 0.0)
    }),
    case("it is busy and nothing waits", Reason::DestinationSlow, false, |source| {
        source.facts.destination = busy(95, Some(FITS / 2));
        source.run(5, 0.0)
    }),
    case("data waits, and it is not busy", Reason::DestinationSlow, false, |source| {
        source.facts.destination = busy(60, Some(2 * FITS));
        source.run(5, 0.0)
    }),
    case("the destination is not seen", Reason::DestinationSlow, false, |source| {
        source.run(5, 0.0)
    }),
    case("nothing moves", Reason::NoProgress, true, |source| {
        source.run(2, 0.0);
        source.link = 0;
        source.run(11, 0.0)
    }),
    case("nothing moves for a moment", Reason::NoProgress, false, |source| {
        source.run(2, 0.0);
        source.link = 0;
        source.run(8, 0.0)
    }),
    case("nothing moves since nothing is left", Reason::NoProgress, false, |source| {
        source.run(30, 0.0)
    }),
    case("passes stay as they are", Reason::NoProgress, true, |source| source.run(60, LINK)),
    case("a first pass that takes minutes", Reason::NoProgress, false, |source| {
        (source.memory, source.left) = (200 * GIB, 200 * GIB);
        source.run(180, 0.5 * LINK)
    }),
    case("records were lost", Reason::AgentBlind, true, |source| {
        source.facts.blind = true;
        source.run(2, 0.0)
    }),
    case("nothing was lost", Reason::AgentBlind, false, |source| source.run(2, 0.0)),
];

fn busy(percent: u64, backlog_bytes: Option<u64>) -> Option<DestinationFacts> {
    Some(DestinationFacts { busy_ns: percent, window_ns: 100, backlog_bytes, load_ns: None })
}

#[test]
fn each_trace_has_its_reason_or_has_not() {
    for Case { what, reason, holds, run } in CASES {
        let assessment = run(&mut Source::new(4 * GIB, GIB));
        let found = assessment.blocked.contains(reason);
        assert_eq!(found, *holds, "{what}: {}, {:?}", reason.name(), assessment);
        assert!(assessment.blocked.is_sorted(), "{what}: {:?}", assessment.blocked);
    }
}

#[test]
fn each_reason_has_a_trace_that_has_it_and_one_that_has_not() {
    for reason in Reason::ALL {
        for wanted in [true, false] {
            let found = CASES.iter().any(|case| case.reason == reason && case.holds == wanted);
            assert!(found, "{}, {wanted}", reason.name());
        }
    }
}

#[test]
fn the_traces_near_them_have_no_other_reason_either() {
    for Case { what, reason, run, .. } in CASES.iter().filter(|case| !case.holds) {
        let others = run(&mut Source::new(4 * GIB, GIB)).blocked;
        let tells = *what == "all pages were dirtied, one by one";
        assert!(others.is_empty() || tells, "{what} ({}): {others:?}", reason.name());
    }
}

#[test]
fn several_hold_at_once_and_what_to_look_at_first_comes_first() {
    let mut source = Source::new(4 * GIB, GIB);
    source.facts.blind = true;
    source.facts.device_error = true;
    source.stop_copy = Some(2 * FITS);
    let assessment = source.run(60, 1.2 * LINK);
    assert_eq!(
        assessment.blocked,
        [
            Reason::DeviceError,
            Reason::StopCopyAboveBudget,
            Reason::DirtyRateAboveThroughput,
            Reason::NoProgress,
            Reason::AgentBlind
        ]
    );
    assert_eq!(assessment.verdict, Verdict::NotConverging);
}

#[test]
fn an_explanation_has_this_migrations_numbers() {
    let mut source = Source::new(4 * GIB, GIB);
    source.stop_copy = Some(600 * MIB);
    let said = source.run(8, 0.0).explain(Reason::StopCopyAboveBudget);
    assert!(said.starts_with("600.0 MiB must move after the device has stopped"), "{said}");
    assert!(said.contains("the 300 ms of downtime"), "{said}");

    let said =
        Source::new(4 * GIB, GIB).run(60, 1.2 * LINK).explain(Reason::DirtyRateAboveThroughput);
    assert!(said.contains("/s in windows of 4."), "{said}");
    for reason in Reason::ALL {
        let mut estimator = Estimator::default();
        estimator.observe(&Reading::unknown(0, Phase::PreCopy));
        let said = estimator.assess(&Facts::default()).unwrap().explain(reason);
        assert!(!said.is_empty() && !said.contains("NaN") && !said.contains("inf"), "{said}");
    }
}
