// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What may happen while the view is shown, from three threads into one channel: keys, signals, and answers of the source.

use super::{model::Update, source::SourceError};
use crossterm::event::{self, Event, KeyEvent};
use std::{io, sync::mpsc::Sender, thread};
use tokio::signal::unix::{SignalKind, signal};

/// SIGTSTP on Linux (signal(7)).
const SIGTSTP: i32 = 20;
/// SIGCONT on Linux (signal(7)).
const SIGCONT: i32 = 18;

/// One thing that happened.
#[derive(Debug)]
pub enum Happening {
    /// A key was pressed.
    Key(KeyEvent),
    /// The terminal has another size, or may not show what was drawn.
    Resized,
    /// The source was asked.
    Answer(Box<Result<Update, SourceError>>),
    /// SIGTERM, SIGINT, SIGHUP, or the terminal is gone.
    Terminate,
    /// SIGTSTP.
    Stop,
    /// SIGCONT.
    Continue,
}

/// Sends keys and changes of the size, until nobody listens.
///
/// # Errors
///
/// When there is no thread for it.
pub fn keys(to: Sender<Happening>) -> io::Result<()> {
    let read = move || {
        loop {
            let happening = match event::read() {
                Ok(Event::Key(key)) => Happening::Key(key),
                Ok(Event::Resize(..)) => Happening::Resized,
                Ok(_) => continue,
                Err(_) => Happening::Terminate,
            };
            let last = matches!(happening, Happening::Terminate);
            if to.send(happening).is_err() || last {
                return;
            }
        }
    };
    thread::Builder::new().name("keys".into()).spawn(read).map(drop)
}

/// Sends signals, until nobody listens.
///
/// # Errors
///
/// When there is no thread for it, or no handler could be installed.
pub fn signals(to: Sender<Happening>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Installed before this returns: none is lost in between.
    let (mut terminate, mut interrupt, mut hang_up, mut stop, mut go_on) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::from_raw(SIGTSTP))?,
            signal(SignalKind::from_raw(SIGCONT))?,
        )
    };
    let wait = async move {
        loop {
            let happening = tokio::select! {
                _ = terminate.recv() => Happening::Terminate,
                _ = interrupt.recv() => Happening::Terminate,
                _ = hang_up.recv() => Happening::Terminate,
                _ = stop.recv() => Happening::Stop,
                _ = go_on.recv() => Happening::Continue,
            };
            if to.send(happening).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(wait)).map(drop)
}
