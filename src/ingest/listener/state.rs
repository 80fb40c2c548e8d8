//! What the listener counts, for status.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that status reads at any time.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn increase(&self) {
        self.add(1);
    }

    pub(super) fn decrease(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Raises it to `value` if it is lower; whether it was.
    pub(super) fn raise(&self, value: u64) -> bool {
        self.0.fetch_max(value, Ordering::Relaxed) < value
    }
}

/// The listener's counters. All but `connections` only grow, from zero at every start.
#[derive(Debug, Default)]
pub struct ListenerState {
    /// Sensors connected now: their CONNECT was accepted.
    pub connections: Counter,
    /// Connections whose CONNECT was accepted.
    pub accepted: Counter,
    /// Connections refused because there were too many.
    pub refused_by_limit: Counter,
    /// Connections whose CONNECT was refused for another reason.
    pub refused: Counter,
    /// Connections closed because the peer broke the protocol.
    pub protocol_errors: Counter,
    /// Connections closed because nothing came within the keep-alive.
    pub silent: Counter,
    /// Connections closed because the same client connected again.
    pub taken_over: Counter,
    /// Messages received at QoS 0, wills among them.
    pub messages_qos0: Counter,
    /// Messages received at QoS 1, redelivered ones among them.
    pub messages_qos1: Counter,
    /// Messages received at QoS 2, redelivered ones among them.
    pub messages_qos2: Counter,
    /// Messages received again and not stored again.
    pub duplicates: Counter,
    /// Messages refused because they were too long.
    pub too_long: Counter,
    /// Messages at QoS 0 dropped because too much was waiting to be committed.
    pub qos0_refused: Counter,
    /// Messages acknowledged, those at QoS 2 to the end.
    pub acknowledged: Counter,
    /// Wills that became messages.
    pub wills: Counter,
    /// Topic filters refused.
    pub subscriptions_refused: Counter,
    /// Pings answered.
    pub pings: Counter,
    /// The second in which the last complaint was logged as a warning.
    pub(super) last_complaint: Counter,
}
