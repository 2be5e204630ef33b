// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The probes of the agent that runs, as the kernel has them: what they cost, and how to run them without the driver.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use migscope_abi::probe::Probe;

use super::bpf::{self, Cost, Place, Program};
use super::records::Record;

/// Room for the records of a migration, in bytes.
const PLACE_BYTES: usize = 16 << 10;

/// The programs on our driver's tracepoints: those whose records can be made up.
fn ours() -> impl Iterator<Item = Probe> {
    Probe::ALL.into_iter().filter(|probe| probe.is_of_our_driver())
}

/// One program for each tracepoint.
pub(super) struct Programs(BTreeMap<Probe, Program>);

impl Programs {
    /// The newest of this kind that have these names. Those of an agent that has just ended may be there still.
    pub(super) fn find(kind: u32, name: impl Fn(Probe) -> String) -> Result<Self> {
        let mut found = BTreeMap::new();
        let programs = bpf::programs().context("failed to list the kernel's BPF programs")?;
        let names: Vec<_> = programs.iter().map(|program| program.name.clone()).collect();
        for program in programs.into_iter().filter(|program| program.kind == kind) {
            if let Some(event) = ours().find(|event| name(*event) == program.name) {
                found.insert(event, program);
            }
        }
        for event in ours() {
            found.get(&event).with_context(|| {
                format!("no program is named {}; there are {names:?}", name(event))
            })?;
        }
        Ok(Self(found))
    }

    /// The agent's.
    pub(super) fn of_the_agent() -> Result<Self> {
        Self::find(bpf::RAW_TRACEPOINT, |event| event.name().to_owned())
    }

    /// What each has cost so far.
    pub(super) fn costs(&self) -> Result<BTreeMap<Probe, Cost>> {
        let costs = self.0.iter().map(|(event, program)| Ok((*event, program.cost()?)));
        costs.collect::<std::io::Result<_>>().context("failed to ask for the programs' run time")
    }
}

/// What stands in for the driver: it gives the probes records that it makes up.
///
/// Everything behind the records is real: the programs, their maps and ring, and the agent that reads them. The driver's lock, under
/// which it emits the records of a device, is kept by there being one thread that plays.
pub(super) struct Player {
    programs: Programs,
    place: Place,
}

impl Player {
    /// For the probes of the agent that runs.
    pub(super) fn new() -> Result<Self> {
        let place = Place::new(PLACE_BYTES).context("no place for records in the kernel")?;
        Ok(Self { programs: Programs::of_the_agent()?, place })
    }

    /// What the probes have cost so far.
    pub(super) fn costs(&self) -> Result<BTreeMap<Probe, Cost>> {
        self.programs.costs()
    }

    /// Gives the probes these records, which have to fit into the place together.
    pub(super) fn play(&self, records: &[Record]) -> Result<()> {
        let bytes: Vec<u8> = records.iter().flat_map(|record| &record.bytes).copied().collect();
        let mut address = self.place.put(&bytes).context("failed to place records")?;
        for Record { event, bytes } in records {
            let program = self.programs.0.get(event).context("the program is gone")?;
            program.run(address).with_context(|| format!("failed to run {}", event.name()))?;
            address += u64::try_from(bytes.len()).context("a record is short")?;
        }
        Ok(())
    }
}
