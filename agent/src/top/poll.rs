// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Asks the source again and again, on a thread of its own: a source that is slow does not hold up the keys.

use super::{
    model::Update,
    source::{Source, SourceError},
};
use std::{
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

/// The thread; it ends with this value.
#[derive(Debug)]
pub struct Poller {
    wishes: Sender<Option<u64>>,
    wish: Option<u64>,
}

impl Poller {
    /// Asks `source` every `interval` and gives each answer to `tell`, until that says that nobody listens any more.
    ///
    /// # Errors
    ///
    /// When there is no thread for it.
    pub fn start(
        source: Box<dyn Source>,
        interval: Duration,
        tell: impl Fn(Result<Update, SourceError>) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let (wishes, wished) = channel();
        thread::Builder::new()
            .name("poll".into())
            .spawn(move || poll(source, interval, &wished, tell))?;
        Ok(Self { wishes, wish: None })
    }

    /// The points of this session are wanted with each answer from now on, and with one that is asked for at once.
    pub fn want(&mut self, session: Option<u64>) {
        if self.wish != session {
            self.wish = session;
            // A thread that has ended wants no wishes.
            let _ = self.wishes.send(session);
        }
    }
}

fn poll(
    mut source: Box<dyn Source>,
    interval: Duration,
    wished: &Receiver<Option<u64>>,
    tell: impl Fn(Result<Update, SourceError>) -> bool,
) {
    let mut wish = None;
    loop {
        let began = Instant::now();
        if !tell(ask(&mut *source, wish)) {
            return;
        }
        match wished.recv_timeout(interval.saturating_sub(began.elapsed())) {
            Ok(session) => wish = session,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// One answer.
///
/// # Errors
///
/// [`SourceError`], also when only the points could not be had.
pub fn ask(source: &mut dyn Source, session: Option<u64>) -> Result<Update, SourceError> {
    let snapshot = source.snapshot()?;
    let timeline = match session {
        Some(session) => Some((session, source.timeline(session)?)),
        None => None,
    };
    Ok(Update { snapshot, timeline })
}
