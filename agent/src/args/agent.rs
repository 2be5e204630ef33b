// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope agent`.

use crate::{
    agent::{self, Config},
    config::{
        self, ConfigError, Latency, Layer, Migration, Probes, Record, Series, Settings, Web,
        WebConfig, WebPath,
    },
    logging,
    privilege::Mode,
    probes::attach::OwnDriver,
    web::{address::ListenAddress, live::Live},
};
use clap::Args;
use std::{error::Error, path::PathBuf, process::ExitCode, time::Duration};

/// Serves what it sees: metrics for Prometheus, JSON, and a page for people.
///
/// It starts with any probe missing, says which and why (/readyz, the log), and tries again every two seconds: the module
/// vfio_mediate may be loaded later. SIGTERM and SIGINT stop it. SIGHUP makes it read its configuration again.
///
/// While its probes are attached, the module vfio_mediate is in use and cannot be unloaded.
///
/// What is set neither here nor in the file of --config.file has its default.
///
/// Exit status: 0 when a signal stopped it, 1 when it could not start with these settings or had to give up, 64 when the command line
/// is wrong. What is wrong and what to do about it is told on standard error.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Flags {
    /// File with settings (TOML): `--a.b-c` is `b-c` in its table `[a]`. A flag wins over the file.
    #[arg(long = "config.file", value_name = "PATH")]
    file: Option<PathBuf>,
    /// Read all configuration, print which settings hold, and end: 0 when the agent could start with it, 1 when not.
    #[arg(long = "config.check")]
    check: bool,
    /// Address to listen on: ADDRESS:PORT, :PORT for every address of this host, or unix:/PATH. Can be given more than once. Whoever
    /// reaches it can read what is shown: keep it local, or ask for passwords or certificates (--web.config.file).
    /// [default: 127.0.0.1:10477]
    #[arg(long = "web.listen-address", value_name = "ADDRESS")]
    listen_addresses: Option<Vec<ListenAddress>>,
    /// Take the sockets that systemd listens on instead.
    #[arg(long = "web.systemd-socket")]
    systemd_socket: bool,
    /// Path under which the metrics are served. [default: /metrics]
    #[arg(long = "web.telemetry-path", value_name = "PATH")]
    telemetry_path: Option<WebPath>,
    /// Requests that are answered at a time, more are told to come back (503); 0 is no limit. [default: 40]
    #[arg(long = "web.max-requests", value_name = "NUMBER")]
    max_requests: Option<u32>,
    /// File with TLS, passwords and headers, in the format of exporter-toolkit:
    /// https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md. A changed file holds at once.
    #[arg(long = "web.config.file", value_name = "PATH")]
    web_config: Option<PathBuf>,
    /// How long the series of a device are kept after it was closed. [default: 10m]
    #[arg(long = "series.keep", value_name = "DURATION", value_parser = humantime::parse_duration)]
    keep: Option<Duration>,
    /// File for latencies, in the interval log format of HdrHistogram. It and FILE.1, which it becomes when it is full, are 16 MiB
    /// each at most.
    #[arg(long = "latency.log", value_name = "FILE")]
    latency_log: Option<PathBuf>,
    /// Length of an interval in that log, 1s or more. [default: 1m]
    #[arg(long = "latency.log-interval", value_name = "DURATION", value_parser = config::log_interval)]
    latency_log_interval: Option<Duration>,
    /// Downtime that the VMMs of this host allow: QEMU's downtime-limit. What must move after the stop is held against it.
    /// [default: 300ms]
    #[arg(long = "migration.downtime-budget", value_name = "DURATION", value_parser = humantime::parse_duration)]
    downtime_budget: Option<Duration>,
    /// How devices of the driver vfio_mediate are seen: by its tracepoints, which tell more, or by the functions of vfio, as those of any
    /// other driver. [default: tracepoints]
    #[arg(long = "probes.own-driver", value_enum, value_name = "HOW")]
    own_driver: Option<OwnDriver>,
    /// Record everything that is seen, into files in this folder: agent.migscope, and older ones in agent.migscope.1 to .3. `migscope
    /// report` reads them.
    #[arg(long = "record.dir", value_name = "FOLDER")]
    record_dir: Option<PathBuf>,
    /// Size that the four files of a recording have together, about; K, M and G are powers of 1024. At least 4M. [default: 100M]
    #[arg(long = "record.max-size", value_name = "SIZE", value_parser = config::size)]
    record_max_size: Option<u64>,
    /// What becomes of the privileges that attaching the probes takes. [default: drop]
    #[arg(long = "privileges", value_enum, value_name = "MODE")]
    privileges: Option<Mode>,
}

/// Where settings come from: what was typed, and a file.
struct Sources {
    typed: Layer,
    file: Option<PathBuf>,
}

impl Sources {
    fn read(&self) -> Result<Settings, ConfigError> {
        let file = self.file.as_deref().map_or_else(|| Ok(Layer::default()), config::read)?;
        Ok(self.typed.clone().or(file).into())
    }
}

/// Runs the agent until a signal stops it. `global` are the flags that all commands have.
pub(super) fn run(flags: Flags, global: Layer) -> Result<ExitCode, Box<dyn Error>> {
    let check = flags.check;
    let sources = flags.sources(global);
    let settings = sources.read()?;
    if check {
        Live::start(settings.web_config.clone())?;
        print!("{settings}");
        return Ok(ExitCode::SUCCESS);
    }
    let logging = logging::start(settings.log_level, settings.log_format);
    let reread = Box::new(move || sources.read());
    agent::run(Config { settings, reread, logging })?;
    Ok(ExitCode::SUCCESS)
}

impl Flags {
    fn sources(self, global: Layer) -> Sources {
        let Self {
            file,
            check: _,
            listen_addresses,
            systemd_socket,
            telemetry_path,
            max_requests,
            web_config,
            keep,
            latency_log,
            latency_log_interval,
            downtime_budget,
            own_driver,
            record_dir,
            record_max_size,
            privileges,
        } = self;
        let typed = Layer {
            web: Web {
                listen_address: listen_addresses,
                // A switch that was not typed says nothing.
                systemd_socket: systemd_socket.then_some(true),
                telemetry_path,
                max_requests,
                config: WebConfig { file: web_config },
            },
            series: Series { keep },
            latency: Latency { log: latency_log, log_interval: latency_log_interval },
            migration: Migration { downtime_budget },
            probes: Probes { own_driver },
            record: Record { dir: record_dir, max_size: record_max_size },
            privileges,
            ..global
        };
        Sources { typed, file }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, Typed};
    use clap::{CommandFactory as _, Parser as _};

    fn settings(words: &[&str]) -> Result<Settings, Box<dyn Error>> {
        let typed = Typed::try_parse_from(["migscope", "agent"].iter().chain(words))?;
        match typed.command {
            Command::Agent(flags) => Ok(flags.sources(Layer::default()).read()?),
            other => panic!("agent was typed, not {other:?}"),
        }
    }

    #[test]
    fn addresses_add_up_and_replace_the_default() {
        let words = ["--web.listen-address", ":1", "--web.listen-address", "unix:/a"];
        let listen = settings(&words).expect("complete").listen_addresses;
        assert_eq!(
            listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["0.0.0.0:1", "unix:/a"]
        );
        assert!(settings(&["--web.listen-address", "nowhere"]).is_err());
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.toml");
        let text = "privileges = \"keep\"\n[web]\nmax-requests = 1\nsystemd-socket = true\n";
        std::fs::write(&path, text).expect("written");
        let path = path.to_str().expect("text");
        let settings = settings(&["--config.file", path, "--web.max-requests", "2"]).expect("fine");
        assert_eq!((settings.max_requests, settings.privileges), (2, Mode::Keep));
        assert!(settings.systemd_socket, "a switch that was not typed says nothing");
    }

    /// clap would show defaults by itself, but a flag with one would always win over the file.
    #[test]
    fn the_defaults_that_help_tells_are_those_that_hold() {
        let help = Typed::command()
            .find_subcommand_mut("agent")
            .expect("there")
            .render_long_help()
            .to_string();
        let standard = Settings::from(Layer::default());
        for default in [
            standard.listen_addresses[0].to_string(),
            standard.telemetry_path.to_string(),
            standard.max_requests.to_string(),
            humantime::format_duration(standard.keep).to_string(),
            humantime::format_duration(standard.latency_log_interval).to_string(),
            humantime::format_duration(standard.downtime_budget).to_string(),
            config::Size(standard.record_max_bytes).to_string(),
            standard.own_driver.to_string(),
            standard.privileges.to_string(),
        ] {
            assert!(help.contains(&format!("[default: {default}]")), "{default}: {help}");
        }
    }

    /// A flag's name is its key's.
    #[test]
    fn every_flag_is_a_key_of_the_file() {
        let typed = Typed::command();
        let agent = typed.find_subcommand("agent").expect("there");
        let sample = include_str!("../../dist/migscope.toml").replace("#: ", "");
        let sample: toml::Table = sample.parse().expect("valid");
        for flag in agent.get_arguments().chain(typed.get_arguments()) {
            let Some(name) = flag.get_long() else { continue };
            if ["help", "version", "config.file", "config.check"].contains(&name) {
                continue;
            }
            let mut parts = name.split('.');
            let mut value = parts.next().and_then(|part| sample.get(part));
            for part in parts {
                value = value.and_then(|value| value.get(part));
            }
            assert!(value.is_some(), "{name} is no key of the sample");
        }
    }
}
