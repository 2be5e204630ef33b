// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Builds, boots and tests migscope.

mod arch;
mod bench;
mod build_agent;
mod build_driver;
mod build_ebpf;
mod cache;
mod child;
mod contract;
mod dashboards;
mod demo;
mod fuzz;
mod kernel;
mod lint;
mod metrics_doc;
mod miri;
mod package;
mod programs;
mod progress;
mod setup;
mod test;
mod vm;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use workspace::Workspace;

/// Builds, boots and tests migscope
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Get everything that is needed and not made here
    ///
    /// Debian packages, rust-src, bpf-linker, bindgen, the kernel's source. Every other command gets
    /// what it needs by itself; this only does the downloads ahead of time. What it builds or unpacks is
    /// kept in ~/.cache/migscope (or $XDG_CACHE_HOME/migscope).
    Setup,
    /// Build the guest's kernel (about 15 minutes, once) and print the path of its image
    Kernel {
        /// The one with lockdep, KASAN, KFENCE, UBSAN, kmemleak and KUnit
        #[arg(long)]
        debug: bool,
    },
    /// Build vfio_mediate.ko and print its path
    BuildDriver {
        /// The build tree of another kernel [default: that of `kernel`]
        #[arg(long, value_name = "DIR")]
        kdir: Option<PathBuf>,
        /// Which of `kernel`'s
        #[arg(long, value_enum, default_value_t, conflicts_with = "kdir")]
        kernel: kernel::Variant,
    },
    /// Build the agent for a host, with the probes in it, and print its path
    ///
    /// One file, which needs nothing but a C library that is not older than this machine's: copy it to the host, and see `migscope --help`.
    BuildAgent {
        /// The host's machine, as `uname -m` says it [default: this one's]
        #[arg(long, value_enum, default_value_t = arch::Arch::native())]
        arch: arch::Arch,
    },
    /// Build the agent's Debian package and print its path
    ///
    /// The agent with its probes, units for systemd, the sample configuration, manual pages, completions. The agent's C library is this machine's:
    /// build on the oldest Debian that the package is for.
    Package(package::Arguments),
    /// Build the probes and print the path of the BPF object
    ///
    /// Building the agent with MIGSCOPE_EBPF_OBJECT set to that path embeds them; `build-agent` does both.
    BuildEbpf {
        /// Optimised, without overflow checks, as `demo` and `test` use it
        #[arg(long)]
        release: bool,
        /// The machine on which they will run [default: this one's]
        #[arg(long, value_enum, default_value_t = arch::Arch::native())]
        arch: arch::Arch,
    },
    /// Boot the guest: the kernel of `kernel`, the driver loaded, the devices bound
    #[command(subcommand)]
    Vm(vm::Command),
    /// The main job on a bare machine: a live migration under load, with migscope on it
    ///
    /// Builds everything, boots the guest with two devices, migrates one to the other while it does DMA,
    /// and prints what the client of the migration counted beside what migscope saw from outside. Exits
    /// with a failure if the two do not agree.
    Demo {
        /// Print one JSON object on stdout, and nothing else there
        #[arg(long)]
        json: bool,
        /// Leave the guest running after the summary, with the live page, until Ctrl-C
        #[arg(long)]
        keep: bool,
        /// Migrations of every end instead, with a Prometheus beside the guest, and all that dashboards and rules ask of it
        ///
        /// Converging, not converging, cancelled, failed. What Prometheus has must agree with what the clients counted; every
        /// expression of dashboards/grafana and dashboards/prometheus must have data, or a reason why not.
        #[arg(long)]
        monitoring: bool,
        /// A folder for pictures of what the panels show; those of dashboards/screenshots are from there
        #[arg(long, value_name = "FOLDER", requires = "monitoring")]
        pictures: Option<PathBuf>,
    },
    /// Random calls against the driver, on a kernel that watches itself, checked against a model
    ///
    /// Prints its seed; with the same --seed and --threads the threads do the same again. `fuzz parsers` is about the agent instead.
    Fuzz(fuzz::Arguments),
    /// All that CI runs; the last line of the output is the number of passed and failed tests
    Test {
        /// Only the steps whose names contain one of these, such as `lint`, `guest: v2` or `Chromium`
        #[arg(value_name = "PART")]
        only: Vec<String>,
    },
    /// The tests of the live page alone, in headless Chromium
    Page {
        /// A folder for pictures of what the tests see; live-page.png is the one of dashboards/screenshots
        #[arg(long, value_name = "DIR")]
        pictures: Option<PathBuf>,
    },
    /// The driver's pure files and driver/abi under Miri, which finds undefined behaviour
    Miri,
    /// How fast, beside what one would use instead
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Formatting, clippy for every target, checkpatch, licences
    Lint,
    /// Write the page of all metrics, agent/METRICS.md, from the registry of the agent
    MetricsDoc {
        /// Write nothing; fail if the page is not current
        #[arg(long)]
        check: bool,
    },
    /// Write the dashboards for Grafana, dashboards/grafana, from xtask/src/dashboards
    Dashboards {
        /// Write nothing; fail if a file is not current or Grafana's types do not take it
        #[arg(long)]
        check: bool,
    },
    /// The first program in the guest; not for people
    #[command(hide = true)]
    Guest,
}

/// The program.
pub fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    match dispatch(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    // There is no cargo to ask in the guest.
    if let Command::Guest = command {
        return vm::guest::run().map(|()| ExitCode::SUCCESS);
    }
    let workspace = Workspace::find()?;
    match command {
        Command::Setup => setup::run(&workspace)?,
        Command::Kernel { debug } => {
            let variant = if debug { kernel::Variant::Debug } else { kernel::Variant::Ours };
            kernel::run(&workspace, variant)?;
        }
        Command::BuildDriver { kdir, kernel } => build_driver::run(&workspace, kdir, kernel)?,
        Command::BuildAgent { arch } => build_agent::run(&workspace, arch)?,
        Command::Package(arguments) => package::run(&workspace, &arguments)?,
        Command::BuildEbpf { release, arch } => build_ebpf::run(&workspace, arch, release)?,
        Command::Demo { json, keep, monitoring: false, pictures: _ } => {
            return demo::run(&workspace, json, keep);
        }
        Command::Demo { json, keep, monitoring: true, pictures } => {
            let options = demo::monitoring::Options { keep, pictures: pictures.as_deref() };
            return demo::monitoring::run(&workspace, json, options);
        }
        Command::Fuzz(arguments) => return fuzz::run(&workspace, &arguments),
        Command::Test { only } => return test::run(&workspace, &only),
        Command::Page { pictures } => return test::page(&workspace, pictures.as_deref()),
        Command::Miri => miri::run(&workspace)?,
        Command::Bench(bench) => return bench::run(&workspace, &bench),
        Command::Lint => lint::run(&workspace)?,
        Command::MetricsDoc { check: false } => metrics_doc::write(&workspace)?,
        Command::MetricsDoc { check: true } => metrics_doc::check(&workspace)?,
        Command::Dashboards { check: false } => dashboards::write(&workspace)?,
        Command::Dashboards { check: true } => dashboards::check(&workspace)?,
        Command::Vm(command) => {
            return Ok(vm::run(&workspace, command).unwrap_or_else(|error| {
                eprintln!("error: {error:#}");
                ExitCode::from(vm::GUEST_FAILED)
            }));
        }
        Command::Guest => unreachable!("handled above"),
    }
    Ok(ExitCode::SUCCESS)
}
