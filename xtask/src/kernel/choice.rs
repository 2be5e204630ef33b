// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which kernel is asked for on the command line.

use std::fmt;
use std::str::FromStr;

use anyhow::Result;

use super::stock::{Series, Stock};
use super::{Bootable, Kernel, Variant};
use crate::workspace::Workspace;

/// One of our own kernels, or a distribution's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Built(Variant),
    Stock(Series),
}

impl Choice {
    /// How it is written, for help texts.
    pub(crate) const VALUES: &str = "ours|debug|6.1|6.12|7.2|7.3";

    /// The kernel, built or downloaded if it is not there.
    pub(crate) fn ensure(self, workspace: &Workspace) -> Result<Box<dyn Bootable>> {
        Ok(match self {
            Self::Built(variant) => Box::new(Kernel::ensure(workspace, variant)?),
            Self::Stock(series) => Box::new(Stock::ensure(workspace, series)?),
        })
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let built = [("ours", Variant::Ours), ("debug", Variant::Debug)];
        let built = built.into_iter().find(|(name, _)| *name == text);
        if let Some((_, variant)) = built {
            return Ok(Self::Built(variant));
        }
        let stock = Series::ALL.into_iter().find(|series| series.as_str() == text);
        stock.map(Self::Stock).ok_or_else(|| format!("expected one of {}", Self::VALUES))
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Built(Variant::Ours) => "ours",
            Self::Built(Variant::Debug) => "debug",
            Self::Stock(series) => series.as_str(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_that_is_offered_is_understood() {
        for value in Choice::VALUES.split('|') {
            assert_eq!(value.parse::<Choice>().unwrap().to_string(), value);
        }
        assert_eq!(Choice::VALUES.split('|').count(), 2 + Series::ALL.len());
        assert!("6".parse::<Choice>().unwrap_err().contains("6.12"));
    }
}
