// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is known, as JSON.

use super::Pages;
use crate::{
    clock::monotonic_ns,
    observer::DeviceReport,
    sampler::lock,
    session::{report::Report, timeline::Point},
    snapshot::Snapshot,
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;

pub(super) fn routes() -> Router<Pages> {
    Router::new()
        .route("/api/v1/devices", get(devices))
        .route("/api/v1/sessions", get(sessions))
        .route("/api/v1/sessions/{id}", get(session))
        .route("/api/v1/snapshot", get(snapshot))
}

/// Answer of `/api/v1/devices`.
#[derive(Serialize)]
struct Devices {
    monotonic_ns: u64,
    devices: Vec<DeviceReport>,
}

async fn devices(State(pages): State<Pages>) -> Json<Devices> {
    let now_ns = monotonic_ns();
    Json(Devices { monotonic_ns: now_ns, devices: lock(&pages.observer).device_reports(now_ns) })
}

/// Answer of `/api/v1/sessions`.
#[derive(Serialize)]
struct Sessions {
    monotonic_ns: u64,
    sessions: Vec<Report>,
}

async fn sessions(State(pages): State<Pages>) -> Json<Sessions> {
    let now_ns = monotonic_ns();
    Json(Sessions { monotonic_ns: now_ns, sessions: lock(&pages.observer).session_reports(now_ns) })
}

/// Answer of `/api/v1/sessions/ID`.
#[derive(Serialize)]
struct OneSession {
    monotonic_ns: u64,
    #[serde(flatten)]
    session: Report,
    timeline: Vec<Point>,
}

async fn session(State(pages): State<Pages>, Path(id): Path<String>) -> Response {
    let now_ns = monotonic_ns();
    // What is no number is no session either.
    let found = id.parse().ok().and_then(|id: u64| {
        let observer = lock(&pages.observer);
        observer.sessions().find(|session| session.id == id).map(|session| OneSession {
            monotonic_ns: now_ns,
            session: Report::new(session, now_ns),
            timeline: session.timeline.points().to_vec(),
        })
    });
    match found {
        Some(session) => Json(session).into_response(),
        None => {
            (StatusCode::NOT_FOUND, "no such session, or it ended too long ago\n").into_response()
        }
    }
}

async fn snapshot(State(pages): State<Pages>) -> Json<Snapshot> {
    let now_ns = monotonic_ns();
    Json(Snapshot::of(&lock(&pages.observer), now_ns))
}
