// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Everything that is known at one moment, for those who look: `/api/v1/snapshot`, the live page and `migscope top`.
//!
//! It is one JSON object, written by the agent and read by `top`, so its parts own what they hold. Times are nanoseconds of
//! `CLOCK_MONOTONIC` of the agent's host; what is unknown is `null`.

use crate::{
    observer::{DeviceReport, Observer},
    probes::{attach::Missing, wanted},
    session::{machine::Migration, report::Report},
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// What is known at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// When, by the agent's clock.
    pub monotonic_ns: u64,
    /// The agent's version.
    pub version: Cow<'static, str>,
    /// The probes that have something to watch on this host, in their order.
    pub probes: Vec<Probe>,
    /// Records that did not reach the agent, since the probes were loaded; `null` where not all losses can be told.
    pub lost: Option<u64>,
    /// Devices that were seen.
    pub devices: Vec<DeviceReport>,
    /// Sessions under way and those that ended last, by their numbers.
    pub sessions: Vec<Report>,
    /// Migrations of whole machines, by their numbers.
    pub migrations: Vec<Migration>,
}

/// A probe and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What it watches.
    pub name: Cow<'static, str>,
    /// Whether it is attached.
    pub attached: bool,
    /// Why it is not.
    pub why: Option<String>,
    /// What would mend it.
    pub remedy: Option<String>,
}

impl Snapshot {
    /// What `observer` knows at `now_ns`.
    pub fn of(observer: &Observer, now_ns: u64) -> Self {
        let probe = |(event, attached): (migscope_abi::probe::Probe, &Result<(), Missing>)| {
            let missing = attached.as_ref().err();
            Probe {
                name: event.name().into(),
                attached: missing.is_none(),
                why: missing.map(|missing| missing.why.clone()),
                remedy: missing.map(|missing| missing.remedy.clone()),
            }
        };
        Self {
            monotonic_ns: now_ns,
            version: env!("CARGO_PKG_VERSION").into(),
            probes: wanted(observer.standing()).map(probe).collect(),
            lost: observer.losses_so_far().total(),
            devices: observer.device_reports(now_ns),
            sessions: observer.session_reports(now_ns),
            migrations: observer.migrations(),
        }
    }
}
