// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Requests. The first byte of the input says what the rest is: the bytes of a connection, to a server that anybody may ask (0) or
//! that wants a password (1), or one request for the router (2): method, target and headers, a line each.
//!
//! ```text
//!   input ──▶ pipe in memory ──▶ Server::converse ──▶ Gate ──▶ router ──▶ pipe ──▶ answers
//!   input ──▶ Request ───────────────────────────────────────▶ router ──▶ Response
//! ```
//!
//! No socket is there, and no time passes: the clock goes on when nobody has anything to do.
//!
//! Held against it: no answer says that the server failed; who does not know the password is told nothing else; a path that is not
//! [taken](migscope::http::is_taken) has nothing; each answer of ours forbids the browser what it is to forbid; JSON is JSON, an
//! exposition is one that Prometheus takes, an event is one line, and a HEAD has no body.

use crate::{Seed, exposition, scratch::Scratch, target::ring};
use axum::{
    Router,
    body::Body,
    http::{HeaderName, HeaderValue, Method, Request, StatusCode, header},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use migscope::{
    http,
    web::{gate::Gate, live::Live, serve::Server},
};
use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    runtime::{Builder, Runtime},
    sync::watch,
    time::sleep,
};
use tower::ServiceExt as _;

const METRICS: &str = "/metrics";
const PASSWORD: &str = "alice:open";
/// As many requests as are answered at a time.
const REQUESTS: u32 = 40;
/// How long a stream of events is listened to.
const LISTEN: Duration = Duration::from_secs(40);

/// Asks.
///
/// # Panics
///
/// When something is wrong.
pub fn run(input: &[u8]) {
    thread_local! {
        static WORLD: World = World::new();
    }
    let Some((kind, rest)) = input.split_first() else { return };
    WORLD.with(|world| {
        let World { runtime, .. } = world;
        match kind % 3 {
            0 => runtime.block_on(world.connection(rest, &world.open)),
            1 => runtime.block_on(world.connection(rest, &world.protected)),
            _ => runtime.block_on(world.request(rest)),
        }
    });
}

/// A server with something to show, and one more that wants a password.
struct World {
    runtime: Runtime,
    router: Router,
    open: Arc<Server>,
    protected: Arc<Server>,
    stop: watch::Sender<bool>,
    /// Holds the web configuration, which is looked at with each request.
    _scratch: Scratch,
}

impl World {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let (stop, stopped) = watch::channel(false);
        let observer = ring::Played::of(&ring::migration()).observer;
        let router = http::router(Arc::new(Mutex::new(observer)), METRICS, stopped);
        let scratch = Scratch::new().expect("a folder");
        // The lowest cost there is: each guess is verified.
        static HASH: OnceLock<String> = OnceLock::new();
        let hash = HASH.get_or_init(|| bcrypt::hash("open", 4).expect("hashed"));
        let text = format!("basic_auth_users:\n  alice: {hash}\n");
        let config = scratch.write("web.yml", text.as_bytes()).expect("a file");
        let server = |config| {
            let live = Arc::new(Live::start(config).expect("a sound configuration"));
            let gate = Gate::new(Arc::clone(&live), router.clone(), REQUESTS);
            Arc::new(Server::new(live, gate))
        };
        let (open, protected) = (server(None), server(Some(config)));
        let runtime = runtime.expect("a runtime needs no system call for time alone");
        Self { runtime, router, open, protected, stop, _scratch: scratch }
    }

    /// All bytes of a client, then its end; gives the answers.
    async fn connection(&self, bytes: &[u8], server: &Arc<Server>) {
        let _ = self.stop.send_replace(false);
        let (client, theirs) = duplex(64 << 10);
        let (mut from, mut to) = tokio::io::split(client);
        let place = server.connections.enter();
        let stopped = self.stop.subscribe();
        let mut answers = Vec::new();
        let talk = async {
            // It may have closed before it has read all.
            let _ = to.write_all(bytes).await;
            let _ = to.shutdown().await;
        };
        let end = async {
            sleep(LISTEN).await;
            let _ = self.stop.send_replace(true);
        };
        let served = Arc::clone(server).converse(Box::new(theirs), place, stopped);
        let (.., read) = tokio::join!(served, talk, end, from.read_to_end(&mut answers));
        read.expect("a pipe does not fail");
        self.hold_answers(bytes, &answers, Arc::ptr_eq(server, &self.protected));
    }

    fn hold_answers(&self, bytes: &[u8], answers: &[u8], protected: bool) {
        if answers.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(answers);
        let status = text.strip_prefix("HTTP/1.1 ").or_else(|| text.strip_prefix("HTTP/1.0 "));
        let status = status.and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
        let status: u16 = status.unwrap_or_else(|| panic!("no answer: {text:?}"));
        assert!(status < 500 || status == 505, "{text}");
        let knows = BASE64_STANDARD.encode(PASSWORD);
        let knows = bytes.windows(knows.len()).any(|part| part == knows.as_bytes());
        if protected && !knows {
            // Told by hyper: no request, too long, or another version; by the gate: who are you?
            assert!(!text.contains("content-security-policy"), "{text}");
            assert!(matches!(status, 400 | 401 | 408 | 413 | 414 | 431 | 505), "{text}");
        }
    }

    /// One request, as hyper would hand it over.
    async fn request(&self, text: &[u8]) {
        let _ = self.stop.send_replace(false);
        let Some(request) = request(text) else { return };
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let Ok(response) = self.router.clone().oneshot(request).await;
        let (parts, body) = response.into_parts();
        let end = async {
            sleep(LISTEN).await;
            let _ = self.stop.send_replace(true);
        };
        let (body, ()) = tokio::join!(axum::body::to_bytes(body, 64 << 20), end);
        let body = body.expect("a body of bounded length");
        let status = parts.status;
        let known = [200, 304, 400, 404, 405].contains(&status.as_u16());
        assert!(known, "{method} {path}: {status}");
        for name in [
            header::CONTENT_SECURITY_POLICY,
            header::X_CONTENT_TYPE_OPTIONS,
            header::REFERRER_POLICY,
            header::CACHE_CONTROL,
        ] {
            assert!(parts.headers.contains_key(&name), "{method} {path}: no {name}");
        }
        let ours = path == "/" || path == METRICS || http::is_taken(&path);
        assert!(ours || status == StatusCode::NOT_FOUND, "{path} is not taken: {status}");
        let reads = method == Method::GET || method == Method::HEAD;
        assert!(reads || status != StatusCode::OK, "{method} {path}");
        if method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
            assert!(body.is_empty(), "{method} {path} has a body");
        } else if status == StatusCode::OK {
            let encoded = parts.headers.contains_key(header::CONTENT_ENCODING);
            let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            hold_body(&path, kind.unwrap_or_default(), (!encoded).then_some(&body));
        }
    }
}

fn hold_body(path: &str, kind: &str, body: Option<&[u8]>) {
    let Some(body) = body else {
        assert_eq!(path, METRICS, "nothing else is compressed");
        return;
    };
    let text = std::str::from_utf8(body).expect("all that is served is text");
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).map(drop);
    if path == METRICS {
        assert!(!exposition::hold(body).is_empty());
    } else if kind.starts_with("application/json") {
        json(text).unwrap_or_else(|error| panic!("{path} is no JSON: {error}"));
    } else if kind.starts_with("text/event-stream") {
        for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
            json(data).unwrap_or_else(|error| panic!("an event is no JSON: {error}\n{data}"));
        }
        let frames: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
        let whole = frames.first() == Some(&"snapshot") && frames.last() == Some(&"stopping");
        assert!(whole, "{frames:?}");
    }
}

/// Method, target and headers; `None` for what is no request at all.
fn request(text: &[u8]) -> Option<Request<Body>> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let mut first = lines.next()?.splitn(2, |byte| *byte == b' ');
    let method = Method::from_bytes(first.next()?).ok()?;
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method;
    *request.uri_mut() = std::str::from_utf8(first.next()?).ok()?.parse().ok()?;
    for line in lines.take(64) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(parts.next()?).ok()?;
        let value = HeaderValue::from_bytes(parts.next()?.trim_ascii()).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request)
}

/// Browsers, Prometheus, curl, and who means harm.
pub fn seeds() -> Vec<Seed> {
    let connection = |kind: u8, text: &str| [&[kind], text.as_bytes()].concat();
    let get = |path: &str, headers: &str| connection(2, &format!("GET {path}{headers}"));
    let basic = BASE64_STANDARD.encode(PASSWORD);
    let wrong = BASE64_STANDARD.encode("alice:sesame");
    let asked = |secret: &str| {
        format!("GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {secret}\r\n\r\n")
    };
    let prometheus = "\nAccept: application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1\nAccept-Encoding: gzip";
    vec![
        Seed::new("front", get("/", "")),
        Seed::new("metrics", get(METRICS, "\nAccept: text/plain;version=0.0.4")),
        Seed::new("prometheus", get(METRICS, prometheus)),
        Seed::new("openmetrics", get(METRICS, "\nAccept: application/openmetrics-text")),
        Seed::new("session", get("/api/v1/sessions/1?x=%41", "")),
        Seed::new("snapshot", get("/api/v1/snapshot", "")),
        Seed::new("devices", get("/api/v1/devices", "")),
        Seed::new("events", get("/api/v1/events", "\nAccept: text/event-stream\nLast-Event-ID: 7")),
        Seed::new("file", get("/static/page.js", "\nIf-None-Match: W/\"x\", *")),
        Seed::new("runbook", get("/runbooks/agent_blind.md", "")),
        Seed::new("dots", get("/static/%2e%2e/%2f", "")),
        Seed::new("ready", get("/readyz", "")),
        Seed::new("head", connection(2, "HEAD /healthz")),
        Seed::new("post", connection(2, "POST /metrics\nContent-Length: 3")),
        Seed::new("curl", connection(0, "GET /healthz HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n")),
        Seed::new(
            "two-at-once",
            connection(
                0,
                "GET / HTTP/1.1\r\nHost: x\r\n\r\nHEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
            ),
        ),
        Seed::new(
            "chunks",
            connection(
                0,
                "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            ),
        ),
        Seed::new("stream", connection(0, "GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")),
        Seed::new("old", connection(0, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")),
        Seed::new("second-version", connection(0, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
        Seed::new("right-password", connection(1, &asked(&basic))),
        Seed::new("wrong-password", connection(1, &asked(&wrong))),
        Seed::new("no-password", connection(1, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")),
    ]
}
