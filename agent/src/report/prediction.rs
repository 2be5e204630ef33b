// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was foretold of a session while it ran, beside what came.
//!
//! While the recording is played, the observer says of each source what it said when it happened. Only the truth beside it is known
//! afterwards.

use super::play::Foretold;
use crate::{
    convergence::{Assessment, Reason, Verdict},
    session::{End, Role, Session},
};
use serde::Serialize;

/// Predictions of one source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// What was foretold at each moment.
    pub said: Vec<Said>,
    /// When the session was completed; `null` if it was not.
    pub completed_ns: Option<u64>,
    /// What was foretold at half of the session.
    pub half_way: Option<Said>,
    /// What stood in the way, by the reason's name.
    pub blocked: Vec<Blocked>,
}

/// What was foretold at one moment: times until the end of the session, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Said {
    /// When.
    pub at_ns: u64,
    /// Whether it was said to converge.
    pub verdict: Verdict,
    /// What was expected.
    pub expected_ns: Option<u64>,
    /// Lower end of the band.
    pub low_ns: Option<u64>,
    /// Upper end of the band.
    pub high_ns: Option<u64>,
    /// What QEMU's formula says.
    pub qemu_ns: Option<u64>,
    /// What KubeVirt's formula says.
    pub kubevirt_ns: Option<u64>,
    /// What the geometric model says.
    pub geometric_ns: Option<u64>,
    /// What it was.
    pub truth_ns: Option<u64>,
}

impl Said {
    /// How far off it was, as a share of the whole time of the session.
    pub fn error(&self, said_ns: Option<u64>, whole_ns: u64) -> Option<f64> {
        let (said_ns, truth_ns) = said_ns.zip(self.truth_ns)?;
        (whole_ns > 0).then(|| said_ns.abs_diff(truth_ns) as f64 / whole_ns as f64)
    }
}

/// An error for people: a share of the whole time in percent, or how many times the whole.
pub(super) fn shown_error(share: f64) -> String {
    if share < 2.0 {
        format!("off by {:.0} % of the whole", share * 100.0)
    } else {
        format!("off by {share:.0} times the whole")
    }
}

/// A reason that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Blocked {
    /// The reason, as in the label `reason`.
    pub reason: &'static str,
    /// When it was first seen.
    pub first_ns: u64,
    /// When it was last seen.
    pub last_ns: u64,
    /// The reason in a sentence, with the numbers of the last time.
    pub why: String,
}

/// Least assessments of which there is something to show.
const LEAST_ASSESSMENTS: usize = 4;

/// What was foretold of `session`; `None` of a destination, and where there is too little to foretell from.
pub(super) fn predict(session: &Session, foretold: &Foretold) -> Option<Prediction> {
    if session.role != Role::Source || foretold.iter().count() < LEAST_ASSESSMENTS {
        return None;
    }
    let completed_ns = match session.end {
        Some((End::Completed, at_ns)) => Some(at_ns),
        _ => None,
    };
    let mut said = Vec::new();
    let mut blocked: Vec<Blocked> = Vec::new();
    // What was said at the end itself foretells nothing any more.
    let before_end = foretold
        .iter()
        .filter(|assessment| completed_ns.is_none_or(|end_ns| assessment.at_ns < end_ns));
    for assessment in before_end {
        said.push(said_by(assessment, completed_ns));
        for reason in &assessment.blocked {
            note(&mut blocked, *reason, assessment);
        }
    }
    if said.iter().all(|said| said.expected_ns.is_none()) && blocked.is_empty() {
        return None;
    }
    let half_way = completed_ns.and_then(|end_ns| {
        let half_ns = session.began_ns.saturating_add(end_ns.saturating_sub(session.began_ns) / 2);
        said.iter().copied().find(|said| said.at_ns >= half_ns)
    });
    Some(Prediction { said, completed_ns, half_way, blocked })
}

fn said_by(assessment: &Assessment, completed_ns: Option<u64>) -> Said {
    let remaining = assessment.remaining;
    Said {
        at_ns: assessment.at_ns,
        verdict: assessment.verdict,
        expected_ns: remaining.map(|remaining| remaining.expected_ns),
        low_ns: remaining.map(|remaining| remaining.low_ns),
        high_ns: remaining.and_then(|remaining| remaining.high_ns),
        qemu_ns: assessment.baselines.qemu.remaining_ns,
        kubevirt_ns: assessment.baselines.kubevirt.remaining_ns,
        geometric_ns: assessment.baselines.geometric.remaining_ns,
        truth_ns: completed_ns.map(|end_ns| end_ns.saturating_sub(assessment.at_ns)),
    }
}

fn note(blocked: &mut Vec<Blocked>, reason: Reason, assessment: &Assessment) {
    let (at_ns, why) = (assessment.at_ns, assessment.explain(reason));
    match blocked.iter_mut().find(|seen| seen.reason == reason.name()) {
        Some(seen) => (seen.last_ns, seen.why) = (at_ns, why),
        None => {
            blocked.push(Blocked { reason: reason.name(), first_ns: at_ns, last_ns: at_ns, why });
        }
    }
}
