// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Expressions that are rightly without an answer in this run, each with its reason.
//!
//! One that is not in the table must be answered with a number; one that is must not, or the table would rot.

/// Where the rules are in the table, beside the dashboards' titles.
pub(crate) const RULES: &str = "rules";

/// When an expression is without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silent {
    /// In every run.
    Always,
    /// Nearly always: it looks at full hours, and a run may have one in it.
    Mostly,
}

/// One that is.
type Entry = (&'static str, &'static str, Silent, &'static str);

/// Of what (a dashboard's title, or [`RULES`]), which one (a panel with the letter of its target, a variable, an annotation, a rule),
/// when, and why it has nothing to say.
const SILENT: &[Entry] = &[
    ("migscope / Agent", "Series refused (A)", Silent::Always, REFUSED),
    ("migscope / Agent", "Probes that are missing (A)", Silent::Always, "no probe is missing"),
    ("migscope / One migration", "Bytes still to move (B)", Silent::Always, OF_V2),
    ("migscope / One migration", "Bytes still to move (C)", Silent::Always, OF_V2),
    ("migscope / One migration", "Bytes still to move (D)", Silent::Always, OF_V2),
    (RULES, "instance_family:migscope_series_refused:increase10m", Silent::Always, REFUSED),
    (
        RULES,
        "vm_uuid_part:vfio_migration_last_session_downtime_seconds:max (destination)",
        Silent::Always,
        GIVES_UP_LATE,
    ),
    (
        RULES,
        "vm_uuid_part:vfio_migration_last_session_downtime_seconds:max (source)",
        Silent::Always,
        GIVES_UP_LATE,
    ),
    (RULES, "host_part:vfio_migration_downtime_seconds:median1d", Silent::Mostly, FULL_HOURS),
    (RULES, "host_part:vfio_migration_downtime_seconds:p99_1d", Silent::Mostly, FULL_HOURS),
    (RULES, "part:vfio_migration_downtime_seconds:median1d", Silent::Mostly, FULL_HOURS),
    (RULES, "part:vfio_migration_downtime_seconds:p99_1d", Silent::Mostly, FULL_HOURS),
];

const REFUSED: &str = "a family is told of only once it had too many series";
const OF_V2: &str = "the protocol of a region has no such number";
const GIVES_UP_LATE: &str = "the migrator's source ends after its destination runs, and a part of less than nothing is none";
const FULL_HOURS: &str = "it reads what was recorded at full hours";

/// What is wrong with an answer that has numbers, or has none.
pub(crate) fn judge(of: &str, what: &str, answered: bool) -> Option<String> {
    judge_by(SILENT, of, what, answered)
}

fn judge_by(table: &[Entry], of: &str, what: &str, answered: bool) -> Option<String> {
    let listed = table.iter().find(|(its_of, its_what, ..)| (*its_of, *its_what) == (of, what));
    match (listed, answered) {
        (None, false) => Some("it has no data".to_owned()),
        (Some((_, _, Silent::Always, reason)), true) => {
            Some(format!("it has data, and is listed as one that has none: {reason}"))
        }
        (None, true) | (Some(_), false) | (Some((_, _, Silent::Mostly, _)), true) => None,
    }
}

/// What is in the table and was not asked for: a panel that is gone, or has another name.
pub(crate) fn unknown<'a>(asked: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let asked: Vec<_> = asked.collect();
    let gone = SILENT.iter().filter(|(of, what, ..)| !asked.contains(&(of, what)));
    gone.map(|(of, what, ..)| format!("{of}: {what}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Entry] =
        &[("d", "always", Silent::Always, "why"), ("d", "mostly", Silent::Mostly, "why")];

    #[test]
    fn only_what_is_listed_may_be_silent_and_it_must() {
        let wrong = |what, answered| judge_by(TABLE, "d", what, answered).is_some();
        assert!(wrong("other", false) && !wrong("other", true));
        assert!(!wrong("always", false) && wrong("always", true));
        assert!(!wrong("mostly", false) && !wrong("mostly", true));
    }

    #[test]
    fn what_is_listed_and_not_there_is_told() {
        let all = SILENT.iter().map(|(of, what, ..)| (*of, *what));
        assert!(unknown(all.clone()).is_empty());
        assert_eq!(unknown(all.skip(1)).len(), 1);
    }
}
