//! What is measured, and what is merely said.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::time::{TimeSource, Timestamp};

/// One value of one metric of one sensor at one time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reading {
    /// When it was measured (or arrived, see `time_source`).
    pub time: Timestamp,
    /// Who measured.
    pub sensor: Arc<str>,
    /// What was measured.
    pub metric: Arc<str>,
    /// The value; `None` where the reading is a state or text. Booleans are 0 and 1. Always finite.
    pub value: Option<f64>,
    /// The state or text.
    pub text: Option<Arc<str>>,
    /// The unit, as the sensor or a route named it.
    pub unit: Option<Arc<str>>,
    /// The quality code, as the sensor sent it.
    pub quality: Option<i16>,
    /// When it reached this gateway.
    pub arrived: Timestamp,
    /// Where `time` comes from.
    pub time_source: TimeSource,
}

/// A message that is not a time series: a birth certificate, a configuration, a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Who said it: the topic, or what a route names.
    pub source: Arc<str>,
    /// What sort it is, for example `discovery`, `command`, `config`, `text`.
    pub kind: Arc<str>,
    /// What it said; UTF-8.
    pub body: String,
    /// When it reached this gateway.
    pub received: Timestamp,
}

/// A record as the ledger keeps it: the same body from the same source is counted, not stored again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct StoredRecord {
    /// 1, 2, 3 ... in the order of first arrival.
    pub id: i64,
    /// Who sent it, as in [`Record`].
    pub source: String,
    /// What it tells of, as in [`Record`].
    pub kind: String,
    /// What it says, as in [`Record`].
    pub body: String,
    /// First arrival.
    pub first_received: Timestamp,
    /// Latest arrival.
    pub last_received: Timestamp,
    /// How often it arrived.
    pub times: u64,
}
