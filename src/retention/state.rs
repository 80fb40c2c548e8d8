//! What the room reports to status.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a drop is shown as something that a person should look at.
const DROP_SHOWN: Duration = Duration::from_secs(3600);

/// The data folder and its disk at the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Bytes that everything in the data folder takes.
    pub used_bytes: u64,
    /// Of these, what is in quarantine.
    pub quarantine_bytes: u64,
    /// What should stay free on its file system.
    pub min_free_bytes: u64,
}

/// What retention sees and did since the start.
#[derive(Debug, Default)]
pub struct RetentionState {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    room: Room,
    dropped: u64,
    last_drop: Option<Instant>,
}

impl RetentionState {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The data folder and its disk.
    pub fn room(&self) -> Room {
        self.lock().room
    }

    /// Readings dropped since the start; `None` where none were within the hour.
    pub fn dropping(&self) -> Option<u64> {
        let inner = self.lock();
        inner.last_drop.filter(|last| last.elapsed() < DROP_SHOWN).map(|_| inner.dropped)
    }

    pub(super) fn note_room(&self, room: Room) {
        self.lock().room = room;
    }

    pub(super) fn note_drop(&self, readings: u64) {
        let mut inner = self.lock();
        inner.dropped += readings;
        inner.last_drop = Some(Instant::now());
    }
}
