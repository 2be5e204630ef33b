// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is known, pushed: `/api/v1/events`, server-sent events for the live page.
//!
//! ```text
//!   observer ──look, every 500 ms while somebody listens──▶ frame (one text, shared) ──▶ stream
//!                        changed? if not, none is made                               ├─▶ stream
//!                                                                                    └─▶ at most 32
//! ```
//!
//! Three kinds of frames (<https://html.spec.whatwg.org/multipage/server-sent-events.html>):
//!
//! - `snapshot`: a [`Snapshot`], on connecting and whenever something has changed. It has all sessions that run, the last
//!   [`ENDED`] that ended, and of each session its first [`TRANSITIONS`] changes of state; `/api/v1/sessions/ID` has the rest.
//! - `alive`: `{"monotonic_ns":…}` after [`HEARTBEAT`] in which nothing changed, behind a comment. A page can see it, so it can
//!   tell silence from a dead connection.
//! - `stopping`: the agent ends, and this is the last frame.
//!
//! **Nobody pushes.** Each stream asks for the newest frame when its client has taken the last one, and the first of them to ask
//! after 500 ms makes it for all. So there is no queue that a slow client could let grow, and no sender that it could hold up: it
//! misses what came in between. Without clients nobody looks.

use super::Pages;
use crate::{
    clock::monotonic_ns,
    sampler::{Shared, lock},
    session::report::Report,
    snapshot::Snapshot,
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::stream::unfold;
use serde::Serialize;
use std::{
    convert::Infallible,
    hash::{DefaultHasher, Hasher},
    io,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep_until},
};

/// Streams at a time.
pub const MAX_STREAMS: usize = 32;
/// The least time between two looks at what is known, and so between two snapshots.
pub const INTERVAL: Duration = Duration::from_millis(500);
/// The longest silence.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// Ended sessions in a snapshot.
pub const ENDED: usize = 32;
/// Changes of state of each session in a snapshot; a migration makes four.
pub const TRANSITIONS: usize = 16;
/// When a browser that lost the stream tries again, in milliseconds.
const RETRY_MS: u32 = 2000;

/// The event that tells what is known, shared by all streams.
pub struct Events {
    observer: Shared,
    latest: Mutex<Latest>,
    places: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

/// The newest frame.
#[derive(Default)]
struct Latest {
    frame: Bytes,
    /// Counts the changes; 0 before the first look.
    revision: u64,
    fingerprint: u64,
    looked_at: Option<Instant>,
    made_at: Option<Instant>,
}

impl Events {
    /// Events of what `observer` knows, until `stopped` becomes true.
    pub(super) fn new(observer: Shared, stopped: watch::Receiver<bool>) -> Self {
        let places = Arc::new(Semaphore::new(MAX_STREAMS));
        Self { observer, latest: Mutex::default(), places, stopped }
    }

    /// Looks whether something has changed, if nobody did for [`INTERVAL`]. Gives the newest frame with its revision, and when to
    /// look again. For who has just come (`fresh`) the frame is not older than the interval even if nothing has changed: the
    /// agent's clock is in it.
    async fn look(&self, fresh: bool) -> (u64, Bytes, Instant) {
        let due = |at: Option<Instant>| at.is_none_or(|at| at.elapsed() >= INTERVAL);
        let mut latest = self.latest.lock().await;
        let now = Instant::now();
        if due(latest.looked_at) {
            let snapshot = bounded(Snapshot::of(&lock(&self.observer), monotonic_ns()));
            let fingerprint = fingerprint(&snapshot);
            let changed = latest.revision == 0 || fingerprint != latest.fingerprint;
            if changed {
                latest.revision += 1;
                latest.fingerprint = fingerprint;
            }
            if changed || fresh {
                latest.frame = frame("snapshot", &snapshot);
                latest.made_at = Some(now);
            }
            latest.looked_at = Some(now);
        } else if fresh && due(latest.made_at) {
            let snapshot = bounded(Snapshot::of(&lock(&self.observer), monotonic_ns()));
            latest.frame = frame("snapshot", &snapshot);
            latest.made_at = Some(now);
        }
        let next = latest.looked_at.unwrap_or(now) + INTERVAL;
        (latest.revision, latest.frame.clone(), next)
    }
}

/// Drops what would make snapshots grow with the time that the agent runs.
fn bounded(mut snapshot: Snapshot) -> Snapshot {
    // By their numbers, so the last to begin are the last; who runs stays anyway.
    let ended = snapshot.sessions.iter().filter(|session| session.result.is_some()).count();
    let mut surplus = ended.saturating_sub(ENDED);
    snapshot.sessions.retain(|session| {
        let drop = session.result.is_some() && surplus > 0;
        surplus -= usize::from(drop);
        !drop
    });
    let ended = snapshot.migrations.iter().filter(|machine| machine.result.is_some()).count();
    let mut surplus = ended.saturating_sub(ENDED);
    snapshot.migrations.retain(|machine| {
        let drop = machine.result.is_some() && surplus > 0;
        surplus -= usize::from(drop);
        !drop
    });
    let of_devices = snapshot.devices.iter_mut().filter_map(|device| device.session.as_mut());
    for session in snapshot.sessions.iter_mut().chain(of_devices) {
        let more = session.transitions.len().saturating_sub(TRANSITIONS);
        session.transitions.truncate(TRANSITIONS);
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        session.transitions_left_out = session.transitions_left_out.saturating_add(more);
    }
    snapshot
}

/// Two snapshots have the same, if nothing has changed but the time.
fn fingerprint(snapshot: &Snapshot) -> u64 {
    fn still(session: &mut Report) {
        if session.result.is_none() {
            session.duration_ns = 0;
            session.states_ns.clear();
        }
    }
    let mut snapshot = snapshot.clone();
    snapshot.monotonic_ns = 0;
    for device in &mut snapshot.devices {
        device.states_ns.clear();
        device.session.as_mut().map(still);
    }
    snapshot.sessions.iter_mut().for_each(still);
    let mut hash = Hash(DefaultHasher::new());
    serde_json::to_writer(&mut hash, &snapshot).expect("keys are texts, and a hash takes all");
    hash.0.finish()
}

/// Takes text in and keeps none of it.
struct Hash(DefaultHasher);

impl io::Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An event of this kind. JSON of one line has no line break in it, so it is one line of data.
fn frame(kind: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).expect("keys are texts");
    format!("event: {kind}\ndata: {data}\n\n").into()
}

#[derive(Serialize)]
struct Alive {
    monotonic_ns: u64,
}

/// One client's stream.
struct Stream {
    events: Arc<Events>,
    stopped: watch::Receiver<bool>,
    /// Given back when the client is gone.
    _place: OwnedSemaphorePermit,
    /// The revision that it has; 0 for none.
    seen: u64,
    look_at: Instant,
    told_at: Instant,
    ended: bool,
}

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        while !self.ended {
            let look_at = self.look_at;
            tokio::select! {
                biased;
                // An error means that the sender is gone, which is a stop as well.
                _ = self.stopped.wait_for(|stopped| *stopped) => {
                    self.ended = true;
                    return Some(frame("stopping", &Alive { monotonic_ns: monotonic_ns() }));
                }
                () = sleep_until(look_at) => {}
            }
            let first = self.seen == 0;
            let (revision, frame, next) = self.events.look(first).await;
            self.look_at = next;
            let now = Instant::now();
            if revision != self.seen {
                self.seen = revision;
                self.told_at = now;
                let retry = if first { format!("retry: {RETRY_MS}\n") } else { String::new() };
                return Some(if first {
                    [retry.as_bytes(), &frame].concat().into()
                } else {
                    frame
                });
            }
            if now.duration_since(self.told_at) >= HEARTBEAT {
                self.told_at = now;
                let alive = self::frame("alive", &Alive { monotonic_ns: monotonic_ns() });
                return Some([b": nothing has changed\n", &alive[..]].concat().into());
            }
        }
        None
    }
}

pub(super) fn routes() -> Router<Pages> {
    Router::new().route("/api/v1/events", get(events))
}

async fn events(State(pages): State<Pages>) -> Response {
    let events = pages.events;
    let Ok(place) = Arc::clone(&events.places).try_acquire_owned() else {
        let text = format!(
            "{MAX_STREAMS} streams are open, which is the limit; /api/v1/snapshot can be polled\n"
        );
        let later = [(header::RETRY_AFTER, HeaderValue::from_static("15"))];
        return (StatusCode::SERVICE_UNAVAILABLE, later, text).into_response();
    };
    let now = Instant::now();
    let stopped = events.stopped.clone();
    let stream = Stream {
        events,
        stopped,
        _place: place,
        seen: 0,
        look_at: now,
        told_at: now,
        ended: false,
    };
    let frames = unfold(stream, async |mut stream| {
        let frame = stream.next().await?;
        Some((Ok::<_, Infallible>(frame), stream))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        // For nginx, which would collect frames otherwise.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(frames)).into_response()
}
