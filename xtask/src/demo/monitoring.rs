// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask demo --monitoring`: a real Prometheus beside the guest, and all that dashboards and rules ask of it.
//!
//! ```text
//!   guest: agent, migrations ──stdout──▶ course ───────────────┐
//!     ▲ scrapes                                                ├─▶ comparison
//!   Prometheus ◀── rules ── dashboards/prometheus              │
//!     │  └───────────────── HTTP API ──────────────────────────┼─▶ expressions of dashboards/grafana, rules, alerts
//!     └─ promtool ◀── exposition, in the middle of a migration └─▶ pictures
//! ```

mod alerts;
mod compare;
mod course;
mod dashboard;
mod exposition;
mod expressions;
mod pictures;
mod report;
mod server;
mod silent;
mod variable;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use self::course::{Course, Event};
use self::expressions::Asking;
use self::pictures::Drawing;
pub(crate) use self::report::Report;
use self::server::Server;
use super::{Lines, PORT, free_port};
use crate::build_driver;
use crate::kernel::{Kernel, Variant};
use crate::programs::Programs;
use crate::setup;
use crate::vm::{self, Device, Forward, Machine, Outcome, Streams, Task};
use crate::workspace::Workspace;

/// Those of a migration with DMA, and those whose migration does not converge (`cases::monitored` names their memory).
const DEVICES: [Device; 4] =
    [Device::Edu, Device::Edu, Device::Ivshmem { mib: 4 }, Device::Ivshmem { mib: 4 }];
/// Far more than it needs, on a slow machine too.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Two of the migrations (`cases::monitored`): one that is blocked when it ends, and one that comes to its end.
const NOT_CONVERGING: &str = "not-converging";
const CONVERGING: &str = "converging";
/// The migration in whose middle the exposition is looked at, and how long after its beginning.
const LOOKED_AT: (&str, Duration) = ("cancelled", Duration::from_millis(1500));

/// What to do beside it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options<'a> {
    /// Leave guest and Prometheus running.
    pub(crate) keep: bool,
    /// Where to put pictures.
    pub(crate) pictures: Option<&'a Path>,
}

/// Runs it for people, or for a script.
pub(crate) fn run(workspace: &Workspace, json: bool, options: Options<'_>) -> Result<ExitCode> {
    let report = watch(workspace, options, |report| {
        let mut stdout = io::stdout();
        if json {
            writeln!(stdout, "{}", serde_json::to_string(report)?)?;
        } else {
            write!(stdout, "{report}")?;
        }
        stdout.flush().context("failed to show the result")
    })?;
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Boots the guest, watches it with a Prometheus, and asks that for everything; `show` gets the result while both still run.
pub(crate) fn watch(
    workspace: &Workspace,
    options: Options<'_>,
    show: impl FnOnce(&Report) -> Result<()> + Send,
) -> Result<Report> {
    setup::packages()?;
    let kernel = Kernel::ensure(workspace, Variant::Ours)?;
    let driver = build_driver::build(workspace, &kernel.build_tree())?;
    let programs = Programs::build(workspace)?;
    let watching = Watching {
        workspace,
        options,
        prometheus: setup::prometheus::ensure(workspace)?,
        promtool: setup::promtool::ensure(workspace)?,
        rules: rules(&workspace.root)?,
        agent: format!("127.0.0.1:{}", free_port()?),
    };

    let host = watching.agent.rsplit(':').next().and_then(|port| port.parse().ok());
    let host = host.context("the agent's address has no port")?;
    let machine = Machine {
        devices: DEVICES.to_vec(),
        forwards: vec![Forward { host, guest: PORT }],
        ..Machine::default()
    };
    // Not the loopback: QEMU forwards to the guest's network card.
    let mut argv = vec![programs.monitored.clone().into(), "--listen".into()];
    argv.push(format!("0.0.0.0:{PORT}").into());
    argv.extend(options.keep.then(|| "--keep".into()));
    let task = Task {
        argv,
        environment: programs.environment(),
        driver: Some(&driver),
        timeout: (!options.keep).then_some(TIMEOUT),
    };
    let (told, events) = mpsc::channel();
    let stdout = Lines::new(move |line| {
        let event: Event = serde_json::from_str(line)?;
        told.send((course::now(), event)).map_err(|_gone| io::Error::other("nobody watches"))
    });
    let streams = Streams::Separate { stdout: Box::new(stdout), stderr: Box::new(io::stderr()) };
    eprintln!(
        "booting the guest; while it migrates, the live page is at http://{}/",
        watching.agent
    );
    std::thread::scope(|scope| {
        let watching = &watching;
        let watcher = scope.spawn(move || watching.run(&events, show));
        let guest = vm::boot(workspace, &kernel, &machine, task, streams);
        let report = watcher.join().map_err(|_panic| anyhow!("the thread that watches died"))?;
        match guest {
            // The guest fails for more reasons than a migration: an agent that does not end, say.
            Ok(Outcome::Ended { status, .. }) => match report? {
                Some(report) if status.code() == 0 => Ok(report),
                _ => bail!("the guest's part failed; what it said is above"),
            },
            // What went wrong with watching comes first: that the guest was left alone is a consequence.
            Ok(Outcome::TimedOut { limit }) => {
                report.and_then(|_| bail!("the guest did not end within {} s", limit.as_secs()))
            }
            Ok(Outcome::GuestFailed { reason }) => report.and_then(|_| bail!("{reason}")),
            Err(error) => report.and(Err(error)),
        }
    })
}

/// The files of rules, without their tests.
fn rules(root: &Path) -> Result<Vec<PathBuf>> {
    let folder = root.join("dashboards/prometheus");
    let mut files = Vec::new();
    for item in std::fs::read_dir(&folder).context("failed to list the rules")? {
        let path = item.context("failed to list the rules")?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.extend((name.ends_with(".yml") && !name.ends_with(".test.yml")).then_some(path));
    }
    files.sort();
    Ok(files)
}

/// The host's part.
struct Watching<'a> {
    workspace: &'a Workspace,
    options: Options<'a>,
    prometheus: setup::prometheus::Prometheus,
    promtool: PathBuf,
    rules: Vec<PathBuf>,
    /// Where the agent is reached.
    agent: String,
}

impl Watching<'_> {
    /// Nothing if the guest ended before it was over.
    fn run(
        &self,
        events: &Receiver<(f64, Event)>,
        show: impl FnOnce(&Report) -> Result<()>,
    ) -> Result<Option<Report>> {
        let mut course = Course::default();
        let mut server = None;
        let mut exposition = None;
        while course.over.is_none() {
            let Ok((now, event)) = events.recv() else { return Ok(None) };
            match &event {
                Event::Ready => {
                    let folder = self.workspace.output("monitoring")?.join("prometheus");
                    let started =
                        Server::start(&self.prometheus, &folder, &self.agent, &self.rules)?;
                    eprintln!("Prometheus is at {}/", started.url);
                    server = Some(started);
                }
                Event::Begin { migration } => {
                    eprintln!("migrating: {migration}");
                    if migration == LOOKED_AT.0 {
                        std::thread::sleep(LOOKED_AT.1);
                        exposition = Some(exposition::check(&self.promtool, &self.agent));
                    }
                }
                Event::End { migration, .. } => eprintln!("over: {migration}"),
                Event::Over => {}
            }
            course.hear(event, now)?;
        }
        let server = server.context("the guest was never ready")?;
        let report = self.report(&server, &course, exposition)?;
        show(&report)?;
        if self.options.keep {
            eprintln!(
                "the guest stays, with the live page at http://{}/ and Prometheus at {}/; Ctrl-C ends both",
                self.agent, server.url
            );
        }
        // Until the guest has ended. The server ends with this thread, too.
        events.iter().for_each(drop);
        Ok(Some(report))
    }

    fn report(
        &self,
        server: &Server,
        course: &Course,
        exposition: Option<Result<usize>>,
    ) -> Result<Report> {
        let span = course.span()?;
        let (blocked, ends) = (course.nearly_over(NOT_CONVERGING), course.amid(CONVERGING));
        let (blocked, ends) = blocked.zip(ends).context("the guest left a migration out")?;
        let asking = Asking { server, span, moments: [blocked, ends, span.1] };
        let mut asked = Vec::new();
        let dashboards = dashboard::read_all(&self.workspace.root)?;
        let mut drawn = Vec::new();
        for dashboard in &dashboards {
            let mut answers = Vec::new();
            let chosen =
                asking.dashboard(dashboard, &mut asked, |answered| answers.push(answered))?;
            drawn.push(Drawing { dashboard, chosen, answers });
        }
        if let Some(folder) = self.options.pictures {
            pictures::draw(folder, &drawn, course)?;
        }
        asking.rules(&mut asked)?;
        Ok(Report {
            migrations: course.told(),
            comparison: compare::compare(server, course)?,
            gone: silent::unknown(asked.iter().map(|it| (it.of.as_str(), it.what.as_str()))),
            expressions: asked,
            alerts: alerts::check(server, asking.span)?,
            exposition: match exposition {
                Some(Ok(series)) => Ok(series),
                Some(Err(error)) => Err(format!("{error:#}")),
                None => Err("nobody looked at it".to_owned()),
            },
        })
    }
}
