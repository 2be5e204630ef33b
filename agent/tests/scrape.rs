// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Scrapes over HTTP: the format that was asked for, compressed if that was asked for, and never waiting for the observer.

use migscope::{
    host::Paths,
    http,
    metrics::Metrics,
    observer::Observer,
    sampler::{Shared, lock},
};
use prometheus::Registry;
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

/// How long a scrape may take before it is taken for stuck; it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";

/// A server with as many threads as the agent's.
struct Server {
    observer: Shared,
    address: SocketAddr,
    _stop: tokio::sync::watch::Sender<bool>,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    fn start() -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().expect("threads");
        let nowhere = PathBuf::from("/nonexistent");
        let paths = Paths { sysfs: nowhere.clone(), procfs: nowhere };
        let metrics = Arc::new(Metrics::new(Registry::new()));
        let observer: Shared = Arc::new(Mutex::new(Observer::new(paths, metrics)));
        // A sender that stays: the server is not stopped.
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let router = http::router(Arc::clone(&observer), "/metrics", stopped);
        let bound = tokio::net::TcpListener::bind("127.0.0.1:0");
        let listener = runtime.block_on(bound).expect("a free port");
        let address = listener.local_addr().expect("bound");
        runtime.spawn(axum::serve(listener, router).into_future());
        Self { observer, address, _stop: stop, _runtime: runtime }
    }

    /// Sends a request; the answer's head in lower case, and its body.
    fn get(&self, path: &str, headers: &str) -> (String, Vec<u8>) {
        let mut stream = self.send(path, headers);
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer in time");
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        let body = answer.split_off(end + 4);
        let body = if head.contains("transfer-encoding: chunked") { unchunk(&body) } else { body };
        (head, body)
    }

    fn send(&self, path: &str, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a duration");
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        stream
    }
}

fn unchunk(mut chunked: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = chunked.iter().position(|byte| *byte == b'\r').expect("a length");
        let length = std::str::from_utf8(&chunked[..end]).expect("text");
        let length = usize::from_str_radix(length, 16).expect("a length");
        if length == 0 {
            return whole;
        }
        whole.extend_from_slice(&chunked[end + 2..end + 2 + length]);
        chunked = &chunked[end + 2 + length + 2..];
    }
}

fn text(body: Vec<u8>) -> String {
    String::from_utf8(body).expect("text")
}

#[test]
fn a_scraper_gets_the_format_that_it_asks_for() {
    let server = Server::start();
    let (head, body) = server.get("/metrics", "");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(head.contains("vary: ") && head.contains("accept"), "{head}");
    assert!(!text(body).contains("# EOF"));

    let (head, body) = server.get("/metrics", &format!("Accept: {OPEN_METRICS}\r\n"));
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(head.contains(kind), "{head}");
    assert!(text(body).ends_with("\n# EOF\n"));

    // A list may come in two headers; a value that is no text says nothing.
    let split = "Accept: text/plain;q=0.5\r\nAccept: application/openmetrics-text\r\n";
    assert!(server.get("/metrics", split).0.contains(kind));
    assert!(server.get("/metrics", "Accept: \u{e9}\r\n").0.contains("version=0.0.4"));
}

#[test]
fn what_is_compressed_is_the_same() {
    let server = Server::start();
    for accept in ["", "Accept: application/openmetrics-text\r\n"] {
        let headers = format!("{accept}Accept-Encoding: gzip\r\n");
        let (head, compressed) = server.get("/metrics", &headers);
        assert!(head.contains("content-encoding: gzip"), "{head}");
        let mut plain = String::new();
        let mut decoder = flate2::read::GzDecoder::new(compressed.as_slice());
        decoder.read_to_string(&mut plain).expect("gzip");
        assert!(plain.contains("migscope_build_info{version=") && plain.ends_with('\n'), "{plain}");
        assert!(compressed.len() < plain.len() / 2, "{} of {}", compressed.len(), plain.len());
    }
    let (head, body) = server.get("/metrics", "Accept-Encoding: identity\r\n");
    assert!(!head.contains("content-encoding"), "{head}");
    assert!(text(body).contains("migscope_build_info{version="));
}

#[test]
fn scrapes_are_counted_and_the_last_one_is_timed() {
    let server = Server::start();
    let first = text(server.get("/metrics", "").1);
    assert!(first.contains("migscope_scrapes_total{format=\"text\"} 0\n"), "{first}");
    assert!(!first.contains("migscope_scrape_duration_seconds"), "{first}");
    server.get("/metrics", &format!("Accept: {OPEN_METRICS}\r\n"));
    let third = text(server.get("/metrics", "").1);
    for format in ["text", "openmetrics"] {
        let line = format!("migscope_scrapes_total{{format=\"{format}\"}} 1\n");
        assert!(third.contains(&line), "{third}");
    }
    assert!(third.contains("# TYPE migscope_scrape_duration_seconds gauge\n"), "{third}");
    // Without histograms, a series is a line.
    let series = third.lines().filter(|line| !line.starts_with('#')).count();
    assert!(third.contains(&format!("migscope_series {series}\n")), "{series}: {third}");
}

#[test]
fn a_scrape_does_not_wait_for_the_observer() {
    let server = Server::start();
    let held = lock(&server.observer);
    // These do wait: more than there are threads, and as many as are served at a time.
    let waiting: Vec<_> = (0..40).map(|_| server.send("/api/v1/devices", "")).collect();
    for accept in ["", "Accept: application/openmetrics-text\r\n"] {
        let (head, body) = server.get("/metrics", accept);
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(text(body).contains("migscope_build_info"));
    }
    drop(held);
    for mut stream in waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer in time");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
