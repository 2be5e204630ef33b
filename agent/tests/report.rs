// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a report says of a migration whose every number is known, in all its forms.
//!
//! The golden files are what people and programs see; `MIGSCOPE_BLESS=1 cargo test -p migscope --test report` writes them anew, and
//! the difference is then to be read and meant. How the page looks is in `report_page.rs`.

#[path = "report/command.rs"]
mod command;
#[path = "report/feed.rs"]
mod feed;
#[path = "report/figures.rs"]
mod figures;
#[path = "report/golden.rs"]
mod golden;
#[path = "report/page.rs"]
mod page;
#[path = "report/trace.rs"]
mod trace;
