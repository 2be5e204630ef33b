// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Fuzz targets: everything of the agent that reads what others wrote, fed with bytes that nobody in his right mind would write.
//!
//! ```text
//!   seeds, made by our own code ──┐                        ┌──▶ a parser of the agent ──▶ what it made of them
//!   findings/TARGET/…             ├──▶ bytes ──▶ Target::run                                   │
//!   libFuzzer, led by coverage ───┘                        └──▶ an oracle ◀────────────────────┘
//! ```
//!
//! Each target is a plain function of bytes, which panics when something is wrong: with the parser, or with what it made of them.
//! Two run them:
//!
//! - `cargo test`, with the usual compiler: the seeds, what was found before (`findings`), and as many [mutations](mutate) of both as
//!   take some seconds, the same ones each time.
//! - `cargo xtask fuzz parsers`, with a nightly compiler that instruments: libFuzzer goes where it has not been, under
//!   AddressSanitizer, and keeps what led it there below the folder of cargo's output.
//!
//! **Why not `cargo fuzz`.** It would want a package `fuzz` outside of the workspace, with a lock file of its own, and one more tool
//! on every machine. What it does beside that is to pass a dozen flags to the compiler; `cargo xtask fuzz parsers` passes the same ones.
//!
//! Nobody asks a network: what would look up a name is left out ([`target::config`]). Files are made in a folder of their own.

pub mod exposition;
pub mod mutate;
pub mod pieces;
pub mod printed;
pub mod scratch;
pub mod script;
pub mod target;

use std::{fs, io, path::Path};

/// A parser, and what is held against it.
pub struct Target {
    /// Its name: of the command line, and of its folder in `findings`.
    pub name: &'static str,
    /// What is read.
    pub reads: &'static str,
    /// Feeds it.
    ///
    /// # Panics
    ///
    /// When something is wrong with the parser.
    pub run: fn(&[u8]),
    /// Inputs that are well formed, by their names.
    pub seeds: fn() -> Vec<Seed>,
    /// Mutations that a plain test tries: some seconds of them, without optimisation.
    pub mutations: u32,
}

/// An input with a name.
pub struct Seed {
    /// The name of its file.
    pub name: &'static str,
    /// The input.
    pub bytes: Vec<u8>,
}

impl Seed {
    /// An input with a name.
    pub fn new(name: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { name, bytes: bytes.into() }
    }
}

/// All of them.
pub const TARGETS: [Target; 9] = [
    Target {
        name: "abi",
        reads: "offsets, queries, states and accesses as user space claims them",
        run: target::abi::run,
        seeds: target::abi::seeds,
        mutations: 20_000,
    },
    Target {
        name: "config",
        reads: "migscope.toml",
        run: target::config::run,
        seeds: target::config::seeds,
        mutations: 4_000,
    },
    Target {
        name: "host",
        reads: "/proc/PID/cmdline and cgroup, and other files of procfs and sysfs",
        run: target::host::run,
        seeds: target::host::seeds,
        mutations: 4_000,
    },
    Target {
        name: "http",
        reads: "requests, as bytes of a connection and as the router gets them",
        run: target::http::run,
        seeds: target::http::seeds,
        mutations: 400,
    },
    Target {
        name: "latency",
        reads: "the probes' buckets of durations, and the log that they are written to",
        run: target::latency::run,
        seeds: target::latency::seeds,
        mutations: 200,
    },
    Target {
        name: "recording",
        reads: "files of `migscope record`, whole, cut and damaged; then `migscope report`",
        run: target::recording::run,
        seeds: target::recording::seeds,
        mutations: 60,
    },
    Target {
        name: "ring",
        reads: "records of the ring and readings of the maps",
        run: target::ring::run,
        seeds: target::ring::seeds,
        mutations: 150,
    },
    Target {
        name: "top",
        reads: "what an agent answers to `migscope top`",
        run: target::top::run,
        seeds: target::top::seeds,
        mutations: 300,
    },
    Target {
        name: "web_config",
        reads: "the file of --web.config.file",
        run: target::web_config::run,
        seeds: target::web_config::seeds,
        mutations: 2_000,
    },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

impl Target {
    /// What fuzzing has found before, by the names of the files: kept, so that it does not come back.
    ///
    /// # Errors
    ///
    /// The folder is there and cannot be read.
    pub fn findings(&self) -> io::Result<Vec<(String, Vec<u8>)>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("findings").join(self.name);
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for file in fs::read_dir(folder)? {
            let path = file?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push((name, fs::read(path)?));
        }
        found.sort();
        Ok(found)
    }

    /// Writes the seeds and the findings into `folder`, which is made.
    ///
    /// # Errors
    ///
    /// A file cannot be written or read.
    pub fn write_seeds(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        for Seed { name, bytes } in (self.seeds)() {
            fs::write(folder.join(format!("seed-{name}")), bytes)?;
        }
        for (name, bytes) in self.findings()? {
            fs::write(folder.join(format!("finding-{name}")), bytes)?;
        }
        Ok(())
    }
}
