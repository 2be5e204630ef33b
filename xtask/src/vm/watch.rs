// SPDX-License-Identifier: Apache-2.0 OR MIT
//! In a guest whose kernel watches itself: what it found, beside what it prints on the console.
//!
//! ```text
//!   begin ─▶ driver is loaded, its KUnit suites run ─▶ command ─▶ devices unbound, driver removed ─▶ end
//! ```
//!
//! Lockdep says one thing on the console and is silent from then on, so it is asked whether it still looks. A leak is memory
//! that nobody points to any more; the driver has to be gone for that to be seen of what its own data point to.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::kmod::{DeleteModuleFlags, delete_module};

use super::job::Suite;

const LEAKS: &str = "/sys/kernel/debug/kmemleak";
const SUITES: &str = "/sys/kernel/debug/kunit";
const LOCKS: &str = "/proc/lockdep_stats";
/// kmemleak does not tell of memory that is younger (`MSECS_MIN_AGE`): its pointer may be in a register.
const AGE: Duration = Duration::from_secs(6);

/// How things stood before the driver was loaded.
pub(crate) struct Watch {
    suites: BTreeSet<String>,
}

impl Watch {
    /// Takes what the kernel has found so far for granted.
    pub(crate) fn begin() -> Result<Self> {
        put(LEAKS, "scan")?;
        put(LEAKS, "clear")?;
        Ok(Self { suites: suites()? })
    }

    /// The KUnit suites that came since then, and their results.
    pub(crate) fn new_suites(&self) -> Result<Vec<Suite>> {
        let new = suites()?.into_iter().filter(|name| !self.suites.contains(name));
        new.map(|name| {
            let results = get(&format!("{SUITES}/{name}/results"))?;
            Ok(read(&name, results))
        })
        .collect()
    }
}

/// Takes the driver away and says what the kernel has against it.
pub(crate) fn end(driver: &str) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let folder = format!("/sys/bus/pci/drivers/{driver}");
    if Path::new(&folder).is_dir() {
        for item in fs::read_dir(&folder).with_context(|| format!("failed to list {folder}"))? {
            let name = item.context("failed to list the driver's devices")?.file_name();
            // Beside the devices there are files and a link to the module.
            if let Some(address) = name.to_str().filter(|name| name.contains(':')) {
                put(&format!("{folder}/unbind"), address)?;
            }
        }
    }
    if Path::new("/sys/module").join(driver).is_dir() {
        let name = std::ffi::CString::new(driver).context("a module's name has no NUL")?;
        if let Err(error) = delete_module(&name, DeleteModuleFlags::O_NONBLOCK) {
            findings.push(format!("{driver} could not be removed: {error}"));
        }
    }
    // Twice: the first scan may find a leak's pointer in memory that is itself leaked.
    sleep(AGE);
    put(LEAKS, "scan")?;
    put(LEAKS, "scan")?;
    let leaks = get(LEAKS)?;
    if !leaks.is_empty() {
        findings.push(format!("memory was leaked:\n{leaks}"));
    }
    if !locks_are_watched(&get(LOCKS)?) {
        findings.push("lockdep has found something and does not look any more".to_owned());
    }
    Ok(findings)
}

fn locks_are_watched(stats: &str) -> bool {
    let value = stats.lines().find_map(|line| line.trim().strip_prefix("debug_locks:"));
    value.is_some_and(|value| value.trim() == "1")
}

fn suites() -> Result<BTreeSet<String>> {
    let listing = fs::read_dir(SUITES).with_context(|| format!("failed to list {SUITES}"))?;
    listing
        .map(|item| {
            let name = item.context("failed to list the KUnit suites")?.file_name();
            Ok(name.to_string_lossy().into_owned())
        })
        .collect()
}

/// Counts the cases of a suite: the results of one level of KTAP are indented by four more than those around them.
fn read(name: &str, results: String) -> Suite {
    let name = name.to_owned();
    let mut suite = Suite { name, passed: 0, failed: 0, skipped: 0, results: String::new() };
    for line in results.lines() {
        let Some(case) = line.strip_prefix("    ") else { continue };
        if case.starts_with("not ok ") {
            suite.failed += 1;
        } else if case.starts_with("ok ") {
            match case.contains("# SKIP") {
                true => suite.skipped += 1,
                false => suite.passed += 1,
            }
        }
    }
    Suite { results, ..suite }
}

fn get(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("failed to read {path}"))
}

fn put(path: &str, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("failed to write `{text}` to {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cases_of_a_suite_are_counted() {
        let results = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: dirty\n    1..3\n    \
                       ok 1 a\n    # b: ASSERTION FAILED at x.rs:1\n    not ok 2 b\n    ok 3 c # SKIP no\n\
                       not ok 1 dirty\n";
        let suite = read("dirty", results.to_owned());
        assert_eq!((suite.passed, suite.failed, suite.skipped), (1, 1, 1));
        assert_eq!(suite.results, results);
    }

    #[test]
    fn lockdep_that_gave_up_is_seen() {
        assert!(locks_are_watched(
            " lock-classes: 9\n debug_locks:                             1\n"
        ));
        assert!(!locks_are_watched(" debug_locks:                             0\n"));
        assert!(!locks_are_watched(""));
    }
}
