// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The states of a device as one number, which a state timeline shows with a name and a colour.
//!
//! The metric has a series for each state. A timeline wants one series for each device; so each state has a number here. They are
//! ours, and mean nothing outside of a panel. 0 is a device that nobody has open; an unknown state has no number and shows as a gap.

use super::field::{Colour, Words};
use super::query::of;

/// The states by their numbers, from 1.
pub(super) const STATES: [(&str, Colour); 8] = [
    ("running", Colour::Green),
    ("running_p2p", Colour::LightGreen),
    ("pre_copy", Colour::Blue),
    ("pre_copy_p2p", Colour::LightBlue),
    ("stop_and_copy", Colour::Orange),
    ("stopped", Colour::Yellow),
    ("resuming", Colour::Purple),
    ("error", Colour::Red),
];

/// The number of the state of each device.
pub(super) fn number(more: &str) -> String {
    let comma = if more.is_empty() { "" } else { ", " };
    let terms: Vec<String> = (1..)
        .zip(STATES)
        .map(|(number, (state, _))| {
            let state =
                of("vfio_migration_device_state", &format!(r#"state="{state}"{comma}{more}"#));
            format!("{number} * ({state} == 1)")
        })
        .collect();
    let none = of("vfio_migration_device_state", more);
    format!(
        "max by (job, instance, device) ({}) or (sum by (job, instance, device) ({none}) == 0)",
        terms.join(" or ")
    )
}

/// What the numbers stand for.
pub(super) fn words() -> Words {
    let states = (1..).zip(STATES).map(|(number, (state, colour))| (number, state, colour));
    Words::of(std::iter::once((0, "not open", Colour::Text)).chain(states))
}
