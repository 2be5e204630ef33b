// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The states of a device, of all migration protocols.
//!
//! ```text
//!   region protocol                       VFIO v2 adds
//!   stopped  running  pre_copy            running_p2p    running, but starts no peer-to-peer DMA
//!   stop_and_copy  resuming  error        pre_copy_p2p   the same while state is saved
//! ```
//!
//! What a protocol calls a state is its own; what migscope calls it is the same for all (`enum vfio_device_mig_state` in
//! `include/uapi/linux/vfio.h`, without the prefix; `STOP` is `stopped`, `STOP_COPY` is `stop_and_copy`).

use migscope_abi::{
    outside::{CLOSED, StateWord},
    ring::{DeviceSums, Left, STATE_CLOSED, STATE_CLOSED_V2, STATE_V2},
    state as region,
    v2::MigState,
};
use serde::{Deserialize, Serialize};

/// A state that a device can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Neither runs nor migrates.
    Stopped,
    /// Runs; the state after open and after reset.
    Running,
    /// Stands still while the rest of its state is saved.
    StopAndCopy,
    /// Runs while state is saved.
    PreCopy,
    /// Takes state in.
    Resuming,
    /// Runs, but starts no DMA to another device.
    RunningP2p,
    /// Runs while state is saved, but starts no DMA to another device.
    PreCopyP2p,
    /// The device's state is lost; only a reset leaves it.
    Error,
}

impl State {
    /// How many states there are.
    pub const COUNT: usize = 8;
    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Stopped,
        Self::Running,
        Self::StopAndCopy,
        Self::PreCopy,
        Self::Resuming,
        Self::RunningP2p,
        Self::PreCopyP2p,
        Self::Error,
    ];

    /// The value of the label `state`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Running => "running",
            Self::StopAndCopy => "stop_and_copy",
            Self::PreCopy => "pre_copy",
            Self::Resuming => "resuming",
            Self::RunningP2p => "running_p2p",
            Self::PreCopyP2p => "pre_copy_p2p",
            Self::Error => "error",
        }
    }

    /// Whether the machine that the device belongs to runs with it. In the P2P states the device runs, but a VMM enters them only
    /// once its vCPUs stand (QEMU, `vfio_vmstate_change_prepare`): they belong to the downtime.
    pub const fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::PreCopy)
    }

    /// Whether state is being saved.
    pub const fn is_saving(self) -> bool {
        matches!(self, Self::PreCopy | Self::PreCopyP2p | Self::StopAndCopy)
    }
}

impl From<region::State> for State {
    fn from(state: region::State) -> Self {
        match state {
            region::State::Stopped => Self::Stopped,
            region::State::Running => Self::Running,
            region::State::StopAndCopy => Self::StopAndCopy,
            region::State::PreCopy => Self::PreCopy,
            region::State::Resuming => Self::Resuming,
            region::State::Error => Self::Error,
        }
    }
}

impl From<MigState> for State {
    fn from(state: MigState) -> Self {
        match state {
            MigState::Error => Self::Error,
            MigState::Stop => Self::Stopped,
            MigState::Running => Self::Running,
            MigState::StopCopy => Self::StopAndCopy,
            MigState::Resuming => Self::Resuming,
            MigState::RunningP2p => Self::RunningP2p,
            MigState::PreCopy => Self::PreCopy,
            MigState::PreCopyP2p => Self::PreCopyP2p,
        }
    }
}

/// The state that the sums of a device tell, with the protocol that they tell it in; `None` where they tell none.
pub fn told_by(sums: &DeviceSums) -> Option<(State, Protocol)> {
    let number = |number: u64| u32::try_from(number).ok();
    if let Some(word) = StateWord::of(sums.state) {
        return Some((region::State::try_from(word.state).ok()?.into(), Protocol::Region));
    }
    match sums.state.checked_sub(STATE_V2) {
        None => {
            let state = region::State::try_from(number(sums.state)?).ok()?;
            Some((state.into(), Protocol::Region))
        }
        Some(state) => {
            let state = MigState::try_from(number(state)?).ok()?;
            Some((state.into(), Protocol::V2))
        }
    }
}

/// Whether they tell that nobody has the device open.
pub fn is_closed(sums: &DeviceSums) -> bool {
    matches!(sums.state, STATE_CLOSED | STATE_CLOSED_V2)
        || StateWord::of(sums.state).is_some_and(|word| word.state == CLOSED)
}

/// How a device is seen, which decides what can be known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// By our driver's tracepoints.
    Tracepoints,
    /// By what its user does with its migration region.
    Outside,
    /// By what its user does by the v2 protocol.
    V2,
}

impl Seen {
    /// How the device of these sums is seen.
    pub fn of(sums: &DeviceSums) -> Self {
        match protocol_of(sums) {
            Protocol::V2 => Self::V2,
            Protocol::Region if StateWord::of(sums.state).is_some() => Self::Outside,
            Protocol::Region => Self::Tracepoints,
        }
    }
}

/// How many bitmaps of dirty pages nobody was seen to read, up to 255: while there were none, all dirty pages are known.
pub fn unseen_bitmaps(sums: &DeviceSums) -> u8 {
    StateWord::of(sums.state).map_or(0, |word| word.unseen)
}

/// By which protocol the device of these sums migrates, as far as they tell.
pub fn protocol_of(sums: &DeviceSums) -> Protocol {
    // What only a device of the v2 protocol tells stays, also where an older record says of a closed one no more than that.
    let told_sizes = sums.left != Left::NONE;
    // With or without a state that is known.
    let is_v2 = sums.state >> 32 == STATE_V2 >> 32 || sums.state == STATE_CLOSED_V2;
    told_by(sums).map_or(
        if told_sizes || is_v2 { Protocol::V2 } else { Protocol::Region },
        |(_, protocol)| protocol,
    )
}

/// By which protocol a device migrates.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// The migration region (RFC of 2019, Linux 5.8 to 5.17).
    #[default]
    Region,
    /// `VFIO_DEVICE_FEATURE_MIGRATION` (Linux 5.18 and later).
    V2,
}

impl Protocol {
    /// The value of the label `protocol`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Region => "region",
            Self::V2 => "v2",
        }
    }

    /// The states that a device of this protocol can be in.
    pub fn states(self) -> impl Iterator<Item = State> {
        State::ALL.into_iter().filter(move |state| match state {
            State::RunningP2p | State::PreCopyP2p => self == Self::V2,
            _ => true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migscope_abi::{outside::STATE_OUTSIDE, ring::STATE_UNKNOWN, v2::NO_STATE};

    #[test]
    fn sums_tell_a_state_in_the_numbers_of_its_protocol() {
        let told = |state| told_by(&DeviceSums { state, ..DeviceSums::default() });
        assert_eq!(told(2), Some((State::StopAndCopy, Protocol::Region)));
        assert_eq!(told(STATE_V2 | 2), Some((State::Running, Protocol::V2)));
        for nothing in [
            5,
            STATE_V2 - 1,
            STATE_V2 | 8,
            STATE_V2 | u64::from(NO_STATE),
            STATE_CLOSED,
            STATE_CLOSED_V2,
            STATE_UNKNOWN,
        ] {
            assert_eq!(told(nothing), None, "{nothing:x}");
        }
    }

    #[test]
    fn sums_say_how_a_device_is_seen() {
        let seen = |state| Seen::of(&DeviceSums { state, ..DeviceSums::default() });
        let outside = |state, unseen| StateWord { state, unseen }.word();
        assert_eq!(seen(2), Seen::Tracepoints);
        assert_eq!(seen(STATE_CLOSED), Seen::Tracepoints);
        assert_eq!(seen(STATE_UNKNOWN), Seen::Tracepoints);
        assert_eq!(seen(STATE_V2 | 2), Seen::V2);
        assert_eq!(seen(STATE_V2 | u64::from(NO_STATE)), Seen::V2, "its DMA is logged");
        assert_eq!(seen(STATE_CLOSED_V2), Seen::V2);
        assert!(is_closed(&DeviceSums { state: STATE_CLOSED_V2, ..DeviceSums::default() }));
        for (state, told) in
            [(3, Some(State::PreCopy)), (NO_STATE, None), (CLOSED, None), (5, None)]
        {
            for unseen in [0, 1, 255] {
                let sums = DeviceSums { state: outside(state, unseen), ..DeviceSums::default() };
                assert_eq!(Seen::of(&sums), Seen::Outside, "{state}");
                assert_eq!(told_by(&sums), told.map(|told| (told, Protocol::Region)), "{state}");
                assert_eq!(is_closed(&sums), state == CLOSED);
                assert_eq!(unseen_bitmaps(&sums), unseen);
            }
        }
        assert_eq!(seen(STATE_OUTSIDE | 1 << 48), Seen::Tracepoints, "no such word");
    }

    #[test]
    fn the_region_protocol_and_migscope_call_a_state_the_same() {
        for state in region::State::ALL {
            let ours = State::from(state);
            assert_eq!(ours.name(), state.name());
            assert_eq!(ours.is_running(), state.is_running());
            assert_eq!(ours.is_saving(), state.is_saving());
            assert!(Protocol::Region.states().any(|offered| offered == ours));
        }
        assert_eq!(Protocol::Region.states().count(), region::State::COUNT);
        assert_eq!(Protocol::V2.states().count(), State::COUNT);
    }
}
