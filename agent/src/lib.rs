// SPDX-License-Identifier: Apache-2.0 OR MIT
//! migscope: shows what the migration of a VFIO device is doing while it does it.
//!
//! ```text
//!  kernel ── probes ──▶ sums (maps) ──▶ sample ─┐
//!                └────▶ ring ────────▶ event ───┴▶ observer ──▶ device ──▶ metrics ──▶ http: /metrics
//!                                                     └───────▶ session ─────────────▶ http: /api/v1/…
//! ```
//!
//! - [`probes`]: the eBPF programs, loaded, attached and read; [`sampler`] does that in time
//! - [`event`], [`sample`]: what comes from them; [`feed`]: both together, as it is taken in, recorded and played
//! - [`device_key`]: which device; [`observer`]: puts it together, into [`device`]s, [`session`]s, [`dirty`] pages and [`latency`] distributions
//! - [`convergence`]: whether a migration ends, when, and why not; [`snapshot`]: all that is known at one moment
//! - [`record`]: the feed in a file; [`report`]: what such a file tells
//! - [`metrics`], [`http`], [`top`]: what Prometheus, browsers and people at a terminal see; [`web`]: who may see it, and over what
//! - [`host`], [`check`]: what this host can show, and what it cannot
//! - [`agent`]: the exporter as a whole; [`service`]: as a service of systemd; [`privilege`]: what it may do, and gives up
//! - [`args`], [`config`], [`logging`]: how it is to run, by the command line and a file
//!
//! Words: a *device* is a VFIO device, a *session* is one migration of one device, an *iteration* is one buffer of device data.
//! The agent only observes: it writes to no device. What it does not know it does not show.

pub mod agent;
pub mod args;
pub mod check;
pub mod clock;
pub mod config;
pub mod convergence;
pub mod device;
pub mod device_key;
pub mod dirty;
pub mod event;
pub mod feed;
pub mod harmless;
pub mod host;
pub mod http;
pub mod latency;
pub mod logging;
pub mod metrics;
pub mod observer;
pub mod privilege;
pub mod probes;
pub mod record;
pub mod report;
pub mod sample;
pub mod sampler;
pub mod service;
pub mod session;
pub mod snapshot;
pub mod state;
pub mod top;
pub mod web;
