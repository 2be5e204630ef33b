// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the agent serves.
//!
//! ```text
//!   /                  the live page                                                            page
//!   /static/…          its style, scripts and icon
//!   /runbooks/         what to do when, as pages                                                runbooks
//!   /metrics           for Prometheus (the path is a flag)                                      metrics
//!   /healthz           the process answers                                                      health
//!   /readyz            the probes were tried: each with how it stands; 503 before
//!   /api/v1/devices    devices, JSON                                                            api
//!   /api/v1/sessions   running and ended sessions, JSON
//!   /api/v1/sessions/1 one of them, with its timeline
//!   /api/v1/snapshot   everything that is known now, JSON: devices, sessions, migrations of machines
//!   /api/v1/events     the same each time it has changed, as server-sent events                 events
//! ```

mod api;
pub mod events;
mod health;
mod metrics;
mod page;
mod runbooks;

use crate::sampler::{Shared, lock};
use axum::{
    Router,
    http::{HeaderValue, StatusCode, header},
    middleware::map_response,
    response::Response,
};
use events::Events;
use page::Page;
use std::sync::Arc;
use tokio::sync::watch;

/// Nothing from elsewhere, nothing inline, in nobody's frame: whatever a machine calls itself, it runs no script here.
const SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

#[derive(Clone)]
struct Pages {
    observer: Shared,
    page: Arc<Page>,
    events: Arc<Events>,
}

/// Whether something else than the metrics is served at `path`.
pub fn is_taken(path: &str) -> bool {
    const PATHS: [&str; 2] = ["/healthz", "/readyz"];
    const FOLDERS: [&str; 3] = ["/api", "/static", "/runbooks"];
    let below = |folder: &str| {
        path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    PATHS.contains(&path) || FOLDERS.into_iter().any(below)
}

/// The routes, with the metrics at `telemetry_path`, which must not be [taken](is_taken). Streams of events end when `stopped`
/// becomes true or its sender is gone.
pub fn router(observer: Shared, telemetry_path: &str, stopped: watch::Receiver<bool>) -> Router {
    let metrics = Arc::clone(lock(&observer).metrics());
    let pages = Pages {
        page: Arc::new(Page::new(telemetry_path)),
        events: Arc::new(Events::new(Arc::clone(&observer), stopped)),
        observer,
    };
    let mut router = Router::new()
        .merge(api::routes())
        .merge(events::routes())
        .merge(health::routes())
        .merge(runbooks::routes())
        .merge(page::files());
    if telemetry_path != "/" {
        router = router.merge(page::front());
    }
    router
        .fallback(async || (StatusCode::NOT_FOUND, "there is nothing here; / leads on\n"))
        .method_not_allowed_fallback(async || {
            (StatusCode::METHOD_NOT_ALLOWED, "this is for reading only: GET or HEAD\n")
        })
        .with_state(pages)
        .merge(metrics::route(metrics, telemetry_path))
        .layer(map_response(guarded))
}

/// The headers that every answer has.
async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, SECURITY_POLICY);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // What is known changes; files of the page say themselves how long they keep.
    let keep = HeaderValue::from_static("no-store");
    headers.entry(header::CACHE_CONTROL).or_insert(keep);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_take_no_path_of_others() {
        for taken in
            ["/healthz", "/readyz", "/api", "/api/v1/events", "/static/page.js", "/runbooks/"]
        {
            assert!(is_taken(taken), "{taken}");
        }
        for free in ["/", "/metrics", "/apis", "/healthz/metrics"] {
            assert!(!is_taken(free), "{free}");
        }
    }
}
