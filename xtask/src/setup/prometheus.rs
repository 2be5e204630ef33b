// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The Prometheus server, as Debian packages it.

use std::path::PathBuf;

use anyhow::Result;

use super::unpacked;
use crate::workspace::Workspace;

/// The server, and what its pages are made of.
const PACKAGES: [&str; 11] = [
    "prometheus",
    "fonts-glyphicons-halflings",
    "libjs-bootstrap4",
    "libjs-d3",
    "libjs-eonasdan-bootstrap-datetimepicker",
    "libjs-jquery",
    "libjs-jquery-hotkeys",
    "libjs-moment",
    "libjs-moment-timezone",
    "libjs-mustache",
    "libjs-rickshaw",
];

/// Where it is.
pub(crate) struct Prometheus {
    pub(crate) program: PathBuf,
    /// What `--web.local-assets` of Debian's takes.
    pub(crate) assets: PathBuf,
}

/// The server in the cache.
pub(crate) fn ensure(workspace: &Workspace) -> Result<Prometheus> {
    let tree = unpacked::tree(workspace, "prometheus", &PACKAGES)?;
    Ok(Prometheus {
        program: tree.join("usr/bin/prometheus"),
        assets: tree.join("usr/share/prometheus/web"),
    })
}
