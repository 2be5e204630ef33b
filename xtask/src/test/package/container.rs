// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The container file: an image is built of it, over the clean Debian, and run with the capabilities that it says it needs and no others.
//!
//! buildah's `chroot` isolation is all that this takes: no daemon, no registry, no control groups. The namespaces of a container are a
//! runtime's part, and not tried here.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::child;
use crate::setup::debian_root;
use crate::setup::packages::{self, Group};
use crate::workspace::Workspace;

const FILE: &str = "agent/dist/container/Containerfile";
const BASE: &str = "localhost/clean-debian:1";
const IMAGE: &str = "localhost/migscope:test";

/// What it is given beside what buildah gives, which it then takes away.
const CAPABILITIES: [&str; 3] = ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN"];

/// Runs in the container. Who has no capability but these starts the agent, and asks it.
const INSIDE: &str = r#"
set -e
only() { setpriv --inh-caps=-all --bounding-set=-all,+bpf,+perfmon,+sys_admin "$@"; }
only migscope check --json >/check || [ $? -le 2 ]
only migscope agent --web.listen-address=127.0.0.1:0 --log.format=json 2>/log &
for _ in $(seq 200); do
    port=$(sed -n 's/.*"address":"127.0.0.1:\([0-9]*\)".*/\1/p' /log)
    if [ -n "$port" ]; then break; fi
    sleep 0.1
done
exec 3<>"/dev/tcp/127.0.0.1/$port"
printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
cat <&3 >/metrics
kill -TERM $!
wait $! || true
cat /check
echo
echo ----
cat /metrics
"#;

pub(super) fn check(workspace: &Workspace, package: &Path) -> Result<()> {
    packages::ensure(&[Group::Container])?;
    let archive = debian_root::ensure(workspace)?;
    let store = tempfile::tempdir().context("failed to make a folder for images")?;
    let buildah = |arguments: &[&str]| {
        let mut command = Command::new("buildah");
        command
            .arg("--root")
            .arg(store.path().join("root"))
            .arg("--runroot")
            .arg(store.path().join("run"))
            .args(arguments)
            .current_dir(&workspace.root);
        command
    };
    let said = |arguments: &[&str]| child::capture(&mut buildah(arguments));
    let container = said(&["from", "scratch"])?;
    child::capture(buildah(&["add", "--quiet", &container]).arg(archive).arg("/"))?;
    said(&["commit", "--quiet", &container, BASE])?;
    let (unpacker, base) = (format!("UNPACKER={BASE}"), format!("BASE={BASE}"));
    let folder = package.parent().context("the package is in no folder")?;
    let name = package.file_name().and_then(|name| name.to_str()).context("it has no name")?;
    let mut build = buildah(&["build", "--quiet", "--isolation", "chroot", "--file", FILE]);
    build.args(["--build-arg", &unpacker, "--build-arg", &base]);
    build.args(["--build-arg", &format!("PACKAGE={name}"), "--tag", IMAGE]).arg(folder);
    child::capture(&mut build).context("the image could not be built")?;

    let container = said(&["from", IMAGE])?;
    let mut run = vec!["run", "--isolation", "chroot"];
    run.extend(CAPABILITIES.iter().flat_map(|capability| ["--cap-add", capability]));
    run.extend([&container, "--", "bash", "-c", INSIDE]);
    let told = said(&run)?;
    let (check, metrics) = told.split_once("\n----\n").context("the container told nothing")?;
    let check: serde_json::Value = serde_json::from_str(check).context("`check` tells no JSON")?;
    let host = check["host"].as_array().context("`check` tells nothing of the host")?;
    let enough = host.iter().any(|it| it["name"] == "privilege" && it["available"] == true);
    ensure!(enough, "BPF, PERFMON and SYS_ADMIN are not enough: {check}");
    ensure!(metrics.starts_with("HTTP/1.") && metrics.contains(" 200 "), "no metrics: {metrics}");
    ensure!(metrics.contains("\nmigscope_build_info{"), "no metrics: {metrics}");

    let image = said(&["inspect", "--type", "image", IMAGE])?;
    let image: serde_json::Value = serde_json::from_str(&image).context("an image is no JSON")?;
    let entry = &image["OCIv1"]["config"]["Entrypoint"][0];
    ensure!(entry == "/usr/bin/migscope", "its entry is {entry}");
    // Overlays of containers that are still there would keep the folder.
    said(&["rm", "--all"])?;
    said(&["rmi", "--all", "--force"])?;
    Ok(())
}
