// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Accepting connections, and speaking HTTP over each.

use super::{
    connections::{Connections, Place},
    gate::Gate,
    listener::Listener,
    live::Live,
    stall::{Impatient, Stream},
};
use axum::response::Response;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use std::{convert::Infallible, error::Error, pin::pin, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

/// How long a handshake may take.
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a request's head may take, and how long a connection is kept that nobody asks anything over.
pub const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// How long a client may take nothing of an answer.
pub const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
pub const HEAD_BYTES: usize = 16 * 1024;
/// Headers of a request.
const HEADERS: usize = 64;
/// Requests at a time over one HTTP/2 connection.
const STREAMS: u32 = 32;
/// Pause after `accept` has failed, which it does when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Everything that a connection needs.
pub struct Server {
    /// TLS and passwords.
    pub live: Arc<Live>,
    /// What requests pass.
    pub gate: Gate,
    /// The connections of all listeners.
    pub connections: Arc<Connections>,
}

impl Server {
    /// A server that answers through `gate`.
    pub fn new(live: Arc<Live>, gate: Gate) -> Self {
        Self { live, gate, connections: Arc::default() }
    }

    /// Serves what comes over `listener` until `stop` changes, and then until the requests under way have ended.
    pub async fn serve(self: Arc<Self>, listener: Listener, mut stop: watch::Receiver<bool>) {
        let mut conversations = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                _ = stop.changed() => break,
                accepted = listener.accept() => accepted,
                Some(_) = conversations.join_next() => continue,
            };
            match accepted {
                Ok(stream) => {
                    let place = self.connections.enter();
                    let (server, stop) = (Arc::clone(&self), stop.clone());
                    conversations.spawn(async move { server.converse(stream, place, stop).await });
                }
                Err(error) => {
                    warn!(%error, address = listener.address(), "a connection was not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        while conversations.join_next().await.is_some() {}
    }

    /// One connection, from its first byte to its last, or until `stop` changes and what is under way has been answered.
    pub async fn converse(
        self: Arc<Self>,
        stream: Stream,
        place: Place,
        stop: watch::Receiver<bool>,
    ) {
        let place = Arc::new(place);
        let ended = tokio::select! {
            () = place.cut() => Ok(()),
            ended = self.speak(stream, Arc::clone(&place), stop) => ended,
        };
        if let Err(error) = ended {
            // Clients go as they like. Nothing of what they sent is in it.
            debug!(%error, "a connection has ended early");
        }
    }

    async fn speak(
        self: &Arc<Self>,
        stream: Stream,
        place: Arc<Place>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let stream = Impatient::new(stream, WRITE_PATIENCE);
        let (stream, builder): (Stream, _) = match self.live.current().tls.clone() {
            None => (Box::new(stream), bounded().http1_only()),
            Some(tls) => {
                let accept = TlsAcceptor::from(tls).accept(stream);
                let stream = timeout(HANDSHAKE_PATIENCE, accept).await??;
                let agreed_on_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let builder =
                    if agreed_on_http2 { bounded().http2_only() } else { bounded().http1_only() };
                (Box::new(stream), builder)
            }
        };
        let mut connection =
            pin!(builder.serve_connection(TokioIo::new(stream), self.service(place)));
        tokio::select! {
            ended = connection.as_mut() => ended,
            _ = stop.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    }

    /// What answers the requests of one connection.
    fn service(
        self: &Arc<Self>,
        place: Arc<Place>,
    ) -> impl hyper::service::Service<
        hyper::Request<Incoming>,
        Response = Response,
        Error = Infallible,
        Future: Send,
    > + use<> {
        let server = Arc::clone(self);
        service_fn(move |request| {
            let (server, place) = (Arc::clone(&server), Arc::clone(&place));
            async move { Ok(server.gate.answer(request, &place).await) }
        })
    }
}

/// HTTP within bounds. Which version is spoken was agreed on in the handshake: from what comes first it could not be told before a
/// client has sent 24 bytes, for which nothing would wait but for ever.
fn bounded() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD_PATIENCE)
        .keep_alive_timeout(HEAD_PATIENCE)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEAD_BYTES).expect("a small constant"));
    builder
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, routing::get};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        task::JoinHandle,
        time::Instant,
    };

    /// A connection to a server with one page, and the server's end of it.
    fn connection() -> (DuplexStream, JoinHandle<()>, watch::Sender<bool>) {
        let live = Arc::new(Live::start(None).expect("nothing to read"));
        let router = Router::new().route("/", get(async || "done"));
        let gate = Gate::new(Arc::clone(&live), router, 0);
        let server = Arc::new(Server::new(live, gate));
        let (ours, theirs) = duplex(64 * 1024);
        let place = server.connections.enter();
        let (stop, stopped) = watch::channel(false);
        (ours, tokio::spawn(server.converse(Box::new(theirs), place, stopped)), stop)
    }

    async fn rest(mut stream: DuplexStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("text");
        text
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_comes_byte_by_byte_is_not_waited_for() {
        let (mut stream, ended, _stop) = connection();
        let start = Instant::now();
        // A byte each second would keep a timeout of reads happy for ever.
        while !ended.is_finished() && start.elapsed() < HEAD_PATIENCE * 10 {
            let _ = stream.write_all(b"G").await;
            sleep(Duration::from_secs(1)).await;
        }
        assert!(
            ended.is_finished() && start.elapsed() < HEAD_PATIENCE * 2,
            "{:?}",
            start.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_more_is_closed() {
        let (mut stream, ended, _stop) = connection();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
        let text = rest(stream).await;
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("done"), "{text}");
        ended.await.expect("no panic");
    }

    #[tokio::test]
    async fn a_head_without_end_is_refused() {
        let (mut stream, ended, _stop) = connection();
        let head = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(HEAD_BYTES * 2));
        // It may have closed before it has read all.
        let _ = stream.write_all(head.as_bytes()).await;
        let text = rest(stream).await;
        assert!(text.starts_with("HTTP/1.1 431"), "{text}");
        ended.await.expect("no panic");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_as_soon_as_the_server_stops() {
        let (stream, ended, stop) = connection();
        let start = Instant::now();
        stop.send_replace(true);
        ended.await.expect("no panic");
        assert_eq!(start.elapsed(), Duration::ZERO, "patience is for who may still ask");
        assert_eq!(rest(stream).await, "");
    }

    #[tokio::test]
    async fn what_comes_over_plain_http_is_no_http2() {
        let (mut stream, ended, _stop) = connection();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sent");
        let text = rest(stream).await;
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
        ended.await.expect("no panic");
    }
}
