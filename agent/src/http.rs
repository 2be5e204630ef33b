// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the agent serves.
//!
//! ```text
//!   /                  what this is, and the devices as they stand
//!   /metrics           for Prometheus (the path is a flag)
//!   /healthz           the process answers
//!   /readyz            the probes were tried: each with how it stands; 503 before
//!   /api/v1/devices    devices, JSON
//!   /api/v1/sessions   running and ended sessions, JSON
//!   /api/v1/sessions/1 one of them, with its timeline
//!   /api/v1/snapshot   everything that is known now, JSON: devices, sessions, migrations of machines
//! ```

use crate::{
    clock::monotonic_ns,
    metrics::CONTENT_TYPE,
    observer::DeviceReport,
    sampler::{Shared, lock},
    session::{report::Report, timeline::Point},
    snapshot::Snapshot,
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use std::{fmt::Write, sync::Arc};
use tower::limit::GlobalConcurrencyLimitLayer;
use tracing::error;

/// Requests that are served at a time; more wait. node_exporter's `--web.max-requests` has the same default.
const MAX_REQUESTS: usize = 40;

#[derive(Clone)]
struct Pages {
    observer: Shared,
    landing: Arc<str>,
}

/// The routes, with the metrics at `telemetry_path`.
pub fn router(observer: Shared, telemetry_path: &str) -> Router {
    let landing = include_str!("http/landing.html")
        .replace("{{version}}", env!("CARGO_PKG_VERSION"))
        .replace("{{metrics}}", telemetry_path);
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/api/v1/devices", get(devices))
        .route("/api/v1/sessions", get(sessions))
        .route("/api/v1/sessions/{id}", get(session))
        .route("/api/v1/snapshot", get(snapshot))
        .route(telemetry_path, get(metrics));
    let router = if telemetry_path == "/" { router } else { router.route("/", get(landing_page)) };
    router
        .layer(GlobalConcurrencyLimitLayer::new(MAX_REQUESTS))
        .with_state(Pages { observer, landing: landing.into() })
}

async fn landing_page(State(pages): State<Pages>) -> Html<String> {
    Html(pages.landing.to_string())
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let metrics = Arc::clone(lock(&pages.observer).metrics());
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            error!(error = &error as &dyn std::error::Error, "a scrape failed");
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written; see the log\n")
                .into_response()
        }
    }
}

async fn ready(State(pages): State<Pages>) -> Response {
    let observer = lock(&pages.observer);
    let standing = observer.standing();
    if standing.is_empty() {
        let text = "the probes have not been tried yet\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    let mut text = String::from("ok\n");
    for (event, attached) in standing {
        // Writing to a string cannot fail.
        let _ = match attached {
            Ok(()) => writeln!(text, "probe {}: attached", event.name()),
            Err(missing) => writeln!(
                text,
                "probe {}: missing: {}; {}",
                event.name(),
                missing.why,
                missing.remedy
            ),
        };
    }
    text.into_response()
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

async fn session(State(pages): State<Pages>, Path(id): Path<u64>) -> Response {
    let now_ns = monotonic_ns();
    let found = {
        let observer = lock(&pages.observer);
        observer.sessions().find(|session| session.id == id).map(|session| OneSession {
            monotonic_ns: now_ns,
            session: Report::new(session, now_ns),
            timeline: session.timeline.points().to_vec(),
        })
    };
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
