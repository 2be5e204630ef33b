// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Records of the ring, from bytes to what they mean.
//!
//! What comes out of the ring was written by our own probes from what the driver said, and still it is checked: a driver of
//! another version is a mistake that happens, and a value that is none must not become a wrong number.

use crate::device_key::DeviceKey;
use crate::dirty::{Source, Told};
use crate::state::{Protocol, State, is_closed, told_by};
use migscope_abi::{
    dirty::Outcome,
    machine::MachineRecord,
    region::Field,
    ring::{
        ConductCounts as ConductCountsRecord, ConductRecord, DeviceSums, DirtyQueryRecord,
        ErrorRecord, Header, Kind, MigStateRecord, StateRecord,
    },
    rule::Rule,
    state::{Cause, State as RegionState},
    v2::{MigState, NO_STATE},
    watch::conduct::Conduct as ConductRule,
};
use zerocopy::FromBytes;

/// Something that happened to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its state changed, or was asked to change and did not.
    State(StateChange),
    /// It was asked for dirty pages.
    DirtyQuery(DirtyQuery),
    /// It refused something.
    Violation(Violation),
    /// A rule of conduct was broken.
    Conduct(Conduct),
    /// How often rules of conduct were broken in the session that may end now.
    ConductCounts(ConductCounts),
    /// What was told of dirty pages of the machine that changes the device's state now.
    Machine(Machine),
}

impl Event {
    /// The kind of record that told it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::State(_) => Kind::State,
            Self::DirtyQuery(_) => Kind::DirtyQuery,
            Self::Violation(_) => Kind::Error,
            Self::Conduct(_) => Kind::Conduct,
            Self::ConductCounts(_) => Kind::ConductCounts,
            Self::Machine(_) => Kind::Machine,
        }
    }
}

/// A change of state, or a refused one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// Which device.
    pub device: DeviceKey,
    /// `CLOCK_MONOTONIC` when the change was over, in nanoseconds.
    pub at_ns: u64,
    /// Process that was running.
    pub tgid: u32,
    /// By which protocol the device migrates.
    pub protocol: Protocol,
    /// The state before.
    pub from: State,
    /// What was asked for; `None` for what is no state at all.
    pub requested: Option<State>,
    /// The state after: `from`, when refused.
    pub now: State,
    /// What moved the device.
    pub cause: Cause,
    /// How long the change took, in nanoseconds.
    pub duration_ns: u64,
    /// 0, or a negative errno.
    pub result: i32,
    /// The device's sums at that moment; unknown when the probes had no room for them.
    pub sums: Option<DeviceSums>,
}

impl Event {
    /// Which device it happened to.
    pub fn device(&self) -> DeviceKey {
        match self {
            Self::State(change) => change.device,
            Self::DirtyQuery(query) => query.device,
            Self::Violation(violation) => violation.device,
            Self::Conduct(conduct) => conduct.device,
            Self::ConductCounts(counts) => counts.device,
            Self::Machine(machine) => machine.device,
        }
    }

    /// It happened to this device: records name it as the probes do.
    pub fn set_device(&mut self, device: DeviceKey) {
        match self {
            Self::State(change) => change.device = device,
            Self::DirtyQuery(query) => query.device = device,
            Self::Violation(violation) => violation.device = device,
            Self::Conduct(conduct) => conduct.device = device,
            Self::ConductCounts(counts) => counts.device = device,
            Self::Machine(machine) => machine.device = device,
        }
    }
}

impl StateChange {
    /// Whether the driver refused it.
    pub fn refused(&self) -> bool {
        self.result < 0
    }

    /// `CLOCK_MONOTONIC` when the change began, in nanoseconds.
    pub fn began_ns(&self) -> u64 {
        self.at_ns.saturating_sub(self.duration_ns)
    }

    /// The name of the state that was asked for, or `invalid`.
    pub fn requested_name(&self) -> &'static str {
        self.requested.map_or("invalid", State::name)
    }
}

/// An answered query for dirty pages. What all queries reported is in the device's sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirtyQuery {
    /// Which device.
    pub device: DeviceKey,
    /// Who answered.
    pub source: Source,
    /// `CLOCK_MONOTONIC` when it was answered, in nanoseconds.
    pub at_ns: u64,
    /// First address of the range that was asked for, in bytes.
    pub start_bytes: u64,
    /// Length of that range, in bytes.
    pub range_bytes: u64,
    /// How much of it was reported dirty, in bytes.
    pub dirty_bytes: u64,
    /// How it was answered.
    pub outcome: Outcome,
    /// How long the driver took, in nanoseconds.
    pub duration_ns: u64,
}

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which device.
    pub device: DeviceKey,
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub at_ns: u64,
    /// The rule that was broken.
    pub rule: Rule,
    /// The device's state, which did not change.
    pub state: State,
    /// What was accessed; `None` for a field of a newer driver.
    pub field: Option<Field>,
    /// The value that was written; 0 for a read.
    pub value: u64,
}

/// A rule of conduct that was broken. Not every time has an event, see [`ConductRecord`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conduct {
    /// Which device.
    pub device: DeviceKey,
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub at_ns: u64,
    /// The rule that was broken.
    pub rule: ConductRule,
    /// How often it was broken in this session, this time included.
    pub count: u64,
    /// The device's state after it; `None` for what is no state, which a driver may accept.
    pub state: Option<State>,
    /// What was accessed; `None` for a field of a newer driver.
    pub field: Option<Field>,
    /// The register's value, read or written, or the state that was asked for; 0 for a window and for a refused access.
    pub value: u64,
}

/// How often each rule of conduct was broken since the session began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConductCounts {
    /// Which device.
    pub device: DeviceKey,
    /// The counts, by [`ConductRule::index`].
    pub counts: [u64; ConductRule::COUNT],
}

/// What all trackers had told a machine when it changed the state of a device: it comes before that change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Which device.
    pub device: DeviceKey,
    /// `CLOCK_MONOTONIC`, in nanoseconds.
    pub at_ns: u64,
    /// The machine's process.
    pub tgid: u32,
    /// What was told.
    pub told: Told,
}

/// A record that cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// It ends too early.
    #[error("a record of {0} bytes is too short")]
    Short(usize),
    /// This agent knows no such kind.
    #[error("{0} is no kind of record")]
    Kind(u32),
    /// A number that names no state.
    #[error("{0} is no device state")]
    State(u32),
    /// A number that names no cause.
    #[error("{0} is no cause of a state change")]
    Cause(u32),
    /// A number that names no outcome.
    #[error("{0} is no outcome of a dirty query")]
    Outcome(u32),
    /// A number that names no rule.
    #[error("{0} is no rule")]
    Rule(u32),
    /// A number that names no rule of conduct.
    #[error("{0} is no rule of conduct")]
    Conduct(u32),
}

/// Reads one record. Bytes past the end of what this agent knows are new fields, which it leaves alone.
///
/// # Errors
///
/// [`BadRecord`] says which value was not understood.
pub fn parse(bytes: &[u8]) -> Result<Event, BadRecord> {
    let header: Header = prefix(bytes)?;
    match Kind::try_from(header.kind).map_err(BadRecord::Kind)? {
        Kind::State => state_change(&prefix(bytes)?).map(Event::State),
        Kind::MigState => mig_state_change(&prefix(bytes)?).map(Event::State),
        Kind::DirtyQuery => dirty_query(&prefix(bytes)?, Source::Region).map(Event::DirtyQuery),
        Kind::DmaLoggingReport => {
            dirty_query(&prefix(bytes)?, Source::DmaLogging).map(Event::DirtyQuery)
        }
        Kind::Error => violation(&prefix(bytes)?).map(Event::Violation),
        Kind::Conduct => conduct(&prefix(bytes)?).map(Event::Conduct),
        Kind::ConductCounts => {
            let ConductCountsRecord { device, counts, .. } = prefix(bytes)?;
            Ok(Event::ConductCounts(ConductCounts { device: DeviceKey(device), counts }))
        }
        Kind::Machine => {
            let MachineRecord { header, device, sums: told } = prefix(bytes)?;
            let Header { monotonic_ns: at_ns, tgid, .. } = header;
            Ok(Event::Machine(Machine { device: DeviceKey(device), at_ns, tgid, told }))
        }
    }
}

fn prefix<T: FromBytes>(bytes: &[u8]) -> Result<T, BadRecord> {
    match T::read_from_prefix(bytes) {
        Ok((record, _)) => Ok(record),
        Err(_) => Err(BadRecord::Short(bytes.len())),
    }
}

fn state_change(record: &StateRecord) -> Result<StateChange, BadRecord> {
    let StateRecord { header, event, sums } = record;
    let now = region_state(event.now)?;
    let cause = Cause::try_from(event.cause).map_err(BadRecord::Cause)?;
    // The probe writes the state into the sums before it copies them; without room for the sums it copies others.
    let sums_hold = match cause {
        Cause::Close => is_closed(sums),
        _ => told_by(sums) == Some((now, Protocol::Region)),
    };
    Ok(StateChange {
        device: DeviceKey(event.device),
        at_ns: header.monotonic_ns,
        tgid: header.tgid,
        protocol: Protocol::Region,
        // Of a device that is seen from outside nobody may have told what was before: this is the first that is known.
        from: if event.from == NO_STATE { now } else { region_state(event.from)? },
        requested: region_state(event.requested).ok(),
        now,
        cause,
        duration_ns: event.duration_ns,
        result: event.result,
        sums: sums_hold.then_some(*sums),
    })
}

fn mig_state_change(record: &MigStateRecord) -> Result<StateChange, BadRecord> {
    let MigStateRecord {
        header,
        device,
        duration_ns,
        from,
        requested,
        now,
        cause,
        result,
        steps: _,
        sums,
    } = record;
    let state = |number| MigState::try_from(number).map(State::from).map_err(BadRecord::State);
    let now = state(*now)?;
    let cause = Cause::try_from(*cause).map_err(BadRecord::Cause)?;
    let sums_hold = match cause {
        Cause::Close => is_closed(sums),
        _ => told_by(sums).is_some_and(|(told, _)| told == now),
    };
    Ok(StateChange {
        device: DeviceKey(*device),
        at_ns: header.monotonic_ns,
        tgid: header.tgid,
        protocol: Protocol::V2,
        // Where nobody has told what was before, this is the first that is known.
        from: state(*from).unwrap_or(now),
        requested: state(*requested).ok(),
        now,
        cause,
        duration_ns: *duration_ns,
        result: *result,
        sums: sums_hold.then_some(*sums),
    })
}

fn region_state(number: u32) -> Result<State, BadRecord> {
    RegionState::try_from(number).map(State::from).map_err(BadRecord::State)
}

fn dirty_query(record: &DirtyQueryRecord, source: Source) -> Result<DirtyQuery, BadRecord> {
    let DirtyQueryRecord { header, event } = record;
    Ok(DirtyQuery {
        device: DeviceKey(event.device),
        source,
        at_ns: header.monotonic_ns,
        start_bytes: event.start_pfn.saturating_mul(event.page_bytes),
        range_bytes: event.total_pfns.saturating_mul(event.page_bytes),
        dirty_bytes: event.dirty_pages.saturating_mul(event.page_bytes),
        outcome: Outcome::try_from(event.outcome).map_err(BadRecord::Outcome)?,
        duration_ns: event.duration_ns,
    })
}

fn violation(record: &ErrorRecord) -> Result<Violation, BadRecord> {
    let ErrorRecord { header, event } = record;
    Ok(Violation {
        device: DeviceKey(event.device),
        at_ns: header.monotonic_ns,
        rule: Rule::try_from(event.rule).map_err(BadRecord::Rule)?,
        state: region_state(event.state)?,
        field: Field::try_from(event.field).ok(),
        value: event.value,
    })
}

fn conduct(record: &ConductRecord) -> Result<Conduct, BadRecord> {
    Ok(Conduct {
        device: DeviceKey(record.device),
        at_ns: record.header.monotonic_ns,
        rule: ConductRule::try_from(record.rule).map_err(BadRecord::Conduct)?,
        count: record.count,
        state: region_state(record.state).ok(),
        field: Field::try_from(record.field).ok(),
        value: record.value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use migscope_abi::{
        machine::{MachineSums, Tracker},
        outside::{CLOSED, StateWord},
        ring::{STATE_CLOSED, STATE_UNKNOWN},
        trace,
    };
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    fn record() -> StateRecord {
        StateRecord {
            header: Header { monotonic_ns: 5_000, kind: Kind::State as u32, tgid: 42 },
            event: trace::State {
                device: DeviceKey::pci(0, 0, 3 << 3).0,
                duration_ns: 1_000,
                from: State::Running as u32,
                requested: State::PreCopy as u32,
                now: State::PreCopy as u32,
                cause: Cause::Write as u32,
                result: 0,
                reserved: 0,
            },
            sums: DeviceSums { state: 3, dirty_pages: 7, ..DeviceSums::default() },
        }
    }

    fn state_change(record: &StateRecord) -> StateChange {
        let Ok(Event::State(change)) = parse(record.as_bytes()) else { panic!("{record:?}") };
        change
    }

    #[test]
    fn a_state_record_is_read_whole() {
        let change = state_change(&record());
        assert_eq!(change.device.to_string(), "0000:00:03.0");
        assert_eq!((change.from, change.now), (State::Running, State::PreCopy));
        assert_eq!((change.began_ns(), change.at_ns), (4_000, 5_000));
        assert_eq!(change.sums.map(|sums| sums.dirty_pages), Some(7));
    }

    #[test]
    fn sums_that_the_probes_had_no_room_for_are_unknown_and_not_zero() {
        let mut record = record();
        record.sums = DeviceSums { state: STATE_UNKNOWN, ..DeviceSums::default() };
        assert_eq!(state_change(&record).sums, None);
    }

    #[test]
    fn the_sums_of_a_close_say_that_it_is_closed() {
        let mut record = record();
        record.event.cause = Cause::Close as u32;
        record.sums.state = STATE_CLOSED;
        assert!(state_change(&record).sums.is_some());
    }

    #[test]
    fn a_device_that_is_seen_from_outside_may_come_from_nowhere() {
        let mut record = record();
        record.event.from = NO_STATE;
        record.sums.state = StateWord { state: 3, unseen: 2 }.word();
        let change = state_change(&record);
        assert_eq!((change.from, change.now), (State::PreCopy, State::PreCopy));
        assert!(change.sums.is_some());
        record.event.cause = Cause::Close as u32;
        assert_eq!(state_change(&record).sums, None, "these are of before");
        record.sums.state = StateWord { state: CLOSED, unseen: 2 }.word();
        assert!(state_change(&record).sums.is_some());
    }

    #[test]
    fn a_request_for_no_state_is_kept_and_called_invalid() {
        let mut record = record();
        record.event.requested = 0xdead;
        assert_eq!(state_change(&record).requested_name(), "invalid");
    }

    #[test]
    fn what_is_not_known_is_named() {
        let mut bad = record();
        bad.header.kind = 99;
        assert_eq!(parse(bad.as_bytes()), Err(BadRecord::Kind(99)));
        let mut bad = record();
        bad.event.now = 5;
        assert_eq!(parse(bad.as_bytes()), Err(BadRecord::State(5)));
        let mut bad = record();
        bad.event.cause = 77;
        assert_eq!(parse(bad.as_bytes()), Err(BadRecord::Cause(77)));
    }

    #[test]
    fn a_broken_rule_of_conduct_is_read_whole_and_one_that_is_none_is_named() {
        let mut record = ConductRecord {
            header: Header { monotonic_ns: 7, kind: Kind::Conduct as u32, tgid: 1 },
            device: 3,
            offset: 0x18,
            value: 9,
            count: 4,
            rule: ConductRule::PendingWithoutData as u32,
            state: 5,
            field: Field::DataSize as u32,
            op: 0,
        };
        let Ok(Event::Conduct(conduct)) = parse(record.as_bytes()) else { panic!("{record:?}") };
        assert_eq!((conduct.rule, conduct.count), (ConductRule::PendingWithoutData, 4));
        assert_eq!((conduct.state, conduct.field), (None, Some(Field::DataSize)));
        record.rule = 0;
        assert_eq!(parse(record.as_bytes()), Err(BadRecord::Conduct(0)));
    }

    #[test]
    fn what_a_machine_was_told_keeps_its_places() {
        let sums = |pages| MachineSums { pages, ..MachineSums::default() };
        let record = MachineRecord {
            header: Header { monotonic_ns: 9, kind: Kind::Machine as u32, tgid: 77 },
            device: 3,
            sums: [sums(1), sums(2), sums(3)],
        };
        let Ok(Event::Machine(machine)) = parse(record.as_bytes()) else { panic!("{record:?}") };
        assert_eq!((machine.at_ns, machine.tgid), (9, 77));
        let pages = Tracker::ALL.map(|tracker| machine.told[tracker as usize].pages);
        assert_eq!(pages, [1, 2, 3]);
    }

    #[test]
    fn a_longer_record_is_one_of_a_newer_probe() {
        let mut bytes = record().as_bytes().to_vec();
        bytes.extend([0xff; 24]);
        assert_eq!(parse(&bytes), parse(record().as_bytes()));
    }

    proptest! {
        #[test]
        fn every_truncation_is_told(length in 0_usize..size_of::<StateRecord>()) {
            prop_assert_eq!(parse(&record().as_bytes()[..length]), Err(BadRecord::Short(length)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_bytes_behind_a_good_head_make_it_panic(
            kind in 1_u32..=8,
            tail in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let header = Header { monotonic_ns: 1, kind, tgid: 1 };
            let mut bytes = header.as_bytes().to_vec();
            bytes.extend(tail);
            let _ = parse(&bytes);
        }
    }
}
