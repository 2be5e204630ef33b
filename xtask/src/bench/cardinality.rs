// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask bench cardinality`: builds the agent's example `cardinality` and runs it, on the host. What it prints is on a page of
//! dashboards/prometheus/scale, and a check says when it has become another.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::child;
use crate::programs;
use crate::workspace::Workspace;

const PAGE: &str = "dashboards/prometheus/scale/README.md";
/// Around what the page has of it.
const MARKS: [&str; 2] = [
    "<!-- Written by `cargo xtask bench cardinality --write`: -->\n```text\n",
    "```\n<!-- until here. -->",
];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write the table into the page dashboards/prometheus/scale/README.md
    #[arg(long, conflicts_with_all = ["json", "more"])]
    write: bool,
    /// Print one JSON object on stdout, and nothing else there
    #[arg(long)]
    json: bool,
    /// For the example: another number of devices, migrations, seconds (`-- --help` lists them)
    #[arg(last = true, value_name = "OPTION")]
    more: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let Arguments { write, json, more } = arguments;
    if *write {
        let page = written(&page(workspace)?, &table(workspace)?)?;
        fs::write(workspace.root.join(PAGE), page)
            .with_context(|| format!("failed to write {PAGE}"))?;
        println!("{PAGE}");
        return Ok(());
    }
    let mut options: Vec<&str> = more.iter().map(String::as_str).collect();
    options.extend(json.then_some("--json"));
    println!("{}", example(workspace, &options)?);
    Ok(())
}

/// The check: the page has what the benchmark prints.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let page = page(workspace)?;
    ensure!(
        written(&page, &table(workspace)?)? == page,
        "{PAGE} is not current; mend it with: cargo xtask bench cardinality --write"
    );
    Ok(())
}

fn page(workspace: &Workspace) -> Result<String> {
    fs::read_to_string(workspace.root.join(PAGE)).with_context(|| format!("failed to read {PAGE}"))
}

fn table(workspace: &Workspace) -> Result<String> {
    example(workspace, &[])
}

fn example(workspace: &Workspace, options: &[&str]) -> Result<String> {
    let arguments = ["run", "--quiet", "--package", "migscope", "--example", "cardinality", "--"];
    child::capture(programs::cargo(workspace)?.args(arguments).args(options))
}

/// The page with this table in it.
fn written(page: &str, table: &str) -> Result<String> {
    let [begin, end] = MARKS;
    let (before, rest) =
        page.split_once(begin).with_context(|| format!("{PAGE} has no place for the table"))?;
    let (_old, after) =
        rest.split_once(end).with_context(|| format!("{PAGE} does not end the table"))?;
    Ok(format!("{before}{begin}{}\n{end}{after}", table.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_takes_the_place_of_the_old_one() {
        let [begin, end] = MARKS;
        let page = format!("above\n{begin}old 1\nold 2\n{end}\nbelow\n");
        let new = written(&page, "new 1\n").unwrap();
        assert_eq!(new, format!("above\n{begin}new 1\n{end}\nbelow\n"));
        assert_eq!(written(&new, "new 1").unwrap(), new);
        assert!(written("no place", "new").is_err());
    }
}
