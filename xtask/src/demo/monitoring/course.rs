// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the guest tells of its migrations (`cases::monitored`), with the host's times: those that Prometheus' samples have.
//!
//! Only what is compared is read here.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// What is scraped in the last moments of a migration may be from after it. In seconds.
const BEFORE_END: f64 = 0.7;
/// So much of the time before the first migration is shown, in seconds. The agent has been scraped by then.
const BEFORE: f64 = 1.0;

/// One line of the guest's output.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    Ready,
    Begin { migration: String },
    End { migration: String, ends: Vec<End> },
    Over,
}

/// One end of a migration, as its client counted it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct End {
    pub(crate) device: String,
    pub(crate) role: String,
    pub(crate) ending: String,
    pub(crate) transitions: Vec<Transition>,
    pub(crate) data_bytes: u64,
    pub(crate) iterations: u64,
    pub(crate) dirty: Dirty,
    pub(crate) accesses: Vec<Access>,
    pub(crate) pending_bytes: Option<u64>,
    pub(crate) downtime: Option<Downtime>,
    pub(crate) container_pages: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Transition {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) cause: String,
    pub(crate) result: i32,
    pub(crate) at_monotonic_ns: u64,
    pub(crate) duration_ns: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Dirty {
    pub(crate) queries: BTreeMap<String, u64>,
    pub(crate) pages: u64,
    pub(crate) bytes: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Access {
    pub(crate) field: String,
    pub(crate) op: String,
    pub(crate) result: String,
    pub(crate) count: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Downtime {
    pub(crate) total_ns: u64,
}

/// A migration, and when it was; in seconds since the Unix epoch.
#[derive(Clone, Debug)]
pub(crate) struct Migration {
    pub(crate) name: String,
    pub(crate) began: f64,
    pub(crate) ended: f64,
    /// When its last figures had been scraped.
    pub(crate) settled: f64,
    pub(crate) ends: Vec<End>,
}

/// All of them, in the order of their ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Course {
    pub(crate) migrations: Vec<Migration>,
    began: BTreeMap<String, f64>,
    /// When all were over and scraped.
    pub(crate) over: Option<f64>,
}

/// A line of the run's account, for people and scripts.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    pub(crate) migration: String,
    pub(crate) began_seconds: f64,
    pub(crate) ended_seconds: f64,
    /// How each device's part ended, by its role.
    pub(crate) endings: BTreeMap<String, String>,
}

impl Course {
    /// Takes an event in, which came at `now`.
    pub(crate) fn hear(&mut self, event: Event, now: f64) -> Result<()> {
        // The guest says nothing more until somebody has scraped what the last migration left.
        if !matches!(event, Event::Ready) {
            for migration in &mut self.migrations {
                if migration.settled == 0.0 {
                    migration.settled = now;
                }
            }
        }
        match event {
            Event::Ready => {}
            Event::Begin { migration } => {
                self.began.insert(migration, now);
            }
            Event::End { migration, ends } => {
                let began = self.began.get(&migration).copied();
                let began = began.with_context(|| format!("{migration} ends and never began"))?;
                let name = migration;
                self.migrations.push(Migration { name, began, ended: now, settled: 0.0, ends });
            }
            Event::Over => self.over = Some(now),
        }
        Ok(())
    }

    /// From just before the first migration until all was scraped.
    pub(crate) fn span(&self) -> Result<(f64, f64)> {
        let first = self.began.values().copied().reduce(f64::min);
        let over = self.over.context("the guest ended before its last migration was scraped")?;
        Ok((first.context("no migration has begun")? - BEFORE, over))
    }

    /// A moment just before a migration ended.
    pub(crate) fn nearly_over(&self, migration: &str) -> Option<f64> {
        let found = self.migrations.iter().find(|it| it.name == migration);
        Some(found?.ended - BEFORE_END)
    }

    /// A moment in the middle of one.
    pub(crate) fn amid(&self, migration: &str) -> Option<f64> {
        let found = self.migrations.iter().find(|it| it.name == migration)?;
        Some(f64::midpoint(found.began, found.ended))
    }

    /// What was done, with times since the beginning of the span.
    pub(crate) fn told(&self) -> Vec<Told> {
        let start = self.span().map_or(0.0, |(from, _)| from);
        let since = |time: f64| time - start;
        let told = |migration: &Migration| Told {
            migration: migration.name.clone(),
            began_seconds: since(migration.began),
            ended_seconds: since(migration.ended),
            endings: migration
                .ends
                .iter()
                .map(|end| (format!("{} {}", end.role, end.device), end.ending.clone()))
                .collect(),
        };
        self.migrations.iter().map(told).collect()
    }
}

/// Now, in seconds since the Unix epoch.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_is_settled_when_the_guest_says_the_next_thing() {
        let mut course = Course::default();
        let events = [
            r#"{"event":"ready"}"#,
            r#"{"event":"begin","migration":"a"}"#,
            r#"{"event":"begin","migration":"b"}"#,
            r#"{"event":"end","migration":"b","ends":[]}"#,
            r#"{"event":"end","migration":"a","ends":[]}"#,
            r#"{"event":"over"}"#,
        ];
        for (second, text) in (1_u32..).zip(events) {
            course.hear(serde_json::from_str(text).unwrap(), f64::from(second)).unwrap();
        }
        let times = |of: &Migration| (of.name.clone(), of.began, of.ended, of.settled);
        assert_eq!(times(&course.migrations[0]), ("b".to_owned(), 3.0, 4.0, 5.0));
        assert_eq!(times(&course.migrations[1]), ("a".to_owned(), 2.0, 5.0, 6.0));
        assert_eq!(course.span().unwrap(), (2.0 - BEFORE, 6.0));
        assert_eq!(course.amid("a"), Some(3.5));
    }

    #[test]
    fn a_guest_that_breaks_off_has_no_span() {
        assert!(Course::default().span().is_err());
    }
}
