//! The books: every accepted reading is in exactly one place.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Readings of this instance by where they are. `accepted` is the sum of the others but `kept`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Books {
    /// Committed.
    pub accepted: u64,
    /// In the journal.
    pub hot: u64,
    /// In segments, not delivered.
    pub sealed: u64,
    /// Delivered, still here or not.
    pub delivered: u64,
    /// Replaced by aggregates.
    pub thinned: u64,
    /// Removed undelivered.
    pub dropped: u64,
    /// Lost to damage.
    pub damaged: u64,
    /// On this machine and open to queries, whatever instance they came with.
    pub kept: u64,
}

impl Books {
    /// The places that an accepted reading may be in, with how many are there.
    pub fn places(&self) -> [(&'static str, u64); 6] {
        [
            ("hot", self.hot),
            ("sealed", self.sealed),
            ("delivered", self.delivered),
            ("thinned", self.thinned),
            ("dropped", self.dropped),
            ("damaged", self.damaged),
        ]
    }

    /// Whether every accepted reading is in exactly one place.
    pub fn balanced(&self) -> bool {
        self.accepted == self.places().into_iter().map(|(_, readings)| readings).sum::<u64>()
    }
}

/// Totals of what arrived, durable with the batch they describe. They cover this instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Messages at QoS 0, durable or not told.
    pub messages_qos0: u64,
    /// Messages at QoS 1.
    pub messages_qos1: u64,
    /// Messages at QoS 2.
    pub messages_qos2: u64,
    /// Requests with readings over HTTP.
    pub messages_http: u64,
    /// Readings committed.
    pub readings: u64,
    /// Records received, also those already known.
    pub records: u64,
    /// Messages refused because they can't be decoded or exceed a limit.
    pub rejected: u64,
    /// Messages redelivered, and so not stored again.
    pub duplicates: u64,
    /// Messages left out by a route, and retained ones without a time of their own.
    pub ignored: u64,
    /// Members skipped alone inside good messages: null, NaN, not a number.
    pub skipped_members: u64,
    /// Times that were not plausible and were replaced by the arrival.
    pub times_replaced: u64,
}

impl Tally {
    /// Adds `other` to this.
    pub fn add(&mut self, other: &Self) {
        self.messages_qos0 += other.messages_qos0;
        self.messages_qos1 += other.messages_qos1;
        self.messages_qos2 += other.messages_qos2;
        self.messages_http += other.messages_http;
        self.readings += other.readings;
        self.records += other.records;
        self.rejected += other.rejected;
        self.duplicates += other.duplicates;
        self.ignored += other.ignored;
        self.skipped_members += other.skipped_members;
        self.times_replaced += other.times_replaced;
    }

    /// Messages of every kind.
    pub fn messages(&self) -> u64 {
        self.messages_qos0 + self.messages_qos1 + self.messages_qos2 + self.messages_http
    }
}
