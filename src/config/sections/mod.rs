//! The sections and their defaults, a file each. `config/forebay.toml` explains each key; a test keeps the two equal.

mod api;
mod engine;
mod gateway;
mod ingest;
mod journal;
mod listener;
mod log;
mod mqtt;
mod retention;
mod route;
mod segment;
mod upstream;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units::{ByteSize, Period};

pub use api::Api;
pub use engine::Engine;
pub use gateway::Gateway;
pub use ingest::Ingest;
pub use journal::Journal;
pub use listener::Listener;
pub use log::{Log, LogTarget};
pub use mqtt::Mqtt;
pub use retention::{Retention, WhenFull};
pub use route::{RetainedPolicy, Route, TimeFormat};
pub use segment::Segment;
pub use upstream::{Order, Upstream};

/// Everything that can be set. [`Config::default`] is an empty file's.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who and where.
    pub gateway: Gateway,
    /// Subscribe at an existing broker; absent: off, unless `listener` is absent too.
    pub mqtt: Option<Mqtt>,
    /// Sensors publish straight to forebay; absent: off.
    pub listener: Option<Listener>,
    /// What becomes of messages.
    pub ingest: Ingest,
    /// Rules, first match wins.
    pub route: Vec<Route>,
    /// When a batch is committed.
    pub journal: Journal,
    /// When a cut is sealed.
    pub segment: Segment,
    /// What is kept.
    pub retention: Retention,
    /// Where cuts go; absent: keep only.
    pub upstream: Option<Upstream>,
    /// The doors.
    pub api: Api,
    /// SQL.
    pub engine: Engine,
    /// Logs.
    pub log: Log,
}

const fn seconds(count: u64) -> Period {
    Period(Duration::from_secs(count))
}

const fn mebibytes(count: u64) -> ByteSize {
    ByteSize(count << 20)
}
