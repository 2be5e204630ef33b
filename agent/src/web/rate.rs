// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How often requests may come: a token bucket, as exporter-toolkit's `rate_limit` describes it.

use super::config::Rate;
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A bucket of tokens, one for a request.
pub struct Limiter {
    interval: Duration,
    burst: u32,
    /// Tokens left, and since when the next one is on its way.
    level: Mutex<(u32, Instant)>,
}

impl Limiter {
    /// A full bucket; `None` where no limit is wanted.
    pub fn new(rate: Rate, now: Instant) -> Option<Self> {
        let Rate { interval, burst } = rate;
        (!interval.is_zero()).then(|| Self { interval, burst, level: Mutex::new((burst, now)) })
    }

    /// Takes a token, if there is one.
    pub fn take(&self, now: Instant) -> bool {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, since) = *level;
        let passed = now.saturating_duration_since(since);
        let came = u32::try_from(passed.as_nanos() / self.interval.as_nanos()).unwrap_or(u32::MAX);
        let (tokens, since) = match tokens.checked_add(came) {
            Some(tokens) if tokens < self.burst => (tokens, since + self.interval * came),
            // A full bucket gets nothing, so the next token starts now.
            _ => (self.burst, now),
        };
        let taken = tokens.checked_sub(1);
        *level = (taken.unwrap_or(tokens), since);
        taken.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_each_interval() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let bucket = Limiter::new(Rate { interval: second, burst: 3 }, start).expect("a limit");
        let taken =
            |at: Duration, tries: u32| (0..tries).filter(|_| bucket.take(start + at)).count();
        assert_eq!(taken(Duration::ZERO, 9), 3);
        assert_eq!(taken(second / 2, 9), 0);
        assert_eq!(taken(second, 9), 1);
        assert_eq!(taken(second * 3 / 2, 9), 0, "half a token is none");
        assert_eq!(taken(second * 2, 9), 1, "and is not lost");
        assert_eq!(taken(second * 1000, 9), 3, "no more than fits");
    }

    #[test]
    fn no_interval_is_no_limit_and_no_burst_is_no_request() {
        let now = Instant::now();
        assert!(Limiter::new(Rate::default(), now).is_none());
        let none = Limiter::new(Rate { interval: Duration::from_nanos(1), burst: 0 }, now);
        assert!(!none.expect("a limit").take(now + Duration::from_secs(1)));
    }
}
