// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The result, for scripts and for people.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::alerts::Alert;
use super::compare::Row;
use super::course::Told;
use super::expressions::Asked;

/// All that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) migrations: Vec<Told>,
    pub(crate) comparison: Vec<Row>,
    pub(crate) expressions: Vec<Asked>,
    /// Listed as rightly without data, and not there any more.
    pub(crate) gone: Vec<String>,
    pub(crate) alerts: Vec<Alert>,
    /// How many samples promtool had nothing to say of, or what it said.
    pub(crate) exposition: Result<usize, String>,
}

impl Report {
    /// How much is as it must be, and what is not.
    pub(crate) fn verdict(&self) -> (usize, Vec<String>) {
        let Self { migrations: _, comparison, expressions, gone, alerts, exposition } = self;
        let mut passed = 0;
        let mut wrong = Vec::new();
        let mut judge = |found: Option<String>| match found {
            None => passed += 1,
            Some(text) => wrong.push(text),
        };
        for row in comparison {
            judge((!row.agrees).then(|| row.to_string()));
        }
        for Asked { of, what, expression, wrong, series: _ } in expressions {
            judge(wrong.as_ref().map(|wrong| format!("{of}: {what}: {wrong}: {expression}")));
        }
        for gone in gone {
            judge(Some(format!("{gone}: is listed as without data, and is not there")));
        }
        for Alert { name, wrong, raised: _ } in alerts {
            judge(wrong.as_ref().map(|wrong| format!("alert {name}: {wrong}")));
        }
        judge(exposition.as_ref().err().map(|wrong| format!("the exposition: {wrong}")));
        (passed, wrong)
    }

    /// Whether all is as it must be.
    pub(crate) fn is_good(&self) -> bool {
        self.verdict().1.is_empty()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { migration, device, what, unit, migrator, prometheus, bound, agrees } = self;
        for of in [migration, device].into_iter().flatten() {
            write!(f, "{of}: ")?;
        }
        write!(f, "{what}: {migrator}, and in Prometheus ")?;
        match prometheus {
            Some(value) => write!(f, "{value}")?,
            None => write!(f, "nothing")?,
        }
        if *unit != "1" {
            write!(f, " {unit}")?;
        }
        if let Some(bound) = bound {
            write!(f, ", may differ by {bound:.3}")?;
        }
        if *agrees { Ok(()) } else { write!(f, ", DISAGREE") }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { migrations, comparison, expressions, gone: _, alerts, exposition } = self;
        writeln!(f, "{:18} {:>9} {:>9}", "migration", "began", "ended")?;
        for Told { migration, began_seconds, ended_seconds, endings } in migrations {
            write!(f, "{migration:18} {began_seconds:>7.1} s {ended_seconds:>7.1} s")?;
            for (end, ending) in endings.iter().rev() {
                write!(f, "  {end} {ending}")?;
            }
            writeln!(f)?;
        }
        let agree = comparison.iter().filter(|row| row.agrees).count();
        writeln!(f, "\n{agree} of {} numbers agree with the migrator's account", comparison.len())?;
        let mut places: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for asked in expressions {
            let (answered, all) = places.entry(&asked.of).or_default();
            *answered += usize::from(asked.series > 0);
            *all += 1;
        }
        for (of, (answered, all)) in places {
            writeln!(f, "{of}: {answered} of {all} expressions have data")?;
        }
        for Alert { name, raised, wrong: _ } in alerts {
            writeln!(f, "alert {name}: {}", format!("{raised:?}").to_lowercase())?;
        }
        if let Ok(samples) = exposition {
            writeln!(f, "promtool has nothing to say of the {samples} samples in a migration")?;
        }
        let (passed, wrong) = self.verdict();
        for wrong in &wrong {
            writeln!(f, "WRONG: {wrong}")?;
        }
        writeln!(f, "{passed} checks hold, {} do not", wrong.len())
    }
}
