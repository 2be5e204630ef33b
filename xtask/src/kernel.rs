// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's kernels. `cargo xtask kernel`: those that are built here, with Rust support; Debian's are in [`stock`].
//!
//! ```text
//! kernel-DIGEST/, kernel-debug-DIGEST/
//!   build/     the O= folder; what an out-of-tree module is built against
//!   modules/   its modules, stripped, as modules_install lays them out
//!   log        everything that make said
//! ```

mod bootable;
mod choice;
mod config;
mod stock;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cache::Key;
use crate::child;
use crate::progress::Steps;
use crate::setup::packages::{self, Group};
use crate::setup::rust::Rust;
use crate::setup::{self, bindgen, kernel_source};
use crate::workspace::Workspace;
pub(crate) use bootable::Bootable;
pub(crate) use choice::Choice;
pub(crate) use stock::Series;

/// Which kernel the guest runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Variant {
    /// Built from source, as fast as a distribution's
    #[default]
    Ours,
    /// The same, watching itself: lockdep, KASAN, KFENCE, UBSAN, kmemleak, KUnit
    Debug,
}

impl Variant {
    /// The name of its entries in the cache.
    fn entry(self) -> &'static str {
        match self {
            Self::Ours => "kernel",
            Self::Debug => "kernel-debug",
        }
    }

    /// The fragments, below the checkout; a later one overrides an earlier one.
    fn fragments(self) -> &'static [&'static str] {
        match self {
            Self::Ours => &["tests/vm/kernel.config"],
            Self::Debug => &["tests/vm/kernel.config", "tests/vm/debug.config"],
        }
    }

    /// The compiler. With KASAN, Rust has to share LLVM's runtime calls with it: `CONFIG_RUST` depends on
    /// `!KASAN || CC_IS_CLANG`.
    fn compiler(self) -> Compiler {
        match self {
            Self::Ours => Compiler::Gcc,
            Self::Debug => Compiler::Clang,
        }
    }

    /// Lines that `make bzImage modules` prints for the pinned release with our configuration.
    fn steps(self) -> u64 {
        match self {
            Self::Ours => 2315,
            Self::Debug => 2226,
        }
    }
}

/// What compiles a kernel's C, and that of its modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compiler {
    Gcc,
    /// Of [`Group::Bindgen`]; the linker stays GNU's.
    Clang,
}

impl Compiler {
    fn program(self) -> String {
        match self {
            Self::Gcc => "gcc".to_owned(),
            Self::Clang => format!("clang-{}", setup::LLVM),
        }
    }

    /// The compiler of the kernel that was configured in this tree; a module has to have the same.
    fn of(tree: &Path) -> Self {
        let config = fs::read_to_string(tree.join(".config")).unwrap_or_default();
        match config.lines().any(|line| line == "CONFIG_CC_IS_CLANG=y") {
            true => Self::Clang,
            false => Self::Gcc,
        }
    }
}

/// A kernel that is built.
pub(crate) struct Kernel {
    entry: PathBuf,
    pub(crate) source: PathBuf,
    pub(crate) variant: Variant,
    /// What `uname -r` says in the guest.
    pub(crate) release: String,
}

impl Kernel {
    /// The kernel from the cache, built if it is not there.
    pub(crate) fn ensure(workspace: &Workspace, variant: Variant) -> Result<Self> {
        let make = Make::find(workspace)?;
        let mut fragment = String::new();
        for path in variant.fragments() {
            let text = fs::read_to_string(workspace.root.join(path))
                .with_context(|| format!("failed to read {path}"))?;
            config::parse(&text).with_context(|| format!("in {path}"))?;
            fragment.push_str(&text);
        }
        let requested = config::parse(&fragment)?;
        let compiler = variant.compiler();
        let tool = |program: &str| child::capture(Command::new(program).arg("--version"));
        let key = Key::new()
            .with("fragment", &fragment)
            .with("source", kernel_source::version(&make.source)?)
            // Generated Makefiles name the source tree by its absolute path.
            .with("source tree", make.source.to_string_lossy())
            .with("rustc", &make.rust.version)
            .with("bindgen", bindgen::version(&make.bindgen)?)
            // Host programs of kbuild are gcc's in any case.
            .with("gcc", tool("gcc")?)
            .with("ld", tool("ld")?)
            .with("pahole", tool("pahole")?);
        let key = match compiler {
            Compiler::Gcc => key,
            Compiler::Clang => key.with("clang", tool(&compiler.program())?),
        };
        let entry = workspace.cache.make_in_place(variant.entry(), &key, |dir| {
            let log = dir.join("log");
            build(&make, variant, &fragment, &requested, dir, &log)
                .with_context(|| format!("the end of {}:\n{}\n", log.display(), child::tail(&log)))
        })?;
        let release = fs::read_to_string(entry.join("build/include/config/kernel.release"))
            .context("failed to read the kernel's release")?
            .trim()
            .to_owned();
        Ok(Self { entry, source: make.source, variant, release })
    }

    /// The build tree, for `make -C`.
    pub(crate) fn build_tree(&self) -> PathBuf {
        self.entry.join("build")
    }
}

impl Bootable for Kernel {
    fn image(&self) -> PathBuf {
        self.entry.join("build/arch/x86/boot/bzImage")
    }

    fn release(&self) -> &str {
        &self.release
    }

    fn modules(&self) -> PathBuf {
        self.entry.join("modules/lib/modules").join(&self.release)
    }

    fn early(&self) -> &[PathBuf] {
        &[]
    }

    /// VFIO as group and container, as cdev with iommufd, and the stock driver.
    fn vfio_modules(&self) -> &'static [&'static str] {
        &["iommufd", "vfio_iommu_type1", "vfio-pci"]
    }

    fn watches_itself(&self) -> bool {
        self.variant == Variant::Debug
    }

    fn driver_tree(&self) -> Option<PathBuf> {
        Some(self.build_tree())
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

    /// `make -C tree` in a kernel's build tree, with the compiler that the kernel was built with.
    pub(crate) fn command(&self, tree: &Path) -> Result<Command> {
        self.with_compiler(tree, Compiler::of(tree))
    }

    /// `make -C tree`, for as many jobs as there are CPUs.
    fn with_compiler(&self, tree: &Path, compiler: Compiler) -> Result<Command> {
        let jobs = std::thread::available_parallelism().context("failed to count the CPUs")?;
        let mut command = child::bound("make");
        command
            .arg("-C")
            .arg(tree)
            .arg(format!("-j{jobs}"))
            // As an argument: kbuild's own `BINDGEN = bindgen` beats the environment.
            .arg(format!("BINDGEN={}", self.bindgen.display()))
            .arg(format!("CC={}", compiler.program()))
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
    variant: Variant,
    fragment: &str,
    requested: &[config::Symbol],
    dir: &Path,
    log: &Path,
) -> Result<()> {
    let tree = dir.join("build");
    fs::create_dir_all(&tree).context("failed to make the build tree")?;
    let name = variant.entry();
    eprintln!("building the {name}, once, in about 15 minutes on two CPUs; log: {}", log.display());
    let command = || -> Result<Command> {
        let mut command = make.with_compiler(&make.source, variant.compiler())?;
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

    let mut steps = Steps::new(name, variant.steps());
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

/// Builds a kernel and says where it is.
pub(crate) fn run(workspace: &Workspace, variant: Variant) -> Result<()> {
    let kernel = Kernel::ensure(workspace, variant)?;
    println!("{}", kernel.image().display());
    Ok(())
}
