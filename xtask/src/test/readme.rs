// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The commands of README.md, run as they stand there: what a newcomer copies has to work.
//!
//! A comment before each block of commands says how CI runs it:
//!
//! ```text
//!   <!-- ci: guest -->        in a guest, in a folder with vfio_mediate.ko, with migscope in PATH
//!   <!-- ci: host -->         here, in the checkout
//!   <!-- ci: step NAME -->    as the step of `cargo xtask test` whose name has NAME in it
//!   <!-- ci: itself -->       it is what CI calls
//!   <!-- ci: not: WHY -->     it cannot be run here; the reason is printed
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};

use super::report::{Counts, Report};
use crate::build_driver;
use crate::child;
use crate::kernel::{Kernel, Variant};
use crate::programs::Programs;
use crate::vm::{self, Machine, Outcome, Streams, Task};
use crate::workspace::Workspace;

const PAGE: &str = "README.md";
/// The language of a block of commands.
const COMMANDS: &str = "sh";
const GUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// Before the commands: the files that the page speaks of, and the program that it has installed by then.
const PRELUDE: &str = "set -eu\n\
    cd \"$(mktemp -d)\"\n\
    cp \"$MIGSCOPE_README_DRIVER\" vfio_mediate.ko\n\
    PATH=\"$(dirname \"$MIGSCOPE_AGENT\"):$PATH\"\n\
    modprobe vfio-pci\n\
    set -x\n";

/// How CI runs a block.
#[derive(Debug, PartialEq, Eq)]
enum How {
    Guest,
    Host,
    Step(String),
    Itself,
    Not(String),
}

/// Commands, and how they are run.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    how: How,
    commands: String,
}

/// The step, which comes last: it looks for others.
pub(super) fn step(workspace: &Workspace, report: &mut Report) {
    let names = report.names();
    let all = report.is_whole();
    report.step("commands of the README", || {
        let path = workspace.root.join(PAGE);
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read {PAGE}"))?;
        let blocks = blocks(&text)?;
        ensure!(!blocks.is_empty(), "{PAGE} has no block of commands");
        let mut counts = Counts::default();
        for block in blocks {
            let ran = run(workspace, &block, all.then_some(names.as_slice()));
            let ran =
                ran.with_context(|| format!("{PAGE} has these commands:\n{}", block.commands));
            counts.add(ran.unwrap_or_else(|error| {
                eprintln!("error: {error:#}");
                Counts { failed: 1, ..Counts::default() }
            }));
        }
        Ok(counts)
    });
}

/// `steps`: those that ran before, where all did.
fn run(workspace: &Workspace, block: &Block, steps: Option<&[String]>) -> Result<Counts> {
    match &block.how {
        How::Guest => {
            in_guest(workspace, &block.commands)?;
        }
        How::Host => {
            let mut shell = child::bound("sh");
            shell.current_dir(&workspace.root).args(["-euxc", &block.commands]);
            child::run(&mut shell)?;
        }
        How::Step(name) => {
            let found = steps.is_none_or(|steps| steps.iter().any(|step| step.contains(name)));
            ensure!(found, "no step of `cargo xtask test` has a name with `{name}`");
        }
        How::Itself => {}
        How::Not(why) => {
            eprintln!("not run: {why}\n{}", block.commands);
            return Ok(Counts { ignored: 1, ..Counts::default() });
        }
    }
    Ok(Counts::ONE_PASSED)
}

fn in_guest(workspace: &Workspace, commands: &str) -> Result<()> {
    let kernel = Kernel::ensure(workspace, Variant::Ours)?;
    let driver: PathBuf = build_driver::build(workspace, &kernel.build_tree())?;
    let mut environment = Programs::build(workspace)?.environment();
    environment.push(("MIGSCOPE_README_DRIVER".into(), driver.into()));
    let script = format!("{PRELUDE}{commands}");
    let task = Task {
        argv: vec!["sh".into(), "-c".into(), script.into()],
        environment,
        driver: None::<&Path>,
        timeout: Some(GUEST_TIMEOUT),
    };
    let streams = Streams::Separate {
        stdout: Box::new(std::io::stderr()),
        stderr: Box::new(std::io::stderr()),
    };
    match vm::boot(workspace, &kernel, &Machine::default(), task, streams)? {
        Outcome::Ended { status, .. } if status.code() == 0 => Ok(()),
        Outcome::Ended { status, .. } => bail!("they ended with {}", status.code()),
        Outcome::TimedOut { limit } => bail!("they did not end within {} s", limit.as_secs()),
        Outcome::GuestFailed { reason } => bail!("{reason}"),
    }
}

/// The blocks of commands of a page. A block of code without a language, or commands without a word of how to run them, is an error.
fn blocks(page: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut comment = None;
    let mut commands = None;
    for event in Parser::new(page) {
        match event {
            Event::Html(html) => {
                let inner =
                    html.trim().strip_prefix("<!-- ci:").and_then(|rest| rest.strip_suffix("-->"));
                comment = inner.map(|inner| inner.trim().to_owned());
            }
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language)))
                if !language.is_empty() =>
            {
                commands = (&*language == COMMANDS).then(String::new);
            }
            Event::Start(Tag::CodeBlock(_)) => {
                bail!(
                    "a block of code has to say its language: ```{COMMANDS} for commands, ```text for what is shown"
                );
            }
            Event::Text(text) => {
                if let Some(commands) = &mut commands {
                    commands.push_str(&text);
                }
            }
            Event::End(TagEnd::CodeBlock) => {
                if let Some(commands) = commands.take() {
                    let how = comment.take().with_context(|| {
                        format!(
                            "no comment `<!-- ci: … -->` stands before these commands:\n{commands}"
                        )
                    })?;
                    blocks.push(Block { how: how_of(&how)?, commands });
                }
            }
            Event::Start(Tag::Paragraph | Tag::Heading { .. }) => comment = None,
            _ => {}
        }
    }
    Ok(blocks)
}

fn how_of(text: &str) -> Result<How> {
    if let Some(name) = text.strip_prefix("step ") {
        return Ok(How::Step(name.trim().to_owned()));
    }
    if let Some(why) = text.strip_prefix("not:") {
        return Ok(How::Not(why.trim().to_owned()));
    }
    match text {
        "guest" => Ok(How::Guest),
        "host" => Ok(How::Host),
        "itself" => Ok(How::Itself),
        other => bail!("`ci: {other}` is no way to run commands"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_run_as_the_comment_before_it_says() {
        let page = "# A\n\n<!-- ci: guest -->\n```sh\nmigscope check\nmigscope top\n```\n\nWords.\n\n\
                    ```text\nno command\n```\n\n<!-- ci: step demo --json -->\n```sh\ncargo xtask demo\n```\n";
        let block = |how, commands: &str| Block { how, commands: commands.into() };
        assert_eq!(
            blocks(page).expect("good"),
            [
                block(How::Guest, "migscope check\nmigscope top\n"),
                block(How::Step("demo --json".into()), "cargo xtask demo\n"),
            ]
        );
    }

    #[test]
    fn commands_that_nobody_runs_are_an_error() {
        for (page, said) in [
            ("```sh\nls\n```\n", "no comment"),
            ("<!-- ci: guest -->\n\nWords.\n\n```sh\nls\n```\n", "no comment"),
            ("<!-- ci: sometimes -->\n```sh\nls\n```\n", "is no way"),
            ("    ls\n", "has to say its language"),
        ] {
            let error = blocks(page).expect_err(page);
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
