// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The agent as it is put on hosts: the Debian package, from its first installation to its purge, in a Debian that nobody has used yet.

mod booted;
mod clean_root;
mod container;
mod exposure;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::report::{Counts, Report};
use crate::arch::Arch;
use crate::child;
use crate::package::{self, chart::CHART};
use crate::programs::Programs;
use crate::setup::packages::{self, Group};
use crate::workspace::Workspace;
use clean_root::CleanRoot;

const CONFIGURATION: &str = "/etc/migscope/migscope.toml";
/// What an administrator wrote into it.
const OURS: &str = "\n[migration]\ndowntime-budget = \"150ms\"\n";

/// What stays of a package that was purged: the package manager's own accounts; and what a boot would not leave there, which has what this test puts into the root.
const ACCOUNTS: [&str; 4] = ["/var/lib/dpkg/", "/var/log/", "/var/cache/", "/run/"];

/// All of it.
pub(super) fn steps(workspace: &Workspace, report: &mut Report) {
    const NAMES: [&str; 4] = [
        "Debian package, by lintian",
        "Debian package in a clean root",
        "Debian package under systemd, in the guest",
        "container image, built and run",
    ];
    if !NAMES.iter().any(|name| report.wants(name)) {
        return;
    }
    let mut made = None;
    report.needed("build of the Debian package", || {
        // The agent that the guest runs, which is the same.
        let agent = Programs::build(workspace)?.agent;
        made = Some(package::build(workspace, Arch::native(), &agent, None)?);
        Ok(Counts::ONE_PASSED)
    });
    let Some(package) = made else { return };
    report.step(NAMES[0], || lintian(&package).map(|()| Counts::ONE_PASSED));
    report.step(NAMES[1], || in_a_clean_root(workspace, &package));
    let mut measured = Vec::new();
    report.step(NAMES[2], || {
        let (passed, told) = booted::check(workspace, &package)?;
        measured = told;
        Ok(Counts { passed, ..Counts::default() })
    });
    for line in measured {
        let (what, value) = line.split_once(' ').unwrap_or((&line, ""));
        report.record(what, value);
    }
    report.step(NAMES[3], || container::check(workspace, &package).map(|()| Counts::ONE_PASSED));
}

/// What Debian's own checker finds. Nothing is passed over but what agent/dist/debian/lintian-overrides names, with the reason.
fn lintian(package: &Path) -> Result<()> {
    packages::ensure(&[Group::CleanRoot])?;
    let mut command = Command::new("lintian");
    command.args(["--allow-root", "--no-cfg", "--tag-display-limit", "0", "--info"]);
    child::run(command.args(["--fail-on", "error,warning"]).arg(package))
}

/// Each part is a test; one that fails ends them, since the next begins where it left.
fn in_a_clean_root(workspace: &Workspace, package: &Path) -> Result<Counts> {
    let root = CleanRoot::unpack(workspace)?;
    let before = root.paths()?;
    let version = package::version(workspace)?;
    let later = Later::make(&root, package, &version)?;
    let parts: [(&str, &dyn Fn() -> Result<()>); 6] = [
        ("installed, it is all there", &|| installed(workspace, &root, package)),
        ("the unit is as tight as it says", &|| exposure::check(workspace, &root)),
        ("an upgrade keeps what was configured", &|| upgraded(&root, &later)),
        ("a new configuration is put beside a changed one", &|| conflicting(&root, &later)),
        ("removed, the configuration stays", &|| removed(&root)),
        ("purged, nothing stays", &|| purged(&root, &before)),
    ];
    let mut counts = Counts::default();
    for (name, part) in parts {
        part().with_context(|| name.to_owned())?;
        eprintln!("ok   {name}");
        counts.add(Counts::ONE_PASSED);
    }
    Ok(counts)
}

/// What of the chart's values is looked at.
#[derive(Deserialize)]
struct Values {
    config: String,
}

fn installed(workspace: &Workspace, root: &CleanRoot, package: &Path) -> Result<()> {
    root.put(package, "/run/migscope.deb")?;
    root.run(&["dpkg", "--install", "/run/migscope.deb"])?;
    ensure!(root.run(&["dpkg", "--verify", "migscope"])?.is_empty(), "its files are not its own");

    let said = root.run(&["migscope", "--version"])?;
    ensure!(said == format!("migscope {}", env!("CARGO_PKG_VERSION")), "its version is `{said}`");
    // In a root without /sys nothing can be shown: 2, and each absence with its reason.
    let (code, told) = root.ended(&["migscope", "check", "--json"])?;
    let told: serde_json::Value = serde_json::from_str(&told).context("`check` tells no JSON")?;
    ensure!(code == 2 && told.is_object(), "`check` ended with {code}: {told}");
    root.run(&["migscope", "agent", "--config.file", CONFIGURATION, "--config.check"])?;

    // The chart's settings, which no other test gives to an agent.
    let values = fs::read_to_string(workspace.root.join(CHART).join("values.yaml"))
        .context("failed to read the chart's values")?;
    let values: Values = serde_saphyr::from_str(&values).context("the chart's values are none")?;
    fs::write(root.path("/run/chart.toml"), values.config)
        .context("failed to write its settings")?;
    root.run(&["migscope", "agent", "--config.file", "/run/chart.toml", "--config.check"])?;

    for page in ["migscope", "migscope-agent", "migscope-check", "migscope-report"] {
        let text = root.run(&["zcat", &format!("/usr/share/man/man1/{page}.1.gz")])?;
        ensure!(text.contains(".TH "), "{page}(1) is no manual page");
    }
    let completions = "/usr/share/bash-completion/completions/migscope";
    root.run(&["bash", "-n", completions])?;
    for file in [
        "/usr/share/zsh/vendor-completions/_migscope",
        "/usr/share/fish/vendor_completions.d/migscope.fish",
        "/usr/share/doc/migscope/copyright",
        "/usr/share/doc/migscope/third-party-licences.gz",
        "/usr/share/doc/migscope/changelog.gz",
        "/usr/share/doc/migscope/changelog.Debian.gz",
    ] {
        ensure!(root.path(file).is_file(), "{file} is missing");
    }
    ensure!(is_enabled(root, "migscope.service")?, "the service is not enabled");
    ensure!(
        !is_enabled(root, "migscope.socket")?,
        "the socket is enabled, and has the service's port"
    );
    root.run(&["systemd-analyze", "verify", "--man=no", "migscope.service", "migscope.socket"])?;
    Ok(())
}

/// What an administrator changed is what an upgrade leaves alone.
fn upgraded(root: &CleanRoot, later: &Later) -> Result<()> {
    let configuration = root.path(CONFIGURATION);
    let mut text = fs::read_to_string(&configuration).context("failed to read it")?;
    text += OURS;
    fs::write(&configuration, &text).context("failed to change it")?;
    root.run(&["systemctl", "disable", "migscope.service"])?;
    root.run(&["dpkg", "--install", &later.same])?;
    ensure!(fs::read_to_string(&configuration)? == text, "the configuration was changed");
    ensure!(!is_enabled(root, "migscope.service")?, "a service that was disabled is enabled again");
    Ok(())
}

/// The package's configuration changed too: dpkg would ask, and is told to keep what is there.
fn conflicting(root: &CleanRoot, later: &Later) -> Result<()> {
    root.run(&["dpkg", "--force-confold", "--install", &later.other])?;
    let kept = fs::read_to_string(root.path(CONFIGURATION)).context("failed to read it")?;
    ensure!(kept.ends_with(OURS), "the configuration was replaced");
    let new = format!("{CONFIGURATION}.dpkg-dist");
    let new = fs::read_to_string(root.path(&new)).context("the new one is not put beside it")?;
    ensure!(new.ends_with(Later::COMMENT), "what is put beside it is not the package's");
    Ok(())
}

fn removed(root: &CleanRoot) -> Result<()> {
    root.run(&["dpkg", "--remove", "migscope"])?;
    ensure!(!root.path("/usr/bin/migscope").exists(), "the program is still there");
    let kept = fs::read_to_string(root.path(CONFIGURATION)).context("the configuration is gone")?;
    ensure!(kept.ends_with(OURS), "the configuration was changed");
    Ok(())
}

fn purged(root: &CleanRoot, before: &BTreeSet<PathBuf>) -> Result<()> {
    // What a running agent leaves there, as systemd makes it for a user of its own.
    for (file, link) in [
        ("/var/lib/private/migscope/agent.migscope", "/var/lib/migscope"),
        ("/var/log/private/migscope/latency.hlog", "/var/log/migscope"),
    ] {
        let path = root.path(file);
        let folder = path.parent().context("a file is in a folder")?;
        fs::create_dir_all(folder).context("failed to make a folder")?;
        fs::write(&path, "").context("failed to make a file")?;
        std::os::unix::fs::symlink("private/migscope", root.path(link)).context("no link")?;
    }
    root.run(&["dpkg", "--purge", "migscope"])?;
    let after = root.paths()?;
    let left: Vec<_> = after
        .difference(before)
        .filter(|path| !ACCOUNTS.iter().any(|folder| path.starts_with(folder)))
        .filter(|path| {
            !["/var/lib/private", "/var/log/private"].iter().any(|it| *path == Path::new(it))
        })
        .collect();
    ensure!(left.is_empty(), "these stay: {left:?}");
    for folder in ["/var/lib/private/migscope", "/var/log/private/migscope"] {
        ensure!(!root.path(folder).exists(), "{folder} stays");
    }
    let known = root.run(&["dpkg-query", "--show", "--showformat=${Package} "])?;
    ensure!(!known.split(' ').any(|name| name == "migscope"), "dpkg still knows it");
    Ok(())
}

fn is_enabled(root: &CleanRoot, unit: &str) -> Result<bool> {
    let (_code, said) = root.ended(&["systemctl", "is-enabled", unit])?;
    match said.as_str() {
        "enabled" => Ok(true),
        "disabled" => Ok(false),
        _ => anyhow::bail!("systemctl says of {unit}: `{said}`"),
    }
}

/// Two later versions of a package, in the root.
struct Later {
    /// With the same configuration.
    same: String,
    /// With another one.
    other: String,
}

impl Later {
    const COMMENT: &str = "# This is new.\n";

    fn make(root: &CleanRoot, package: &Path, version: &str) -> Result<Self> {
        let scratch = tempfile::tempdir().context("failed to make a scratch folder")?;
        let tree = scratch.path().join("tree");
        child::run(Command::new("dpkg-deb").arg("--raw-extract").arg(package).arg(&tree))?;
        let made = |step: u32| -> Result<String> {
            let control = tree.join("DEBIAN/control");
            let text = fs::read_to_string(&control).context("the package has no control file")?;
            let line = text.lines().find(|line| line.starts_with("Version: "));
            let line = line.context("the package has no version")?;
            fs::write(&control, text.replace(line, &format!("Version: {version}+{step}")))
                .context("failed to write a version")?;
            let name = format!("/run/later-{step}.deb");
            let mut build = Command::new("dpkg-deb");
            build.args(["--root-owner-group", "-Znone", "--build"]).arg(&tree);
            child::capture(build.arg(root.path(&name)))?;
            Ok(name)
        };
        let same = made(1)?;
        let configuration = tree.join(CONFIGURATION.trim_start_matches('/'));
        let text =
            fs::read_to_string(&configuration).context("the package has no configuration")?;
        fs::write(&configuration, text + Self::COMMENT).context("failed to change it")?;
        Ok(Self { same, other: made(2)? })
    }
}
