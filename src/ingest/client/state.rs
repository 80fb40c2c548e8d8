//! What status says about the client: small facts, written by the client alone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::model::Timestamp;

/// Shared with status. Counters begin at zero with the process; the ledger keeps the durable totals.
#[derive(Debug, Default)]
pub struct ClientState {
    connected: AtomicBool,
    connects: AtomicU64,
    unacknowledged: AtomicU64,
    messages_qos0: AtomicU64,
    messages_qos1: AtomicU64,
    redelivered: AtomicU64,
    qos0_refused: AtomicU64,
    oversized: AtomicU64,
    malformed: AtomicU64,
    facts: Mutex<Facts>,
}

#[derive(Debug, Default)]
struct Facts {
    broker: String,
    since: Option<Timestamp>,
    last_error: Option<String>,
    refused_filters: Vec<String>,
}

/// A copy of the facts at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientStatus {
    /// `mqtt://host:port`.
    pub broker: String,
    /// Whether the broker has accepted us.
    pub connected: bool,
    /// Since when it is so.
    pub since: Option<Timestamp>,
    /// Connections accepted by the broker.
    pub connects: u64,
    /// Why the last attempt or connection ended.
    pub last_error: Option<String>,
    /// Filters that the broker did not let us subscribe to.
    pub refused_filters: Vec<String>,
    /// Messages handed in that wait for their commit.
    pub unacknowledged: u64,
    /// Messages with QoS 0.
    pub messages_qos0: u64,
    /// Messages with QoS 1, redelivered ones too.
    pub messages_qos1: u64,
    /// Messages redelivered that were stored already.
    pub redelivered: u64,
    /// Messages with QoS 0 that came while too much was waiting, and were not taken.
    pub qos0_refused: u64,
    /// Messages longer than `ingest.max_message_bytes`: rejected with a reason.
    pub oversized: u64,
    /// Messages with a topic that is no text: rejected with a reason.
    pub malformed: u64,
}

impl ClientState {
    /// The facts now.
    pub fn status(&self) -> ClientStatus {
        let facts = self.facts();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ClientStatus {
            broker: facts.broker.clone(),
            connected: self.connected.load(Ordering::Relaxed),
            since: facts.since,
            connects: count(&self.connects),
            last_error: facts.last_error.clone(),
            refused_filters: facts.refused_filters.clone(),
            unacknowledged: count(&self.unacknowledged),
            messages_qos0: count(&self.messages_qos0),
            messages_qos1: count(&self.messages_qos1),
            redelivered: count(&self.redelivered),
            qos0_refused: count(&self.qos0_refused),
            oversized: count(&self.oversized),
            malformed: count(&self.malformed),
        }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name_broker(&self, broker: String) {
        self.facts().broker = broker;
    }

    pub(super) fn connected(&self, now: Timestamp) {
        self.facts().since = Some(now);
        self.connects.fetch_add(1, Ordering::Relaxed);
        self.connected.store(true, Ordering::Relaxed);
    }

    /// Ends a connection or an attempt; `error` says why, unless we wanted it.
    pub(super) fn disconnected(&self, now: Timestamp, error: Option<String>) {
        let was_connected = self.connected.swap(false, Ordering::Relaxed);
        self.unacknowledged.store(0, Ordering::Relaxed);
        let mut facts = self.facts();
        if was_connected || facts.since.is_none() {
            facts.since = Some(now);
        }
        facts.last_error = error.or(facts.last_error.take());
    }

    pub(super) fn refuse_filters(&self, filters: Vec<String>) {
        self.facts().refused_filters = filters;
    }

    pub(super) fn set_unacknowledged(&self, count: usize) {
        self.unacknowledged.store(count as u64, Ordering::Relaxed);
    }

    pub(super) fn count_message(&self, qos: u8) {
        let counter = if qos == 0 { &self.messages_qos0 } else { &self.messages_qos1 };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_redelivered(&self) {
        self.redelivered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_qos0_refused(&self) {
        self.qos0_refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_oversized(&self) {
        self.oversized.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_malformed(&self) {
        self.malformed.fetch_add(1, Ordering::Relaxed);
    }
}
