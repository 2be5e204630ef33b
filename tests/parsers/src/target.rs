// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The targets, one file each: what it reads, how its input is made up, and what is held against it.

pub mod abi;
pub mod config;
pub mod host;
pub mod http;
pub mod latency;
pub mod recording;
pub mod ring;
pub mod top;
pub mod web_config;
