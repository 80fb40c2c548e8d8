//! What becomes of messages.

use serde::{Deserialize, Serialize};

use super::mebibytes;
use crate::config::units::ByteSize;

/// What becomes of messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ingest {
    /// IANA zone for times that carry none; empty: the system's.
    pub timezone: String,
    /// Most series; a reading of one more is refused.
    pub max_series: usize,
    /// Most new series in an hour.
    pub max_new_series_per_hour: usize,
    /// Longest message.
    pub max_message_bytes: ByteSize,
}

impl Default for Ingest {
    fn default() -> Self {
        Self { timezone: String::new(), max_series: 50_000, max_new_series_per_hour: 10_000, max_message_bytes: mebibytes(1) }
    }
}
