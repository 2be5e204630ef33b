// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What runs in the guest: the tests in `tests/`, and the demo.

pub mod demo;
pub mod fault;
pub mod guest;
pub mod refusal;
pub mod session;
