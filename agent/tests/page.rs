// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is served: routes, headers, and the stream of events.

mod scripted;

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, Method, Request, StatusCode, header},
    response::Response,
};
use futures_util::StreamExt as _;
use migscope::{
    http::events::{ENDED, HEARTBEAT, INTERVAL, MAX_STREAMS, TRANSITIONS},
    snapshot::Snapshot,
    state::State,
};
use migscope_abi::ring::DeviceSums;
use scripted::{Scripted, blind, migration::SOURCE, moving};
use std::{io::ErrorKind, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};
use tower::ServiceExt as _;

async fn ask(scripted: &Scripted, method: Method, path: &str, headers: HeaderMap) -> Response {
    let mut request =
        Request::builder().method(method).uri(path).body(Body::empty()).expect("sound");
    *request.headers_mut() = headers;
    scripted.router.clone().oneshot(request).await.expect("a router never fails")
}

async fn get(scripted: &Scripted, path: &str) -> Response {
    ask(scripted, Method::GET, path, HeaderMap::new()).await
}

async fn text(response: Response) -> String {
    let body = axum::body::to_bytes(response.into_body(), 1 << 24).await.expect("a body");
    String::from_utf8(body.to_vec()).expect("text")
}

fn header_of(response: &Response, name: header::HeaderName) -> String {
    response
        .headers()
        .get(name)
        .map(|value| value.to_str().expect("text").to_owned())
        .unwrap_or_default()
}

#[tokio::test]
async fn every_route_answers_with_its_type_and_the_guarding_headers() {
    let scripted = Scripted::watching();
    scripted.migrate();
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/static/page.css", "text/css; charset=utf-8"),
        ("/static/page.js", "text/javascript; charset=utf-8"),
        ("/static/icon.svg", "image/svg+xml"),
        ("/runbooks/", "text/html; charset=utf-8"),
        ("/runbooks/VfioMigrationFailed", "text/html; charset=utf-8"),
        ("/runbooks/VfioMigrationFailed.md", "text/html; charset=utf-8"),
        ("/healthz", "text/plain; charset=utf-8"),
        ("/readyz", "text/plain; charset=utf-8"),
        ("/metrics", "text/plain; version=0.0.4"),
        ("/api/v1/devices", "application/json"),
        ("/api/v1/sessions", "application/json"),
        ("/api/v1/sessions/1", "application/json"),
        ("/api/v1/snapshot", "application/json"),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let answer = ask(&scripted, method.clone(), path, HeaderMap::new()).await;
            assert_eq!(answer.status(), StatusCode::OK, "{method} {path}");
            let served_as = header_of(&answer, header::CONTENT_TYPE);
            assert!(served_as.starts_with(content_type), "{path}: {served_as}");
            guarded(&answer, path);
            assert_eq!(text(answer).await.is_empty(), method == Method::HEAD, "{method} {path}");
        }
    }
}

fn guarded(answer: &Response, path: &str) {
    let policy = header_of(answer, header::CONTENT_SECURITY_POLICY);
    assert!(
        policy.starts_with("default-src 'self';") && !policy.contains("unsafe"),
        "{path}: {policy}"
    );
    assert_eq!(header_of(answer, header::X_CONTENT_TYPE_OPTIONS), "nosniff", "{path}");
    assert_eq!(header_of(answer, header::REFERRER_POLICY), "no-referrer", "{path}");
    assert!(
        ["no-cache", "no-store"].contains(&&*header_of(answer, header::CACHE_CONTROL)),
        "{path}"
    );
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_done_is_told_shortly() {
    let scripted = Scripted::watching();
    for path in [
        "/nothing",
        "/static/nothing",
        "/static/../Cargo.toml",
        "/runbooks/None",
        "/api/v1/sessions/99",
        "/api/v1/sessions/x",
    ] {
        let answer = get(&scripted, path).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        guarded(&answer, path);
        let text = text(answer).await;
        assert!(!text.is_empty() && text.len() < 100 && !text.contains("Cargo"), "{path}: {text}");
    }
    for path in ["/", "/static/page.js", "/api/v1/snapshot", "/api/v1/events", "/healthz"] {
        let answer = ask(&scripted, Method::POST, path, HeaderMap::new()).await;
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(header_of(&answer, header::ALLOW), "GET,HEAD", "{path}");
        guarded(&answer, path);
        assert!(!text(answer).await.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn a_browser_that_has_a_file_is_not_sent_it_again() {
    let scripted = Scripted::watching();
    for path in ["/", "/static/page.js", "/runbooks/", "/runbooks/VfioMigrationFailed"] {
        let first = get(&scripted, path).await;
        let tag = first.headers()[header::ETAG].clone();
        let asked = HeaderMap::from_iter([(header::IF_NONE_MATCH, tag.clone())]);
        let again = ask(&scripted, Method::GET, path, asked).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path}");
        assert_eq!(again.headers()[header::ETAG], tag, "{path}");
        assert_eq!(text(again).await, "");
        let asked =
            HeaderMap::from_iter([(header::IF_NONE_MATCH, "\"other\"".parse().expect("a value"))]);
        assert_eq!(
            ask(&scripted, Method::GET, path, asked).await.status(),
            StatusCode::OK,
            "{path}"
        );
    }
}

#[tokio::test]
async fn every_file_that_the_page_names_is_there() {
    let scripted = Scripted::watching();
    let index = text(get(&scripted, "/").await).await;
    let mut to_read = vec![("/".to_owned(), index)];
    let mut seen = Vec::new();
    while let Some((base, document)) = to_read.pop() {
        for mark in ["href=\"", "src=\"", "from \""] {
            for (at, _) in document.match_indices(mark) {
                let name = document[at + mark.len()..].split('"').next().expect("a first part");
                if name.starts_with('#') {
                    continue;
                }
                let path = format!("{base}{}", name.trim_start_matches("./"));
                if seen.contains(&path) {
                    continue;
                }
                let answer = get(&scripted, &path).await;
                assert_eq!(answer.status(), StatusCode::OK, "{path}");
                seen.push(path.clone());
                if path.ends_with(".js") {
                    to_read.push(("/static/".into(), text(answer).await));
                }
            }
        }
    }
    assert!(seen.len() > 12, "{seen:?}");
}

#[tokio::test]
async fn a_runbook_is_rendered_and_the_list_has_all() {
    let scripted = Scripted::watching();
    let page = text(get(&scripted, "/runbooks/MigscopeProbeMissing").await).await;
    for part in [
        "<h1>MigscopeProbeMissing</h1>",
        "<strong>Meaning.</strong>",
        "<code>migscope check</code>",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let list = text(get(&scripted, "/runbooks/").await).await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../dashboards/runbooks");
    let mut count = 0;
    for file in std::fs::read_dir(folder).expect("runbooks") {
        let name = file.expect("a file").file_name().into_string().expect("text");
        let name = name.trim_end_matches(".md").to_owned();
        if name == "README" {
            continue; // the folder's own index
        }
        assert!(list.contains(&format!("href=\"{name}\"")), "{name}: {list}");
        assert_eq!(get(&scripted, &format!("/runbooks/{name}")).await.status(), StatusCode::OK);
        count += 1;
    }
    assert!(count >= 4);
}

/// The frames of a stream.
struct Frames(BodyDataStream);

impl Frames {
    async fn open(scripted: &Scripted) -> Self {
        let answer = get(scripted, "/api/v1/events").await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(header_of(&answer, header::CONTENT_TYPE), "text/event-stream");
        guarded(&answer, "/api/v1/events");
        Self(answer.into_body().into_data_stream())
    }

    async fn next(&mut self) -> Option<String> {
        let bytes = self.0.next().await?.expect("nothing fails");
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        assert!(
            text.ends_with("\n\n") && text.matches("\n\n").count() == 1,
            "one whole frame: {text:?}"
        );
        Some(text)
    }

    async fn snapshot(&mut self) -> Snapshot {
        snapshot_of(&self.next().await.expect("a frame"))
    }
}

fn snapshot_of(frame: &str) -> Snapshot {
    assert!(frame.lines().any(|line| line == "event: snapshot"), "{frame}");
    let data = frame.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
    serde_json::from_str(data).expect("a snapshot")
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_what_is_known_and_tells_changes_only() {
    let scripted = Scripted::watching();
    let mut frames = Frames::open(&scripted).await;
    let began = Instant::now();
    let first = frames.next().await.expect("a frame");
    assert!(first.starts_with("retry: 2000\nevent: snapshot\ndata: {"), "{first}");
    assert!(snapshot_of(&first).devices.is_empty());
    assert_eq!(began.elapsed(), Duration::ZERO, "at once");

    scripted.change(SOURCE, State::Running, State::PreCopy, DeviceSums::default());
    let snapshot = frames.snapshot().await;
    assert_eq!(snapshot.devices[0].state.as_deref(), Some("pre_copy"));
    assert_eq!(began.elapsed(), INTERVAL);

    // Time alone is no change; then the heartbeat, which a page can see.
    let before = Instant::now();
    let alive = frames.next().await.expect("a frame");
    assert!(
        alive.starts_with(": ") && alive.contains("\nevent: alive\ndata: {\"monotonic_ns\":"),
        "{alive}"
    );
    assert_eq!(before.elapsed(), HEARTBEAT);

    scripted.sums(SOURCE, State::PreCopy, moving(4096, 100));
    assert_eq!(frames.snapshot().await.devices[0].pending_bytes, Some(100));
}

#[tokio::test(start_paused = true)]
async fn changes_come_no_faster_than_the_interval_and_all_clients_have_the_same() {
    let scripted = Scripted::watching();
    let mut one = Frames::open(&scripted).await;
    let mut other = Frames::open(&scripted).await;
    assert_eq!(one.next().await, other.next().await);
    for step in 1..=20_u64 {
        let before = Instant::now();
        for part in 0..50 {
            scripted.sums(SOURCE, State::Running, moving(1024 * step + part, step));
        }
        let (first, second) = (one.next().await, other.next().await);
        assert_eq!(first, second, "byte for byte");
        assert_eq!(before.elapsed(), INTERVAL);
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_late_gets_the_clock_of_now() {
    let scripted = Scripted::watching();
    let first = Frames::open(&scripted).await.snapshot().await;
    tokio::time::advance(Duration::from_secs(3600)).await;
    let frames = Frames::open(&scripted).await.snapshot().await;
    assert!(frames.monotonic_ns > first.monotonic_ns, "made anew, though nothing has changed");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_misses_what_was_in_between() {
    let scripted = Scripted::watching();
    let mut slow = Frames::open(&scripted).await;
    let mut quick = Frames::open(&scripted).await;
    slow.snapshot().await;
    quick.snapshot().await;
    for step in 1..=100_u64 {
        scripted.sums(SOURCE, State::Running, moving(1024 * step, step));
        assert_eq!(quick.snapshot().await.devices[0].pending_bytes, Some(step));
    }
    assert_eq!(
        slow.snapshot().await.devices[0].pending_bytes,
        Some(100),
        "the newest, not the next"
    );
    let nothing = timeout(INTERVAL * 3, slow.next()).await;
    assert!(nothing.is_err(), "nothing was kept for it: {nothing:?}");
}

#[tokio::test(start_paused = true)]
async fn streams_are_bounded_and_their_places_come_back() {
    let scripted = Scripted::watching();
    let mut streams = Vec::new();
    for _ in 0..MAX_STREAMS {
        streams.push(Frames::open(&scripted).await);
    }
    let refused = get(&scripted, "/api/v1/events").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
    assert!(text(refused).await.contains("/api/v1/snapshot"));
    // Streams take no places of other requests: more are open than are served at a time.
    assert_eq!(get(&scripted, "/metrics").await.status(), StatusCode::OK);
    drop(streams.pop());
    Frames::open(&scripted).await.snapshot().await;
    // Who only asks whether it is there takes none.
    let head = ask(&scripted, Method::HEAD, "/api/v1/events", HeaderMap::new()).await;
    assert_eq!(head.status(), StatusCode::OK);
    drop(head);
    Frames::open(&scripted).await.snapshot().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_streams_at_once() {
    let scripted = Scripted::watching();
    let mut frames = Frames::open(&scripted).await;
    frames.snapshot().await;
    let began = Instant::now();
    scripted.stop.send_replace(true);
    assert!(frames.next().await.expect("a last frame").starts_with("event: stopping\n"));
    assert_eq!(frames.next().await, None);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_bounded_and_says_what_it_leaves_out() {
    let scripted = Scripted::watching();
    for _ in 0..ENDED + 10 {
        scripted.migrate();
    }
    let start = DeviceSums::default();
    scripted.change(SOURCE, State::Stopped, State::Running, start);
    scripted.change(SOURCE, State::Running, State::PreCopy, start);
    for _ in 0..TRANSITIONS {
        scripted.change(SOURCE, State::PreCopy, State::PreCopy, start);
    }
    let snapshot = Frames::open(&scripted).await.snapshot().await;
    let ended = snapshot.sessions.iter().filter(|session| session.result.is_some()).count();
    assert_eq!(ended, ENDED);
    let running = snapshot.sessions.last().expect("one runs");
    assert_eq!((running.result.as_deref(), running.transitions.len()), (None, TRANSITIONS));
    assert_eq!(running.transitions_left_out, 1);
    let machines = snapshot.migrations.iter().filter(|machine| machine.result.is_some()).count();
    assert_eq!(machines, ENDED);
    let last = snapshot.sessions[ENDED - 1].id;
    assert_eq!(last + 1, running.id, "the last that ended are there");
}

#[tokio::test(start_paused = true)]
async fn missing_probes_are_told_with_their_remedy() {
    let scripted = Scripted::new();
    let mut frames = Frames::open(&scripted).await;
    assert!(frames.snapshot().await.probes.is_empty());
    scripted.tell(|observer| observer.probes(blind("not loaded", "load it")));
    let probe = frames.snapshot().await.probes.remove(0);
    assert_eq!(
        (probe.why.as_deref(), probe.remedy.as_deref()),
        (Some("not loaded"), Some("load it"))
    );
}

/// Over a real connection: what a client does not take fills the buffers of its own connection, and nothing else.
#[tokio::test]
async fn a_connection_that_is_not_read_holds_up_nobody() {
    let scripted = Scripted::watching();
    // A snapshot of a quarter of a megabyte.
    for _ in 0..ENDED {
        scripted.migrate();
    }
    scripted.name(SOURCE, &"x".repeat(250_000));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (server_stop, mut server_stopped) = tokio::sync::watch::channel(false);
    let server = axum::serve(listener, scripted.router.clone())
        .with_graceful_shutdown(async move { drop(server_stopped.changed().await) });
    let server = tokio::spawn(server.into_future());
    let request = b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut deaf = TcpStream::connect(address).await.expect("connected");
    deaf.write_all(request).await.expect("sent");
    let mut quick = TcpStream::connect(address).await.expect("connected");
    quick.write_all(request).await.expect("sent");

    let mut heard = Vec::new();
    for step in 1..=8_u64 {
        scripted.sums(SOURCE, State::Running, moving(1024 * step, 770_000 + step));
        let wanted = format!("\"pending_bytes\":{}", 770_000 + step);
        while !String::from_utf8_lossy(&heard).contains(&wanted) {
            heard.drain(..heard.len().saturating_sub(300_000));
            let mut part = vec![0; 65_536];
            let read = quick.read(&mut part).await.expect("readable");
            assert!(read > 0, "the stream goes on");
            heard.extend_from_slice(&part[..read]);
        }
    }
    // The deaf one took none of eight frames of a quarter of a megabyte. It gets no end, for its buffers are full, so the
    // server is not waited for; the quick one's connection has a clean end.
    scripted.stop.send_replace(true);
    server_stop.send_replace(true);
    let mut rest = Vec::new();
    match quick.read_to_end(&mut rest).await {
        Ok(_) => assert!(String::from_utf8_lossy(&rest).contains("event: stopping"), "told before"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    drop(deaf);
    server.await.expect("no panic").expect("served to its end");
}
