// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One migration, read by read, and what each predictor said at the moments that count.

use crate::trace::{Outcome, Trace};
use migscope::convergence::{Assessment, Estimator, Phase, Prediction, Verdict};
use std::time::{Duration, Instant};

/// Shares of the whole time at which it is predicted.
pub(crate) const MOMENTS: [f64; 3] = [0.25, 0.5, 0.75];

/// Who predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Predictor {
    Migscope,
    Qemu,
    KubeVirt,
    Geometric,
}

impl Predictor {
    pub(crate) const ALL: [Self; 4] = [Self::Migscope, Self::Qemu, Self::KubeVirt, Self::Geometric];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Migscope => "migscope",
            Self::Qemu => "qemu",
            Self::KubeVirt => "kubevirt",
            Self::Geometric => "geometric",
        }
    }

    fn says(self, assessment: &Assessment) -> Prediction {
        match self {
            Self::Migscope => Prediction {
                remaining_ns: assessment.remaining.map(|remaining| remaining.expected_ns),
                downtime_ns: assessment.downtime.map(|downtime| downtime.expected_ns),
            },
            Self::Qemu => assessment.baselines.qemu,
            Self::KubeVirt => assessment.baselines.kubevirt,
            Self::Geometric => assessment.baselines.geometric,
        }
    }
}

/// What came of the replay of one migration. Errors are shares of the truth; `None` where there was no answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replayed {
    /// Error of the whole time, for each of [`MOMENTS`] and each predictor.
    pub(crate) total_errors: [[Option<f64>; 4]; 3],
    /// Error of the whole time at half-way of one who knows the simulation, in the order of [`Knows::ALL`](crate::simulate::Knows).
    pub(crate) oracle_errors: [Option<f64>; 2],
    /// Error of the time that was left then.
    pub(crate) remaining_errors: [[Option<f64>; 4]; 3],
    /// Whether the truth lay in the band, where there was one.
    pub(crate) in_band: [Option<bool>; 3],
    /// Error of the downtime at the last reading before the stop.
    pub(crate) downtime_errors: [Option<f64>; 4],
    /// The same in milliseconds.
    pub(crate) downtime_off_ms: [Option<f64>; 4],
    pub(crate) downtime_in_band: Option<bool>,
    /// When it was first said not to converge, in seconds from the first sync, or from the first reading if that came later.
    pub(crate) gave_up_s: Option<f64>,
    pub(crate) converged: bool,
    pub(crate) readings: u32,
    /// What observing alone took.
    pub(crate) observing: Duration,
    /// What assessing at each reading took.
    pub(crate) assessing: Duration,
}

/// Replays a migration.
pub(crate) fn replay(trace: &Trace) -> Replayed {
    let Outcome { converged, total_ns, downtime_ns } = trace.header.outcome;
    let mut result = Replayed { converged, ..Replayed::default() };
    let mut estimator = Estimator::default();
    let mut due = MOMENTS.into_iter().enumerate().peekable();
    let mut before_stop = None;
    let mut synced_ns = None;
    let Some(began_ns) = trace.readings.first().map(|reading| reading.at_ns) else {
        return result;
    };
    for reading in &trace.readings {
        let start = Instant::now();
        estimator.observe(reading);
        let observed = Instant::now();
        let assessment = estimator.assess(&trace.header.facts);
        result.observing += observed - start;
        result.assessing += observed.elapsed();
        result.readings += 1;
        let Some(assessment) = assessment else { continue };
        let gone_ns = reading.at_ns.saturating_sub(began_ns);
        if reading.iteration > 0 {
            synced_ns.get_or_insert(reading.at_ns);
        }
        if assessment.verdict == Verdict::NotConverging && result.gave_up_s.is_none() {
            let since_ns = synced_ns.unwrap_or(began_ns);
            result.gave_up_s = Some(reading.at_ns.saturating_sub(since_ns) as f64 / 1e9);
        }
        if let Some(total_ns) = total_ns
            && let Some((at, _)) =
                due.next_if(|(_, share)| gone_ns as f64 >= share * total_ns as f64)
        {
            totals(&mut result, at, &assessment, gone_ns, total_ns);
        }
        if reading.phase == Phase::PreCopy {
            before_stop = Some(assessment);
        }
    }
    if let (Some(assessment), Some(truth_ns)) = (before_stop, downtime_ns) {
        downtimes(&mut result, &assessment, truth_ns);
    }
    result
}

fn totals(result: &mut Replayed, at: usize, assessment: &Assessment, gone_ns: u64, total_ns: u64) {
    let left_ns = total_ns.saturating_sub(gone_ns);
    for (who, predictor) in Predictor::ALL.into_iter().enumerate() {
        let said = predictor.says(assessment).remaining_ns;
        let error = |truth_ns: u64| {
            said.map(|said_ns| said_ns.abs_diff(left_ns) as f64 / truth_ns.max(1) as f64)
        };
        result.total_errors[at][who] = error(total_ns);
        result.remaining_errors[at][who] = error(left_ns);
    }
    result.in_band[at] = assessment.remaining.map(|remaining| {
        let below = remaining.high_ns.is_none_or(|high_ns| left_ns <= high_ns);
        remaining.low_ns <= left_ns && below
    });
}

fn downtimes(result: &mut Replayed, assessment: &Assessment, truth_ns: u64) {
    for (who, predictor) in Predictor::ALL.into_iter().enumerate() {
        let off_ns =
            predictor.says(assessment).downtime_ns.map(|said_ns| said_ns.abs_diff(truth_ns));
        result.downtime_errors[who] = off_ns.map(|off| off as f64 / truth_ns.max(1) as f64);
        result.downtime_off_ms[who] = off_ns.map(|off| off as f64 / 1e6);
    }
    result.downtime_in_band = assessment
        .downtime
        .map(|downtime| (downtime.low_ns..=downtime.high_ns).contains(&truth_ns));
}

#[cfg(test)]
mod tests {
    use super::*;
    use migscope::convergence::{Facts, Reading};

    /// 10 s in which a tenth of a gigabyte moves in each tenth of a second.
    fn trace(outcome: Outcome) -> Trace {
        let readings = (0..100).map(|at| Reading {
            moved_bytes: Some(at * 100_000_000),
            remaining_bytes: Some((100 - at) * 100_000_000),
            ..Reading::unknown(at * 100_000_000, Phase::PreCopy)
        });
        Trace::new("even".to_owned(), Facts::default(), outcome, readings.collect())
    }

    #[test]
    fn errors_are_over_the_truth_and_at_their_moments() {
        let ended = Outcome {
            converged: true,
            total_ns: Some(10_000_000_000),
            downtime_ns: Some(50_000_000),
        };
        let replayed = replay(&trace(ended));
        assert_eq!(replayed.readings, 100);
        for (at, moment) in MOMENTS.into_iter().enumerate() {
            // KubeVirt's remaining over bandwidth is right here, but for the reading's tenth of a second.
            let kubevirt = replayed.total_errors[at][2].unwrap();
            assert!(kubevirt < 0.011, "{at}: {kubevirt}");
            let left = 1.0 - moment;
            assert!((replayed.remaining_errors[at][2].unwrap() - kubevirt / left).abs() < 1e-9);
            // Nobody told of a sync, so the geometric model has no answer.
            assert_eq!(replayed.total_errors[at][3], None);
        }
        // At the last reading 100 ms are left to move.
        assert!((replayed.downtime_off_ms[2].unwrap() - 50.0).abs() < 2.0);
        assert_eq!(replayed.downtime_errors[1], None);
        assert_eq!(replayed.gave_up_s, None);
    }

    #[test]
    fn one_that_did_not_end_has_no_errors() {
        let endless = Outcome { converged: false, total_ns: None, downtime_ns: None };
        let replayed = replay(&trace(endless));
        assert_eq!(replayed.total_errors, [[None; 4]; 3]);
        assert_eq!(replayed.downtime_errors, [None; 4]);
    }
}
