// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `/metrics`: in the format that the scraper asks for, compressed if it asks for that.
//!
//! It has the metrics and not the observer, and a limit of its own: a scrape never waits until the observer is done with
//! something, nor behind the pages that do.

use crate::{
    metrics::{Format, Metrics},
    probes::attach::chain,
};
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use std::sync::Arc;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::compression::CompressionLayer;
use tracing::error;

/// Scrapes that are written at a time; more wait for their turn, which comes in milliseconds. Prometheus makes one.
const SCRAPES: usize = 8;

/// The route of the metrics, at `path`.
pub(super) fn route(metrics: Arc<Metrics>, path: &str) -> Router {
    Router::new()
        .route(path, get(scrape))
        .layer(CompressionLayer::new())
        .layer(GlobalConcurrencyLimitLayer::new(SCRAPES))
        .with_state(metrics)
}

async fn scrape(State(metrics): State<Arc<Metrics>>, headers: HeaderMap) -> Response {
    let accepted = headers.get_all(header::ACCEPT).into_iter();
    let accepted: Vec<_> = accepted.filter_map(|value| value.to_str().ok()).collect();
    let format = Format::negotiate(&accepted.join(","));
    let kind = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "accept")];
    match metrics.scrape(format) {
        Ok(text) => (kind, text).into_response(),
        Err(error) => {
            error!(error = chain(&error), "a scrape failed");
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written; see the log\n")
                .into_response()
        }
    }
}
