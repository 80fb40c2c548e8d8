//! What the pump tells of itself: counters for status, nothing that must survive.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::Timestamp;

/// Seconds over which a rate is taken.
const RATE_WINDOW: usize = 10;

/// Buckets of a latency histogram: bucket `n` ends at 100 µs times 2^(n/4), the last at 54 minutes.
const LATENCY_BUCKETS: usize = 100;

/// Counters of the pump.
#[derive(Debug, Default)]
pub struct PumpState {
    last_arrival: AtomicI64,
    /// Commits, and attempts on a full disk.
    steps: AtomicU64,
    committed: AtomicU64,
    /// Deliveries handed in and not settled.
    waiting: AtomicU64,
    /// Batches that waited because the disk is full.
    full: AtomicBool,
    /// Readings refused because there are too many series.
    series_refused: AtomicU64,
    latency: Mutex<Histogram>,
    rate: Mutex<Rate>,
    last_reject: Mutex<Option<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PumpState {
    /// When the newest delivery arrived.
    pub fn last_arrival(&self) -> Option<Timestamp> {
        let micros = self.last_arrival.load(Ordering::Relaxed);
        (micros != 0).then_some(Timestamp(micros))
    }

    /// Grows with every commit, and with every attempt on a full disk: the pump is not stuck then.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Readings committed since start.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Deliveries taken from the intake and not settled.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether a batch waits because the disk is full.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Readings refused since start because there are too many series.
    pub fn series_refused(&self) -> u64 {
        self.series_refused.load(Ordering::Relaxed)
    }

    /// The time below which this share (0 to 1) of the commits stayed; `None` before the first.
    pub fn commit_latency(&self, share: f64) -> Option<Duration> {
        lock(&self.latency).quantile(share)
    }

    /// Readings a second over the last ten seconds.
    pub fn readings_per_s(&self) -> f64 {
        lock(&self.rate).per_second(Instant::now())
    }

    /// Why the newest rejected message was rejected.
    pub fn last_reject(&self) -> Option<String> {
        lock(&self.last_reject).clone()
    }

    pub(super) fn note_arrival(&self, at: Timestamp) {
        self.last_arrival.fetch_max(at.0, Ordering::Relaxed);
    }

    pub(super) fn note_taken(&self, deliveries: usize) {
        self.waiting.fetch_add(deliveries as u64, Ordering::Relaxed);
    }

    pub(super) fn note_commit(&self, took: Duration, deliveries: usize, readings: usize) {
        self.waiting.fetch_sub(deliveries as u64, Ordering::Relaxed);
        self.committed.fetch_add(readings as u64, Ordering::Relaxed);
        self.full.store(false, Ordering::Relaxed);
        self.steps.fetch_add(1, Ordering::Relaxed);
        lock(&self.latency).add(took);
        lock(&self.rate).add(Instant::now(), readings as u64);
    }

    /// Gives whether it was full before.
    pub(super) fn note_full(&self) -> bool {
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.full.swap(true, Ordering::Relaxed)
    }

    pub(super) fn note_series_refused(&self, count: u64) {
        self.series_refused.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn note_reject(&self, reason: &str) {
        *lock(&self.last_reject) = Some(reason.to_owned());
    }
}

/// Durations counted in buckets that grow by a fifth.
#[derive(Debug)]
struct Histogram {
    counts: [u64; LATENCY_BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; LATENCY_BUCKETS] }
    }
}

impl Histogram {
    fn add(&mut self, took: Duration) {
        let steps = (took.as_secs_f64() / 1e-4).max(1.0).log2() * 4.0;
        let bucket = (steps.ceil() as usize).min(LATENCY_BUCKETS - 1);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
    }

    fn quantile(&self, share: f64) -> Option<Duration> {
        let total: u64 = self.counts.iter().sum();
        let wanted = (share * total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(Duration::from_secs_f64(1e-4 * (bucket as f64 / 4.0).exp2()))
    }
}

/// Counts of the last ten full seconds.
#[derive(Debug)]
struct Rate {
    begun: Instant,
    slots: [(u64, u64); RATE_WINDOW + 1],
}

impl Default for Rate {
    fn default() -> Self {
        Self { begun: Instant::now(), slots: [(0, 0); RATE_WINDOW + 1] }
    }
}

impl Rate {
    fn second(&self, now: Instant) -> u64 {
        now.duration_since(self.begun).as_secs() + 1
    }

    fn add(&mut self, now: Instant, count: u64) {
        let second = self.second(now);
        let slots = self.slots.len() as u64;
        if let Some(slot) = self.slots.get_mut((second % slots) as usize) {
            if slot.0 != second {
                *slot = (second, 0);
            }
            slot.1 += count;
        }
    }

    fn per_second(&self, now: Instant) -> f64 {
        let second = self.second(now);
        let seconds = (RATE_WINDOW as u64).min(second.saturating_sub(1)).max(1);
        let full = second.saturating_sub(seconds)..second;
        let sum: u64 =
            self.slots.iter().filter(|(slot, _)| full.contains(slot) || (second == 1 && *slot == 1)).map(|(_, count)| count).sum();
        sum as f64 / seconds as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_fifth_of_the_truth() {
        let mut histogram = Histogram::default();
        for millis in 1..=1000 {
            histogram.add(Duration::from_millis(millis));
        }
        for (share, millis) in [(0.5, 500.0), (0.99, 990.0)] {
            let found = histogram.quantile(share).unwrap().as_secs_f64() * 1000.0;
            assert!(found >= millis && found < millis * 1.2, "{share}: {found}");
        }
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn a_rate_is_the_mean_of_ten_full_seconds() {
        let mut rate = Rate::default();
        let start = rate.begun;
        for tenth in 0..300 {
            rate.add(start + Duration::from_millis(tenth * 100), 7);
        }
        assert!((rate.per_second(start + Duration::from_secs(30)) - 70.0).abs() < 1e-9);
        assert!(rate.per_second(start + Duration::from_secs(60)).abs() < 1e-9);
    }
}
