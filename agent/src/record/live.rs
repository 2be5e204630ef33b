// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope record`: an observer with probes of its own, of which nothing is shown but a few lines, and everything is written down.

use super::{Options, RecordError, Recorder, Summary};
use crate::{
    metrics::Metrics,
    observer::Observer,
    probes::{Standing, attach::Missing, object, wanted},
    sampler::{Sampler, Shared, lock},
    session::{End, Role, Session},
};
use prometheus::Registry;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::warn;

/// How often it is looked what there is to say.
const LOOK: Duration = Duration::from_millis(100);
/// How long the sums of a closed device are kept: as long as the agent keeps its series.
const KEEP: Duration = Duration::from_secs(600);

/// What is to be recorded.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to.
    pub options: Options,
    /// For how long; `None` without end.
    pub duration: Option<Duration>,
    /// Whether it is over when a session has ended and none is under way.
    pub until_end: bool,
}

/// Why nothing is recorded, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// A signal's handler could not be installed.
    #[error("failed to prepare for signals")]
    Signals(#[source] io::Error),
    /// The file could not be written.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Records until the plan, SIGINT or SIGTERM ends it. Says on standard error what it watches, each session that has ended, and at the
/// end what became of the recording.
///
/// # Errors
///
/// [`LiveError`]. Missing probes are none: they are tried again, as by the agent.
pub async fn run(plan: Plan) -> Result<(), LiveError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(LiveError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(LiveError::Signals)?;
    let Plan { options, duration, until_end } = plan;
    let (path, paths) = (options.path.clone(), options.paths.clone());
    let metrics = Arc::new(Metrics::new(Registry::new()));
    let observer: Shared = Arc::new(Mutex::new(Observer::new(paths.clone(), metrics)));
    let recorder = Recorder::begin(&observer, options)?;
    let (stop, stopped) = watch::channel(false);
    let sampler = Sampler::keeping_privileges(Arc::clone(&observer), object::EMBEDDED, paths, KEEP);
    let sampler = tokio::spawn(sampler.run(stopped));

    let over = async {
        match duration {
            Some(duration) => sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Told::default();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = &mut over => break,
            _ = look.tick() => {
                let (lines, busy) = {
                    let observer = lock(&observer);
                    (told.news(&observer, &path), observer.is_busy())
                };
                // Without the lock: standard error may be a pipe that nobody empties.
                say(&lines);
                if (until_end && told.sessions > 0 && !busy) || recorder.is_over() {
                    break;
                }
            }
        }
    }
    stop.send_replace(true);
    if let Err(error) = sampler.await {
        warn!(%error, "the last records were not read");
    }
    let (lines, lost) = {
        let observer = lock(&observer);
        (told.news(&observer, &path), observer.losses_so_far().total())
    };
    say(&lines);
    let summary = recorder.finish()?;
    eprintln!("{}", last_line(&summary, told.sessions, lost));
    Ok(())
}

fn say(lines: &[String]) {
    for line in lines {
        eprintln!("{line}");
    }
}

/// What was said so far.
#[derive(Default)]
struct Told {
    standing: Standing,
    /// How many sessions have ended.
    sessions: u64,
    /// Their numbers, as long as the observer keeps them: they end in another order than they begin.
    ended: Vec<u64>,
}

impl Told {
    /// Lines that say what is new.
    fn news(&mut self, observer: &Observer, path: &Path) -> Vec<String> {
        let mut lines = Vec::new();
        if *observer.standing() != self.standing {
            self.standing.clone_from(observer.standing());
            lines.push(format!("recording to {}: {}", path.display(), attached(&self.standing)));
        }
        let kept: Vec<_> =
            observer.sessions().filter_map(|session| Some((session, session.end?))).collect();
        self.ended.retain(|id| kept.iter().any(|(session, _)| session.id == *id));
        for (session, end) in kept {
            if !self.ended.contains(&session.id) {
                self.ended.push(session.id);
                self.sessions += 1;
                lines.push(session_line(session, end));
            }
        }
        lines
    }
}

/// What is watched, and what is not.
fn attached(standing: &Standing) -> String {
    let names = standing.iter().filter(|(_, attached)| attached.is_ok());
    let names: Vec<_> = names.map(|(event, _)| event.name()).collect();
    let wanted: BTreeMap<_, _> = wanted(standing).collect();
    let mut text = match names.len() {
        0 => "no probe is attached".to_owned(),
        all if all == wanted.len() => format!("all {all} probes are attached"),
        _ => format!("attached: {}", names.join(", ")),
    };
    // Mostly all of them miss the same.
    let mut reasons: Vec<(&Missing, bool, Vec<&str>)> = Vec::new();
    for (event, state) in standing {
        let Err(missing) = state else { continue };
        match reasons.iter_mut().find(|(known, ..)| *known == missing) {
            Some((.., names)) => names.push(event.name()),
            None => reasons.push((missing, wanted.contains_key(event), vec![event.name()])),
        }
    }
    for (missing, is_wanted, names) in reasons {
        // Writing to a string cannot fail.
        let _ = if is_wanted {
            let names = names.join(", ");
            write!(text, "; missing: {names} ({}; {})", missing.why, missing.remedy)
        } else {
            write!(text, "; {} more have nothing to watch ({})", names.len(), missing.why)
        };
    }
    text
}

fn session_line(session: &Session, (end, ended_ns): (End, u64)) -> String {
    let took = Duration::from_nanos(ended_ns.saturating_sub(session.began_ns));
    let figures = session.figures();
    let data = match (figures.data_bytes, figures.iterations) {
        (Some(bytes), Some(buffers)) => format!("{bytes} bytes in {buffers} buffers"),
        _ => "an unknown amount of data".into(),
    };
    let role = match session.role {
        Role::Source => "out of",
        Role::Destination => "into",
    };
    let exact = if session.exact { "" } else { ", not exact: something of it was not seen" };
    format!(
        "session {}: {} after {:.3} s, {data} {role} {}{exact}",
        session.id,
        end.name(),
        took.as_secs_f64(),
        session.device,
    )
}

fn last_line(summary: &Summary, sessions: u64, lost: Option<u64>) -> String {
    let Summary { path, written_bytes, rotated, dropped, full } = summary;
    let mut text = format!("{}: {written_bytes} bytes", path.display());
    if *rotated > 0 {
        // Writing to a string cannot fail.
        let _ = write!(text, " in all, rotated {rotated} times");
    }
    let plural = if sessions == 1 { "" } else { "s" };
    let _ = write!(text, ", {sessions} session{plural}");
    let _ = match lost {
        Some(0) => write!(text, ", no record lost"),
        Some(lost) => write!(text, ", {lost} records lost by the probes"),
        None => write!(text, ", unknown whether the probes lost records"),
    };
    if *dropped > 0 {
        let _ = write!(text, ", {dropped} inputs not written because the disk was too slow");
    }
    if *full {
        let _ = write!(text, "; it ended because the file was full");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::all_missing;
    use migscope_abi::probe::Probe;

    #[test]
    fn a_probe_that_has_nothing_to_watch_is_not_called_missing() {
        let waits = Missing::new("no driver is loaded", "load one").dormant();
        let mut standing: Standing = Probe::ALL.into_iter().map(|probe| (probe, Ok(()))).collect();
        let all = Probe::COUNT;
        assert_eq!(attached(&standing), format!("all {all} probes are attached"));
        standing.insert(Probe::DataRead, Err(waits.clone()));
        standing.insert(Probe::DataWrite, Err(waits.clone()));
        let rest = "2 more have nothing to watch (no driver is loaded)";
        assert_eq!(attached(&standing), format!("all {} probes are attached; {rest}", all - 2));

        standing.insert(Probe::State, Err(Missing::new("the kernel refused it", "report it")));
        let told = attached(&standing);
        assert!(told.starts_with("attached: ") && !told.contains("all "), "{told}");
        assert!(told.contains("; missing: state (the kernel refused it; report it)"), "{told}");

        let blind = attached(&all_missing(&waits));
        assert!(blind.starts_with("no probe is attached; missing: state, "), "{blind}");
    }
}
