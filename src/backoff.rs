//! Backoff with full jitter: a thousand gateways that lost the same link must not come back at the same moment.

use std::time::Duration;

/// How long to wait between attempts to reach the other side.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Between `min` and `max`; a `max` below `min` counts as `min`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), failures: 0 }
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The pause after one more failure: evenly drawn between `min` and a ceiling that doubles up to `max`.
    pub fn pause(&mut self) -> Duration {
        let pause = self.draw(rand::random());
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// The pause for a roll of the dice in `0..1`.
    fn draw(&self, roll: f64) -> Duration {
        let ceiling = 2_u32.checked_pow(self.failures).and_then(|factor| self.min.checked_mul(factor)).unwrap_or(self.max).min(self.max);
        self.min + (ceiling - self.min).mul_f64(roll)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_longest_pause_and_success_starts_afresh() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(10));
        let mut ceilings = Vec::new();
        for _ in 0..6 {
            assert_eq!(backoff.draw(0.0), seconds(1));
            ceilings.push(backoff.draw(1.0));
            backoff.pause();
        }
        assert_eq!(ceilings, [1, 2, 4, 8, 10, 10].map(seconds));
        backoff.reset();
        assert_eq!(backoff.draw(1.0), seconds(1));
    }

    #[test]
    fn a_hundred_failures_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_secs(3), Duration::from_secs(1));
        (0..100).for_each(|_| assert_eq!(backoff.pause(), Duration::from_secs(3)));
    }
}
