//! Room on the disk: what retention says to those who take readings in, and what those who meet a full disk say to it.
//!
//! Readings are taken unless retention says otherwise. While they are not, whoever can wait waits, and whoever can't is told why.
//!
//! Whatever is about to make the data folder larger claims its bytes before: what is claimed and what is there stay within
//! the cap together. Retention measures, says how much may be claimed, and makes room when little is left.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

/// Whether there is room for readings; shared by all. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Space {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    refusal: watch::Sender<Option<Arc<str>>>,
    full: Notify,
    budget: Mutex<Budget>,
    /// Little is left of it.
    low: Notify,
    /// It was set anew.
    renewed: Notify,
}

/// What may be claimed, in bytes. Claims are counted from the start on, so that a measurement which took its time can be
/// set against those that were settled before it began.
#[derive(Debug)]
struct Budget {
    /// Claimed since the start.
    claimed: u64,
    /// Of it, what is settled: it is on the disk, or will never be.
    settled: u64,
    /// How far `claimed` may go.
    limit: u64,
    /// The largest single claim: a larger one counts as this, or it would wait for ever.
    largest: u64,
    /// With less than this left retention looks.
    low: u64,
    /// The largest claim that somebody waits for, and how many wait.
    wanted: u64,
    waiting: usize,
}

impl Default for Budget {
    /// Without limits, until retention has looked.
    fn default() -> Self {
        Self { claimed: 0, settled: 0, limit: u64::MAX, largest: u64::MAX, low: 0, wanted: 0, waiting: 0 }
    }
}

/// What is claimed at one moment, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Claims {
    /// Settled since the start.
    pub settled: u64,
    /// Claimed and not settled: it may be on the disk already, in part or whole.
    pub under_way: u64,
    /// The largest claim that somebody waits for.
    pub wanted: u64,
}

/// What retention allows, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// What may be claimed beyond what was settled before the measurement; negative where there is too much already.
    pub bytes: i64,
    /// The largest single claim.
    pub largest: u64,
    /// With less than this left retention wants to know.
    pub low: u64,
}

/// Bytes that may be written. Settled when it is dropped: by then they are on the disk, or never will be.
#[derive(Debug)]
pub struct Claim {
    space: Space,
    bytes: u64,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.space.budget().settled += self.bytes;
    }
}

/// Somebody waits for room.
struct Waiting<'a>(&'a Space);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut budget = self.0.budget();
        budget.waiting -= 1;
        if budget.waiting == 0 {
            budget.wanted = 0;
        }
    }
}

impl Space {
    /// Why no readings are taken now; `None` where they are.
    pub fn refusal(&self) -> Option<Arc<str>> {
        self.inner.refusal.borrow().clone()
    }

    /// Returns when readings are taken.
    pub async fn admitted(&self) {
        // The sender lives as long as this borrow of it.
        let _ = self.inner.refusal.subscribe().wait_for(Option::is_none).await;
    }

    /// Returns when no readings are taken, with the reason.
    pub async fn refused(&self) -> Arc<str> {
        loop {
            let mut refusal = self.inner.refusal.subscribe();
            // The sender lives as long as this borrow of it.
            if let Ok(Some(why)) = refusal.wait_for(Option::is_some).await.as_deref() {
                return Arc::clone(why);
            }
        }
    }

    /// Takes no more readings from now on; whether they were taken before.
    pub fn refuse(&self, why: &str) -> bool {
        self.set(Some(why.into()))
    }

    /// Takes readings again; whether they were refused before.
    pub fn admit(&self) -> bool {
        self.set(None)
    }

    fn set(&self, refusal: Option<Arc<str>>) -> bool {
        let mut turned = false;
        self.inner.refusal.send_if_modified(|known| {
            turned = known.is_some() != refusal.is_some();
            let changed = *known != refusal;
            *known = refusal;
            changed
        });
        turned
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.inner.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims `bytes` for readings; waits while none are taken, and while there is no room for them.
    pub async fn claim(&self, bytes: u64) -> Claim {
        self.admitted().await;
        if let Some(claim) = self.try_claim(bytes) {
            return claim;
        }
        self.budget().waiting += 1;
        let _waiting = Waiting(self);
        loop {
            let renewed = self.inner.renewed.notified();
            if let Some(claim) = self.try_claim(bytes) {
                return claim;
            }
            self.want(bytes);
            renewed.await;
        }
    }

    fn want(&self, bytes: u64) {
        let mut budget = self.budget();
        let bytes = bytes.min(budget.largest);
        // What retention knows already need not be said again.
        if bytes > budget.wanted {
            budget.wanted = bytes;
            self.inner.low.notify_one();
        }
    }

    /// Claims `bytes`, if there is room for them now.
    pub fn try_claim(&self, bytes: u64) -> Option<Claim> {
        let mut budget = self.budget();
        let bytes = bytes.min(budget.largest);
        let claimed = budget.claimed.saturating_add(bytes);
        if claimed.saturating_add(budget.low) > budget.limit {
            self.inner.low.notify_one();
        }
        (claimed <= budget.limit).then(|| {
            budget.claimed = claimed;
            Claim { space: self.clone(), bytes }
        })
    }

    /// Claims `bytes` whether there is room or not: for the one segment that may be written beyond the cap.
    pub fn overdraw(&self, bytes: u64) -> Claim {
        let mut budget = self.budget();
        budget.claimed = budget.claimed.saturating_add(bytes);
        if budget.claimed.saturating_add(budget.low) > budget.limit {
            self.inner.low.notify_one();
        }
        Claim { space: self.clone(), bytes }
    }

    /// Whether more is claimed, or there, than may be.
    pub fn is_overdrawn(&self) -> bool {
        let budget = self.budget();
        budget.claimed > budget.limit
    }

    /// What is claimed; to be asked before a measurement.
    pub fn claims(&self) -> Claims {
        let Budget { claimed, settled, wanted, .. } = *self.budget();
        Claims { settled, under_way: claimed.saturating_sub(settled), wanted }
    }

    /// What may be claimed, by a measurement that began when `settled` was settled.
    pub fn allow(&self, settled: u64, allowance: Allowance) {
        let mut budget = self.budget();
        budget.limit = settled.saturating_add_signed(allowance.bytes);
        (budget.largest, budget.low) = (allowance.largest, allowance.low);
        drop(budget);
        self.inner.renewed.notify_waiters();
    }

    /// Returns when little room is left, or somebody waits for it, since the last time.
    pub async fn ran_low(&self) {
        self.inner.low.notified().await;
    }

    /// Says that the disk turned out to be full.
    pub fn report_full(&self) {
        self.inner.full.notify_one();
    }

    /// Returns when somebody said so since the last time.
    pub async fn full_reported(&self) {
        self.inner.full.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_waits_goes_on_when_readings_are_taken_again() {
        let space = Space::default();
        space.admitted().await;
        assert!(space.refuse("full") && !space.refuse("still full"));
        assert_eq!(space.refusal().as_deref(), Some("still full"));
        let other = space.clone();
        let waiting = tokio::spawn(async move { other.admitted().await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished());
        assert!(space.admit() && !space.admit());
        waiting.await.unwrap();
    }

    fn allowance(bytes: i64) -> Allowance {
        Allowance { bytes, largest: 50, low: 20 }
    }

    #[tokio::test]
    async fn claims_stay_within_what_is_allowed_and_settled_ones_count_until_it_is_measured_anew() {
        let space = Space::default();
        space.allow(0, allowance(100));
        let (first, second) = (space.try_claim(40).unwrap(), space.try_claim(50).unwrap());
        assert!(space.try_claim(11).is_none());
        drop(first);
        assert!(space.try_claim(11).is_none(), "nobody has measured what became of it");
        let claims = space.claims();
        assert_eq!(claims, Claims { settled: 40, under_way: 50, wanted: 0 });
        drop(second);
        space.allow(claims.settled, allowance(60));
        assert!(space.try_claim(11).is_none(), "the measurement may have missed the second");
        assert!(space.try_claim(10).is_some());
    }

    #[tokio::test]
    async fn who_needs_more_than_there_is_waits_and_says_so() {
        let space = Space::default();
        space.allow(0, allowance(60));
        let first = space.try_claim(30).unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(20), space.ran_low()).await;
        assert!(quiet.is_err());
        let other = space.clone();
        let waiting = tokio::spawn(async move { other.claim(200).await });
        space.ran_low().await;
        assert_eq!(space.claims().wanted, 50, "what is larger than the largest claim would wait for ever");
        drop(first);
        space.allow(30, allowance(50));
        assert_eq!(waiting.await.unwrap().bytes, 50);
        assert_eq!(space.claims().wanted, 0);
        let beyond = space.overdraw(1000);
        assert!(space.is_overdrawn());
        drop(beyond);
        space.allow(space.claims().settled, allowance(-5));
        assert!(space.is_overdrawn() && space.try_claim(0).is_none());
    }

    #[tokio::test]
    async fn who_stops_waiting_wants_nothing_any_more() {
        let space = Space::default();
        space.allow(0, allowance(10));
        assert!(tokio::time::timeout(Duration::from_millis(20), space.claim(30)).await.is_err());
        assert_eq!(space.claims().wanted, 0);
        space.refuse("full");
        assert_eq!(&*space.refused().await, "full");
    }

    #[tokio::test]
    async fn a_full_disk_is_heard_of_also_by_who_listens_later() {
        let space = Space::default();
        space.report_full();
        space.report_full();
        space.full_reported().await;
        assert!(tokio::time::timeout(Duration::from_millis(20), space.full_reported()).await.is_err());
    }
}
