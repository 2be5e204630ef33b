// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Events in a recording. Each stands alone: its sums are written whole.

use super::{
    bytes::{Bad, Bytes, put, put_signed},
    sums::{put_row, put_sums, put_told, take_row, take_sums, take_told},
};
use crate::device_key::DeviceKey;
use crate::{
    dirty::Source,
    event::{Conduct, ConductCounts, DirtyQuery, Machine, StateChange, Violation},
    state::{Protocol, State},
};
use migscope_abi::{
    dirty::Outcome, region::Field, rule::Rule, state::Cause, watch::conduct::Conduct as ConductRule,
};

/// The number of a state in a recording, which is a contract. 0 is no state.
fn state_number(state: State) -> u64 {
    match state {
        State::Stopped => 1,
        State::Running => 2,
        State::StopAndCopy => 3,
        State::PreCopy => 4,
        State::Resuming => 5,
        State::RunningP2p => 6,
        State::PreCopyP2p => 7,
        State::Error => 8,
    }
}

fn maybe_state(bytes: &mut Bytes<'_>) -> Result<Option<State>, Bad> {
    let number = bytes.number()?;
    if number == 0 {
        return Ok(None);
    }
    let state = State::ALL.into_iter().find(|state| state_number(*state) == number);
    state.map(Some).ok_or(Bad::Name("state", number))
}

fn state(bytes: &mut Bytes<'_>) -> Result<State, Bad> {
    maybe_state(bytes)?.ok_or(Bad::Name("state", 0))
}

/// The number of a protocol in a recording, which is a contract.
fn protocol_number(protocol: Protocol) -> u64 {
    match protocol {
        Protocol::Region => 1,
        Protocol::V2 => 2,
    }
}

fn protocol(bytes: &mut Bytes<'_>) -> Result<Protocol, Bad> {
    let number = bytes.number()?;
    let known = [Protocol::Region, Protocol::V2];
    let found = known.into_iter().find(|protocol| protocol_number(*protocol) == number);
    found.ok_or(Bad::Name("protocol", number))
}

/// The number of a source in a recording, which is a contract.
fn source_number(source: Source) -> u64 {
    match source {
        Source::Region => 1,
        Source::DmaLogging => 2,
        Source::Type1 => 3,
        Source::Iommufd => 4,
        Source::Kvm => 5,
    }
}

/// Who answered a query. Recordings of before there were others end here.
fn source(bytes: &mut Bytes<'_>) -> Result<Source, Bad> {
    if bytes.is_empty() {
        return Ok(Source::Region);
    }
    let number = bytes.number()?;
    let found = Source::ALL.into_iter().find(|source| source_number(*source) == number);
    found.ok_or(Bad::Name("source", number))
}

/// What the ABI names by a number of its own.
fn named<T: TryFrom<u32, Error = u32>>(
    bytes: &mut Bytes<'_>,
    what: &'static str,
) -> Result<T, Bad> {
    let number = bytes.small(what)?;
    T::try_from(number).map_err(|number| Bad::Name(what, number.into()))
}

pub(super) fn put_state(out: &mut Vec<u8>, change: &StateChange) {
    // Its time stands in the frame of the record, as that of the others does.
    let StateChange {
        device,
        at_ns: _,
        tgid,
        protocol,
        from,
        requested,
        now,
        cause,
        duration_ns,
        result,
        sums,
    } = change;
    put(out, device.0);
    put(out, (*tgid).into());
    put(out, protocol_number(*protocol));
    put(out, state_number(*from));
    put(out, requested.map_or(0, state_number));
    put(out, state_number(*now));
    put(out, (*cause as u32).into());
    put(out, *duration_ns);
    put_signed(out, (*result).into());
    put(out, u64::from(sums.is_some()));
    if let Some(sums) = sums {
        put_sums(out, sums);
    }
}

pub(super) fn take_state(bytes: &mut Bytes<'_>, at_ns: u64) -> Result<StateChange, Bad> {
    Ok(StateChange {
        device: DeviceKey(bytes.number()?),
        at_ns,
        tgid: bytes.small("process")?,
        protocol: protocol(bytes)?,
        from: state(bytes)?,
        requested: maybe_state(bytes)?,
        now: state(bytes)?,
        cause: named::<Cause>(bytes, "cause")?,
        duration_ns: bytes.number()?,
        result: {
            let result = bytes.signed()?;
            result.try_into().map_err(|_large| Bad::Name("result", result.cast_unsigned()))?
        },
        sums: if bytes.number()? == 0 { None } else { Some(take_sums(bytes)?) },
    })
}

pub(super) fn put_query(out: &mut Vec<u8>, query: &DirtyQuery) {
    let DirtyQuery {
        device,
        source,
        at_ns: _,
        start_bytes,
        range_bytes,
        dirty_bytes,
        outcome,
        duration_ns,
    } = query;
    put(out, device.0);
    put(out, *start_bytes);
    put(out, *range_bytes);
    put(out, *dirty_bytes);
    put(out, (*outcome as u32).into());
    put(out, *duration_ns);
    put(out, source_number(*source));
}

pub(super) fn take_query(bytes: &mut Bytes<'_>, at_ns: u64) -> Result<DirtyQuery, Bad> {
    let query = DirtyQuery {
        device: DeviceKey(bytes.number()?),
        source: Source::Region,
        at_ns,
        start_bytes: bytes.number()?,
        range_bytes: bytes.number()?,
        dirty_bytes: bytes.number()?,
        outcome: named::<Outcome>(bytes, "outcome")?,
        duration_ns: bytes.number()?,
    };
    Ok(DirtyQuery { source: source(bytes)?, ..query })
}

pub(super) fn put_violation(out: &mut Vec<u8>, violation: &Violation) {
    let Violation { device, at_ns: _, rule, state, field, value } = violation;
    put(out, device.0);
    put(out, (*rule as u32).into());
    put(out, state_number(*state));
    put_field(out, *field);
    put(out, *value);
}

pub(super) fn take_violation(bytes: &mut Bytes<'_>, at_ns: u64) -> Result<Violation, Bad> {
    Ok(Violation {
        device: DeviceKey(bytes.number()?),
        at_ns,
        rule: named::<Rule>(bytes, "rule")?,
        state: state(bytes)?,
        // Recordings of before the watch end here.
        field: if bytes.is_empty() { None } else { maybe_field(bytes)? },
        value: if bytes.is_empty() { 0 } else { bytes.number()? },
    })
}

/// 0 is no field, or one of a newer driver.
fn put_field(out: &mut Vec<u8>, field: Option<Field>) {
    put(out, field.map_or(0, |field| u64::from(field as u32) + 1));
}

fn maybe_field(bytes: &mut Bytes<'_>) -> Result<Option<Field>, Bad> {
    let number = bytes.number()?;
    Ok(Field::ALL.into_iter().find(|field| u64::from(*field as u32) + 1 == number))
}

pub(super) fn put_conduct(out: &mut Vec<u8>, conduct: &Conduct) {
    let Conduct { device, at_ns: _, rule, count, state, field, value } = conduct;
    put(out, device.0);
    put(out, (*rule as u32).into());
    put(out, *count);
    put(out, state.map_or(0, state_number));
    put_field(out, *field);
    put(out, *value);
}

pub(super) fn take_conduct(bytes: &mut Bytes<'_>, at_ns: u64) -> Result<Conduct, Bad> {
    Ok(Conduct {
        device: DeviceKey(bytes.number()?),
        at_ns,
        rule: named::<ConductRule>(bytes, "rule of conduct")?,
        count: bytes.number()?,
        state: maybe_state(bytes)?,
        field: maybe_field(bytes)?,
        value: bytes.number()?,
    })
}

pub(super) fn put_counts(out: &mut Vec<u8>, counts: &ConductCounts) {
    let ConductCounts { device, counts } = counts;
    put(out, device.0);
    put_row(out, counts, &[0; ConductRule::COUNT]);
}

pub(super) fn take_counts(bytes: &mut Bytes<'_>) -> Result<ConductCounts, Bad> {
    let device = DeviceKey(bytes.number()?);
    let mut counts = [0; ConductRule::COUNT];
    take_row(bytes, &mut counts)?;
    Ok(ConductCounts { device, counts })
}

pub(super) fn put_machine(out: &mut Vec<u8>, machine: &Machine) {
    let Machine { device, at_ns: _, tgid, told } = machine;
    put(out, device.0);
    put(out, (*tgid).into());
    put_told(out, told);
}

pub(super) fn take_machine(bytes: &mut Bytes<'_>, at_ns: u64) -> Result<Machine, Bad> {
    Ok(Machine {
        device: DeviceKey(bytes.number()?),
        at_ns,
        tgid: bytes.small("process")?,
        told: take_told(bytes)?,
    })
}
