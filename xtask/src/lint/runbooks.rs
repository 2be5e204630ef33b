// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The runbooks: a page for each alert and each reason, with what somebody who was woken needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result};

use super::kept;
use super::rules::Rule;
use crate::contract::Contract;
use crate::workspace::Workspace;

/// Where they are; an alert's `runbook_url` begins with it.
pub(crate) const FOLDER: &str = "dashboards/runbooks/";
/// The alert that has a page for each reason.
const BLOCKED: &str = "VfioMigrationBlocked";
/// The folder's index.
const INDEX: &str = "README";
/// The parts of a page, in their order. The agent lists the first sentence of the first.
const PARTS: [&str; 4] = ["**Meaning.**", "**Impact.**", "**Diagnosis.**", "**Mitigation.**"];

/// The pages by their names.
pub(crate) fn read(workspace: &Workspace) -> Result<BTreeMap<String, String>> {
    let folder = workspace.root.join(FOLDER);
    let mut pages = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("failed to list {FOLDER}"))? {
        let path = entry.with_context(|| format!("failed to list {FOLDER}"))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text =
            fs::read_to_string(&path).with_context(|| format!("failed to read {FOLDER}{name}"))?;
        pages.insert(name.trim_end_matches(".md").to_owned(), text);
    }
    Ok(pages)
}

/// The page that a rule of an alert has to lead to.
fn page_of(rule: &Rule) -> String {
    match rule.labels.get("reason").filter(|_| rule.alert == BLOCKED) {
        Some(reason) => format!("{BLOCKED}-{reason}"),
        None => rule.alert.clone(),
    }
}

/// What is wrong with the pages: `reasons` is the closed set of reasons.
pub(crate) fn complaints(
    pages: &BTreeMap<String, String>,
    rules: &[Rule],
    reasons: &BTreeSet<String>,
    contract: &Contract,
) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut wanted: BTreeSet<_> =
        reasons.iter().map(|reason| format!("{BLOCKED}-{reason}")).collect();
    for rule in rules.iter().filter(|rule| !rule.alert.is_empty()) {
        let page = page_of(rule);
        let url = format!("{FOLDER}{page}.md");
        if rule.annotations.get("runbook_url").is_none_or(|is| *is != url) {
            complaints.push(format!("{}: its runbook_url is not {url}", rule.alert));
        }
        wanted.insert(page);
    }
    let there: BTreeSet<_> = pages.keys().filter(|name| *name != INDEX).cloned().collect();
    complaints
        .extend(wanted.difference(&there).map(|page| format!("{FOLDER}{page}.md is missing")));
    complaints.extend(
        there
            .difference(&wanted)
            .map(|page| format!("{FOLDER}{page}.md is of no alert and no reason")),
    );
    let links = pages.get(INDEX).map(|index| links(index)).unwrap_or_default();
    complaints.extend(
        there.difference(&links).map(|page| format!("{FOLDER}{INDEX}.md has no link to {page}.md")),
    );
    for (name, text) in pages {
        let found = if name == INDEX { Vec::new() } else { page(name, text, contract) };
        let dead = links_of(text).filter(|link| !pages.contains_key(*link));
        let dead = dead.map(|link| format!("it leads to {link}.md, which is missing"));
        complaints
            .extend(found.into_iter().chain(dead).map(|what| format!("{FOLDER}{name}.md: {what}")));
    }
    complaints
}

fn page(name: &str, text: &str, contract: &Contract) -> Vec<String> {
    let mut complaints = Vec::new();
    let title = match name.split_once('-') {
        Some((alert, reason)) => format!("# {alert}: {reason}"),
        None => format!("# {name}"),
    };
    if text.lines().next() != Some(title.as_str()) {
        complaints.push(format!("its first line is not {title:?}"));
    }
    let places: Vec<_> = PARTS.iter().filter_map(|part| text.find(part)).collect();
    let once = PARTS.iter().all(|part| text.matches(part).count() == 1);
    if !once || !places.is_sorted() {
        complaints.push(format!("it has not each of {} once, in this order", PARTS.join(" ")));
        return complaints;
    }
    // From the diagnosis on: what to type.
    let advice = &text[places[2]..];
    if blocks(advice, "sh").iter().all(|block| block.trim().is_empty()) {
        complaints.push("it has no command (```sh) in its diagnosis or mitigation".to_owned());
    }
    // One expression a block.
    for block in blocks(text, "promql") {
        complaints.extend(kept::complaints(contract, &block));
    }
    complaints
}

/// The fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let (mut inside, mut taken) = (false, false);
    for line in text.lines() {
        match line.trim().strip_prefix("```") {
            Some(_) if inside => (inside, taken) = (false, false),
            Some(of) => {
                (inside, taken) = (true, of == language);
                if taken {
                    found.push(String::new());
                }
            }
            None => {
                if let Some(block) = found.last_mut().filter(|_| taken) {
                    block.push_str(line);
                    block.push('\n');
                }
            }
        }
    }
    found
}

/// Pages of this folder that a page leads to.
fn links_of(text: &str) -> impl Iterator<Item = &str> {
    let ends = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    ends.filter_map(|link| link.split('#').next()?.strip_suffix(".md"))
        .filter(|link| !link.contains('/'))
}

fn links(text: &str) -> BTreeSet<String> {
    links_of(text).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Alert\n\n**Meaning.** It is.\n\n**Impact.** None.\n\n**Diagnosis.** Look:\n\n```promql\nx > 1\n```\n\n\
        **Mitigation.** Do:\n\n```sh\ntrue\n```\n";

    fn rule(alert: &str, reason: Option<&str>, page: &str) -> Rule {
        Rule {
            alert: alert.into(),
            labels: reason
                .map(|reason| ("reason".to_owned(), reason.to_owned()))
                .into_iter()
                .collect(),
            annotations: [("runbook_url".to_owned(), format!("{FOLDER}{page}.md"))].into(),
            ..Rule::default()
        }
    }

    /// Complaints about two pages and an index, once `change` has changed them.
    fn found(change: impl FnOnce(&mut BTreeMap<String, String>, &mut Vec<Rule>)) -> Vec<String> {
        let blocked = PAGE.replace("# Alert", "# VfioMigrationBlocked: slow");
        let index = "[a](Alert.md) [b](VfioMigrationBlocked-slow.md#x) [c](../other.md)";
        let mut pages = BTreeMap::from([
            ("Alert".to_owned(), PAGE.to_owned()),
            ("VfioMigrationBlocked-slow".to_owned(), blocked),
            (INDEX.to_owned(), index.to_owned()),
        ]);
        let mut rules = vec![
            rule("Alert", None, "Alert"),
            rule(BLOCKED, Some("slow"), "VfioMigrationBlocked-slow"),
        ];
        change(&mut pages, &mut rules);
        let contract = Contract::parse("| `x` | gauge | | |").expect("a page");
        complaints(&pages, &rules, &BTreeSet::from(["slow".to_owned()]), &contract)
    }

    fn page(from: &'static str, to: &'static str) -> Vec<String> {
        assert!(PAGE.contains(from), "{from}");
        found(move |pages, _| {
            pages.insert("Alert".into(), PAGE.replace(from, to));
        })
    }

    #[test]
    fn what_is_wrong_with_a_page_is_named_and_nothing_else() {
        assert_eq!(found(|_, _| {}), [""; 0]);
        for (from, to, complaint) in [
            ("# Alert", "# Other", "its first line is not \"# Alert\""),
            ("**Impact.** None.\n\n", "", "it has not each of"),
            ("**Impact.** None.", "**Impact.** **Impact.**", "it has not each of"),
            (
                "**Meaning.** It is.\n\n**Impact.** None.",
                "**Impact.** It is.\n\n**Meaning.** None.",
                "in this order",
            ),
            ("```sh\ntrue", "```sh\n ", "it has no command"),
            ("```sh", "```text", "it has no command"),
            ("x > 1", "y > 1", "no metric \"y\""),
            ("It is.", "It is [that](Gone.md).", "it leads to Gone.md, which is missing"),
        ] {
            let found = page(from, to);
            assert!(found.iter().any(|it| it.contains(complaint)), "{complaint}: {found:?}");
        }
    }

    #[test]
    fn pages_alerts_reasons_and_index_fit() {
        let gone = found(|pages, _| drop(pages.remove("VfioMigrationBlocked-slow")));
        assert!(
            gone.iter().any(|it| it.contains("VfioMigrationBlocked-slow.md is missing")),
            "{gone:?}"
        );
        // A reason needs its page also if no alert has it.
        let silent = found(|pages, rules| {
            rules.pop();
            pages.remove("VfioMigrationBlocked-slow");
        });
        assert!(
            silent.iter().any(|it| it.contains("VfioMigrationBlocked-slow.md is missing")),
            "{silent:?}"
        );
        let strange = found(|pages, _| {
            drop(pages.insert("Strange".into(), PAGE.replace("# Alert", "# Strange")))
        });
        assert!(
            strange.iter().any(|it| it.contains("Strange.md is of no alert and no reason")),
            "{strange:?}"
        );
        assert!(strange.iter().any(|it| it.contains("has no link to Strange.md")), "{strange:?}");
        let elsewhere = found(|_, rules| rules[1] = rule(BLOCKED, Some("slow"), "Alert"));
        assert!(elsewhere.iter().any(|it| it.contains("its runbook_url is not")), "{elsewhere:?}");
    }
}
