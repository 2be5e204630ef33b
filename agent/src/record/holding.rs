// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What holds now, so that a file which begins in the middle of a recording stands alone.
//!
//! ```text
//!   … FILE.1: probes, state: pre_copy, sums, sums │ FILE: probes, losses, devices, state: pre_copy, lost, sums, then what comes
//! ```
//!
//! A session under way begins in the new file as it began in the one before: with the records of its changes of state, and with them the
//! sums that its figures are counted from. But what else happened in it is in the file before, so the new file says that something is
//! lost: the session is shown with its beginning and its figures, and not as exact.

use crate::device_key::DeviceKey;
use crate::{
    event::Event,
    feed::Input,
    metrics::Info,
    probes::Standing,
    sample::Losses,
    session::{Coverage, Tracker},
};
use migscope_abi::ring::DeviceSums;
use std::collections::BTreeMap;

use super::input::at_ns;

/// What holds.
#[derive(Debug, Default)]
pub(super) struct Holding {
    standing: Option<Standing>,
    losses: Option<(Losses, u64)>,
    devices: BTreeMap<DeviceKey, Held>,
    latest_ns: u64,
}

#[derive(Debug, Default)]
struct Held {
    info: Option<Info>,
    sums: Option<DeviceSums>,
    tracker: Tracker,
}

impl Holding {
    /// Takes in what comes next.
    pub(super) fn take(&mut self, input: &Input) {
        self.latest_ns = self.latest_ns.max(at_ns(input).unwrap_or(0));
        match input {
            Input::Probes(standing) => self.standing = Some(standing.clone()),
            Input::Losses(losses, at_ns) => self.losses = Some((*losses, *at_ns)),
            Input::Event(Event::State(change)) => {
                let held = self.devices.entry(change.device).or_default();
                held.sums = change.sums.or(held.sums);
                // Numbers of sessions are not recorded; the one who plays the recording gives them.
                let _ended = held.tracker.advance(change, &mut 1, Coverage::default());
            }
            Input::Sample(sample) => {
                // Devices that were retired are in no sample any more.
                self.devices.retain(|device, held| {
                    held.tracker.current().is_some() || sample.devices.contains_key(device)
                });
                self.summed(&sample.devices);
            }
            Input::Sums(_, devices) => self.summed(devices),
            Input::Info(device, info) => {
                self.devices.entry(*device).or_default().info = Some(info.clone());
            }
            // A loss that was told before is in the file before. The events that are no change of state leave nothing that holds.
            Input::Lost(_)
            | Input::Named(_)
            | Input::Settled(_)
            | Input::Event(
                Event::DirtyQuery(_)
                | Event::Violation(_)
                | Event::Conduct(_)
                | Event::ConductCounts(_)
                | Event::Machine(_),
            ) => {}
        }
    }

    fn summed(&mut self, devices: &BTreeMap<DeviceKey, DeviceSums>) {
        for (device, sums) in devices {
            self.devices.entry(*device).or_default().sums = Some(*sums);
        }
    }

    /// The inputs with which a new file begins.
    pub(super) fn inputs(&self) -> Vec<Input> {
        let mut inputs = Vec::new();
        inputs.extend(self.standing.clone().map(Input::Probes));
        inputs.extend(self.losses.map(|(losses, at_ns)| Input::Losses(losses, at_ns)));
        for (device, held) in &self.devices {
            if device.is_named() && device.is_known() {
                inputs.push(Input::Named(device.to_string()));
            }
            inputs.extend(held.info.clone().map(|info| Input::Info(*device, info)));
        }
        let under_way = self.devices.values().filter_map(|held| held.tracker.current());
        let changes = under_way.flat_map(|session| &session.transitions);
        let before = inputs.len();
        inputs.extend(changes.map(|change| Input::Event(Event::State(change.clone()))));
        if inputs.len() > before {
            inputs.push(Input::Lost(self.latest_ns));
        }
        let sums: BTreeMap<_, _> =
            self.devices.iter().filter_map(|(device, held)| Some((*device, held.sums?))).collect();
        if !sums.is_empty() {
            inputs.push(Input::Sums(self.latest_ns, sums));
        }
        inputs
    }
}
