// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One thing that was looked for.

use crate::{harmless::harmless, probes::attach::Missing};
use serde::Serialize;
use std::fmt;

/// One thing, there or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked for.
    pub name: String,
    /// Whether it is there.
    pub available: bool,
    /// Whether anything is lost without it.
    pub needed: bool,
    /// What was found.
    pub detail: Option<String>,
    /// Why it is not there.
    pub why: Option<String>,
    /// What would mend it.
    pub remedy: Option<String>,
}

impl Finding {
    /// It is there.
    pub(super) fn present(name: &str, detail: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            available: true,
            needed: true,
            detail: Some(detail.into()),
            why: None,
            remedy: None,
        }
    }

    /// It is not there; nothing is lost without it if it is dormant.
    pub(super) fn absent(name: &str, missing: Missing) -> Self {
        let Missing { why, remedy, dormant } = missing;
        Self {
            name: name.into(),
            available: false,
            needed: !dormant,
            detail: None,
            why: Some(why),
            remedy: Some(remedy),
        }
    }

    /// The same, but nothing is lost without it.
    pub(super) fn optional(self) -> Self {
        Self { needed: false, ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match (self.available, self.needed) {
            (true, _) => "yes",
            (false, true) => "NO ",
            (false, false) => "no ",
        };
        write!(f, "  {mark}  {:<26} ", harmless(&self.name))?;
        match (&self.detail, &self.why, &self.remedy) {
            (Some(detail), ..) => write!(f, "{}", harmless(detail)),
            (None, Some(why), Some(remedy)) => {
                write!(f, "{}\n{:34}mend: {}", harmless(why), "", harmless(remedy))
            }
            _ => Ok(()),
        }
    }
}
