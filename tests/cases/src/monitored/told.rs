// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the host is told.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use migrator::account::{Downtime, RegionAccount, Role};
use serde::{Deserialize, Serialize};

/// One line of stdout.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event {
    /// The agent can be scraped.
    Ready,
    /// A migration begins.
    Begin {
        /// Its name.
        migration: &'static str,
    },
    /// A migration is over.
    End {
        /// Its name.
        migration: &'static str,
        /// What its ends did.
        ends: Vec<End>,
    },
    /// All are over, and scraped.
    Over,
}

impl Event {
    pub(super) fn tell(&self) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        let line = serde_json::to_string(self).context("failed to write an event down")?;
        writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("failed to tell the host")
    }
}

/// How the client ended a device's migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ending {
    /// The device was saved, or runs from what was loaded.
    Completed,
    /// The source was told to run on.
    Cancelled,
    /// The device was reset or closed in the middle.
    Failed,
}

/// One end of a migration, as its client counted it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct End {
    /// PCI address.
    pub(super) device: String,
    /// Which end.
    pub(super) role: Role,
    /// How it ended.
    pub(super) ending: Ending,
    /// What was done to its region.
    #[serde(flatten)]
    pub(super) region: RegionAccount,
    /// Of the source of a migration that came to its end: where the downtime went.
    pub(super) downtime: Option<Downtime>,
    /// Pages that the container told to be dirty, each time counted; nothing if it was not asked.
    pub(super) container_pages: Option<u64>,
}
