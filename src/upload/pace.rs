//! The rate limit: each chunk waits until the bytes before it are paid for.
//!
//! Shared by everything that sends, so that the limit holds for the link as a whole. A chunk is small beside a second's
//! worth, so the line is never far from the limit at any moment, and on it over any longer time. What it has charged
//! also shows that an upload moves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What a sender that woke up late may catch up: timers are coarse beside a chunk of a fast limit, and without it each
/// late wake-up would take something off the rate.
const SLACK: Duration = Duration::from_millis(40);

/// Bytes a second.
#[derive(Debug, Default)]
pub struct Pace {
    bytes_per_s: u64,
    free_at: Mutex<Option<Instant>>,
    charged: AtomicU64,
}

impl Pace {
    /// At most `bytes_per_s`; 0: no limit.
    pub fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s, free_at: Mutex::new(None), charged: AtomicU64::new(0) }
    }

    /// Bytes a second; 0: no limit.
    pub fn bytes_per_s(&self) -> u64 {
        self.bytes_per_s
    }

    /// Takes `bytes` into account and says how long to wait before sending them. Call it for chunks of at most 16 KiB.
    pub fn charge(&self, bytes: usize) -> Duration {
        self.charged.fetch_add(bytes as u64, Ordering::Relaxed);
        self.charge_at(Instant::now(), bytes)
    }

    /// Bytes charged since the start.
    pub fn charged(&self) -> u64 {
        self.charged.load(Ordering::Relaxed)
    }

    fn charge_at(&self, now: Instant, bytes: usize) -> Duration {
        if self.bytes_per_s == 0 {
            return Duration::ZERO;
        }
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let start = free_at.map_or(now, |free_at| free_at.max(earliest));
        *free_at = start.checked_add(Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64));
        start.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = 16 << 10;

    /// Sends chunks for `time` on a clock of its own, waking up `late` after each wait; gives bytes a second.
    fn measured(bytes_per_s: u64, time: Duration, late: Duration) -> f64 {
        let (pace, begun) = (Pace::new(bytes_per_s), Instant::now());
        let (mut now, mut sent) = (begun, 0);
        while now < begun + time {
            let wait = pace.charge_at(now, CHUNK);
            if !wait.is_zero() {
                now += wait + late;
            }
            sent += CHUNK;
        }
        sent as f64 / (now - begun).as_secs_f64()
    }

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
    fn the_limit_holds_within_5_percent_slow_or_fast_and_with_late_timers() {
        for (limit, seconds) in [(8_000, 300), (100_000, 20), (1_000_000, 10), (20_000_000, 10)] {
            for late_ms in [0, 1, 3, 10] {
                let rate = measured(limit, Duration::from_secs(seconds), Duration::from_millis(late_ms));
                let off = (rate / limit as f64 - 1.0).abs();
                assert!(off < 0.05, "{limit} B/s, {late_ms} ms late: {rate:.0} B/s");
            }
        }
    }

    #[test]
    fn a_pause_earns_no_more_than_the_slack() {
        let (pace, now) = (Pace::new(1_000_000), Instant::now());
        pace.charge_at(now, CHUNK);
        let later = now + Duration::from_secs(3600);
        let at_once = (0..100).take_while(|_| pace.charge_at(later, CHUNK).is_zero()).count();
        assert_eq!(at_once, 3, "40 ms of a megabyte a second, and the chunk that is always free");
    }

    #[test]
    fn without_a_limit_nothing_waits_and_all_is_counted() {
        let pace = Pace::new(0);
        assert_eq!(pace.charge(CHUNK), Duration::ZERO);
        assert_eq!(pace.charge(CHUNK), Duration::ZERO);
        assert_eq!(pace.charged(), 2 * CHUNK as u64);
    }

    /// Never faster, whatever the machine does; how much slower is the machine's affair.
    #[test]
    fn a_real_clock_sends_no_faster_than_the_limit() {
        let (pace, begun) = (Pace::new(2_000_000), Instant::now());
        for _ in 0..183 {
            std::thread::sleep(pace.charge(CHUNK));
        }
        let rate = 183.0 * CHUNK as f64 / begun.elapsed().as_secs_f64();
        assert!(rate < 2_000_000.0 * 1.05, "{rate:.0} B/s");
    }
}
