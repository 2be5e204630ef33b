// SPDX-License-Identifier: Apache-2.0 OR MIT
//! All families of the agent: registered with the registry for scrapes, and kept here for what goes through all of them.

use super::{
    description::{Description, Kind, Label, Values},
    exemplar::Exemplars,
    family::{About, Numbers},
};
use crate::latency::Latency;
use prometheus::Registry;

/// A family, whatever the number of its labels and the type of its values.
pub(super) trait Kept: Send + Sync {
    /// What it is.
    fn description(&self) -> &Description;
    /// How many series it has; a histogram is one.
    fn series(&self) -> usize;
    /// Drops the series of a device; says how many there were.
    fn evict(&self, device: &str) -> usize;
    /// Adds the examples that its observations came from.
    fn exemplars(&self, _into: &mut Exemplars) {}
    /// Its distributions, by the values of their labels.
    fn latencies(&self) -> Vec<(Vec<String>, Latency)> {
        Vec::new()
    }
}

/// All families.
pub(super) struct Catalog {
    registry: Registry,
    area: &'static str,
    families: Vec<Box<dyn Kept>>,
    refused: Numbers<1>,
}

impl Catalog {
    pub(super) fn new(registry: Registry) -> Self {
        let about = About {
            name: "migscope_series_refused_total",
            help: "Updates of series that would have been one more than their family may have.",
            labels: [Label { name: "family", values: Values::Families }],
            absent: "while nothing was refused",
        };
        let area = "The agent itself";
        let refused = Numbers::unregistered(about.described(area, Kind::Counter), None);
        let mut catalog = Self { registry, area, families: Vec::new(), refused: refused.clone() };
        catalog.keep(refused);
        catalog
    }

    /// What the families that are registered from now on are about.
    pub(super) fn area(&mut self, area: &'static str) -> &mut Self {
        self.area = area;
        self
    }

    /// The area of a new family, and the family that counts what it refuses.
    pub(super) fn place(&self) -> (&'static str, Numbers<1>) {
        (self.area, self.refused.clone())
    }

    /// Registers a family.
    pub(super) fn keep(
        &mut self,
        family: impl Kept + prometheus::core::Collector + Clone + 'static,
    ) {
        self.registry
            .register(Box::new(family.clone()))
            .expect("each family of this crate has a name of its own");
        self.families.push(Box::new(family));
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What the families are, in the order of their registration.
    pub(super) fn descriptions(&self) -> impl Iterator<Item = &Description> {
        self.families.iter().map(|family| family.description())
    }

    /// How many series each family has.
    pub(super) fn series(&self) -> impl Iterator<Item = (&Description, usize)> {
        self.families.iter().map(|family| (family.description(), family.series()))
    }

    /// Drops the series of a device in all families; says how many there were.
    pub(super) fn evict(&self, device: &str) -> usize {
        self.families.iter().map(|family| family.evict(device)).sum()
    }

    pub(super) fn exemplars(&self) -> Exemplars {
        let mut exemplars = Exemplars::default();
        for family in &self.families {
            family.exemplars(&mut exemplars);
        }
        exemplars
    }

    /// The distributions of all histograms, each with its family and the values of its labels.
    pub(super) fn latencies(&self) -> impl Iterator<Item = (&Description, Vec<String>, Latency)> {
        self.families.iter().flat_map(|family| {
            let of_one = family.latencies().into_iter();
            of_one.map(|(labels, latency)| (family.description(), labels, latency))
        })
    }
}
