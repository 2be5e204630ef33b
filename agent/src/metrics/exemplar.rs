// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Exemplars: for a bucket of a histogram, the session that last fell into it. `/api/v1/sessions` has the rest of that session.
//!
//! The crate `prometheus` has no place for them in its families, so they travel beside. Only OpenMetrics can show them.

use std::{collections::BTreeMap, time::Duration};

/// One observation, by the session that it is of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Exemplar {
    /// Number of the session, as in `/api/v1/sessions`.
    pub(super) session: u64,
    /// What was observed.
    pub(super) value: Duration,
    /// When, since the Unix epoch; `None` where that is not known.
    pub(super) at: Option<Duration>,
}

/// Of one histogram: an exemplar for each bucket that has one, by the place of the bucket. The place after the last bound is `+Inf`.
pub(super) type ByBucket = BTreeMap<usize, Exemplar>;

/// Of all histograms, by the family's name and then by the values of the labels.
pub(super) type Exemplars = BTreeMap<&'static str, BTreeMap<Vec<String>, ByBucket>>;
