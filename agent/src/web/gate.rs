// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What each request passes before it is answered, in this order: the rate limit, the password, the number at a time.
//!
//! The password comes before the number: who has none holds nobody up who has one.

use super::{
    auth::{Verdict, Verifier},
    connections::{Busy, Place},
    live::Live,
    rate::Limiter,
};
use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderValue, Request, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use http_body::{Frame, SizeHint};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

/// Stands before the router.
pub struct Gate {
    live: Arc<Live>,
    router: Router,
    verifier: Verifier,
    limiter: Option<Limiter>,
    /// As many as may be answered at a time; `None` is no limit.
    requests: Option<Semaphore>,
}

impl Gate {
    /// A gate before `router`; `max_requests` are answered at a time, all of them for 0.
    pub fn new(live: Arc<Live>, router: Router, max_requests: u32) -> Self {
        let limiter = Limiter::new(live.current().rate, Instant::now());
        let requests = match usize::try_from(max_requests) {
            Ok(0) => None,
            max => Some(Semaphore::new(max.unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS))),
        };
        Self { live, router, verifier: Verifier::new(), limiter, requests }
    }

    /// Answers a request that came over the connection at `place`.
    pub async fn answer<B>(&self, request: Request<B>, place: &Place) -> Response
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        // A client that sends a thousand requests at once takes turns with the others.
        tokio::task::yield_now().await;
        let busy = place.request();
        let current = self.live.current();
        let authorization = request.headers().get(header::AUTHORIZATION);
        let mut response = if self.limiter.as_ref().is_some_and(|limit| !limit.take(Instant::now()))
        {
            plain(StatusCode::TOO_MANY_REQUESTS)
        } else if current.users.is_empty() {
            self.route(request).await
        } else {
            let header = authorization.map(HeaderValue::as_bytes);
            match self.verifier.judge(&current.users, header).await {
                Verdict::Right => self.route(request).await,
                Verdict::Busy => come_back(),
                Verdict::Wrong => {
                    let mut response = plain(StatusCode::UNAUTHORIZED);
                    let challenge = HeaderValue::from_static("Basic");
                    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
                    response
                }
            }
        };
        for (name, value) in &current.headers {
            response.headers_mut().insert(name, value.clone());
        }
        response.map(|body| Body::new(Held { body, _busy: busy }))
    }

    async fn route<B>(&self, request: Request<B>) -> Response
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let _turn = match &self.requests {
            None => None,
            Some(requests) => match requests.try_acquire() {
                Ok(turn) => Some(turn),
                // As node_exporter does: to queue would hide from a scraper that it comes too often.
                Err(_) => return come_back(),
            },
        };
        let Ok(response) = self.router.clone().oneshot(request.map(Body::new)).await;
        response
    }
}

fn plain(status: StatusCode) -> Response {
    let text = status.canonical_reason().unwrap_or_default();
    (status, format!("{text}\n")).into_response()
}

fn come_back() -> Response {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// An answer's body; while it is being sent, its connection is not idle.
struct Held {
    body: Body,
    _busy: Busy,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::connections::Connections;
    use axum::routing::get;
    use std::{fs, time::Duration};
    use tokio::sync::Notify;

    fn live(text: &str) -> (tempfile::TempDir, Arc<Live>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("web.yml");
        fs::write(&path, text).expect("written");
        (folder, Arc::new(Live::start(Some(path)).expect("valid")))
    }

    fn request() -> Request<Body> {
        Request::new(Body::empty())
    }

    #[tokio::test]
    async fn who_comes_when_all_are_taken_is_told_to_come_back() {
        let (_folder, live) = live("");
        let (inside, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let router = {
            let (inside, go_on) = (Arc::clone(&inside), Arc::clone(&go_on));
            Router::new().route(
                "/",
                get(async move || {
                    inside.notify_one();
                    go_on.notified().await;
                    "done"
                }),
            )
        };
        let gate = Arc::new(Gate::new(live, router, 1));
        let place = Arc::new(Arc::new(Connections::default()).enter());
        let first = {
            let (gate, place) = (Arc::clone(&gate), Arc::clone(&place));
            tokio::spawn(async move { gate.answer(request(), &place).await.status() })
        };
        inside.notified().await;
        let refused = gate.answer(request(), &place).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key(header::RETRY_AFTER));
        go_on.notify_one();
        assert_eq!(first.await.expect("ended"), StatusCode::OK);
        go_on.notify_one();
        assert_eq!(gate.answer(request(), &place).await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn headers_are_on_every_answer_refusals_too() {
        let hash = bcrypt::hash("open", 4).expect("hashed");
        let (_folder, live) = live(&format!(
            "http_server_config: {{headers: {{X-Content-Type-Options: nosniff}}}}\n\
             basic_auth_users: {{alice: {hash}}}\nrate_limit: {{interval: 1000h, burst: 1}}\n"
        ));
        let gate = Gate::new(live, Router::new(), 0);
        let place = Arc::new(Connections::default()).enter();
        for status in [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS] {
            let refused = gate.answer(request(), &place).await;
            assert_eq!(refused.status(), status);
            assert_eq!(refused.headers()["x-content-type-options"], "nosniff");
        }
    }

    #[tokio::test]
    async fn a_connection_is_busy_until_its_answer_was_sent() {
        let (_folder, live) = live("");
        let gate = Gate::new(live, Router::new().route("/", get(async || "done")), 0);
        let connections = Arc::new(Connections::default());
        let place = connections.enter();
        let answer = gate.answer(request(), &place).await;
        let _others: Vec<_> =
            (1..super::super::connections::MAX).map(|_| connections.enter()).collect();
        let _one_more = connections.enter();
        let cut = tokio::time::timeout(Duration::ZERO, place.cut()).await.is_ok();
        assert!(!cut, "its answer has not been sent");
        drop(answer);
        let _others_still: Vec<_> =
            (0..super::super::connections::MAX).map(|_| connections.enter()).collect();
        place.cut().await;
    }
}
