//! Which segments' digests this process has checked: the engine attaches only those.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::model::SegmentName;

/// The set of verified segments, shared by the sealer, the scrubber and whoever attaches. Cheap to clone. It holds no
/// more names than there are files.
#[derive(Clone)]
pub struct Verified {
    names: Arc<Mutex<HashSet<SegmentName>>>,
    changes: Arc<watch::Sender<u64>>,
    doubts: Arc<Notify>,
}

impl Verified {
    pub(super) fn new() -> Self {
        Self { names: Arc::default(), changes: Arc::new(watch::Sender::new(0)), doubts: Arc::default() }
    }

    /// Whether the digest of `name` was checked since the start and held.
    pub fn contains(&self, name: &SegmentName) -> bool {
        self.lock().contains(name)
    }

    /// A hint after every change of the set.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Somebody could not read `name`: it is verified again, and is not until then.
    pub fn doubt(&self, name: &SegmentName) {
        self.remove(name);
        self.doubts.notify_one();
    }

    /// Returns when something was doubted since the last time.
    pub(super) async fn doubted(&self) {
        self.doubts.notified().await;
    }

    pub(super) fn insert(&self, name: SegmentName) {
        if self.lock().insert(name) {
            self.changes.send_modify(|version| *version += 1);
        }
    }

    pub(super) fn remove(&self, name: &SegmentName) {
        if self.lock().remove(name) {
            self.changes.send_modify(|version| *version += 1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<SegmentName>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
