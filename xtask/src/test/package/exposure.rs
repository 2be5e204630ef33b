// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the agent's unit leaves open, by `systemd-analyze security`: what is listed here, and nothing else.
//!
//! A limit on the score could be used up by loosening one thing after another. A list cannot: what is opened or closed has to be
//! written down here, with the reason.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::clean_root::CleanRoot;
use crate::workspace::Workspace;

/// The unit and the page say the score, too.
const SAYING: [&str; 2] = ["agent/dist/systemd/migscope.service", "agent/dist/README.md"];

/// What is open, as systemd names it, and why.
const OPEN: [(&str, &str); 14] = [
    ("AmbientCapabilities", "it is a user of its own, who gets them in no other way"),
    ("CapabilityBoundingSet_CAP_BPF", "it loads probes"),
    ("CapabilityBoundingSet_CAP_SYS_ADMIN", "it has the kernel count what probes cost; given up"),
    ("DeviceAllow", "ProtectClock lets the clock be read"),
    ("IPAddressDeny", "who may scrape it is the host's to say: a drop-in, or its own passwords"),
    ("PrivateNetwork", "it is scraped"),
    ("PrivateUsers", "capabilities of a user namespace load no probes"),
    ("ProcSubset", "it looks settings of the kernel up in /proc/sys"),
    ("ProtectProc", "VMMs, which are other users', are looked up in /proc"),
    ("RestrictAddressFamilies_AF_INET_INET6", "it is scraped"),
    ("RestrictAddressFamilies_AF_UNIX", "it tells systemd that it is there, and may listen so"),
    ("RootDirectoryOrRootImage", "it looks at the host"),
    ("SystemCallFilter_debug", "perf_event_open attaches probes to functions"),
    ("SystemCallFilter_privileged", "bpf and capset"),
];

/// One line of the analysis.
#[derive(Deserialize)]
struct Finding {
    json_field: String,
    exposure: Option<String>,
}

/// Looks at the unit as it is installed in a root, by that root's systemd.
pub(super) fn check(workspace: &Workspace, root: &CleanRoot) -> Result<()> {
    let analyze = ["systemd-analyze", "security", "--offline=yes", "--no-pager"];
    let unit = "/usr/lib/systemd/system/migscope.service";
    let told = root.run(&[&analyze[..], &["--json=short", unit]].concat())?;
    let findings: Vec<Finding> =
        serde_json::from_str(&told).context("systemd-analyze tells no JSON")?;
    ensure!(findings.len() > 50, "systemd-analyze looked at {} things only", findings.len());
    let open: BTreeSet<_> = findings
        .iter()
        .filter(|finding| finding.exposure.is_some())
        .map(|finding| finding.json_field.as_str())
        .collect();
    let stated: BTreeSet<_> = OPEN.iter().map(|(name, _reason)| *name).collect();
    let (more, fewer): (Vec<_>, Vec<_>) =
        (open.difference(&stated).collect(), stated.difference(&open).collect());
    ensure!(
        more.is_empty() && fewer.is_empty(),
        "the unit leaves open what is not stated: {more:?}; it closes what is stated as open: {fewer:?}"
    );
    let told = root.run(&[&analyze[..], &[unit]].concat())?;
    let score = told
        .lines()
        .find_map(|line| line.split_once("Overall exposure level for migscope.service: "))
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .context("systemd-analyze told no score")?;
    for page in SAYING {
        let text = fs::read_to_string(workspace.root.join(page))
            .with_context(|| format!("failed to read {page}"))?;
        ensure!(
            text.contains(&format!("gives it {score},")),
            "{page} does not say `gives it {score},` of `systemd-analyze security`"
        );
    }
    Ok(())
}
