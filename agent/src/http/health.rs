// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether the agent is there, for supervisors.

use super::Pages;
use crate::sampler::lock;
use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use std::fmt::Write;

pub(super) fn routes() -> Router<Pages> {
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready))
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
