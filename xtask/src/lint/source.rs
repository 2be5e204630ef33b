// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rules for the text of source files: a licence in the first lines, the right one for its folder, and
//! not more lines than one can keep in mind.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use ignore::WalkBuilder;

use crate::workspace::Workspace;

/// A file longer than this holds a second concept that wants a name.
const MAX_LINES: usize = 800;
/// A `#!` line, and in C a `//` line, may come first.
const HEADER_LINES: usize = 2;
const EXTENSIONS: &[&str] = &["rs", "c", "h", "sh", "py", "config", "js", "css", "yml"];
/// Source files that have no extension.
const NAMES: &[&str] = &["Kbuild", "Makefile", "init", "run"];

/// The licences by folder, the first that matches. The driver links with the kernel; what crosses into
/// it or into the BPF verifier's idea of "GPL" is dual.
const LICENCES: &[(&str, &str)] = &[
    ("driver/abi/", "GPL-2.0 OR MIT"),
    ("driver/", "GPL-2.0"),
    ("ebpf/", "GPL-2.0 OR MIT"),
    // It links with the kernel and the driver.
    ("tests/vm/provider/", "GPL-2.0"),
    // It links with the kernel.
    ("tests/vm/region/", "GPL-2.0"),
    ("tests/vm/logging/", "GPL-2.0"),
    ("tests/perf/module/", "GPL-2.0"),
    // Compiled together with files of the driver.
    ("tests/driver/src/", "GPL-2.0"),
    ("", "Apache-2.0 OR MIT"),
];

/// The check.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut complaints = Vec::new();
    for path in files(&workspace.root)? {
        let relative = path.strip_prefix(&workspace.root).unwrap_or(&path);
        let text = fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let text = String::from_utf8_lossy(&text);
        complaints.extend(complain(&relative.to_string_lossy(), &text));
    }
    if !complaints.is_empty() {
        bail!("\n  {}", complaints.join("\n  "));
    }
    Ok(())
}

/// Source files below a folder, but for what git ignores.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    // Hidden folders count: CI's script is in one.
    let walk = WalkBuilder::new(folder).hidden(false).require_git(false).build();
    for item in walk {
        let path =
            item.with_context(|| format!("failed to list {}", folder.display()))?.into_path();
        let in_git = path.components().any(|part| part.as_os_str() == ".git");
        let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
        let name = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
        if !in_git && path.is_file() && (EXTENSIONS.contains(&extension) || NAMES.contains(&name)) {
            found.push(path);
        }
    }
    Ok(found)
}

fn complain(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let wanted = LICENCES.iter().find(|(folder, _)| path.starts_with(folder));
    let wanted = wanted.map(|&(_, licence)| licence).unwrap_or_default();
    let found = text
        .lines()
        .take(HEADER_LINES)
        .find_map(|line| line.split_once("SPDX-License-Identifier: "))
        .map(|(_, licence)| licence.trim_end_matches("*/").trim());
    match found {
        None => complaints.push(format!("{path}: no SPDX-License-Identifier in its first lines")),
        Some(licence) if licence != wanted => {
            complaints.push(format!("{path}: its licence is {licence}, here it is {wanted}"));
        }
        Some(_) => {}
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        complaints.push(format!("{path}: {lines} lines, the limit is {MAX_LINES}"));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_folder_has_its_licence() {
        let text = |licence: &str| format!("// SPDX-License-Identifier: {licence}\n");
        assert!(complain("agent/src/lib.rs", &text("Apache-2.0 OR MIT")).is_empty());
        assert!(complain("driver/region.rs", &text("GPL-2.0")).is_empty());
        assert!(complain("driver/trace.h", "/* SPDX-License-Identifier: GPL-2.0 */\n").is_empty());
        assert!(complain("driver/abi/src/lib.rs", &text("GPL-2.0 OR MIT")).is_empty());
        assert_eq!(complain("agent/src/lib.rs", &text("GPL-2.0")).len(), 1);
        assert_eq!(complain("driver/region.rs", "fn main() {}\n").len(), 1);
    }

    #[test]
    fn a_script_may_begin_with_its_interpreter() {
        let text = "#!/bin/sh\n# SPDX-License-Identifier: Apache-2.0 OR MIT\n";
        assert!(complain("tests/vm/init", text).is_empty());
    }

    #[test]
    fn a_long_file_is_named() {
        let text = format!("// SPDX-License-Identifier: Apache-2.0 OR MIT\n{}", "\n".repeat(800));
        assert_eq!(complain("a.rs", &text), ["a.rs: 801 lines, the limit is 800"]);
    }
}
