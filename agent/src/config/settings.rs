// SPDX-License-Identifier: Apache-2.0 OR MIT
//! All the settings, each with its value.

use super::{Layer, Log, Path, Probes, Series, Size, Web, WebConfig, WebPath};
use crate::{
    convergence::DEFAULT_DOWNTIME_BUDGET_NS,
    host::Paths,
    logging::{Format, Level},
    privilege::Mode,
    probes::attach::OwnDriver,
    web::address::ListenAddress,
};
use std::{fmt, path::PathBuf, time::Duration};

/// How the agent is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Lowest level that is logged.
    pub log_level: Level,
    /// Form of the log.
    pub log_format: Format,
    /// Where the kernel's files are.
    pub paths: Paths,
    /// Where to listen.
    pub listen_addresses: Vec<ListenAddress>,
    /// Whether systemd listens instead, and hands its sockets over.
    pub systemd_socket: bool,
    /// Path of the metrics.
    pub telemetry_path: WebPath,
    /// Requests that are answered at a time; 0 is no limit.
    pub max_requests: u32,
    /// The file with TLS and passwords.
    pub web_config: Option<PathBuf>,
    /// How long the series of a closed device are kept.
    pub keep: Duration,
    /// The file that latencies are logged to.
    pub latency_log: Option<PathBuf>,
    /// Length of an interval in that log.
    pub latency_log_interval: Duration,
    /// Downtime that the VMMs of this host allow.
    pub downtime_budget: Duration,
    /// How devices of our own driver are seen.
    pub own_driver: OwnDriver,
    /// The folder that is recorded into.
    pub record_dir: Option<PathBuf>,
    /// Size that all files of the recording have together, about, in bytes.
    pub record_max_bytes: u64,
    /// What becomes of the process's privileges.
    pub privileges: Mode,
}

/// What becomes of a setting that the file has changed while the agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It holds from now on.
    Now(&'static str),
    /// It needs a restart.
    Restart(&'static str),
}

impl Settings {
    /// Folders in which the agent makes and renames files.
    pub fn written_folders(&self) -> impl Iterator<Item = &std::path::Path> {
        let here = std::path::Path::new(".");
        let logs = self.latency_log.iter().filter_map(move |file| {
            let folder = file.parent()?;
            Some(if folder.as_os_str().is_empty() { here } else { folder })
        });
        logs.chain(self.record_dir.as_deref())
    }

    /// What differs in `new`, by the names of the flags.
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let Self {
            log_level,
            log_format,
            paths,
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
            record_max_bytes,
            privileges,
        } = self;
        let all = [
            (*log_level != new.log_level, Change::Now("log.level")),
            (*keep != new.keep, Change::Now("series.keep")),
            (*downtime_budget != new.downtime_budget, Change::Now("migration.downtime-budget")),
            (*latency_log != new.latency_log, Change::Restart("latency.log")),
            (
                *latency_log_interval != new.latency_log_interval,
                Change::Restart("latency.log-interval"),
            ),
            (*own_driver != new.own_driver, Change::Restart("probes.own-driver")),
            (*record_dir != new.record_dir, Change::Restart("record.dir")),
            (*record_max_bytes != new.record_max_bytes, Change::Restart("record.max-size")),
            (*log_format != new.log_format, Change::Restart("log.format")),
            (paths.sysfs != new.paths.sysfs, Change::Restart("path.sysfs")),
            (paths.procfs != new.paths.procfs, Change::Restart("path.procfs")),
            (*listen_addresses != new.listen_addresses, Change::Restart("web.listen-address")),
            (*systemd_socket != new.systemd_socket, Change::Restart("web.systemd-socket")),
            (*telemetry_path != new.telemetry_path, Change::Restart("web.telemetry-path")),
            (*max_requests != new.max_requests, Change::Restart("web.max-requests")),
            (*web_config != new.web_config, Change::Restart("web.config.file")),
            (*privileges != new.privileges, Change::Restart("privileges")),
        ];
        all.into_iter().filter(|(differs, _)| *differs).map(|(_, change)| change).collect()
    }
}

impl From<Layer> for Settings {
    fn from(layer: Layer) -> Self {
        let Layer { log, path, web, series, latency, migration, probes, record, privileges } =
            layer;
        let Probes { own_driver } = probes;
        let Log { level, format } = log;
        let Path { sysfs, procfs } = path;
        let Web { listen_address, systemd_socket, telemetry_path, max_requests, config } = web;
        let WebConfig { file } = config;
        let Series { keep } = series;
        let standard = Paths::default();
        Self {
            log_level: level.unwrap_or(Level::Info),
            log_format: format.unwrap_or(Format::Text),
            paths: Paths {
                sysfs: sysfs.unwrap_or(standard.sysfs),
                procfs: procfs.unwrap_or(standard.procfs),
            },
            listen_addresses: listen_address
                .unwrap_or_else(|| vec![ListenAddress::Tcp(([127, 0, 0, 1], 10477).into())]),
            systemd_socket: systemd_socket.unwrap_or(false),
            telemetry_path: telemetry_path.unwrap_or_else(WebPath::metrics),
            max_requests: max_requests.unwrap_or(40),
            // As an empty --web.config.file has always meant none.
            web_config: file.filter(|path| !path.as_os_str().is_empty()),
            keep: keep.unwrap_or(Duration::from_secs(600)),
            latency_log: latency.log.filter(|path| !path.as_os_str().is_empty()),
            latency_log_interval: latency.log_interval.unwrap_or(Duration::from_secs(60)),
            downtime_budget: migration
                .downtime_budget
                .unwrap_or(Duration::from_nanos(DEFAULT_DOWNTIME_BUDGET_NS)),
            own_driver: own_driver.unwrap_or_default(),
            record_dir: record.dir.filter(|path| !path.as_os_str().is_empty()),
            record_max_bytes: record.max_size.unwrap_or(100 << 20),
            privileges: privileges.unwrap_or(Mode::Drop),
        }
    }
}

/// As a configuration file.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &dyn fmt::Display| toml::Value::String(text.to_string()).to_string();
        let Self { paths, .. } = self;
        let addresses: Vec<_> =
            self.listen_addresses.iter().map(|address| quoted(address)).collect();
        writeln!(f, "privileges = {}\n", quoted(&self.privileges))?;
        writeln!(f, "[log]\nlevel = {}", quoted(&self.log_level))?;
        writeln!(f, "format = {}\n", quoted(&self.log_format))?;
        writeln!(f, "[path]\nsysfs = {}", quoted(&paths.sysfs.display()))?;
        writeln!(f, "procfs = {}\n", quoted(&paths.procfs.display()))?;
        writeln!(f, "[web]\nlisten-address = [{}]", addresses.join(", "))?;
        writeln!(f, "systemd-socket = {}", self.systemd_socket)?;
        writeln!(f, "telemetry-path = {}", quoted(&self.telemetry_path))?;
        writeln!(f, "max-requests = {}", self.max_requests)?;
        if let Some(path) = &self.web_config {
            writeln!(f, "config.file = {}", quoted(&path.display()))?;
        }
        let duration = |time| quoted(&humantime::format_duration(time));
        writeln!(f, "\n[series]\nkeep = {}\n\n[latency]", duration(self.keep))?;
        if let Some(path) = &self.latency_log {
            writeln!(f, "log = {}", quoted(&path.display()))?;
        }
        writeln!(f, "log-interval = {}", duration(self.latency_log_interval))?;
        writeln!(f, "\n[migration]\ndowntime-budget = {}", duration(self.downtime_budget))?;
        writeln!(f, "\n[probes]\nown-driver = {}", quoted(&self.own_driver))?;
        writeln!(f, "\n[record]")?;
        if let Some(path) = &self.record_dir {
            writeln!(f, "dir = {}", quoted(&path.display()))?;
        }
        writeln!(f, "max-size = {}", quoted(&Size(self.record_max_bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        toml::from_str::<Layer>(text).expect("valid").into()
    }

    #[test]
    fn the_defaults_are_those_of_the_documents() {
        let settings = settings("");
        assert_eq!(settings.listen_addresses.len(), 1);
        assert_eq!(settings.listen_addresses[0].to_string(), "127.0.0.1:10477");
        assert_eq!(settings.telemetry_path.as_str(), "/metrics");
        assert_eq!(settings.keep, Duration::from_secs(600));
        assert_eq!(settings.max_requests, 40);
        assert_eq!(settings.privileges, Mode::Drop);
    }

    #[test]
    fn what_is_printed_can_be_read_again_and_is_the_same() {
        let text = "privileges = \"drop-now\"\n[log]\nlevel = \"trace\"\nformat = \"json\"\n\
                    [web]\nlisten-address = [\"[::1]:1\", \"unix:/a\\\"b\"]\nsystemd-socket = true\n\
                    telemetry-path = \"/m\"\nmax-requests = 0\nconfig.file = \"/etc/web.yml\"\n\
                    [path]\nsysfs = \"/s\"\nprocfs = \"/p\"\n[series]\nkeep = \"1h 30s\"\n\
                    [latency]\nlog = \"/l\"\nlog-interval = \"2s\"\n\
                    [migration]\ndowntime-budget = \"1s\"\n[probes]\nown-driver = \"functions\"\n\
                    [record]\ndir = \"/r\"\nmax-size = \"8M\"\n";
        let given = settings(text);
        assert_eq!(settings(&given.to_string()), given);
        assert_eq!(settings(&settings("").to_string()), settings(""));
        let changed = given.changes(&settings(""));
        assert_eq!(changed.len(), 17, "every setting differs: {changed:?}");
        assert_eq!(given.changes(&given), []);
    }
}
