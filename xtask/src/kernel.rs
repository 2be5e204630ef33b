// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask kernel`: the guest's kernel, with Rust support.
//!
//! ```text
//! kernel-DIGEST/
//!   build/     the O= folder; what an out-of-tree module is built against
//!   modules/   its modules, stripped, as modules_install lays them out
//!   log        everything that make said
//! ```

mod config;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cache::Key;
use crate::child;
use crate::progress::Steps;
use crate::setup::packages::{self, Group};
use crate::setup::rust::Rust;
use crate::setup::{bindgen, kernel_source};
use crate::workspace::Workspace;

/// Lines that `make bzImage modules` prints for the pinned release with our configuration.
const STEPS: u64 = 2282;
/// The fragment, below the checkout.
const FRAGMENT: &str = "tests/vm/kernel.config";

/// A kernel that is built.
pub(crate) struct Kernel {
    entry: PathBuf,
    pub(crate) source: PathBuf,
    /// What `uname -r` says in the guest.
    pub(crate) release: String,
}

impl Kernel {
    /// The kernel from the cache, built if it is not there.
    pub(crate) fn ensure(workspace: &Workspace) -> Result<Self> {
        let make = Make::find(workspace)?;
        let fragment = fs::read_to_string(workspace.root.join(FRAGMENT))
            .with_context(|| format!("failed to read {FRAGMENT}"))?;
        let requested = config::parse(&fragment).with_context(|| format!("in {FRAGMENT}"))?;
        let tool = |program: &str| child::capture(Command::new(program).arg("--version"));
        let key = Key::new()
            .with("fragment", &fragment)
            .with("source", kernel_source::version(&make.source)?)
            // Generated Makefiles name the source tree by its absolute path.
            .with("source tree", make.source.to_string_lossy())
            .with("rustc", &make.rust.version)
            .with("bindgen", bindgen::version(&make.bindgen)?)
            .with("gcc", tool("gcc")?)
            .with("ld", tool("ld")?)
            .with("pahole", tool("pahole")?);
        let entry = workspace.cache.make_in_place("kernel", &key, |dir| {
            let log = dir.join("log");
            build(&make, &fragment, &requested, dir, &log)
                .with_context(|| format!("the end of {}:\n{}\n", log.display(), child::tail(&log)))
        })?;
        let release = fs::read_to_string(entry.join("build/include/config/kernel.release"))
            .context("failed to read the kernel's release")?
            .trim()
            .to_owned();
        Ok(Self { entry, source: make.source, release })
    }

    /// The build tree, for `make -C`.
    pub(crate) fn build_tree(&self) -> PathBuf {
        self.entry.join("build")
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.entry.join("build/arch/x86/boot/bzImage")
    }

    /// What belongs at `/lib/modules/RELEASE` in the guest.
    pub(crate) fn modules(&self) -> PathBuf {
        self.entry.join("modules/lib/modules").join(&self.release)
    }
}

/// `make` in a kernel tree, with the tools that Rust in the kernel needs.
pub(crate) struct Make {
    pub(crate) rust: Rust,
    bindgen: PathBuf,
    source: PathBuf,
}

impl Make {
    pub(crate) fn find(workspace: &Workspace) -> Result<Self> {
        packages::ensure(&[Group::Kernel, Group::Bindgen])?;
        Ok(Self {
            rust: Rust::find(workspace)?,
            bindgen: bindgen::ensure(workspace)?,
            source: kernel_source::ensure(workspace)?,
        })
    }

    /// `make -C tree`, for as many jobs as there are CPUs.
    pub(crate) fn command(&self, tree: &Path) -> Result<Command> {
        let jobs = std::thread::available_parallelism().context("failed to count the CPUs")?;
        let mut command = child::bound("make");
        command
            .arg("-C")
            .arg(tree)
            .arg(format!("-j{jobs}"))
            // As an argument: kbuild's own `BINDGEN = bindgen` beats the environment.
            .arg(format!("BINDGEN={}", self.bindgen.display()))
            .env("PATH", self.rust.path(&[])?)
            .env("LIBCLANG_PATH", bindgen::libclang())
            .env("RUST_LIB_SRC", &self.rust.library);
        // A cargo above us speaks to its own children through these; make would listen, and clippy would
        // take our compiler version for the kernel's oldest.
        for name in [
            "MAKEFLAGS",
            "MFLAGS",
            "MAKELEVEL",
            "CARGO_MAKEFLAGS",
            "CARGO_PKG_RUST_VERSION",
            "RUSTFLAGS",
        ] {
            command.env_remove(name);
        }
        Ok(command)
    }
}

fn build(
    make: &Make,
    fragment: &str,
    requested: &[config::Symbol],
    dir: &Path,
    log: &Path,
) -> Result<()> {
    let tree = dir.join("build");
    fs::create_dir_all(&tree).context("failed to make the build tree")?;
    eprintln!("building the kernel, once, in about 15 minutes on two CPUs; log: {}", log.display());
    let command = || -> Result<Command> {
        let mut command = make.command(&make.source)?;
        command.arg(format!("O={}", tree.display()));
        Ok(command)
    };

    // On a resumed build this writes the same .config again; kbuild compares symbols, not dates, and
    // compiles nothing anew.
    let allconfig = dir.join("requested.config");
    fs::write(&allconfig, fragment).context("failed to write the requested configuration")?;
    child::logged(command()?.arg("allnoconfig").env("KCONFIG_ALLCONFIG", &allconfig), log, |_| {})?;
    let resolved = fs::read_to_string(tree.join(".config")).context("failed to read .config")?;
    config::verify(requested, &resolved)?;
    child::logged(command()?.arg("rustavailable"), log, |_| {})
        .context("the kernel's build finds its Rust tools unfit")?;

    let mut steps = Steps::new("kernel", STEPS);
    child::logged(command()?.args(["bzImage", "modules"]), log, |line| {
        // `  CC      fs/aio.o`; anything else is chatter.
        if line.starts_with("  ") {
            steps.step(line.trim_start());
        }
    })?;
    steps.finish();
    child::logged(
        command()?
            .arg("modules_install")
            .arg(format!("INSTALL_MOD_PATH={}", dir.join("modules").display()))
            // The guest reads them over 9p; DWARF is nine tenths of them, and BTF stays.
            .arg("INSTALL_MOD_STRIP=1"),
        log,
        |_| {},
    )
}

/// Builds the kernel and says where it is.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let kernel = Kernel::ensure(workspace)?;
    println!("{}", kernel.image().display());
    Ok(())
}
