// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask package`: the agent as a Debian package.
//!
//! cargo-deb does the packaging; what goes where is in agent/Cargo.toml, `package.metadata.deb`. Here is made what it takes and is not in
//! the checkout: the agent, and beside it a folder `package` with what the agent and cargo tell of themselves.

pub(crate) mod chart;
mod licences;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::arch::Arch;
use crate::build_agent::{self, Profile};
use crate::child;
use crate::setup::cargo_deb;
use crate::setup::packages::{self, Group};
use crate::workspace::Workspace;

/// The changelog as Debian has it. Its first version is the package's.
const CHANGELOG: &str = "agent/dist/debian/changelog";
/// In the folder of the agent.
const GENERATED: &str = "package";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The machine that it is for, as `uname -m` says it [default: this one's]
    #[arg(long, value_enum, default_value_t = Arch::native())]
    arch: Arch,
    /// Pack the Helm chart instead, with the alerts in it
    #[arg(long, conflicts_with_all = ["arch", "maintainer"])]
    chart: bool,
    /// Who answers for the package, `NAME <ADDRESS>` [default: the one in agent/Cargo.toml, which nobody can write to]
    #[arg(long, value_name = "MAINTAINER")]
    maintainer: Option<String>,
}

/// The subcommand: builds the agent and the package, and prints the package's path.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let Arguments { arch, chart, maintainer } = arguments;
    if *chart {
        println!("{}", chart::build(workspace)?.display());
        return Ok(());
    }
    let agent = build_agent::build(workspace, *arch, Profile::Release)?;
    println!("{}", build(workspace, *arch, &agent, maintainer.as_deref())?.display());
    Ok(())
}

/// Makes the package of an agent that was built for hosts, where cargo puts it; returns the package's path.
pub(crate) fn build(
    workspace: &Workspace,
    arch: Arch,
    agent: &Path,
    maintainer: Option<&str>,
) -> Result<PathBuf> {
    packages::ensure(&[Group::Package])?;
    let cargo_deb = cargo_deb::ensure(workspace)?;
    generate(workspace, arch, agent)?;
    let package = workspace.output("package")?.join(format!("migscope_{}.deb", arch.debian()));
    let mut command = child::bound(cargo_deb);
    command
        .args(["--package", "migscope", "--no-build", "--locked", "--strip"])
        .args(["--deb-version", &version(workspace)?, "--output"])
        .arg(&package)
        // It looks for some of the files that the manifest names beside the manifest, for others where it runs.
        .current_dir(workspace.root.join("agent"));
    if let Some(maintainer) = maintainer {
        command.args(["--maintainer", maintainer]);
    }
    if !arch.is_native() {
        arch.ensure_cross_tools(workspace)?;
        let triple = arch.triple();
        let variable = format!("CARGO_TARGET_{}", triple.replace('-', "_").to_uppercase());
        command
            .args(["--target", &triple])
            .env(format!("{variable}_STRIP"), format!("{arch}-linux-gnu-strip"))
            .env(format!("{variable}_OBJCOPY"), format!("{arch}-linux-gnu-objcopy"));
    }
    child::run(&mut command).context("the package could not be made")?;
    ensure!(package.is_file(), "cargo-deb made no {}", package.display());
    Ok(package)
}

/// The version that stands first in the changelog. It has to be that of the workspace, and Debian's revision behind it.
pub(crate) fn version(workspace: &Workspace) -> Result<String> {
    let text = fs::read_to_string(workspace.root.join(CHANGELOG))
        .with_context(|| format!("failed to read {CHANGELOG}"))?;
    let first = text.lines().next().unwrap_or_default();
    let version = first
        .split_once('(')
        .and_then(|(_name, rest)| rest.split_once(')'))
        .map(|(version, _rest)| version)
        .with_context(|| format!("{CHANGELOG} does not begin with `migscope (VERSION) …`"))?;
    let upstream = env!("CARGO_PKG_VERSION");
    let is_ours = version.strip_prefix(upstream).is_some_and(|rest| rest.starts_with('-'));
    ensure!(is_ours, "{CHANGELOG} begins with {version}, and the workspace has {upstream}");
    Ok(version.to_owned())
}

/// Writes what the package takes and is not in the checkout into a folder beside the agent.
fn generate(workspace: &Workspace, arch: Arch, agent: &Path) -> Result<()> {
    let folder = agent.parent().context("the agent is in no folder")?.join(GENERATED);
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .context("failed to remove what an older package was made of")?;
    }
    for what in ["man", "completions"] {
        let out = folder.join(what);
        let out = out.to_str().context("the target folder's path is not UTF-8")?;
        let arguments = ["generate", what, "--out", out];
        if arch.is_native() {
            child::run(Command::new(agent).args(arguments))?;
        } else {
            build_agent::emulated(agent, arch, &arguments)?;
        }
    }
    let pages = fs::read_dir(folder.join("man")).context("failed to list the manual pages")?;
    for page in pages {
        let page = page.context("failed to list the manual pages")?.path();
        child::run(Command::new("gzip").arg("-9nf").arg(page))?;
    }
    let licences = folder.join("third-party-licences");
    fs::write(&licences, licences::collect(workspace, arch)?)
        .context("failed to write licences")?;
    child::run(Command::new("gzip").arg("-9nf").arg(licences))?;
    let changelog = File::create(folder.join("changelog.gz")).context("failed to make a file")?;
    let status = Command::new("gzip")
        .args(["-9nc", "CHANGELOG.md"])
        .current_dir(&workspace.root)
        .stdin(Stdio::null())
        .stdout(changelog)
        .status()
        .context("failed to start gzip")?;
    ensure!(status.success(), "gzip of CHANGELOG.md failed: {status}");
    Ok(())
}
