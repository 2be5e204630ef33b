// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Progress of long builds: a bar on a terminal, a line now and then in a log.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Often enough to see life in a CI log, rarely enough to be able to read it.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Counts the steps of one build.
pub(crate) struct Steps {
    name: &'static str,
    /// How many steps are expected; kernel releases differ a little.
    expected: u64,
    done: u64,
    start: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

impl Steps {
    pub(crate) fn new(name: &'static str, expected: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(
                "{prefix} [{bar:30}] {pos}/{len} {elapsed}, {eta} left  {wide_msg}",
            )
            .expect("the template is valid");
            ProgressBar::new(expected).with_style(style).with_prefix(name)
        });
        let now = Instant::now();
        Self { name, expected, done: 0, start: now, last_line: now, bar }
    }

    /// One step is done; `what` says which.
    pub(crate) fn step(&mut self, what: &str) {
        self.done += 1;
        if let Some(bar) = &self.bar {
            // More steps than expected: the bar stays full instead of running over.
            bar.set_position(self.done.min(self.expected));
            bar.set_message(what.to_owned());
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            eprintln!("{}: {} of about {} steps, {what}", self.name, self.done, self.expected);
        }
    }

    /// Says how long it took.
    pub(crate) fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("{}: {} steps in {} s", self.name, self.done, self.start.elapsed().as_secs());
    }
}
