//! What the room reports to status.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What the sealer and the scrubber have done since the start.
#[derive(Debug, Default)]
pub struct SealerState {
    seals: AtomicU64,
    failures: AtomicU64,
    demands: AtomicU64,
    last_error: Mutex<Option<String>>,
    verified: AtomicU64,
    damaged: AtomicU64,
}

impl SealerState {
    /// Cuts sealed.
    pub fn seals(&self) -> u64 {
        self.seals.load(Ordering::Relaxed)
    }

    /// Attempts that failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Demands taken, also those that found nothing to seal.
    pub fn demands(&self) -> u64 {
        self.demands.load(Ordering::Relaxed)
    }

    /// Why the last attempt failed; `None` after one that did not.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Segments whose digest the scrubber has checked and found right.
    pub fn verified(&self) -> u64 {
        self.verified.load(Ordering::Relaxed)
    }

    /// Segments found damaged or missing, at the start or by the scrubber.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    pub(super) fn note_seal(&self) {
        self.seals.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn note_failure(&self, error: String) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    pub(super) fn note_demand(&self) {
        self.demands.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_verified(&self) {
        self.verified.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_damaged(&self) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
    }
}
