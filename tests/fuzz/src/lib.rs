// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Random calls from several threads against the driver, held against a model of the protocol.
//!
//! ```text
//!   seed ─▶ generate ─▶ operations ─▶ execute ─▶ the driver
//!                        (a thread)      │
//!                                        ▼ start, end, call, outcome
//!                      model ─────▶ check ──▶ the states that the device may be in, or a failure
//! ```
//!
//! Time is cut into rounds. In a round each thread does a few operations, and every system call is recorded with the moments at
//! which it began and ended. Then the checker looks for an order of the round's calls that agrees with those moments and that
//! the model accepts, as Wing and Gong did for concurrent objects ("Testing and Verifying Concurrent Objects", 1993): the
//! driver promises that each call takes effect at one moment between its begin and its end. All orders that fit are
//! followed, so what a round leaves is a set of model states, from one of which the next round has to go on. No order: the
//! driver has done what the protocol does not allow.
//!
//! With one thread the order is known and every step is checked by itself.

pub mod call;
pub mod check;
pub mod execute;
pub mod generate;
pub mod model;
pub mod run;
mod sys;
pub mod target;
