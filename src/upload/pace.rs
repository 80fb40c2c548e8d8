//! The rate limit: each chunk waits until the bytes before it are paid for.
//!
//! Shared by everything that sends, so that the limit holds for the link as a whole. A chunk is small beside a second's
//! worth, so the line is never far from the limit at any moment, and on it over any longer time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Bytes a second.
#[derive(Debug, Default)]
pub struct Pace {
    bytes_per_s: u64,
    free_at: Mutex<Option<Instant>>,
}

impl Pace {
    /// At most `bytes_per_s`; 0: no limit.
    pub fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s, free_at: Mutex::new(None) }
    }

    /// Bytes a second; 0: no limit.
    pub fn bytes_per_s(&self) -> u64 {
        self.bytes_per_s
    }

    /// Takes `bytes` into account and says how long to wait before sending them. Call it for chunks of at most 16 KiB.
    pub fn charge(&self, bytes: usize) -> Duration {
        self.charge_at(Instant::now(), bytes)
    }

    fn charge_at(&self, now: Instant, bytes: usize) -> Duration {
        if self.bytes_per_s == 0 {
            return Duration::ZERO;
        }
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let start = free_at.unwrap_or(now).max(now);
        *free_at = start.checked_add(Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64));
        start - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_chunk_waits_until_the_one_before_is_paid_for() {
        let now = Instant::now();
        let pace = Pace::new(1000);
        assert_eq!(pace.charge_at(now, 500), Duration::ZERO);
        assert_eq!(pace.charge_at(now, 2000), Duration::from_millis(500));
        assert_eq!(pace.charge_at(now + Duration::from_secs(1), 1), Duration::from_millis(1500));
        assert_eq!(pace.charge_at(now + Duration::from_secs(60), 1), Duration::ZERO);
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let pace = Pace::new(0);
        assert_eq!(pace.charge(usize::MAX), Duration::ZERO);
        assert_eq!(pace.charge(usize::MAX), Duration::ZERO);
    }
}
