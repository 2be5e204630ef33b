// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What one source says, the command line or the file: some of the settings.

use super::size::size;
use crate::{
    http,
    logging::{Format, Level},
    privilege::Mode,
    probes::attach::OwnDriver,
    web::address::ListenAddress,
};
use serde::{Deserialize, Deserializer, de::Error as _};
use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

/// Some of the settings; what is `None` is left to others.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Layer {
    /// The log.
    pub log: Log,
    /// Where the kernel's files are.
    pub path: Path,
    /// What is served, and where.
    pub web: Web,
    /// What becomes of series.
    pub series: Series,
    /// The log of latencies.
    pub latency: Latency,
    /// What is taken for granted of migrations.
    pub migration: Migration,
    /// How it is looked.
    pub probes: Probes,
    /// The recording.
    pub record: Record,
    /// What becomes of the process's privileges.
    pub privileges: Option<Mode>,
}

/// `[log]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Log {
    /// Lowest level that is logged.
    pub level: Option<Level>,
    /// Form of the log.
    pub format: Option<Format>,
}

/// `[path]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Path {
    /// Where sysfs is mounted.
    pub sysfs: Option<PathBuf>,
    /// Where procfs is mounted.
    pub procfs: Option<PathBuf>,
}

/// `[web]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Web {
    /// Where to listen.
    pub listen_address: Option<Vec<ListenAddress>>,
    /// Whether systemd listens, and hands its sockets over.
    pub systemd_socket: Option<bool>,
    /// Path of the metrics.
    pub telemetry_path: Option<WebPath>,
    /// Requests that are answered at a time; 0 is no limit.
    pub max_requests: Option<u32>,
    /// `[web.config]`.
    pub config: WebConfig,
}

/// `[web.config]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct WebConfig {
    /// The file with TLS and passwords, in exporter-toolkit's format.
    pub file: Option<PathBuf>,
}

/// `[series]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Series {
    /// How long the series of a closed device are kept.
    #[serde(deserialize_with = "duration")]
    pub keep: Option<Duration>,
}

/// `[latency]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Latency {
    /// The file that latencies are logged to.
    pub log: Option<PathBuf>,
    /// Length of an interval in that log.
    #[serde(deserialize_with = "interval")]
    pub log_interval: Option<Duration>,
}

/// `[migration]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Migration {
    /// Downtime that the VMMs of this host allow.
    #[serde(deserialize_with = "duration")]
    pub downtime_budget: Option<Duration>,
}

/// `[probes]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Probes {
    /// How devices of our own driver are seen.
    pub own_driver: Option<OwnDriver>,
}

/// `[record]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Record {
    /// The folder that is recorded into.
    pub dir: Option<PathBuf>,
    /// Size that all files of the recording have together, about, in bytes.
    #[serde(deserialize_with = "bytes")]
    pub max_size: Option<u64>,
}

impl Layer {
    /// What this layer says, else what `other` says.
    pub fn or(self, other: Self) -> Self {
        let Self { log, path, web, series, latency, migration, probes, record, privileges } = self;
        let Web { listen_address, systemd_socket, telemetry_path, max_requests, config } = web;
        Self {
            log: Log {
                level: log.level.or(other.log.level),
                format: log.format.or(other.log.format),
            },
            path: Path {
                sysfs: path.sysfs.or(other.path.sysfs),
                procfs: path.procfs.or(other.path.procfs),
            },
            web: Web {
                // All of one source: somebody who types an address does not want the file's as well.
                listen_address: listen_address.or(other.web.listen_address),
                systemd_socket: systemd_socket.or(other.web.systemd_socket),
                telemetry_path: telemetry_path.or(other.web.telemetry_path),
                max_requests: max_requests.or(other.web.max_requests),
                config: WebConfig { file: config.file.or(other.web.config.file) },
            },
            series: Series { keep: series.keep.or(other.series.keep) },
            latency: Latency {
                log: latency.log.or(other.latency.log),
                log_interval: latency.log_interval.or(other.latency.log_interval),
            },
            migration: Migration {
                downtime_budget: migration.downtime_budget.or(other.migration.downtime_budget),
            },
            probes: Probes { own_driver: probes.own_driver.or(other.probes.own_driver) },
            record: Record {
                dir: record.dir.or(other.record.dir),
                max_size: record.max_size.or(other.record.max_size),
            },
            privileges: privileges.or(other.privileges),
        }
    }

    /// Whether it leaves nothing to others.
    #[cfg(test)]
    pub(super) fn is_full(&self) -> bool {
        let Self { log, path, web, series, latency, migration, probes, record, privileges } = self;
        let Web { listen_address, systemd_socket, telemetry_path, max_requests, config } = web;
        log.level.is_some()
            && log.format.is_some()
            && path.sysfs.is_some()
            && path.procfs.is_some()
            && listen_address.is_some()
            && systemd_socket.is_some()
            && telemetry_path.is_some()
            && max_requests.is_some()
            && config.file.is_some()
            && series.keep.is_some()
            && latency.log.is_some()
            && latency.log_interval.is_some()
            && migration.downtime_budget.is_some()
            && probes.own_driver.is_some()
            && record.dir.is_some()
            && record.max_size.is_some()
            && privileges.is_some()
    }
}

/// A path that the server can route: it starts with a slash and has no variables in it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct WebPath(String);

impl WebPath {
    /// The path of the metrics that Prometheus expects.
    pub fn metrics() -> Self {
        Self("/metrics".into())
    }

    /// The path, with its slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WebPath {
    type Err = String;

    fn from_str(path: &str) -> Result<Self, String> {
        if !path.starts_with('/') {
            return Err("a path starts with /".into());
        }
        if !path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte)) {
            return Err("a path has letters, digits and / - _ . ~ only".into());
        }
        if http::is_taken(path) {
            return Err(format!("{path} is served already"));
        }
        Ok(Self(path.into()))
    }
}

impl TryFrom<String> for WebPath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for WebPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text)
        .map(Some)
        .map_err(|error| D::Error::custom(format!("write a duration as 10m or 1h 30s: {error}")))
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(from)?;
    size(&text).map(Some).map_err(D::Error::custom)
}

fn interval<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    log_interval(&text).map(Some).map_err(D::Error::custom)
}

/// An interval of the latency log: not so short that the log would be all there is to do.
///
/// # Errors
///
/// What is wrong with it, for people.
pub fn log_interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval < Duration::from_secs(1) {
        return Err("an interval is 1s or more".into());
    }
    Ok(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_cannot_be_served_is_refused() {
        for path in ["metrics", "/{x}", "/healthz", "/a b", "", "/api/v1/devices"] {
            assert!(path.parse::<WebPath>().is_err(), "{path:?}");
        }
        for path in ["/probe/metrics", "/"] {
            assert!(path.parse::<WebPath>().is_ok(), "{path:?}");
        }
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_nothing() {
        let file: Layer = toml::from_str(
            "privileges = \"keep\"\n[log]\nlevel = \"debug\"\n\
             [web]\nlisten-address = [\":1\", \":2\"]\nmax-requests = 7\n",
        )
        .expect("valid");
        let typed = Layer {
            web: Web {
                listen_address: Some(vec![":3".parse().expect("an address")]),
                ..Web::default()
            },
            ..Layer::default()
        };
        let both = typed.clone().or(file.clone());
        assert_eq!(both.web.listen_address, typed.web.listen_address);
        assert_eq!(both.web.max_requests, Some(7));
        assert_eq!(both.log.level, Some(Level::Debug));
        assert_eq!(both.privileges, Some(Mode::Keep));
        assert_eq!(Layer::default().or(file.clone()), file);
        assert_eq!(file.clone().or(Layer::default()), file);
    }
}
