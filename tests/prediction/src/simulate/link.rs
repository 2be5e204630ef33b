// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A link that is not always as fast: noise with a memory, and dips.

use fastrand::Rng;

#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) bytes_per_s: f64,
    /// Standard deviation of the noise, as a share.
    pub(crate) noise: f64,
    /// Time in which the noise forgets.
    pub(crate) memory_s: f64,
    /// Dips a second: to a third, for 0.2 s.
    pub(crate) dips_per_s: f64,
}

#[derive(Clone, Debug)]
pub(crate) struct Running {
    link: Link,
    deviation: f64,
    dip_until_s: f64,
}

impl Running {
    pub(crate) fn new(link: Link) -> Self {
        Self { link, deviation: 0.0, dip_until_s: 0.0 }
    }

    /// Bytes that go through in `step_s` seconds from `now_s` on.
    pub(crate) fn step(&mut self, now_s: f64, step_s: f64, rng: &mut Rng) -> f64 {
        let Link { bytes_per_s, noise, memory_s, dips_per_s } = self.link;
        let keep = (-step_s / memory_s).exp();
        // The sum of three uniform numbers in −1…1 has a standard deviation of 1 and is near enough to a bell.
        let shock: f64 = (0..3).map(|_| 2.0 * rng.f64() - 1.0).sum();
        self.deviation = self.deviation * keep + noise * (1.0 - keep * keep).sqrt() * shock;
        if rng.f64() < dips_per_s * step_s {
            self.dip_until_s = now_s + 0.2;
        }
        let dip = if now_s < self.dip_until_s { 1.0 / 3.0 } else { 1.0 };
        bytes_per_s * step_s * dip * (1.0 + self.deviation).clamp(0.2, 1.8)
    }
}
