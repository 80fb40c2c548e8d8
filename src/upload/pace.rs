//! The rate limit: each put waits until the bytes before it are paid for.
//!
//! It is true on average, not within one put: a segment of a few MiB goes at the speed of the link, and the next one
//! waits for as long as it should have taken.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes a second, kept on average.
#[derive(Debug)]
pub struct Pace {
    bytes_per_s: u64,
    free_at: Option<Instant>,
}

impl Pace {
    /// At most `bytes_per_s`; 0: no limit.
    pub fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s, free_at: None }
    }

    /// How long to wait before sending `bytes` at `now`.
    pub fn charge(&mut self, now: Instant, bytes: u64) -> Duration {
        if self.bytes_per_s == 0 {
            return Duration::ZERO;
        }
        let start = self.free_at.unwrap_or(now).max(now);
        self.free_at = start.checked_add(Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64));
        start - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_put_waits_until_the_one_before_is_paid_for() {
        let now = Instant::now();
        let mut pace = Pace::new(1000);
        assert_eq!(pace.charge(now, 500), Duration::ZERO);
        assert_eq!(pace.charge(now, 2000), Duration::from_millis(500));
        assert_eq!(pace.charge(now + Duration::from_secs(1), 1), Duration::from_millis(1500));
        assert_eq!(pace.charge(now + Duration::from_secs(60), 1), Duration::ZERO);
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let mut pace = Pace::new(0);
        assert_eq!(pace.charge(Instant::now(), u64::MAX), Duration::ZERO);
        assert_eq!(pace.charge(Instant::now(), u64::MAX), Duration::ZERO);
    }
}
