// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line: what was typed, and what becomes of it.

use crate::{
    agent::{self, Config},
    check::check,
    host::Paths,
    probes::object,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{
    error::Error,
    net::{SocketAddr, ToSocketAddrs as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// Shows what the migration of a VFIO device is doing while it does it.
///
/// It watches with eBPF and changes nothing: the VMM, the guest and the device's driver need no change.
#[derive(Debug, Parser)]
#[command(name = "migscope", version)]
struct Typed {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: Log,
    #[command(flatten)]
    paths: PathFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves what it sees: metrics for Prometheus, JSON, and a page for people.
    ///
    /// It starts with any probe missing, says which and why (/readyz, the log), and tries again every two seconds: the module
    /// vfio_mediate may be loaded later. SIGTERM and SIGINT stop it.
    ///
    /// While its probes are attached, the module vfio_mediate is in use and cannot be unloaded.
    Agent(AgentFlags),
    /// Says what this host can show, and for each thing it cannot, why and what would mend it.
    ///
    /// Exit status: 0 when everything that is needed is there, 1 when something is missing, 2 when the command line is wrong.
    Check {
        /// Print one JSON object and nothing else.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct AgentFlags {
    /// Address to listen on; `:PORT` is every address of this host. Whoever reaches it can read what is shown: keep it local, or
    /// behind a proxy.
    #[arg(
        long = "web.listen-address",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:10477",
        value_parser = listen_address
    )]
    listen_address: SocketAddr,
    /// Path under which the metrics are served.
    #[arg(long = "web.telemetry-path", value_name = "PATH", default_value = "/metrics", value_parser = web_path)]
    telemetry_path: String,
    /// How long the series of a device are kept after it was closed.
    #[arg(long = "series.keep", value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    keep: Duration,
}

#[derive(Debug, Args)]
struct Log {
    /// Lowest level that is logged. The log goes to standard error.
    #[arg(
        long = "log.level",
        value_enum,
        value_name = "LEVEL",
        default_value = "info",
        global = true
    )]
    level: Level,
    /// Form of the log.
    #[arg(
        long = "log.format",
        value_enum,
        value_name = "FORMAT",
        default_value = "text",
        global = true
    )]
    format: Format,
}

#[derive(Debug, Args)]
struct PathFlags {
    /// Where sysfs is mounted.
    #[arg(long = "path.sysfs", value_name = "PATH", default_value = "/sys", global = true)]
    sysfs: PathBuf,
    /// Where procfs is mounted.
    #[arg(long = "path.procfs", value_name = "PATH", default_value = "/proc", global = true)]
    procfs: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    let Typed { command, log, paths } = Typed::parse();
    log.start();
    let PathFlags { sysfs, procfs } = paths;
    let paths = Paths { sysfs, procfs };
    let done = match command {
        Command::Agent(flags) => run_agent(flags, paths).map(|()| ExitCode::SUCCESS),
        Command::Check { json } => run_check(&paths, json),
    };
    done.unwrap_or_else(|error| {
        report(&*error);
        ExitCode::FAILURE
    })
}

fn run_agent(flags: AgentFlags, paths: Paths) -> Result<(), Box<dyn Error>> {
    let AgentFlags { listen_address, telemetry_path, keep } = flags;
    let config = Config { listen_address, telemetry_path, paths, keep };
    // One thread samples, one serves: neither has more to do.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(agent::run(config))?;
    Ok(())
}

fn run_check(paths: &Paths, json: bool) -> Result<ExitCode, Box<dyn Error>> {
    let findings = check(paths, object::EMBEDDED);
    if json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        print!("{findings}");
    }
    Ok(if findings.complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints an error with its causes.
fn report(error: &dyn Error) {
    eprintln!("migscope: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
}

/// An address as the exporters of the Prometheus project take it.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let whole = match text.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => text.to_owned(),
    };
    let mut found = whole
        .to_socket_addrs()
        .map_err(|error| format!("write it as ADDRESS:PORT or :PORT: {error}"))?;
    found.next().ok_or_else(|| "that name has no address".into())
}

/// A path that the server can route: it starts with a slash and has no variables in it.
fn web_path(path: &str) -> Result<String, String> {
    const TAKEN: [&str; 4] = ["/healthz", "/readyz", "/api/v1/devices", "/api/v1/sessions"];
    if !path.starts_with('/') {
        return Err("a path starts with /".into());
    }
    if !path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte)) {
        return Err("a path has letters, digits and / - _ . ~ only".into());
    }
    if TAKEN.contains(&path) {
        return Err(format!("{path} is served already"));
    }
    Ok(path.into())
}

impl Log {
    fn start(&self) {
        let level = match self.level {
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
            Level::Trace => LevelFilter::TRACE,
        };
        // aya tells of every relocation at level debug, hundreds of lines before the first of ours.
        let targets =
            Targets::new().with_default(level).with_target("aya_obj", level.min(LevelFilter::INFO));
        let lines = fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
        let log = tracing_subscriber::registry().with(targets);
        match self.format {
            Format::Text => log.with(lines).init(),
            Format::Json => log.with(lines.json()).init(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn agent_flags(words: &[&str]) -> Result<AgentFlags, clap::Error> {
        let typed = Typed::try_parse_from(["migscope", "agent"].iter().chain(words))?;
        match typed.command {
            Command::Agent(flags) => Ok(flags),
            Command::Check { .. } => panic!("agent was typed"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Typed::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_those_of_the_documents() {
        let flags = agent_flags(&[]).expect("complete");
        assert_eq!(flags.listen_address.to_string(), "127.0.0.1:10477");
        assert_eq!(flags.telemetry_path, "/metrics");
        assert_eq!(flags.keep, Duration::from_secs(600));
    }

    #[test]
    fn an_address_is_typed_as_for_other_exporters() {
        for (typed, address) in [
            (":9100", "0.0.0.0:9100"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[::1]:10477", "[::1]:10477"),
        ] {
            let flags = agent_flags(&["--web.listen-address", typed]).expect(typed);
            assert_eq!(flags.listen_address.to_string(), address);
        }
        for wrong in ["", ":", "10477", ":65536", "host"] {
            assert!(agent_flags(&["--web.listen-address", wrong]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_path_that_cannot_be_served_is_refused() {
        for path in ["metrics", "/{x}", "/healthz", "/a b", ""] {
            let refused = agent_flags(&["--web.telemetry-path", path]);
            assert!(refused.is_err(), "{path:?}");
        }
        assert!(agent_flags(&["--web.telemetry-path", "/probe/metrics"]).is_ok());
        assert!(agent_flags(&["--web.telemetry-path", "/"]).is_ok());
    }

    #[test]
    fn log_flags_stand_before_or_after_the_command() {
        for words in [["--log.level", "debug", "check"], ["check", "--log.level", "debug"]] {
            let typed = Typed::try_parse_from(["migscope"].iter().chain(&words)).expect("complete");
            assert!(matches!(typed.log.level, Level::Debug));
        }
    }
}
