// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope agent`: the exporter as a whole.

use crate::{
    host::Paths,
    http,
    metrics::Metrics,
    observer::Observer,
    probes::object,
    sampler::{Sampler, Shared},
};
use prometheus::{Registry, process_collector::ProcessCollector};
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::timeout,
};
use tracing::{info, warn};

/// How long requests under way may take to end once the agent is told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// How the agent is to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens.
    pub listen_address: SocketAddr,
    /// Path of the metrics, with its slash.
    pub telemetry_path: String,
    /// Where the kernel's files are.
    pub paths: Paths,
    /// How long the series of a closed device are kept.
    pub keep: Duration,
}

/// Why the agent could not run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Somebody else listens there.
    #[error(
        "{0} is in use: another agent may be running there; stop it, or choose another port with \
         --web.listen-address"
    )]
    AddressInUse(SocketAddr),
    /// Listening failed for another reason.
    #[error("failed to listen on {0}; choose another address with --web.listen-address")]
    Listen(SocketAddr, #[source] io::Error),
    /// A signal's handler could not be installed, or the listener failed.
    #[error("failed to serve")]
    Serve(#[source] io::Error),
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
///
/// [`AgentError`]. Missing probes are none: the agent runs without them and says so.
pub async fn run(config: Config) -> Result<(), AgentError> {
    let address = config.listen_address;
    let listener = TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => AgentError::AddressInUse(address),
        _ => AgentError::Listen(address, error),
    })?;
    let bound = listener.local_addr().map_err(AgentError::Serve)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(AgentError::Serve)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AgentError::Serve)?;

    let registry = Registry::new();
    registry
        .register(Box::new(ProcessCollector::for_self()))
        .expect("nothing else is called process_*");
    let metrics = Arc::new(Metrics::new(registry));
    let observer: Shared = Arc::new(Mutex::new(Observer::new(config.paths, metrics)));

    if object::EMBEDDED.is_none() {
        warn!("this binary was built without probes: it will show nothing but itself");
    }
    let (stop, stopped) = watch::channel(false);
    let sampler = Sampler::new(Arc::clone(&observer), object::EMBEDDED, config.keep);
    let sampler = tokio::spawn(sampler.run(stopped.clone()));
    let router = http::router(observer, &config.telemetry_path);
    let mut server_stopped = stopped;
    let server = axum::serve(listener, router).with_graceful_shutdown(async move {
        // An error means that the sender is gone, which is a stop as well.
        let _ = server_stopped.changed().await;
    });
    let mut server = tokio::spawn(server.into_future());
    info!(address = %bound, metrics = %format!("http://{bound}{}", config.telemetry_path), "listening");

    let signal = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        served = &mut server => {
            let error = match served {
                Ok(Err(error)) => error,
                Ok(Ok(())) => io::Error::other("the server stopped by itself"),
                Err(panicked) => io::Error::other(panicked),
            };
            return Err(AgentError::Serve(error));
        }
    };
    info!(signal, "stopping");
    stop.send_replace(true);
    if timeout(GRACE, server).await.is_err() {
        warn!("requests under way were cut off");
    }
    if let Err(error) = sampler.await {
        warn!(%error, "the last records were not read");
    }
    info!("stopped");
    Ok(())
}
