// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The feed: everything that the observer takes in, in the order in which it takes it in.
//!
//! ```text
//!   probes ──▶ sampler ──▶ ┌──────────┐
//!                          │ observer │ ──▶ what people see
//!   recording ──▶ play ──▶ └────┬─────┘
//!                               └──▶ tap ──▶ recording
//! ```
//!
//! What an observer was fed is all that it knows, for it has no clock and asks nobody. So a recording is the feed, written down, and
//! a report is made by playing it to another observer: what a report says of a migration is what the agent said when it happened.

use crate::device_key::DeviceKey;
use crate::{
    event::Event,
    metrics::Info,
    observer::Observer,
    probes::Standing,
    sample::{Losses, Sample},
};
use migscope_abi::ring::DeviceSums;
use std::collections::BTreeMap;

/// One thing that an observer took in.
#[derive(Clone, Debug)]
pub enum Input {
    /// Which probes there are: [`Observer::probes`].
    Probes(Standing),
    /// What was lost so far, and when that was read (`CLOCK_MONOTONIC`, nanoseconds): [`Observer::losses`].
    Losses(Losses, u64),
    /// The name of a device that has no address: [`Observer::named`].
    Named(String),
    /// Something was lost of which nobody kept count, before this moment: [`Observer::lose`].
    Lost(u64),
    /// A record: [`Observer::events`].
    Event(Event),
    /// All records up to this moment have been taken in: [`Observer::settled`].
    Settled(u64),
    /// What the probes had added up: [`Observer::sampled`].
    Sample(Sample),
    /// The sums of the devices alone, and when they were read (`CLOCK_MONOTONIC`, nanoseconds): [`Observer::sums_read`].
    Sums(u64, BTreeMap<DeviceKey, DeviceSums>),
    /// What a device is and who has it open: [`Observer::described`].
    Info(DeviceKey, Info),
}

impl Input {
    /// Plays it to `observer`.
    pub fn play(self, observer: &mut Observer) {
        match self {
            Self::Probes(standing) => observer.probes(standing),
            Self::Losses(losses, now_ns) => observer.losses(losses, now_ns),
            Self::Named(name) => observer.named(&name),
            Self::Lost(now_ns) => observer.lose(now_ns, "events were lost"),
            Self::Event(event) => observer.events(&[event]),
            Self::Settled(now_ns) => observer.settled(now_ns),
            Self::Sample(sample) => observer.sampled(&sample),
            Self::Sums(at_ns, devices) => observer.sums_read(at_ns, &devices),
            Self::Info(device, info) => observer.described(device, info),
        }
    }
}

/// Somebody who is given a copy of the feed. It must not block: the observer waits for it.
pub trait Tap: Send {
    /// Takes in what the observer takes in next.
    fn take(&mut self, input: &Input);
}

/// Where an observer learns what a device is and who has it open.
pub trait Describe: Send {
    /// What the device is; `tgid` is the process that last changed its state. `None` where there is nobody to ask.
    fn describe(&self, device: DeviceKey, tgid: Option<u32>) -> Option<Info>;

    /// Whether the device is still there. Unknown, and so `true`, where there is nobody to ask.
    fn is_present(&self, device: DeviceKey) -> bool;
}

/// Nobody to ask: for a feed that is played, which has the answers in it.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl Describe for Nobody {
    fn describe(&self, _device: DeviceKey, _tgid: Option<u32>) -> Option<Info> {
        None
    }

    fn is_present(&self, _device: DeviceKey) -> bool {
        true
    }
}
