// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope top`: the devices and their migrations, live, on a terminal.
//!
//! ```text
//!   agent ─ or own probes ──▶ source ──▶ poll (a thread) ──┐
//!   keyboard ───────────────▶ keys   (a thread) ───────────┼──▶ model ──▶ view ──▶ terminal
//!   kernel ─────────────────▶ signals (a thread) ──────────┘         └──▶ plain: lines, where there is no terminal
//! ```
//!
//! - [`source`]: who is asked; [`poll`]: when; [`events`]: what else may happen
//! - [`model`]: what is shown, of [`row`]s with their [`rate`]s and their [`outlook`], in [`column`]s; [`input`]: what a key does to it
//! - [`view`]: the screen, drawn into a buffer; [`plain`]: the same as lines
//! - [`printable`], [`units`]: texts from outside and amounts, made fit for a column
//! - [`terminal`]: taken over, and given back
//!
//! Model, view, input and plain touch neither terminal nor clock nor network: all that they do can be tested as it is.

#[cfg(test)]
mod canned;
pub mod column;
pub mod events;
pub mod input;
pub mod model;
pub mod outlook;
pub mod plain;
pub mod poll;
pub mod printable;
pub mod rate;
pub mod row;
pub mod source;
pub mod terminal;
pub mod units;
pub mod view;

use events::Happening;
use model::{Model, Outcome, Update};
use plain::Plain;
use poll::Poller;
use source::{Source, SourceError};
use std::{
    error::Error,
    io::{self, Write},
    sync::mpsc::{RecvTimeoutError, channel},
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};
use terminal::Screen;
use tracing::{info, warn};
use view::theme::Theme;

/// How often the clock on the screen is drawn when nothing else happens.
const TICK: Duration = Duration::from_secs(1);
/// Things that are taken in before the screen is drawn: whoever holds a key down shall see where he is.
const BURST: usize = 64;

/// In which form lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Those of [`plain`].
    Plain,
    /// A snapshot a line, JSON.
    Json,
}

/// Why the view ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// The terminal, or the thread that reads it, cannot be had.
    #[error("the terminal cannot be used; `migscope top --plain` needs none")]
    Terminal(#[source] io::Error),
    /// The first question had no answer.
    #[error("there is nothing to show")]
    Source(#[source] SourceError),
    /// Standard output takes no more.
    #[error("failed to write")]
    Write(#[source] io::Error),
}

/// Shows the view until the user or a signal ends it.
///
/// # Errors
///
/// [`TopError::Terminal`]; a source that does not answer is shown on the screen.
pub fn on_terminal(
    source: Box<dyn Source>,
    interval: Duration,
    theme: Theme,
) -> Result<(), TopError> {
    let (to, happenings) = channel();
    let mut model = Model::new(source.name());
    events::signals(to.clone()).map_err(TopError::Terminal)?;
    let answers = to.clone();
    let tell = move |answer| answers.send(Happening::Answer(Box::new(answer))).is_ok();
    let mut poller = Poller::start(source, interval, tell).map_err(TopError::Terminal)?;
    let mut screen = Screen::enter(theme).map_err(TopError::Terminal)?;
    events::keys(to).map_err(TopError::Terminal)?;
    loop {
        screen.draw(&model).map_err(TopError::Terminal)?;
        poller.want(model.wants_timeline());
        let first = match happenings.recv_timeout(TICK) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        let more = happenings.try_iter().take(BURST);
        for happening in std::iter::once(first).chain(more) {
            match happens(happening, &mut model, view::page(screen.height())) {
                Outcome::Draw => Ok(()),
                Outcome::Redraw => screen.clear(),
                Outcome::TakeAgain => screen.take_again(),
                Outcome::Suspend => screen.suspend(),
                Outcome::Quit => return Ok(()),
            }
            .map_err(TopError::Terminal)?;
        }
    }
}

/// Tells the model what has happened.
fn happens(happening: Happening, model: &mut Model, page: usize) -> Outcome {
    match happening {
        Happening::Key(key) => {
            if let Some(action) = input::action(key, model.mode()) {
                return model.act(action, page);
            }
        }
        Happening::Answer(answer) => match *answer {
            Ok(update) => model.updated(update),
            Err(error) => model.missed(root_cause(&error), SystemTime::now()),
        },
        Happening::Resized => {}
        Happening::Terminate => return Outcome::Quit,
        Happening::Stop => return Outcome::Suspend,
        Happening::Continue => return Outcome::TakeAgain,
    }
    Outcome::Draw
}

/// What an error came from: the header has one line.
fn root_cause(error: &SourceError) -> String {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Writes lines to `out`: `count` times, or until the reader is gone.
///
/// # Errors
///
/// [`TopError::Source`] when the source does not answer at first; later that is logged, and it is asked again.
/// [`TopError::Write`] for any failure but that of a reader who has read enough.
pub fn as_lines(
    mut source: Box<dyn Source>,
    interval: Duration,
    form: Form,
    count: Option<u64>,
    out: &mut impl Write,
) -> Result<(), TopError> {
    let mut model = Model::new(source.name());
    let mut plain = Plain::default();
    let mut answered = false;
    let mut gone = false;
    let mut done = 0_u64;
    info!(source = %source.name(), "watching");
    while count.is_none_or(|count| done < count) {
        let began = Instant::now();
        match source.snapshot() {
            Ok(snapshot) => {
                if gone {
                    info!("the source answers again");
                }
                (answered, gone) = (true, false);
                done = done.saturating_add(1);
                match write(snapshot, form, &mut model, &mut plain, out) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                    Err(error) => return Err(TopError::Write(error)),
                }
            }
            Err(error) if !answered => return Err(TopError::Source(error)),
            Err(error) => {
                if !gone {
                    warn!(
                        error = &error as &dyn Error,
                        "the source does not answer; it is asked again"
                    );
                }
                gone = true;
            }
        }
        if count.is_none_or(|count| done < count) {
            sleep(interval.saturating_sub(began.elapsed()));
        }
    }
    Ok(())
}

fn write(
    snapshot: crate::snapshot::Snapshot,
    form: Form,
    model: &mut Model,
    plain: &mut Plain,
    out: &mut impl Write,
) -> io::Result<()> {
    match form {
        Form::Json => {
            serde_json::to_writer(&mut *out, &snapshot)?;
            writeln!(out)?;
        }
        Form::Plain => {
            model.updated(Update { snapshot, timeline: None });
            for line in plain.lines(model.rows(), SystemTime::now()) {
                writeln!(out, "{line}")?;
            }
        }
    }
    out.flush()
}
