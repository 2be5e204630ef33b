// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The page of a report in a browser: headless Chromium renders it, dark and light, wide and narrow, and says what it found.
//!
//! Without Chromium nothing is run: the tests are listed as ignored, and why is printed.

#[path = "report/browser.rs"]
mod browser;
#[path = "report/feed.rs"]
mod feed;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let chromium = browser::find();
    if let Err(why) = &chromium {
        eprintln!("not run: {why}");
    }
    let is_missing = chromium.is_err();
    let trials = browser::CASES.iter().map(|(name, case)| {
        let chromium = chromium.clone();
        let trial = Trial::test(*name, move || {
            case(&chromium?);
            Ok(())
        });
        trial.with_ignored_flag(is_missing)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
