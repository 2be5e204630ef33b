// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Inputs as records: the one place where a kind of record is made.
//!
//! To add one: a number in [`Kind`], and an arm in [`Kind::of`] (its number and time), [`Encoder::put`] and [`Decoder::take`]. The
//! compiler asks for the first and the last three. To add a field to one: write it behind the last, and read it only where the body
//! has more bytes: what an older recording does not say is unknown.

use super::{
    bytes::{Bad, Bytes, put, put_bytes, put_difference, put_length, put_text},
    event::{
        put_conduct, put_counts, put_machine, put_query, put_state, put_violation, take_conduct,
        take_counts, take_machine, take_query, take_state, take_violation,
    },
    sample::Chain,
    sums::{put_row, take_row},
};
use crate::device_key::DeviceKey;
use crate::{
    event::Event,
    feed::Input,
    metrics::Info,
    probes::{Standing, attach::Missing},
    sample::Losses,
};
use migscope_abi::{probe::Probe, ring::Lost};

/// What a record is. The numbers are a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Probes = 1,
    Losses = 2,
    Lost = 3,
    State = 4,
    DirtyQuery = 5,
    Violation = 6,
    Settled = 7,
    Sample = 8,
    Sums = 9,
    Info = 10,
    Conduct = 11,
    ConductCounts = 12,
    Named = 13,
    Machine = 14,
}

impl Kind {
    const ALL: [Self; 14] = [
        Self::Probes,
        Self::Losses,
        Self::Lost,
        Self::State,
        Self::DirtyQuery,
        Self::Violation,
        Self::Settled,
        Self::Sample,
        Self::Sums,
        Self::Info,
        Self::Conduct,
        Self::ConductCounts,
        Self::Named,
        Self::Machine,
    ];

    /// What an input is recorded as, and its moment, where it has one.
    fn of(input: &Input) -> (Self, Option<u64>) {
        match input {
            Input::Probes(_) => (Self::Probes, None),
            Input::Losses(_, at_ns) => (Self::Losses, Some(*at_ns)),
            Input::Lost(at_ns) => (Self::Lost, Some(*at_ns)),
            Input::Event(Event::State(change)) => (Self::State, Some(change.at_ns)),
            Input::Event(Event::DirtyQuery(query)) => (Self::DirtyQuery, Some(query.at_ns)),
            Input::Event(Event::Violation(violation)) => (Self::Violation, Some(violation.at_ns)),
            Input::Event(Event::Conduct(conduct)) => (Self::Conduct, Some(conduct.at_ns)),
            Input::Event(Event::ConductCounts(_)) => (Self::ConductCounts, None),
            Input::Event(Event::Machine(machine)) => (Self::Machine, Some(machine.at_ns)),
            Input::Settled(at_ns) => (Self::Settled, Some(*at_ns)),
            Input::Sample(sample) => (Self::Sample, Some(sample.at_ns)),
            Input::Sums(at_ns, _) => (Self::Sums, Some(*at_ns)),
            Input::Info(..) => (Self::Info, None),
            Input::Named(_) => (Self::Named, None),
        }
    }
}

/// The moment of an input (`CLOCK_MONOTONIC`, nanoseconds), where it has one.
pub(super) fn at_ns(input: &Input) -> Option<u64> {
    Kind::of(input).1
}

/// Makes records.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    chain: Chain,
    time_ns: u64,
}

impl Encoder {
    /// Begins a block.
    pub(super) fn begin(&mut self, base_ns: u64, key: bool) {
        self.time_ns = base_ns;
        if key {
            self.chain = Chain::default();
        }
    }

    /// Appends the record of an input.
    ///
    /// # Errors
    ///
    /// What the input has too much of; then nothing was appended, and sums need a key block.
    pub(super) fn put(&mut self, out: &mut Vec<u8>, input: &Input) -> Result<(), Bad> {
        let mut body = Vec::new();
        match input {
            Input::Probes(standing) => put_standing(&mut body, standing)?,
            Input::Losses(losses, _) => put_losses(&mut body, losses),
            Input::Lost(_) | Input::Settled(_) => {}
            Input::Event(Event::State(change)) => put_state(&mut body, change),
            Input::Event(Event::DirtyQuery(query)) => put_query(&mut body, query),
            Input::Event(Event::Violation(violation)) => put_violation(&mut body, violation),
            Input::Event(Event::Conduct(conduct)) => put_conduct(&mut body, conduct),
            Input::Event(Event::ConductCounts(counts)) => put_counts(&mut body, counts),
            Input::Event(Event::Machine(machine)) => put_machine(&mut body, machine),
            Input::Sample(sample) => self.chain.put(&mut body, sample)?,
            Input::Sums(_, devices) => self.chain.devices.put(&mut body, devices)?,
            Input::Info(device, info) => put_info(&mut body, *device, info)?,
            Input::Named(name) => put_text(&mut body, name)?,
        }
        let (kind, at_ns) = Kind::of(input);
        let at_ns = at_ns.unwrap_or(self.time_ns);
        put(out, kind as u64);
        put_difference(out, at_ns, self.time_ns);
        put_bytes(out, &body);
        self.time_ns = at_ns;
        Ok(())
    }
}

/// Reads records.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// `None` from the loss of a block to the next key block.
    chain: Option<Chain>,
    time_ns: u64,
}

impl Decoder {
    /// Begins a block.
    pub(super) fn begin(&mut self, base_ns: u64, key: bool) {
        self.time_ns = base_ns;
        if key {
            self.chain = Some(Chain::default());
        }
    }

    /// Something was lost: sums have no ground any more.
    pub(super) fn lose(&mut self) {
        self.chain = None;
    }

    /// The time of the last record.
    pub(super) fn time_ns(&self) -> u64 {
        self.time_ns
    }

    /// Reads the next record; `None` for one of a kind that only a newer migscope knows, and for sums that build on others which were
    /// lost.
    ///
    /// # Errors
    ///
    /// [`Bad`]: the rest of the block makes no sense either.
    pub(super) fn take(&mut self, payload: &mut Bytes<'_>) -> Result<Option<Input>, Bad> {
        let kind = payload.number()?;
        let at_ns = payload.after(self.time_ns)?;
        let length = payload.number()?;
        let mut body = Bytes(payload.take(length)?);
        self.time_ns = at_ns;
        let Some(kind) = Kind::ALL.into_iter().find(|known| *known as u64 == kind) else {
            return Ok(None);
        };
        let body = &mut body;
        let input = match kind {
            Kind::Probes => Input::Probes(take_standing(body)?),
            Kind::Losses => Input::Losses(take_losses(body)?, at_ns),
            Kind::Lost => Input::Lost(at_ns),
            Kind::State => Input::Event(Event::State(take_state(body, at_ns)?)),
            Kind::DirtyQuery => Input::Event(Event::DirtyQuery(take_query(body, at_ns)?)),
            Kind::Violation => Input::Event(Event::Violation(take_violation(body, at_ns)?)),
            Kind::Conduct => Input::Event(Event::Conduct(take_conduct(body, at_ns)?)),
            Kind::ConductCounts => Input::Event(Event::ConductCounts(take_counts(body)?)),
            Kind::Machine => Input::Event(Event::Machine(take_machine(body, at_ns)?)),
            Kind::Settled => Input::Settled(at_ns),
            Kind::Sample => match &mut self.chain {
                Some(chain) => Input::Sample(chain.take(body, at_ns)?),
                None => return Ok(None),
            },
            Kind::Sums => match &mut self.chain {
                Some(chain) => Input::Sums(at_ns, chain.devices.take(body)?),
                None => return Ok(None),
            },
            Kind::Named => Input::Named(body.text()?),
            Kind::Info => {
                let device = DeviceKey(body.number()?);
                Input::Info(device, take_info(body)?)
            }
        };
        Ok(Some(input))
    }
}

fn put_standing(out: &mut Vec<u8>, standing: &Standing) -> Result<(), Bad> {
    put_length(out, standing.len());
    for (event, attached) in standing {
        put(out, (*event as u32).into());
        match attached {
            Ok(()) => put(out, 0),
            Err(Missing { why, remedy, dormant }) => {
                put(out, if *dormant { 2 } else { 1 });
                put_text(out, why)?;
                put_text(out, remedy)?;
            }
        }
    }
    Ok(())
}

/// Probes that only a newer migscope has are left out.
fn take_standing(body: &mut Bytes<'_>) -> Result<Standing, Bad> {
    let mut standing = Standing::new();
    for _ in 0..body.length("probes", usize::from(u8::MAX))? {
        let number = body.number()?;
        let attached = match body.number()? {
            0 => Ok(()),
            2 => Err(Missing::new(body.text()?, body.text()?).dormant()),
            _ => Err(Missing::new(body.text()?, body.text()?)),
        };
        let event = Probe::ALL.into_iter().find(|known| *known as u64 == number);
        standing.extend(event.map(|event| (event, attached)));
    }
    Ok(standing)
}

fn put_losses(out: &mut Vec<u8>, losses: &Losses) {
    let Losses { told, skipped } = losses;
    put_row(out, told, &[0; Lost::COUNT]);
    put(out, u64::from(skipped.is_some()));
    if let Some(skipped) = skipped {
        put(out, *skipped);
    }
}

fn take_losses(body: &mut Bytes<'_>) -> Result<Losses, Bad> {
    let mut told = [0; Lost::COUNT];
    take_row(body, &mut told)?;
    let skipped = if body.number()? == 0 { None } else { Some(body.number()?) };
    Ok(Losses { told, skipped })
}

fn put_info(out: &mut Vec<u8>, device: DeviceKey, info: &Info) -> Result<(), Bad> {
    let Info { driver, iommu_group, vm, vm_uuid } = info;
    put(out, device.0);
    for text in [driver, iommu_group, vm, vm_uuid] {
        put_text(out, text)?;
    }
    Ok(())
}

fn take_info(body: &mut Bytes<'_>) -> Result<Info, Bad> {
    Ok(Info {
        driver: body.text()?,
        iommu_group: body.text()?,
        vm: body.text()?,
        vm_uuid: body.text()?,
    })
}
