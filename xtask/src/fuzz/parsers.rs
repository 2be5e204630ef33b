// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask fuzz parsers`: the fuzz targets of the agent (tests/parsers), fed by libFuzzer.
//!
//! ```text
//!   target/xtask/parsers/  ─┬─ …             what the compiler made
//!                           ├─ corpus/TARGET    what led somewhere new; a run goes on from it
//!                           ├─ findings/TARGET  what a target failed on
//!                           └─ logs/TARGET      what libFuzzer said
//! ```

mod libfuzzer;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::child;
use crate::miri::TOOLCHAIN;
use crate::workspace::Workspace;
use libfuzzer::{Heard, Pulse};

const PACKAGE: &str = "parsers";
const PROGRAM: &str = "migscope-parsers";
/// One after the other in `cargo xtask test`.
pub(crate) const SHORT_SECONDS: u64 = 4;

/// What cargo-fuzz passes to the compiler (its `src/project.rs`, version 0.13): each edge counts, each comparison is told, memory is
/// watched, and overflows and debug assertions are on. One codegen unit, because units that are instrumented inline nothing from each
/// other.
const FLAGS: [&str; 12] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg",
    "fuzzing",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Zsanitizer=address",
    "-Cllvm-args=-sanitizer-coverage-stack-depth",
    "-Cdebug-assertions",
    "-Ccodegen-units=1",
];

/// What libFuzzer takes for a finding beside a panic: an input that takes longer or more memory than any should, and one allocation of
/// more than the largest thing that an input can ask for, eight blocks of a recording.
const LIMITS: [&str; 3] = ["-timeout=20", "-rss_limit_mb=2048", "-malloc_limit_mb=64"];

/// Arguments of `fuzz parsers`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// How long for each target
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub(crate) seconds: u64,
    /// One of them alone, by the name of its file in tests/parsers/src/target [default: all]
    #[arg(value_name = "TARGET")]
    pub(crate) target: Option<String>,
}

/// The program with all targets, instrumented.
pub(crate) struct Program {
    path: PathBuf,
    folder: PathBuf,
    targets: Vec<String>,
}

/// What became of the targets.
pub(crate) struct Results(Vec<(String, Heard)>);

/// Builds the program. The outer error: there is no compiler that could, nor a way to get one.
pub(crate) fn program(workspace: &Workspace) -> Result<Result<Program>> {
    let version = toolchain()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.with_context(|| format!("{TOOLCHAIN} does not say for what it compiles"))?;
    Ok(build(workspace, host))
}

/// What the compiler says of itself; gets it where it is missing.
fn toolchain() -> Result<String> {
    let version =
        || child::capture(Command::new("rustup").args(["run", TOOLCHAIN, "rustc", "-vV"]));
    version().or_else(|_missing| {
        eprintln!("getting {TOOLCHAIN} to instrument with, with rustup");
        let arguments = ["toolchain", "install", TOOLCHAIN, "--profile", "minimal"];
        child::run(Command::new("rustup").args(arguments)).with_context(|| {
            format!(
                "there is no fuzzing led by coverage without the toolchain {TOOLCHAIN} (rustup {}); `cargo test -p {PACKAGE}` \
                 feeds the same targets without it",
                arguments.join(" ")
            )
        })?;
        version()
    })
}

fn build(workspace: &Workspace, host: &str) -> Result<Program> {
    let folder = workspace.output("parsers")?;
    let mut command = child::bound("rustup");
    command.current_dir(&workspace.root).args(["run", TOOLCHAIN, "cargo", "build", "--release"]);
    // A few seconds of fuzzing pay for no more.
    command.args(["--config", "profile.release.opt-level=1"]);
    // With a target of their own, build scripts and macros are not instrumented.
    command.args(["--package", PACKAGE, "--bins", "--target", host, "--target-dir"]).arg(&folder);
    // In this form it counts before all other settings of flags.
    command.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    child::run(&mut command)?;
    let path = folder.join(host).join("release").join(PROGRAM);
    let targets = targets(&workspace.root)?;
    Ok(Program { path, folder, targets })
}

/// The names of the targets: each is a file.
fn targets(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("tests/parsers/src/target");
    let files = || -> io::Result<Vec<PathBuf>> {
        fs::read_dir(&folder)?.map(|file| Ok(file?.path())).collect()
    };
    let files = files().with_context(|| format!("failed to list {}", folder.display()))?;
    let stem = |path: &PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    let mut names: Vec<_> = files.iter().filter(|path| is_rust(path)).filter_map(stem).collect();
    names.sort();
    ensure!(!names.is_empty(), "{} has no target", folder.display());
    Ok(names)
}

/// What a run begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// The seeds, and what earlier runs have kept.
    Corpus,
    /// The seeds alone: takes as long on every machine.
    Seeds,
}

impl Program {
    /// Fuzzes one target; an error is one of the machine, not of the target.
    fn fuzz(&self, target: &str, seconds: u64, begin: Begin) -> Result<Heard> {
        let Self { path, folder, .. } = self;
        let made = |name: &str| -> Result<PathBuf> {
            let path = folder.join(name).join(target);
            fs::create_dir_all(&path)
                .with_context(|| format!("failed to make {}", path.display()))?;
            Ok(path)
        };
        let corpus = match begin {
            Begin::Corpus => made("corpus")?,
            Begin::Seeds => {
                let corpus = made("short")?;
                fs::remove_dir_all(&corpus)
                    .with_context(|| format!("failed to empty {}", corpus.display()))?;
                made("short")?
            }
        };
        let findings = made("findings")?;
        let log = made("logs")?.join("libfuzzer.log");
        // That of the last run.
        let _ = fs::remove_file(&log);
        let mut command = child::bound(path);
        command.env("MIGSCOPE_PARSER", target).env("MIGSCOPE_PARSER_SEEDS", &corpus);
        // Two crates may have a static of the same name.
        command.env("ASAN_OPTIONS", "detect_odr_violation=0");
        command.arg(&corpus).arg(format!("-max_total_time={seconds}")).args(LIMITS);
        command.arg(format!("-artifact_prefix={}/", findings.display()));
        command.arg("-print_final_stats=1");
        let mut heard = Heard::default();
        let mut pulse = Pulse::new(target, Duration::from_secs(seconds));
        let done = child::logged(&mut command, &log, |line| {
            heard.hear(line);
            pulse.beat(&heard);
        });
        match done {
            Ok(()) => Ok(heard),
            // What it failed on, and how, is told in the end.
            Err(_) if heard.finding.is_some() => Ok(heard),
            Err(error) => Err(error),
        }
    }
}

/// Fuzzes all targets from their seeds on.
///
/// # Errors
///
/// One could not be run.
pub(crate) fn short(program: &Program) -> Result<Results> {
    fuzz(program, &program.targets, SHORT_SECONDS, Begin::Seeds)
}

fn fuzz(program: &Program, targets: &[String], seconds: u64, begin: Begin) -> Result<Results> {
    let mut results = Vec::new();
    for target in targets {
        results.push((target.clone(), program.fuzz(target, seconds, begin)?));
    }
    Ok(Results(results))
}

/// The subcommand.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode> {
    let Arguments { seconds, target } = arguments;
    let program = program(workspace)??;
    let chosen = match target {
        None => program.targets.clone(),
        Some(target) if program.targets.contains(target) => vec![target.clone()],
        Some(target) => {
            bail!("there is no target {target}; there are {}", program.targets.join(", "))
        }
    };
    let results = fuzz(&program, &chosen, *seconds, Begin::Corpus)?;
    println!("{results}");
    Ok(if results.counts().1 == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Results {
    /// Targets that held, and those that did not.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let held = |(_, heard): &&(String, Heard)| heard.finding.is_none();
        let passed = self.0.iter().filter(held).count() as u64;
        (passed, self.0.len() as u64 - passed)
    }
}

/// A line a target; then, for what was found, where it is and how to look at it.
impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(results) = self;
        writeln!(
            f,
            "target         inputs  a second   edges, from the seeds   kept  slowest  RSS"
        )?;
        for (target, heard) in results {
            writeln!(f, "{target:12} {heard}")?;
        }
        let findings = results
            .iter()
            .filter_map(|(target, heard)| Some((target, &heard.how, heard.finding.as_ref()?)));
        let mut found = false;
        for (target, how, finding) in findings {
            found = true;
            writeln!(f, "{target} failed on {}", finding.display())?;
            for line in how {
                writeln!(f, "  {line}")?;
            }
            writeln!(f, "  look at it:  cargo run -p {PACKAGE} -- {target} {}", finding.display())?;
            writeln!(f, "  once mended: keep it, named, in tests/parsers/findings/{target}")?;
        }
        if found { Ok(()) } else { write!(f, "nothing was found") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_said_with_how_to_look_at_it() {
        let mut bad = Heard::default();
        bad.hear("artifact_prefix='/t/'; Test unit written to /t/crash-12");
        let results = Results(vec![("abi".into(), Heard::default()), ("ring".into(), bad)]);
        assert_eq!(results.counts(), (1, 1));
        let text = results.to_string();
        assert!(text.contains("cargo run -p parsers -- ring /t/crash-12"), "{text}");
    }

    #[test]
    fn every_target_is_a_file_of_its_name() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the checkout");
        let names = targets(root).expect("they are there");
        assert!(names.iter().any(|name| name == "ring"), "{names:?}");
        let library = fs::read_to_string(root.join("tests/parsers/src/lib.rs")).expect("text");
        for name in &names {
            assert!(library.contains(&format!("name: \"{name}\"")), "{name}");
        }
        assert_eq!(library.matches("        name: \"").count(), names.len());
    }
}
