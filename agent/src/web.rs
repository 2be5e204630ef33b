// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The web server: who may connect, over what, and how much of the agent one client can take. What is served is [`crate::http`].
//!
//! ```text
//!   listener ──▶ connection ──TLS──▶ gate ─────────────────────▶ router
//!   TCP, UNIX,   one of 512; a new   rate limit, password,
//!   systemd      one displaces the   requests at a time, headers
//!                most idle
//!                     │                 │
//!                     └──── live ◀──────┘   the web configuration as it is now, read again when a file of it has changed
//! ```
//!
//! The format of the web configuration is that of Prometheus's exporter-toolkit, so that one file serves all exporters of a host:
//! <https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md>. What cannot be honoured is refused; nothing
//! is ignored.
//!
//! **A client that means harm** gets this far: a connection for [`serve::HEAD_PATIENCE`] without a request, a request head of
//! [`serve::HEAD_BYTES`], no body at all (none is read), and one of [`connections::MAX`] connections. When those are taken, the
//! one that has been idle for longest gives way, so that a scraper always gets in. Passwords are checked one at a time, beside the
//! threads that serve, and what was verified once costs nothing the next time.

pub mod address;
pub mod auth;
pub mod config;
pub mod connections;
pub mod gate;
pub mod listener;
pub mod live;
pub mod rate;
pub mod serve;
pub mod stall;
pub mod tls;
