// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What goes to Prometheus, checked by its own tool, the rules with their tests, and the exposition; and what that tool does not look at:
//! names, runbooks, and whether every rule is tested.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use serde::de::DeserializeOwned;

use super::rules::{self, Rule, RuleFile, TestFile};
use super::runbooks;
use crate::child;
use crate::contract::{Contract, Metric};
use crate::setup::promtool;
use crate::workspace::Workspace;

/// Rules, every file of them; and in a folder of its own, for `rule_files: [*.yml]`, their tests.
const RULES: &str = "dashboards/prometheus";
const TESTS: &str = "dashboards/prometheus/tests";
/// The file that people change. What it shows in a comment must hold when they do.
const BUDGET: &str = "dashboards/prometheus/budget.yml";
/// The agent's test compares it with what the agent says, byte for byte.
const EXPOSITION: &str = "agent/tests/exposition.txt";
/// The same as OpenMetrics.
const OPEN_METRICS: &str = "agent/tests/exposition.openmetrics.txt";

/// The check.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let promtool = promtool::ensure(workspace)?;
    let root = &workspace.root;
    let (rule_files, test_files) = (yaml_files(&root.join(RULES))?, yaml_files(&root.join(TESTS))?);
    let scratch = tempfile::tempdir().context("failed to make a scratch folder")?;
    let shown = with_example(&root.join(BUDGET), scratch.path())?;
    let mut command = child::bound(&promtool);
    child::run(command.args(["check", "rules", "--lint-fatal"]).args(&rule_files).arg(&shown))?;
    child::run(child::bound(&promtool).args(["test", "rules"]).args(&test_files))?;
    let exposition = fs::read_to_string(root.join(EXPOSITION))
        .with_context(|| format!("failed to read {EXPOSITION}"))?;
    let over_all = scratch.path().join("exposition.test.json");
    fs::write(&over_all, over_exposition(&rule_files, &exposition).to_string())
        .context("failed to write into the scratch folder")?;
    child::run(child::bound(&promtool).args(["test", "rules"]).arg(&over_all))
        .with_context(|| format!("a rule cannot be evaluated over {EXPOSITION}"))?;
    ours(workspace, &rule_files, &test_files, &shown)?;

    let exposition = File::open(root.join(EXPOSITION))
        .with_context(|| format!("failed to open {EXPOSITION}"))?;
    let mut command = child::bound(&promtool);
    command.args(["check", "metrics"]).stdin(Stdio::from(exposition));
    let output = command.output().context("failed to start promtool check metrics")?;
    // It may find fault and still exit with 0.
    if !output.status.success() || !output.stderr.is_empty() {
        bail!("{EXPOSITION}:\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    open_metrics(workspace, &promtool)
}

/// What promtool does not look at.
fn ours(
    workspace: &Workspace,
    rule_files: &[PathBuf],
    test_files: &[PathBuf],
    example: &Path,
) -> Result<()> {
    let all = rules::all(read_all::<RuleFile>(rule_files)?);
    let tests: Vec<TestFile> = read_all(test_files)?;
    let mut contract = Contract::read(&workspace.root)?;
    // What the example records nobody does, until somebody wants it; but alerts ask for it.
    let shown = rules::all(vec![read(example)?]);
    let recorded: Vec<Rule> = all.iter().chain(&shown).cloned().collect();
    rules::record(&mut contract, &recorded);
    for Rule { record, labels, .. } in &shown {
        let mut any = Metric::gauge();
        // Its values are an example, too.
        labels.keys().for_each(|label| any.label(label, None));
        contract.add(record, any);
    }
    let reasons = contract.values("vfio_migration_blocked", "reason")?.clone();
    let broken = contract.values("vfio_migration_protocol_violations_total", "rule")?.clone();
    let mut complaints = rules::complaints(&all, &contract);
    complaints.extend(rules::untested(&all, &tests, &contract));
    complaints.extend(rules::unalerted(&all, "vfio_migration_blocked", "reason", &reasons));
    complaints.extend(rules::unshared(
        &all,
        "VfioMigrationProtocolViolation",
        "instance_device_rule:vfio_migration_protocol_violations:increase10m",
        "rule",
        &broken,
    ));
    complaints.extend(runbooks::complaints(&runbooks::read(workspace)?, &all, &reasons, &contract));
    ensure!(complaints.is_empty(), "\n  {}", complaints.join("\n  "));
    Ok(())
}

/// The files of rules, in the order of their names.
pub(super) fn rule_files(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    yaml_files(&workspace.root.join(RULES))
}

fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let listing = || format!("failed to list {}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(listing)? {
        let path = entry.with_context(listing)?.path();
        if path.extension().is_some_and(|extension| extension == "yml") {
            found.push(path);
        }
    }
    found.sort();
    ensure!(!found.is_empty(), "{} has no .yml file", folder.display());
    Ok(found)
}

fn read<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let text =
        fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
    serde_saphyr::from_str(&text)
        .with_context(|| format!("{} cannot be understood", file.display()))
}

fn read_all<T: DeserializeOwned>(files: &[PathBuf]) -> Result<Vec<T>> {
    files.iter().map(|file| read(file)).collect()
}

/// A test that evaluates all rules over all that two agents say. It expects nothing of them but that they can be evaluated: the series of
/// other tests are few, and may be just those of which each finds one to be joined with.
fn over_exposition(rule_files: &[PathBuf], exposition: &str) -> serde_json::Value {
    let lines = exposition.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let series = lines.filter_map(|line| line.rsplit_once(' ')).flat_map(|(series, value)| {
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let values = format!("{value} {value}");
        ["a:10477", "b:10477"].map(|instance| {
            let labels = format!("job=\"migscope\",instance=\"{instance}\",{labels}");
            serde_json::json!({ "series": format!("{name}{{{labels}"), "values": values })
        })
    });
    serde_json::json!({
        "rule_files": rule_files,
        "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m",
            "input_series": series.collect::<Vec<_>>(),
            "promql_expr_test": [
                { "expr": "count(migscope_build_info)", "eval_time": "1m", "exp_samples": [{ "labels": "{}", "value": 2 }] },
            ],
        }],
    })
}

/// Writes a file of rules into `folder` as it is once the rule is in force that it shows as an example, and gives its path.
fn with_example(file: &Path, folder: &Path) -> Result<PathBuf> {
    let text =
        fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
    let (changed, lines) = uncommented(&text);
    ensure!(lines > 0, "{} shows no rule as an example", file.display());
    let path = folder.join("example.yml");
    fs::write(&path, changed).with_context(|| format!("failed to write {}", path.display()))?;
    Ok(path)
}

/// `text` without the `# ` before a rule and its keys, and how many lines that were.
fn uncommented(text: &str) -> (String, usize) {
    let mut lines = 0;
    let mut line = |line: &str| {
        let keys = ["# - record: ", "#   expr: ", "#   labels: "];
        let commented = keys.iter().any(|key| line.trim_start().starts_with(key));
        lines += usize::from(commented);
        if commented { format!("{}\n", line.replacen("# ", "", 1)) } else { format!("{line}\n") }
    };
    let changed = text.lines().map(&mut line).collect();
    (changed, lines)
}

/// Has Prometheus' own parser of OpenMetrics read the exposition. Of promtool's commands only the one that imports old samples
/// has it, so these get a time, and the blocks that it makes are thrown away.
fn open_metrics(workspace: &Workspace, promtool: &Path) -> Result<()> {
    let text = fs::read_to_string(workspace.root.join(OPEN_METRICS))
        .with_context(|| format!("failed to read {OPEN_METRICS}"))?;
    let folder = tempfile::tempdir().context("failed to make a scratch folder")?;
    let timed = folder.path().join("timed.txt");
    fs::write(&timed, with_times(&text)).context("failed to write into the scratch folder")?;
    let mut command = child::bound(promtool);
    command.args(["tsdb", "create-blocks-from", "openmetrics"]).arg(&timed);
    let told = child::capture(command.arg(folder.path().join("blocks")))
        .with_context(|| format!("{OPEN_METRICS} is no OpenMetrics"))?;
    let samples = text.lines().filter(|line| !line.starts_with('#')).count().to_string();
    let stored = told
        .lines()
        .last()
        .is_some_and(|block| block.split_whitespace().any(|column| column == samples));
    ensure!(stored, "promtool did not store {samples} samples of {OPEN_METRICS}:\n{told}");
    Ok(())
}

/// The exposition with a time for each sample. It stands behind the value, before an exemplar; no label of ours has ` # ` in it.
fn with_times(exposition: &str) -> String {
    let timed = |line: &str| match line.split_once(" # ") {
        _ if line.starts_with('#') => format!("{line}\n"),
        Some((sample, exemplar)) => format!("{sample} 1700000000.000 # {exemplar}\n"),
        None => format!("{line} 1700000000.000\n"),
    };
    exposition.lines().map(timed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_stands_behind_the_value() {
        let text = "# TYPE a counter\na_total 1.0\nb_bucket{le=\"1.0\"} 1 # {x=\"y\"} 0.5\n# EOF\n";
        let timed = "# TYPE a counter\na_total 1.0 1700000000.000\n\
                     b_bucket{le=\"1.0\"} 1 1700000000.000 # {x=\"y\"} 0.5\n# EOF\n";
        assert_eq!(with_times(text), timed);
    }

    #[test]
    fn a_rule_in_a_comment_is_a_rule_without_it() {
        let text = "# Words.\n      # A budget.\n      # - record: a\n      #   expr: b\n      #   labels: { c: d }\n";
        let (changed, lines) = uncommented(text);
        let wanted = "# Words.\n      # A budget.\n      - record: a\n        expr: b\n        labels: { c: d }\n";
        assert_eq!((changed.as_str(), lines), (wanted, 3));
    }
}
