// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The user-space programs that go into the guest: agent, migrator, demo, and the tests.

use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Artifact, Message};

use crate::arch::Arch;
use crate::build_ebpf;
use crate::child;
use crate::workspace::Workspace;

/// The agent's build script embeds the object that this names.
pub(crate) const OBJECT: &str = "MIGSCOPE_EBPF_OBJECT";

/// Packages of the workspace without unit tests for the host: the probes, and the tests that run in the guest.
pub(crate) const NOT_ON_THE_HOST: [&str; 4] =
    ["--exclude", build_ebpf::PACKAGE, "--exclude", "cases"];

/// An executable that cargo built.
pub(crate) struct Executable {
    /// Of the target: the binary's or the test's.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// What runs in the guest, optimised: that is what users run, and TCG is slow enough.
pub(crate) struct Programs {
    pub(crate) agent: PathBuf,
    pub(crate) migrator: PathBuf,
    pub(crate) demo: PathBuf,
    pub(crate) suspend: PathBuf,
    pub(crate) stage: PathBuf,
    pub(crate) monitored: PathBuf,
}

impl Programs {
    pub(crate) fn build(workspace: &Workspace) -> Result<Self> {
        let packages = ["migscope", "migrator", "cases"];
        let mut arguments = vec!["build", "--release", "--bins"];
        arguments.extend(packages.iter().flat_map(|name| ["--package", name]));
        let built = executables(cargo(workspace)?.args(arguments), |_| true)?;
        let find = |name: &str| {
            let found = built.iter().find(|executable| executable.name == name);
            found
                .map(|executable| executable.path.clone())
                .with_context(|| format!("cargo built no program {name}"))
        };
        Ok(Self {
            agent: find("migscope")?,
            migrator: find("migrator")?,
            demo: find("migscope-demo")?,
            suspend: find("migscope-suspend")?,
            stage: find("migscope-stage")?,
            monitored: find("migscope-monitored")?,
        })
    }

    /// Tells the programs in the guest where the others are.
    pub(crate) fn environment(&self) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
        let Self { agent, migrator, .. } = self;
        vec![("MIGSCOPE_AGENT".into(), agent.into()), ("MIGSCOPE_MIGRATOR".into(), migrator.into())]
    }
}

/// The fuzzer: the faster it is, the more it tries.
pub(crate) fn fuzzer(workspace: &Workspace) -> Result<PathBuf> {
    program(workspace, "fuzz")
}

/// The benchmarks.
pub(crate) fn bench(workspace: &Workspace) -> Result<PathBuf> {
    program(workspace, "perf")
}

/// Simulated migrations and the score of those who predict them.
pub(crate) fn prediction(workspace: &Workspace) -> Result<PathBuf> {
    program(workspace, "prediction")
}

/// The one program of a package, optimised.
fn program(workspace: &Workspace, package: &str) -> Result<PathBuf> {
    let mut command = child::bound("cargo");
    command.current_dir(&workspace.root);
    command.args(["build", "--release", "--bins", "--package", package]);
    // What it builds of other packages is none of its programs.
    let built = executables(&mut command, |artifact| artifact.target.is_bin())?;
    let [program] = built.as_slice() else {
        bail!("the package {package} has {} programs, and not one", built.len());
    };
    Ok(program.path.clone())
}

/// An example of the agent's. Of all packages that the unit tests are of, so that cargo compiles what they share with it once: which
/// features a dependency gets depends on what else is asked for.
pub(crate) fn example(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    let mut command = cargo(workspace)?;
    command.args(["build", "--quiet", "--workspace"]).args(NOT_ON_THE_HOST);
    command.args(["--example", name]);
    let built = executables(&mut command, |artifact| artifact.target.name == name)?;
    let example = built.into_iter().next();
    example.map(|example| example.path).with_context(|| format!("cargo built no example {name}"))
}

/// The test binaries of `cases`. Not optimised: with overflow checks and debug assertions.
pub(crate) fn guest_tests(workspace: &Workspace) -> Result<Vec<Executable>> {
    // Cargo also builds the package's plain programs, for tests that call them, and a test binary of
    // each, which is empty: what a program does is in the library.
    executables(cargo(workspace)?.args(["test", "--no-run", "--package", "cases"]), |artifact| {
        artifact.profile.test && !artifact.target.is_bin()
    })
}

/// One test binary of `cases`.
pub(crate) fn guest_test(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    let mut command = cargo(workspace)?;
    command.args(["test", "--no-run", "--package", "cases", "--test", name]);
    let built = executables(&mut command, |artifact| artifact.target.name == name)?;
    let test = built.into_iter().next();
    test.map(|test| test.path).with_context(|| format!("cargo built no test {name}"))
}

/// Cargo in the workspace, with the probes for the agent to embed. All builds of the agent in one run
/// say the same here, or each would throw away what the last one compiled.
pub(crate) fn cargo(workspace: &Workspace) -> Result<Command> {
    let object = build_ebpf::build(workspace, Arch::native(), true)?;
    let mut command = child::bound("cargo");
    command.current_dir(&workspace.root).env(OBJECT, object);
    // Of the cargo that runs this program. Build scripts look at some of them (ring's does), and would run anew, with all that builds
    // upon them, whenever a plain cargo and this one take turns.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    Ok(command)
}

/// Runs a cargo build and returns those of the executables that it says it made which are wanted.
fn executables(
    command: &mut Command,
    wanted: impl Fn(&Artifact) -> bool,
) -> Result<Vec<Executable>> {
    command.arg("--message-format=json-render-diagnostics");
    let shown = child::show(command);
    let mut cargo = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to start {shown}"))?;
    let stdout = cargo.stdout.take().context("cargo has no stdout")?;
    let mut found = Vec::new();
    for message in Message::parse_stream(BufReader::new(stdout)) {
        let message = message.with_context(|| format!("failed to read what {shown} says"))?;
        if let Message::CompilerArtifact(artifact) = message
            && wanted(&artifact)
            && let Some(path) = artifact.executable
        {
            found.push(Executable { name: artifact.target.name, path: path.into() });
        }
    }
    let status = cargo.wait().with_context(|| format!("failed to wait for {shown}"))?;
    if !status.success() {
        bail!("{shown} failed: {status}");
    }
    Ok(found)
}
