//! What the rooms hold in memory, as plain data: the daemon gathers it at the moment of an answer.

use std::time::Duration;

use super::page::{EnginePage, LinkState, Listeners, Reason};
use super::pulse::Pulse;
use crate::model::Timestamp;

/// The state of every room at one moment. Cheap to gather: atomics and short locks, no I/O.
#[derive(Debug, Clone, Default)]
pub struct Now {
    /// Sources and pump.
    pub ingest: IngestNow,
    /// Uploader.
    pub link: LinkNow,
    /// Retention.
    pub room: RoomNow,
    /// Engine.
    pub engine: EnginePage,
    /// Addresses really bound.
    pub listeners: Listeners,
    /// Whether batches get committed.
    pub pulse: Pulse,
    /// Whether the sources have been started and none is being stopped.
    pub ready: bool,
    /// What the rooms complain of: refused subscriptions, failing commits, damaged files.
    pub troubles: Vec<Reason>,
}

/// What sources and pump know.
#[derive(Debug, Clone, Default)]
pub struct IngestNow {
    /// When the last message arrived.
    pub last_arrival: Option<Timestamp>,
    /// Over the last seconds.
    pub readings_per_s: f64,
    /// Series in the table of latest values.
    pub series: u64,
    /// Deliveries that wait for their commit.
    pub waiting: u64,
    /// Readings committed since the daemon's start.
    pub committed_since_start: u64,
    /// Median commit.
    pub commit_p50: Duration,
    /// Slow commit.
    pub commit_p99: Duration,
    /// QoS 0 messages not taken because too much was waiting; since the start.
    pub refused_under_pressure: u64,
    /// Why the newest rejected message was rejected; since the start.
    pub last_reject: Option<String>,
    /// Sensors connected to the listener.
    pub connections: u64,
    /// Connections the listener refused; since the start.
    pub connections_refused: u64,
    /// TLS handshakes of the listener that failed; since the start.
    pub handshakes_failed: u64,
}

/// What retention knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RoomNow {
    /// Bytes that everything in the data folder takes.
    pub disk_bytes: u64,
    /// Of these, what is in quarantine.
    pub quarantine_bytes: u64,
    /// What should stay free on its file system.
    pub min_free_bytes: u64,
}

/// What the uploader knows.
#[derive(Debug, Clone, Default)]
pub struct LinkNow {
    /// Whether upstream can be reached.
    pub state: LinkState,
    /// Since when it is so.
    pub since: Option<Timestamp>,
    /// When something last arrived there.
    pub last_success: Option<Timestamp>,
    /// What the last failed attempt said; `None` once one went well.
    pub last_error: Option<String>,
    /// Bytes put since the start.
    pub delivered_bytes: u64,
    /// Bytes a second while something is under way.
    pub bytes_per_s: Option<f64>,
}
