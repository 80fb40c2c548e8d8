//! Room on the disk: what retention says to those who take readings in, and what those who meet a full disk say to it.
//!
//! Readings are taken unless retention says otherwise. While they are not, whoever can wait waits, and whoever can't is told why.

use std::sync::Arc;

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

    #[tokio::test]
    async fn a_full_disk_is_heard_of_also_by_who_listens_later() {
        let space = Space::default();
        space.report_full();
        space.report_full();
        space.full_reported().await;
        assert!(tokio::time::timeout(Duration::from_millis(20), space.full_reported()).await.is_err());
    }
}
