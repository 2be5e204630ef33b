// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A Prometheus of its own: its configuration, its folder, its port on the loopback; it ends with its value.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::child;
use crate::setup::prometheus::Prometheus;

/// Short, so that a migration of some seconds is several samples.
pub(crate) const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);
/// How often rules are evaluated.
const EVALUATION_INTERVAL: &str = "500ms";
/// How long it may take to answer first, and to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(20);

/// A running server; ended when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
}

/// One series of an answer: its labels, and times with values.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Series {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) points: Vec<(f64, f64)>,
}

/// What Prometheus answers.
#[derive(Deserialize)]
struct Answer<T> {
    data: Option<T>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "snake_case")]
enum Evaluated {
    Vector(Vec<Sample>),
    Matrix(Vec<Sample>),
    Scalar((f64, String)),
    String((f64, String)),
}

#[derive(Deserialize)]
struct Sample {
    metric: BTreeMap<String, String>,
    value: Option<(f64, String)>,
    #[serde(default)]
    values: Vec<(f64, String)>,
}

impl Server {
    /// Starts it in a folder that it gets for itself, to scrape `target` and evaluate the rules of these files.
    pub(crate) fn start(
        installed: &Prometheus,
        folder: &Path,
        target: &str,
        rules: &[PathBuf],
    ) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder).context("failed to remove what the last run left")?;
        }
        fs::create_dir_all(folder).context("failed to make a folder for Prometheus")?;
        let config = folder.join("prometheus.yml");
        // JSON is YAML, too.
        let settings = json!({
            "global": {
                "scrape_interval": format!("{}ms", SCRAPE_INTERVAL.as_millis()),
                "scrape_timeout": format!("{}ms", SCRAPE_INTERVAL.as_millis()),
                "evaluation_interval": EVALUATION_INTERVAL,
            },
            "rule_files": rules,
            "scrape_configs": [{"job_name": "migscope", "static_configs": [{"targets": [target]}]}],
        });
        fs::write(&config, format!("{settings:#}\n")).context("failed to configure Prometheus")?;
        let log = folder.join("log");
        let file = File::create(&log).context("failed to make a log for Prometheus")?;
        let port = {
            let free = TcpListener::bind(("127.0.0.1", 0)).context("failed to find a free port")?;
            free.local_addr().context("failed to ask for a port's number")?.port()
        };
        let mut command = child::bound(&installed.program);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg(format!("--web.local-assets={}", installed.assets.display()))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("failed to share a log")?)
            .stderr(file);
        let shown = child::show(&command);
        let child = command.spawn().with_context(|| format!("failed to start {shown}"))?;
        let mut server = Self { child, url: format!("http://127.0.0.1:{port}") };
        server.ready().with_context(|| format!("{shown}: {}", child::tail(&log)))?;
        Ok(server)
    }

    fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while get(&format!("{}/-/ready", self.url), &[]).is_err() {
            if let Some(status) = self.child.try_wait().context("failed to look at Prometheus")? {
                bail!("Prometheus ended with {status} before it was ready");
            }
            ensure!(Instant::now() < deadline, "Prometheus is not ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The value of an expression at a moment.
    pub(crate) fn at(&self, expression: &str, time: f64) -> Result<Vec<Series>> {
        let time = time.to_string();
        self.ask("query", &[("query", expression), ("time", &time)]).map(series)
    }

    /// Its values over a time, as a panel asks for them.
    pub(crate) fn over(
        &self,
        expression: &str,
        (from, to): (f64, f64),
        step: Duration,
    ) -> Result<Vec<Series>> {
        let [from, to, step] = [from.to_string(), to.to_string(), step.as_secs_f64().to_string()];
        let parameters = [("query", expression), ("start", &from), ("end", &to), ("step", &step)];
        self.ask("query_range", &parameters).map(series)
    }

    /// The label sets of the series that a selector finds, between two moments.
    pub(crate) fn found(
        &self,
        selector: &str,
        (from, to): (f64, f64),
    ) -> Result<Vec<BTreeMap<String, String>>> {
        let [from, to] = [from.to_string(), to.to_string()];
        self.ask("series", &[("match[]", selector), ("start", &from), ("end", &to)])
    }

    /// The rules as it has loaded them.
    pub(crate) fn rules(&self) -> Result<Value> {
        self.ask("rules", &[])
    }

    fn ask<T: DeserializeOwned>(&self, path: &str, parameters: &[(&str, &str)]) -> Result<T> {
        let text = get(&format!("{}/api/v1/{path}", self.url), parameters)?;
        let Answer { data, error } = serde_json::from_str(&text)
            .with_context(|| format!("failed to understand Prometheus: {text}"))?;
        if let Some(error) = error {
            bail!("{error}");
        }
        data.with_context(|| format!("an answer without data: {text}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its process is what `setpriv` became. It writes its data down, and gets the time for it.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _gone = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                let _gone = self.child.kill();
                let _gone = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn series(evaluated: Evaluated) -> Vec<Series> {
    let number = |(time, value): (f64, String)| Some((time, value.parse().ok()?));
    match evaluated {
        Evaluated::Vector(samples) | Evaluated::Matrix(samples) => samples
            .into_iter()
            .map(|Sample { metric, value, values }| Series {
                labels: metric,
                points: values.into_iter().chain(value).filter_map(number).collect(),
            })
            .collect(),
        Evaluated::Scalar(value) | Evaluated::String(value) => {
            vec![Series { points: number(value).into_iter().collect(), ..Series::default() }]
        }
    }
}

/// The body of a page; of one that says what is wrong, too.
pub(crate) fn get(url: &str, parameters: &[(&str, &str)]) -> Result<String> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER))
        .http_status_as_error(false)
        .build();
    let request = ureq::Agent::new_with_config(config).get(url);
    let request =
        parameters.iter().fold(request, |request, (name, value)| request.query(name, value));
    let mut response = request.call().with_context(|| format!("failed to get {url}"))?;
    let status = response.status();
    let text =
        response.body_mut().read_to_string().with_context(|| format!("failed to read {url}"))?;
    // What is wrong with a question is in the answer; a server that is not ready has nothing to say.
    ensure!(status.is_success() || text.starts_with('{'), "{url}: {status}");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_answer_is_series() {
        let read = |text: &str| series(serde_json::from_str(text).unwrap());
        let vector =
            read(r#"{"resultType":"vector","result":[{"metric":{"a":"b"},"value":[1.5,"NaN"]}]}"#);
        assert_eq!(vector[0].labels["a"], "b");
        assert!(vector[0].points[0].1.is_nan());
        let matrix = read(
            r#"{"resultType":"matrix","result":[{"metric":{},"values":[[1,"2"],[2,"+Inf"]]}]}"#,
        );
        assert_eq!(matrix[0].points, [(1.0, 2.0), (2.0, f64::INFINITY)]);
        let scalar = read(r#"{"resultType":"scalar","result":[1,"3"]}"#);
        assert_eq!(scalar[0].points, [(1.0, 3.0)]);
    }
}
