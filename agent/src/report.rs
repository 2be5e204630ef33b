// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `migscope report`: what a recording tells.
//!
//! ```text
//!   recording ──▶ player ──▶ document ─┬─▶ terminal
//!                                      ├─▶ JSON
//!                                      ├─▶ HTML, one page
//!                                      └─▶ trace for ui.perfetto.dev
//!   two documents ──▶ comparison ──────┬─▶ terminal, JSON, HTML
//! ```
//!
//! The recording is played to an observer as the agent has one: what a report says of a migration is what the agent said when it
//! happened. Nothing is decided in the views: what they show is in the [`Document`].

pub mod compare;
pub mod html;
pub mod load;
pub mod model;
pub mod perfetto;
pub mod play;
pub mod prediction;
pub mod terminal;

mod assemble;
mod latencies;
mod rates;
mod units;
mod verdict;
mod waterfall;

pub use model::{Clock, Document, Recording};
pub use play::Player;
